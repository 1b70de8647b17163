"""Full traffic in both directions between two nodes, checked message by message, and what it cost the link."""
import time
from dataclasses import dataclass

import lab

SMALL = (64, 1, 12, 200, 1, 1000, 64, 300)
"""Of the sizes that most messages have; the shortest there can be among them."""
LARGE = (66000, 1500, 64, 9000, 1, 4000)
"""What fills the packets; the longest there can be among them."""
MULTICAST = (100, 1500, 1, 20000)
CREDIT = 8
RETRANSMITTED_MAX = {"full": 0.001, "short": 0.1}
"""Share of packets sent again on a wire that loses nothing. A receiver has to learn how late a sender's packets may
be, which costs some at the beginning: of a Linux guest that is slow, 1.4 % in a short run."""
SERVICE = 31500


@dataclass
class Flow:
    """A stream from a node."""
    name: str
    sender: lab.Socket
    sent: int = 0
    returned: int = 0


class Load:
    """For `seconds` each of two nodes sends to the other small and large messages, and multicasts to both.

    Every sender goes on as fast as its receivers tell that its messages have come: the link is full, and no
    receive buffer overflows, so whatever is lost was lost by a link. Rejected messages would come back.
    """

    def __init__(self, test, seconds, one, other):
        self.test, self.seconds, self.nodes = test, seconds, (one, other)
        self.drivers = []

    def run(self):
        """Runs to the end and checks that each stream arrived once and in order at each of its receivers."""
        receivers = [self.open(node) for node in self.nodes]
        members = [self.open(node) for node in self.nodes]
        for way, (receiver, member) in enumerate(zip(receivers, members)):
            receiver.bind(SERVICE, way)
            member.bind(SERVICE, 10, 19)
            for socket in (receiver, member):
                socket.call("buffer")
        flows = [self.flows(way) for way in (0, 1)]
        self.test.await_equal_tables(*self.nodes, timeout_s=10)
        self.before = self.statistics()
        for receiver in receivers:
            receiver.start_collect(2, 30, self.seconds + 60, CREDIT)
        for member in members:
            member.start_collect(2, 30, self.seconds + 60, CREDIT)
        started = time.monotonic()
        for way in (0, 1):
            self.start(way, flows[way], receivers[1 - way])
        for flow in (flow for of_node in flows for flow in of_node):
            try:
                flow.sent, flow.returned = map(int, flow.sender.driver.answer(self.seconds + 60))
            except lab.LabError:
                self.describe(flow)
                raise
        self.lasted = time.monotonic() - started
        self.sent = {flow.name: flow.sent for of_node in flows for flow in of_node}
        for way in (0, 1):
            self.check(receivers[way], flows[1 - way][:2])
            self.check(members[way], [of_node[2] for of_node in flows])
        self.after = self.statistics()
        self.end()

    def open(self, node):
        """A socket of a program of its own."""
        self.drivers.append(self.test.drive(node))
        return self.drivers[-1].open()

    def end(self):
        """No receiver is left that another load's messages could go to."""
        for driver in self.drivers:
            driver.close()
        lab.until(lambda: not any(kind == SERVICE for node in self.nodes for kind, *_ in node.table()), 5,
                  "the bindings of the load withdrawn")

    def flows(self, way):
        """Small messages, large messages and multicasts of a node, each from a program of its own."""
        node, other = self.nodes[way], self.nodes[1 - way]
        flows = [Flow(f"{node.identity} to {other.identity}, {what}", self.open(node))
                 for what in ("small", "large", "multicast")]
        for flow in flows:
            flow.sender.call("droppable", 0)
        flows[2].sender.call("multicast", "broadcast")
        return flows

    def start(self, way, flows, receiver):
        small, large, multicast = (flow.sender for flow in flows)
        small.start_pour(f"service,{SERVICE},{1 - way}", self.stream(way, 0), self.seconds, 400, 1, SMALL)
        large.start_pour(receiver.address, self.stream(way, 1), self.seconds, 64, 1, LARGE)
        multicast.start_pour(f"range,{SERVICE},10,19", self.stream(way, 2), self.seconds, 32, 2, MULTICAST)

    @staticmethod
    def stream(way, kind):
        return 10 * way + kind

    def check(self, receiver, flows):
        result = receiver.collected(self.seconds + 90)
        expected = {}
        for flow in flows:
            with self.test.subTest(flow.name):
                self.test.assertGreater(flow.sent, self.seconds, "hardly any traffic")
                self.test.assertEqual(flow.returned, 0, "rejected messages")
            expected[flow.name] = (flow.sent, 0, 0, 0)
        with self.test.subTest("arrived"):
            self.test.assertEqual((result.corrupt, result.returned), (0, 0))
            arrived = [result.streams[stream] for stream in sorted(result.streams)]
            self.test.assertEqual(dict(zip(expected, arrived)), expected)

    def statistics(self):
        one, other = self.nodes
        return [one.link_statistics(other.identity), other.link_statistics(one.identity)]

    def cost(self):
        """What each node's link did meanwhile, by counter."""
        return [[{name: after[name] - before[name] for name in after if isinstance(after[name], int)}
                 for before, after in zip(*links)] for links in zip(self.before, self.after)]

    def check_hardly_repeated(self):
        limit = RETRANSMITTED_MAX["full" if self.test.segment.full else "short"]
        for node, links in zip(self.nodes, self.cost()):
            with self.test.subTest(node.identity):
                self.test.assertLess(repeated(*links), limit)

    def describe(self, flow):
        """Where the messages of a stream may have stopped."""
        print(f"no end of {flow.name}")
        for node in self.nodes:
            node.show("link list", "link stat show", "nametable show", "socket list")
            if isinstance(node, lab.Daemon):
                node.show("status")
                print(f"--- {node.identity}: log\n{node.log_text()[-8000:]}", flush=True)

    def report(self, title):
        """One line for all streams, one for each node's link."""
        messages = sum(self.sent.values())
        print(f"{title}: {messages} messages in {self.lasted:.0f} s ({messages / self.lasted:.0f}/s)"
              f" {tuple(self.sent.values())}")
        for node, links, after in zip(self.nodes, self.cost(), self.after):
            for name, link in zip(("link", "broadcast link"), links):
                print(f"  {node.identity}, {name}: sent {link['tx packets']} packets, {link['tx retrans']} again"
                      f" ({100 * repeated(link):.3f} %); received {link['rx packets']}, {link['rx defs']} deferred,"
                      f" {link['rx dups']} duplicate; naks {link['tx naks']} sent, {link['rx naks']} received", flush=True)
            print(f"  {node.identity}: window {after[0]['window']}, send queue {after[0]['send queue max']}", flush=True)


def repeated(*links):
    """Share of the packets that were sent again."""
    return sum(link["tx retrans"] for link in links) / max(1, sum(link["tx packets"] for link in links))
