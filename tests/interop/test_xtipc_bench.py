"""The bench between "two hosts": two namespaces, of which each has its own part of the bench."""
import json
import subprocess
import tempfile

import lab
from cluster import SegmentTest


class BenchTest(SegmentTest):
    def host(self, label, address):
        namespace = self.enter(lab.Namespace(label))
        self.switch.plug(namespace, label)
        self.addCleanup(self.switch.unplug, label)
        namespace.ip("address", "add", f"{address}/24", "dev", "eth0")
        return namespace

    def bench(self, namespace, *words, **options):
        with namespace.entered():
            return lab.spawn([lab.TARGET / "xtipc-bench", *words], **options)

    def test_bench_measures_between_two_hosts_and_tells_what_they_are(self):
        here, there = self.host("here", "10.0.0.1"), self.host("there", "10.0.0.2")
        serving = self.bench(there, "serve", "--listen", "10.0.0.2:7700", "--bearer", "eth:eth0", stderr=subprocess.PIPE)
        self.addCleanup(lambda: (serving.terminate(), serving.wait(), serving.stderr.close()))
        self.assertIn(b"serving eth0", serving.stderr.readline())
        with tempfile.NamedTemporaryFile() as figures:
            run = self.bench(here, "run", "--peer", "10.0.0.2:7700", "--bearer", "eth:eth0", "--set", "wire", "--only", "sleeping",
                             "--rounds", "1", "--burst", "20", "--json", figures.name, stdout=subprocess.PIPE)
            said, _ = run.communicate(timeout=60)
            self.assertEqual(run.returncode, 0, said)
            report = json.load(figures)
        steps = {summary["name"] for summary in report["summaries"]}
        self.assertLessEqual({"round trip xtipc sleeping", "round trip TCP sleeping", "round trip UDP sleeping"}, steps)
        for environment in (report["environment"], report["other_host"]):
            self.assertEqual(environment["interface"]["name"], "eth0")
            self.assertRegex(environment["interface"]["mtu"], "^[0-9]+$")
        for measured in report["rounds"][0]["measured"]:
            times = measured["figure"]["times"]
            self.assertEqual(sum(count for _, count in times["histogram"]), times["count"])

    def test_bench_says_what_is_wrong_and_what_is_accepted(self):
        for words, clue in ((["run", "--operations", "5000"], "1 to 2000"), (["run", "--set", "instructions"], "--operations"),
                            (["run", "--burst", "0"], "1 to 1000"), (["run", "--cpus", "0,0"], "two different"),
                            (["run", "--only", "sctp"], "no step"), (["run", "--peer", "127.0.0.1:1"], "--bearer"),
                            (["compare", "/dev/null", "/dev/null"], "no report")):
            result = subprocess.run([lab.TARGET / "xtipc-bench", *words], capture_output=True, text=True, timeout=20)
            self.assertNotEqual(result.returncode, 0, words)
            self.assertIn(clue, result.stderr)
