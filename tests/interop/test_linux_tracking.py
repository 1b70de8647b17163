"""Service tracking with a Linux node: both nodes' topology services tell the same."""
from cluster import LinuxTest

NODE, LINK, WHOLE = 0, 2, (0, 0xFFFFFFFF)


class LinuxTrackingTest(LinuxTest):
    def test_both_services_tell_the_same_of_bindings_here_and_there(self):
        drivers = [self.drive(self.alpha), self.drive(self.linux)]
        sockets = [driver.open() for driver in drivers]
        sockets[0].bind(42000, 5, 15)
        sockets[1].bind(42000, 1)
        sockets[1].bind(42000, 30)
        self.await_equal_tables(self.alpha, self.linux)
        subscribers = [driver.subscriber() for driver in drivers]

        def told(count):
            """The next events of each subscriber; changes of one step may pass each other on their way."""
            heard = [[event and (event.what, event.port, event.node) for event in subscriber.take(count)]
                     for subscriber in subscribers]
            self.assertEqual(sorted(heard[0]), sorted(heard[1]))
            return [what for what, *_ in heard[0]]

        for subscriber in subscribers:
            subscriber.subscribe(42000, 0, 20, "service")
            subscriber.subscribe(42000, 0, 20, "ports")
            subscriber.subscribe(42000, 30, 40, "ports", timeout="0")
        told(2 + 2 + 2)
        for one, other in (sockets, sockets[::-1]):
            one.bind(42000, 7, 8)
            self.assertEqual(told(2), [("published", 42000, 7, 8)] * 2)
            other.bind(42000, 7, 8)
            self.assertEqual(told(1), [("published", 42000, 7, 8)])
            one.unbind(42000, 7, 8)
            self.assertEqual(told(1), [("withdrawn", 42000, 7, 8)])
            other.unbind(42000, 7, 8)
            self.assertEqual(told(2), [("withdrawn", 42000, 7, 8)] * 2)
        for subscriber in subscribers:
            subscriber.cancel(42000, 0, 20, "ports")
        sockets[0].bind(42000, 9)
        self.assertEqual(told(1), [("published", 42000, 9, 9)])
        sockets[1].call("close")
        self.assertEqual(told(1), [("withdrawn", 42000, 1, 1)])
        self.assertEqual([subscriber.rest() for subscriber in subscribers], [[], []])

    def test_a_linux_program_connects_to_the_service_of_an_xtipc_node(self):
        own, peer = self.alpha.address(), self.linux.address()
        on_linux, server = self.drive(self.linux), self.drive(self.alpha).open()
        subscriber, other = on_linux.subscriber(own), on_linux.subscriber(own)
        subscriber.subscribe(LINK, *WHOLE)
        event = subscriber.next()
        self.assertEqual((event.what, event.node), (("published", LINK, peer, peer), own), "its link, not the asker's")
        subscriber.subscribe(42020, *WHOLE)
        other.subscribe(42020, 7, 7, "service")
        # Of node scope: only its own node's service can tell of it. More than the window of a connection takes.
        for instance in range(1000):
            server.bind(42020, instance, scope="node")
        events = subscriber.take(1000)
        self.assertEqual([event.lower for event in events], list(range(1000)))
        self.assertEqual({(event.port, event.node) for event in events}, {(server.port, own)})
        self.assertEqual(other.next().what, ("published", 42020, 7, 7))
        subscriber.cancel(42020, *WHOLE)
        subscriber.subscribe(42020, 3, 4, timeout="200")
        self.assertEqual([event.what for event in subscriber.rest(1)],
                         [("published", 42020, 3, 3), ("published", 42020, 4, 4), ("timeout", 42020, 3, 4)])
        server.unbind(42020, 7, scope="node")
        self.assertEqual(other.next().what, ("withdrawn", 42020, 7, 7))
        self.assertIsNone(subscriber.next(0.2), "cancelled")

    def test_the_linux_node_its_link_and_its_bindings_are_told_and_their_loss(self):
        subscriber, peer = self.drive(self.alpha).subscriber(), self.linux.address()
        on_linux = self.drive(self.linux)
        on_linux.open().bind(42010, 3)
        self.await_binding(self.alpha, 42010, 3, self.linux)
        for kind in (NODE, LINK, 42010):
            lower, upper = (peer, peer) if kind in (NODE, LINK) else WHOLE
            subscriber.subscribe(kind, lower, upper)
        self.assertEqual([event.what for event in subscriber.take(3)], [("published", NODE, peer, peer),
                         ("published", LINK, peer, peer), ("published", 42010, 3, 3)])
        self.switch.ip("link", "set", "linux", "down")
        try:
            events = subscriber.take(3)
        finally:
            self.switch.ip("link", "set", "linux", "up")
        self.assertEqual([event.what for event in events][-1], ("withdrawn", LINK, peer, peer))
        self.assertEqual({event.what for event in events}, {("withdrawn", NODE, peer, peer),
                         ("withdrawn", 42010, 3, 3), ("withdrawn", LINK, peer, peer)})
        self.assertEqual({event.what for event in subscriber.take(3, 10)}, {("published", LINK, peer, peer),
                         ("published", NODE, peer, peer), ("published", 42010, 3, 3)})
        self.await_link(self.alpha, self.linux, timeout_s=10)
