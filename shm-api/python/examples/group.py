#!/usr/bin/env python3
"""A group of two: one is told that the other joins, what it says to all, and that it leaves."""
import xtipc

GROUP = 18890


def show(socket):
    event = socket.receive()
    member = f"{event.member.type}:{event.member.instance}"
    if isinstance(event, xtipc.Message):
        print(f"{member} says {event.data.decode()}")
    else:
        print(member, "joined" if isinstance(event, xtipc.Joined) else "left")


with xtipc.Socket(xtipc.RDM) as one, xtipc.Socket(xtipc.RDM) as other:
    one.join(GROUP, 1)
    other.join(GROUP, 2, events=False)
    show(one)
    other.send(b"hello")
    show(one)
    other.leave()
    show(one)
