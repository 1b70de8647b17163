#!/usr/bin/env python3
"""Runs the system tests (xtipc nodes alone) and the tests against real Linux nodes. Needs root.

    tests/interop/run.py [--full] [--preload] [--system] [--languages] [--linux SUITE]... [WORD...]

--system       the tests that need no guest
--languages    the examples of all languages, for which scripts/libxtipc must have been run
--linux SUITE  the tests against a guest with the kernel of this Debian suite; one boot serves them
               all. Without any of these options: everything, with the kernels of the machine's own suite
               and of trixie-backports.
--preload      xtipc's side is the driver of Linux nodes, in Python, under `xtipc run`
--full         the long versions: 5 minutes of traffic, 60 s of idling
WORD           only tests whose name contains one of the words

The release build with the example `drive` must be there (scripts/test makes it).
"""
import argparse
import os
import pathlib
import re
import signal
import sys
import time
import unittest

import cluster
import lab

HERE = pathlib.Path(__file__).resolve().parent
# The longest of a short run takes 40 s on an idle machine; --full has tests of an hour.
LIMIT_S = 240
LIMIT_FULL_S = 3 * 3600


def own_suite():
    return re.search(r"^VERSION_CODENAME=(\S+)", pathlib.Path("/etc/os-release").read_text(), re.M)[1]


class Result(unittest.TestResult):
    """Prints each test as a sentence with its time, and the failures in full at once."""

    def __init__(self, label, limit_s):
        super().__init__()
        self.label = label
        self.limit_s = limit_s
        self.passed = 0
        self.sub_failed = False

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()
        self.sub_failed = False
        signal.alarm(self.limit_s)

    def stopTest(self, test):
        signal.alarm(0)
        super().stopTest(test)

    def report(self, test, word):
        name = test.id().rpartition(".")[2].removeprefix("test_").replace("_", " ")
        print(f"{word:8} {self.label:16} {name} ({time.monotonic() - self.started:.1f} s)", flush=True)

    def addSuccess(self, test):
        self.passed += 1
        self.report(test, "ok")

    def addSubTest(self, test, subtest, outcome):
        super().addSubTest(test, subtest, outcome)
        if outcome:
            self.sub_failed = True
            self.report(test, "FAILED")
            print(subtest, self._exc_info_to_string(outcome, test), sep="\n", flush=True)

    def addFailure(self, test, outcome):
        super().addFailure(test, outcome)
        self.report(test, "FAILED")
        print(self.failures[-1][1], flush=True)

    def addError(self, test, outcome):
        super().addError(test, outcome)
        self.report(test, "FAILED")
        print(self.errors[-1][1], flush=True)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.report(test, "skipped")
        print(f"         {reason}", flush=True)

    def failed(self):
        return len({str(test) for test, _ in self.failures + self.errors})


def tests(pattern, words):
    """All tests of the files that match, whose name has one of the words."""
    def flatten(suite):
        for item in suite:
            if isinstance(item, unittest.TestSuite):
                yield from flatten(item)
            else:
                yield item
    loaded = unittest.TestLoader().discover(str(HERE), pattern)
    return [test for test in flatten(loaded) if not words or any(word in test.id() for word in words)]


def run_in(segment, label, chosen):
    """Opens the segment, runs the tests in it, closes it; a segment that does not open fails them all."""
    result = Result(label, LIMIT_FULL_S if segment.full else LIMIT_S)
    started = time.monotonic()
    try:
        segment.open()
    except lab.LabError as error:
        print(f"FAILED   {label:16} set-up: {error}")
        segment.close()
        return 0, len(chosen), 0
    try:
        if isinstance(segment, cluster.LinuxSegment):
            print(f"{label}: Linux {segment.guest.release()} is up after {time.monotonic() - started:.0f} s", flush=True)
        cluster.SegmentTest.segment = segment
        unittest.TestSuite(chosen).run(result)
        segment.alpha.stop()
    except lab.LabError as error:
        print(f"FAILED   {label:16} {error}")
        return result.passed, result.failed() + 1, len(result.skipped)
    finally:
        segment.close()
    return result.passed, result.failed(), len(result.skipped)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--system", action="store_true")
    parser.add_argument("--languages", action="store_true")
    parser.add_argument("--linux", action="append", default=[], metavar="SUITE")
    parser.add_argument("--preload", action="store_true")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    lab.Daemon.preloads = options.preload
    if not options.system and not options.languages and not options.linux:
        options.system = options.languages = True
        options.linux = [own_suite(), "trixie-backports"]
    return options


def give_up(*_):
    raise lab.LabError("the test has taken too long")


def main():
    options = arguments()
    if os.geteuid():
        sys.exit("run.py: needs root (network namespaces, XDP, guests)")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    signal.signal(signal.SIGALRM, give_up)
    counts = [0, 0, 0]
    runs = [("xtipc", "test_xtipc_*.py", None)] if options.system else []
    runs += [("languages", "test_languages.py", None)] if options.languages else []
    runs += [(suite, "test_linux_*.py", suite) for suite in options.linux]
    runs = [(label, suite, tests(pattern, options.words)) for label, pattern, suite in runs]
    unknown = [word for word in options.words if not any(word in test.id() for _, _, chosen in runs for test in chosen)]
    if unknown:
        sys.exit(f"run.py: no test has {', '.join(unknown)} in its name")
    for label, suite, chosen in runs:
        if not chosen:
            continue
        segment = cluster.LinuxSegment(options.full, suite) if suite else cluster.Segment(options.full)
        counts = [sum(pair) for pair in zip(counts, run_in(segment, label, chosen))]
    print("{} passed, {} failed, {} skipped".format(*counts))
    return 1 if counts[1] or not counts[0] else 0


if __name__ == "__main__":
    sys.exit(main())
