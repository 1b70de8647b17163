"""What the socket calls do on this kernel, beside what is recorded (tests/differential)."""
import re
import subprocess
import sys

import lab
from cluster import LinuxTest

sys.path.insert(0, str(lab.ROOT / "tests/differential"))
import situations  # noqa: E402

TIMEOUT_S = 300
# Steps that may take their time, and those on a second node. A short run leaves the situations with them out.
SLOW = re.compile(r"\b(start|timed|await|fill|far)\b")


class LinuxSituationsTest(LinuxTest):
    def test_links_and_nodes_are_named_as_they_are_listed(self):
        peer = f"0x{self.linux.address():x}"
        steps = ["a = socket rdm", f"ioctl a linkname {peer} 0", f"ioctl a linkname {peer} 1", f"ioctl a nodeid {peer}"]
        lines = self.alpha.results_of("\n".join(["# Names", *(f"  {step}" for step in steps)])).splitlines()
        names = [name for name, up in self.alpha.links().items() if up and "-linux:" in name]
        results = [line.split(situations.ARROW)[1] for line in lines[1:]]
        self.assertEqual(results, ["ok", f'"{names[0]}"', "EADDRNOTAVAIL", "an identity"])

    def test_the_recorded_results_are_those_of_this_kernel(self):
        wanted = {title: steps for title, steps in situations.all_situations().items()
                  if self.segment.full or not any(map(SLOW.search, steps))}
        guest = self.linux.guest
        if self.segment.full:
            guest.exec("sh", "-ce", situations.FAR_NODE)
            self.addCleanup(guest.exec, "sh", "-c", situations.NO_FAR_NODE)
        done = subprocess.run([lab.GUEST, "exec", guest.name, "-i", "--", "python3", "-c", situations.ON_KERNEL.read_text()],
                              input=situations.text_of(wanted), capture_output=True, text=True, timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        recorded = situations.recording(guest.release())
        expected = {title: recorded.get(title, []) for title in wanted}
        differences = situations.differing_lines(expected, situations.parsed(done.stdout))
        self.assertEqual(len(differences), 0, "\n" + situations.report(differences))
        print(f"  {len(wanted)} situations")
