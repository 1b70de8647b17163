"""Zero-copy: xtipcd in a guest of its own, on the guest's virtio NIC, with the Linux node of the other guest as its peer."""
import time

import lab
from cluster import LinuxTest

SUITE = "trixie-backports"
SIZES = (64, 1000, 64, 200, 64, 1400, 64, 4000)
"""The last is cut into fragments."""
WINDOW = 400
CREDIT = 50
ROUND_S = 5


class ZeroCopyTest(LinuxTest):
    def setUp(self):
        if not self.segment.guest.name.endswith(SUITE):
            self.skipTest(f"needs the kernel of {SUITE}, and is run with that suite")
        super().setUp()

    def test_messages_cross_a_zero_copy_bearer_once_and_in_order(self):
        least = 50_000 if self.segment.full else 2_000
        guest = self.enter(lab.Guest(SUITE, self.switch, ["zerocopy"], label="zerocopy", share=lab.TARGET))
        guest.wait()
        # With any other mode refused the daemon would not start.
        node = self.enter(lab.GuestDaemon(guest, "zerocopy", "--xdp", "zerocopy"))
        self.assert_zero_copy(guest, node)
        self.await_link(node, self.linux, timeout_s=20)
        with self.without_resets(node, self.linux):
            sent = self.exchange(node, least)
        self.assert_zero_copy(guest, node)
        print(f"  over zero-copy: {sent} messages")
        node.stop()

    def assert_zero_copy(self, guest, node):
        status, = node.tool_json("status")
        bearer, = status["bearers"]
        queues = [(queue['rx_packets'], queue['tx_packets']) for queue in bearer["queues"]]
        print(f"  Linux {guest.release()}: {bearer['mode']}, {bearer['mode_reason']}; packets of queues {queues},"
              f" drops {bearer['drops']}")
        self.assertEqual(bearer["mode"], "xdp-zero-copy")

    def exchange(self, node, least):
        """So many messages each way at the same time, each received once and in order."""
        ways = {"to Linux": (node, self.linux), "from Linux": (self.linux, node)}
        sockets = {way: (self.drive(source).open(), self.drive(target).open()) for way, (source, target) in ways.items()}
        total = dict.fromkeys(ways, 0)
        started = time.monotonic()
        stream = 0
        while min(total.values()) < least:
            stream += 1
            for way, (sender, receiver) in sockets.items():
                sender.call("droppable", 0)
                receiver.start_collect(1, 20, 60, CREDIT)
                sender.start_pour(receiver.address, stream, ROUND_S, WINDOW, 1, SIZES)
            for way, (sender, receiver) in sockets.items():
                sent, returned = map(int, sender.driver.answer(90))
                result = receiver.collected(90)
                with self.subTest(way, stream=stream):
                    self.assertEqual((returned, result.corrupt, result.returned), (0, 0, 0))
                    self.assertEqual(result.streams, {stream: (sent, 0, 0, 0)})
                    self.assertGreater(sent, 100, "hardly any traffic")
                total[way] += sent
        print(f"  {total} in {time.monotonic() - started:.0f} s")
        return total
