"""Programs that know nothing of xtipc, run by `xtipc run`."""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zlib

import drive
import lab
from cluster import SegmentTest

sys.path.insert(0, str(lab.ROOT / "tests/differential"))
import situations  # noqa: E402

# The distribution's, whose calls are those of _FORTIFY_SOURCE.
PYTHON = "/usr/bin/python3"
PROGRAMS = lab.ROOT / "tests/programs"
ANY_RELEASE = "999.0"
TYPE = 33000


class ProgramsTest(SegmentTest):
    def program(self, node, *words, options=(), timeout_s=60, **others):
        done = subprocess.run(node.run_command(*words, options=options), timeout=timeout_s, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **others)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_what_standard_python_sees_of_tipc_is_as_it_should_be(self):
        seconds = 60 if self.segment.full else 2
        told = self.program(self.alpha, PYTHON, "-W", "ignore", PROGRAMS / "alone.py", timeout_s=60 + seconds,
                            env=dict(os.environ, SECONDS=str(seconds)))
        print("  " + told.splitlines()[-3])
        # The topology service's own.
        self.assertEqual(len(re.findall(r"^socket ", self.alpha.tool("socket", "list"), re.M)), 1)

    def test_what_programs_in_c_do_ends_as_in_the_kernel(self):
        with tempfile.TemporaryDirectory() as directory:
            program = f"{directory}/corners"
            lab.run("cc", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, PROGRAMS / "corners.c")
            self.program(self.alpha, program)

    def test_the_own_tests_of_python_pass(self):
        cases = ["test.test_socket." + name for name in ("TIPCTest", "TIPCThreadableTest")]
        told = self.program(self.alpha, PYTHON, "-m", "unittest", *cases, options=["--module-listed"])
        self.assertNotIn("skipped", told)

    def test_programs_run_on_a_node_that_is_refused_io_uring(self):
        node = self.started("plain", wrapper=(sys.executable, lab.ROOT / "tests/interop/without_io_uring.py"))
        self.assertIn("epoll", node.tool("status"))
        self.program(node, PYTHON, "-m", "unittest", "test.test_socket.TIPCTest", options=["--module-listed"])
        node.stop()

    def test_every_situation_ends_as_by_the_calls_of_the_library(self):
        wanted = {title: steps for title, steps in situations.all_situations().items()
                  if not any("far" in step for step in steps)}
        expected = situations.with_differences(situations.recording(ANY_RELEASE), situations.documented_differences())
        got = situations.parsed(self.program(self.alpha, PYTHON, lab.ROOT / "tests/differential/on_kernel.py",
                                             input=situations.text_of(wanted)))
        differences = situations.differing_lines({title: expected[title] for title in wanted}, got)
        self.assertEqual(len(differences), 0, "\n" + situations.report(differences))

    def test_the_settings_of_the_kernel_are_settings_of_a_node(self):
        beta = self.started("beta", "--tipc-rmem", "1 65536 1", "--key-exchange-enabled", "0", "--named-timeout", "2000")
        size = "import socket; print(socket.socket(socket.AF_TIPC, socket.SOCK_RDM).getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))"
        for node, told in ((beta, "65536\n"), (self.alpha, "2097152\n")):
            self.assertEqual(self.program(node, PYTHON, "-c", size), told)
        self.assertIn("--named-timeout: named_timeout: without effect", beta.log_text())
        with self.assertRaisesRegex(lab.LabError, "nobody would learn a new key"):
            beta.tool("node", "set", "key", "rekeying", "now")

    def test_programs_on_two_nodes_talk_to_each_other(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        here, there = (self.enter(node.drive_by_preload()) for node in (self.alpha, beta))
        subscriber = there.subscriber()
        subscriber.subscribe(TYPE, 0, 9)
        server = here.open()
        server.bind(TYPE, 5)
        event = subscriber.next()
        self.assertEqual((*event.what, event.port), ("published", TYPE, 5, 5, server.port))
        client = there.open()
        for size in (1, 1500, 66000):
            client.send(f"service,{TYPE},5", size, size)
            received = server.recv()
            self.assertEqual((received.size, received.crc), (size, zlib.crc32(drive.pattern(size, size))))
        server.unbind(TYPE, 5)
        event = subscriber.next()
        self.assertEqual((*event.what, event.port), ("withdrawn", TYPE, 5, 5, server.port))
        for kind in ("stream", "seqpacket"):
            listener = here.listen(kind)
            there.start_connect(kind, listener.address)
            accepted, connection = listener.accept(), there.connected()
            for one, other in ((accepted, connection), (connection, accepted)):
                self.assertEqual(one.write(7, 3000), 3000)
                self.assertEqual(other.read(3000), (3000, zlib.crc32(drive.pattern(7, 3000))))

    def started_program(self, node, text):
        """A program in Python that runs until it is killed, at the latest at the end of the test."""
        process = lab.spawn(node.run_command(PYTHON, "-c", text), text=True, stdout=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_all_processes_that_use_a_socket_are_listed_and_keep_it_alive(self):
        text = ("import os, socket, sys\n"
                "s = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)\n"
                f"s.bind((socket.TIPC_ADDR_NAME, {TYPE}, 7, 0, socket.TIPC_CLUSTER_SCOPE))\n"
                "child = os.fork()\n"
                "if child: print(os.getpid(), child, flush=True)\n"
                "s.getsockname(); s.recv(1)\n")
        process = self.started_program(self.alpha, text)
        parent, child = process.stdout.readline().split()

        def shows(who):
            told = self.alpha.tool("socket", "list", "--details")
            return re.search(rf"bound to {{{TYPE},7,7}}\n  RDM of {who} ", told)
        lab.until(lambda: shows(f"pids {parent} {child}"), 2, "both processes listed")
        process.kill()
        lab.until(lambda: shows(f"pid {child}"), 2, "the child listed alone")
        os.kill(int(child), signal.SIGKILL)
        lab.until(lambda: not shows(".*"), 2, "the end of the socket")

    def test_a_program_that_waits_to_send_is_listed_with_what_it_waits_for_and_since_when(self):
        beta = self.started("beta", "--direct-after=1")
        text = ("import socket\n"
                "listener = socket.socket(socket.AF_TIPC, socket.SOCK_SEQPACKET)\n"
                f"listener.bind((socket.TIPC_ADDR_NAME, {TYPE}, 8, 0, socket.TIPC_NODE_SCOPE))\n"
                "listener.listen()\n"
                "client = socket.socket(socket.AF_TIPC, socket.SOCK_SEQPACKET)\n"
                "client.setblocking(False)\n"
                f"client.connect_ex((socket.TIPC_ADDR_NAME, {TYPE}, 8, 0, socket.TIPC_NODE_SCOPE))\n"
                "server, _ = listener.accept()\n"
                "client.setblocking(True)\n"
                "print(*(s.getsockname()[2] for s in (client, server)), flush=True)\n"
                "while True: client.send(bytes(60000))\n")
        process = self.started_program(beta, text)
        client, server = map(int, process.stdout.readline().split())

        def blocked():
            listed = {socket["port"]: socket["details"] for socket in beta.tool_json("socket", "list", "--details")}
            return "calls" in listed[client] and listed[client]
        details = lab.until(blocked, 5, "the sender listed as waiting")
        time.sleep(0.3)
        details = blocked()
        self.assertEqual(details["waiting"]["obstacle"]["port"], server)
        [call] = details["calls"]
        self.assertEqual((call["call"], call["count"]), ("send", 1))
        self.assertGreaterEqual(min(call["for_ms"], details["waiting"]["for_ms"]), 300)
        self.assertRegex(beta.tool("socket", "list", "--details"),
                         rf"cannot send for \d+ ms: peer [0-9a-f]+:{server} does not read.*\n  waits in send:1 for \d+ ms")

    def test_processes_that_never_called_for_a_socket_are_listed_too(self):
        text = ("import os, socket, time\n"
                "s = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)\n"
                f"s.bind((socket.TIPC_ADDR_NAME, {TYPE}, 8, 0, socket.TIPC_CLUSTER_SCOPE))\n"
                "near, far = socket.socketpair(socket.AF_UNIX)\n"
                "receiver = os.fork()\n"
                "if not receiver:\n"
                "    s.close()\n"
                "    message, fds, _, _ = socket.recv_fds(far, 10, 1)\n"
                "    time.sleep(100)\n"
                "socket.send_fds(near, [b'x'], [s.fileno()])\n"
                "heir = os.fork()\n"
                "if heir: print(os.getpid(), receiver, heir, flush=True)\n"
                "time.sleep(100)\n")
        process = self.started_program(self.alpha, text)
        pids = process.stdout.readline().split()
        for pid in pids[1:]:
            self.addCleanup(os.kill, int(pid), signal.SIGKILL)
        who = " ".join(map(str, sorted(map(int, pids))))
        told = re.compile(rf"bound to {{{TYPE},8,8}}\n  RDM of pids {who} ")
        lab.until(lambda: told.search(self.alpha.tool("socket", "list", "--details")), 2, "all three listed")

    def test_without_a_node_there_is_no_tipc_and_one_line_says_why(self):
        text = ("import errno, socket\nfor _ in range(2):\n  try: socket.socket(socket.AF_TIPC, socket.SOCK_RDM)\n"
                "  except OSError as error: assert error.errno == errno.EAFNOSUPPORT\n  else: raise SystemExit(3)")
        with tempfile.TemporaryDirectory() as directory:
            told = subprocess.run([lab.TARGET / "xtipc", "--socket", f"{directory}/control.sock", "run", PYTHON, "-c", text],
                                  timeout=20, text=True, stderr=subprocess.PIPE)
        self.assertEqual((told.returncode, len(told.stderr.splitlines())), (0, 1), told.stderr)
        self.assertIn(f"{directory}/attach.sock", told.stderr)

    def test_programs_learn_that_their_node_is_gone(self):
        """Sockets are as of a connection that was reset, and new ones are those of the next node."""
        gone = self.started("gone")
        text = ("import errno, select, socket, threading\n"
                "client, server = socket.socketpair(socket.AF_TIPC, socket.SOCK_SEQPACKET)\n"
                "lone = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)\n"
                "watch = select.poll()\n"
                "watch.register(lone, select.POLLIN)\n"
                "def number(call, *words):\n"
                "    try: return call(*words)\n"
                "    except OSError as error: return errno.errorcode[error.errno]\n"
                "results = []\n"
                "waiting = threading.Thread(target=lambda: results.append(number(server.recv, 1)))\n"
                "waiting.start()\n"
                "print('ready', flush=True)\n"
                "[(_, events)] = watch.poll(10000)\n"
                "waiting.join()\n"
                "results += [number(client.send, b'x'), number(lone.recv, 1), bool(events & select.POLLHUP)]\n"
                "print(*results, flush=True)\n"
                "input()\n"
                "near, far = (socket.socket(socket.AF_TIPC, socket.SOCK_RDM) for _ in range(2))\n"
                "near.sendto(b'again', far.getsockname())\n"
                "print(far.recv(9).decode(), flush=True)\n")
        process = lab.spawn(gone.run_command(PYTHON, "-c", text), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "ready\n")
        time.sleep(0.2)
        gone.kill()
        self.assertEqual(process.stdout.readline(), "ECONNRESET ECONNRESET ECONNRESET True\n")
        gone.start()
        process.stdin.write("\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "again\n")

    def test_what_others_preload_stays_and_other_programs_are_as_they_were(self):
        told = self.program(self.alpha, "/bin/sh", "-c", "echo $LD_PRELOAD; exec env",
                            env=dict(os.environ, LD_PRELOAD="/none/such.so"))
        self.assertIn("/none/such.so:", told)


class SymbolsTest(SegmentTest):
    """The functions that the library stands before."""

    def exported(self, library):
        """Names, without those that the C library keeps for itself."""
        told = lab.run("nm", "--dynamic", "--defined-only", library)
        names = (line.split()[-1] for line in told.splitlines())
        return {name.split("@")[0] for name in names if "GLIBC_PRIVATE" not in name}

    def listed(self):
        """What is stood before, and what need not be."""
        before, others = set(), set()
        for line in (lab.ROOT / "shm-api/preload/symbols").read_text().splitlines():
            if not line.startswith("#"):
                names, _, reason = line.partition(":")
                (others if reason else before).update(names.split())
        return before, others

    def test_all_functions_that_take_descriptors_are_stood_before(self):
        before, others = self.listed()
        self.assertEqual(self.exported(lab.TARGET / "libxtipc_preload.so"), before)
        c_library = self.exported(re.search(r"\S*/libc\.so\.6", lab.run("ldd", PYTHON))[0])
        for name in before | others:
            variant = re.compile(rf"_*{re.escape(name.strip('_'))}(64|v2|_chk|_2)*")
            found = {other for other in c_library if variant.fullmatch(other)}
            self.assertEqual(found - before - others, set(), f"variants of {name}")
