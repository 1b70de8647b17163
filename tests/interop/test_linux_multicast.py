"""Multicasts among a Linux node and two xtipc nodes over a wire that loses: all of them, once and in order, at every member."""
import contextlib
import re
import time
import zlib

import drive
import lab
from cluster import LinuxTest

SERVICE = 31600
LOSS_PERCENT = 4
LEAST = 10_000
"""Multicasts of each sender with --full."""
SIZES = (100, 1500, 12, 4000)
WINDOW, CREDIT = 32, 8
SWITCHES, BETWEEN = 8, 3


class LinuxMulticastTest(LinuxTest):
    def setUp(self):
        super().setUp()
        # It sends again to the one that misses something, the others to all.
        self.beta = self.started("beta", "--bc-retruni", "1")
        self.nodes = (self.alpha, self.beta, self.linux)
        for one, other in ((self.alpha, self.beta), (self.beta, self.linux), (self.alpha, self.linux)):
            self.await_link(one, other, timeout_s=10)

    def members(self):
        """A member on each node, in a program of its own, and everybody knows of all."""
        members = [self.drive(node).open() for node in self.nodes]
        for member in members:
            member.bind(SERVICE, 10, 19)
            member.call("buffer")
        self.await_equal_tables(*self.nodes, timeout_s=10)
        return members

    @contextlib.contextmanager
    def lossy(self):
        with lab.Relay(self.switch, "linux", loss=LOSS_PERCENT) as relay:
            for node in (self.alpha, self.beta):
                self.await_link(node, self.linux, timeout_s=10)
            yield relay

    def test_forced_broadcasts_arrive_once_and_in_order_over_a_wire_that_loses_4_percent(self):
        members = self.members()
        senders = self.broadcasters(self.alpha, self.linux)
        sent = [0, 0]
        with self.lossy() as relay, self.without_resets(*self.nodes):
            while min(sent) < (LEAST if self.segment.full else 1):
                self.round(members, senders, sent, 60 if self.segment.full else 4)
            for way in relay.counters():
                self.assertGreater(way["lost"], way["frames"] * LOSS_PERCENT / 200, "the wire lost too little")
        print(f"  multicasts sent from xtipc and from Linux: {sent}")

    def test_broadcasts_that_are_sent_again_to_one_node_alone_arrive_once_and_in_order(self):
        setting = "/proc/sys/net/tipc/bc_retruni"
        self.linux.guest.exec(f"echo 1 >{setting}")
        self.addCleanup(self.linux.guest.exec, f"echo 0 >{setting}")
        members, senders = self.members(), self.broadcasters(self.beta, self.linux)
        with self.lossy(), self.without_resets(*self.nodes):
            self.round(members, senders, [0, 0], 60 if self.segment.full else 4)
        again = [int(re.search(r"retrans:(\d+)", node.tool("link", "stat", "show", "link", "broadcast-link"))[1])
                 for node in (self.beta, self.linux)]
        print(f"  sent again to one node alone, from xtipc and from Linux: {again}")
        self.assertGreater(min(again), 0)

    def broadcasters(self, *nodes):
        senders = [self.drive(node).open() for node in nodes]
        for sender in senders:
            sender.call("droppable", 0)
            sender.call("multicast", "broadcast")
        return senders

    def round(self, members, senders, sent, seconds):
        for member in members:
            member.start_collect(2, 30, seconds + 60, CREDIT)
        for stream, sender in enumerate(senders):
            sender.start_pour(f"range,{SERVICE},10,19", stream, seconds, WINDOW, len(members), SIZES)
        counts = [tuple(map(int, sender.driver.answer(seconds + 90))) for sender in senders]
        expected = {stream: (count, 0, 0, 0) for stream, (count, _) in enumerate(counts)}
        for node, member in zip(self.nodes, members):
            result = member.collected(seconds + 90)
            with self.subTest(node.identity):
                self.assertEqual((result.corrupt, result.streams), (0, expected))
        for stream, (count, returned) in enumerate(counts):
            self.assertEqual(returned, 0, "rejected messages")
            self.assertGreater(count, seconds, "hardly any traffic")
            sent[stream] += count

    def test_order_is_kept_while_the_method_follows_the_number_of_destinations(self):
        """Copies to one node, a broadcast to two. A Linux sender marks a switch by itself, and not one that it is told."""
        for source, others in ((self.alpha, (self.linux, self.beta)), (self.linux, (self.alpha, self.beta))):
            with self.subTest(source.identity):
                sender, (always, half) = self.drive(source).open(), [self.drive(node).open() for node in others]
                always.bind(SERVICE, 30, 49)
                half.bind(SERVICE, 40, 49)
                self.await_equal_tables(*self.nodes, timeout_s=10)
                turns = 10 * SWITCHES if self.segment.full else SWITCHES
                crcs = [[zlib.crc32(drive.pattern(turn * BETWEEN + number, 200)) for number in range(BETWEEN)]
                        for turn in range(turns)]
                with self.lossy():
                    for turn in range(turns):
                        for number in range(BETWEEN):
                            sender.send(f"range,{SERVICE},{35 + turn % 2 * 10},{36 + turn % 2 * 10}", turn * BETWEEN + number, 200)
                    for member, expected in ((always, sum(crcs, [])), (half, sum(crcs[1::2], []))):
                        messages = [member.recv(10) for _ in expected]
                        self.assertEqual([message and message.crc for message in messages], expected)
                        self.assertIsNone(member.recv(0.2))
                for member in (always, half):
                    member.call("close")

    def test_a_linux_sender_marks_a_switch_of_its_own_and_not_one_that_it_is_told(self):
        sender = self.drive(self.linux).open()
        always, half = self.drive(self.alpha).open(), self.drive(self.beta).open()
        always.bind(SERVICE, 30, 49)
        half.bind(SERVICE, 40, 49)
        self.await_equal_tables(*self.nodes, timeout_s=10)
        linux, sent = self.linux.mac(), iter(range(100))

        def halves(steps):
            """Halves of pairs in the multicasts of these steps: to an instance, by the method told before."""
            with self.switch.capture("linux") as capture:
                for method, instance in steps:
                    if method:
                        sender.call("multicast", method)
                    seed = next(sent)
                    sender.send(f"range,{SERVICE},{instance},{instance}", seed, 200)
                    self.assertEqual(always.recv().crc, zlib.crc32(drive.pattern(seed, 200)))
                time.sleep(0.1)
                return len(capture.find(lambda frame: frame.source == linux and frame.is_switch))

        # Half of each pair by broadcast, half as copies: to one node, and to both.
        self.assertEqual(halves([(None, 35), (None, 45), (None, 35), (None, 45)]), 2 + 3 + 2 + 3)
        self.assertEqual(halves([("replicast", 45), ("broadcast", 45)] * 2), 0)
