#!/usr/bin/env python3
"""Opens AF_TIPC sockets on a Linux node as a test tells it to.

Speaks the same line protocol on standard input and output as the example `drive` of the crate
`xtipc`, so that a test treats a Linux node and an xtipc node alike. One request, one answer:

    open rdm|dgram                          ok SOCKET PORT NODE
    bind SOCKET TYPE LOWER UPPER SCOPE      ok                      (SCOPE: node, cluster)
    unbind SOCKET TYPE LOWER UPPER SCOPE    ok
    importance SOCKET 0..3                  ok
    multicast SOCKET broadcast|replicast    ok                      how its multicasts travel
    droppable SOCKET 0|1                    ok                      (0: rejected messages come back)
    send SOCKET DEST SEED SIZE              ok                      one message of the pattern SEED
    recv SOCKET TIMEOUT_MS                  ok SIZE CRC NODE PORT ERROR TYPE LOWER UPPER | timeout
    flood SOCKET DEST STREAM MS GAP_US SIZE[,SIZE...]   ok SENT     stamped messages for MS
    pour SOCKET DEST STREAM MS WINDOW MEMBERS SIZE[,SIZE...]  ok SENT RETURNED   as fast as the receivers take them
    buffer SOCKET                           ok                      a large receive buffer, as collect makes it
    collect SOCKET STREAMS IDLE_MS LIMIT_MS [CREDIT]
                                            ok GOOD CORRUPT RETURNED STREAM:COUNT:LOST:DUPLICATE:REORDERED...
    ask SOCKET DEST TYPE COUNT WIDTH PATIENCE_MS  ok ANSWERED
    answer SOCKET COUNT IDLE_MS             ok ANSWERED UNREACHABLE
    subscriber [NODE]                       ok SUBSCRIBER           hears of the topology service (NODE: on Linux)
    subscribe SUBSCRIBER TYPE LOWER UPPER ports|service forever|MS  ok
    cancel SUBSCRIBER ...                   ok                      (as subscribed)
    event SUBSCRIBER TIMEOUT_MS             ok KIND TYPE LOWER UPPER PORT NODE AT_NS | timeout
    listen KIND TYPE INSTANCE               ok END PORT NODE        (KIND: stream, seqpacket; TYPE 0: by socket address)
    accept END TIMEOUT_MS                   ok END PORT NODE PEER_PORT PEER_NODE | timeout
    connect KIND DEST TIMEOUT_MS            ok END PORT NODE
    imply KIND DEST SEED SIZE               ok END PORT NODE        connects by a first message
    option END NAME VALUE                   ok                      (NAME: nodelay, importance, buffer)
    write END SEED SIZE                     ok SENT                 one message, or as many bytes as are taken at once
    read END SIZE TIMEOUT_MS                ok SIZE CRC | timeout   one message, or bytes; SIZE 0: the end
    ending END                              ok CODE SIZE CRC        on Linux: why the connection is over, what came back
    fill END SIZE TIMEOUT_MS                ok COUNT                writes until one waits so long
    pump END SEED BYTES SIZE                ok CRC                  a stream of patterns of SIZE bytes
    drain END BYTES TIMEOUT_MS PAUSE_US SIZE   ok SIZE CRC          reads so much, with pauses after SIZE bytes
    name END                                ok PORT NODE PEER_PORT PEER_NODE
    shutdown END, hangup END                ok
    share END PATH                          ok                      on xtipc: passes it to the process that adopts at PATH
    adopt PATH                              ok END PORT NODE
    gather END COUNT                        ok COUNT                on xtipc: accepts so many and keeps them
    crowd KIND DEST COUNT                   ok COUNT US             on xtipc: connects so many and keeps them
    wave SIZE                               ok COUNT US             on xtipc: a message on each of these
    tide SIZE                               ok GOOD US              on xtipc: a message from each
    flock                                   ok COUNT US             on xtipc: waits until each was reset
    echo END COUNT                          ok COUNT                accepts so many, sends back, until all have ended
    clients KIND DEST COUNT ROUNDS          ok GOOD                 connects, then writes and reads on each in turn
    join TYPE INSTANCE FLAGS                ok MEMBER PORT NODE     (FLAGS: any of loopback+events, or none)
    tell MEMBER WHOM SEED SIZE              ok                      one message
    hear MEMBER TIMEOUT_MS                  ok message|joined|left INSTANCE PORT NODE SIZE CRC | timeout
    talk MEMBER COUNT WHOM[/WHOM...] SIZE[,SIZE...]  ok COUNT       stamped messages, in turn
    heed MEMBER COUNT IDLE_MS PAUSE_US PAUSE_AFTER  ok BAD INSTANCE:COUNT:DISORDERED...   pauses after so many messages
    chorus TYPE FIRST MEMBERS COUNT WHOM SIZE  ok COUNT             as many members that send so many messages each
    leave MEMBER                            ok
    close SOCKET                            ok
    die                                     (the process kills itself with SIGKILL)
    renew                                   ready PID               on Linux: closes everything, as if just started

DEST is service,TYPE,INSTANCE[,NODE] or socket,NODE,PORT or range,TYPE,LOWER,UPPER. Numbers are
decimal. Any failure answers `error TEXT`. Byte i of pattern SEED is SEED + 7 * i modulo 251. A
stamped message starts with its stream, its number and its size as 32-bit big-endian words, goes on
with the pattern of its number, and ends the stream when its number has the top bit set: that last
message carries the count of those before it. A message too short for the stamp has the pattern of its
number alone and is the next of its sender's stream, so the first of a stream must be stamped. collect
ends when STREAMS streams have ended, when nothing came for IDLE_MS, or after LIMIT_MS; after each
CREDIT messages of a stream it tells their sender how many have come. pour goes on while no more than
WINDOW messages have not been told by each of MEMBERS receivers, so that they are never overrun. ask binds
{TYPE,N}, sends DEST a stamped message whose stream is TYPE and whose number is N, waits for it to come
back, and withdraws the binding, for N from 0 to COUNT - 1, WIDTH at a time, until nothing came for
PATIENCE_MS; answer sends each such message back by the service address that it names.
For an answer of recv that has no service address, TYPE LOWER UPPER are 0.
The sockets of connections, the ENDs, have numbers of their own, and so have members of groups. WHOM is all or at,INSTANCE
(all with it) or any,INSTANCE (one of them) or socket,NODE,PORT. The stream of a talking member is its instance.
heed ends when COUNT messages
have come, or nothing for IDLE_MS. What the socket interface refuses
answers `failed ERRNO REASON`. KIND is published, withdrawn or timeout, AT_NS the time at which the event was read, CLOCK_REALTIME in ns.
The program greets with `ready PID`, and ends at the end of its input.
"""
import ctypes
import errno
import itertools
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import zlib

SOL_TIPC, TIPC_IMPORTANCE, TIPC_DEST_DROPPABLE, TIPC_CONN_TIMEOUT, TIPC_NODELAY = 271, 127, 129, 130, 138
TIPC_GROUP_JOIN, TIPC_GROUP_LEAVE = 135, 136
GROUP_FLAGS = {"none": 0, "loopback": 1, "events": 2, "loopback+events": 3}
KNOWN_S = 10
MULTICAST = {"broadcast": 133, "replicast": 134}
SO_RCVBUFFORCE = 33
COLLECT_BUFFER = 64 << 20
# What a flood that was held up makes good: more would come at once into a receive buffer whose reader may be held up too.
CAUGHT_UP_MAX_S = 0.5
TIPC_ERRINFO, TIPC_RETDATA, TIPC_DESTNAME = 1, 2, 3
SCOPES = {"cluster": 2, "node": 3}
CONNECTED = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET}
KINDS = {"rdm": socket.SOCK_RDM, "dgram": socket.SOCK_DGRAM}
TOP_SRV, FOR_EVER, TIPC_SUB_CANCEL = 1, 0xFFFFFFFF, 4
FILTERS = {"ports": 1, "service": 2}
EVENTS = {1: "published", 2: "withdrawn", 3: "timeout"}
END_OF_STREAM = 1 << 31
STAMP_SIZE = 12
CREDIT_TIMEOUT_S = 30
MESSAGE_MAX = 66000

PATTERNS = [bytes((seed + 7 * i) % 251 for i in range(251)) for seed in range(251)]


def pattern(seed, size):
    block = PATTERNS[seed % 251]
    return (block * (size // 251 + 1))[:size]


def send(sock, data, to):
    """Linux refuses a message, whole, that it has cut for a link which is lost meanwhile to one with a smaller MTU."""
    for _ in range(3):
        try:
            return sock.sendto(data, to)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
    return sock.sendto(data, to)


def stamped(stream, number, size):
    if size < STAMP_SIZE:
        return pattern(number, size)
    head = struct.pack(">III", stream, number, size)
    return head + pattern(number & ~END_OF_STREAM, size - len(head))


def destination(text):
    kind, *numbers = text.split(",")
    numbers = [int(number) for number in numbers]
    if kind == "service":
        return (socket.TIPC_ADDR_NAME, numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else 0)
    if kind == "socket":
        return (socket.TIPC_ADDR_ID, numbers[0], numbers[1], 0)
    if kind == "range":
        return (socket.TIPC_ADDR_NAMESEQ, *numbers)
    raise ValueError(f"unknown destination {text}")


def address_of(name):
    _, node, port, *_ = name
    return port, node


class Stream:
    """What arrived of one stream of stamped messages."""

    def __init__(self):
        self.next = 0  # all before it have come
        self.early = set()  # those behind it that have come
        self.highest = -1
        self.duplicate = 0
        self.reordered = 0
        self.expected = None

    def add(self, number):
        if number & END_OF_STREAM:
            self.expected = number & ~END_OF_STREAM
            return
        if number < self.next or number in self.early:
            self.duplicate += 1
            return
        self.reordered += number < self.highest
        self.highest = max(self.highest, number)
        self.early.add(number)
        while self.next in self.early:
            self.early.remove(self.next)
            self.next += 1

    def count(self):
        return self.next + len(self.early)

    def lost(self):
        expected = self.highest + 1 if self.expected is None else self.expected
        return expected - self.count()


class Driver:
    """The sockets of this process, by number, and one method per request."""

    def __init__(self):
        self.sockets = {}
        self.subscribers = {}
        self.ends = []
        self.members = []
        self.room = ctypes.create_string_buffer(MESSAGE_MAX)

    def open(self, kind):
        sock = socket.socket(socket.AF_TIPC, KINDS[kind])
        number = len(self.sockets)
        self.sockets[number] = sock
        _, node, port, *_ = sock.getsockname()
        return number, port, node

    def close_all(self):
        members = (sock for sock, *_ in self.members)
        for sock in (*self.sockets.values(), *self.subscribers.values(), *self.ends, *members):
            sock.close()

    def bind(self, number, kind, lower, upper, scope):
        self.sockets[int(number)].bind((socket.TIPC_ADDR_NAMESEQ, int(kind), int(lower), int(upper), SCOPES[scope]))

    def unbind(self, number, kind, lower, upper, scope):
        self.sockets[int(number)].bind((socket.TIPC_ADDR_NAMESEQ, int(kind), int(lower), int(upper), -SCOPES[scope]))

    def importance(self, number, value):
        self.sockets[int(number)].setsockopt(SOL_TIPC, TIPC_IMPORTANCE, int(value))

    def droppable(self, number, value):
        self.sockets[int(number)].setsockopt(SOL_TIPC, TIPC_DEST_DROPPABLE, int(value))

    def multicast(self, number, method):
        self.sockets[int(number)].setsockopt(SOL_TIPC, MULTICAST[method], None, 0)

    def send(self, number, to, seed, size):
        self.sockets[int(number)].sendto(pattern(int(seed), int(size)), destination(to))

    def receive(self, number, timeout_s):
        sock = self.sockets[int(number)]
        sock.settimeout(max(timeout_s, 0.001))
        data, ancillary, _, source = sock.recvmsg(MESSAGE_MAX, 4096 + MESSAGE_MAX)
        error, name = 0, (0, 0, 0)
        for level, kind, value in ancillary:
            if level == SOL_TIPC and kind == TIPC_ERRINFO:
                error = struct.unpack("II", value)[0]
            elif level == SOL_TIPC and kind == TIPC_RETDATA:
                data = value
            elif level == SOL_TIPC and kind == TIPC_DESTNAME:
                name = struct.unpack("III", value)
        _, node, port, *_ = source
        return data, node, port, error, name

    def recv(self, number, timeout_ms):
        data, node, port, error, name = self.receive(number, int(timeout_ms) / 1000)
        return len(data), zlib.crc32(data), node, port, error, *name

    def flood(self, number, to, stream, duration_ms, gap_us, sizes):
        sock, to, stream = self.sockets[int(number)], destination(to), int(stream)
        sizes = [int(size) for size in sizes.split(",")]
        due = time.monotonic()
        sent, end, gap = 0, due + int(duration_ms) / 1000, int(gap_us) / 1e6
        while time.monotonic() < end:
            sock.sendto(stamped(stream, sent, sizes[sent % len(sizes)]), to)
            sent += 1
            now = time.monotonic()
            due = max(due + gap, now - CAUGHT_UP_MAX_S)
            time.sleep(max(0, due - now))
        sock.sendto(stamped(stream, sent | END_OF_STREAM, 12), to)
        return (sent,)

    def pour(self, number, to, stream, duration_ms, window, members, sizes):
        sock, to, stream = self.sockets[int(number)], destination(to), int(stream)
        sizes = [int(size) for size in sizes.split(",")]
        told, sent, granted, returned = {}, 0, int(window), 0
        end = time.monotonic() + int(duration_ms) / 1000
        while time.monotonic() < end:
            while sent >= granted:
                data, node, port, error, _ = self.receive(number, CREDIT_TIMEOUT_S)
                if error:
                    returned += 1
                    continue
                _, told[node, port] = struct.unpack(">II", data)
                if len(told) == int(members):
                    granted = min(told.values()) + int(window)
            send(sock, stamped(stream, sent, sizes[sent % len(sizes)]), to)
            sent += 1
        sock.sendto(stamped(stream, sent | END_OF_STREAM, STAMP_SIZE), to)
        return sent, returned

    def buffer(self, number):
        # What a receiver that stands still for a second loses says nothing about the link.
        self.sockets[int(number)].setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, COLLECT_BUFFER)

    def collect(self, number, streams, idle_ms, limit_ms, credit=0):
        self.buffer(number)
        found, streams_of, good, corrupt, returned = {}, {}, 0, 0, 0
        end = time.monotonic() + int(limit_ms) / 1000
        while sum(stream.expected is not None for stream in found.values()) < int(streams):
            remaining = min(int(idle_ms) / 1000, end - time.monotonic())
            if remaining <= 0:
                break
            try:
                data, node, port, error, _ = self.receive(number, remaining)
            except TimeoutError:
                break
            if error:
                returned += 1
                continue
            source = (socket.TIPC_ADDR_ID, node, port, 0)
            if len(data) >= STAMP_SIZE:
                key, sequence, _ = struct.unpack_from(">III", data)
            else:
                key = streams_of.get(source)
                sequence = found[key].highest + 1 if key in found else 0
            if key is None or data != stamped(key, sequence, len(data)):
                corrupt += 1
                continue
            good += 1
            streams_of[source] = key
            stream = found.setdefault(key, Stream())
            stream.add(sequence)
            if int(credit) and stream.count() % int(credit) == 0:
                self.sockets[int(number)].sendto(struct.pack(">II", key, stream.count()), source)
        return good, corrupt, returned, *(f"{key}:{stream.count()}:{stream.lost()}:{stream.duplicate}:{stream.reordered}"
                                          for key, stream in sorted(found.items()))

    def ask(self, number, to, kind, count, width, patience_ms):
        sock, to, kind = self.sockets[int(number)], destination(to), int(kind)
        questions, unanswered, answered = iter(range(int(count))), set(), 0
        while True:
            for question in itertools.islice(questions, int(width) - len(unanswered)):
                sock.bind((socket.TIPC_ADDR_NAMESEQ, kind, question, question, SCOPES["cluster"]))
                sock.sendto(stamped(kind, question, 12), to)
                unanswered.add(question)
            if not unanswered:
                return (answered,)
            try:
                _, question, _ = struct.unpack_from(">III", self.receive(number, int(patience_ms) / 1000)[0])
            except TimeoutError:
                return (answered,)
            if question in unanswered:
                unanswered.remove(question)
                sock.bind((socket.TIPC_ADDR_NAMESEQ, kind, question, question, -SCOPES["cluster"]))
                answered += 1

    def answer(self, number, count, idle_ms):
        answered = unreachable = 0
        while answered + unreachable < int(count):
            try:
                question = self.receive(number, int(idle_ms) / 1000)[0]
            except TimeoutError:
                break
            kind, instance, _ = struct.unpack(">III", question)
            try:
                self.sockets[int(number)].sendto(question, (socket.TIPC_ADDR_NAME, kind, instance, 0))
                answered += 1
            except OSError as error:
                if error.errno != errno.EHOSTUNREACH:
                    raise
                unreachable += 1
        return answered, unreachable

    def subscriber(self, node=0):
        sock = socket.socket(socket.AF_TIPC, socket.SOCK_SEQPACKET)
        # By hand: Python's own addresses have no look-up domain.
        address = struct.pack("=HBb3I", socket.AF_TIPC, socket.TIPC_ADDR_NAME, 0, TOP_SRV, TOP_SRV, int(node))
        if ctypes.CDLL(None, use_errno=True).connect(sock.fileno(), address, len(address)):
            raise OSError(ctypes.get_errno(), "cannot connect to the topology service")
        number = len(self.subscribers)
        self.subscribers[number] = sock
        return (number,)

    def subscribe(self, number, kind, lower, upper, filter_name, timeout, cancel=0):
        timeout_ms = FOR_EVER if timeout == "forever" else int(timeout)
        self.subscribers[int(number)].send(struct.pack("=5I8x", int(kind), int(lower), int(upper), timeout_ms,
                                                       FILTERS[filter_name] | cancel))

    def cancel(self, *subscription):
        self.subscribe(*subscription, cancel=TIPC_SUB_CANCEL)

    def event(self, number, timeout_ms):
        sock = self.subscribers[int(number)]
        sock.settimeout(max(int(timeout_ms) / 1000, 0.001))
        kind, lower, upper, port, node, service, *_ = struct.unpack("=6I24x", sock.recv(48))
        return EVENTS[kind], service, lower, upper, port, node, time.clock_gettime_ns(time.CLOCK_REALTIME)

    def add_end(self, sock):
        self.ends.append(sock)
        return len(self.ends) - 1, *address_of(sock.getsockname())

    def listen(self, kind, type_, instance):
        sock = socket.socket(socket.AF_TIPC, CONNECTED[kind])
        if int(type_):
            sock.bind((socket.TIPC_ADDR_NAMESEQ, int(type_), int(instance), int(instance), SCOPES["cluster"]))
        sock.listen()
        return self.add_end(sock)

    def accept(self, number, timeout_ms):
        listener = self.ends[int(number)]
        listener.settimeout(int(timeout_ms) / 1000)
        sock, peer = listener.accept()
        sock.settimeout(None)
        return *self.add_end(sock), *address_of(peer)

    def connect(self, kind, to, timeout_ms):
        sock = socket.socket(socket.AF_TIPC, CONNECTED[kind])
        sock.setsockopt(SOL_TIPC, TIPC_CONN_TIMEOUT, int(timeout_ms))
        sock.connect(destination(to))
        return self.add_end(sock)

    def imply(self, kind, to, seed, size):
        sock = socket.socket(socket.AF_TIPC, CONNECTED[kind])
        # Blocking, the call would wait for the answer.
        sock.setblocking(False)
        sock.sendto(pattern(int(seed), int(size)), destination(to))
        sock.setblocking(True)
        return self.add_end(sock)

    def option(self, number, name, value):
        if name == "buffer":
            return self.ends[int(number)].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(value) // 2)
        self.ends[int(number)].setsockopt(SOL_TIPC, {"nodelay": TIPC_NODELAY, "importance": TIPC_IMPORTANCE}[name], int(value))

    def write(self, number, seed, size):
        return (self.ends[int(number)].send(pattern(int(seed), int(size))),)

    def read(self, number, size, timeout_ms):
        sock = self.ends[int(number)]
        sock.settimeout(max(int(timeout_ms) / 1000, 0.001))
        data = sock.recv(int(size))
        return len(data), zlib.crc32(data)

    def ending(self, number):
        sock = self.ends[int(number)]
        sock.settimeout(5)
        _, ancillary, *_ = sock.recvmsg(MESSAGE_MAX, 4096)
        found = {kind: value for _, kind, value in ancillary}
        code, _ = struct.unpack("II", found[TIPC_ERRINFO])
        data = found.get(TIPC_RETDATA, b"")
        return code, len(data), zlib.crc32(data)

    def fill(self, number, size, timeout_ms):
        sock, count = self.ends[int(number)], 0
        sock.settimeout(int(timeout_ms) / 1000)
        try:
            while True:
                sock.send(pattern(0, int(size)))
                count += 1
        except TimeoutError:
            sock.settimeout(None)
            return (count,)

    def pump(self, number, seed, size, piece_size):
        sock, left, crc = self.ends[int(number)], int(size), 0
        piece = pattern(int(seed), int(piece_size))
        while left:
            part = piece[:left]
            sock.sendall(part)
            crc, left = zlib.crc32(part, crc), left - len(part)
        return (crc,)

    def drain(self, number, size, timeout_ms, pause_us, piece_size):
        sock, got, crc, next_pause = self.ends[int(number)], 0, 0, int(piece_size)
        sock.settimeout(int(timeout_ms) / 1000)
        while got < int(size):
            data = sock.recv(MESSAGE_MAX)
            if not data:
                break
            crc, got = zlib.crc32(data, crc), got + len(data)
            while got >= next_pause:
                next_pause += int(piece_size)
                time.sleep(int(pause_us) / 1e6)
        return got, crc

    def name(self, number):
        sock = self.ends[int(number)]
        return *address_of(sock.getsockname()), *address_of(sock.getpeername())

    def shutdown(self, number):
        self.ends[int(number)].shutdown(socket.SHUT_RDWR)

    def hangup(self, number):
        self.ends[int(number)].close()

    def echo(self, number, count):
        listener, left, accepted, poll = self.ends[int(number)], int(count), 0, select.poll()
        listener.setblocking(True)
        ends = {listener.fileno(): listener}
        poll.register(listener, select.POLLIN)
        while left:
            for fd, _ in poll.poll():
                if ends[fd] is listener:
                    sock, _ = listener.accept()
                    ends[sock.fileno()] = sock
                    poll.register(sock, select.POLLIN)
                    accepted += 1
                    continue
                data = ends[fd].recv(MESSAGE_MAX)
                if data:
                    ends[fd].sendall(data)
                    continue
                poll.unregister(fd)
                ends.pop(fd).close()
                left -= 1
        return (accepted,)

    def clients(self, kind, to, count, rounds):
        socks = [socket.socket(socket.AF_TIPC, CONNECTED[kind]) for _ in range(int(count))]
        for sock in socks:
            sock.connect(destination(to))
        good = 0
        for number in range(int(rounds)):
            for seed, sock in enumerate(socks):
                sock.sendall(pattern(seed + number, 100 + seed))
            for seed, sock in enumerate(socks):
                good += sock.recv(MESSAGE_MAX) == pattern(seed + number, 100 + seed)
        for sock in socks:
            sock.shutdown(socket.SHUT_RDWR)
        return (good,)

    def join(self, type_, instance, flags):
        sock = self.member(int(type_), int(instance), GROUP_FLAGS[flags])
        self.members.append((sock, int(type_), int(instance)))
        return len(self.members) - 1, *address_of(sock.getsockname())

    def member(self, type_, instance, flags):
        sock = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)
        sock.setsockopt(SOL_TIPC, TIPC_GROUP_JOIN, struct.pack("=4I", type_, instance, SCOPES["cluster"], flags))
        return sock

    def say(self, sock, type_, whom, data):
        """Tries as long as the member that is meant is not known yet."""
        kind, _, instance = whom.partition(",")
        end = time.monotonic() + KNOWN_S
        while True:
            try:
                if kind == "all":
                    return sock.send(data)
                if kind == "at":
                    return sock.sendto(data, (socket.TIPC_ADDR_NAMESEQ, type_, int(instance), int(instance)))
                if kind == "any":
                    return sock.sendto(data, (socket.TIPC_ADDR_NAME, type_, int(instance), 0))
                return sock.sendto(data, destination(whom))
            except OSError as error:
                if error.errno != errno.EHOSTUNREACH or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def tell(self, number, whom, seed, size):
        sock, type_, _ = self.members[int(number)]
        self.say(sock, type_, whom, pattern(int(seed), int(size)))

    def talk(self, number, count, whom, sizes):
        sock, type_, instance = self.members[int(number)]
        whom, sizes = whom.split("/"), [int(size) for size in sizes.split(",")]
        for n in range(int(count)):
            self.say(sock, type_, whom[n % len(whom)], stamped(instance, n, sizes[n % len(sizes)]))
        return (count,)

    def next_news(self, number, timeout_ms):
        """What a member hears: kind, instance, port, node and bytes; None if it is nothing."""
        sock = self.members[int(number)][0]
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if not poll.poll(int(timeout_ms)):
            return None
        # By hand: Python's own call drops the second address, which has the instance.
        names, parts = (ctypes.c_char * 32)(), (ctypes.c_void_p * 2)(ctypes.addressof(self.room), MESSAGE_MAX)
        header = struct.pack("@PI4xPNPNi4x", ctypes.addressof(names), 32, ctypes.addressof(parts), 1, 0, 0, 0)
        header = ctypes.create_string_buffer(header, len(header))
        size = ctypes.CDLL(None, use_errno=True).recvmsg(sock.fileno(), header, 0)
        if size < 0:
            raise OSError(ctypes.get_errno(), "a member cannot receive")
        flags = struct.unpack_from("@i", header.raw, 48)[0]
        port, node, _, instance = (word for at in (4, 20) for word in struct.unpack_from("=II", names.raw, at))
        what = "message" if not flags & socket.MSG_OOB else "left" if flags & socket.MSG_EOR else "joined"
        return what, instance, port, node, self.room.raw[:size]

    def hear(self, number, timeout_ms):
        news = self.next_news(number, timeout_ms)
        if news is None:
            raise TimeoutError
        *who, data = news
        return *who, len(data), zlib.crc32(data)

    def heed(self, number, awaited, idle_ms, pause_us, pause_after):
        bad, heard, next_number, count = 0, {}, {}, 0
        while count < int(awaited) and (news := self.next_news(number, idle_ms)) is not None:
            what, instance, port, node, data = news
            if what != "message":
                continue
            stream, sequence, _ = struct.unpack_from(">III", data)
            bad += data != stamped(stream, sequence, len(data)) or stream != instance
            counts = heard.setdefault(instance, [0, 0])
            counts[0] += 1
            counts[1] += sequence < next_number.get(instance, 0)
            next_number[instance] = sequence + 1
            count += 1
            if count % int(pause_after) == 0:
                time.sleep(int(pause_us) / 1e6)
        return bad, *(f"{instance}:{counts[0]}:{counts[1]}" for instance, counts in sorted(heard.items()))

    def chorus(self, type_, first, members, count, whom, size):
        type_, count, size = int(type_), int(count), int(size)
        singers = [(self.member(type_, instance, 0), instance) for instance in range(int(first), int(first) + int(members))]

        def sing(sock, instance):
            for n in range(count):
                self.say(sock, type_, whom, stamped(instance, n, size))

        threads = [threading.Thread(target=sing, args=singer) for singer in singers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for sock, _ in singers:
            sock.close()
        return (count,)

    def leave(self, number):
        self.members[int(number)][0].setsockopt(SOL_TIPC, TIPC_GROUP_LEAVE, None, 0)

    def close(self, number):
        self.sockets[int(number)].close()

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


def main():
    driver = Driver()
    print("ready", os.getpid(), flush=True)
    for line in sys.stdin:
        verb, *words = line.split()
        if verb == "renew":
            driver.close_all()
            driver = Driver()
            print("ready", os.getpid(), flush=True)
            continue
        try:
            answer = getattr(driver, verb)(*words)
            print("ok", *(answer or ()), flush=True)
        except OSError as error:
            # A time-out of Python's own has no number.
            print(*("failed", error.errno, error.strerror) if error.errno else ("timeout",), flush=True)
        except Exception as error:
            print(f"error {error!r}", flush=True)


if __name__ == "__main__":
    main()
