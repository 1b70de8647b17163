"""Nodes of one host that share memory: no network joins them."""
import tempfile
import time
import zlib

import drive
import lab
from cluster import LINK_UP_S, SegmentTest

SEEN_MS = 50


class SharedMemoryTest(SegmentTest):
    def setUp(self):
        self.directory = self.enter(Directory())
        self.one, self.two = (self.node(identity) for identity in ("one", "two"))
        self.await_link(self.one, self.two)

    def node(self, identity):
        daemon = self.enter(self.segment.daemon(identity, bearers=[f"shm:pod,dir={self.directory.name}"]))
        daemon.namespace.ip("link", "set", "eth0", "down")
        daemon.start()
        return daemon

    def test_messages_pass_and_a_third_node_joins(self):
        three = self.node("three")
        self.await_link(self.one, three)
        self.await_link(self.two, three)
        receivers = [self.drive(node).open() for node in (self.two, three)]
        for instance, receiver in enumerate(receivers):
            receiver.bind(34000, instance)
        sender = self.drive(self.one).open()
        for instance, (receiver, node) in enumerate(zip(receivers, (self.two, three))):
            self.await_binding(self.one, 34000, instance, node)
            for seed, size in enumerate((1, 4000, 66000)):
                sender.send(f"service,34000,{instance}", seed, size)
                message = receiver.recv()
                self.assertEqual((message.size, message.crc), (size, zlib.crc32(drive.pattern(seed, size))))
        self.await_equal_tables(self.one, self.two, three)
        self.assertIn("shared memory (2 other nodes", self.one.tool("-d", "bearer", "list"))

    def test_a_peer_that_is_killed_is_seen_at_once_and_so_is_an_orderly_end(self):
        subscriber = self.drive(self.one).subscriber()
        subscriber.subscribe(0, 0, 0xffffffff)
        for end in (self.two.kill, self.two.stop):
            address = self.two.address()
            subscriber.rest()
            subscriber.await_event()
            at_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
            end()
            gone = subscriber.awaited()
            self.assertEqual((gone.kind, gone.lower), ("withdrawn", address))
            took_ms = (gone.at_ns - at_ns) / 1e6
            print(f"  {end.__name__}: seen after {took_ms:.1f} ms")
            self.assertLess(took_ms, SEEN_MS, end.__name__)
            self.two.start()
            lab.until(lambda: self.one.is_linked_to("two"), LINK_UP_S, "the link again")


class Directory(tempfile.TemporaryDirectory):
    def close(self):
        self.cleanup()
