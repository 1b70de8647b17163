#!/usr/bin/env python3
"""Executes situations on the TIPC sockets of this kernel, by the C calls themselves.

Reads situations from standard input and prints them with the result of each step; the example
`situations` of the crate `xtipc` does the same on xtipc. README.md describes the steps. As results
have no port numbers and no node addresses, two nodes that behave alike give equal texts.
"""
import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct
import sys
import threading
import time

AF_TIPC, SOL_TIPC = 30, 271
BLOCKED_S, PATIENCE_S = 0.25, 5
# A worker of the kernel tells members of each other; this lets it run.
JOINED_S = 0.005
CONTROL_MAX = 4096
TYPES = {"stream": 1, "dgram": 2, "raw": 3, "rdm": 4, "seqpacket": 5}
ADDRESSES = {"range": 1, "service": 2, "socket": 3}
FLAGS = {"peek": 2, "oob": 1, "trunc": 0x20, "dontwait": 0x40, "eor": 0x80, "waitall": 0x100, "nosignal": 0x4000}
FLAGS_OUT = {1: "OOB", 0x8: "CTRUNC", 0x20: "TRUNC", 0x80: "EOR"}
POLL = {1: "IN", 2: "PRI", 4: "OUT", 8: "ERR", 0x10: "HUP", 0x20: "NVAL", 0x40: "RDNORM", 0x100: "WRNORM",
        0x2000: "RDHUP"}
LEVELS = {"socket": 1, "tcp": 6, "tipc": SOL_TIPC}
OPTIONS = {
    "socket": {"reuseaddr": 2, "type": 3, "error": 4, "sndbuf": 7, "rcvbuf": 8, "linger": 13, "rcvlowat": 18,
               "rcvtimeo": 20, "sndtimeo": 21, "acceptconn": 30, "protocol": 38, "domain": 39, "debug": 1, "dontroute": 5,
               "broadcast": 6, "keepalive": 9, "oobinline": 10, "no_check": 11, "priority": 12, "bsdcompat": 14,
               "reuseport": 15, "passcred": 16, "peercred": 17, "sndlowat": 19, "timestamp": 29, "peersec": 31, "sndbufforce": 32,
               "rcvbufforce": 33, "timestampns": 35, "mark": 36, "rxq_ovfl": 40, "peek_off": 42, "busy_poll": 46,
               "incoming_cpu": 49, "zerocopy": 60},
    "tcp": {"nodelay": 1},
    "tipc": {"importance": 127, "src_droppable": 128, "dest_droppable": 129, "conn_timeout": 130,
             "node_recvq_depth": 131, "sock_recvq_depth": 132, "mcast_broadcast": 133, "mcast_replicast": 134,
             "group_join": 135, "group_leave": 136, "sock_recvq_used": 137, "nodelay": 138},
}
SHUTDOWN = {"rd": 0, "wr": 1, "rdwr": 2}
ERRINFO, RETDATA, DESTNAME = 1, 2, 3
FIONBIO = 0x5421
FILTERS = {"ports": 1, "service": 2, "cancel": 4}
EVENT_SIZE = 48
# Ends a call that waits; lets it go on, as far as calls do.
SIGNALS = {"": signal.SIGUSR1, "restart": signal.SIGUSR2}
REQUESTS = {"linkname": 0x89E0, "nodeid": 0x89E1, "inq": 0x541B}

libc = ctypes.CDLL(None, use_errno=True)
libc.recvmsg.restype = libc.sendto.restype = ctypes.c_ssize_t


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class MsgHdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(IoVec)),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class PollFd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


class Failed(Exception):
    """A call gave -1; the text is the name of its errno."""


def call(function, *arguments):
    result = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise Failed("EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode[number])
    return result


def data_of(word):
    """`abc`, `empty`, or `a*1000`."""
    if word == "empty":
        return b""
    text, _, count = word.partition("*")
    return text.encode() * int(count or 1)


def shown(data):
    if len(data) <= 40 and data.isascii() and data.decode().isprintable():
        return f'"{data.decode()}"'
    if len(set(data)) == 1:
        return f"{chr(data[0])}*{len(data)}"
    digest = 0
    for byte in data:
        digest = (digest * 31 + byte) & 0xffffffff
    return f"{len(data)} bytes, digest {digest:08x}"


def options_of(words):
    """`key=value` words as a dictionary, the others as a list."""
    pairs = dict(word.split("=", 1) for word in words if "=" in word and "*" not in word)
    return [word for word in words if "=" not in word or "*" in word], pairs


@contextlib.contextmanager
def far():
    """Sockets opened inside the block are on the other node: in the network namespace `far`."""
    with open("/proc/thread-self/ns/net") as home, open("/run/netns/far") as there:
        call(libc.setns, there.fileno(), 0)
        try:
            yield
        finally:
            call(libc.setns, home.fileno(), 0)


class Situation:
    """One paragraph of steps, with its sockets by name."""

    def __init__(self):
        self.sockets = {}
        self.ports = {}  # port → name and node, also of sockets that are closed
        self.jobs = {}
        self.nodes = {}

    # Addresses

    def node(self, word):
        return self.own_node(word) if word in ("here", "far") else int(word, 0)

    def own_node(self, where="here"):
        if where not in self.nodes:
            with contextlib.nullcontext() if where == "here" else far():
                probe = call(libc.socket, AF_TIPC, TYPES["rdm"], 0)
            self.nodes[where] = self.name_of(probe)[1]
            libc.close(probe)
        return self.nodes[where]

    def name_of(self, fd, function=libc.getsockname):
        raw, length = ctypes.create_string_buffer(64), ctypes.c_uint32(64)
        call(function, fd, raw, ctypes.byref(length))
        return self.unpacked(raw.raw[:length.value])[3:5]

    def address(self, text):
        """`kind:numbers` with `/len=`, `/scope=`, `/family=` and `/type=` for what is out of the ordinary."""
        if text == "-":
            return None, 0
        text, *changes = text.split("/")
        kind, *words = text.split(":")
        if kind == "socket":
            port, home = self.port_of(words[0])
            numbers = [port, self.node(words[1]) if len(words) > 1 else home]
        elif kind == "service":
            numbers = [int(words[0]), int(words[1]), self.node(words[2]) if len(words) > 2 else 0]
        else:
            numbers = [int(word) for word in words]
        fields = {"family": AF_TIPC, "type": ADDRESSES[kind], "scope": 0, "len": 16}
        fields.update((key, int(value)) for key, value in (change.split("=") for change in changes))
        numbers += [0] * (3 - len(numbers))
        raw = struct.pack("=HBb3I", fields["family"], fields["type"], fields["scope"], *numbers)
        return raw + bytes(64), fields["len"]

    def port_of(self, word):
        """The port and its node."""
        if word.isdigit():
            return int(word), self.own_node()
        return {name: (port, node) for port, (name, node) in self.ports.items()}[word]

    @staticmethod
    def unpacked(raw):
        return struct.unpack_from("=HBb3I", raw)

    def shown_socket(self, port, node):
        name, home = self.ports.get(port, ("0" if port == 0 else "unknown", self.own_node()))
        if node == home:
            return name
        where = "@0" if node == 0 else f"@{node:x}" if node != self.nodes.get("far") else "@far"
        return f"{name}{where}"

    def shown_address(self, raw):
        family, kind, scope, a, b, c = self.unpacked(raw)
        if family == 0:
            return "none"
        assert family == AF_TIPC and scope == 0, raw
        if kind == ADDRESSES["socket"]:
            return self.shown_socket(a, b)
        return {2: "service", 1: "range"}[kind] + f":{a}:{b}" + (f":{c}" if kind == 1 else "")

    def adopt(self, name, fd):
        self.sockets[name] = fd
        port, node = self.name_of(fd)
        self.ports[port] = (name, node)

    # Steps: each gives its result as text

    def do_socket(self, names, kind, protocol="0"):
        self.adopt(names[0], call(libc.socket, AF_TIPC, TYPES.get(kind) or int(kind), int(protocol)))
        return "ok"

    def do_far(self, names, *words):
        """A step on the other node."""
        with far():
            return self.step(names, words)

    def do_socketpair(self, names, kind):
        fds = (ctypes.c_int * 2)()
        call(libc.socketpair, AF_TIPC, TYPES[kind], 0, fds)
        for name, fd in zip(names, fds):
            self.adopt(name, fd)
        return "ok"

    def do_nonblock(self, _, name, on):
        call(libc.ioctl, self.sockets[name], FIONBIO, ctypes.byref(ctypes.c_int(int(on))))
        return "ok"

    def do_close(self, _, name):
        call(libc.close, self.sockets.pop(name))
        return "ok"

    def do_bind(self, _, name, address):
        call(libc.bind, self.sockets[name], *self.address(address))
        return "ok"

    def do_connect(self, _, name, address):
        call(libc.connect, self.sockets[name], *self.address(address))
        return "ok"

    def do_listen(self, _, name, backlog="0"):
        call(libc.listen, self.sockets[name], int(backlog))
        return "ok"

    def do_accept(self, names, name):
        raw, length = ctypes.create_string_buffer(64), ctypes.c_uint32(64)
        self.adopt(names[0], call(libc.accept, self.sockets[name], raw, ctypes.byref(length)))
        return f"ok, from {self.shown_address(raw.raw)}"

    def do_shutdown(self, _, name, how="rdwr"):
        call(libc.shutdown, self.sockets[name], SHUTDOWN[how] if how in SHUTDOWN else int(how))
        return "ok"

    def do_getsockname(self, _, name):
        return self.shown_socket(*self.name_of(self.sockets[name]))

    def do_getpeername(self, _, name):
        return self.shown_socket(*self.name_of(self.sockets[name], libc.getpeername))

    def flags(self, words):
        return FLAGS["nosignal"] | sum(FLAGS[word] for word in words)

    def do_send(self, _, name, data, address="-", *flags):
        data, (raw, length) = data_of(data), self.address(address)
        sent = call(libc.sendto, self.sockets[name], data, ctypes.c_size_t(len(data)), self.flags(flags), raw, length)
        return str(sent)

    def do_fill(self, _, name, data, address="-"):
        """Sends until it would block."""
        count = 0
        try:
            while count < 10000:
                self.do_send(None, name, data, address, "dontwait")
                count += 1
        except Failed as failed:
            return f"{count} sent, then {failed}"
        return f"{count} sent"

    def do_drain(self, _, name, size="66000"):
        """Receives until it would block."""
        count, total = 0, 0
        try:
            while True:
                length = self.receive(name, int(size), FLAGS["dontwait"], 0, 0)[0]
                if not length:
                    return f"{count} received, {total} bytes, then 0"
                count, total = count + 1, total + length
        except Failed as failed:
            return f"{count} received, {total} bytes, then {failed}"

    def receive(self, name, size, flags, control_size, name_size):
        buffer, address = ctypes.create_string_buffer(max(size, 1)), ctypes.create_string_buffer(64)
        control = ctypes.create_string_buffer(CONTROL_MAX)
        vector = IoVec(ctypes.addressof(buffer), size)
        header = MsgHdr(ctypes.addressof(address) if name_size else None, name_size, ctypes.pointer(vector), 1,
                        ctypes.addressof(control) if control_size else None, control_size, 0)
        length = call(libc.recvmsg, self.sockets[name], ctypes.byref(header), flags)
        return length, buffer.raw[:size], address.raw[:header.namelen], control.raw[:header.controllen], header.flags

    def do_recv(self, _, name, *words):
        """`recv NAME [SIZE] [FLAG...] [control=N] [name=N]`"""
        words, settings = options_of(words)
        size = int(words.pop(0)) if words and words[0].isdigit() else 70000
        control_size, name_size = int(settings.get("control", 0)), int(settings.get("name", 64))
        length, data, address, control, flags = self.receive(
            name, size, sum(FLAGS[word] for word in words), control_size, name_size)
        parts = [str(length)]
        if length:
            parts.append(shown(data[:length]))
        if address:
            parts.append("from " + " ".join(self.shown_address(address[at:at + 16])
                                            for at in range(0, len(address) // 16 * 16, 16)))
            if len(address) % 16:
                parts.append(f"address of {len(address)} bytes")
        parts += self.shown_control(control)
        parts += [text for bit, text in FLAGS_OUT.items() if flags & bit]
        return ", ".join(parts)

    @staticmethod
    def shown_control(control):
        at = 0
        while at + 16 <= len(control):
            size, level, kind = struct.unpack_from("=Qii", control, at)
            data = control[at + 16:at + size]
            assert level == SOL_TIPC, level
            if kind == RETDATA:
                yield f"returned {shown(data)}"
            elif len(data) % 4:
                yield f"control {kind} of {len(data)} bytes"
            else:
                label = {ERRINFO: "error", DESTNAME: "sent to"}[kind]
                yield label + " " + ":".join(str(number) for number in struct.unpack(f"={len(data) // 4}I", data))
            at += (size + 7) // 8 * 8

    def do_subscribe(self, _, name, what, timeout, *filters):
        """Asks the topology service for events."""
        order = ">" if "swapped" in filters else "="
        wanted = sum(FILTERS[word] for word in filters if word != "swapped")
        timeout = 0xffffffff if timeout == "forever" else int(timeout)
        request = struct.pack(order + "5I8s", *(int(word) for word in what.split(":")), timeout, wanted, b"a handle")
        return str(call(libc.sendto, self.sockets[name], request, ctypes.c_size_t(len(request)), FLAGS["nosignal"], None, 0))

    def do_event(self, _, name, order="native"):
        """Waits for an event of the topology service."""
        self.do_await(None, name, "IN")
        length, data, *_ = self.receive(name, EVENT_SIZE, FLAGS["dontwait"], 0, 0)
        if length != EVENT_SIZE:
            return f"{length} bytes"
        what, lower, upper, port, node, kind, *_ = struct.unpack_from((">" if order == "swapped" else "=") + "10I", data)
        what = {1: "published", 2: "withdrawn", 3: "timeout"}.get(what, str(what))
        found = ["here" if kind == 0 and number == self.own_node() else str(number) for number in (lower, upper)]
        return f"{what} {kind}:{':'.join(found)} by {self.shown_socket(port, node)}, for {shown(data[40:])}"

    def level_and_option(self, level, option):
        return (LEVELS[level] if level in LEVELS else int(level),
                OPTIONS.get(level, {}).get(option) if not option.isdigit() else int(option))

    def do_setopt(self, _, name, level, option, value, *words):
        """`value` is a number, `null`, milliseconds as `5ms`, or several numbers, as a group's `type:instance:scope:flags`."""
        settings = options_of(words)[1]
        if value == "null":
            raw = None
        elif value.endswith("ms"):
            raw = struct.pack("=qq", int(value[:-2]) // 1000, int(value[:-2]) % 1000 * 1000)
        elif ":" in value:
            raw = b"".join(struct.pack("=I", int(word)) for word in value.split(":"))
        else:
            raw = struct.pack("=I", int(value))
        length = int(settings.get("len", len(raw or b"")))
        call(libc.setsockopt, self.sockets[name], *self.level_and_option(level, option), raw, length)
        if option == "group_join":
            time.sleep(JOINED_S)
        return "ok"

    def do_getopt(self, _, name, level, option, *words):
        length = ctypes.c_uint32(int(options_of(words)[1].get("len", 4)))
        raw = ctypes.create_string_buffer(64)
        call(libc.getsockopt, self.sockets[name], *self.level_and_option(level, option), raw, ctypes.byref(length))
        value = raw.raw[:length.value]
        if length.value == 16:
            seconds, micros = struct.unpack("=qq", value)
            return f"{seconds * 1000 + micros // 1000}ms"
        if length.value == 8:
            return "{}:{}".format(*struct.unpack("=II", value))
        return str(struct.unpack("=I", value)[0]) if length.value == 4 else f"{length.value} bytes"

    def do_ioctl(self, _, name, request, *words):
        if request == "linkname":
            raw = ctypes.create_string_buffer(struct.pack("=II", self.node(words[0]), int(words[1])), 76)
        elif request == "nodeid":
            raw = ctypes.create_string_buffer(struct.pack("=I", self.node(words[0])), 20)
        else:
            raw = ctypes.create_string_buffer(64)
        call(libc.ioctl, self.sockets[name], REQUESTS.get(request) or int(request, 0), raw)
        if request == "linkname":
            return shown(raw.raw[8:].split(bytes(1))[0])
        if request == "nodeid":
            return "an identity" if any(raw.raw[4:20]) else "nothing"
        return "ok"

    def mask(self, name):
        fd = PollFd(self.sockets[name], 0x7fff, 0)
        call(libc.poll, ctypes.byref(fd), 1, 0)
        return fd.revents & 0xffff

    def do_poll(self, _, name):
        mask = self.mask(name)
        return " ".join(text for bit, text in POLL.items() if mask & bit) or "nothing"

    def do_await(self, _, name, *bits):
        """Polls until these bits are there."""
        wanted = sum(bit for bit, text in POLL.items() if text in bits)
        deadline = time.monotonic() + PATIENCE_S
        while self.mask(name) & wanted != wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.do_poll(None, name)

    def do_timed(self, names, *words):
        """A step, and whether it waited."""
        begun = time.monotonic()
        result = self.step(names, words)
        return f"{result}, {'after a while' if time.monotonic() - begun > 0.15 else 'at once'}"

    def do_start(self, names, job, *words):
        """A step on a thread of its own: its result, or that it blocks."""
        result = []
        thread = threading.Thread(target=lambda: result.append(self.step(names, words)), daemon=True)
        thread.start()
        thread.join(BLOCKED_S)
        if thread.is_alive():
            self.jobs[job] = (thread, result)
            return "blocks"
        return result[0]

    def do_finish(self, _, job):
        """The result of a step that blocked, once it has ended."""
        thread, result = self.jobs[job]
        thread.join(PATIENCE_S)
        return "still blocks" if thread.is_alive() else result[0]

    def do_still(self, _, job):
        """Whether a step that blocked still does."""
        thread, result = self.jobs[job]
        thread.join(BLOCKED_S)
        return "blocks" if thread.is_alive() else result[0]

    def do_interrupt(self, _, job, how=""):
        """A signal to the thread of a step that blocks."""
        signal.pthread_kill(self.jobs[job][0].ident, SIGNALS[how])
        return "ok"

    def step(self, names, words):
        try:
            return getattr(self, "do_" + words[0])(names, *words[1:])
        except Failed as failed:
            return str(failed)

    def execute(self, line):
        names, is_named, rest = line.partition(" = ")
        if not is_named:
            names, rest = "", line
        return self.step(names.split(), rest.split())

    def close(self):
        if any(thread.is_alive() for thread, _ in self.jobs.values()):
            for fd in self.sockets.values():
                libc.shutdown(fd, SHUTDOWN["rdwr"])
        # Receivers first: a socket whose peer does not read would linger.
        for fd in reversed(self.sockets.values()):
            libc.close(fd)


def main():
    for number in SIGNALS.values():
        signal.signal(number, lambda *_: None)
    signal.siginterrupt(SIGNALS["restart"], False)
    situation = Situation()
    for line in sys.stdin.read().splitlines():
        if not line.startswith("  "):
            situation.close()
            situation = Situation()
            print(line)
        else:
            try:
                result = situation.execute(line)
            except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:
                result = f"BROKEN STEP: {error!r}"
            print(f"{line} -> {result}", flush=True)
    situation.close()


if __name__ == "__main__":
    main()
