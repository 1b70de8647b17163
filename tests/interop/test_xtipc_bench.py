"""The bench between "two hosts": two namespaces, of which each has its own part of the bench."""
import json
import pathlib
import socket
import subprocess
import tempfile
import time

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
            process = lab.spawn([lab.TARGET / "xtipc-bench", *words], **options)
        self.addCleanup(lambda: (process.terminate(), process.wait()))
        return process

    def test_bench_measures_between_two_hosts_and_tells_what_they_are(self):
        here, there = self.host("here", "10.0.0.1"), self.host("there", "10.0.0.2")
        self.serve(there, "eth:eth0")
        with tempfile.NamedTemporaryFile() as figures:
            run = self.bench(here, "run", "--peer", "10.0.0.2:7700", "--bearer", "eth:eth0", "--set", "wire", "--only", "sleeping",
                             "--rounds", "1", "--burst", "20", "--json", figures.name, stdout=subprocess.PIPE)
            said, _ = run.communicate(timeout=60)
            self.assertEqual(run.returncode, 0, said)
            report = json.loads(pathlib.Path(figures.name).read_text())
        steps = {summary["name"] for summary in report["summaries"]}
        self.assertLessEqual({"round trip xtipc sleeping", "round trip TCP sleeping", "round trip UDP sleeping"}, steps)
        for environment in (report["environment"], report["other_host"]):
            self.assertEqual(environment["interface"]["name"], "eth0")
            self.assertRegex(environment["interface"]["mtu"], "^[0-9]+$")
        for measured in report["rounds"][0]["measured"]:
            times = measured["figure"]["times"]
            self.assertEqual(sum(count for _, count in times["histogram"]), times["count"])

    def serve(self, there, bearer):
        serving = self.bench(there, "serve", "--listen", "10.0.0.2:7700", "--bearer", bearer, stderr=subprocess.PIPE)
        self.addCleanup(serving.stderr.close)
        self.assertIn(b"serving eth0", serving.stderr.readline())
        return serving

    def test_bench_measures_between_two_hosts_over_udp_of_both_kinds_with_baselines_by_the_same_interface(self):
        here, there = self.host("here", "10.0.0.1"), self.host("there", "10.0.0.2")
        for namespace, address in ((here, "fd00::1/64"), (there, "fd00::2/64")):
            namespace.ip("address", "add", address, "dev", "eth0", "nodad")
        for own, other in (("udp:wan,localip=10.0.0.1", "udp:wan,localip=10.0.0.2"),
                           ("udp:wan,localip=fd00::1,remoteip=fd00::2", "udp:wan,localip=fd00::2,remoteip=fd00::1")):
            with self.subTest(own):
                serving = self.serve(there, other)
                with tempfile.NamedTemporaryFile() as figures:
                    run = self.bench(here, "run", "--peer", "10.0.0.2:7700", "--bearer", own, "--set", "wire", "--only", "trip",
                                     "--rounds", "1", "--burst", "20", "--json", figures.name, stdout=subprocess.PIPE)
                    said, _ = run.communicate(timeout=100)
                    self.assertEqual(run.returncode, 0, said)
                    report = json.loads(pathlib.Path(figures.name).read_text())
                serving.terminate()
                serving.wait()
                steps = {summary["name"] for summary in report["summaries"]}
                self.assertLessEqual({"round trip xtipc sleeping", "round trip xtipc embedded spinning", "round trip TCP sleeping",
                                      "round trip UDP sleeping", "round trip AF_PACKET spinning", "round trip raw AF_XDP spinning"},
                                     steps)
                self.assertEqual(report["method"]["bearer"], own)
                left_out = dict(report["left_out"])
                self.assertIn("inside of one host", left_out["round trip TCP sleeping, one processor"])

    def test_bench_ends_with_the_other_host_and_leaves_nothing_there(self):
        here, there = self.host("here", "10.0.0.1"), self.host("there", "10.0.0.2")
        words = ("run", "--peer", "10.0.0.2:7700", "--bearer", "eth:eth0", "--set", "wire", "--only", "xtipc sleeping",
                 "--rounds", "9", "--burst", "1000")

        def parts():
            result = subprocess.run(["ip", "netns", "pids", there.name], capture_output=True, text=True)
            return set(result.stdout.split())

        for ended in ("serve", "run"):
            with self.subTest(ended):
                serving = self.serve(there, "eth:eth0")
                alone = parts()
                run = self.bench(here, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                self.wait_until(lambda: len(parts() - alone) >= 3, 30)
                if ended == "serve":
                    serving.kill()
                else:
                    run.terminate()
                _, said = run.communicate(timeout=80)
                self.assertNotEqual(run.returncode, 0)
                if ended == "serve":
                    self.assertIn(b"xtipc-bench: ", said)
                    serving.wait()
                    self.wait_until(lambda: not parts(), 10)
                else:
                    self.wait_until(lambda: parts() == alone, 10)
                    serving.terminate()
                    serving.wait()

    def wait_until(self, holds, seconds):
        end = time.monotonic() + seconds
        while not holds():
            self.assertLess(time.monotonic(), end, "not in time")
            time.sleep(0.05)

    def test_bench_refuses_another_version_and_who_is_none(self):
        here, there = self.host("here", "10.0.0.1"), self.host("there", "10.0.0.2")
        answers = ((b'{"environment": {"version": "0.0.9"}}\n', "by version 0.0.9"), (b"SSH-2.0-OpenSSH\n", "it said `SSH-2.0-OpenSSH`"),
                   (b"", "no `xtipc-bench serve`"))
        with there.entered():
            listener = socket.create_server(("10.0.0.2", 7700))
        self.addCleanup(listener.close)
        listener.settimeout(20)
        for answer, clue in answers:
            run = self.bench(here, "run", "--peer", "10.0.0.2:7700", "--bearer", "eth:eth0", stderr=subprocess.PIPE)
            with listener.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(answer)
            _, said = run.communicate(timeout=20)
            self.assertNotEqual(run.returncode, 0)
            self.assertIn(clue, said.decode())

    def test_bench_says_what_is_wrong_and_what_is_accepted(self):
        for words, clue in ((["run", "--operations", "5000"], "1 to 2000"), (["run", "--set", "instructions"], "--operations"),
                            (["run", "--burst", "0"], "1 to 1000"), (["run", "--cpus", "0,0"], "two different"),
                            (["run", "--only", "sctp"], "--only sctp: no step has this in its name, accepted are parts of these: `round trip"),
                            (["run", "--only", "udp", "--only", "embedded"], "no step has all of this"),
                            (["run", "--cpus", "0,4095"], "processor 4095 is not there"), (["run", "--policy", "lazy"], "adaptive"),
                            (["run", "--json", "/nonesuch/run.json"], "cannot write /nonesuch/run.json"),
                            (["run", "--xtipcd", "/nonesuch"], "--xtipcd /nonesuch"),
                            (["run", "--peer", "127.0.0.1:1"], "--bearer"),
                            (["run", "--peer", "127.0.0.1:1", "--bearer", "eth:lo"], "no `xtipc-bench serve` at 127.0.0.1:1"),
                            (["run", "--peer", "127.0.0.1:1", "--bearer", "shm:pod"], "udp:NAME,localip=ADDRESS"),
                            (["serve", "--listen", "127.0.0.1:1", "--bearer", "eth:nonesuch"], "no interface nonesuch"),
                            (["compare", "/dev/null", "/dev/null"], "no report")):
            result = subprocess.run([lab.TARGET / "xtipc-bench", *words], capture_output=True, text=True, timeout=20)
            self.assertNotEqual(result.returncode, 0, words)
            self.assertIn(clue, result.stderr)
            self.assertNotIn("backtrace", result.stderr)

    def test_bench_lists_its_steps_without_measuring(self):
        result = subprocess.run([lab.TARGET / "xtipc-bench", "run", "--set", "load", "--list"], capture_output=True, text=True, timeout=20)
        self.assertEqual(result.stdout.split("\n"), ["load xtipc", "load xtipc x2", "load xtipc x3", ""])
