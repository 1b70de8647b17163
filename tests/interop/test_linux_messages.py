"""Datagrams and multicast between xtipc and a real Linux node, both ways."""
import zlib

import drive
from cluster import LinuxTest

SIZES = (1, 1500, 4000, 66000)
ERR_NO_PORT = 2
RETURNED_MAX = 1024
MIXED_SIZES = (12, 64, 200, 1000, 64, 1500, 64, 4000, 64, 300, 64, 66000, 64, 100, 64, 9000)


class LinuxMessagesTest(LinuxTest):
    def both_ways(self):
        on_xtipc, on_linux = self.drive(self.alpha), self.drive(self.linux)
        yield "xtipc to Linux", (self.alpha, on_xtipc), (self.linux, on_linux)
        yield "Linux to xtipc", (self.linux, on_linux), (self.alpha, on_xtipc)

    def assert_received(self, message, seed, size, sender):
        self.assertIsNotNone(message, f"{size} bytes did not arrive")
        self.assertEqual((message.size, message.crc), (size, zlib.crc32(drive.pattern(seed, size))))
        self.assertEqual((message.node, message.port, message.error), (sender.node, sender.port, 0))

    def test_datagrams_of_all_sizes_arrive_by_service_address(self):
        for way, (source, sending), (target, receiving) in self.both_ways():
            sender, receiver = sending.open(), receiving.open()
            receiver.bind(31000, 10, 20)
            self.await_binding(source, 31000, 10, target)
            for seed, size in enumerate(SIZES):
                with self.subTest(way, size=size):
                    sender.send("service,31000,15", seed, size)
                    message = receiver.recv()
                    self.assert_received(message, seed, size, sender)
                    self.assertEqual(message.name, (31000, 15, 15))
            receiver.unbind(31000, 10, 20)

    def test_datagrams_of_all_sizes_arrive_by_socket_address(self):
        for way, (_, sending), (_, receiving) in self.both_ways():
            sender, receiver = sending.open(), receiving.open()
            for seed, size in enumerate(SIZES):
                with self.subTest(way, size=size):
                    sender.send(receiver.address, seed, size)
                    self.assert_received(receiver.recv(), seed, size, sender)

    def test_message_to_a_port_that_is_not_there_comes_back(self):
        for way, (_, sending), (_, receiving) in self.both_ways():
            with self.subTest(way):
                sender, receiver = sending.open(), receiving.open()
                receiver.call("close")
                sender.call("droppable", 0)
                sender.send(receiver.address, 5, 3000)
                message = sender.recv()
                self.assertIsNotNone(message, "nothing came back")
                self.assertEqual((message.error, message.size), (ERR_NO_PORT, RETURNED_MAX))
                self.assertEqual(message.crc, zlib.crc32(drive.pattern(5, RETURNED_MAX)))

    def test_anycast_takes_the_bindings_of_a_node_in_turn(self):
        for way, (source, sending), (target, receiving) in self.both_ways():
            with self.subTest(way):
                sender, receivers = sending.open(), [receiving.open(), receiving.open()]
                for receiver in receivers:
                    receiver.bind(31010, 1)
                self.await_binding(source, 31010, 1, target)
                for seed in range(10):
                    sender.send("service,31010,1", seed, 50)
                got = [sum(receiver.recv(1) is not None for _ in range(5)) for receiver in receivers]
                self.assertEqual(got, [5, 5])
                for receiver in receivers:
                    receiver.unbind(31010, 1)

    def test_multicast_reaches_each_member_on_both_sides_exactly_once(self):
        for way, (source, sending), (target, receiving) in self.both_ways():
            with self.subTest(way):
                sender = sending.open()
                members = [receiving.open(), receiving.open(), sending.open()]
                outside = receiving.open()
                for member, (lower, upper) in zip(members, [(0, 50), (40, 60), (45, 45)]):
                    member.bind(31020, lower, upper)
                outside.bind(31020, 70, 80)
                self.await_equal_tables(source, target)
                for seed in range(20):
                    sender.send("range,31020,42,48", seed, 100 if seed % 5 else 5000)
                for member in members:
                    expected = [zlib.crc32(drive.pattern(seed, 100 if seed % 5 else 5000)) for seed in range(20)]
                    messages = [member.recv() for _ in expected]
                    self.assertEqual([message and message.crc for message in messages], expected)
                for member in (*members, outside):
                    self.assertIsNone(member.recv(0.2))
                for member in (*members, outside):
                    member.call("close")

    def test_traffic_loses_doubles_and_reorders_nothing(self):
        with self.undisturbed("alpha", self.alpha, self.linux):
            self.exchange(300 if self.segment.full else 4)

    def test_traffic_is_whole_while_linux_loses_5_percent(self):
        self.linux.start_loss(5)
        self.addCleanup(self.linux.end_loss)
        with self.undisturbed("alpha", self.alpha, self.linux):
            self.exchange(300 if self.segment.full else 4)

    def exchange(self, seconds):
        """Streams in both directions at once, by service and by socket address, checked message by message."""
        nodes = {"xtipc": self.alpha, "linux": self.linux}
        senders = {side: self.drive(node).open() for side, node in nodes.items()}
        receivers = {side: self.drive(node).open() for side, node in nodes.items()}
        receivers["linux"].bind(31030, 1)
        self.await_binding(self.alpha, 31030, 1, self.linux)
        for receiver in receivers.values():
            receiver.start_collect(streams=1, idle_s=10, limit_s=seconds + 30)
        senders["xtipc"].start_flood("service,31030,1", 1, seconds, 4000, MIXED_SIZES)
        senders["linux"].start_flood(receivers["xtipc"].address, 2, seconds, 4000, MIXED_SIZES)
        sent = {side: int(sender.driver.answer(seconds + 30)[0]) for side, sender in senders.items()}
        for stream, (source, target) in enumerate([("xtipc", "linux"), ("linux", "xtipc")], start=1):
            result = receivers[target].collected(seconds + 60)
            with self.subTest(f"{source} to {target}"):
                self.assertGreater(sent[source], seconds * 20)
                self.assertEqual((result.corrupt, result.returned), (0, 0))
                self.assertEqual(result.streams, {stream: (sent[source], 0, 0, 0)})
