"""Programs that compute without pause on the worker's processor."""
import os
import re
import time

import lab
from cluster import SegmentTest
from streams import Streams

TOLERANCE_MS = 300
COMPUTE = "while True: pass"
POLICIES = ("adaptive", "sleep", "busy")


class StarvedWorkerTest(SegmentTest):
    """No link is lost at a tolerance of 300 ms, whatever the worker does when it is idle."""

    def hog(self, cpu):
        """A program that computes, in our scheduling group: it is worth as much as the worker."""
        process = lab.spawn(["taskset", "--cpu-list", str(cpu), "python3", "-c", COMPUTE])

        def end():
            process.kill()
            process.wait()
        self.addCleanup(end)
        return end

    def links_hold(self, policies, hogs, seconds):
        """A node for each policy, all on one processor with the hogs, and a stream around them."""
        cpu = max(os.sched_getaffinity(0))
        nodes = [self.started(f"{policy}-{number}", "--tolerance", str(TOLERANCE_MS), "--cpus", str(cpu), "--policy", policy)
                 for number, policy in enumerate(policies)]
        pairs = list(zip(nodes, nodes[1:] + nodes[:1]))
        for one, other in pairs:
            self.await_link(one, other)
        streams = Streams(self, seconds / 2, gap_us=5000, sizes=[64, 1000, 4000])
        for one, other in pairs:
            streams.add(f"{one.identity} to {other.identity}", one, other)
        running = [self.hog(cpu) for _ in range(hogs)]
        time.sleep(seconds / 2)  # quiet links first: nothing but timers wakes the workers
        streams.start()
        streams.check_whole(least=seconds * 15)
        lost = {node.identity: node.log_text().count("Lost link") for node in nodes}
        for end in running:
            end()
        for node in nodes:
            node.stop()
            found = re.search(r"longest_gap_us=(\d+) rescues=(\d+)", node.log_text())
            print(f"{node.identity} beside {hogs}: longest gap {int(found[1]) / 1000:.1f} ms, set back {found[2]} times")
        self.assertEqual(set(lost.values()), {0}, f"links lost: {lost}")

    def test_links_hold_beside_a_busy_program(self):
        self.beside(1)

    def test_links_hold_beside_four_busy_programs(self):
        self.beside(4)

    def beside(self, hogs):
        if not self.segment.full:
            return self.links_hold(POLICIES, hogs, seconds=3)
        for policy in POLICIES:
            with self.subTest(policy):
                self.links_hold([policy, policy], hogs, seconds=60)
