"""Programs that compute without pause on the worker's processor."""
import os
import re
import time

import lab
from cluster import SegmentTest
from streams import Streams

TOLERANCE_MS = 300
HOG = """
import os
os.sched_setaffinity(0, {{{cpu}}})
if {heavy}:
    os.setsid()
    open("/proc/self/autogroup", "w").write("-20")
    os.nice(-20)
while True:
    pass
"""
POLICIES = ("adaptive", "sleep", "busy")


class StarvedWorkerTest(SegmentTest):
    """No link is lost at a tolerance of 300 ms, whatever the worker does when it is idle."""

    def hog(self, cpu, heavy=False):
        """A program that computes. It is in our scheduling group, so it is worth as much as a worker; a heavy one has a
        group of its own, with the largest weight there is."""
        process = lab.spawn(["python3", "-c", HOG.format(cpu=cpu, heavy=heavy)])

        def end():
            process.kill()
            process.wait()
        self.addCleanup(end)
        return end

    def starved(self, cpu, policies):
        """A node for each policy, all on one processor, and the pairs of a ring of them."""
        nodes = [self.started(f"{policy}-{number}", "--tolerance", str(TOLERANCE_MS), "--cpus", str(cpu), "--policy", policy)
                 for number, policy in enumerate(policies)]
        pairs = list(zip(nodes, nodes[1:] + nodes[:1]))
        for one, other in pairs:
            self.await_link(one, other)
        return nodes, pairs

    def links_hold(self, policies, hogs, seconds):
        """Hogs on the processor of the nodes, quiet links first, then streams over them."""
        cpu = max(os.sched_getaffinity(0))
        nodes, pairs = self.starved(cpu, policies)
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
        self.report(nodes, f"beside {hogs}")
        self.assertEqual(set(lost.values()), {0}, f"links lost: {lost}")

    def report(self, nodes, title):
        for node in nodes:
            lost = node.log_text().count("reason=Silence")
            node.stop()
            text = re.sub(r"\x1b\[[0-9;]*m", "", node.log_text())
            found = re.search(r"longest_gap_us=(\d+) rescues=(\d+)", text)
            print(f"  {node.identity} {title}: longest gap {int(found[1]) / 1000:.1f} ms, raised {found[2]} times,"
                  f" links given up {lost}")

    def test_links_hold_beside_a_program_that_outweighs_the_workers(self):
        """Beside 87 times the weight nothing within SCHED_OTHER would."""
        cpu = max(os.sched_getaffinity(0))
        for policy in POLICIES if self.segment.full else POLICIES[:1]:
            with self.subTest(policy):
                nodes, _ = self.starved(cpu, [policy, policy])
                end = self.hog(cpu, heavy=True)
                time.sleep(60 if self.segment.full else 4)
                end()
                lost = sum(node.log_text().count("Lost link") for node in nodes)
                self.report(nodes, "beside a heavy program")
                self.assertEqual(lost, 0)

    def test_links_hold_beside_a_busy_program(self):
        self.beside(1)

    def test_links_hold_beside_four_busy_programs(self):
        self.beside(4)

    def beside(self, hogs):
        if not self.segment.full:
            return self.links_hold(POLICIES, hogs, seconds=2)
        for policy in POLICIES:
            with self.subTest(policy):
                self.links_hold([policy, policy], hogs, seconds=60)
