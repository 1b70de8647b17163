"""What the socket calls do on this kernel, beside what is recorded (tests/differential)."""
import subprocess
import sys

import lab
from cluster import LinuxTest

sys.path.insert(0, str(lab.ROOT / "tests/differential"))
import situations  # noqa: E402

TIMEOUT_S = 300
# Steps that may take their time. A short run leaves the situations with them out.
SLOW = ("start ", "timed ", "await ", "fill ")


class LinuxSituationsTest(LinuxTest):
    def test_the_recorded_results_are_those_of_this_kernel(self):
        wanted = {title: steps for title, steps in situations.all_situations().items()
                  if self.segment.full or not any(word in step for step in steps for word in SLOW)}
        guest = self.linux.guest
        done = subprocess.run([lab.GUEST, "exec", guest.name, "-i", "--", "python3", "-c", situations.ON_KERNEL.read_text()],
                              input=situations.text_of(wanted), capture_output=True, text=True, timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        recorded = situations.recording(guest.release())
        expected = {title: recorded.get(title, []) for title in wanted}
        differences = situations.differing_lines(expected, situations.parsed(done.stdout))
        self.assertFalse(differences, "\n" + situations.report(differences))
        print(f"  {len(wanted)} situations")
