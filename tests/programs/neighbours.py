#!/usr/bin/env python3
"""Waits until a node, named by its number, and a link to it are up, by libxtipc; prints that, the name of the link, and that of a
link that is not there."""
import ctypes
import sys

import xtipc
from xtipc import _library as library


def link_name(node, bearer):
    name = library.function("tipc_linkname", ctypes.c_char_p, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_int])
    return name(ctypes.create_string_buffer(68), 68, node, bearer).decode()


neighbour = int(sys.argv[1])
with xtipc.Nodes() as nodes, xtipc.Links() as links:
    while next(nodes) != xtipc.NodeUp(neighbour):
        pass
    link = next(link for link in links if link.node == neighbour)
print("node up,", "link up" if isinstance(link, xtipc.LinkUp) else "link down")
print(link_name(neighbour, link.own_bearer))
print(link_name(neighbour, link.own_bearer + 1))
