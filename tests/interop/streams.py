"""Streams of numbered messages between nodes, checked message by message; and what makes a process stand still."""
import contextlib
import ctypes
import os
import pathlib
import signal
import time

import lab

MIXED_SIZES = (12, 64, 200, 1000, 64, 1500, 64, 4000, 64, 300, 64, 66000, 64, 100, 64, 9000)
"""Mostly small, as TIPC's users send; with some that are cut into fragments."""

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WAIT_ALL = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p


class Streams:
    """Floods that run side by side, each from a program of its own to a program of its own."""

    def __init__(self, test, seconds, gap_us, sizes=MIXED_SIZES):
        self.test, self.seconds, self.gap_us, self.sizes = test, seconds, gap_us, sizes
        self.flows = []

    def add(self, name, source, target):
        """From one node to another, or between two programs of one node."""
        sender, receiver = self.test.drive(source).open(), self.test.drive(target).open()
        self.flows.append((name, sender, receiver, target))

    def start(self):
        for _, _, receiver, _ in self.flows:
            receiver.start_collect(streams=1, idle_s=15, limit_s=self.seconds + 60)
        for stream, (_, sender, receiver, _) in enumerate(self.flows, start=1):
            sender.start_flood(receiver.address, stream, self.seconds, self.gap_us, self.sizes)

    def check_whole(self, least):
        """Waits for the end; each message came exactly once, in order, and there were at least so many in each stream."""
        sent = [int(sender.driver.answer(self.seconds + 60)[0]) for _, sender, _, _ in self.flows]
        for stream, ((name, _, receiver, target), count) in enumerate(zip(self.flows, sent), start=1):
            result = receiver.collected(self.seconds + 90)
            if result.streams != {stream: (count, 0, 0, 0)}:
                target.show("socket list", *["status"] if isinstance(target, lab.Daemon) else [])
            with self.test.subTest(name):
                self.test.assertGreaterEqual(count, least)
                self.test.assertEqual((result.corrupt, result.returned), (0, 0))
                self.test.assertEqual(result.streams, {stream: (count, 0, 0, 0)})


def is_stopped(pid):
    """All its threads: each stops when it next has a processor."""
    try:
        states = [task.read_text().rpartition(")")[2].split()[0] for task in pathlib.Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return False  # a thread has ended meanwhile
    return set(states) == {"T"}


@contextlib.contextmanager
def stopped(process):
    """The process stands still inside the block."""
    process.send_signal(signal.SIGSTOP)
    try:
        lab.until(lambda: is_stopped(process.pid), 5, f"process {process.pid} stopped", interval_s=0.001)
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None):
        raise OSError(ctypes.get_errno(), f"ptrace of thread {thread}")


@contextlib.contextmanager
def stopped_thread(thread):
    """One thread of a process stands still inside the block, the others run on."""
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WAIT_ALL)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH, thread)


def stand_still(process, seconds):
    """The process stands still for so long; gives since when, CLOCK_REALTIME in ns."""
    with stopped(process):
        since_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        time.sleep(seconds)
    return since_ns
