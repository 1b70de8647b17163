"""What must give a clear error or a counted drop while the running links do not notice."""
import os
import random
import subprocess
import tempfile
import time

import lab
import wire
from cluster import PairTest, SegmentTest

GARBAGE_FRAMES = 3000
PASS_PROGRAM = b"""
#define SECTION(name) __attribute__((section(name), used))
SECTION("license") static char license_text[] = "GPL";
SECTION("xdp") int bystander(void *context) { return 2; /* XDP_PASS */ }
"""


class RefusedStartTest(PairTest):
    """A daemon that cannot start says why, exits non-zero at once, leaves nothing and disturbs nobody."""

    def setUp(self):
        super().setUp()
        self.enterContext(self.undisturbed("alpha", self.alpha, self.beta))
        # Never in the machine's own namespace: a start that is not refused would take its interface.
        self.nowhere = self.enter(lab.Namespace("nowhere"))

    def refusal(self, *words, identity="refused", namespace=None, **options):
        namespace = namespace or self.nowhere
        base = ["--instance", f"{lab.PREFIX}-{identity}"]
        config = [] if "--config" in words else ["--config", "/dev/null"]
        result = subprocess.run(["ip", "netns", "exec", namespace.name, str(lab.TARGET / "xtipcd"), *base, *config, *map(str, words)],
                                capture_output=True, text=True, timeout=10, **options)
        text = result.stderr + result.stdout
        self.assertNotEqual(result.returncode, 0, text)
        self.assertNotIn("panicked", text)
        self.assertNotIn(f"{lab.PREFIX}-{identity}", os.listdir(lab.RUNTIME))
        return text

    def test_unknown_interface_is_named(self):
        text = self.refusal("--identity", "x", "--bearer", "eth:nosuch0", namespace=self.alpha.namespace)
        self.assertIn("nosuch0", text)

    def test_interface_with_another_xtipcd_is_refused_and_its_owner_goes_on(self):
        text = self.refusal("--identity", "x", "--bearer", "eth:eth0", namespace=self.alpha.namespace)
        self.assertIn("eth0", text)
        self.assertRegex(text, r"another xtipcd \(process \d+\)")

    def test_interface_with_a_foreign_xdp_program_names_it(self):
        namespace = self.enter(lab.Namespace("foreign"))
        self.switch.plug(namespace, "foreign")
        self.addCleanup(self.switch.unplug, "foreign")
        program = self.compile_pass_program()
        try:
            namespace.ip("link", "set", "eth0", "xdpgeneric", "object", program, "section", "xdp")
        except lab.LabError as error:
            self.skipTest(f"no other XDP program can be loaded here: {error}")
        text = self.refusal("--identity", "x", "--bearer", "eth:eth0", namespace=namespace)
        self.assertIn("bystander", text)
        self.assertIn("xdpgeneric", namespace.ip("link", "show", "eth0"), "the other program was removed")

    def compile_pass_program(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        program = f"{directory.name}/bystander.o"
        subprocess.run(["clang", "-target", "bpf", "-O2", "-g", "-x", "c", "-c", "-", "-o", program], input=PASS_PROGRAM,
                       check=True)
        return program

    def test_same_instance_twice_is_refused(self):
        result = subprocess.run([str(word) for word in self.alpha.command()], capture_output=True, text=True, timeout=10)
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stderr + result.stdout, "in use by xtipcd")
        self.assertTrue((self.alpha.runtime / "control.sock").exists())

    def test_no_privileges_is_said(self):
        # Only the capabilities are taken away: an ordinary user could not make the runtime directory either.
        namespace = self.enter(lab.Namespace("bare"))
        self.switch.plug(namespace, "bare")
        self.addCleanup(self.switch.unplug, "bare")
        text = self.refusal("--identity", "x", "--bearer", "eth:eth0", namespace=namespace,
                            preexec_fn=self.drop_capabilities)
        self.assertRegex(text, "(?i)CAP_|privilege|permi")

    @staticmethod
    def drop_capabilities():
        # Left out of the bounding set, a capability is gone for the programs started from here on,
        # but `ip netns exec` itself needs SYS_ADMIN.
        pr_capbset_drop = 24
        for capability in (12, 13, 38, 39):  # NET_ADMIN, NET_RAW, PERFMON, BPF
            lab.libc.prctl(pr_capbset_drop, capability, 0, 0, 0)

    def test_kernel_that_is_too_old_is_named_with_what_is_accepted(self):
        text = self.refusal("--identity", "x", "--bearer", "eth:eth0", preexec_fn=self.pretend_linux_2_6)
        self.assertRegex(text, r"Linux 2\.6\.\d+\S* is not supported; accepted: 5\.10 or newer")

    @staticmethod
    def pretend_linux_2_6():
        uname26 = 0x0020000  # from here on the kernel itself reports 2.6.x to this process and its children
        lab.libc.personality(uname26)

    def test_malformed_configuration_names_line_or_key(self):
        for content, clue in ((b"identity = \n", "identity"), (b'bearer = "eth0"\n', "eth0"), (b"nonsense = 1\n", "nonsense"),
                              (b"\xff\xfe", "UTF-8|utf-8|invalid"), (b'identity = "x"\ntolerance = "fast"\n', "tolerance")):
            with self.subTest(content), tempfile.NamedTemporaryFile(suffix=".toml") as file:
                file.write(content)
                file.flush()
                self.assertRegex(self.refusal("--config", file.name), clue)

    def test_flags_out_of_range_are_refused(self):
        good = ["--identity", "x", "--bearer", "eth:eth0"]
        for flags in (["--tolerance", "49"], ["--tolerance", "30001"], ["--cluster-id", "0"], ["--cluster-id", "4711x"],
                      ["--workers", "0"], ["--policy", "hasty"], ["--xdp", "maybe"], ["--identity", "a b"],
                      ["--bearer", "wifi:eth0"], ["--bearer", "eth:"]):
            with self.subTest(flags):
                self.assertTrue(self.refusal(*good, *flags))


class BadMessageTest(SegmentTest):
    """What an application asks wrongly is an error for it alone."""

    def test_oversized_message_and_wrong_ranges_are_errors(self):
        driver = self.drive(self.alpha)
        socket = driver.open()
        for request in (("send", socket.number, "service,50000,1", 0, 66001), ("bind", socket.number, 50000, 9, 8, "cluster"),
                        ("bind", socket.number, 50000, 1, 1, "galaxy"), ("bind", socket.number, 1, 1, 1, "cluster"),
                        ("importance", socket.number, 4)):
            with self.subTest(request), self.assertRaises(lab.LabError):
                driver.call(*request)
        socket.bind(50000, 8, 9)
        socket.send("service,50000,8", 1, 66000)
        self.assertEqual(socket.recv().size, 66000)


class BadFrameTest(PairTest):
    """Frames that nobody should send do not disturb a running link."""

    def setUp(self):
        super().setUp()
        self.rogue = self.enter(lab.Namespace("rogue"))
        self.switch.plug(self.rogue, "rogue")
        self.addCleanup(self.switch.unplug, "rogue")
        self.port = self.enter(self.rogue.injector("eth0"))
        self.random = random.Random(4711)

    def check_exchange(self):
        one, other = self.drive(self.alpha).open(), self.drive(self.beta).open()
        one.send(other.address, 3, 66000)
        self.assertEqual(other.recv().size, 66000)
        other.send(one.address, 4, 10)
        self.assertEqual(one.recv().size, 10)
        self.assertTrue(self.alpha.is_linked_to("beta"))

    def targets(self):
        return [wire.BROADCAST, self.alpha.namespace.mac("eth0"), self.beta.namespace.mac("eth0")]

    def test_garbage_frames_are_dropped(self):
        with self.undisturbed("alpha", self.alpha, self.beta):
            targets = self.targets()
            for _ in range(GARBAGE_FRAMES):
                size = self.random.choice((0, 1, 10, 23, 24, 40, 60, 200, 1486))
                self.port.send(wire.frame(self.random.choice(targets), self.random.randbytes(6),
                                          self.random.randbytes(size)))
            self.check_exchange()

    def test_damaged_copies_of_real_frames_are_dropped(self):
        with self.undisturbed("alpha", self.alpha, self.beta):
            with self.switch.capture("alpha") as capture:
                self.check_exchange()
                time.sleep(1)
                frames = [frame.data for frame in capture.snapshot() if frame.is_tipc]
            source = self.rogue.mac("eth0")
            for _ in range(GARBAGE_FRAMES):
                data = bytearray(self.random.choice(frames))
                for _ in range(self.random.randrange(1, 6)):
                    data[self.random.randrange(14, len(data))] = self.random.randrange(256)
                # Not in the name of alpha or beta: nobody can tell such a frame from a real one.
                data[6:12] = source
                data[26:30] = b"\x01\x02\x03\x04"
                self.port.send(bytes(data[:self.random.choice((len(data), self.random.randrange(14, len(data) + 1)))]))
            self.check_exchange()

    def test_own_broadcasts_reflected_by_the_switch_are_dropped(self):
        log = self.alpha.log_text()
        with self.undisturbed("alpha", self.alpha, self.beta):
            for port in ("alpha", "beta"):
                self.switch.ip("link", "set", port, "type", "bridge_slave", "hairpin", "on")
            self.addCleanup(self.switch.ip, "link", "set", "alpha", "type", "bridge_slave", "hairpin", "off")
            receivers = [self.drive(node).open() for node in (self.alpha, self.beta)]
            for receiver in receivers:
                receiver.bind(50010, 1, 9)
            self.await_equal_tables(self.alpha, self.beta)
            sender = self.drive(self.alpha).open()
            for seed in range(20):
                sender.send("range,50010,1,9", seed, 500)
            for receiver in receivers:
                self.assertEqual(len(list(iter(lambda: receiver.recv(0.5), None))), 20)
            time.sleep(2)  # a few rounds of discovery and link supervision
            self.check_exchange()
        self.assertNotIn("the same node address", self.alpha.log_text().removeprefix(log))

    def test_a_node_with_the_identity_of_another_one_is_told_and_harms_nobody(self):
        with self.undisturbed("alpha", self.alpha, self.beta):
            double = self.enter(self.segment.daemon("double"))
            self.addCleanup(setattr, double, "identity", double.identity)
            double.identity = "beta"
            double.start()
            told = "this node and another one have the same node address"
            lab.until(lambda: told in double.log_text(), 5, "the double's line")
            time.sleep(2)
            self.assertEqual(double.log_text().count("the same node address"), 1)
            self.check_exchange()

    def test_frames_for_other_hosts_flooded_by_a_bridge_are_not_taken(self):
        gamma = self.started("gamma")
        for node in (self.alpha, self.beta):
            self.await_link(node, gamma)
        with self.undisturbed("alpha", self.alpha, self.beta, gamma):
            ports = ("alpha", "beta", "gamma")
            for port in ports:
                self.switch.ip("link", "set", port, "type", "bridge_slave", "learning", "off", "flood", "on")
                self.switch.ip("link", "set", port, "type", "bridge_slave", "fdb_flush")
            self.addCleanup(lambda: [self.switch.ip("link", "set", port, "type", "bridge_slave", "learning", "on")
                                     for port in ("alpha", "beta")])
            with self.switch.capture("gamma") as capture:
                self.check_exchange()
                beta = self.beta.mac()
                flooded = [frame for frame in capture.snapshot() if frame.is_tipc and frame.destination == beta]
            self.assertTrue(flooded, "the bridge did not flood")
            time.sleep(2)
            self.assertTrue(gamma.is_linked_to("alpha") and gamma.is_linked_to("beta"))
