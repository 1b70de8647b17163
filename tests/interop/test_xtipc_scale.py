"""Very many connections."""
import time

from cluster import SegmentTest
from test_xtipc_pair import resident_kib

KIB_EACH_MAX = 8


class ScaleTest(SegmentTest):
    def test_thousands_of_connections_are_open_at_once_and_end_together(self):
        """To another node, and within the node. The full set has more than the 4,096 messages that a program's delivery
        memory takes, so that most of what waits at once is kept elsewhere."""
        count = 10_000 if self.segment.full else 2_000
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
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
        print(f"  {count} connections {name}: {opening_us / count:.0f} us to set one up, {sending_us / count:.1f} us for a"
              f" message on each, all reset {reset_s * 1000:.0f} ms after a kill; "
              + ", ".join(f"{what} {kib:.2f} KiB" for what, kib in grown.items()) + " each")
        self.assertLess(sum(grown.values()), KIB_EACH_MAX * (2 if target is self.alpha else 1))
        client.close()

    def connections(self):
        return self.alpha.tool("socket", "list").count("connected to")
