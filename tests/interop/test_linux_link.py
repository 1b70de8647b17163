"""Links with a real Linux node: coming up, going down, coming back, staying away."""
import time

import lab
import wire
from cluster import LINK_UP_S, LinuxTest
from linux_node import LinuxNode

AT_ONCE_MS = 100


def milliseconds(from_ns, to_ns):
    return (to_ns - from_ns) / 1e6


class LinuxLinkTest(LinuxTest):
    def test_link_is_up_within_3_s_of_starting_the_daemon(self):
        beta = self.enter(self.segment.daemon("beta"))
        started = beta.start()
        lab.until(lambda: beta.is_linked_to("linux"), LINK_UP_S, "beta linked to linux")
        self.assertLessEqual(time.monotonic() - started, LINK_UP_S)
        self.await_link(beta, self.linux)

    def test_link_is_up_within_3_s_of_enabling_the_bearer_on_linux(self):
        self.linux.disable()
        lab.until(lambda: not self.alpha.is_linked_to("linux"), 1, "the link's end")
        source = self.linux.mac()
        with self.switch.capture("linux") as capture:
            self.linux.enable()
            first = capture.wait_for(lambda frame: frame.source == source, 5)
            lab.until(lambda: self.alpha.is_linked_to("linux"), LINK_UP_S, "alpha linked to linux")
            self.assertLessEqual(milliseconds(first.at_ns, time.clock_gettime_ns(time.CLOCK_REALTIME)), LINK_UP_S * 1000)

    def test_linux_leaving_is_seen_at_once(self):
        with self.switch.capture("linux") as capture:
            linux = self.linux.address()
            self.linux.disable()
            self.addCleanup(self.await_link, self.alpha, self.linux, 10)
            self.addCleanup(self.linux.enable)
            lab.until(lambda: not self.alpha.is_linked_to("linux"), 1, "alpha sees linux leave")
            reset = capture.wait_for(lambda frame: frame.is_message(wire.LINK_PROTOCOL, wire.RESET_MSG, linux), 1)
            self.assertIsNotNone(reset)

    def test_orderly_stop_is_told_to_linux_at_once(self):
        beta = self.started("beta")
        self.await_link(beta, self.linux)
        address = beta.address()
        with self.switch.capture("beta") as capture:
            at_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
            beta.stop()
            reset = capture.wait_for(lambda frame: frame.is_message(wire.LINK_PROTOCOL, wire.RESET_MSG, address)
                                     and frame.peer_stopping, 1, after_ns=at_ns)
        self.assertIsNotNone(reset, "no RESET with peer_stopping")
        self.assertLessEqual(milliseconds(at_ns, reset.at_ns), AT_ONCE_MS)
        lab.until(lambda: not self.linux.is_linked_to("beta"), 1, "linux sees beta leave")

    def test_node_restarted_with_the_same_identity_comes_back(self):
        beta = self.started("beta")
        self.await_link(beta, self.linux)
        beta.stop()
        beta.start()
        self.await_link(beta, self.linux, timeout_s=5)
        self.await_equal_tables(beta, self.linux)

    def test_node_killed_and_restarted_at_once_comes_back(self):
        beta = self.started("beta")
        self.await_link(beta, self.linux)
        beta.kill()
        beta.start()
        self.await_link(beta, self.linux, timeout_s=5)
        self.await_equal_tables(beta, self.linux)

    def test_third_node_joins_and_all_see_one_table(self):
        server = self.drive(self.alpha).open()
        server.bind(30000, 1, 9)
        on_linux = self.drive(self.linux).open()
        on_linux.bind(30001, 5)
        beta = self.started("beta")
        on_beta = self.drive(beta).open()
        on_beta.bind(30002, 7, 8)
        self.await_link(beta, self.linux)
        self.await_link(beta, self.alpha)
        table, nodes = self.await_equal_tables(self.alpha, beta, self.linux)
        self.assertIn((30000, 1, 9, "alpha"), table)
        self.assertIn((30001, 5, 5, "linux"), table)
        self.assertIn((30002, 7, 8, "beta"), table)
        self.assertEqual(nodes, {"alpha", "beta", "linux"})

    def test_linux_node_of_another_cluster_is_ignored_and_harms_nothing(self):
        with self.undisturbed("alpha", self.alpha, self.linux):
            other = LinuxNode(self.segment.guest, "stranger", "eth1", cluster_id=4712, namespace="stranger")
            self.addCleanup(self.segment.guest.exec, "ip netns del stranger")
            other.configure()
            other.enable()
            with self.switch.capture("other") as capture:
                discovery = capture.wait_for(lambda frame: frame.is_tipc and frame.user == wire.LINK_CONFIG, 5)
                self.assertIsNotNone(discovery, "the stranger sent nothing")
                time.sleep(2.5)
            self.assertFalse(self.alpha.is_linked_to("stranger"))
            self.assertNotIn("stranger", self.alpha.nodes_known())
            self.assertEqual(other.links(), {})
        self.assertTrue(self.alpha.is_linked_to("linux"))
