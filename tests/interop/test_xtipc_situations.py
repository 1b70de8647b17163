"""What the socket calls do on xtipc, beside what is recorded of Linux (tests/differential)."""
import sys

import lab
from cluster import SegmentTest

sys.path.insert(0, str(lab.ROOT / "tests/differential"))
import situations  # noqa: E402

ANY_RELEASE = "999.0"


class XtipcSituationsTest(SegmentTest):
    def test_every_situation_ends_as_on_linux_or_as_the_documented_difference(self):
        self.compare(self.started("near", "--direct-after=0"))

    def test_every_situation_ends_the_same_over_direct_channels(self):
        self.compare(self.started("nearer", "--direct-after=1"))

    def compare(self, node):
        wanted = situations.all_situations()
        recorded = situations.recording(ANY_RELEASE)
        self.assertEqual(set(recorded), set(wanted), "situations and recording do not have the same titles")
        documented = situations.documented_differences()
        expected = situations.with_differences(recorded, documented)
        far = self.started("far")
        self.await_link(node, far)
        got = situations.parsed(node.results_of(situations.text_of(wanted), far))
        differences = situations.differing_lines(expected, got)
        self.assertEqual(len(differences), 0, "\n" + situations.report(differences))
        same = [title for title in documented if got[title] == recorded[title]]
        self.assertEqual(same, [], "documented as different, but not")
        print(f"  {len(got)} situations, {len(documented)} of them with documented differences")
