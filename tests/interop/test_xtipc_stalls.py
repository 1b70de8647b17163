"""xtipc nodes that stand still, and applications that do."""
import time

import lab
from cluster import SegmentTest
from streams import Streams, stand_still, stopped
from test_xtipc_pair import resident_kib

BACK_S = 1
STALL_S, SHORT_STALL_S = 10, 4


class StoppedDaemonTest(SegmentTest):
    flags = ()

    def setUp(self):
        self.beta = self.started("beta", *self.flags)
        self.await_link(self.alpha, self.beta)

    def test_daemon_that_stands_still_for_1_s_breaks_nothing(self):
        stalls = 20 if self.segment.full else 2
        streams = Streams(self, seconds=stalls * 1.5 + 0.5, gap_us=1000)
        streams.add("to the stopped node", self.alpha, self.beta)
        streams.add("from the stopped node", self.beta, self.alpha)
        streams.add("within the stopped node", self.beta, self.beta)
        with self.undisturbed("alpha", self.alpha, self.beta) as capture:
            streams.start()
            for _ in range(stalls):
                time.sleep(0.5)
                since_ns = stand_still(self.beta.process, 1)
                self.assert_silent(capture, since_ns + 10**7, 980)
            streams.check_whole(least=stalls * 300)
        self.await_equal_tables(self.alpha, self.beta)

    def assert_silent(self, capture, from_ns, span_ms):
        """The test would prove nothing if the node went on."""
        source = self.beta.mac()
        frames = capture.find(lambda frame: frame.source == source and frame.at_ns < from_ns + span_ms * 10**6, from_ns)
        self.assertEqual([str(frame) for frame in frames], [], "sent while stopped")

    def test_daemon_that_stood_still_is_back_within_1_s(self):
        self.lose_and_regain(STALL_S if self.segment.full else SHORT_STALL_S)

    def test_daemon_that_stood_still_under_load_is_back_within_1_s(self):
        sink = self.drive(self.beta).open()
        for stream in range(3):
            self.drive(self.alpha).open().start_flood(sink.address, stream, 15, 0, [1000])
        time.sleep(1)
        self.lose_and_regain(STALL_S if self.segment.full else SHORT_STALL_S)

    def test_daemon_that_missed_the_resets_of_its_peers_is_back_within_1_s(self):
        self.lose_and_regain(STALL_S if self.segment.full else SHORT_STALL_S, deaf=True)

    def lose_and_regain(self, stall_s, deaf=False):
        ours, theirs = self.drive(self.beta).open(), self.drive(self.alpha).open()
        for instance in range(50):
            ours.bind(41000, instance)
        theirs.bind(41001, 1)
        with stopped(self.beta.process):
            began = time.monotonic()
            if deaf:
                self.addCleanup(self.switch.ip, "link", "set", "beta", "master", "switch")
                self.switch.ip("link", "set", "beta", "nomaster")
            lab.until(lambda: not self.alpha.is_linked_to("beta"), 4, "alpha gives beta up")
            theirs.bind(41001, 2)
            theirs.unbind(41001, 1)
            self.assertEqual([entry for entry in self.alpha.table() if entry[0] == 41000], [])
            time.sleep(max(0, stall_s - (time.monotonic() - began)))
            if deaf:
                self.switch.ip("link", "set", "beta", "master", "switch")
        resumed = time.monotonic()
        self.await_link(self.alpha, self.beta, timeout_s=5)
        self.await_binding(self.alpha, 41000, 49, self.beta)
        table, _ = self.await_equal_tables(self.alpha, self.beta)
        seconds = time.monotonic() - resumed
        print(f"linked, with equal tables, {seconds:.3f} s after a stall of {stall_s} s")
        self.assertLessEqual(seconds, BACK_S)
        self.assertEqual(len([entry for entry in table if entry[0] == 41000]), 50)
        self.assertEqual([entry for entry in table if entry[0] == 41001], [(41001, 2, 2, "alpha")])


class StoppedApplicationTest(SegmentTest):
    def test_application_that_stands_still_harms_only_itself(self):
        """Its queue is bounded, what does not fit comes back, and it goes on with what it had."""
        seconds = 10 if self.segment.full else 3
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        frozen, sender = self.drive(beta).open(), self.drive(self.alpha).open()
        sender.call("droppable", 0)
        streams = Streams(self, seconds=seconds, gap_us=2000)
        streams.add("to its neighbour", self.alpha, beta)
        streams.add("from its neighbour", beta, self.alpha)
        streams.add("between its neighbours", beta, beta)
        before_kib = resident_kib(beta.process.pid)
        with self.undisturbed("alpha", self.alpha, beta):
            with stopped(frozen.driver.process):
                streams.start()
                sender.start_flood(frozen.address, 9, seconds - 0.5, 500, [4000])
                sent = int(sender.driver.answer(seconds + 30)[0])
                streams.check_whole(least=seconds * 200)
            grown_kib = resident_kib(beta.process.pid) - before_kib
            frozen.start_collect(streams=1, idle_s=1, limit_s=20)
            kept = frozen.collected(30)
            sender.start_collect(streams=1, idle_s=1, limit_s=20)
            returned = sender.collected(30).returned
            print(f"{sent} messages to a stopped application: {kept.good} kept, {returned} returned,"
                  f" the daemon grew by {grown_kib} KiB")
            end_of_stream = 1
            self.assertEqual((kept.corrupt, kept.good + returned), (0, sent + end_of_stream))
            self.assertEqual(kept.streams[9][2:], (0, 0), "duplicate, out of order")
            self.assertGreater(returned, 0)
            self.assertLess(grown_kib, 16 << 10)
            sender.send(frozen.address, 3, 5000)
            self.assertEqual(frozen.recv().size, 5000)
