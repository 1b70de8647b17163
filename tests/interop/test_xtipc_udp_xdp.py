"""UDP bearers that name their interface: datagrams by AF_XDP, all else by the sockets beside it."""
import socket
import struct
import zlib

import drive
import lab
from cluster import LINK_UP_S, SegmentTest

SIZES = (1, 1400, 20000, 66000)
PORT = 6118


class UdpXdpTest(SegmentTest):
    def node(self, identity, address, bearer):
        prefix = 64 if ":" in address else 24
        return self.started(identity, bearers=[bearer], ips=[f"{address}/{prefix}"])

    def bearer(self, node):
        return node.tool_json("status")[0]["bearers"][0]

    def by_xdp(self, node):
        """Packets received and sent by AF_XDP, and all."""
        bearer = self.bearer(node)
        queues = bearer["queues"]
        return (sum(queue["rx_packets"] for queue in queues), sum(queue["tx_packets"] for queue in queues),
                bearer["rx_packets"], bearer["tx_packets"])

    def exchange(self, nodes, service, rounds=30):
        """Messages of all sizes between each two nodes, and a multicast from each."""
        ends = [(node, driver.open(), driver.open()) for node in nodes for driver in [self.drive(node)]]
        for instance, (_, receiver, _) in enumerate(ends):
            receiver.bind(service, instance)
            receiver.bind(service, 100)
        for node, _, _ in ends:
            for instance, (owner, _, _) in enumerate(ends):
                self.await_binding(node, service, instance, owner)
                self.await_binding(node, service, 100, owner)
        for turn in range(rounds):
            for source, _, sender in ends:
                for instance, (owner, receiver, _) in enumerate(ends):
                    if owner is source:
                        continue
                    size = SIZES[turn % len(SIZES)]
                    sender.send(f"service,{service},{instance}", turn, size)
                    message = receiver.recv()
                    what = f"{size} bytes from {source.identity} to {owner.identity}"
                    self.assertIsNotNone(message, what)
                    self.assertEqual((message.size, message.crc), (size, zlib.crc32(drive.pattern(turn, size))), what)
        for _, _, sender in ends:
            sender.send(f"range,{service},100,100", 5, 3000)
            for owner, receiver, _ in ends:
                message = receiver.recv()
                self.assertIsNotNone(message, f"multicast to {owner.identity}")
                self.assertEqual((message.size, message.crc), (3000, zlib.crc32(drive.pattern(5, 3000))))

    def assert_mostly_by_xdp(self, node):
        info, (received, sent, all_received, all_sent) = self.bearer(node), self.by_xdp(node)
        print(f"  {node.identity}: {info['mode']} ({info['mode_reason']}); by AF_XDP {received} of {all_received} packets"
              f" received, {sent} of {all_sent} sent; drops {info['drops']}", flush=True)
        self.assertTrue(info["mode"].startswith("xdp-"), info["mode_reason"])
        self.assertGreater(received, 0.9 * all_received)
        self.assertGreater(sent, 0.9 * all_sent)
        self.assertEqual(info["drops"], {})

    def test_a_bearer_that_is_given_its_address_and_its_device_has_both(self):
        one = self.started("one", bearers=(), ips=["10.9.7.1/24", "10.9.7.2/24"])
        enable = lambda ip: one.tool("bearer", "enable", "media", "udp", "name", "U", "localip", ip, "device", "eth0")
        with self.assertRaisesRegex(lab.LabError, "no interface has the address 127.0.0.1%eth0"):
            enable("127.0.0.1")
        enable("10.9.7.2")
        bearer = self.bearer(one)
        self.assertEqual(bearer["udp"]["local"], "10.9.7.2:6118")
        self.assertTrue(bearer["mode"].startswith("xdp-"), bearer)

    def test_nodes_by_af_xdp_and_by_sockets_in_both_families(self):
        for family, subnet in (("4", "10.8.2."), ("6", "fd08::2:")):
            with self.subTest(f"IPv{family}"):
                one = self.node("one" + family, subnet + "1", f"udp:U,localip={subnet}1%eth0")
                two = self.node("two" + family, subnet + "2", f"udp:U,localip={subnet}2%eth0")
                plain = self.node("plain" + family, subnet + "3", f"udp:U,localip={subnet}3,mtu=1280")
                for pair in ((one, two), (one, plain), (two, plain)):
                    self.await_link(*pair)
                self.exchange([one, two, plain], 34000 + int(family))
                for node in (one, two):
                    self.assert_mostly_by_xdp(node)
                self.assertEqual(self.bearer(plain)["mode"], "udp")
                for node in (one, two, plain):
                    node.stop()

    def test_fragments_reach_the_socket_and_small_packets_the_ring(self):
        for family, subnet in (("4", "10.8.3."), ("6", "fd08::3:")):
            with self.subTest(f"IPv{family}"):
                one, two = (self.node(f"cut{n}{family}", f"{subnet}{n}", f"udp:U,localip={subnet}{n}%eth0,mtu=5000")
                            for n in (1, 2))
                self.await_link(one, two)
                self.exchange([one, two], 34010 + int(family))
                for node in (one, two):
                    received, sent, all_received, all_sent = self.by_xdp(node)
                    print(f"  {node.identity}: by AF_XDP {received} of {all_received} received, {sent} of {all_sent} sent")
                    self.assertTrue(0 < received < all_received and 0 < sent < all_sent)
                    self.assertEqual(self.bearer(node)["drops"], {})
                    node.stop()

    def test_a_wrong_checksum_is_counted_and_other_traffic_undisturbed(self):
        one = self.node("sum1", "10.8.4.1", "udp:U,localip=10.8.4.1%eth0")
        two = self.node("sum2", "10.8.4.2", "udp:U,localip=10.8.4.2%eth0")
        self.await_link(one, two)
        ethernet = one.namespace.mac("eth0") + two.namespace.mac("eth0") + b"\x08\x00"
        with two.namespace.injector("eth0") as injector:
            injector.send(ethernet + datagram("10.8.4.2", "10.8.4.1", wrong=1))
            injector.send(ethernet + datagram("10.8.4.2", "10.8.4.1", excess=1))
        lab.until(lambda: self.bearer(one)["drops"] == {"rx-checksum": 1, "rx-malformed": 1}, LINK_UP_S, "the drops")
        with one.namespace.entered():
            here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            here.bind(("10.8.4.1", PORT + 1))
        with two.namespace.entered():
            there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            there.bind(("10.8.4.2", PORT + 1))
        for end in (here, there):
            self.addCleanup(end.close)
            end.settimeout(2)
        for length in (1, 1000, 4000):
            there.sendto(bytes(length), ("10.8.4.1", PORT + 1))
            self.assertEqual(here.recv(9000), bytes(length))
            here.sendto(bytes(length), ("10.8.4.2", PORT + 1))
            self.assertEqual(there.recv(9000), bytes(length))
        self.assertTrue(one.is_linked_to("sum2"))

    def test_an_interface_set_down_is_used_again_when_it_is_up(self):
        one = self.node("down1", "10.8.7.1", "udp:U,localip=10.8.7.1%eth0")
        two = self.node("down2", "10.8.7.2", "udp:U,localip=10.8.7.2%eth0")
        self.await_link(one, two)
        one.namespace.ip("link", "set", "eth0", "down")
        lab.until(lambda: not two.is_linked_to("down1"), 2 * LINK_UP_S, "the end of the link")
        lab.until(lambda: not self.bearer(one)["up"], LINK_UP_S, "the bearer down")
        one.namespace.ip("link", "set", "eth0", "up")
        self.await_link(one, two, timeout_s=3 * LINK_UP_S)
        before = self.by_xdp(one)
        self.exchange([one, two], 34040, rounds=8)
        received, sent, all_received, all_sent = (now - then for now, then in zip(self.by_xdp(one), before))
        self.assertGreater(received, 0.9 * all_received)
        self.assertGreater(sent, 0.9 * all_sent)

    def test_an_interface_that_both_media_name_is_the_ethernet_bearers(self):
        node = self.started("both", bearers=["udp:U,device=eth0", "eth:eth0"], ips=["10.8.6.1/24"])
        self.assertEqual([bearer["mode"] for bearer in node.tool_json("status")[0]["bearers"]], ["udp", "xdp-generic"])
        self.assertIn("has a bearer on eth0", self.bearer(node)["mode_reason"])
        self.await_link(self.alpha, node)

    def test_what_goes_to_a_group_passes_routers_as_what_goes_to_stations_does(self):
        for by_xdp in "46":
            with self.subTest(f"by AF_XDP over IPv{by_xdp}"):
                address = {"4": "10.8.8.1", "6": "fd08::8:1"}
                bearers = [f"udp:V{family},localip={ip}" + ("%eth0" if family == by_xdp else "")
                           for family, ip in address.items()]
                ips = [f"{address['4']}/24", f"{address['6']}/64"]
                node = self.enter(self.segment.daemon("hops" + by_xdp, bearers=bearers, ips=ips))
                with self.switch.entered():
                    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                    wire.bind((node.identity, 3))
                self.addCleanup(wire.close)
                wire.settimeout(2)
                node.start()
                self.assertEqual([bearer["mode"].startswith("xdp-") for bearer in node.tool_json("status")[0]["bearers"]],
                                 [by_xdp == "4", by_xdp == "6"])
                hops = {}
                while len(hops) < 2:
                    packet = wire.recv(9000)[14:]
                    if packet[16:20] == socket.inet_aton("228.0.18.103"):
                        hops["4"] = packet[8]
                    elif packet[24:40] == socket.inet_pton(socket.AF_INET6, "ff02::4711"):
                        hops["6"] = packet[7]
                self.assertEqual(hops, {"4": 64, "6": 64})

    def test_a_neighbour_with_another_address_is_found_again(self):
        one = self.node("move1", "10.8.5.1", "udp:U,localip=10.8.5.1%eth0")
        two = self.node("move2", "10.8.5.2", "udp:U,localip=10.8.5.2%eth0")
        self.await_link(one, two)
        with self.without_resets(one, two):
            two.namespace.ip("link", "set", "eth0", "address", "02:00:00:00:77:02")
            # As the kernel does when it hears of it.
            one.namespace.ip("neigh", "replace", "10.8.5.2", "lladdr", "02:00:00:00:77:02", "dev", "eth0", "nud", "reachable")
            self.exchange([one, two], 34030, rounds=4)
        self.assertTrue(one.is_linked_to("move2"))


def datagram(source, destination, wrong=0, excess=0):
    """An IPv4 packet with a UDP datagram whose checksum is off by `wrong`, and its length by `excess`."""
    def checksum(data):
        total = sum(struct.unpack(f">{len(data) // 2}H", data))
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        return ~total & 0xffff
    payload = b"\x5a" * 60
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    length = 8 + len(payload)
    udp = struct.pack(">HHH", PORT, PORT, length + excess)
    pseudo = addresses + struct.pack(">HH", 17, length + excess)
    udp += struct.pack(">H", checksum(pseudo + udp + b"\0\0" + payload) ^ wrong) + payload
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, 17, 0) + addresses
    header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
    return header + udp
