"""TIPC sockets of xtipc: what libxtipc(3) does, with typed addresses, messages and events.

    import xtipc
    with xtipc.Socket(xtipc.RDM) as server:
        server.bind(18888, 17)
        request = server.receive()
        server.send_to(b"hello", request.source)

A program that has only the standard socket module runs under `xtipc run`; this package needs no such help. Loads libxtipc.so.1, or
what the environment variable XTIPC_LIBRARY names. Errors are OSError, as those of the socket module.
"""
from ._events import (Address, Expired, Joined, Left, LinkDown, LinkUp, Message, NodeDown, NodeUp, Published, Rejected,
                      Withdrawn)
from ._socket import CLUSTER, DGRAM, RDM, SEQPACKET, STREAM, Socket, own_node, poll
from ._topology import Links, Nodes, Services, wait_for

__all__ = ["Address", "CLUSTER", "DGRAM", "Expired", "Joined", "Left", "LinkDown", "LinkUp", "Links", "Message", "NodeDown", "NodeUp",
           "Nodes", "Published", "RDM", "Rejected", "SEQPACKET", "STREAM", "Services", "Socket", "Withdrawn", "own_node", "poll", "wait_for"]
