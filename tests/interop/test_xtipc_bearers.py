"""Bearers that come and go while a node runs, and settings that are changed."""
import json
import time

import lab
from cluster import SegmentTest


class XtipcBearersTest(SegmentTest):
    def setUp(self):
        # Of its own: a node keeps for its peers what they were told, also after they are gone.
        self.beta = self.started("tuned")
        self.await_link(self.alpha, self.beta)

    def refusal(self, *words):
        """What the tool says when it refuses."""
        with self.assertRaises(lab.LabError) as refused:
            self.beta.tool(*words)
        return str(refused.exception)

    def link(self, node, other):
        """The name of the link, as this end has it."""
        return f"{node.identity}:eth0-{other.identity}:eth0"

    def of_link(self, node, other, what):
        return int(node.tool("link", "get", what, "link", self.link(node, other)))

    def test_a_bearer_goes_and_comes_back_while_the_node_runs(self):
        before, before_ms = time.monotonic(), lab.gap_ms(self.beta)
        self.beta.tool("bearer", "disable", "media", "eth", "device", "eth0")
        lab.until(lambda: not self.alpha.is_linked_to("tuned"), 1, "the end of the link at the other node")
        self.assertLess(time.monotonic() - before, 1, "the tolerance was waited for")
        self.assertEqual(self.beta.tool("bearer", "list"), "")
        self.assertEqual(self.beta.tool("link", "list"), "broadcast-link: up\n")
        self.assertIn("Lost link <tuned:eth0-alpha:eth0> on network plane A", self.beta.log_text())
        # At once: the kernel's release of the interface is waited for.
        self.beta.tool("bearer", "enable", "priority", "7", "media", "eth", "device", "eth0", "tolerance", "800")
        self.await_link(self.alpha, self.beta)
        print(f"a bearer disabled and enabled: the worker was without a round for at most {lab.gap_ms(self.beta)} ms,"
              f" {before_ms} ms before", flush=True)
        self.assertEqual(self.beta.tool("bearer", "get", "priority", "media", "eth", "device", "eth0"), "7\n")
        self.assertEqual(self.of_link(self.beta, self.alpha, "tolerance"), 800)
        sender, receiver = self.drive(self.beta).open(), self.drive(self.alpha).open()
        sender.send(receiver.address, 3, 66000)
        self.assertEqual(receiver.recv().size, 66000)
        self.beta.stop()

    def test_a_refusal_says_what_is_accepted(self):
        eth0 = "media", "eth", "device", "eth0"
        link = self.link(self.beta, self.alpha)
        for words, reason in (
            (("bearer", "enable", *eth0), "Already enabled"),
            (("bearer", "enable", "media", "eth", "device", "eth7"), "there is no interface `eth7`; Ethernet interfaces here: eth0"),
            (("bearer", "enable", "priority", "99", "media", "eth", "device", "eth7"), "priority=0 to 32"),
            (("bearer", "disable", "media", "eth", "device", "eth7"), "Bearer not found: enabled are eth:eth0"),
            (("bearer", "set", "tolerance", "49", *eth0), "Illegal tolerance 49: 50 to 30000 ms accepted"),
            (("bearer", "set", "mtu", "1400", *eth0), "MTU property is unsupported"),
            (("link", "set", "window", "8192", "link", link), "Illegal window 8192: 50 to 8191 packets accepted"),
            (("link", "set", "priority", "32", "link", link), "Illegal priority 32: 0 to 31 accepted"),
            (("link", "set", "window", "80", "link", "nowhere"), 'there is no unicast link "nowhere"'),
            (("link", "get", "window", "link", "nowhere"), 'there is no link "nowhere"'),
            (("link", "set", "window", "49", "link", "broadcast-link"), "Illegal window 49: 50 to 8191 packets accepted"),
            (("link", "set", "priority", "9", "link", "broadcast-link"), "broadcast-link has no priority: it can be given a window"),
            (("media", "set", "mtu", "9000", "media", "eth"), "MTU property is unsupported"),
            (("media", "set", "mtu", "127", "media", "udp"), "Illegal mtu 127: 128 to 65507 bytes accepted"),
            (("media", "set", "window", "1", "media", "eth"), "Illegal window 1: 50 to 8191 packets accepted"),
            (("media", "set", "window", "90", "media", "foo"), "Media not found"),
        ):
            with self.subTest(words):
                self.assertIn(reason, self.refusal(*words))

    def test_of_three_bearers_of_the_start_the_third_has_a_lower_priority(self):
        names = "eth:eth0", "udp:U,localip=10.8.0.7", "udp:V,localip=10.8.0.7,localport=7000"
        three = self.started("three", bearers=names, ips=["10.8.0.7/24"])
        bearers = json.loads(three.tool("-j", "bearer", "list"))
        self.assertEqual([(bearer["name"], bearer["priority"]) for bearer in bearers],
                         [("eth:eth0", 10), ("udp:U", 10), ("udp:V", 9)])
        three.stop()
        with self.assertRaisesRegex(lab.LabError, "two bearers have priority 0, give udp:V another"):
            self.started("none", bearers=[f"{name},priority=0" for name in names], ips=["10.8.0.8/24"])

    def test_settings_take_effect_and_the_peer_hears_of_them(self):
        ends = (self.beta, self.alpha), (self.alpha, self.beta)
        link = self.link(self.beta, self.alpha)
        for tolerance in (50, 30000, 700):
            self.beta.tool("link", "set", "tolerance", str(tolerance), "link", link)
            for node, other in ends:
                lab.until(lambda: self.of_link(node, other, "tolerance") == tolerance, 1, f"tolerance {tolerance} at {node.identity}")
        self.beta.tool("link", "set", "window", "77", "link", link)
        self.assertEqual([self.of_link(node, other, "window") for node, other in ends], [77, 8191])
        self.beta.tool("link", "set", "priority", "12", "link", link)
        for node, other in ends:
            lab.until(lambda: self.of_link(node, other, "priority") == 12, 1, f"priority at {node.identity}")
        self.await_link(self.alpha, self.beta)
        self.beta.tool("bearer", "set", "tolerance", "900", "media", "eth", "device", "eth0")
        for node, other in ends:
            lab.until(lambda: self.of_link(node, other, "tolerance") == 900, 1, f"the bearer's tolerance at {node.identity}")
        self.beta.tool("media", "set", "priority", "6", "media", "eth")
        self.beta.tool("bearer", "disable", "media", "eth", "device", "eth0")
        self.beta.tool("bearer", "enable", "priority", "32", "media", "eth", "device", "eth0")
        self.assertEqual(self.beta.tool("bearer", "get", "priority", "media", "eth", "device", "eth0"), "6\n", "the media's")
        self.beta.tool("media", "set", "window", "99", "media", "eth")
        self.assertEqual(self.beta.tool("media", "get", "window", "media", "eth"), "99\n")

    def test_what_is_set_for_the_whole_node_is_kept(self):
        self.beta.tool("link", "set", "window", "200", "link", "broadcast-link")
        self.assertEqual(self.beta.tool("link", "get", "window", "link", "broadcast-link"), "200\n")
        self.beta.tool("link", "monitor", "set", "threshold", "9")
        self.beta.tool("bearer", "disable", "media", "eth", "device", "eth0")
        self.assertEqual(self.beta.tool("link", "monitor", "get", "threshold"), "9\n", "with no bearer")

    def test_a_bearer_that_hears_nothing_says_so_and_whether_udp_gets_through(self):
        cut = lambda port: self.switch.ip("link", "set", port, "nomaster")
        deaf = self.enter(self.segment.daemon("deaf"))
        cut("deaf")
        deaf.start()
        udp = "udp:U,localip=10.8.0.{}"
        filtered = self.enter(self.segment.daemon("filtered", bearers=["eth:eth1", udp.format(21)], ips=["10.8.0.21/24"]))
        self.switch.plug(filtered.namespace, "filtered-eth1", "eth1")
        cut("filtered-eth1")
        filtered.start()
        other = self.started("other", bearers=[udp.format(22)], ips=["10.8.0.22/24"])
        self.await_link(filtered, other)
        diagnosis = lambda node: node.tool_json("status")[0]["bearers"][0].get("diagnosis")
        self.assertEqual([diagnosis(node) for node in (deaf, filtered)], [None, None], "at once")
        silent = "nothing was heard: ethertype 0x88CA may be filtered here, try a UDP bearer"
        blocked = "no frame of ethertype 0x88CA gets through here, while UDP does (udp:U)"
        for node, text in ((deaf, silent), (filtered, blocked)):
            lab.until(lambda: diagnosis(node), 15, f"a diagnosis at {node.identity}")
            lab.until(lambda: text in node.log_text(), 3, f"a line of {node.identity}")
            self.assertIn(f"\n  diagnosis: {text}\n", node.tool("status"))
        self.switch.ip("link", "set", "deaf", "master", "switch")
        self.await_link(self.alpha, deaf)
        self.assertEqual([diagnosis(node) for node in (deaf, other, self.alpha)], [None] * 3)
        self.assertEqual(deaf.log_text().count(silent), 1)

    def test_an_mtu_too_small_for_tipc_ends_the_bearer(self):
        self.beta.namespace.ip("link", "set", "eth0", "mtu", "99")
        lab.until(lambda: self.beta.tool("bearer", "list") == "", 3, "the end of the bearer")
        lab.until(lambda: not self.alpha.is_linked_to("tuned"), 1, "the end of the link at the other node")
        self.beta.namespace.ip("link", "set", "eth0", "mtu", "100")
        self.beta.tool("bearer", "enable", "media", "eth", "device", "eth0")
        self.await_link(self.alpha, self.beta)

    def test_a_node_outlives_its_interface(self):
        self.switch.unplug("tuned")
        lab.until(lambda: self.beta.tool("bearer", "list") == "", 3, "the end of the bearer")
        one, other = self.drive(self.beta).open(), self.drive(self.beta).open()
        one.send(other.address, 1, 100)
        self.assertEqual(other.recv().size, 100)
        self.switch.plug(self.beta.namespace, "tuned")
        self.beta.tool("bearer", "enable", "media", "eth", "device", "eth0")
        self.await_link(self.alpha, self.beta)
