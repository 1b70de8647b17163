"""Connections that several programs of an xtipc node use, one of which is killed."""
import errno
import pathlib
import tempfile
import zlib

import drive
import lab
from cluster import SegmentTest

SIZE = 3000


class SharingTest(SegmentTest):
    def test_a_killed_holder_of_a_shared_connection_leaves_it_to_the_other(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        with tempfile.TemporaryDirectory() as directory:
            for kind in ("seqpacket", "stream"):
                with self.subTest(kind):
                    self.kill_a_holder(beta, kind, pathlib.Path(directory) / kind)

    def kill_a_holder(self, beta, kind, path):
        client, first, second = self.drive(beta), self.drive(self.alpha), self.drive(self.alpha)
        listener = first.listen(kind)
        client.start_connect(kind, listener.address)
        server, connection = listener.accept(), client.connected()
        for seed in range(2):
            connection.write(seed, SIZE)
        self.assert_read(server, 0)
        second.request("adopt", path)
        lab.until(path.exists, 5, "somebody to pass the connection to")
        server.call("share", path)
        other = second.end(second.answer())
        self.assertEqual(other.name, server.name)
        self.assert_read(server, 1)
        # It waits for a message when it is killed.
        server.request("read", SIZE, 60_000)
        self.assertIsNone(other.read(timeout_s=0.2))
        first.kill()
        for seed in range(2, 8):
            connection.write(seed, SIZE)
        for seed in range(2, 8):
            self.assert_read(other, seed)
        other.write(9, SIZE)
        self.assert_read(connection, 9)
        second.kill()
        with self.assertRaises(lab.Failed) as reset:
            connection.read()
        self.assertEqual(reset.exception.errno, errno.ECONNRESET)

    def assert_read(self, end, seed):
        self.assertEqual(end.read(SIZE), (SIZE, zlib.crc32(drive.pattern(seed, SIZE))))
