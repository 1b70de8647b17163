"""Garbage and forged frames at 100,000 a second: counted, and the links that run do not notice."""
import random
import struct
import time
from collections import Counter

import lab
import load
import wire
from cluster import SegmentTest
from test_xtipc_pair import cpu_seconds

RATE = 100_000
CPU_PERCENT_MAX = 80
"""Of a core, for one daemon that does nothing but drop them."""
OWN_PACKETS_PER_S = 100
"""Of the nodes themselves while they are idle, at most."""
DATA, BROADCAST_START, BUNDLER, FRAGMENTER = 0, 5, 6, 12
SESSION_WORD, DESTINATION_WORD = 5, 7
RATE_LEFT_MIN = 0.2
"""Share of the message rate that is left beside a storm, which takes most of one of two cores for itself."""
CLUSTER_ID = 4711
SETTINGS = 20
"""Random settings of each kind of forgery."""


def changed(payload, *fields):
    """The payload with fields of header words overwritten: (word, shift, bits, value)."""
    new = bytearray(payload)
    for word, shift, bits, value in fields:
        mask = (1 << bits) - 1
        old, = struct.unpack_from(">I", new, 4 * word)
        struct.pack_into(">I", new, 4 * word, old & ~(mask << shift) | (value & mask) << shift)
    return bytes(new)


class Forger:
    """Makes frames that a node must drop, each with the reason that it has to be counted under.

    Everything but what a station can send that knows the session in force and numbers inside the window: without
    encryption nothing tells that from what the peer sends.
    """

    def __init__(self, station, states, cluster_id):
        self.station, self.states, self.cluster_id = station, states, cluster_id
        self.random = random.Random(4711)

    def crowd(self):
        """All kinds, mixed."""
        frames = list(self.garbage())
        for state in self.states:
            def sent(source, kind):
                return [(wire.frame(state.destination, source, payload), reason) for payload, reason in kind(state)]
            frames += sent(self.station, self.from_elsewhere)
            frames += sent(self.station, self.discovery)
            frames += sent(state.source, self.impossible)
        self.random.shuffle(frames)
        return frames

    def garbage(self):
        """Bytes of any kind from stations that nobody knows; of no version of the protocol, or encrypted."""
        targets = [wire.BROADCAST, *(state.destination for state in self.states)]
        for _ in range(20 * SETTINGS):
            version = self.random.choice((0, 1, 3, 4, 5, 6, 7))
            size = self.random.choice((1, 10, 24, 40, 60, 200, 1400))
            data = bytes([version << 5 | self.random.getrandbits(5)]) + self.random.randbytes(size - 1)
            source = b"\x02" + self.random.randbytes(5)
            yield wire.frame(self.random.choice(targets), source, data), "encrypted" if version == 7 else "malformed"

    def from_elsewhere(self, state):
        """Sound headers in the name of this STATE's sender, of every user and with any numbers, but from another station."""
        payload = state.data[14:14 + 40].ljust(60, b"\0")
        for user in (DATA, BROADCAST_START, BUNDLER, wire.LINK_PROTOCOL, wire.NAME_DISTRIBUTOR, FRAGMENTER):
            for _ in range(2 * SETTINGS):
                kind, numbers = self.random.randrange(3), self.random.getrandbits(32)
                yield changed(payload, (0, 25, 4, user), (0, 0, 17, len(payload)), (1, 29, 3, kind),
                              (2, 0, 32, numbers)), "foreign-station"

    def discovery(self, state):
        """Requests of a node with the address of this STATE's sender that can do next to nothing."""
        identity = b"forged".ljust(16, b"\0")
        media_address = (b"\0\0\0\1" + self.station).ljust(32, b"\0")
        for _ in range(SETTINGS):
            payload = bytes(12) + struct.pack(">II", state.previous_node, self.cluster_id) + media_address + bytes(8) + identity
            yield changed(payload, (0, 29, 3, 2), (0, 25, 4, wire.LINK_CONFIG), (0, 21, 4, 15), (0, 20, 1, 1),
                          (0, 0, 17, len(payload)), (1, 15, 13, 1 << 5), (1, 0, 15, self.random.getrandbits(15))), \
                "duplicate-address"

    def impossible(self, state):
        """From the station of this STATE's sender: of older sessions, of wrong sizes and versions, for others."""
        payload = state.data[14:]
        reset = changed(payload[:40] + b"eth0".ljust(16, b"\0"), (0, 0, 17, 56), (9, 16, 16, 1500 // 4))
        for _ in range(SETTINGS):
            older = (SESSION_WORD, 16, 16, state.session - self.random.randrange(2, 30_000))
            yield changed(payload, older), "stale-session"
            yield changed(reset, older, (1, 29, 3, wire.RESET_MSG)), "stale-session"
            yield changed(reset, older, (1, 29, 3, wire.ACTIVATE_MSG)), "stale-session"
            # Without the interface's name there is no RESET.
            yield changed(payload[:40], (0, 0, 17, 40), (1, 29, 3, wire.RESET_MSG)), "malformed-control"
            size = self.random.choice((0, 10, 39, len(payload) + 1, 66_100, 0x1ffff))
            yield changed(payload, (0, 0, 17, size)), "malformed"
            yield changed(payload, (0, 21, 4, self.random.choice((0, 1, 5)))), "malformed"
            yield changed(payload, (0, 29, 3, self.random.choice((0, 1, 3)))), "malformed"
            yield changed(payload, (DESTINATION_WORD, 0, 32, self.random.getrandbits(32) | 1)), "other-node"

    def outdated(self):
        """Data from the stations themselves with numbers that have been; only while the links are idle, or they come again."""
        for state in self.states:
            next_sent = state.word(4) & 0xffff
            for _ in range(4 * SETTINGS):
                number = next_sent - self.random.randrange(1, 20_000)
                payload = changed(state.data[14:14 + 40].ljust(60, b"\0"), (0, 25, 4, DATA), (0, 0, 17, 60), (1, 29, 3, 3),
                                  (1, 0, 16, self.random.getrandbits(16)), (2, 0, 16, number), (2, 16, 16, self.random.getrandbits(16)))
                yield wire.frame(state.destination, state.source, payload), "duplicate"


class StormTest(SegmentTest):
    def setUp(self):
        self.beta = self.started("beta")
        self.nodes = (self.alpha, self.beta)
        self.await_link(self.alpha, self.beta)
        self.rogue = self.enter(lab.Namespace("rogue"))
        self.switch.plug(self.rogue, "rogue")
        self.addCleanup(self.switch.unplug, "rogue")
        # It forges addresses; what is meant for their owners must go on to them.
        self.switch.ip("link", "set", "rogue", "type", "bridge_slave", "learning", "off")

    def states(self):
        """The latest STATE of alpha and of beta to the other."""
        with self.switch.capture("alpha") as capture:
            def of(one, other):
                macs = one.mac(), other.mac()
                return capture.wait_for(lambda f: f.is_message(wire.LINK_PROTOCOL, wire.STATE_MSG)
                                        and (f.source, f.destination) == macs, 3)
            return [of(self.alpha, self.beta), of(self.beta, self.alpha)]

    def counters(self):
        """Drops by reason, those of the nodes and those of their bearers; packets that reached the daemons."""
        drops, received = Counter(), 0
        for node in self.nodes:
            status = node.tool_json("status")[0]
            drops.update(status["drops"])
            for bearer in status["bearers"]:
                drops.update(bearer["drops"])
                received += bearer["rx_packets"]
        return drops, received

    def storm(self, frames):
        with self.rogue.entered():
            return wire.Storm("eth0", [data for data, _ in frames], RATE)

    def check_counted(self, frames, storm, drops, received):
        """What reached the daemons was dropped and counted, each kind in its share."""
        print(f"alone: {storm.sent} frames, {storm.sent / storm.seconds:.0f}/s, received {received}, drops {dict(drops)}")
        shares = Counter()
        for data, reason in frames:
            shares[reason] += len(self.nodes) if data[:6] == wire.BROADCAST else 1
        counted = sum(drops[reason] for reason in shares)
        self.assertLessEqual(counted, received)
        self.assertGreater(counted, received - OWN_PACKETS_PER_S * (storm.seconds + 1))
        self.assertGreater(received, storm.sent * 0.8, "lost before they reached the daemons")
        for reason, share in shares.items():
            with self.subTest(reason):
                self.assertAlmostEqual(drops[reason] / counted, share / shares.total(), delta=0.02)

    def lost_links(self):
        return sum(node.log_text().count("Lost link") for node in self.nodes)

    def cpu(self):
        return [cpu_seconds(node.process.pid) for node in self.nodes]

    def check_cpu(self, before, storm, most=None):
        percent = [100 * (after - start) / storm.seconds for start, after in zip(before, self.cpu())]
        print(f"  the daemons take {percent[0]:.0f} and {percent[1]:.0f} % of a core")
        if most:
            self.assertLess(max(percent), most)

    def test_100000_forged_frames_a_second_are_counted_and_the_links_do_not_notice(self):
        full = self.segment.full
        states, lost = self.states(), self.lost_links()
        forger = Forger(self.rogue.mac("eth0"), states, CLUSTER_ID)
        frames = forger.crowd()
        with self.subTest("alone"):
            self.storm_alone(frames + list(forger.outdated()), 10 if full else 1)
        with self.subTest("beside traffic"):
            self.storm_beside_traffic(frames, 60 if full else 1.5)
        self.assertEqual([state.session for state in self.states()], [state.session for state in states], "a link was reset")
        self.assertEqual(self.lost_links(), lost, "a link was lost")
        self.await_equal_tables(*self.nodes)

    def storm_alone(self, frames, seconds):
        cpu, (drops, received) = self.cpu(), self.counters()
        with self.storm(frames) as storm:
            time.sleep(seconds)
        time.sleep(0.2)
        self.check_cpu(cpu, storm, CPU_PERCENT_MAX if self.segment.full else None)
        after = self.counters()
        self.check_counted(frames, storm, after[0] - drops, after[1] - received)
        if self.segment.full:
            self.assertGreater(storm.sent / storm.seconds, 0.95 * RATE)

    def storm_beside_traffic(self, frames, seconds):
        calm = load.Load(self, seconds, *self.nodes)
        calm.run()
        calm.report("without a storm")
        busy = load.Load(self, seconds, *self.nodes)
        cpu, (drops, _) = self.cpu(), self.counters()
        with self.storm(frames) as storm:
            busy.run()
        busy.report("beside a storm")
        self.check_cpu(cpu, storm)
        counted = self.counters()[0] - drops
        print(f"  {storm.sent} frames, {storm.sent / storm.seconds:.0f}/s, drops {dict(counted)}")
        for reason in {reason for _, reason in frames}:
            self.assertGreater(counted[reason], 0, reason)
        if self.segment.full:
            rates = [sum(run.sent.values()) / run.lasted for run in (calm, busy)]
            self.assertGreater(rates[1], rates[0] * RATE_LEFT_MIN)
