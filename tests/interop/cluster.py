"""The two set-ups that the tests run in, and the base class that hands them out."""
import contextlib
import time
import unittest

import lab
import wire
from linux_node import LinuxNode

LINK_UP_S = 3


class Segment:
    """An Ethernet segment with xtipc nodes on it; `alpha` is there for all tests."""

    def __init__(self, full):
        self.full = full
        self.stack = contextlib.ExitStack()
        lab.remove_leftovers()
        self.switch = self.enter(lab.Switch())

    def enter(self, thing):
        self.stack.callback(thing.close)
        return thing

    def open(self):
        self.alpha = self.enter(self.daemon("alpha"))
        self.alpha.start()

    def daemon(self, identity, *flags, **options):
        """A node that is plugged in but not started; its port on the switch has its identity's name."""
        return lab.Daemon(self.switch, identity, *flags, **options)

    def close(self):
        self.stack.close()


class LinuxSegment(Segment):
    """The same with a Linux guest. It holds `linux` on eth0; eth1 is for a second node in the guest."""

    def __init__(self, full, suite):
        super().__init__(full)
        self.guest = self.enter(lab.Guest(suite, self.switch, ["linux", "other"]))

    def open(self):
        self.guest.wait()
        self.linux = self.enter(LinuxNode(self.guest, "linux"))
        self.linux.configure()
        self.linux.enable()
        super().open()


class SegmentTest(unittest.TestCase):
    """A test in a segment; run.py sets `segment`."""

    segment: Segment
    longMessage = True

    @property
    def alpha(self):
        return self.segment.alpha

    @property
    def switch(self):
        return self.segment.switch

    def enter(self, thing):
        self.addCleanup(thing.close)
        return thing

    def started(self, identity, *flags, **options):
        """A further xtipc node, running until the end of the test."""
        daemon = self.enter(self.segment.daemon(identity, *flags, **options))
        daemon.start()
        return daemon

    @classmethod
    def started_for_all(cls, identity, *flags):
        """A further xtipc node, which the tests of this class share. For its setUpClass."""
        daemon = cls.segment.daemon(identity, *flags)
        cls.addClassCleanup(daemon.close)
        daemon.start()
        return daemon

    def drive(self, node):
        return self.enter(node.drive())

    def await_link(self, one, other, timeout_s=LINK_UP_S):
        """Both ends list the link as up."""
        lab.until(lambda: one.is_linked_to(other.identity) and other.is_linked_to(one.identity), timeout_s,
                  f"{one.identity} and {other.identity} linked")

    def await_equal_tables(self, *nodes, timeout_s=3):
        def equal():
            tables = [node.name_table() for node in nodes]
            return tables[0] if all(table == tables[0] for table in tables) else None
        try:
            return lab.until(equal, timeout_s, "equal binding tables")
        except lab.LabError:
            for node in nodes:
                node.show("nametable show")
            raise

    def await_binding(self, node, kind, lower, owner, timeout_s=3):
        lab.until(lambda: any((entry[0], entry[1], entry[3]) == (kind, lower, owner.identity) for entry in node.table()),
                  timeout_s, f"{node.identity} knows {{{kind},{lower}}} at {owner.identity}")

    @contextlib.contextmanager
    def impaired(self, port, one, other):
        """Inside the block the wire of this port loses, doubles and reorders 5 % of the frames in each direction."""
        with lab.Relay(self.switch, port, loss=5, duplication=5, reordering=5, straggle="1ms") as relay:
            self.await_link(one, other, timeout_s=10)
            yield relay
            for way in relay.counters():
                print(f"  wire from {way['from']} to {way['to']}: {way}")
                self.assertEqual((way["overflow"], way["overrun"]), (0, 0), "the relay itself lost frames")
                for fault in ("lost", "duplicated", "reordered"):
                    self.assertAlmostEqual(way[fault] / way["frames"], 0.05, delta=0.01, msg=fault)

    @contextlib.contextmanager
    def without_resets(self, *nodes):
        """Inside the block no link between these nodes is reset, as seen at their ports of the switch, under any load."""
        macs = {node.mac() for node in nodes}
        with contextlib.ExitStack() as stack:
            captures = [stack.enter_context(self.switch.capture(node.identity, wire.LINK_RESETS)) for node in nodes]
            yield
            time.sleep(0.2)
            resets = [str(frame) for capture in captures for frame in capture.snapshot()
                      if {frame.source, frame.destination} <= macs]
        self.assertEqual(resets, [], "link resets")

    @contextlib.contextmanager
    def undisturbed(self, port, *nodes):
        """Inside the block no link between these nodes is reset, as seen at this port of the switch."""
        macs = {node.mac() for node in nodes}
        with self.switch.capture(port) as capture:
            time.sleep(0.05)
            yield capture
            resets = capture.find(lambda frame: frame.is_tipc and frame.user == wire.LINK_PROTOCOL
                                  and frame.type in (wire.RESET_MSG, wire.ACTIVATE_MSG)
                                  and {frame.source, frame.destination} <= macs)
        self.assertEqual([str(frame) for frame in resets], [], "link resets")


class PairTest(SegmentTest):
    """Tests that leave their second node as it was, and so share it."""

    @classmethod
    def setUpClass(cls):
        cls.beta = cls.started_for_all("beta")

    def setUp(self):
        self.await_link(self.alpha, self.beta)


class LinuxTest(SegmentTest):
    """A test against the Linux node; it starts with the link up."""

    segment: LinuxSegment

    @property
    def linux(self):
        return self.segment.linux

    def setUp(self):
        # By one side's word: asking the guest takes half a second.
        lab.until(lambda: self.alpha.is_linked_to("linux"), 10, "alpha linked to linux")
