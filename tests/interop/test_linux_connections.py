"""Connections between a real Linux node and two xtipc nodes, one of which asks Linux and the other is asked."""
import contextlib
import errno
import time
import zlib

import drive
import lab
from cluster import LinuxTest

KINDS = ("stream", "seqpacket")
TYPE = 32000
SIZES = (1, 2, 999, 1000, 1001, 1436, 1437, 1476, 2000, 20000, 65999, 66000)
END = (0, 0)
TIMEOUT_MS = 500
TOLERANCE_S = 1.5
# For the calls around it, on a machine that emulates a guest beside.
SLACK_S = 0.4
ERR_NO_PORT, ERR_CONN_SHUTDOWN = 2, 5
RETURNED_MAX = 1024


def crc(seed, size):
    return zlib.crc32(drive.pattern(seed, size))


class LinuxConnectionsTest(LinuxTest):
    @classmethod
    def setUpClass(cls):
        cls.beta = cls.started_for_all("beta")
        lab.until(lambda: cls.beta.is_linked_to("linux") and cls.segment.linux.is_linked_to("beta"), 10, "beta linked to linux")

    def both_ways(self):
        """Client and server."""
        self.on_linux = on_linux = self.drive(self.linux)
        for way, node in (("xtipc to Linux", self.alpha), ("Linux to xtipc", self.beta)):
            on_xtipc = self.drive(node)
            ends = (node, on_xtipc), (self.linux, on_linux)
            yield way, *(ends if node is self.alpha else ends[::-1])

    def each_way_and_kind(self):
        for way, (_, client), (_, server) in self.both_ways():
            for kind in KINDS:
                yield self.subTest(way, kind=kind), kind, client, server

    def connected(self, kind, client, server, server_kind=None):
        """Both ends of a new connection, made by socket address."""
        listener = server.listen(server_kind or kind)
        client.start_connect(kind, listener.address)
        accepted = listener.accept()
        connection = client.connected()
        listener.call("hangup")
        return connection, accepted

    @contextlib.contextmanager
    def refused(self, number):
        with self.assertRaises(lab.Failed) as refusal:
            yield
        self.assertEqual(errno.errorcode[refusal.exception.errno], errno.errorcode[number])

    def assert_arrives(self, sender, receiver, seed, size):
        self.assertEqual(sender.write(seed, size), size)
        self.assertEqual(receiver.read(), (size, crc(seed, size)))

    def test_both_kinds_connect_by_both_kinds_of_address_and_know_each_other(self):
        for way, (source, client), (target, server) in self.both_ways():
            for number, kind in enumerate(KINDS):
                listener = server.listen(kind, TYPE, number)
                self.await_binding(source, TYPE, number, target)
                for to in (f"service,{TYPE},{number}", listener.address):
                    with self.subTest(way, kind=kind, to=to):
                        client.start_connect(kind, to)
                        accepted, connection = listener.accept(), client.connected()
                        self.assertEqual(accepted.peer, connection.name)
                        self.assertEqual(connection.names(), accepted.names()[::-1])
                        self.assert_arrives(connection, accepted, 1, 100)
                        self.assert_arrives(accepted, connection, 2, 100)
                listener.call("hangup")

    def test_messages_of_all_sizes_arrive_whole(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                connection, accepted = self.connected(kind, client, server)
                sizes = SIZES if kind == "seqpacket" else SIZES[:4]
                for seed, size in enumerate(sizes):
                    self.assert_arrives(connection, accepted, seed, size)
                    self.assert_arrives(accepted, connection, seed + 50, size)

    def test_a_stream_and_a_seqpacket_socket_talk_to_each_other(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                other = KINDS[kind == "stream"]
                connection, accepted = self.connected(kind, client, server, other)
                self.assert_arrives(connection, accepted, 3, 700)
                self.assert_arrives(accepted, connection, 4, 700)

    def test_a_first_message_makes_the_connection(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                listener = server.listen(kind)
                for size in (1, 1400, 5000, 66000):
                    connection = client.imply(kind, listener.address, 7, size)
                    accepted = listener.accept()
                    self.assertEqual(accepted.read(), (size, crc(7, size)))
                    self.assert_arrives(accepted, connection, 8, 200)
                    self.assert_arrives(connection, accepted, 9, 66000 if kind == "seqpacket" else 1000)

    def test_streams_arrive_byte_for_byte(self):
        self.stream(1 << 30 if self.segment.full else 4 << 20, 64000)
        self.stream(64 << 20 if self.segment.full else 1 << 20, 100_000)

    def test_small_pieces_of_a_stream_are_gathered_and_arrive_byte_for_byte(self):
        for nodelay in (0, 1):
            with self.subTest(nodelay=nodelay):
                self.stream(100_000, 50, nodelay)

    def stream(self, size, piece, nodelay=0):
        """Each way, on connections that either has asked for."""
        for way, (_, client), (_, server) in self.both_ways():
            with self.subTest(way, piece=piece):
                began = time.monotonic()
                forth, back = self.connected("stream", client, server), self.connected("stream", client, server)
                (out_client, in_server), (in_client, out_server) = forth, back
                for end in (out_client, out_server):
                    end.call("option", "nodelay", nodelay)
                self.pour(out_client, in_server, size, piece)
                self.pour(out_server, in_client, size, piece)
                seconds = time.monotonic() - began
                if self.segment.full:
                    print(f"  {way}: {size} bytes each way in {seconds:.0f} s, {2 * size / seconds / 1e6:.1f} MB/s")

    def pour(self, sender, receiver, size, piece, pause_us=0, pause_after=1 << 40):
        patience = size // 200_000 + 60
        sender.request("pump", 5, size, piece)
        receiver.request("drain", size, 20_000, pause_us, pause_after)
        sent, got = sender.driver.answer(patience), receiver.driver.answer(patience)
        self.assertEqual((int(got[0]), got[1]), (size, sent[0]))

    def test_a_slow_reader_holds_its_sender_and_loses_nothing(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                connection, accepted = self.connected(kind, client, server)
                for sender, receiver in ((connection, accepted), (accepted, connection)):
                    # The window of 128 blocks is open until 59 more than that are under way.
                    self.assertEqual(int(sender.call("fill", 60000, 300)[0]), 3)
                    for _ in range(3):
                        self.assertEqual(receiver.read(60000), (60000, crc(0, 60000)))
                    self.pour(sender, receiver, 3_000_000, 40_000, pause_us=20_000, pause_after=200_000)

    def test_a_receive_buffer_sets_the_window_of_the_peer(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                connection, accepted = self.connected(kind, client, server)
                accepted.call("option", "buffer", 1 << 18)
                # 64 blocks from the first acknowledgement on; two messages of 59 do not stop the second.
                for _ in range(3):
                    self.assert_arrives(connection, accepted, 0, 60000)
                self.assertEqual(int(connection.call("fill", 60000, 300)[0]), 2)

    def test_200_connections_at_once(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                listener = server.listen(kind)
                listener.request("echo", 200)
                rounds = 20 if self.segment.full else 3
                good = client.call("clients", kind, listener.address, 200, rounds, timeout_s=120)
                self.assertEqual((int(good[0]), int(server.answer(60)[0])), (200 * rounds, 200))

    def test_what_cannot_be_connected_says_why(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                listener = server.listen(kind, TYPE, 9)
                gone = listener.address
                listener.call("hangup")
                with self.refused(errno.ECONNREFUSED):
                    client.connect(kind, gone)
                with self.refused(errno.EHOSTUNREACH):
                    client.connect(kind, f"service,{TYPE},99")
                with self.refused(errno.EHOSTUNREACH):
                    client.connect(kind, "socket,12345,1")
                listener = server.listen(kind)
                began = time.monotonic()
                with self.refused(errno.ETIMEDOUT):
                    client.connect(kind, listener.address, TIMEOUT_MS)
                self.assertAlmostEqual(time.monotonic() - began, TIMEOUT_MS / 1000, delta=0.4)
                self.assertIsNotNone(listener.accept(), "the request waits")

    def test_a_client_tries_again_while_the_listener_is_full(self):
        for way, (_, client), (target, server) in self.both_ways():
            for kind in KINDS if self.segment.full else KINDS[:1]:
                with self.subTest(way, kind=kind):
                    listener = server.listen(kind)
                    listener.call("option", "buffer", 4608)
                    ends = [client.imply(kind, listener.address, seed, 1000) for seed in range(12)]
                    time.sleep(0.3)
                    got = set()
                    for _ in ends:
                        accepted = listener.accept(20)
                        got.add(accepted.read())
                    self.assertEqual(got, {(1000, crc(seed, 1000)) for seed in range(12)})

    def test_an_orderly_end_comes_behind_the_data(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                connection, accepted = self.connected(kind, client, server)
                for one, other in ((connection, accepted), self.connected(kind, client, server)[::-1]):
                    one.write(6, 5000)
                    one.call("shutdown")
                    self.assertEqual(other.read(), (5000, crc(6, 5000)))
                    self.assertEqual(other.read(), END)
                    with self.refused(errno.EPIPE):
                        other.write(0, 10)
                    with self.refused(errno.EPIPE):
                        one.write(0, 10)
                    with self.refused(errno.ENOTCONN):
                        other.names()

    def test_a_close_resets_behind_the_data(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                for turn in (1, -1):
                    one, other = self.connected(kind, client, server)[::turn]
                    one.write(6, 5000)
                    one.call("hangup")
                    self.assertEqual(other.read(), (5000, crc(6, 5000)))
                    for _ in range(2):
                        with self.refused(errno.ECONNRESET):
                            other.read()
                    with self.refused(errno.EPIPE):
                        other.write(0, 10)

    def test_the_end_says_so_to_a_peer_whose_data_was_not_read(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                for ending, outcome in (("shutdown", END), ("hangup", errno.ECONNRESET)):
                    for turn in (1, -1):
                        one, other = self.connected(kind, client, server)[::turn]
                        other.write(1, 3000)
                        other.write(2, 100)
                        time.sleep(0.2)
                        one.call(ending)
                        if other.driver is self.on_linux:
                            code = ERR_CONN_SHUTDOWN if outcome == END else ERR_NO_PORT
                            self.assertEqual(other.ending(), (code, RETURNED_MAX, crc(1, RETURNED_MAX)))
                        elif outcome == END:
                            self.assertEqual(other.read(), END)
                        else:
                            with self.refused(outcome):
                                other.read()

    def test_a_client_whose_listener_closes_is_refused(self):
        for case, kind, client, server in self.each_way_and_kind():
            with case:
                listener = server.listen(kind)
                client.start_connect(kind, listener.address)
                time.sleep(0.3)
                listener.call("hangup")
                with self.refused(errno.ECONNREFUSED):
                    client.connected()

    def test_a_killed_program_resets_its_connections_at_once(self):
        for dying, surviving in ((self.alpha, self.linux), (self.linux, self.alpha)):
            with self.subTest(dying=dying.identity):
                client, server = self.drive(dying), self.drive(surviving)
                ends = [self.connected(kind, client, server)[1] for kind in KINDS]
                ends += [self.connected(kind, server, client)[0] for kind in KINDS]
                ends[0].request("read", 100, 5000)
                time.sleep(0.2)
                began = time.monotonic()
                client.request("die")
                with self.refused(errno.ECONNRESET):
                    server.answer()
                self.assertLess(time.monotonic() - began, 0.5)
                for end in ends:
                    with self.refused(errno.ECONNRESET):
                        end.read()
                    if surviving is self.linux:
                        self.assertEqual(end.ending(), (ERR_NO_PORT, 0, 0))

    def test_connections_end_when_the_node_is_lost_or_restarts(self):
        on_alpha, on_linux = self.drive(self.alpha), self.drive(self.linux)
        ends = [self.connected(kind, on_alpha, on_linux)[0] for kind in KINDS]
        ends += [self.connected(kind, on_linux, on_alpha)[1] for kind in KINDS]
        self.switch.ip("link", "set", "linux", "down")
        began = time.monotonic()
        try:
            for end in ends:
                with self.refused(errno.ECONNRESET):
                    end.read()
            self.assertLess(time.monotonic() - began, TOLERANCE_S + 0.1 + SLACK_S)
        finally:
            self.switch.ip("link", "set", "linux", "up")
        self.await_link(self.alpha, self.linux, timeout_s=10)
        ends = [self.connected(kind, on_alpha, on_linux) for kind in KINDS]
        # The node forgets its links and takes them up again: a restart as its peers see it.
        self.linux.disable()
        self.linux.enable()
        began = time.monotonic()
        for end, _ in ends:
            with self.refused(errno.ECONNRESET):
                end.read()
        self.assertLess(time.monotonic() - began, 1)
        self.await_link(self.alpha, self.linux, timeout_s=10)
