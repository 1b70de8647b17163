#!/usr/bin/env python3
"""A greeting and its answer, between two programs on any two nodes: `hello.py server`, then `hello.py client`."""
import sys

import xtipc

SERVICE = xtipc.Address(18888, 17)


def server(socket):
    socket.bind(SERVICE.type, SERVICE.instance)
    if not xtipc.poll([socket], timeout=10):
        sys.exit("nobody says hello")
    greeting = socket.receive()
    print(f"{greeting.data.decode()}, from {greeting.source}")
    socket.send_to(b"hello from Python", greeting.source)


def client(socket):
    if not xtipc.wait_for(*SERVICE[:2], timeout=10):
        sys.exit("there is no server")
    socket.send_to(b"hello from Python", SERVICE)
    print(socket.receive().data.decode())


if __name__ == "__main__":
    roles = {"server": server, "client": client}
    if len(sys.argv) != 2 or sys.argv[1] not in roles:
        sys.exit("usage: hello.py server|client")
    with xtipc.Socket(xtipc.RDM) as own:
        roles[sys.argv[1]](own)
