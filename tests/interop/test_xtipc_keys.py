"""Encrypted xtipc nodes: keys by the tool and from files, who is let in, what is kept."""
import pathlib
import tempfile
import zlib

import drive
import lab
import nets
from cluster import LINK_UP_S, SegmentTest

KEY, MASTER = "this_is_key16_12salt", "0x" + "5a" * 36


class XtipcKeysTest(SegmentTest):
    def setUp(self):
        self.state = self.enter_directory()

    def enter_directory(self):
        directory = tempfile.TemporaryDirectory(prefix="xtipc-state-")
        self.addCleanup(directory.cleanup)
        return pathlib.Path(directory.name)

    def key_file(self, name, text):
        path = self.state / name
        path.write_text(text + "\n")
        path.chmod(0o600)
        return str(path)

    def keyed(self, identity, *flags, **options):
        return self.started(identity, "--state-dir", str(self.state), *flags, **options)

    def test_nodes_with_the_same_key_files_talk_and_say_nothing_in_clear(self):
        flags = "--key-file", self.key_file("key", KEY), "--master-key-file", self.key_file("master", MASTER)
        with self.switch.capture("switch") as capture:
            one, other = (self.keyed(identity, *flags) for identity in ("sealed-1", "sealed-2"))
            self.await_link(one, other)
            sender, receiver = self.drive(one).open(), self.drive(other).open()
            for seed in range(20):
                sender.send(receiver.address, seed, 66000)
                self.assertIsNotNone(receiver.recv(), f"message {seed}")
            macs = {one.mac(), other.mac()}
            frames = capture.find(lambda frame: frame.source in macs)
        self.assertGreater(len(frames), 500)
        self.assertEqual([str(frame) for frame in frames if frame.is_tipc], [], "frames in clear")
        self.assertFalse(self.alpha.is_linked_to("sealed-1"))
        keys = one.tool_json("node", "get", "key")[0]
        self.assertTrue(keys["master"] and keys["pending"]["cluster"] and keys["sealed"] > 500, keys)

    def test_sealed_messages_go_by_ethernet_and_udp_and_carry_on_when_one_link_ends(self):
        flags = "--key-file", self.key_file("key", KEY)
        one, other = (self.keyed(f"sealed-{number}", *flags, bearers=["eth:eth0", f"udp:U,localip=10.8.0.{number}"],
                                 ips=[f"10.8.0.{number}/24"]) for number in (1, 2))
        lab.until(lambda: all(len(nets.up_links(*ends)) == 2 for ends in ((one, other), (other, one))), LINK_UP_S, "both links")
        # The last bit of the sender chooses between the links.
        senders, receiver = [self.drive(one).open() for _ in range(8)], self.drive(other).open()
        for change in ("disable", "enable"):
            for seed, sender in enumerate(senders):
                sender.send(receiver.address, seed, 66000)
                self.assertEqual(receiver.recv().crc, zlib.crc32(drive.pattern(seed, 66000)))
            one.tool("bearer", change, "media", "eth", "device", "eth0")
        lab.until(lambda: len(nets.up_links(one, other)) == 2, LINK_UP_S, "both links again")
        self.assertNotIn("Lost contact with", one.log_text())
        self.assertGreater(one.tool_json("node", "get", "key")[0]["sealed"], 400)

    def test_a_restart_takes_another_epoch(self):
        flags = "--key-file", self.key_file("key", KEY)
        node = self.keyed("epochs", *flags)
        epoch = self.state / node.instance / "epoch"
        first = int(epoch.read_text())
        node.stop()
        node.start()
        self.assertLess(first, int(epoch.read_text()))

    def await_use(self, user, owner):
        """The owner knows that the user received with its pending key: until then another may take that one's place."""
        lab.until(lambda: user.tool_json("node", "get", "key")[0]["switches"], 5, f"{user.identity} uses the key of {owner.identity}")
        sender, receiver = self.drive(user).open(), self.drive(owner).open()
        sender.send(receiver.address, 0, 64)  # says so
        self.assertIsNotNone(receiver.recv())

    def test_keys_by_the_tool_replace_each_other_and_go(self):
        one, other = (self.keyed(identity) for identity in ("tooled-1", "tooled-2"))
        for node in (one, other):
            node.tool("node", "set", "key", KEY)
        self.await_link(one, other)
        self.await_use(other, one)
        with self.assertRaisesRegex(lab.LabError, "(?s)unable to initiate or attach new key.*Device or resource busy"):
            one.tool("node", "set", "key", "another_key_with_salt"[:20])
        with self.assertRaisesRegex(lab.LabError, "(?s)incorrect key length.*Key was rejected by service"):
            one.tool("node", "set", "key", "short")
        with self.assertRaisesRegex(lab.LabError, "unable to load the algorithm"):
            one.tool("node", "set", "key", KEY, "algname", "rot13")
        log = one.log_text()
        self.assertIn("a key was set by an operator", log)
        self.assertNotIn(KEY, log)
        for node in (one, other):
            node.tool("node", "flush", "key")
        self.assertEqual(one.tool_json("node", "get", "key")[0]["pending"], None)
        self.await_link(one, self.alpha)
