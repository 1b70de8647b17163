#!/usr/bin/env python3
"""What libxtipc does on one node, by way of the Python package: the results of libtipc, and descriptors in event loops that know
nothing of the library. Exits with 0 if all is as it should be.
"""
import asyncio
import ctypes
import errno
import os
import select
import signal
import struct
import threading
import time
import unittest

import xtipc
from xtipc import _library as library

TYPE = 40000
NOBODY = xtipc.Address(TYPE + 1, 1)


class LibraryTest(unittest.TestCase):
    def open(self, kind=xtipc.RDM):
        socket = xtipc.Socket(kind)
        self.addCleanup(socket.close)
        return socket

    def bound(self, instance, kind=xtipc.RDM, scope=xtipc.CLUSTER):
        socket = self.open(kind)
        socket.bind(TYPE, instance, scope=scope)
        return socket

    def connected(self, instance, kind=xtipc.SEQPACKET):
        """Both ends of a connection."""
        listener, client = self.bound(instance, kind), self.open(kind)
        listener.listen()
        thread = threading.Thread(target=client.connect, args=(xtipc.Address(TYPE, instance),))
        thread.start()
        server, source = listener.accept()
        thread.join()
        self.addCleanup(server.close)
        self.assertEqual(source, client.address)
        return client, server

    def assertFails(self, number, call, *arguments):
        with self.assertRaises(OSError) as caught:
            call(*arguments)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[number])


class SocketsTest(LibraryTest):
    def test_datagrams_tell_who_sent_them(self):
        server, client = self.bound(1), self.open()
        for size in (1, 1500, 66000):
            client.send_to(bytes(size), xtipc.Address(TYPE, 1))
            self.assertEqual(server.receive(), xtipc.Message(bytes(size), client.address))
        server.send_to(b"answer", client.address)
        self.assertEqual(client.receive().data, b"answer")
        self.assertFails(errno.EMSGSIZE, client.send_to, bytes(66001), xtipc.Address(TYPE, 1))
        self.assertFails(errno.EHOSTUNREACH, client.send_to, b"x", NOBODY)

    def test_a_multicast_reaches_all_who_are_bound(self):
        servers, client = [self.bound(2), self.bound(2)], self.open()
        client.multicast(b"all", xtipc.Address(TYPE, 2, xtipc.own_node()))
        self.assertEqual([server.receive().data for server in servers], [b"all"] * 2)
        self.assertFails(errno.EINVAL, client.multicast, b"x", xtipc.Address(TYPE, 2, xtipc.own_node() + 1))

    def test_bindings_have_the_scope_of_a_node_or_the_cluster(self):
        # As in Linux, unbinding is an error only if another binding is there.
        socket = self.bound(300)
        for scope in (xtipc.CLUSTER, xtipc.own_node()):
            socket.bind(TYPE, 3, 5, scope)
            self.assertTrue(xtipc.wait_for(TYPE, 4, timeout=5))
            socket.unbind(TYPE, 3, 5)
            self.assertFalse(xtipc.wait_for(TYPE, 4, timeout=0))
        self.assertFails(errno.EINVAL, socket.unbind, TYPE, 3, 5)
        self.assertFails(errno.EINVAL, socket.bind, TYPE, 3, 5, xtipc.own_node() + 1)
        self.assertFails(errno.EACCES, socket.bind, 63, 3)
        self.assertFails(errno.EINVAL, socket.bind, TYPE, 5, 3)

    def test_what_cannot_be_delivered_comes_back_if_that_is_wanted(self):
        client = self.open()
        client.set_rejectable()
        gone = self.open()
        dead = gone.address
        gone.close()
        client.send_to(b"to nobody", dead)
        self.assertEqual(client.receive(), xtipc.Rejected(b"to nobody", 2))
        client.send_to(bytes(range(256)) * 8, dead)
        room, own, code = ctypes.create_string_buffer(100), library.RawAddress(), ctypes.c_int()
        self.assertEqual(library.recvfrom(client.fileno(), room, 100, own, None, code), 100)
        self.assertEqual((room.raw, code.value, (own.type, own.instance, own.node)), (bytes(range(100)), 2, client.address))
        client.send_to(b"without a place for the error", dead)
        self.assertEqual(library.recvfrom(client.fileno(), room, 100, None, None, None), 0)

    def test_options(self):
        socket = self.open()
        socket.set_importance(3)
        self.assertFails(errno.EINVAL, socket.set_importance, 4)
        socket.set_nonblocking()
        self.assertFails(errno.EAGAIN, socket.receive)
        self.assertEqual(library.non_block(socket.fileno()), socket.fileno())
        self.assertFails(errno.EBADF, library.non_block, -1)

    def test_connections(self):
        client, server = self.connected(6)
        client.send(b"one")
        client.send(b"two")
        self.assertEqual([server.receive().data, server.recv(100)], [b"one", b"two"])
        server.close()
        self.assertFails(errno.ECONNRESET, client.recv, 100)
        self.assertEqual(client.receive(), xtipc.Rejected(b"", 2))
        self.assertFails(errno.ECONNREFUSED, self.open(xtipc.STREAM).connect, self.bound(7, xtipc.STREAM).address)

    def test_streams_wait_for_all_if_that_is_wanted(self):
        client, server = self.connected(8, xtipc.STREAM)
        thread = threading.Thread(target=lambda: [(client.send(b"x" * 10), time.sleep(0.05)) for _ in range(5)])
        thread.start()
        self.assertEqual(server.recv(50, all=True), b"x" * 50)
        thread.join()

    def test_a_first_message_makes_a_connection(self):
        listener, client = self.bound(9, xtipc.SEQPACKET), self.open(xtipc.SEQPACKET)
        listener.listen()
        thread = threading.Thread(target=client.send_to, args=(b"first", xtipc.Address(TYPE, 9)))
        thread.start()
        server, _ = listener.accept()
        thread.join()
        self.assertEqual(server.receive().data, b"first")
        server.send(b"second")
        self.assertEqual(client.receive().data, b"second")
        server.close()

    def test_null_where_something_is_needed_is_an_error(self):
        sd = self.open().fileno()
        for call in (lambda: library.sockaddr(sd, None), lambda: library.connect(sd, None), lambda: library.join(sd, None, True, True),
                     lambda: library.sendto(sd, b"x", 1, None), lambda: library.mcast(sd, b"x", 1, None)):
            self.assertFails(errno.EFAULT, call)

    def test_a_signal_does_not_end_a_wait(self):
        server, client = self.bound(10), self.open()
        handled = []
        signal.signal(signal.SIGALRM, lambda *_: handled.append(client.send_to(b"late", xtipc.Address(TYPE, 10))))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        self.assertEqual(server.receive().data, b"late")
        self.assertEqual(handled, [4])
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        begun = time.monotonic()
        self.assertEqual(xtipc.poll([self.open()], timeout=0.5), [])
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.assertAlmostEqual(time.monotonic() - begun, 0.5, delta=0.3)

    def test_a_forked_child_has_the_sockets_too(self):
        server = self.bound(11)
        pid = os.fork()
        if not pid:
            try:
                server.send_to(b"from the child", server.receive().source)
            finally:
                os._exit(0)
        client = self.open()
        client.send_to(b"to whoever reads", xtipc.Address(TYPE, 11))
        self.assertEqual(client.receive().data, b"from the child")
        os.waitpid(pid, 0)
        client.send_to(b"still there", xtipc.Address(TYPE, 11))
        self.assertEqual(server.receive().data, b"still there")


class GroupsTest(LibraryTest):
    def test_members_are_told_of_each_other(self):
        one, other = self.open(), self.open()
        first, second = xtipc.Address(TYPE, 1), xtipc.Address(TYPE, 2)
        one.join(TYPE, 1, loopback=True)
        self.assertEqual(one.receive(), xtipc.Joined(first, one.address))
        other.join(TYPE, 2, events=False)
        self.assertEqual(one.receive(), xtipc.Joined(second, other.address))
        other.send(b"to all")
        self.assertEqual(one.receive(), xtipc.Message(b"to all", other.address, second))
        one.send(b"to oneself, too")
        self.assertEqual(one.receive().member, first)
        other.leave()
        self.assertEqual(one.receive(), xtipc.Left(second, other.address))
        self.assertFails(errno.EINVAL, other.leave)
        self.assertFails(errno.EACCES, one.join, TYPE, 1)


class TrackingTest(LibraryTest):
    def test_services(self):
        with xtipc.Services() as services:
            services.subscribe(TYPE, 20, 29, timeout=0.3)
            socket = self.bound(21)
            service = xtipc.Address(TYPE, 21, xtipc.own_node())
            self.assertEqual(next(services), xtipc.Published(service, socket.address))
            socket.close()
            self.assertIsInstance(next(services), xtipc.Withdrawn)
            self.assertEqual(next(services), xtipc.Expired())

    def test_waiting_for_a_service(self):
        self.assertFalse(xtipc.wait_for(*NOBODY[:2], timeout=0.1))
        threading.Timer(0.1, self.bound, [30]).start()
        self.assertTrue(xtipc.wait_for(TYPE, 30, timeout=5))
        self.assertTrue(xtipc.wait_for(TYPE, 30, timeout=5, node=xtipc.own_node()))
        self.assertFalse(xtipc.wait_for(TYPE, 30, timeout=0.1, node=xtipc.own_node() + 1))

    def test_the_own_node_is_among_the_nodes(self):
        with xtipc.Nodes() as nodes:
            self.assertEqual(next(nodes), xtipc.NodeUp(xtipc.own_node()))


class EventLoopTest(LibraryTest):
    """The kernel's poll and epoll, which the library does not stand before here."""

    COUNT = 500

    def test_asyncio_gets_every_message_and_does_not_spin(self):
        server, client = self.bound(40), self.open()
        server.set_nonblocking()
        got, calls = [], 0

        async def main():
            done = asyncio.get_running_loop().create_future()

            def readable():
                nonlocal calls
                calls += 1
                try:
                    while True:
                        got.append(server.receive().data)
                except BlockingIOError:
                    if len(got) == self.COUNT and not done.done():
                        done.set_result(None)

            asyncio.get_running_loop().add_reader(server.fileno(), readable)
            for number in range(self.COUNT):
                client.send_to(struct.pack("=I", number), xtipc.Address(TYPE, 40))
                if number % 50 == 0:
                    await asyncio.sleep(0.01)
            await asyncio.wait_for(done, 10)
            before = calls
            await asyncio.sleep(0.2)
            self.assertLessEqual(calls - before, 1)

        asyncio.run(main())
        self.assertEqual(got, [struct.pack("=I", number) for number in range(self.COUNT)])

    def test_the_end_of_a_connection_is_seen(self):
        client, server = self.connected(41)
        client.set_nonblocking()
        poll = select.poll()
        poll.register(client.fileno(), select.POLLIN)
        self.assertEqual(poll.poll(50), [])
        server.close()
        [(_, events)] = poll.poll(5000)
        self.assertTrue(events & select.POLLIN)
        self.assertFails(errno.ECONNRESET, client.recv, 10)

    def test_poll_of_the_library(self):
        one, other, client = self.bound(42), self.bound(43), self.open()
        self.assertEqual(xtipc.poll([one, other], timeout=0.05), [])
        client.send_to(b"x", xtipc.Address(TYPE, 43))
        self.assertEqual(xtipc.poll([one, other], timeout=5), [other])
        self.assertEqual(xtipc.poll([one], timeout=0, events=select.POLLOUT), [one])


if __name__ == "__main__":
    unittest.main()
