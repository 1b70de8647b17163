"""Nodes with several workers: the further ones serve the AF_XDP queues of the bearers."""
import itertools
import os
import time

import lab
import test_xtipc_stalls
from cluster import SegmentTest
from streams import Streams, stopped_thread
from test_xtipc_starved import HOG

SECONDS = 2
# Messages of a stream, on however slow a machine.
LEAST = 20


class WorkersTest(SegmentTest):
    def queues(self, node):
        """Of all bearers."""
        status = node.tool_json("status")[0]
        return [queue for bearer in status["bearers"] for queue in bearer["queues"]]

    def steering(self, node):
        """How packets come into the queues of the first bearer, and why so; `None` where worker 0 serves them."""
        steering = node.tool_json("status")[0]["bearers"][0].get("steering")
        return steering and (steering["way"], steering["reason"])

    def drops(self, node):
        return {bearer["name"]: bearer["drops"] for bearer in node.tool_json("status")[0]["bearers"]}

    def streams_are_whole(self, *nodes, seconds=SECONDS, gap_us=500):
        """Streams between alpha and each node, both ways, all sizes; no link is reset."""
        streams = Streams(self, seconds, gap_us=gap_us)
        for node in nodes:
            streams.add(f"alpha to {node.identity}", self.alpha, node)
            streams.add(f"{node.identity} to alpha", node, self.alpha)
        with self.without_resets(self.alpha, *nodes):
            streams.start()
            streams.check_whole(least=LEAST)

    def assert_handed_over(self, node):
        """All that was received and sent went by the other workers, and nothing was dropped."""
        for queue in self.queues(node):
            handover = queue["handover"]
            print(f"  {node.identity} queue {queue['queue']} of worker {queue['worker']}: {queue['rx_packets']} received,"
                  f" {queue['tx_packets']} sent, {handover}", flush=True)
            self.assertNotEqual(queue["worker"], 0)
            self.assertGreaterEqual(handover.get("rx", 0), queue["rx_packets"])
            self.assertNotIn("rx-dropped", handover)
        self.assertEqual(set().union(*self.drops(node).values()), set())

    def test_the_second_worker_serves_the_only_queue(self):
        for policy in ("adaptive", "sleep", "busy"):
            with self.subTest(policy):
                node = self.started(f"two-{policy}", "--workers", "2", "--policy", policy)
                self.await_link(self.alpha, node)
                self.streams_are_whole(node)
                self.assertEqual([queue["worker"] for queue in self.queues(node)], [1])
                self.assert_handed_over(node)
                workers = node.tool_json("status")[0]["workers"]
                self.assertGreater(workers[1]["rounds"], LEAST)
                self.assertEqual(policy == "busy", workers[1]["sleeps"] == 0)
                self.assertIn("queue 0: worker:1 ", node.tool("status"))
                self.assertEqual(self.steering(node), ("software", "one queue"))
                node.stop()

    def test_queues_are_spread_and_worker_0_serves_none(self):
        node = self.started("spread", "--workers", "3", queues=4)
        peers = [self.alpha] + [self.started(f"peer{number}") for number in range(1, 4)]
        streams = Streams(self, SECONDS, gap_us=1000)
        for peer in peers:
            self.await_link(peer, node)
            streams.add(f"{peer.identity} to spread", peer, node)
            streams.add(f"spread to {peer.identity}", node, peer)
        streams.start()
        streams.check_whole(least=LEAST)
        queues = self.queues(node)
        self.assertEqual([queue["worker"] for queue in queues], [1, 2, 1, 2])
        self.assertEqual(self.steering(node), ("software", "veth has no rules for queues: Operation not supported (os error 95)"))
        self.assertIn("  steering: software (veth has no rules", node.tool("status"))
        self.assertIsNone(self.steering(self.alpha))
        # Which peer's packets come into which queue the kernel draws at each boot.
        self.assert_handed_over(node)
        node.stop()

    def sent_to_by(self, node):
        """The queue by which each peer is sent to."""
        peers = node.tool_json("status")[0]["peers"]
        return {peer["identity"]: queue for peer in peers if peer["state"] == "up" for queue in peer["queues"].values()}

    def await_even_queues(self, node, peers):
        """So many on each queue, or one more; they change when nothing to them is under way."""
        def is_even():
            by = list(self.sent_to_by(node).values())
            return len(by) == peers and abs(by.count(0) - by.count(1)) <= 1
        lab.until(is_even, 5, "an even share of the peers for each queue")
        return self.sent_to_by(node)

    def spread_node(self, xdp="auto"):
        """With a worker for each of two queues, and three peers beside alpha."""
        node = self.started(f"many-{xdp}", "--workers", "3", "--xdp", xdp, queues=2)
        peers = [self.alpha] + [self.started(f"{xdp}{number}") for number in range(1, 4)]
        for pair in itertools.combinations([node, *peers], 2):
            self.await_link(*pair)
        self.assertEqual([queue["worker"] for queue in self.queues(node)], [1, 2])
        return node, peers

    def both_ways(self, node, peers, seconds, gap_us=1000):
        streams = Streams(self, seconds, gap_us=gap_us)
        for peer in peers:
            streams.add(f"to {peer.identity}", node, peer)
            streams.add(f"from {peer.identity}", peer, node)
        return streams

    def test_what_is_sent_is_spread_over_the_queues_by_peer(self):
        for xdp in ("generic", "native"):
            with self.subTest(xdp):
                node, peers = self.spread_node(xdp)
                by = self.await_even_queues(node, len(peers))
                before = [queue["tx_packets"] for queue in self.queues(node)]
                streams = self.both_ways(node, peers, SECONDS)
                with self.without_resets(node, *peers):
                    streams.start()
                    streams.check_whole(least=LEAST)
                self.assertEqual(self.sent_to_by(node), by)
                sent = [queue["tx_packets"] - count for queue, count in zip(self.queues(node), before)]
                print(f"  {xdp}: {by}, packets sent by queue {sent}", flush=True)
                self.assertGreater(min(sent), sum(sent) / 4)
                self.assertIn("  sent to by queue 1 of eth:eth0\n", node.tool("status"))
                self.assert_handed_over(node)
                for one in (node, *peers[1:]):
                    one.stop()

    def test_one_worker_sends_all_by_one_queue(self):
        node = self.started("single", queues=2)
        peers = [self.alpha, self.started("peer1")]
        for peer in peers:
            self.await_link(peer, node)
        self.streams_are_whole(node, seconds=1)
        self.assertEqual(set(self.sent_to_by(node).values()), {0})
        self.assertEqual(self.queues(node)[1]["tx_packets"], 0)

    def test_nothing_is_lost_while_the_worker_of_a_queue_stands_still(self):
        node, peers = self.spread_node()
        self.await_even_queues(node, len(peers))
        workers = node.tool_json("status")[0]["workers"]
        streams = self.both_ways(node, peers, 6 * 0.7 + 1)
        with self.without_resets(node, *peers):
            streams.start()
            for turn in range(6):
                with stopped_thread(workers[1 + turn % 2]["thread_id"]):
                    time.sleep(0.4)
                time.sleep(0.3)
            streams.check_whole(least=LEAST)
        for queue in self.queues(node):
            self.assertGreater(queue["tx_packets"], LEAST)

    def test_peers_change_their_queues_in_order(self):
        node, peers = self.spread_node()
        by = self.await_even_queues(node, len(peers))
        # Those that have not alpha's queue go: one of the two that stay has to change.
        leaves = 1 - by["alpha"]
        stay = [peer for peer in peers if by[peer.identity] != leaves]
        go = [peer for peer in peers if by[peer.identity] == leaves]
        streams = self.both_ways(node, stay, 8, gap_us=300)
        with self.without_resets(node, *stay):
            streams.start()
            for _ in range(2):
                time.sleep(0.5)
                for peer in go:
                    peer.stop()
                after = self.await_even_queues(node, len(stay))
                print(f"  {by} became {after}", flush=True)
                for peer in go:
                    peer.start()
                    self.await_link(peer, node)
                by = self.await_even_queues(node, len(peers))
            streams.check_whole(least=LEAST)

    def test_datagrams_of_udp_by_af_xdp_are_handed_over_too(self):
        nodes = [self.started(f"udp{number}", "--workers", "2", bearers=[f"udp:u,localip=10.9.0.{number}%eth0"],
                              ips=[f"10.9.0.{number}/24"]) for number in (1, 2)]
        lab.until(lambda: nodes[0].is_linked_to("udp2") and nodes[1].is_linked_to("udp1"), 5, "a link by UDP")
        streams = Streams(self, SECONDS, gap_us=1000)
        streams.add("to and", *nodes)
        streams.add("fro", *reversed(nodes))
        streams.start()
        streams.check_whole(least=LEAST)
        for node in nodes:
            self.assert_handed_over(node)
            node.stop()

    def test_a_bearer_goes_and_comes_back_under_load(self):
        node = self.started("tuned", "--workers", "3", queues=2)
        self.await_link(self.alpha, node)
        sink, source = self.drive(node).open(), self.drive(self.alpha).open()
        answering, other = self.drive(node).open(), self.drive(self.alpha).open()
        source.call("droppable", 1)
        answering.call("droppable", 1)
        source.start_flood(sink.address, 1, 12, 100, [1000])
        answering.start_flood(other.address, 2, 12, 100, [1000])
        for _ in range(3):
            began = time.monotonic()
            node.tool("bearer", "disable", "media", "eth", "device", "eth0")
            lab.until(lambda: not self.alpha.is_linked_to("tuned"), 1, "the end of the link at the other node")
            self.assertLess(time.monotonic() - began, 1, "the tolerance was waited for")
            words = "bearer", "enable", "media", "eth", "device", "eth0"
            lab.until(lambda: lab.accepted(node, *words), 5, "the kernel's release of the interface")
            self.await_link(self.alpha, node)
            self.assertEqual(sorted(queue["worker"] for queue in self.queues(node)), [1, 2])
        node.stop()

    def test_a_node_outlives_its_interface(self):
        node = self.started("tuned", "--workers", "2")
        self.await_link(self.alpha, node)
        before = self.processor_s(node)
        self.switch.unplug("tuned")
        lab.until(lambda: node.tool("bearer", "list") == "", 3, "the end of the bearer")
        time.sleep(1)
        self.assertLess(self.processor_s(node) - before, 0.5, "a worker spins on the socket of an interface that is gone")
        self.switch.plug(node.namespace, "tuned")
        node.tool("bearer", "enable", "media", "eth", "device", "eth0")
        self.await_link(self.alpha, node)
        self.assertEqual([queue["worker"] for queue in self.queues(node)], [1])
        node.stop()

    def processor_s(self, node):
        with open(f"/proc/{node.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def test_a_killed_daemon_is_followed_by_another_one(self):
        node = self.started("killed", "--workers", "2")
        self.await_link(self.alpha, node)
        self.streams_are_whole(node, seconds=1)
        node.kill()
        node.start()
        self.await_link(self.alpha, node, timeout_s=5)
        self.streams_are_whole(node, seconds=1)
        self.assert_handed_over(node)
        node.stop()

    def test_links_hold_beside_busy_programs_on_either_processor(self):
        """At a tolerance of 600 ms, with a program that computes beside worker 0, then beside worker 1."""
        cpus = sorted(os.sched_getaffinity(0))[-2:]
        if len(cpus) < 2:
            self.skipTest("needs two processors")
        for policy in ("adaptive", "sleep"):
            node = self.started(f"hog-{policy}", "--workers", "2", "--tolerance", "600", "--policy", policy,
                                "--cpus", ",".join(map(str, cpus)))
            self.await_link(self.alpha, node, timeout_s=10)
            for cpu in cpus:
                hog = lab.spawn(["python3", "-c", HOG.format(cpu=cpu, heavy=False)])
                try:
                    time.sleep(SECONDS)
                    self.streams_are_whole(node, gap_us=5000)
                finally:
                    hog.kill()
                    hog.wait()
            self.assertEqual(node.log_text().count("Lost link"), 0)
            node.stop()


class StoppedWorkersTest(test_xtipc_stalls.StoppedDaemonTest):
    """A daemon with two workers that stands still."""

    flags = "--workers", "2"
