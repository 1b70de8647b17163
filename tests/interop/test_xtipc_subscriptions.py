"""Many subscriptions on one node: what one costs, and how soon an event of another node reaches its subscriber."""
import statistics
import time

from cluster import SegmentTest
from test_xtipc_pair import resident_kib

SUBSCRIPTIONS, SUBSCRIPTIONS_FULL = 1_000, 10_000
FIRST_TYPE, SHARED_TYPE = 100_000, 90_000
KIB_EACH_MAX = 1
ROUNDS = 100
# What a machine under load may add to an event that takes some 100 us.
LATE_MS_MAX = 100


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


class XtipcSubscriptionsTest(SegmentTest):
    def test_thousands_of_subscriptions_cost_little_and_are_told_at_once(self):
        count = SUBSCRIPTIONS_FULL if self.segment.full else SUBSCRIPTIONS
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        driver = self.drive(beta)
        server = self.drive(self.alpha).open()
        alone = self.measure(driver, server, "without any other subscription", FIRST_TYPE)

        many = driver.subscriber()
        processes = beta.process.pid, driver.pid
        before = [resident_kib(pid) for pid in processes]
        began = time.monotonic()
        for number in range(1, count + 1):
            many.subscribe(FIRST_TYPE + number, 0, 99)
        each_us = (time.monotonic() - began) / count * 1e6
        grown = [resident_kib(pid) - kib for pid, kib in zip(processes, before)]
        print(f"{count} subscriptions: daemon {grown[0] / count:.2f} KiB each, application {grown[1] / count:.2f} KiB each,"
              f" {each_us:.0f} us to subscribe")
        self.assertLess(sum(grown) / count, KIB_EACH_MAX)
        listed = [socket["details"]["subscriber"]["subscriptions"] for socket in beta.tool_json("-d", "socket", "list")
                  if "subscriber" in socket["details"]]
        self.assertIn(count, listed)

        beside = self.measure(driver, server, f"beside {count}", FIRST_TYPE)
        self.assertLess(statistics.median(beside), statistics.median(alone) + LATE_MS_MAX)
        # One of the many.
        late = self.rounds(many, server, FIRST_TYPE + count)
        self.report(f"as one of {count} of a subscriber", late)
        self.assertLess(statistics.median(late), LATE_MS_MAX)
        self.tell_all(driver, server, count)

    def tell_all(self, driver, server, count):
        """One binding that all subscriptions of a subscriber are for."""
        all_same = driver.subscriber()
        for _ in range(count):
            all_same.subscribe(SHARED_TYPE, 0, 99)
        began_ns = now_ns()
        server.bind(SHARED_TYPE, 1)
        events = all_same.take(count)
        self.assertEqual({event.what for event in events}, {("published", SHARED_TYPE, 1, 1)})
        self.assertEqual(all_same.rest(), [])
        first_ms, last_ms = ((events[at].at_ns - began_ns) / 1e6 for at in (0, -1))
        print(f"a binding that {count} subscriptions are for: first event after {first_ms:.2f} ms, the last read after"
              f" {last_ms:.0f} ms")
        server.unbind(SHARED_TYPE, 1)

    def measure(self, driver, server, what, kind):
        subscriber = driver.subscriber()
        subscriber.subscribe(kind, 0, 99)
        late = self.rounds(subscriber, server, kind)
        self.report(what, late)
        return late

    def rounds(self, subscriber, server, kind):
        """From before the call that binds on one node until the event was read on the other, in ms."""
        late = []
        for number in range(ROUNDS):
            subscriber.await_event()
            # The subscriber shall wait already.
            time.sleep(0.005)
            began_ns = now_ns()
            server.bind(kind, number % 100)
            late.append((subscriber.awaited().at_ns - began_ns) / 1e6)
            server.unbind(kind, number % 100)
            self.assertEqual(subscriber.next().what[0], "withdrawn")
        return late

    def report(self, what, late):
        late = sorted(late)
        print(f"event of another node, {what}: median {statistics.median(late):.2f} ms, 99 of 100 within"
              f" {late[-2]:.2f} ms, all within {late[-1]:.2f} ms")
