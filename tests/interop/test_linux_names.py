"""The binding table shared with a real Linux node."""
import statistics
import time

import lab
import wire
from cluster import LinuxTest

WITHDRAWN_MS = 10
ROUNDS = 5


class LinuxNamesTest(LinuxTest):
    def test_both_sides_list_the_same_cluster_bindings(self):
        on_xtipc, on_linux = self.drive(self.alpha), self.drive(self.linux)
        sockets = [on_xtipc.open(), on_xtipc.open(), on_linux.open()]
        sockets[0].bind(32000, 0, 99)
        sockets[0].bind(32000, 200, 299)
        sockets[1].bind(32000, 0, 99)
        sockets[1].bind(32001, 4000000000)
        sockets[2].bind(32000, 50, 60)
        sockets[2].bind(32002, 1, 1)
        table, _ = self.await_equal_tables(self.alpha, self.linux)
        self.assertEqual([entry for entry in table if 32000 <= entry[0] <= 32002], [
            (32000, 0, 99, "alpha"), (32000, 0, 99, "alpha"), (32000, 50, 60, "linux"), (32000, 200, 299, "alpha"),
            (32001, 4000000000, 4000000000, "alpha"), (32002, 1, 1, "linux")])
        sockets[0].unbind(32000, 200, 299)
        sockets[2].unbind(32002, 1, 1)
        table, _ = self.await_equal_tables(self.alpha, self.linux)
        self.assertNotIn((32000, 200, 299, "alpha"), table)
        self.assertNotIn((32002, 1, 1, "linux"), table)

    def test_bindings_made_before_the_link_are_told_when_it_comes_up(self):
        beta = self.started("beta")
        on_beta = self.drive(beta).open()
        for instance in range(100):
            on_beta.bind(32010, instance)
        self.await_link(beta, self.linux)
        table, _ = self.await_equal_tables(beta, self.linux)
        self.assertEqual(len([entry for entry in table if entry[0] == 32010]), 100)

    def test_linux_answers_by_the_name_that_was_bound_just_before_the_question(self):
        count = 100_000 if self.segment.full else 2_000
        client, server = self.drive(self.alpha).open(), self.drive(self.linux).open()
        server.start_answer(count)
        answered = client.ask(server.address, 32050, count, timeout_s=count / 20)
        print(f"{answered} of {count} answers of Linux by service name")
        self.assertEqual((answered, server.answered()), (count, (count, 0)))
        self.await_equal_tables(self.alpha, self.linux)

    def test_node_scope_bindings_stay_on_their_node(self):
        on_xtipc, on_linux = self.drive(self.alpha).open(), self.drive(self.linux).open()
        on_xtipc.bind(32020, 1, scope="node")
        on_linux.bind(32020, 2, scope="node")
        on_xtipc.bind(32020, 3)
        on_linux.bind(32020, 4)
        self.await_binding(self.linux, 32020, 3, self.alpha)
        self.await_binding(self.alpha, 32020, 4, self.linux)
        for node, foreign in ((self.alpha, 2), (self.linux, 1)):
            entries = node.tool_json("nametable", "show")
            self.assertNotIn((32020, foreign), [(entry["type"], entry["lower"]) for entry in entries])

    def test_killed_application_is_withdrawn_within_10_ms(self):
        delays_ms = []
        node = self.alpha.address()
        for instance in range(ROUNDS):
            driver = self.drive(self.alpha)
            driver.open().bind(32030, instance)
            self.await_binding(self.linux, 32030, instance, self.alpha)
            with self.switch.capture("alpha") as capture:
                killed_ns = driver.kill()
                frame = capture.wait_for(
                    lambda frame: frame.is_message(wire.NAME_DISTRIBUTOR, wire.WITHDRAWAL, node), 1, after_ns=killed_ns)
            self.assertIsNotNone(frame, "no WITHDRAWAL on the wire within 1 s")
            delays_ms.append((frame.at_ns - killed_ns) / 1e6)
            lab.until(lambda: not any(entry[0] == 32030 for entry in self.linux.table()), 1, "the withdrawal on Linux")
        # The machine is shared, so one round may be late; the product is not late as a rule.
        self.assertLessEqual(statistics.median(delays_ms), WITHDRAWN_MS, f"delays in ms: {delays_ms}")

    def test_application_killed_on_linux_is_withdrawn_here(self):
        driver = self.drive(self.linux)
        driver.open().bind(32040, 1)
        self.await_binding(self.alpha, 32040, 1, self.linux)
        linux = self.linux.address()
        with self.switch.capture("linux") as capture:
            driver.request("die")
            frame = capture.wait_for(lambda frame: frame.is_message(wire.NAME_DISTRIBUTOR, wire.WITHDRAWAL, linux), 2)
            self.assertIsNotNone(frame)
            lab.until(lambda: not any(entry[0] == 32040 for entry in self.alpha.table()), 1, "the withdrawal here")
            late_ms = (time.clock_gettime_ns(time.CLOCK_REALTIME) - frame.at_ns) / 1e6
        self.assertLessEqual(late_ms, 200)  # the tool's own start and the polling included
