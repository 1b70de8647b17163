"""Crowds of server processes that are killed and started again, on one node and on two."""
import crowd
import lab
from cluster import PairTest

TYPE = 33200


class CrowdsTest(PairTest):
    def test_clients_never_reach_the_sockets_of_killed_servers(self):
        full = self.segment.full
        # The goal is 10 ms. That the own worker keeps beside 50 processes that start at once; the other node's needs processors to spare.
        for number, (asking, latest_s) in enumerate(((self.alpha, 0.010), (self.beta, 0.010 if full else 0.5))):
            kind = TYPE + number
            kills, rejected = crowd.killed_and_restarted(self, crowd.command_on(self.alpha), crowd.command_on(asking), kind,
                                                         lives=100 if full else 3)
            late = [self.since_kill(kills, *times) for times in rejected]
            print(f"  on {asking.identity}: the latest of those was asked {max(late, default=0) * 1000:.1f} ms after a kill", flush=True)
            self.assertLessEqual(max(late, default=0), latest_s)
            for node in (self.alpha, self.beta):
                lab.until(lambda: not any(entry[0] == kind for entry in node.table()), 1, f"no name left at {node.identity}")

    @staticmethod
    def since_kill(kills, asked, came_back):
        """How long after a kill something was asked; 0 if it was with a server when that was killed."""
        if any(asked <= last and first <= came_back for first, last in kills):
            return 0
        return asked - max((last for _, last in kills if last < asked), default=0)
