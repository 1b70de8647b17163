"""Service tracking between xtipc nodes: services, nodes and links, and how soon their end is told."""
import statistics
import time

import lab
from cluster import SegmentTest

NODE, LINK, WHOLE = 0, 2, (0, 0xFFFFFFFF)
KILLED_MS = 10
# A link with the tolerance of 1500 ms is given up 1550 ms after the peer's last packet.
GIVEN_UP_MS = 1550
# What a machine under load may add.
SLACK_MS = 500
ROUNDS = 5


def since_ms(event, start_ns):
    return (event.at_ns - start_ns) / 1e6


class XtipcTrackingTest(SegmentTest):
    def test_services_nodes_and_links_are_told_as_they_come_and_go(self):
        subscriber = self.drive(self.alpha).subscriber()
        subscriber.subscribe(NODE, *WHOLE, "service")
        subscriber.subscribe(LINK, *WHOLE)
        subscriber.subscribe(41000, *WHOLE)
        own = self.alpha.address()
        self.assertEqual([event.what for event in subscriber.rest()], [("published", NODE, own, own)])

        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        peer = beta.address()
        self.assertEqual([event.what for event in subscriber.take(2)],
                         [("published", LINK, peer, peer), ("published", NODE, peer, peer)])
        server = self.drive(beta).open()
        server.bind(41000, 10, 19)
        event = subscriber.next()
        self.assertEqual((event.what, event.port, event.node),
                         (("published", 41000, 10, 19), server.port, server.node))
        server.unbind(41000, 10, 19)
        self.assertEqual(subscriber.next().what, ("withdrawn", 41000, 10, 19))
        server.bind(41000, 20)
        self.assertEqual(subscriber.next().what, ("published", 41000, 20, 20))

        killed_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        beta.kill()
        events = subscriber.take(3)
        self.assertEqual([event.what for event in events], [("withdrawn", NODE, peer, peer),
                         ("withdrawn", 41000, 20, 20), ("withdrawn", LINK, peer, peer)])
        late_ms = since_ms(events[0], killed_ns)
        print(f"a dead node was told after {late_ms:.0f} ms")
        self.assertLessEqual(late_ms, GIVEN_UP_MS + (50 if self.segment.full else SLACK_MS))

    def test_an_orderly_stop_is_told_at_once(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        peer = beta.address()
        subscriber = self.drive(self.alpha).subscriber()
        subscriber.subscribe(NODE, peer, peer)
        self.assertEqual(subscriber.next().what, ("published", NODE, peer, peer))
        subscriber.await_event()
        stopped_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        beta.stop()
        event = subscriber.awaited()
        self.assertEqual(event.what, ("withdrawn", NODE, peer, peer))
        self.assertLessEqual(since_ms(event, stopped_ns), 200)

    def test_a_killed_publisher_is_told_within_10_ms_here_and_there(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        subscribers = {node.identity: self.drive(node).subscriber() for node in (self.alpha, beta)}
        delays_ms = {identity: [] for identity in subscribers}
        for subscriber in subscribers.values():
            subscriber.subscribe(41010, *WHOLE)
        for instance in range(ROUNDS):
            publisher = self.drive(self.alpha)
            publisher.open().bind(41010, instance)
            for subscriber in subscribers.values():
                self.assertEqual(subscriber.next().what, ("published", 41010, instance, instance))
                subscriber.await_event()
            killed_ns = publisher.kill()
            for identity, subscriber in subscribers.items():
                event = subscriber.awaited()
                self.assertEqual(event.what, ("withdrawn", 41010, instance, instance))
                delays_ms[identity].append(since_ms(event, killed_ns))
        print(f"a killed publisher was told after (ms): {delays_ms}")
        for identity, delays in delays_ms.items():
            # The machine is shared, so one round may be late; the product is not late as a rule.
            self.assertLessEqual(statistics.median(delays), KILLED_MS, identity)

    def test_a_subscription_ends_in_time_and_a_cancelled_one_says_nothing_more(self):
        driver = self.drive(self.alpha)
        server, subscriber = driver.open(), driver.subscriber()
        server.bind(41020, 1)
        subscribed_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        subscriber.subscribe(41020, 0, 9, timeout="300")
        subscriber.subscribe(41021, 0, 9)
        subscriber.cancel(41021, 0, 9)
        server.bind(41021, 1)
        events = subscriber.rest(1)
        self.assertEqual([event.what for event in events], [("published", 41020, 1, 1), ("timeout", 41020, 0, 9)])
        self.assertGreaterEqual(since_ms(events[1], subscribed_ns), 300)
        self.assertLessEqual(since_ms(events[1], subscribed_ns), 300 + SLACK_MS)
        subscriber.subscribe(41020, 0, 9, timeout="0")
        self.assertEqual([event.kind for event in subscriber.rest()], ["published", "timeout"])

    def test_a_subscriber_that_does_not_read_finds_every_event_in_order_when_it_does(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        subscriber, server = self.drive(self.alpha).subscriber(), self.drive(beta).open()
        subscriber.subscribe(41030, *WHOLE)
        for instance in range(1000):
            server.bind(41030, instance)
        self.await_binding(self.alpha, 41030, 999, beta)
        self.assertEqual([event.lower for event in subscriber.take(1000)], list(range(1000)))
        server.unbind(41030, 500)
        self.assertEqual(subscriber.next().what, ("withdrawn", 41030, 500, 500))

    def test_a_wrong_request_is_refused_with_its_reason(self):
        subscriber = self.drive(self.alpha).subscriber()
        with self.assertRaisesRegex(lab.LabError, "lower is above upper"):
            subscriber.subscribe(41040, 9, 8)
        subscriber.subscribe(41040, 8, 9)
