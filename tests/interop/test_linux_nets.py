"""Two links with a real Linux node: wires that are cut and mended under traffic, a link added under load."""
import threading
import time

import lab
import load
import nets
from cluster import LinuxTest


class LinuxNetsTest(LinuxTest):
    def setUp(self):
        super().setUp()
        self.net = self.enter(nets.SecondNet(self.switch))
        self.net.move("other")
        self.addCleanup(self.switch.ip, "link", "set", "other", "master", "switch")
        self.linux.exec("ip", "link", "set", "eth1", "up")
        self.linux.exec("tipc", "bearer", "enable", "media", "eth", "device", "eth1")
        self.addCleanup(self.linux.exec, "sh", "-c", "tipc bearer disable media eth device eth1 || true")

    def node(self, *flags, address=None):
        """An xtipc node, on both nets if the flags say so; with this address on the second."""
        # Of its own: Linux keeps the tolerance that a link was given, also for the next node with this identity.
        daemon = self.enter(self.segment.daemon("twin", *flags))
        self.net.plug(daemon.namespace, "twin-2")
        if address:
            daemon.namespace.ip("addr", "add", address, "dev", "eth1")
        self.addCleanup(self.switch.ip, "link", "del", "twin-2")
        daemon.start()
        self.await_link(daemon, self.linux, timeout_s=5)
        return daemon

    def test_cuts_of_either_wire_under_traffic_lose_and_reorder_nothing(self):
        beta = self.node("--bearer", "eth:eth1")
        wires = nets.Wires(self.switch, "twin", "twin-2")
        nets.CutTraffic(self, beta, self.linux, wires, 500 if self.segment.full else 6).run()

    def test_cuts_of_ethernet_and_of_udp_with_longer_packets_lose_and_reorder_nothing(self):
        """What the link with the larger MTU held comes in pieces by the other one."""
        self.linux.exec("sh", "-c", "tipc bearer disable media eth device eth1; ip addr add 10.9.1.1/24 dev eth1;"
                        "tipc bearer enable media udp name U localip 10.9.1.1")
        self.addCleanup(self.linux.exec, "sh", "-c", "tipc bearer disable media udp name U; ip addr flush dev eth1")
        beta = self.node("--bearer", "udp:U,localip=10.9.1.2", address="10.9.1.2/24")
        wires = nets.Wires(self.switch, "twin", "twin-2")
        nets.CutTraffic(self, beta, self.linux, wires, 300 if self.segment.full else 6).run()

    def test_a_link_added_under_load_disturbs_nothing(self):
        beta = self.node()
        def add():
            time.sleep(1)
            beta.tool("bearer", "enable", "media", "eth", "device", "eth1")
        adding = threading.Thread(target=add)
        adding.start()
        with self.without_resets(beta, self.linux):
            traffic = load.Load(self, 4, beta, self.linux)
            traffic.run()
        adding.join()
        lab.until(lambda: len(nets.up_links(beta, self.linux)) == 2, 5, "both links")
        traffic.report("a second link meanwhile")
