"""The laboratory: network namespaces, a switch, xtipc daemons, Linux guests, and their removal.

Everything made here carries the name `xt<pid>-...`, is removed when its `with` block ends, and dies
with this process: children by PR_SET_PDEATHSIG, namespaces of a killed run at the start of the next.
"""
import contextlib
import ctypes
import errno
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass

import wire

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
GUEST = ROOT / "scripts/guest"
GUEST_STATE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "xtipc/guest/guests"
RUNTIME = pathlib.Path("/run/xtipc")
PREFIX = f"xt{os.getpid()}"
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
READY_TIMEOUT_S = 10

libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """Something the test needs could not be made or did not answer."""


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(command, **options):
    return subprocess.Popen([str(word) for word in command], preexec_fn=die_with_parent, **options)


def run(*command, timeout_s=30, **options):
    """The output of a command that must succeed."""
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout_s, **options)
    if result.returncode:
        raise LabError(f"{' '.join(map(str, command))}: status {result.returncode}: {result.stdout}{result.stderr}")
    return result.stdout


def until(condition, timeout_s, what, interval_s=0.02):
    """Waits until `condition()` is true and returns its value; `what` names it in the failure."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout_s} s: {what}")
        time.sleep(interval_s)


def gap_ms(node):
    """The longest time that the worker of an xtipc node was without a round."""
    return int(re.search(r"longest gap:(\d+) us", node.tool("status"))[1]) // 1000


def accepted(node, *words):
    """Whether a node does what it is told; not while the kernel still holds the interface."""
    try:
        node.tool(*words)
    except LabError as error:
        if "Device or resource busy" in str(error):
            return False
        raise
    return True


def remove_leftovers():
    """Namespaces of runs that were killed before they could clean up."""
    for name in run("ip", "netns", "list").split():
        owner = re.match(r"xt(\d+)-", name)
        if owner and not pathlib.Path(f"/proc/{owner[1]}").exists():
            run("ip", "netns", "del", name)


class Failed(LabError):
    """The socket interface of a node refused a call of a driver."""

    def __init__(self, number, reason):
        super().__init__(f"{errno.errorcode.get(number, number)}: {reason}")
        self.errno = number


class Namespace:
    """A network namespace."""

    def __init__(self, label):
        self.name = f"{PREFIX}-{label}"
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words):
        return run("ip", "-n", self.name, *words)

    def tc(self, *words):
        return run("tc", "-n", self.name, *words)

    @contextlib.contextmanager
    def entered(self):
        """This thread is in the namespace inside the block; sockets opened there stay there."""
        with open("/proc/self/ns/net") as home, open(f"/run/netns/{self.name}") as there:
            if libc.setns(there.fileno(), CLONE_NEWNET):
                raise LabError(f"cannot enter {self.name}: errno {ctypes.get_errno()}")
            try:
                yield
            finally:
                libc.setns(home.fileno(), CLONE_NEWNET)

    def capture(self, interface, kernel_filter=None):
        with self.entered():
            return wire.Capture(interface, kernel_filter)

    def injector(self, interface):
        with self.entered():
            return wire.Injector(interface)

    def mac(self, interface):
        found = re.search(r"link/ether ([0-9a-f:]{17})", self.ip("link", "show", interface))
        return bytes.fromhex(found[1].replace(":", ""))

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


class Switch(Namespace):
    """A namespace with a bridge; each port leads to a node."""

    def __init__(self, label="switch"):
        super().__init__(label)
        # Snooping off, so that the bridge floods multicast as a plain Ethernet segment does.
        self.ip("link", "add", "switch", "type", "bridge", "mcast_snooping", "0")
        self.ip("link", "set", "switch", "up")

    def plug(self, namespace, port, interface="eth0", queues=1):
        """A veth pair: `interface` in the namespace, `port` on the switch, with so many queues each."""
        several = "numrxqueues", str(queues), "numtxqueues", str(queues)
        self.ip("link", "add", port, *several, "type", "veth", "peer", "name", interface, *several, "netns", namespace.name)
        namespace.ip("link", "set", interface, "up")
        self.ip("link", "set", port, "master", "switch", "up")

    def unplug(self, port):
        """Removes both ends at once; the end of a namespace removes them some time later."""
        self.ip("link", "del", port)

    def tap(self, port):
        self.ip("tuntap", "add", port, "mode", "tap")
        # Room for what a link may have under way: a guest that is slow is a slow wire, not one that loses.
        self.ip("link", "set", port, "txqueuelen", "10000")
        self.ip("link", "set", port, "master", "switch", "up")


class Relay:
    """A wire with faults between a switch and one of its ports: `settings` are the options of xtipc-relay.

    The relay's A is the switch and its B the port, so FORTH:BACK in a setting is to the port and from it.
    """

    def __init__(self, switch, port, **settings):
        self.switch, self.port, self.near, self.far = switch, port, f"{port}-near", f"{port}-far"
        self.process = None
        switch.ip("link", "add", self.near, "type", "veth", "peer", "name", self.far)
        for end in (self.near, self.far):
            switch.ip("link", "set", end, "addrgenmode", "none", "up")
        switch.ip("link", "set", self.near, "master", "switch")
        switch.ip("link", "set", port, "nomaster")
        self.start(settings)

    def start(self, settings):
        flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
        self.process = spawn(["ip", "netns", "exec", self.switch.name, TARGET / "xtipc-relay",
                              self.far, self.port, *flags], stdout=subprocess.PIPE, text=True)
        if not self.process.stdout.readline():
            raise LabError(f"the relay ended, status {self.process.wait()}")

    def change(self, **settings):
        """Goes on with other faults, after some milliseconds without a wire; returns the counters of those before."""
        counters = self.stop()
        self.start(settings)
        return counters

    def counters(self):
        """What happened so far: to the port, and from it."""
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(self.process.stdout.readline())["directions"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        last, _ = self.process.communicate(timeout=10)
        return json.loads(last)["directions"]

    def close(self):
        """The wire is a plain one again."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.switch.ip("link", "del", self.near)
        self.switch.ip("link", "set", self.port, "master", "switch")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@dataclass(frozen=True)
class Received:
    """A message as a driver reports it."""
    size: int
    crc: int
    node: int
    port: int
    error: int
    name: tuple


@dataclass(frozen=True)
class Collected:
    """What arrived of streams of stamped messages; `streams` maps a stream to (count, lost, duplicate, reordered)."""
    good: int
    corrupt: int
    returned: int
    streams: dict


class Driver:
    """A program on some node that opens sockets as told; the protocol is described in drive.py."""

    def __init__(self, command, **options):
        self.process = spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        self.buffer = b""
        greeting = self.answer(30)
        if greeting[0] != "ready":
            raise LabError(f"the driver said {greeting}")
        self.pid = int(greeting[1])

    def request(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()

    def answer(self, timeout_s=15):
        """The words of the next answer; None for `timeout`."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise LabError(f"no answer of the driver within {timeout_s} s")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise LabError(f"the driver ended, status {self.process.wait()}")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        words = line.decode().split()
        if words[0] == "error":
            raise LabError(" ".join(words[1:]))
        if words[0] == "failed":
            raise Failed(int(words[1]), " ".join(words[2:]))
        if words[0] == "timeout":
            return None
        return words if words[0] == "ready" else words[1:]

    def call(self, *words, timeout_s=15):
        self.request(*words)
        return self.answer(timeout_s)

    def open(self, kind="rdm"):
        number, port, node = self.call("open", kind)
        return Socket(self, int(number), int(port), int(node))

    def listen(self, kind, type_=0, instance=0):
        return self.end(self.call("listen", kind, type_, instance))

    def connect(self, kind, to, timeout_ms=8000):
        self.start_connect(kind, to, timeout_ms)
        return self.connected(timeout_ms / 1000 + 10)

    def start_connect(self, kind, to, timeout_ms=8000):
        """Connects while somebody else accepts; `connected` gives the end."""
        self.request("connect", kind, to, timeout_ms)

    def connected(self, timeout_s=20):
        return self.end(self.answer(timeout_s))

    def imply(self, kind, to, seed, size):
        """Connects by a first message."""
        return self.end(self.call("imply", kind, to, seed, size))

    def end(self, words):
        number, port, node, *peer = (int(word) for word in words)
        return End(self, number, (port, node), tuple(peer))

    def subscriber(self, node=None):
        """Of the topology service of its own node, or of the one with this address."""
        words = [] if node is None else [node]
        return Subscriber(self, int(self.call("subscriber", *words)[0]))

    def kill(self):
        """Kills the program the hard way and returns when, CLOCK_REALTIME in ns."""
        at_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        self.process.kill()
        self.process.wait()
        return at_ns

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@dataclass(frozen=True)
class Event:
    """An event of the topology service as a driver reports it."""
    kind: str
    type: int
    lower: int
    upper: int
    port: int
    node: int
    at_ns: int

    @property
    def what(self):
        return self.kind, self.type, self.lower, self.upper


class Subscriber:
    """A driver's subscriber of the topology service."""

    def __init__(self, driver, number):
        self.driver, self.number = driver, number

    def subscribe(self, kind, lower, upper, filter_name="ports", timeout="forever"):
        self.driver.call("subscribe", self.number, kind, lower, upper, filter_name, timeout)

    def cancel(self, kind, lower, upper, filter_name="ports", timeout="forever"):
        self.driver.call("cancel", self.number, kind, lower, upper, filter_name, timeout)

    def await_event(self, timeout_s=5):
        """Lets the driver wait for an event; `awaited` gives it."""
        self.driver.request("event", self.number, int(timeout_s * 1000))

    def awaited(self, timeout_s=15):
        words = self.driver.answer(timeout_s)
        return Event(words[0], *(int(word) for word in words[1:])) if words else None

    def next(self, timeout_s=5):
        """The next event, None if there is none in time."""
        self.await_event(timeout_s)
        return self.awaited(timeout_s + 10)

    def take(self, count, timeout_s=5):
        return [self.next(timeout_s) for _ in range(count)]

    def rest(self, idle_s=0.3):
        """The events that come until none comes for a while."""
        return list(iter(lambda: self.next(idle_s), None))


class Socket:
    """A TIPC socket of a driver."""

    def __init__(self, driver, number, port, node):
        self.driver, self.number, self.port, self.node = driver, number, port, node

    @property
    def address(self):
        return f"socket,{self.node},{self.port}"

    def call(self, verb, *words, timeout_s=15):
        return self.driver.call(verb, self.number, *words, timeout_s=timeout_s)

    def bind(self, kind, lower, upper=None, scope="cluster"):
        self.call("bind", kind, lower, lower if upper is None else upper, scope)

    def unbind(self, kind, lower, upper=None, scope="cluster"):
        self.call("unbind", kind, lower, lower if upper is None else upper, scope)

    def send(self, to, seed, size):
        self.call("send", to, seed, size)

    def recv(self, timeout_s=5):
        answer = self.call("recv", int(timeout_s * 1000), timeout_s=timeout_s + 10)
        if answer is None:
            return None
        numbers = [int(word) for word in answer]
        return Received(*numbers[:5], tuple(numbers[5:]))

    def start_flood(self, to, stream, seconds, gap_us, sizes):
        self.driver.request("flood", self.number, to, stream, int(seconds * 1000), gap_us, ",".join(map(str, sizes)))

    def start_pour(self, to, stream, seconds, window, members, sizes):
        self.driver.request("pour", self.number, to, stream, int(seconds * 1000), window, members,
                            ",".join(map(str, sizes)))

    def start_collect(self, streams, idle_s, limit_s, credit=0):
        self.driver.request("collect", self.number, streams, int(idle_s * 1000), int(limit_s * 1000), credit)

    def ask(self, to, kind, count, width=1, patience_s=5, timeout_s=60):
        """Asks, and gives the number of answers that came by the service addresses bound for them."""
        return int(self.call("ask", to, kind, count, width, int(patience_s * 1000), timeout_s=timeout_s)[0])

    def start_answer(self, count, idle_s=10):
        self.driver.request("answer", self.number, count, int(idle_s * 1000))

    def answered(self, timeout_s=15):
        """Answers sent, and those whose service address was not bound."""
        return tuple(int(number) for number in self.driver.answer(timeout_s))

    def collected(self, timeout_s):
        good, corrupt, returned, *streams = self.driver.answer(timeout_s)
        split = [tuple(int(number) for number in stream.split(":")) for stream in streams]
        return Collected(int(good), int(corrupt), int(returned), {stream[0]: stream[1:] for stream in split})


@dataclass(frozen=True)
class End:
    """One end of a connection, or what listens for one, in a driver. Addresses are (port, node)."""
    driver: Driver
    number: int
    name: tuple
    peer: tuple

    @property
    def address(self):
        return f"socket,{self.name[1]},{self.name[0]}"

    def request(self, verb, *words):
        self.driver.request(verb, self.number, *words)

    def call(self, verb, *words, timeout_s=15):
        return self.driver.call(verb, self.number, *words, timeout_s=timeout_s)

    def accept(self, timeout_s=5):
        return self.driver.end(self.call("accept", int(timeout_s * 1000), timeout_s=timeout_s + 10))

    def write(self, seed, size):
        return int(self.call("write", seed, size)[0])

    def read(self, size=66000, timeout_s=5):
        """Size and CRC of what comes; (0, 0) at the orderly end, None if nothing comes."""
        words = self.call("read", size, int(timeout_s * 1000), timeout_s=timeout_s + 10)
        return words and tuple(int(word) for word in words)

    def ending(self):
        """Why the connection is over, and size and CRC of what came back; of a Linux driver."""
        return tuple(int(word) for word in self.call("ending"))

    def names(self):
        words = [int(word) for word in self.call("name")]
        return tuple(words[:2]), tuple(words[2:])


def flat(entry):
    """The counters in the JSON of `link statistics show`: all of a group begin with the group's direction, rx or tx."""
    for key, value in entry.items():
        if isinstance(value, dict):
            direction = key.split()[0]
            yield from ((f"{direction} {inner.removeprefix(direction).strip()}", number) for inner, number in value.items())
        else:
            yield key, value


class Node:
    """What the tests ask of a TIPC node, xtipc or Linux: its tools and its programs."""

    identity = None

    def tool(self, *words):
        raise NotImplementedError

    def show(self, *commands):
        """Prints what the tool says, for those who look at a failed test."""
        for command in commands:
            print(f"--- {self.identity}: {command}\n{self.tool(*command.split())}", flush=True)

    def tool_json(self, *words):
        text = self.tool("-j", *words)
        return json.loads(text) if text.strip() else []

    def links(self):
        """Link name → up, without the broadcast link."""
        links = {}
        for entry in self.tool_json("link", "list"):
            links.update({name: state == "up" for name, state in entry.items() if name != "broadcast-link"})
        return links

    def is_linked_to(self, identity):
        return any(up and f"-{identity}:" in name for name, up in self.links().items())

    def link_statistics(self, identity):
        """The counters of the link to this node, and of the broadcast link, as the tool names them."""
        counters = {entry["link"]: dict(flat(entry)) for entry in self.tool_json("link", "statistics", "show")}
        found = next((link for link in counters if f"-{identity}:" in link and not link.startswith("broadcast-link")), None)
        if found is None:
            raise LabError(f"{self.identity} has no link to {identity}")
        return counters[found], counters["broadcast-link"]

    def name_table(self):
        """The cluster's bindings as (type, lower, upper, node), without node availability and services, and the nodes
        that are listed as available (service type 0)."""
        entries = self.tool_json("nametable", "show")
        bindings = sorted((entry["type"], entry["lower"], entry["upper"], entry["node"])
                          for entry in entries if entry["scope"] != "node" and entry["type"] > 2)
        return bindings, {entry["node"] for entry in entries if entry["type"] == 0}

    def table(self):
        return self.name_table()[0]

    def nodes_known(self):
        return self.name_table()[1]

    def address(self):
        return int(self.tool("node", "get", "address").split()[-1], 16)

    def mac(self):
        """The hardware address of the bearer."""
        raise NotImplementedError


class ReadinessSocket:
    """What a service manager listens on: sd_notify(3)."""

    def __init__(self, path):
        self.address = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.setblocking(False)

    def told(self):
        try:
            return b"READY=1" in self.socket.recv(4096).split(b"\n")
        except BlockingIOError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        os.unlink(self.address)


class Daemon(Node):
    """An xtipc node: a daemon in a namespace of its own, plugged into the switch at the port `identity`.

    `ips` are the addresses of its interface, with their prefix lengths, and `queues` its queues; `wrapper` runs the daemon.
    """

    interface = "eth0"
    preloads = False

    def __init__(self, switch, identity, *flags, bearers=("eth:eth0",), ips=(), queues=1, wrapper=()):
        self.switch, self.identity, self.bearers, self.wrapper = switch, identity, bearers, wrapper
        self.namespace = Namespace(identity)
        switch.plug(self.namespace, identity, self.interface, queues)
        for ip in ips:
            self.namespace.ip("addr", "add", ip, "dev", self.interface, *(["nodad"] if ":" in ip else []))
        self.instance = f"{PREFIX}-{identity}"
        self.flags = flags
        self.process = None
        self.log = tempfile.NamedTemporaryFile(prefix=f"{self.instance}-", suffix=".log")
        self.notices = tempfile.TemporaryDirectory(prefix=f"{self.instance}-")

    @property
    def runtime(self):
        return RUNTIME / self.instance

    def command(self):
        return [*self.wrapper, "ip", "netns", "exec", self.namespace.name, TARGET / "xtipcd", "--instance", self.instance,
                "--config", "/dev/null", "--identity", self.identity,
                *(word for bearer in self.bearers for word in ("--bearer", bearer)), *self.flags]

    def start(self):
        """Starts the daemon and waits until it is ready; returns the monotonic time of the start."""
        started = time.monotonic()
        with ReadinessSocket(f"{self.notices.name}/readiness") as readiness:
            environment = dict(os.environ, NOTIFY_SOCKET=readiness.address)
            self.process = spawn(self.command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                 env=environment)
            until(lambda: readiness.told() or self.process.poll() is not None, READY_TIMEOUT_S,
                  f"readiness of {self.identity}")
        if self.process.poll() is not None:
            raise LabError(f"the daemon of {self.identity} ended with {self.process.returncode}: {self.log_text()}")
        return started

    def log_text(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def stop(self):
        """An orderly stop; the daemon's exit status tells of frames that it could not account for."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"the daemon of {self.identity} did not stop: {self.log_text()}") from None
        if status:
            raise LabError(f"the daemon of {self.identity} ended with status {status}: {self.log_text()}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def tool(self, *words):
        return run(TARGET / "xtipc", "--instance", self.instance, *words)

    def mac(self):
        return self.namespace.mac(self.interface)

    def drive(self):
        if self.preloads:
            return self.drive_by_preload()
        environment = dict(os.environ, XTIPC_SOCKET=str(self.runtime / "attach.sock"))
        return Driver([TARGET / "examples/drive"], env=environment)

    def run_command(self, *words, options=()):
        """The command that runs a program with this node's AF_TIPC sockets."""
        return [TARGET / "xtipc", "--instance", self.instance, "run", *options, "--", *words]

    def drive_by_preload(self):
        """The driver of Linux nodes on this one."""
        return Driver(self.run_command("/usr/bin/python3", ROOT / "tests/interop/drive.py"))

    def results_of(self, steps, far=None):
        """What the steps of situations (tests/differential) lead to on this node and another one."""
        sockets = {"XTIPC_SOCKET": self} | ({"XTIPC_FAR_SOCKET": far} if far else {})
        return run(TARGET / "examples/situations", timeout_s=120, input=steps,
                   env=dict(os.environ, **{name: str(node.runtime / "attach.sock") for name, node in sockets.items()}))

    def close(self):
        try:
            if self.process and self.process.poll() is None:
                self.stop()  # a peer that vanished would be linked for a while yet, and disturb the next test
        finally:
            self.remove()

    def remove(self):
        self.switch.unplug(self.identity)
        self.namespace.close()
        shutil.rmtree(self.runtime, ignore_errors=True)
        with contextlib.suppress(OSError):
            RUNTIME.rmdir()
        self.notices.cleanup()
        self.log.close()


class Guest:
    """A virtual machine with Linux TIPC; its NICs are taps on a switch."""

    def __init__(self, suite, switch, ports, label=None, share=None, processors=1):
        self.name = f"{PREFIX}-{label or suite}"
        for port in ports:
            switch.tap(port)
        nics = [word for port in ports for word in ("--nic", port)]
        shared = ["--share", share] if share else []
        self.process = spawn([GUEST, "run", self.name, "--suite", suite, "--netns", switch.name, "--smp", str(processors),
                              *nics, *shared],
                             stdin=subprocess.DEVNULL)

    def wait(self):
        run(GUEST, "wait", self.name, timeout_s=120)

    def exec(self, *words, timeout_s=30):
        """The output of a command in the guest that must succeed; one word is a shell command."""
        return run(GUEST, "exec", self.name, "--", *words, timeout_s=timeout_s)

    def release(self):
        return self.exec("uname", "-r").strip()

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(GUEST_STATE / self.name, ignore_errors=True)


class GuestDaemon(Node):
    """An xtipc node in a guest that shares the directory of the binaries as /mnt."""

    runtime = "/run/xtipc-guest"

    def __init__(self, guest, identity, *flags, interface="eth0"):
        self.guest, self.identity, self.interface = guest, identity, interface
        guest.exec("ip", "link", "set", interface, "up")
        command = ["/mnt/xtipcd", "--config", "/dev/null", "--run-dir", self.runtime, "--identity", identity,
                   "--bearer", f"eth:{interface}", *flags]
        self.log = tempfile.NamedTemporaryFile(prefix=f"{guest.name}-{identity}-", suffix=".log")
        self.process = spawn([GUEST, "exec", guest.name, "-i", "--", *command], stdin=subprocess.PIPE,
                             stdout=self.log, stderr=self.log)
        until(lambda: self.is_ready() or self.process.poll() is not None, 30, f"readiness of {identity}", interval_s=0.5)
        if self.process.poll() is not None:
            raise LabError(f"the daemon of {identity} ended with {self.process.returncode}: {self.log_text()}")

    def is_ready(self):
        return "ready attach=" in self.log_text()

    def log_text(self):
        return re.sub(r"\x1b\[[0-9;]*m", "", pathlib.Path(self.log.name).read_text(errors="replace"))

    def tool(self, *words):
        return self.guest.exec("/mnt/xtipc", "--socket", f"{self.runtime}/control.sock", *words)

    def stop(self):
        """An orderly stop, with all frames accounted for."""
        self.guest.exec(f"kill -TERM $(cat {self.runtime}/xtipcd.pid)")
        status = self.process.wait(30)
        if status:
            raise LabError(f"the daemon of {self.identity} ended with status {status}: {self.log_text()}")

    def kill(self):
        self.guest.exec(f"kill -KILL $(cat {self.runtime}/xtipcd.pid)")
        self.process.wait(30)

    def drive(self):
        return Driver([GUEST, "exec", self.guest.name, "-i", "--", "env", f"XTIPC_SOCKET={self.runtime}/attach.sock",
                       "/mnt/examples/drive"])

    def mac(self):
        text = self.guest.exec("cat", f"/sys/class/net/{self.interface}/address")
        return bytes.fromhex(text.strip().replace(":", ""))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()
