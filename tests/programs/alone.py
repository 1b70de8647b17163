#!/usr/bin/env python3
"""What a program of standard Python sees of AF_TIPC on one node, with nothing but the socket module: run it by `xtipc run`, or on a
kernel with TIPC. Exits with 0 if all is as it should be.
"""
import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

TYPES = (socket.SOCK_RDM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM)
CONNECTED = (socket.SOCK_SEQPACKET, socket.SOCK_STREAM)
SERVICE = 42000 + os.getpid() % 10000
SECONDS = float(os.environ.get("SECONDS", "2"))  # of what goes on for a time
IN, OUT, HUP, RDHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLRDHUP


def service(instance):
    return socket.TIPC_ADDR_NAME, SERVICE, instance, 0


def child(work):
    """Runs `work` in a forked child; gives its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


class ProgramTest(unittest.TestCase):
    def open(self, kind):
        return self.enterContext(socket.socket(socket.AF_TIPC, kind))

    def pair(self, kind):
        return [self.enterContext(end) for end in socket.socketpair(socket.AF_TIPC, kind)]

    def listener(self, instance, kind=socket.SOCK_STREAM):
        listener = self.open(kind)
        listener.bind((socket.TIPC_ADDR_NAME, SERVICE, instance, instance, socket.TIPC_CLUSTER_SCOPE))
        listener.listen()
        return listener

    def connected(self, listener, instance, kind=socket.SOCK_STREAM):
        client = self.open(kind)
        thread = threading.Thread(target=client.connect, args=(service(instance),))
        thread.start()
        server = self.enterContext(listener.accept()[0])
        thread.join()
        return client, server

    def waited(self, pid):
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    if sys.version_info < (3, 11):
        def enterContext(self, context):
            self.addCleanup(context.__exit__, None, None, None)
            return context.__enter__()


class EventsTest(ProgramTest):
    """poll, select and epoll."""

    def polled(self, end, wanted=IN | OUT, timeout_ms=0):
        poll = select.poll()
        poll.register(end, wanted)
        return sum(events for _, events in poll.poll(timeout_ms))

    def epolled(self, end, wanted=IN | OUT, timeout_s=0.0):
        with select.epoll() as poll:
            poll.register(end, wanted)
            return sum(events for _, events in poll.poll(timeout_s))

    def test_each_state_has_its_events(self):
        for look in (self.polled, self.epolled):
            for kind in TYPES:
                self.assertEqual(look(self.open(kind)), OUT)
            one, other = self.pair(socket.SOCK_RDM)
            one.send(b"x")
            self.assertEqual(look(other), IN | OUT)
            self.assertEqual(look(other, IN), IN)
            other.recv(1)
            self.assertEqual(look(other), OUT)
            self.assertEqual(look(other, IN), 0)
            listener = self.listener(1)
            self.assertEqual(look(listener), 0)
            client = self.open(socket.SOCK_STREAM)
            client.setblocking(False)
            with self.assertRaises(BlockingIOError):
                client.connect(service(1))
            self.assertEqual(look(client), 0)
            self.assertEqual(look(listener), IN)
            server = listener.accept()[0]
            self.assertEqual(look(listener), 0)
            self.assertEqual(look(client), OUT)
            server.close()
            for wanted in (IN | OUT, OUT, 0, IN | RDHUP):
                self.assertEqual(look(client, wanted) | IN, IN | HUP, wanted)
            listener.close()

    def test_a_wait_ends_when_something_comes(self):
        one, other = self.pair(socket.SOCK_STREAM)
        for look in (lambda: self.polled(other, IN, 5000), lambda: self.epolled(other, IN, 5),
                     lambda: len(select.select([other], [], [], 5)[0])):
            timer = threading.Timer(0.05, one.send, [b"x"])
            timer.start()
            self.assertEqual(look(), IN)
            other.recv(10)
            self.assertEqual(select.select([other], [], [], 0.02), ([], [], []))
        timer = threading.Timer(0.05, one.close)
        timer.start()
        self.assertEqual(self.polled(other, 0, 5000), HUP)

    def test_a_full_window_takes_writability_away_until_it_is_read(self):
        one, other = self.pair(socket.SOCK_STREAM)
        one.setblocking(False)
        with select.epoll() as edges, select.epoll() as levels:
            edges.register(one, OUT | select.EPOLLET)
            levels.register(one, OUT)
            self.assertEqual(edges.poll(0), [(one.fileno(), OUT)])
            self.assertEqual(edges.poll(0), [])
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += one.send(bytes(60000))
            self.assertEqual(levels.poll(0.02), [])
            self.assertEqual(edges.poll(0), [])
            while sent:
                sent -= len(other.recv(sent))
            self.assertEqual(edges.poll(5), [(one.fileno(), OUT)])
            self.assertEqual(levels.poll(5), [(one.fileno(), OUT)])

    def test_buffers_set_by_force_are_those_of_the_socket(self):
        sndbufforce, rcvbufforce = 32, 33
        one, other = self.pair(socket.SOCK_STREAM)
        other.setsockopt(socket.SOL_SOCKET, rcvbufforce, 1 << 22)
        self.assertEqual(other.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), 1 << 23)
        one.setsockopt(socket.SOL_SOCKET, sndbufforce, 1 << 22)
        self.assertEqual(one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), 1 << 23)
        self.assertEqual(self.polled(one), OUT)
        one.setblocking(False)
        with self.assertRaises(BlockingIOError):
            while True:
                one.send(bytes(60000))
        self.assertEqual(self.polled(one), 0)

    def test_each_message_is_an_edge(self):
        one, other = self.pair(socket.SOCK_RDM)
        with select.epoll() as poll:
            poll.register(other, IN | select.EPOLLET)
            poll.poll(0)
            for _ in range(400):  # more than the descriptor has room for bytes
                one.send(b"x")
                self.assertEqual(poll.poll(5), [(other.fileno(), IN)])
            for _ in range(400):
                other.recv(1)
            self.assertEqual(poll.poll(0.02), [])

    def test_the_end_of_a_connection_is_an_edge(self):
        for wanted in (IN, OUT, 0):
            one, other = self.pair(socket.SOCK_SEQPACKET)
            with select.epoll() as poll:
                poll.register(other, wanted | select.EPOLLET)
                poll.poll(0)
                one.close()
                self.assertEqual(poll.poll(5), [(other.fileno(), wanted & IN | HUP)])

    def test_one_shot_registrations_and_nested_sets_see_everything(self):
        one, other = self.pair(socket.SOCK_STREAM)
        with select.epoll() as inner, select.epoll() as outer:
            inner.register(other, IN | select.EPOLLONESHOT)
            outer.register(inner, IN)
            for _ in range(3):
                self.assertEqual(inner.poll(0.01), [])
                one.send(b"x")
                self.assertEqual(outer.poll(5), [(inner.fileno(), IN)])
                self.assertEqual(inner.poll(5), [(other.fileno(), IN)])
                self.assertEqual(inner.poll(0), [])
                other.recv(1)
                inner.modify(other, IN | select.EPOLLONESHOT)
            inner.unregister(other)
            one.send(b"x")
            self.assertEqual(inner.poll(0.02), [])

    def test_sets_mix_with_other_files(self):
        one, other = self.pair(socket.SOCK_RDM)
        reader, writer = os.pipe()
        with open(reader, "rb"), open(writer, "wb"), select.epoll() as poll:
            for fd in (other.fileno(), reader):
                poll.register(fd, IN)
            os.write(writer, b"x")
            self.assertEqual(poll.poll(5), [(reader, IN)])
            one.send(b"x")
            self.assertEqual(sorted(poll.poll(5)), sorted([(reader, IN), (other.fileno(), IN)]))
            self.assertEqual(select.select([reader, other], [one], [], 5), ([reader, other], [one], []))

    def test_a_refused_connect_is_told_as_an_error(self):
        bound = self.open(socket.SOCK_STREAM)
        bound.bind((socket.TIPC_ADDR_NAME, SERVICE, 2, 2, socket.TIPC_CLUSTER_SCOPE))
        client = self.open(socket.SOCK_STREAM)
        client.setblocking(False)
        with select.epoll() as poll:
            poll.register(client, OUT | select.EPOLLET)
            poll.poll(0)
            self.assertEqual(client.connect_ex(service(2)), errno.EINPROGRESS)
            self.assertEqual(poll.poll(5), [(client.fileno(), HUP)])
        self.assertEqual(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNREFUSED)

    def test_edge_triggered_threads_share_the_work(self):
        listener = self.listener(3)
        listener.setblocking(False)
        done = threading.Event()
        with select.epoll() as poll:
            poll.register(listener, IN | select.EPOLLET)
            ends = {}

            def work():
                while not done.is_set():
                    for fd, _ in poll.poll(0.05):
                        with contextlib.suppress(BlockingIOError):
                            while fd == listener.fileno():
                                end = listener.accept()[0]
                                end.setblocking(False)
                                ends[end.fileno()] = end
                                poll.register(end, IN | select.EPOLLET | select.EPOLLONESHOT)
                            end = ends[fd]
                            while data := end.recv(100):
                                end.sendall(data)
                        if fd != listener.fileno():
                            with contextlib.suppress(OSError):
                                poll.modify(fd, IN | select.EPOLLET | select.EPOLLONESHOT)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            try:
                clients = [self.open(socket.SOCK_STREAM) for _ in range(8)]
                for client in clients:
                    client.settimeout(10)
                    client.connect(service(3))
                for number in range(20):
                    for client in clients:
                        client.sendall(b"%3d" % number)
                    for client in clients:
                        self.assertEqual(client.recv(3, socket.MSG_WAITALL), b"%3d" % number)
            finally:
                done.set()
                for thread in threads:
                    thread.join()
                for end in ends.values():
                    end.close()


class CallsTest(ProgramTest):
    def test_signals_and_time_limits_end_a_wait(self):
        class Interrupted(Exception):
            pass

        def handler(*_):
            raise Interrupted

        end = self.open(socket.SOCK_RDM)
        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with self.assertRaises(Interrupted):
                end.recv(1)
        finally:
            signal.signal(signal.SIGALRM, before)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 0, 50_000))
        with self.assertRaises(BlockingIOError):
            end.recv(1)
        end.settimeout(0.05)
        with self.assertRaises(TimeoutError):
            end.recv(1)

    def test_a_time_limit_of_calls_on_several_may_be_any_that_the_kernel_takes(self):
        class Poll(ctypes.Structure):
            _fields_ = [("fd", ctypes.c_int), ("asked", ctypes.c_short), ("told", ctypes.c_short)]

        one, other = self.pair(socket.SOCK_RDM)
        libc = ctypes.CDLL(None, use_errno=True)
        room = ctypes.create_string_buffer(1)
        parts = (ctypes.c_size_t * 2)(ctypes.addressof(room), 1)
        message = (ctypes.c_size_t * 8)(0, 0, ctypes.addressof(parts), 1)  # a struct mmsghdr
        for seconds, nanoseconds, error in ((2**63 - 1, 0, 0), (2**63 - 1, 10**9 - 1, 0), (0, 0, 0), (-1, 0, errno.EINVAL),
                                            (0, -1, errno.EINVAL), (1, 10**9, errno.EINVAL), (2**63 - 1, 10**9, errno.EINVAL)):
            with self.subTest(seconds=seconds, nanoseconds=nanoseconds):
                limit = (ctypes.c_int64 * 2)(seconds, nanoseconds)
                other.send(bytes(1))
                entry = Poll(one.fileno(), select.POLLIN, 0)
                for result in (libc.ppoll(ctypes.byref(entry), 1, limit, None),
                               libc.recvmmsg(one.fileno(), message, 1, 0, limit)):
                    self.assertEqual((result, error and ctypes.get_errno()), (-1, error) if error else (1, 0))
                if error:
                    one.recv(1)

    def test_messages_are_scattered_gathered_and_peeked(self):
        one, other = self.pair(socket.SOCK_SEQPACKET)
        one.sendmsg([b"ab", b"", b"cde"])
        self.assertEqual(other.recv(3, socket.MSG_PEEK), b"abc")
        first, second = bytearray(2), bytearray(8)
        length, _, flags, _ = other.recvmsg_into([first, second])
        self.assertEqual((length, bytes(first), bytes(second[:3]), flags), (5, b"ab", b"cde", 0))
        self.assertEqual(os.writev(one.fileno(), [b"x", b"yz"]), 3)
        self.assertEqual(os.readv(other.fileno(), [first, second]), 3)
        self.assertEqual(bytes(first) + bytes(second[:1]), b"xyz")

    def test_a_file_is_sent_though_not_by_the_kernel(self):
        one, other = self.pair(socket.SOCK_STREAM)
        with open(__file__, "rb") as source:
            self.assertEqual(one.sendfile(source, 0, 2000), 2000)
            source.seek(0)
            self.assertEqual(other.recv(2000, socket.MSG_WAITALL), source.read(2000))

    def test_copies_of_a_descriptor_are_one_socket(self):
        one, other = self.pair(socket.SOCK_STREAM)
        copy = os.dup2(other.fileno(), 77)
        other.close()
        os.write(copy, b"copy")
        self.assertEqual(one.recv(10), b"copy")
        os.set_blocking(copy, False)
        with self.assertRaises(BlockingIOError):
            os.read(copy, 1)
        os.close(copy)
        with self.assertRaises(ConnectionResetError):
            one.recv(1)

    def test_descriptors_below_are_closed_and_the_library_goes_on(self):
        one, other = self.pair(socket.SOCK_RDM)
        low, high = sorted((one.fileno(), other.fileno()))
        spare = os.dup(high)
        os.closerange(spare, 5000)
        one.send(b"x")
        self.assertEqual(other.recv(1), b"x")
        self.assertLess(self.open(socket.SOCK_RDM).fileno(), 100)

    def test_the_wrong_family_type_and_calls_are_refused(self):
        with self.assertRaises(OSError) as error:
            socket.socket(socket.AF_TIPC, socket.SOCK_RAW)
        self.assertEqual(error.exception.errno, errno.EPROTOTYPE)
        end = self.open(socket.SOCK_RDM)
        for call, number in ((lambda: os.lseek(end.fileno(), 0, 0), errno.ESPIPE),
                             (lambda: end.accept(), errno.EOPNOTSUPP),
                             (lambda: end.sendto(b"x", service(9)), errno.EHOSTUNREACH),
                             (lambda: end.getpeername(), errno.ENOTCONN)):
            with self.assertRaises(OSError) as error:
                call()
            self.assertEqual(error.exception.errno, number)

    def test_100_threads_open_and_close(self):
        self.open(socket.SOCK_RDM)  # the first one attaches the process, for good
        before, end, failures = len(os.listdir("/proc/self/fd")), time.monotonic() + SECONDS, []

        def work(number):
            try:
                while time.monotonic() < end:
                    kind = TYPES[number % 4]
                    one, other = socket.socketpair(socket.AF_TIPC, kind)
                    one.send(b"x" * 100)
                    data = other.recv(200)
                    one.close()
                    other.close()
                    assert data == b"x" * 100, data
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class ProcessesTest(ProgramTest):
    def test_a_server_forks_for_each_connection(self):
        listener = self.listener(10)
        client = self.open(socket.SOCK_STREAM)
        thread = threading.Thread(target=lambda: (client.connect(service(10)), client.sendall(b"hello")))
        thread.start()
        server = listener.accept()[0]

        def serve():
            listener.close()
            server.sendall(server.recv(5, socket.MSG_WAITALL).upper())
            server.close()

        pid = child(serve)
        server.close()
        thread.join()
        self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"HELLO")
        self.waited(pid)
        with self.assertRaises(ConnectionResetError):
            client.recv(1)

    def test_each_connection_is_accepted_by_one_of_several_processes(self):
        listener = self.listener(11)

        def serve():
            for _ in range(5):
                end = listener.accept()[0]
                end.sendall(b"%d" % os.getpid())
                end.close()

        pids = [child(serve) for _ in range(3)]
        listener.close()
        served = []
        for _ in range(15):
            client = self.open(socket.SOCK_STREAM)
            client.connect(service(11))
            served.append(int(client.recv(20)))
        for pid in pids:
            self.waited(pid)
        self.assertEqual(sorted(served), sorted(pids * 5))
        with self.assertRaises(OSError) as error:
            self.open(socket.SOCK_STREAM).connect(service(11))
        self.assertEqual(error.exception.errno, errno.EHOSTUNREACH)

    def test_a_stream_read_in_part_goes_on_in_the_child(self):
        one, other = self.pair(socket.SOCK_STREAM)
        one.sendall(b"0123456789")
        self.assertEqual(other.recv(4), b"0123")

        def read():
            assert other.recv(3) == b"456"

        self.waited(child(read))
        self.assertEqual(other.recv(10), b"789")

    def test_flags_and_time_limits_are_those_of_all_who_share(self):
        one, other = self.pair(socket.SOCK_RDM)
        limit = struct.pack("qq", 0, 50_000)
        self.waited(child(lambda: other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)))
        with self.assertRaises(BlockingIOError):
            other.recv(1)
        self.waited(child(lambda: os.set_blocking(one.fileno(), False)))
        with self.assertRaises(BlockingIOError):
            one.recv(1)

    def test_a_program_uses_the_socket_it_inherits(self):
        for inherit in (subprocess.run, self.fork_and_exec):
            one, other = self.pair(socket.SOCK_STREAM)
            one.sendall(b"question, rest")
            self.assertEqual(other.recv(8), b"question")
            other.set_inheritable(True)
            text = (f"import socket; s = socket.socket(fileno={other.fileno()});"
                    "assert s.family == socket.AF_TIPC; assert s.recv(100) == b', rest'; s.sendall(b'answer')")
            inherit([sys.executable, "-c", text], close_fds=False)
            other.close()
            self.assertEqual(one.recv(100), b"answer")
            with self.assertRaises(ConnectionResetError):
                one.recv(1)

    def test_a_program_has_a_socket_as_its_standard_input_and_output(self):
        words = ["/bin/sh", "-c", "read word; echo got $word"]
        for inherit in (self.run_with, self.spawn_with):
            one, other = self.pair(socket.SOCK_STREAM)
            one.sendall(b"one\nrest")
            inherit(words, other)  # which is close-on-exec, and stays open here
            self.assertEqual(one.recv(100), b"got one\n")
            self.assertEqual(other.recv(100), b"rest")

    def run_with(self, words, end):
        subprocess.run(words, stdin=end, stdout=end, timeout=20)

    def spawn_with(self, words, end):
        copies = [(os.POSIX_SPAWN_DUP2, end.fileno(), to) for to in (0, 1)]
        self.waited(os.posix_spawn(words[0], words, os.environ, file_actions=copies))

    def fork_and_exec(self, words, close_fds):
        self.waited(child(lambda: os.execv(words[0], words)))

    def test_a_descriptor_is_passed_to_another_process(self):
        here, there = socket.socketpair()
        one, other = self.pair(socket.SOCK_SEQPACKET)

        def receive():
            one.close()
            other.close()
            _, fds, _, _ = socket.recv_fds(there, 10, 1)
            end = socket.socket(fileno=fds[0])
            end.send(end.recv(10).upper())

        pid = child(receive)
        socket.send_fds(here, [b"x"], [other.fileno()])
        other.close()
        one.send(b"passed")
        self.assertEqual(one.recv(10), b"PASSED")
        self.waited(pid)
        here.close()
        there.close()

    def test_a_child_keeps_a_socket_alive_whose_parent_closed_it(self):
        server = self.open(socket.SOCK_RDM)
        server.bind((socket.TIPC_ADDR_NAME, SERVICE, 12, 12, socket.TIPC_CLUSTER_SCOPE))
        reader, writer = os.pipe()

        def serve():
            os.write(writer, server.recv(10))

        pid = child(serve)
        server.close()
        client = self.open(socket.SOCK_RDM)
        client.sendto(b"kept", service(12))
        self.assertEqual(os.read(reader, 10), b"kept")
        self.waited(pid)
        time.sleep(0.05)
        with self.assertRaises(OSError):
            client.sendto(b"gone", service(12))
        os.close(reader)
        os.close(writer)

    @unittest.skipIf(os.geteuid(), "only the superuser may become another one")
    def test_a_child_that_gives_up_its_rights_keeps_its_sockets(self):
        nobody = 65534
        for give_up in (lambda: os.setuid(nobody), lambda: os.setresuid(nobody, nobody, nobody), lambda: os.chroot("/proc")):
            one, other = self.pair(socket.SOCK_STREAM)

            def serve():
                give_up()
                other.sendall(other.recv(5, socket.MSG_WAITALL).upper())

            one.sendall(b"hello")
            self.waited(child(serve))
            self.assertEqual(one.recv(5, socket.MSG_WAITALL), b"HELLO")

    def test_a_killed_process_leaves_no_name(self):
        ready, tell = os.pipe()

        def serve():
            server = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)
            server.bind((socket.TIPC_ADDR_NAME, SERVICE, 13, 13, socket.TIPC_CLUSTER_SCOPE))
            os.write(tell, b"x")
            time.sleep(60)

        client = self.open(socket.SOCK_RDM)
        for _ in range(10):
            pid = child(serve)
            os.read(ready, 1)
            client.sendto(b"x", service(13))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            time.sleep(0.01)
            with self.assertRaises(OSError):
                client.sendto(b"x", service(13))
        os.close(ready)
        os.close(tell)


if __name__ == "__main__":
    unittest.main(verbosity=int(os.environ.get("VERBOSITY", "1")))
