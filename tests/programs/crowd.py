#!/usr/bin/env python3
"""Servers that are killed and started again, and a client that must never reach a dead one: run by `xtipc run`, or on a kernel with TIPC.

    crowd.py serve TYPE SERVERS SOCKETS    so many processes, each with so many sockets, that answer with the number of their life. Takes
                                           "again" (kill all at once, start as many) and "end" (kill all) from standard input; tells
                                           "killed TIME TIME", when it began to and when the last was dead, and "ready LIFE"
    crowd.py ask TYPE INSTANCES            asks all instances in turn until its standard input ends; tells what was not answered as
                                           "rejected TIME TIME", when it was asked and came back, or "unanswered TIME TIME", when
                                           it gave up: a server may be killed with the question in its hands. Tells the first
                                           answer of a life as "heard LIFE", and at the end "asked COUNT"
"""
import os
import select
import signal
import socket
import sys
import time

SOL_TIPC, DEST_DROPPABLE, ERRINFO = 271, 129, 1
PATIENCE_S = 5


def say(*words):
    print(*words, flush=True)


def work(kind, instances, life, tell):
    """A server: answers until it is killed."""
    sockets = {}
    poll = select.poll()
    for instance in instances:
        server = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)
        server.bind((socket.TIPC_ADDR_NAME, kind, instance, 0, socket.TIPC_CLUSTER_SCOPE))
        sockets[server.fileno()] = server
        poll.register(server, select.POLLIN)
    os.write(tell, b"x")
    while True:
        for fd, _ in poll.poll():
            _, source = sockets[fd].recvfrom(100)
            try:
                sockets[fd].sendto(b"%d" % life, source)
            except OSError:
                pass  # who asked is gone


def start(kind, servers, count, life):
    """All servers, once their sockets are bound."""
    ready, tell = os.pipe()
    pids = []
    for number in range(servers):
        pid = os.fork()
        if not pid:
            try:
                work(kind, range(number * count, (number + 1) * count), life, tell)
            finally:
                os._exit(1)
        pids.append(pid)
    os.close(tell)
    told = 0
    while told < servers:
        told += len(os.read(ready, servers)) or sys.exit("a server ended")
    os.close(ready)
    say("ready", life)
    return pids


def kill(pids):
    begun = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    say("killed", begun, time.monotonic())


def serve(kind, servers, count):
    life = 0
    pids = start(kind, servers, count, life)
    for line in sys.stdin:
        kill(pids)
        if line.strip() == "end":
            break
        life += 1
        pids = start(kind, servers, count, life)


def ask(kind, instances):
    client = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)
    client.setsockopt(SOL_TIPC, DEST_DROPPABLE, 0)
    client.settimeout(PATIENCE_S)
    end = select.poll()
    end.register(sys.stdin, select.POLLIN)
    asked, life = 0, b""
    while not end.poll(0):
        at = time.monotonic()
        try:
            client.sendto(b"?", (socket.TIPC_ADDR_NAME, kind, asked % instances, 0))
        except OSError:
            time.sleep(0.001)  # nobody is there
            continue
        asked += 1
        try:
            data, ancillary, _, _ = client.recvmsg(100, 1000)
        except TimeoutError:
            say("unanswered", at, time.monotonic())
            continue
        if any(what[:2] == (SOL_TIPC, ERRINFO) for what in ancillary):
            say("rejected", at, time.monotonic())
        elif data != life:
            life = data
            say("heard", life.decode())
    say("asked", asked)


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*map(int, sys.argv[2:]))
