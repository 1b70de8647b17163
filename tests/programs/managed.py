#!/usr/bin/env python3
"""What a program sees of TIPC by generic netlink, with nothing but the socket module: run it by `xtipc run`, or on a kernel with
TIPC. Prints, as JSON, for each command of the family `TIPCv2` that shows something the attributes of its messages: of each kind
of message those that it holds, by their numbers, and how long those without others are.
"""
import json
import select
import socket
import struct

GENERIC, CONTROL, GET_FAMILY, FAMILY_NAME, FAMILY_ID = 16, 16, 3, 2, 1
REQUEST, ACK, DUMP = 1, 4, 0x300
ERROR, DONE, MULTI = 2, 3, 2
SOL_NETLINK, EXT_ACK = 270, 11
# Attributes that hold others, by those that they are in.
NESTS = {(1,), (1, 2), (1, 4), (2,), (2, 3), (2, 5), (3,), (4,), (4, 7), (4, 8), (5,), (5, 2), (6,), (7,), (8,), (8, 1), (9,), (10,)}
TEXTS = {(1, 1), (4, 1), (5, 1), (9, 4)}
LISTS = {"bearers": 4, "sockets": 6, "links": 8, "media": 11, "nodes": 13, "net": 14, "names": 16, "monitors": 18}


def attribute(kind, value):
    length = 4 + len(value)
    return struct.pack("HH", length, kind) + value + bytes(-length % 4)


def attributes(data):
    while data:
        length, kind = struct.unpack_from("HH", data)
        assert 4 <= length <= len(data), (length, data)
        yield kind & 0x3fff, data[4:length]
        data = data[(length + 3) // 4 * 4:]


class Refused(Exception):
    pass


class Netlink:
    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, GENERIC)
        self.socket.setsockopt(SOL_NETLINK, EXT_ACK, 1)
        self.socket.bind((0, 0))
        self.port = self.socket.getsockname()[0]
        self.sequence = 0
        found = dict(attributes(self.ask(CONTROL, GET_FAMILY, ACK, attribute(FAMILY_NAME, b"TIPCv2\0"))[0]))
        self.family, = struct.unpack("H", found[FAMILY_ID])

    def send(self, family, command, flags, data=b""):
        self.sequence += 1
        payload = struct.pack("BBH", command, 1, 0) + data
        self.socket.send(struct.pack("IHHII", 16 + len(payload), family, REQUEST | flags, self.sequence, 0) + payload)

    def ask(self, family, command, flags, data=b""):
        """The attributes of the messages that answer."""
        self.send(family, command, flags, data)
        answers = []
        while True:
            datagram, source = self.socket.recvfrom(65536)
            assert source == (0, 0), source
            while datagram:
                length, kind, told, sequence, port = struct.unpack_from("IHHII", datagram)
                assert (sequence, port) == (self.sequence, self.port), (sequence, port)
                payload = datagram[16:length]
                datagram = datagram[(length + 3) // 4 * 4:]
                if kind == ERROR:
                    failure, = struct.unpack_from("i", payload)
                    if failure:
                        raise Refused(-failure)
                    return answers
                if kind == DONE:
                    return answers
                assert kind == family and payload[0] in (command, 1, 4), (kind, payload)
                assert bool(told & MULTI) == bool(flags & DUMP), told
                answers.append(payload[4:])


def tree(data, above=()):
    """The attributes in the order of their numbers, with those that they hold, or their length; that of a text is not told."""
    def shown(path, value):
        return tree(value, path) if path in NESTS else "text" if path in TEXTS else len(value)
    # Linux has the priority of a link twice.
    return [[kind, shown((*above, kind), value)] for kind, value in sorted(dict(attributes(data)).items())]


def readiness(netlink):
    """Answers are told by poll, and are whole at a look before they are read."""
    poll = select.poll()
    poll.register(netlink.socket, select.POLLIN)
    assert poll.poll(0) == []
    netlink.send(netlink.family, LISTS["media"], DUMP)
    assert poll.poll(1000) == [(netlink.socket.fileno(), select.POLLIN)]
    length = netlink.socket.recv_into(bytearray(1), 0, socket.MSG_PEEK | socket.MSG_TRUNC)
    seen = netlink.socket.recv(65536, socket.MSG_PEEK)
    assert length == len(seen) > 36, (length, seen)
    parts = [bytearray(20), bytearray(65536)]
    received, _, flags, source = netlink.socket.recvmsg_into(parts)
    assert (received, flags, source) == (length, 0, (0, 0))
    assert b"".join(parts)[:received] == seen
    while struct.unpack_from("H", seen, len(seen) - 16)[0] != DONE and poll.poll(0):
        seen = netlink.socket.recv(65536)
    assert poll.poll(0) == []
    netlink.socket.setblocking(False)
    try:
        netlink.socket.recv(1)
    except BlockingIOError:
        pass
    else:
        raise AssertionError("there was something to receive")


def main():
    netlink = Netlink()
    shown = {}
    for name, command in LISTS.items():
        kinds = []
        for answer in netlink.ask(netlink.family, command, DUMP):
            kind = tree(answer)
            if kind not in kinds:
                kinds.append(kind)
        shown[name] = kinds
    for command in (99, 4):
        try:
            netlink.ask(netlink.family, command, ACK)
        except Refused as refused:
            shown[f"refusal of {command}"] = refused.args[0]
    readiness(netlink)
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
