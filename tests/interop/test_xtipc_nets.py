"""Two links between xtipc nodes: wires that are cut and mended under traffic, a link added under load, carriers lost."""
import threading
import time

import lab
import load
import nets
from cluster import SegmentTest


class XtipcNetsTest(SegmentTest):
    def setUp(self):
        self.net = self.enter(nets.SecondNet(self.switch))

    def node(self, identity, *flags):
        """A node on both nets, not started."""
        daemon = self.enter(self.segment.daemon(identity, *flags))
        self.net.plug(daemon.namespace, f"{identity}-2")
        self.addCleanup(self.switch.ip, "link", "del", f"{identity}-2")
        return daemon

    def pair(self):
        one, other = (self.node(identity, "--bearer", "eth:eth1") for identity in ("beta", "gamma"))
        for daemon in (one, other):
            daemon.start()
        return one, other

    def test_cuts_of_either_wire_under_traffic_lose_and_reorder_nothing(self):
        one, other = self.pair()
        wires = nets.Wires(self.switch, "beta", "beta-2")
        nets.CutTraffic(self, one, other, wires, 500 if self.segment.full else 8).run()

    def test_both_links_are_shown_and_a_lower_priority_stands_by(self):
        one, other = self.pair()
        for node, peer in ((one, other), (other, one)):
            lab.until(lambda: len(nets.up_links(node, peer)) == 2, 5, "both links")
        shown = one.tool("link", "statistics", "show", "link", "gamma")
        self.assertEqual(shown.count("  ACTIVE  "), 2, shown)
        self.assertIn("links up:2/2", one.tool("status"))
        one.tool("link", "set", "priority", "5", "link", "beta:eth1-gamma:eth1")
        for node, peer in ((one, other), (other, one)):
            lab.until(lambda: node.tool("link", "statistics", "show").count("  STANDBY  MTU:1500  Priority:5  ") == 1, 5,
                      f"a link that stands by at {node.identity}")

    def test_a_link_added_under_load_disturbs_nothing(self):
        one, other = (self.node(identity) for identity in ("beta", "gamma"))
        for daemon in (one, other):
            daemon.start()
        self.await_link(one, other)
        def add():
            time.sleep(1.5)
            for daemon in (one, other):
                daemon.tool("bearer", "enable", "media", "eth", "device", "eth1")
        adding = threading.Thread(target=add)
        adding.start()
        with self.without_resets(one, other):
            traffic = load.Load(self, 5, one, other)
            traffic.run()
        adding.join()
        self.assertEqual(len(nets.up_links(one, other)), 2)
        traffic.report("a second link meanwhile")

    def test_a_carrier_lost_for_a_moment_resets_nothing(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        for _ in range(3):
            self.switch.ip("link", "set", "beta", "down")
            time.sleep(0.11)
            self.switch.ip("link", "set", "beta", "up")
            time.sleep(1.2)
        self.assertTrue(beta.is_linked_to("alpha"))
        self.assertNotIn("Lost link", beta.log_text())

    def test_another_mtu_is_followed_and_the_other_link_carries_on(self):
        one, other = self.pair()
        for node, peer in ((one, other), (other, one)):
            lab.until(lambda: len(nets.up_links(node, peer)) == 2, 5, "both links")
        one.namespace.ip("link", "set", "eth1", "mtu", "1300")
        shown = lambda: one.tool("link", "statistics", "show", "link", "gamma")
        lab.until(lambda: "  ACTIVE  MTU:1300  " in shown() and shown().count("  ACTIVE  ") == 2, 8, "the link with its new MTU")
        self.assertNotIn("Lost contact with", one.log_text())
        sender, receiver = self.drive(one).open(), self.drive(other).open()
        sender.send(receiver.address, 5, 66000)
        self.assertEqual(receiver.recv().size, 66000)

    def test_an_interface_that_goes_down_for_long_comes_back_and_the_other_link_carries_on(self):
        one, other = self.pair()
        for node, peer in ((one, other), (other, one)):
            lab.until(lambda: len(nets.up_links(node, peer)) == 2, 5, "both links")
        sender, receiver = self.drive(one).open(), self.drive(other).open()
        for number in range(2):
            one.namespace.ip("link", "set", "eth1", "down")
            lab.until(lambda: len(nets.up_links(one, other)) == 1, 5, "the end of the link")
            self.assertIn("eth:eth1", one.tool("bearer", "list"))
            sender.send(receiver.address, number, 66000)
            self.assertEqual(receiver.recv().size, 66000)
            one.namespace.ip("link", "set", "eth1", "up")
            lab.until(lambda: len(nets.up_links(one, other)) == 2, 8, "both links again")
        self.assertNotIn("Lost contact with", one.log_text() + other.log_text())

    def test_a_link_whose_interface_is_down_is_given_up_after_a_quarter_of_its_tolerance(self):
        one, other = self.pair()
        for node, peer in ((one, other), (other, one)):
            lab.until(lambda: len(nets.up_links(node, peer)) == 2, 5, "both links")
        for link in nets.up_links(one, other):
            one.tool("link", "set", "tolerance", "4000", "link", link)
        ways = ("the own interface", one.namespace, "eth1"), ("the other end of its wire", self.switch, "beta-2")
        for what, namespace, interface in ways:
            with self.subTest(what):
                namespace.ip("link", "set", interface, "down")
                began = time.monotonic()
                for node, peer in ((one, other), (other, one)):
                    lab.until(lambda: len(nets.up_links(node, peer)) == 1, 3, f"the end of the link at {node.identity}")
                self.assertGreater(time.monotonic() - began, 0.9)
                sender, receiver = self.drive(one).open(), self.drive(other).open()
                sender.send(receiver.address, 1, 66000)
                self.assertEqual(receiver.recv().size, 66000)
                namespace.ip("link", "set", interface, "up")
                lab.until(lambda: len(nets.up_links(one, other)) == 2, 8, "both links again")
        self.assertNotIn("Lost contact with", one.log_text() + other.log_text())

    def test_an_interface_that_disappears_takes_its_bearer_and_the_other_link_carries_on(self):
        one, other = self.pair()
        for node, peer in ((one, other), (other, one)):
            lab.until(lambda: len(nets.up_links(node, peer)) == 2, 5, "both links")
        one.namespace.ip("link", "del", "eth1")
        lab.until(lambda: "eth1" not in one.tool("bearer", "list"), 5, "the end of the bearer")
        sender, receiver = self.drive(one).open(), self.drive(other).open()
        sender.send(receiver.address, 1, 66000)
        self.assertEqual(receiver.recv().size, 66000)
        self.net.plug(one.namespace, "beta-2")
        lab.until(lambda: lab.accepted(one, "bearer", "enable", "media", "eth", "device", "eth1"), 5, "the new interface taken")
        lab.until(lambda: len(nets.up_links(one, other)) == 2, 8, "both links again")
        self.assertNotIn("Lost contact with", one.log_text() + other.log_text())

    def test_links_do_not_notice_that_a_bearer_comes(self):
        one, other = (self.node(identity) for identity in ("beta", "gamma"))
        for daemon in (one, other):
            daemon.start()
        self.await_link(one, other)
        one.tool("link", "set", "tolerance", "300", "link", "beta:eth0-gamma:eth0")
        before = lab.gap_ms(one)
        with self.without_resets(one, other):
            for _ in range(10):
                lab.until(lambda: lab.accepted(one, "bearer", "enable", "media", "eth", "device", "eth1"), 5, "the interface taken")
                time.sleep(0.2)
                one.tool("bearer", "disable", "media", "eth", "device", "eth1")
        self.assertNotIn("Lost link", one.log_text())
        print(f"a bearer enabled ten times: the worker was without a round for at most {lab.gap_ms(one)} ms, {before} ms before",
              flush=True)
