"""Overlapping rings of xtipc and Linux nodes, the threshold lowered so that three nodes are enough."""
import time

import lab
from cluster import LinuxTest


class LinuxMonitorTest(LinuxTest):
    def test_linux_takes_the_domain_records_of_a_ring_and_is_not_disturbed(self):
        beta = self.started("beta", "--supervision", "ring")
        nodes = self.alpha, beta, self.linux
        self.await_link(beta, self.linux)
        self.await_link(beta, self.alpha)
        for node in nodes:
            node.tool("link", "monitor", "set", "threshold", "1")
            self.addCleanup(node.tool, "link", "monitor", "set", "threshold", "32")
        with self.without_resets(*nodes):
            for node in nodes:
                lab.until(lambda: self.is_settled(node), 5, f"{node.identity} has the records of the others")
            time.sleep(3)
        self.assertIn("overlapping-ring", beta.tool("link", "monitor", "summary"))
        for node in nodes:
            self.assertTrue(self.is_settled(node), node.tool("link", "monitor", "list"))

    def is_settled(self, node):
        """It has a record of each other node, with all members where it has them, too. Where nodes of earlier tests are still
        known these may stand between, and members are not where the record has them."""
        rows = node.tool_json("link", "monitor", "list")[0]
        ring = next(row for row in rows.values() if isinstance(row, list))
        own, *others = (row for row in ring if row["status"] == "up")
        alone = len(ring) == 3

        def is_whole(row):
            applied, elsewhere = row.get("applied_node_status", []), row.get("[non_applied_node:status]", [])
            states = applied + [entry.rpartition(":")[2] for entry in elsewhere]
            return (applied == ["U"] and not elsewhere) if alone else states and set(states) == {"U"}
        return len(others) == 2 and all(map(is_whole, others))
