"""Crowds of server processes that are killed and started again, with Linux as one of the two nodes."""
import crowd
import lab
from cluster import LinuxTest

TYPE = 33300


class LinuxCrowdsTest(LinuxTest):
    def test_clients_find_the_servers_that_took_the_place_of_killed_ones(self):
        own, linux = crowd.command_on(self.alpha), crowd.command_in(self.linux)
        for number, (serving, asking) in enumerate(((own, linux), (linux, own))):
            kind = TYPE + number
            # The guest's one processor is an emulated one.
            crowd.killed_and_restarted(self, serving, asking, kind, servers=10, sockets=20, lives=2)
            for node in (self.alpha, self.linux):
                lab.until(lambda: not any(entry[0] == kind for entry in node.table()), 3, f"no name left at {node.identity}")
