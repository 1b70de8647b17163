"""Many sockets on one daemon."""
import time

import lab
from cluster import SegmentTest
from test_xtipc_pair import resident_kib

SOCKETS = 10_000
KIB_EACH_MAX = 8


class XtipcSizesTest(SegmentTest):
    def test_ten_thousand_idle_sockets_cost_little_and_go_quickly(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        driver = self.drive(beta)
        sender = self.drive(self.alpha).open()
        driver.open()
        processes = beta.process.pid, driver.pid
        before = [resident_kib(pid) for pid in processes]
        began = time.monotonic()
        sockets = [driver.open() for _ in range(SOCKETS)]
        opened = time.monotonic() - began
        grown = [resident_kib(pid) - kib for pid, kib in zip(processes, before)]
        print(f"{SOCKETS} sockets: daemon {grown[0] / SOCKETS:.2f} KiB each, application {grown[1] / SOCKETS:.2f} KiB"
              f" each, {opened / SOCKETS * 1e6:.0f} us to open one")
        self.assertLess(sum(grown) / SOCKETS, KIB_EACH_MAX)
        # Also the first one, and that of the topology service.
        self.assertEqual(len(beta.tool_json("socket", "list")), SOCKETS + 2)
        for seed, socket in enumerate((sockets[0], sockets[SOCKETS // 2], sockets[-1])):
            sender.send(socket.address, seed, 100)
            self.assertEqual(socket.recv().size, 100)
        began = time.monotonic()
        for socket in sockets[::2]:
            socket.call("close")
        closed = time.monotonic() - began
        with self.without_resets(self.alpha, beta):
            began = time.monotonic()
            driver.kill()
            lab.until(lambda: len(beta.tool_json("socket", "list")) == 1, 5, "the sockets of a killed process gone")
            print(f"{closed / len(sockets[::2]) * 1e6:.0f} us to close one,"
                  f" {SOCKETS // 2} of a killed process gone within {time.monotonic() - began:.2f} s")
