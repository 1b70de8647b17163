"""xtipc nodes among themselves: what they leave behind, how they stop, what an idle one costs."""
import os
import pathlib
import re
import time
import zlib

import drive
import lab
from cluster import SegmentTest

IDLE_PERCENT_MAX = {"adaptive": 1.0, "sleep": 0.5}
SHORT_FACTOR = 3
"""In the short version a clock tick more or less is a tenth of a percent, and others run beside it."""


def cpu_seconds(pid):
    """User and system time of all threads of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def processes_with(words):
    """Processes that have these words in their command line."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in entry.read_bytes():
                found.append(entry.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def xdp_program(namespace, interface):
    """What `ip link` says of an XDP program on the interface, empty if there is none."""
    found = re.search(r"prog/xdp id \d+|xdp\w*", namespace.ip("link", "show", interface).partition("\n")[0])
    return found[0] if found else ""


class XtipcPairTest(SegmentTest):
    def test_two_nodes_link_and_exchange_datagrams(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        one, other = self.drive(self.alpha).open(), self.drive(beta).open()
        other.bind(40000, 1)
        self.await_binding(self.alpha, 40000, 1, beta)
        for seed, size in enumerate((1, 1500, 4000, 66000)):
            one.send("service,40000,1", seed, size)
            message = other.recv()
            self.assertEqual((message.size, message.crc), (size, zlib.crc32(drive.pattern(seed, size))))

    def test_applications_of_one_node_exchange_datagrams(self):
        one, other = self.drive(self.alpha).open(), self.drive(self.alpha).open()
        other.bind(40010, 1)
        one.send("service,40010,1", 1, 66000)
        self.assertEqual(other.recv().size, 66000)
        other.send(one.address, 2, 10)
        self.assertEqual(one.recv().size, 10)

    def test_orderly_stop_accounts_for_all_frames_and_leaves_nothing(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        sender, receiver = self.drive(beta).open(), self.drive(self.alpha).open()
        for seed in range(50):
            sender.send(receiver.address, seed, 4000)
        for _ in range(50):
            self.assertIsNotNone(receiver.recv())
        beta.stop()
        self.assert_nothing_left(beta)
        self.assertFalse(list(beta.runtime.glob("*")) if beta.runtime.exists() else [])

    def test_kill_9_leaves_no_program_on_the_interface_and_a_restart_works(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        self.assertNotEqual(xdp_program(beta.namespace, "eth0"), "", "no XDP program while it runs")
        beta.kill()
        self.assert_nothing_left(beta)
        beta.start()
        self.await_link(self.alpha, beta, timeout_s=5)
        beta.stop()

    def assert_nothing_left(self, daemon):
        lab.until(lambda: not xdp_program(daemon.namespace, "eth0"), 2, "the XDP program's removal")
        self.assertEqual(processes_with(f"--instance\0{daemon.instance}\0"), [])
        self.assertEqual([name for name in os.listdir("/dev/shm") if "xtipc" in name or daemon.instance in name], [])

    def test_applications_learn_that_the_daemon_died(self):
        beta = self.started("beta")
        receiver = self.drive(beta).open()
        receiver.driver.request("recv", receiver.number, 20000)
        time.sleep(0.2)
        beta.kill()
        with self.assertRaises(lab.LabError):
            receiver.driver.answer(5)

    def test_two_instances_on_one_host_are_two_nodes(self):
        beta = self.started("beta")
        self.assertNotEqual(self.alpha.address(), beta.address())
        self.assertNotEqual(self.alpha.runtime, beta.runtime)

    def test_fallback_to_packet_sockets_links_too(self):
        beta = self.started("beta", "--xdp", "off")
        self.await_link(self.alpha, beta)
        self.assertEqual(xdp_program(beta.namespace, "eth0"), "")
        sender, receiver = self.drive(beta).open(), self.drive(self.alpha).open()
        sender.send(receiver.address, 9, 66000)
        self.assertEqual(receiver.recv().crc, zlib.crc32(drive.pattern(9, 66000)))

    def test_native_xdp_links_too(self):
        beta = self.started("beta", "--xdp", "native")
        self.await_link(self.alpha, beta)

    def test_idle_node_costs_little(self):
        if self.segment.full:
            for policy in IDLE_PERCENT_MAX:
                self.idle(60, [policy])
        else:
            self.idle(10, IDLE_PERCENT_MAX)

    def idle(self, seconds, policies):
        """A node with each of these policies, side by side."""
        nodes = {policy: self.started(f"idle-{policy}", "--policy", policy) for policy in policies}
        for node in nodes.values():
            self.await_link(self.alpha, node)
            driver = self.drive(node)
            for _ in range(10):
                driver.open()
        time.sleep(2)
        before = {policy: cpu_seconds(node.process.pid) for policy, node in nodes.items()}
        time.sleep(seconds)
        for policy, node in nodes.items():
            percent = 100 * (cpu_seconds(node.process.pid) - before[policy]) / seconds
            print(f"idle, {len(nodes)} link(s), 10 sockets, {policy}: {percent:.2f} % of a core,"
                  f" {resident_kib(node.process.pid)} KiB resident")
            with self.subTest(policy):
                factor = 1 if self.segment.full else SHORT_FACTOR
                self.assertLessEqual(percent, factor * IDLE_PERCENT_MAX[policy] + 0.001)
            node.stop()
