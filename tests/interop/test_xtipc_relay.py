"""The lab's relay itself: what passes it, and what it answers to mistakes."""
import socket
import struct
import subprocess

import lab
from cluster import SegmentTest

EXPERIMENTAL = 0x88B5
PACKET_AUXDATA, SOL_PACKET = 8, 263
BROADCAST, SOURCE = b"\xff" * 6, bytes.fromhex("020000000001")
VLAN_VALID = 1 << 4


class Listener:
    """Receives frames of one ethertype with the tag that the kernel takes out."""

    def __init__(self, namespace, interface):
        with namespace.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self.socket.bind((interface, 3))
        self.socket.settimeout(2)

    def next(self):
        """Payload and tag of the next frame of the experimental ethertype."""
        while True:
            data, ancillary, _, _ = self.socket.recvmsg(2000, 64)
            if data[12:14] == struct.pack(">H", EXPERIMENTAL):
                status, _, _, _, _, tag, _ = struct.unpack("IIIHHHH", ancillary[0][2])
                return data[14:], tag if status & VLAN_VALID else None

    def close(self):
        self.socket.close()


class RelayTest(SegmentTest):
    def plugged(self, label):
        namespace = self.enter(lab.Namespace(label))
        self.switch.plug(namespace, label)
        self.addCleanup(self.switch.unplug, label)
        return namespace

    def test_relay_passes_every_ethertype_and_tag_both_ways(self):
        left, right = self.plugged("left"), self.plugged("right")
        relay = self.enter(lab.Relay(self.switch, "right"))
        for sender, receiver in ((left, right), (right, left)):
            injector, listener = self.enter(sender.injector("eth0")), self.enter(Listener(receiver, "eth0"))
            plain = struct.pack(">H", EXPERIMENTAL) + b"plain".ljust(50)
            tagged = struct.pack(">HH", 0x8100, 3 << 13 | 7) + struct.pack(">H", EXPERIMENTAL) + b"tagged".ljust(50)
            for content in (plain, tagged):
                injector.send(BROADCAST + SOURCE + content)
            self.assertEqual([listener.next(), listener.next()],
                             [(b"plain".ljust(50), None), (b"tagged".ljust(50), 3 << 13 | 7)])
        for way in relay.counters():
            self.assertEqual(way["sent"], way["frames"])

    def test_relay_says_what_is_wrong_and_what_is_accepted(self):
        for words, clue in ((["a0", "a0"], "named twice"), (["a0", "nosuch0"], "no interface"),
                            (["a0", "b0", "--loss", "101"], "0 to 100"), (["a0", "b0", "--delay", "5"], "us, ms or s")):
            result = subprocess.run([lab.TARGET / "xtipc-relay", *words], capture_output=True, text=True, timeout=10)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(clue, result.stderr)
