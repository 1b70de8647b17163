"""UDP bearers between xtipc nodes: enabled and given peers while the nodes run."""
import zlib

import drive
import lab
from cluster import LINK_UP_S, SegmentTest


class UdpTest(SegmentTest):
    def node(self, identity, address, *bearers):
        return self.started(identity, bearers=bearers, ips=[f"{address}/24"])

    def await_lost(self, one, identity, timeout_s=1):
        lab.until(lambda: not one.is_linked_to(identity), timeout_s, f"{one.identity} without {identity}")

    def test_peers_are_added_and_removed_without_touching_other_links(self):
        # Nobody is at the address that `hub` starts with, and the others know only `hub`.
        hub = self.node("hub", "10.8.0.1", "udp:U,localip=10.8.0.1,remoteip=10.8.0.99")
        first = self.node("first", "10.8.0.2", "udp:U,localip=10.8.0.2,remoteip=10.8.0.98")
        second = self.node("second", "10.8.0.3", "udp:U,localip=10.8.0.3,remoteip=10.8.0.98")
        hub.tool("bearer", "add", "media", "udp", "name", "U", "remoteip", "10.8.0.2")
        self.await_link(hub, first)
        hub.tool("bearer", "add", "media", "udp", "name", "U", "remoteip", "10.8.0.3")
        self.await_link(hub, second)
        get = hub.tool("bearer", "get", "media", "udp", "name", "U", "remoteip").split()
        self.assertEqual(get, ["10.8.0.99", "10.8.0.2", "10.8.0.3"])
        self.assertEqual(first.tool("bearer", "get", "media", "udp", "name", "U", "remoteip").split(),
                         ["10.8.0.98", "10.8.0.1"], "who has a link gets copies too")
        # Bindings go by broadcast.
        bound = self.drive(first).open()
        bound.bind(33000, 1)
        self.await_binding(hub, 33000, 1, first)
        resets = hub.link_statistics("second")[0]
        hub.tool("bearer", "remove", "media", "udp", "name", "U", "remoteip", "10.8.0.2")
        self.await_lost(hub, "first")
        self.await_lost(first, "hub")
        self.assertTrue(hub.is_linked_to("second"))
        self.assertGreaterEqual(hub.link_statistics("second")[0]["rx packets"], resets["rx packets"], "the link was reset")
        for words, text in ((("remove", "10.8.0.2"), "is no peer of the bearer"), (("add", "10.8.0.3"), "already is a peer"),
                            (("add", "fd08::1"), "no address of one peer"), (("add", "0.0.0.0"), "no address of one peer"),
                            (("add", "228.0.0.1"), "no address of one peer")):
            with self.assertRaisesRegex(lab.LabError, text):
                hub.tool("bearer", words[0], "media", "udp", "name", "U", "remoteip", words[1])

    def test_a_peer_that_was_removed_stays_away_until_it_is_added_again(self):
        # `first` has no other peer, so that it searches fast when it is removed.
        hub = self.node("hub", "10.8.0.1", "udp:U,localip=10.8.0.1,remoteip=10.8.0.2,remoteip=10.8.0.3")
        first = self.node("first", "10.8.0.2", "udp:U,localip=10.8.0.2,remoteip=10.8.0.1")
        second = self.node("second", "10.8.0.3", "udp:U,localip=10.8.0.3,remoteip=10.8.0.1")
        for other in (first, second):
            self.await_link(hub, other)
        of_first = "media", "udp", "name", "U", "remoteip", "10.8.0.2"
        dropped = lambda: hub.tool_json("status")[0]["bearers"][0]["drops"].get("rx-removed-peer", 0)
        hub.tool("bearer", "remove", *of_first)
        self.await_lost(hub, "first")
        self.await_lost(first, "hub")
        before = dropped()
        lab.until(lambda: dropped() >= before + 3, 10, "discovery messages of the removed node")
        self.assertFalse(hub.is_linked_to("first") or first.is_linked_to("hub"))
        self.assertTrue(hub.is_linked_to("second"))
        hub.tool("bearer", "add", *of_first)
        self.await_link(hub, first)
        hub.tool("bearer", "remove", *of_first)
        self.await_lost(first, "hub")
        hub.tool("bearer", "disable", "media", "udp", "name", "U")
        hub.tool("bearer", "enable", *of_first[:4], "localip", "10.8.0.1", "remoteip", "10.8.0.3")
        self.await_link(hub, first)

    def test_a_udp_bearer_is_enabled_tuned_and_disabled_while_the_node_runs(self):
        one = self.started("one", ips=["10.8.0.4/24"])
        two = self.node("two", "10.8.0.5", "udp:U,localip=10.8.0.5")
        one.tool("bearer", "enable", "media", "udp", "name", "V", "localip", "10.8.0.4")
        self.assertEqual(one.tool("bearer", "list").split(), ["eth:eth0", "udp:V"])
        self.await_link(one, two)
        self.assertTrue(one.is_linked_to("alpha") or lab.until(lambda: one.is_linked_to("alpha"), LINK_UP_S, "alpha"))
        get = lambda *words: one.tool("bearer", "get", *words, "media", "udp", "name", "V").strip()
        self.assertEqual(one.tool("bearer", "get", "media", "udp", "name", "V", "remoteip").strip(), "228.0.18.103")
        self.assertEqual((get("window"), get("priority")), ("50", "10"))
        link = next(name for name in one.links() if "-two:" in name)
        before = one.tool("bearer", "get", "mtu", "media", "udp", "name", "V").strip()
        listener = self.drive(two).listen("stream")
        caller = self.drive(one)
        caller.start_connect("stream", listener.address)
        server, client = listener.accept(), caller.connected()
        for mtu in ("1400", before):
            one.tool("bearer", "set", "mtu", mtu, "media", "udp", "name", "V")
            self.assertEqual(get("mtu"), mtu)
            for node, peer in ((one, "two"), (two, "one")):
                lab.until(lambda: f"MTU:{mtu} " in node.tool("link", "statistics", "show", "link", peer), 1, f"MTU {mtu} at both ends")
            for sender, receiver in ((client, server), (server, client)):
                sender.write(3, 60_000)
                self.assertEqual(receiver.read(60_000), (60_000, zlib.crc32(drive.pattern(3, 60_000))))
        self.assertNotIn(f"Lost link <{link}>", one.log_text())
        for words, text in ((("set", "mtu", "127"), "out-of-range"), (("set", "mtu", "65000"), "out-of-range")):
            with self.assertRaisesRegex(lab.LabError, text):
                one.tool("bearer", *words, "media", "udp", "name", "V")
        with self.assertRaisesRegex(lab.LabError, "multicast group"):
            one.tool("bearer", "add", "media", "udp", "name", "V", "remoteip", "10.8.0.5")
        with self.assertRaisesRegex(lab.LabError, "no interface has the address"):
            one.tool("bearer", "enable", "media", "udp", "name", "W", "localip", "10.8.0.77")
        one.tool("bearer", "disable", "media", "udp", "name", "V")
        self.await_lost(two, "one")
        self.assertTrue(one.is_linked_to("alpha"))

    def test_a_bearer_is_enabled_with_the_mtu_it_is_given_or_told_what_it_can_have(self):
        one = self.started("one", ips=["10.8.0.4/24"])
        enable = lambda mtu: one.tool("bearer", "enable", "media", "udp", "name", "V", "localip", "10.8.0.4", "mtu", mtu)
        # The pool was made for Ethernet's 1500.
        for mtu, accepted in (("127", "mtu=`127` .*accepted: 128 to 65507"), ("65508", "accepted: 128 to 65507"),
                              ("9000", "mtu 9000 is more than the frame pool holds.*accepted: 128 to 4032")):
            with self.assertRaisesRegex(lab.LabError, accepted):
                enable(mtu)
        enable("1300")
        self.assertEqual(one.tool("bearer", "get", "mtu", "media", "udp", "name", "V"), "1300\n")
