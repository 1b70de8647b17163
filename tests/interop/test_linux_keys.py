"""Encryption with a real Linux node: traffic, keys that change under it, wrong keys, clear text."""
import pathlib
import tempfile
import time

import lab
import linux_node
from cluster import LinuxTest

KEY, OTHER_KEY = "this_is_key16_12salt", "some_other_16B_xsalt"
MASTER = "this_is_a_master_key_28_byte"
SECOND = "the_second_key__salt"


class LinuxKeysTest(LinuxTest):
    """A second Linux node of the guest, in a namespace of its own, and xtipc nodes, all in one cluster apart."""

    CLUSTER = 4713

    def setUp(self):
        super().setUp()
        self.state = tempfile.TemporaryDirectory(prefix="xtipc-state-")
        self.addCleanup(self.state.cleanup)
        self.sealed = linux_node.LinuxNode(self.segment.guest, "sealed", "eth1", cluster_id=self.CLUSTER, namespace="sealed")
        self.addCleanup(self.segment.guest.exec, "ip netns del sealed")
        self.sealed.configure()

    def set_key(self, *words):
        self.sealed.tool("node", "set", "key", *words)

    def key_file(self, key):
        path = pathlib.Path(self.state.name) / key
        path.write_text(key)
        path.chmod(0o600)
        return str(path)

    def xtipc(self, identity, key=None, master=None, *flags):
        files = [word for flag, text in (("--key-file", key), ("--master-key-file", master)) if text
                 for word in (flag, self.key_file(text))]
        return self.started(identity, "--cluster-id", str(self.CLUSTER), "--state-dir", self.state.name, *files, *flags)

    def xtipc_with_linux(self):
        """An xtipc node with a link to Linux, both with a key of the cluster and the master key."""
        self.set_key(MASTER, "master")
        self.set_key(KEY)
        node = self.xtipc("sealed-x", KEY, MASTER)
        self.sealed.enable()
        self.await_link(node, self.sealed, timeout_s=5)
        return node

    def exchange(self, one, other, seconds, meanwhile=lambda: None):
        """Streams both ways while `meanwhile` happens; nothing may be lost, doubled or reordered.

        Receivers grant what they can take, so that what is missing was lost by a link and not by a full receive buffer.
        """
        ends = [(self.drive(one).open(), self.drive(other).open()), (self.drive(other).open(), self.drive(one).open())]
        for stream, (sender, receiver) in enumerate(ends, start=1):
            receiver.start_collect(streams=1, idle_s=10, limit_s=seconds + 30, credit=8)
            sender.start_pour(receiver.address, stream, seconds, 32, 1, (64, 1400, 200, 9000))
        meanwhile()
        for stream, (sender, receiver) in enumerate(ends, start=1):
            sent, returned = map(int, sender.driver.answer(seconds + 30))
            result = receiver.collected(seconds + 60)
            self.assertEqual((returned, result.corrupt, result.returned, result.streams), (0, 0, 0, {stream: (sent, 0, 0, 0)}))
            self.assertGreater(sent, seconds * 20)

    def test_a_cluster_key_of_each_length_carries_traffic_with_linux(self):
        for key in (KEY, MASTER, "0x" + "ab" * 36) if self.segment.full else (KEY,):
            with self.subTest(key=len(key)), self.switch.capture("other") as capture:
                self.set_key(key)
                node = self.xtipc(f"sealed-{len(key)}", key)
                self.sealed.enable()
                self.await_link(node, self.sealed, timeout_s=5)
                self.exchange(node, self.sealed, 2)
                clear = capture.find(lambda frame: frame.is_tipc and frame.source in {node.mac(), self.sealed.mac()})
                self.assertEqual([str(frame) for frame in clear], [])
                self.sealed.disable()
                self.sealed.tool("node", "flush", "key")
                node.stop()

    def test_keys_of_single_nodes_carry_traffic_with_linux(self):
        node = self.xtipc("sealed-x")
        for of_node in (self.sealed, node):
            of_node.tool("node", "set", "key", KEY, "nodeid", "sealed")
            of_node.tool("node", "set", "key", OTHER_KEY, "nodeid", "sealed-x")
        with self.switch.capture("other") as capture:
            self.sealed.enable()
            self.await_link(node, self.sealed, timeout_s=5)
            self.exchange(node, self.sealed, 2)
            clear = capture.find(lambda frame: frame.is_tipc and frame.source in {node.mac(), self.sealed.mac()})
        self.assertEqual([str(frame) for frame in clear], [])

    def test_keys_change_under_traffic_with_linux(self):
        if not self.segment.full:
            self.skipTest("half a minute: only with --full")
        node = self.xtipc_with_linux()

        def change():
            time.sleep(11)  # the first keys have to be in use
            node.tool("node", "set", "key", "rekeying", "now")
            self.set_key(SECOND)
        seconds = 27
        self.exchange(node, self.sealed, seconds, change)
        keys = node.tool_json("node", "get", "key")[0]
        self.assertEqual((keys["active"]["cluster"], keys["pending"]), (False, None))
        self.assertGreater(keys["switches"], 2)

    def test_keys_change_each_minute_under_traffic_with_linux(self):
        if not self.segment.full:
            self.skipTest("five minutes: only with --full")
        node = self.xtipc_with_linux()
        switches = lambda: node.tool_json("node", "get", "key")[0]["switches"]
        counts = []

        def change():
            time.sleep(11)  # the first keys have to be in use
            for number in range(5):
                node.tool("node", "set", "key", "rekeying", "now")
                time.sleep(30)
                self.set_key(f"session_key_{number:04}salt")
                time.sleep(30)
                counts.append(switches())
        self.exchange(node, self.sealed, 5 * 60 + 15, change)
        print(f"  switches of keys, after each minute: {counts}")
        # One of an own key, and at least one of the peer's.
        self.assertGreaterEqual(counts[-1] - counts[0], 8)
        self.assertNotIn("Lost link", node.log_text())

    def exchange_while_keys_change(self, one, other, change, join):
        """The two exchange under their first keys, then `change` gives both new ones, and `join` lets others in before these
        are in use."""
        pending = lambda: one.tool_json("node", "get", "key")[0]["pending"]

        def meanwhile():
            time.sleep(11)  # the first keys have to be in use
            change()
            self.assertIsNotNone(pending(), "a new key waits to be used")
            join()
            print(f"  pending once all have joined: {pending()}")
        self.exchange(one, other, 27, meanwhile)
        self.assertNotIn("Lost link", one.log_text())

    def test_nodes_join_linux_with_the_master_key_while_keys_change(self):
        if not self.segment.full:
            self.skipTest("half a minute: only with --full")
        node = self.xtipc_with_linux()
        joined = []

        def change():
            node.tool("node", "set", "key", "rekeying", "now")
            self.set_key(SECOND)

        def join():
            for identity in ("sealed-y", "sealed-z"):
                joined.append(self.xtipc(identity, None, MASTER))
                for other in (node, self.sealed, *joined[:-1]):
                    self.await_link(joined[-1], other, timeout_s=5)
        self.exchange_while_keys_change(node, self.sealed, change, join)
        for newcomer in joined:
            for other in (node, self.sealed):
                self.exchange(newcomer, other, 2)

    def test_linux_joins_with_the_master_key_while_keys_change(self):
        if not self.segment.full:
            self.skipTest("half a minute: only with --full")
        self.set_key(MASTER, "master")
        one, other = (self.xtipc(identity, KEY, MASTER) for identity in ("sealed-x", "sealed-y"))
        self.await_link(one, other, timeout_s=5)

        def change():
            for node in (one, other):
                node.tool("node", "set", "key", "rekeying", "now")

        def join():
            self.sealed.enable()
            for node in (one, other):
                self.await_link(node, self.sealed, timeout_s=5)
        self.exchange_while_keys_change(one, other, change, join)
        for node in (one, other):
            self.exchange(self.sealed, node, 2)

    def test_linux_with_another_key_or_none_is_not_let_in(self):
        node = self.xtipc("sealed-x", KEY)
        self.set_key(OTHER_KEY)
        self.sealed.enable()
        drops = lambda: node.tool_json("status")[0]["drops"]
        lab.until(lambda: drops()["no-key"] > 0, 3, "the other key is noticed")
        self.sealed.tool("node", "flush", "key")
        lab.until(lambda: drops()["clear-text"] > 0, 5, "clear text is noticed")
        self.assertEqual((node.links(), self.sealed.links().get("x")), ({}, None))
