"""UDP bearers against a real Linux node: both families, with multicast and with lists of peers, beside Ethernet."""
import tempfile
import zlib

import drive
import lab
import linux_node
from cluster import LINK_UP_S, LinuxTest

SIZES = (1, 20000, 66000)


class LinuxUdpTest(LinuxTest):
    """The Linux node has three bearers: multicast over IPv4, over IPv6 (Linux cannot do both on one port), and a list of
    peers on port 7000."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        guest = cls.segment.guest
        lab.until(lambda: "eth1" in guest.exec("ls /sys/class/net"), 5, "eth1 back in the guest")
        cls.far = linux_node.LinuxNode(guest, "far", "eth1", namespace="far")
        cls.addClassCleanup(guest.exec, "ip netns del far")
        cls.far.exec("sh", "-c", "ip link set eth1 up; ip addr add 10.9.0.9/24 dev eth1;"
                     "ip addr add fd09::9/64 dev eth1 nodad; tipc node set identity far;"
                     "tipc bearer enable media udp name M4 localip 10.9.0.9;"
                     "tipc bearer enable media udp name M6 localip fd09::9 localport 6119 remoteport 6119;"
                     "tipc bearer enable media udp name R localip 10.9.0.9 localport 7000 remoteip 10.9.0.5 remoteport 7000")
        cls.there = cls.far.drive()
        cls.addClassCleanup(cls.there.close)

    def await_udp_link(self, node):
        try:
            lab.until(lambda: node.is_linked_to("far"), 2 * LINK_UP_S, f"{node.identity} and far linked")
        except lab.LabError:
            print(node.log_text(), node.tool("-d", "bearer", "list"), node.tool("status"), self.far.tool("link", "list"),
                  self.far.exec("dmesg | tail -20"), sep="\n")
            raise

    def assert_all_passes(self, node, service, peer, there):
        """Bindings, messages of all sizes both ways, multicasts from both; `there` drives the peer."""
        here = self.drive(node)
        ends = [(node, here.open(), here.open()), (peer, there.open(), there.open())]
        for instance, (_, receiver, _) in enumerate(ends):
            receiver.bind(service, instance, instance)
            receiver.bind(service, 7, 7)
        for instance, (owner, receiver, _) in enumerate(ends):
            source, _, sender = ends[1 - instance]
            self.await_binding(source, service, 7, owner)
            for seed, size in enumerate(SIZES):
                sender.send(f"service,{service},{instance}", seed, size)
                message = receiver.recv()
                self.assertIsNotNone(message, f"{size} bytes to {owner.identity}")
                self.assertEqual((message.size, message.crc), (size, zlib.crc32(drive.pattern(seed, size))))
        for _, _, sender in ends:
            for seed in range(3):
                sender.send(f"range,{service},7,7", seed, 3000)
            for owner, receiver, _ in ends:
                self.assert_multicasts(receiver, 3, 3000, owner)
        for _, *sockets in ends[1:]:
            for socket in sockets:
                socket.call("close")

    def assert_multicasts(self, receiver, count, size, owner):
        got = [receiver.recv() for _ in range(count)]
        crcs = [zlib.crc32(drive.pattern(seed, size)) for seed in range(count)]
        self.assertEqual([message and message.crc for message in got], crcs, owner.identity)

    def test_nodes_meet_over_both_families_with_a_group_and_with_lists(self):
        # Linux knows `rx` by its list, but `rx` does not know Linux.
        nodes = {
            "multicast IPv4 by AF_XDP": ("u4", "10.9.0.8/24", "udp:M,localip=10.9.0.8%eth0"),
            "multicast IPv6 by AF_XDP": ("u6", "fd09::3/64", "udp:M,device=eth0,localport=6119,remoteport=6119"),
            "unlisted": ("rx", "10.9.0.5/24", "udp:R,localip=10.9.0.5,localport=7000,remoteip=10.9.0.99"),
            "list IPv6": ("r6", "fd09::6/64", "udp:R,localip=fd09::6,localport=7000,remoteip=fd09::9,remoteport=7000"),
        }
        started = {}
        for what, (identity, ip, bearer) in nodes.items():
            started[what] = self.enter(self.segment.daemon(identity, bearers=[bearer], ips=[ip]))
            # An address of its own would be the first of the interface.
            started[what].namespace.ip("link", "set", "eth0", "addrgenmode", "none")
            started[what].start()
        for number, (what, node) in enumerate(started.items()):
            with self.subTest(what):
                if what == "list IPv6":
                    self.far.exec("sh", "-c", "tipc bearer disable media udp name R;"
                                  "tipc bearer enable media udp name R localip fd09::9 localport 7000"
                                  " remoteip fd09::99 remoteport 7000;"
                                  "tipc bearer add media udp name R remoteip fd09::6 remoteport 7000")
                self.await_udp_link(node)
                self.assert_all_passes(node, 32000 + number, self.far, self.there)
                bearer = node.tool_json("status")[0]["bearers"][0]
                by_xdp = [sum(queue[way] for queue in bearer["queues"]) for way in ("rx_packets", "tx_packets")]
                print(f"  {what}: {bearer['mode']}, packets {bearer['rx_packets'], bearer['tx_packets']}, by AF_XDP {by_xdp},"
                      f" drops {bearer['drops']}", flush=True)
                self.assertEqual(bearer["mode"], "xdp-generic" if "AF_XDP" in what else "udp")
                self.assertEqual(min(by_xdp) > 0, "AF_XDP" in what)
                self.assertNotIn("rx-checksum", bearer["drops"])

    def test_one_peer_by_ethernet_another_by_udp_a_third_by_shared_memory(self):
        pod = tempfile.TemporaryDirectory(prefix="xtipc-pod-")
        self.addCleanup(pod.cleanup)
        memory = f"shm:pod,dir={pod.name}"
        node = self.started("mixed", bearers=["eth:eth0", "udp:M,localip=10.9.0.7", memory], ips=["10.9.0.7/24"])
        near = self.started("near", bearers=[memory])
        self.await_udp_link(node)
        for peer in (self.linux, self.alpha, near):
            self.await_link(node, peer)
        names = {name.split(":")[-2].split("-")[-1]: name.split(":")[1].split("-")[0] for name in node.links()}
        self.assertEqual(names, {"far": "M", "linux": "eth0", "alpha": "eth0", "near": "pod"})
        self.assertEqual(list(near.links().values()), [True])
        self.assert_all_passes(node, 32010, self.far, self.there)
        self.assert_all_passes(node, 32011, near, self.drive(near))
        here = self.drive(node).open()
        members = [(self.far, self.there.open())]
        members += [(owner, self.drive(owner).open()) for owner in (self.linux, self.alpha, near)]
        for owner, member in members:
            member.bind(32100, 1)
            self.await_binding(node, 32100, 1, owner)
        for seed in range(20):
            here.send("range,32100,1,1", seed, 2000)
        for owner, member in members:
            self.assert_multicasts(member, 20, 2000, owner)
        members[0][1].call("close")
