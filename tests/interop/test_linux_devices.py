"""Bearers on devices above NICs, a bond and MACsec: xtipcd in a guest of its own, with Linux nodes as its peers."""
import contextlib
import threading
import time

import lab
import load
from cluster import LinuxTest
from linux_node import LinuxNode

MODES = ("auto", "off")
"""Of --xdp: what the device grants, and AF_PACKET."""
CLUSTER = 4714
KEYS = ("00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100")


class LinuxDevicesTest(LinuxTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not cls.segment.full:
            return
        cls.suite = cls.segment.guest.name.removeprefix(f"{lab.PREFIX}-")
        ports = ["devices", "devices-2", "devices-3"]
        cls.guest = lab.Guest(cls.suite, cls.segment.switch, ports, label="devices", share=lab.TARGET)
        cls.addClassCleanup(cls.guest.close)
        cls.guest.wait()

    def setUp(self):
        super().setUp()
        if not self.segment.full:
            self.skipTest("boots a guest of its own, and one more for MACsec: with --full")

    @contextlib.contextmanager
    def node(self, interface, mode, *flags):
        """xtipcd in the guest, on this interface."""
        node = self.enter(lab.GuestDaemon(self.guest, "devices", "--xdp", mode, *flags, interface=interface))
        status, = node.tool_json("status")
        bearer, = status["bearers"]
        print(f"  Linux {self.guest.release()}, {interface}: {bearer['mode']}, {bearer['mode_reason']}", flush=True)
        if mode == "off":
            self.assertEqual(bearer["mode"], "packet")
        try:
            yield node
        except (lab.LabError, AssertionError):
            print(node.log_text(), flush=True)
            raise
        finally:
            node.stop()

    def carry(self, node, peer, meanwhile=lambda: None):
        """Streams and multicasts both ways while something happens; nothing may be lost, doubled or reordered."""
        failures = []

        def happen():
            try:
                meanwhile()
            except (lab.LabError, AssertionError) as error:
                failures.append(error)
        happening = threading.Thread(target=happen)
        happening.start()
        try:
            traffic = load.Load(self, 20 if self.segment.full else 6, node, peer)
            traffic.run()
        finally:
            happening.join()
        self.assertEqual(failures, [])
        print(f"  {sum(traffic.sent.values())} messages", flush=True)

    def test_a_bond_that_fails_over_under_traffic_resets_nothing(self):
        self.guest.exec("ip link add pair0 type bond mode active-backup miimon 20 && ip link set eth0 down &&"
                        " ip link set eth1 down && ip link set eth0 master pair0 && ip link set eth1 master pair0 &&"
                        " ip link set pair0 up")
        self.addCleanup(self.guest.exec, "ip link del pair0")
        active = lambda: self.guest.exec("cat", "/sys/class/net/pair0/bonding/active_slave").strip()

        def fail_over():
            for _ in range(2):
                time.sleep(1)
                before = active()
                self.guest.exec("ip", "link", "set", before, "down")
                lab.until(lambda: active() != before, 2, "another active interface")
                self.guest.exec("ip", "link", "set", before, "up")
        for mode in MODES:
            with self.subTest(xdp=mode), self.node("pair0", mode) as node:
                self.await_link(node, self.linux, timeout_s=20)
                with self.without_resets(node, self.linux):
                    self.carry(node, self.linux, fail_over)

    def seal(self, run, own, peer_mac):
        """MACsec on an interface, with keys that are given: `own` numbers this end."""
        key, peer_key = KEYS[own], KEYS[1 - own]
        run(f"ip link set {self.below[own]} up && ip link add link {self.below[own]} macsec0 type macsec port 1 encrypt on &&"
            f" ip macsec add macsec0 tx sa 0 pn 1 on key 0{own} {key} &&"
            f" ip macsec add macsec0 rx port 1 address {peer_mac} &&"
            f" ip macsec add macsec0 rx port 1 address {peer_mac} sa 0 pn 1 on key 0{1 - own} {peer_key} &&"
            " ip link set macsec0 up")

    def test_macsec_carries_a_link_with_linux(self):
        self.below = ("eth2", "eth1")
        linux = LinuxNode(self.segment.guest, "under", "eth1", cluster_id=CLUSTER, namespace="under")
        self.addCleanup(self.segment.guest.exec, "ip netns del under")
        in_linux = lambda words: linux.exec("sh", "-c", words)
        macs = [run(f"cat /sys/class/net/{below}/address").strip()
                for run, below in zip((self.guest.exec, in_linux), self.below)]
        self.seal(self.guest.exec, 0, macs[1])
        self.addCleanup(self.guest.exec, "ip link del macsec0")
        self.seal(in_linux, 1, macs[0])
        own = bytes.fromhex(macs[0].replace(":", ""))
        linux.interface = "macsec0"
        linux.configure()
        linux.enable()
        for mode in MODES:
            with self.subTest(xdp=mode), self.switch.capture("devices-3") as capture:
                with self.node("macsec0", mode, "--cluster-id", str(CLUSTER)) as node:
                    self.await_link(node, linux, timeout_s=20)
                    self.carry(node, linux)
                clear = capture.find(lambda frame: frame.is_tipc)
                self.assertEqual([str(frame) for frame in clear if frame.source == own], [])
