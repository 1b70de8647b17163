#!/usr/bin/env python3
"""The greeting of hello.py with the standard socket module alone: `xtipc run -- standard.py server`, then `… client`."""
import socket
import struct
import sys

TYPE, INSTANCE = 18888, 17


def await_service():
    """Asks the topology service for an event of the service."""
    with socket.socket(socket.AF_TIPC, socket.SOCK_SEQPACKET) as topology:
        topology.connect((socket.TIPC_ADDR_NAME, socket.TIPC_TOP_SRV, socket.TIPC_TOP_SRV, 0))
        topology.send(struct.pack("=5I8s", TYPE, INSTANCE, INSTANCE, 10_000, socket.TIPC_SUB_SERVICE, b""))
        what = struct.unpack_from("=I", topology.recv(48))[0]
    if what != socket.TIPC_PUBLISHED:
        sys.exit("there is no server")


with socket.socket(socket.AF_TIPC, socket.SOCK_RDM) as own:
    own.settimeout(10)
    if sys.argv[1:] == ["server"]:
        own.bind((socket.TIPC_ADDR_NAMESEQ, TYPE, INSTANCE, INSTANCE))
        greeting, (_, node, port, *_) = own.recvfrom(100)
        print(f"{greeting.decode()}, from 0:{port:010}@{node:x}")
        own.sendto(b"hello from Python", (socket.TIPC_ADDR_ID, node, port, 0))
    elif sys.argv[1:] == ["client"]:
        await_service()
        own.sendto(b"hello from Python", (socket.TIPC_ADDR_NAME, TYPE, INSTANCE, 0))
        print(own.recv(100).decode())
    else:
        sys.exit("usage: standard.py server|client")
