"""A node with two workers beside a Linux node."""
import zlib

import drive
from cluster import LinuxTest

SIZES = (1, 1000, 20000, 66000)


class LinuxWorkersTest(LinuxTest):
    def test_all_sizes_pass_a_node_whose_queue_another_worker_serves(self):
        node = self.started("beta", "--workers", "2")
        self.await_link(node, self.linux, timeout_s=10)
        ends = [(source, source.open(), source.open()) for source in (self.drive(node), self.drive(self.linux))]
        for turn in range(40):
            size = SIZES[turn % len(SIZES)]
            for (_, sender, _), (_, _, receiver) in (ends, ends[::-1]):
                sender.send(receiver.address, turn, size)
                message = receiver.recv()
                self.assertEqual((message.size, message.crc), (size, zlib.crc32(drive.pattern(turn, size))))
        queue, = node.tool_json("status")[0]["bearers"][0]["queues"]
        print(f"  {queue}", flush=True)
        self.assertEqual(queue["worker"], 1)
        self.assertGreaterEqual(queue["handover"]["rx"], queue["rx_packets"])
        self.assertNotIn("rx-dropped", queue["handover"])
        node.stop()
