"""Very many connections, and many groups."""
import statistics
import time

from cluster import SegmentTest
from members import Member
from test_xtipc_pair import resident_kib

KIB_EACH_MAX = 8
GROUP, ROUNDS = 200_000, 50
# What a machine under load may add to an event that takes less than a millisecond.
LATE_MS_MAX = 100


class ScaleTest(SegmentTest):
    def test_thousands_of_connections_are_open_at_once_and_end_together(self):
        """To another node, and within the node. The full set has more than the 4,096 messages that a program's delivery
        memory takes, so that most of what waits at once is kept elsewhere."""
        count = 10_000 if self.segment.full else 2_000
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        self.lost_before = self.lost_links()
        for name, target in (("to another node", beta), ("within the node", self.alpha)):
            with self.subTest(name):
                self.crowd(name, target, count)

    def crowd(self, name, target, count):
        client, server = self.drive(self.alpha), self.drive(target)
        processes = {"client": client.pid, "server": server.pid, "daemon": self.alpha.process.pid}
        listener = server.listen("stream")
        before = {what: resident_kib(pid) for what, pid in processes.items()}
        listener.request("gather", count)
        opened, opening_us = map(int, client.call("crowd", "stream", listener.address, count, timeout_s=120))
        self.assertEqual((opened, int(server.answer(30)[0])), (count, count))
        grown = {what: (resident_kib(pid) - before[what]) / count for what, pid in processes.items()}
        for sender, receiver in ((client, server), (server, client)):
            sender.request("wave", 200)
            receiver.request("tide", 200)
            sent, sending_us = map(int, sender.answer(60))
            good, _ = map(int, receiver.answer(60))
            self.assertEqual((sent, good), (count, count))
        self.assertEqual(self.connections(), count if target is not self.alpha else 2 * count)
        began = time.monotonic()
        client.request("flock")
        server.kill()
        ended, _ = map(int, client.answer(60))
        reset_s = time.monotonic() - began
        self.assertEqual((ended, self.connections()), (count, 0))
        # So much at once must not keep a worker from its link.
        self.assertEqual(self.lost_links(), self.lost_before)
        print(f"  {count} connections {name}: {opening_us / count:.0f} us to set one up, {sending_us / count:.1f} us for a"
              f" message on each, all reset {reset_s * 1000:.0f} ms after a kill; "
              + ", ".join(f"{what} {kib:.2f} KiB" for what, kib in grown.items()) + " each")
        self.assertLess(sum(grown.values()), KIB_EACH_MAX * (2 if target is self.alpha else 1))
        client.close()

    def lost_links(self):
        return self.alpha.log_text().count("Lost link")

    def connections(self):
        return self.alpha.tool("socket", "list").count("connected to")

    def test_hundreds_of_groups_are_known_on_both_nodes_and_their_events_come_soon(self):
        """A program per node, a member of each in every group."""
        count = 1_000 if self.segment.full else 200
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        here, there = self.drive(self.alpha), self.drive(beta)
        self.events(here, there, "without other groups")
        processes = {"daemon": self.alpha.process.pid, "program": here.pid}
        before = {what: resident_kib(pid) for what, pid in processes.items()}
        began = time.monotonic()
        pairs = [(Member(here, GROUP + number, 1), Member(there, GROUP + number, 2)) for number in range(1, count + 1)]
        joining_us = (time.monotonic() - began) / count / 2 * 1e6
        for pair in pairs:
            self.assertEqual([member.hear()[:2] for member in pair], [("joined", 2), ("joined", 1)])
        grown = {what: (resident_kib(pid) - before[what]) / count for what, pid in processes.items()}
        print(f"  {count} groups of two on two nodes: {joining_us:.0f} us to join one, "
              + ", ".join(f"{what} {kib:.2f} KiB" for what, kib in grown.items()) + " each")
        self.assertLess(sum(grown.values()), KIB_EACH_MAX)
        self.events(here, there, f"beside {count} groups")
        for one, other in pairs:
            one.tell(other.address, one.number, 1000)
        for one, other in pairs:
            self.assertEqual(other.hear()[:2], ("message", 1))
        for one, other in pairs:
            other.leave()
            self.assertEqual(one.hear()[:2], ("left", 2))

    def events(self, here, there, beside):
        """From before a member joins on one node until the other one's program has said that it heard, and likewise a
        message."""
        listener = Member(here, GROUP, 1)
        joins, messages = [], []
        for _ in range(ROUNDS):
            listener.start_hear()
            # It shall wait already.
            time.sleep(0.005)
            began = time.monotonic()
            member = Member(there, GROUP, 2)
            self.assertEqual(listener.heard()[:2], ("joined", 2))
            joins.append(time.monotonic() - began)
            self.assertEqual(member.hear()[:2], ("joined", 1))
            listener.start_hear()
            time.sleep(0.005)
            began = time.monotonic()
            member.tell(listener.address, 1, 100)
            self.assertEqual(listener.heard()[:2], ("message", 2))
            messages.append(time.monotonic() - began)
            member.leave()
            self.assertEqual(listener.hear()[:2], ("left", 2))
        listener.leave()
        for what, late in (("a join", joins), ("a message", messages)):
            late_ms = sorted(1000 * seconds for seconds in late)
            print(f"  {what} is heard on the other node {beside}: median {statistics.median(late_ms):.2f} ms, longest {late_ms[-1]:.2f} ms")
            self.assertLess(statistics.median(late_ms), LATE_MS_MAX)
