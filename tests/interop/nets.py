"""A second net beside the switch, and wires of both that are cut and put together under traffic."""
import random
import threading
import time

import lab
import load
import members

TOLERANCE_MS = {"full": 300, "short": 600}
"""Of the links between the nodes, so that a cut need not last long to take one down. Short ones run beside others: two guests
that are kept from the processor for as long would lose the other link, too."""
CUT_S = (0.02, 1.2)
"""Shortest and longest cut: some are over before the tolerance is."""
BRIDGE = "second"
GROUP = 31700


class SecondNet:
    """A bridge of its own in the namespace of the switch: ports on it do not hear those of the switch."""

    def __init__(self, switch):
        self.switch = switch
        switch.ip("link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0")
        switch.ip("link", "set", BRIDGE, "up")

    def plug(self, namespace, port, interface="eth1"):
        """A further interface of a node, on this net."""
        self.switch.plug(namespace, port, interface)
        self.move(port)

    def move(self, port):
        self.switch.ip("link", "set", port, "master", BRIDGE, "up")

    def close(self):
        self.switch.ip("link", "del", BRIDGE)


class Wires:
    """The wires of a node to both nets, by port; cut without a loss of carrier."""

    def __init__(self, switch, first, second):
        self.switch, self.ports = switch, ((first, "switch"), (second, BRIDGE))

    def cut(self, net):
        self.switch.ip("link", "set", self.ports[net][0], "nomaster")

    def mend(self, net):
        port, bridge = self.ports[net]
        self.switch.ip("link", "set", port, "master", bridge)


def up_links(node, other):
    return [name for name, up in node.links().items() if up and f"-{other.identity}:" in name]


class CutTraffic:
    """Traffic between two nodes with two links, while the wires of one of them are cut and mended, never both at once."""

    def __init__(self, test, one, other, wires, cuts):
        self.test, self.one, self.other, self.wires, self.cuts = test, one, other, wires, cuts
        self.random = random.Random(cuts)
        self.failure, self.stalls = None, []
        self.tolerance_ms = TOLERANCE_MS["full" if test.segment.full else "short"]

    def await_links(self, timeout_s=10):
        for node, peer in ((self.one, self.other), (self.other, self.one)):
            lab.until(lambda: len(up_links(node, peer)) == 2, timeout_s, f"both links at {node.identity}")

    def set_tolerance(self):
        """By one end: the other hears of it."""
        for link in up_links(self.one, self.other):
            self.one.tool("link", "set", "tolerance", str(self.tolerance_ms), "link", link)

    def run(self):
        self.await_links()
        self.set_tolerance()
        before = self.contacts()
        meter = [*self.datagrams(), self.stream(), self.group()]
        cutter = threading.Thread(target=self.cut_all, args=(meter,))
        cutter.start()
        try:
            traffic = load.Load(self.test, 1.3 * self.cuts + 1, self.one, self.other)
            traffic.run()
        finally:
            cutter.join()
            # Also if the load has failed: this may say why.
            if self.failure:
                raise self.failure
        self.test.assertEqual(self.contacts(), before, "contact was lost")
        self.await_links()
        messages = sum(traffic.sent.values())
        print(f"{self.cuts} cuts, {messages} messages each once and in order; longest stall"
              f" {1000 * max(self.stalls):.0f} ms of {len(self.stalls)}, tolerance {self.tolerance_ms} ms", flush=True)

    def contacts(self):
        """Contacts lost so far, by the log of the node."""
        return self.one.log_text().count(f"Lost contact with {self.other.identity}")

    def datagrams(self):
        """A message by each link: the last bit of the sender chooses."""
        sender, receiver = self.test.drive(self.one), self.test.drive(self.other)
        found = {}
        while len(found) < 2:
            socket = sender.open()
            found.setdefault(socket.port & 1, socket)
        return [self.datagram(socket, receiver.open()) for socket in found.values()]

    def datagram(self, sender, receiver):
        def carry(number):
            sender.send(receiver.address, number, 100)
            self.test.assertIsNotNone(receiver.recv(10), "a message did not come within 10 s")
        return carry

    def stream(self):
        """What a connection carries, which comes as it was written."""
        client, server = self.test.drive(self.one), self.test.drive(self.other)
        listener = server.listen("stream")
        client.start_connect("stream", listener.address)
        far, near = listener.accept(), client.connected()

        def carry(number):
            size = 30000
            near.write(number, size)
            while size > 0:
                part = far.read(size, 10)
                self.test.assertTrue(part and part[0], "a stream stood still for 10 s, or ended")
                size -= part[0]
        return carry

    def group(self):
        """A broadcast of a member, in order behind the one before."""
        speaker, hearer = (members.Member(self.test.drive(node), GROUP, instance)
                           for instance, node in enumerate((self.one, self.other)))
        for member in (speaker, hearer):
            self.test.addCleanup(member.close)
            joined = member.hear()
            self.test.assertEqual((joined.what, joined.instance), ("joined", 1 - member.instance))

        def carry(number):
            speaker.tell("all", number, 2000 + number)
            news = hearer.hear(10)
            self.test.assertIsNotNone(news, "a group's broadcast did not come within 10 s")
            self.test.assertEqual((news.what, news.size), ("message", 2000 + number))
        return carry

    def cut_all(self, meter):
        try:
            for number in range(self.cuts):
                net = self.random.randrange(2)
                self.wires.cut(net)
                mended = threading.Timer(self.random.uniform(*CUT_S), self.wires.mend, (net,))
                mended.start()
                for carry in meter:
                    began = time.monotonic()
                    carry(number)
                    self.stalls.append(time.monotonic() - began)
                mended.join()
                self.await_links(15)
                time.sleep(self.random.uniform(0, 0.2))
        except (lab.LabError, AssertionError) as error:
            self.failure = error
