"""A link between xtipc nodes under full traffic: over a wire that loses, doubles and reorders, one that flips bytes, and
a sound one."""
import errno
import time

import lab
import load
from cluster import PairTest

SECONDS = 6
SECONDS_FULL = 600


class XtipcImpairedTest(PairTest):
    def test_full_traffic_is_whole_over_a_wire_that_loses_doubles_and_reorders_5_percent(self):
        with self.impaired("beta", self.alpha, self.beta):
            traffic = load.Load(self, SECONDS_FULL if self.segment.full else SECONDS, self.alpha, self.beta)
            with self.without_resets(self.alpha, self.beta):
                traffic.run()
            traffic.report("5 % loss, duplication and reordering each way")
            self.await_equal_tables(self.alpha, self.beta)

    def test_full_traffic_over_a_sound_wire_is_hardly_ever_sent_again(self):
        traffic = load.Load(self, 120 if self.segment.full else SECONDS, self.alpha, self.beta)
        with self.without_resets(self.alpha, self.beta):
            traffic.run()
        traffic.report("sound wire")
        traffic.check_hardly_repeated()

    def test_changed_headers_break_nothing_for_longer_than_they_last(self):
        # TIPC has no checksum, so a header changed into a valid one is believed, and what it bound or withdrew stays so until
        # the nodes lose contact; what it sent, until one of them ends. So both are this test's own.
        gamma = self.started("gamma")
        self.await_link(self.beta, gamma)
        with lab.Relay(self.switch, "gamma", corruption=2, corrupt_within=60, seed=3) as relay:
            before = self.drops(gamma) + self.drops(self.beta)
            ways = [(self.drive(one).open(), self.drive(other).open())
                    for one, other in ((self.beta, gamma), (gamma, self.beta))]
            end = time.monotonic() + (60 if self.segment.full else 6)
            while time.monotonic() < end:
                for stream, (sender, target) in enumerate(ways):
                    sender.start_flood(target.address, stream, 0.5, 200, load.SMALL + load.LARGE)
                for sender, _ in ways:
                    self.finish_or_lose_the_link(sender)
            for way in relay.change():
                self.assertGreater(way["corrupted"], 40)
            self.assertGreater(self.drops(gamma) + self.drops(self.beta), before)
            self.await_link(self.beta, gamma, timeout_s=10)
            bearer = "media", "eth", "device", "eth0"
            gamma.tool("bearer", "disable", *bearer)
            lab.until(lambda: not self.beta.is_linked_to("gamma"), 5, "contact lost")
            lab.until(lambda: lab.accepted(gamma, "bearer", "enable", *bearer), 5, "the bearer enabled again")
            self.await_link(self.beta, gamma, timeout_s=10)
            with self.without_resets(self.beta, gamma):
                load.Load(self, 2, self.beta, gamma).run()

    def finish_or_lose_the_link(self, sender):
        try:
            sender.driver.answer(60)
        except lab.Failed as error:
            self.assertEqual(error.errno, errno.EHOSTUNREACH)
            time.sleep(0.1)

    def drops(self, node):
        """How many packets the node refused, for whatever reason."""
        return sum(node.tool_json("status")[0]["drops"].values())
