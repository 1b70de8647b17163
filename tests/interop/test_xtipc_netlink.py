"""Programs that manage TIPC by generic netlink, run by `xtipc run`: the `tipc` tool of iproute2 as it is installed, and others."""
import re
import shutil
import subprocess

import lab
from cluster import PairTest

TIPC = shutil.which("tipc") or "/usr/sbin/tipc"
PYTHON = "/usr/bin/python3"
TYPE = 33100


class XtipcNetlinkTest(PairTest):
    def run_in(self, node, *words):
        """Status, standard output and standard error of a program, run in the node's network namespace."""
        done = subprocess.run(["ip", "netns", "exec", node.namespace.name, *node.run_command(*words)], timeout=20, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return done.returncode, done.stdout, done.stderr

    def tipc(self, *words):
        """The output of the tool on alpha."""
        status, out, err = self.run_in(self.alpha, TIPC, *words)
        self.assertEqual((status, err), (0, ""), words)
        return out

    def refusal(self, *words):
        status, out, err = self.run_in(self.alpha, TIPC, *words)
        self.assertNotEqual(status, 0, out)
        return err

    def test_the_tool_of_linux_shows_what_the_own_one_shows(self):
        program = self.drive(self.alpha)
        server = program.open()
        server.bind(TYPE, 5)
        listener = program.listen("stream")
        self.drive(self.alpha).start_connect("stream", listener.address)
        listener.accept()
        self.await_binding(self.alpha, TYPE, 5, self.alpha)
        link = "alpha:eth0-beta:eth0"
        media = "media", "eth", "device", "eth0"
        for words in (["bearer", "list"], ["media", "list"], ["node", "list"], ["nametable", "show"], ["socket", "list"], ["link", "list"],
                      ["-j", "link", "list"], ["-j", "-p", "nametable", "show"], ["link", "monitor", "summary"],
                      ["link", "monitor", "list"], ["-j", "link", "monitor", "list"], ["link", "monitor", "get", "threshold"],
                      *(["node", "get", what] for what in ("identity", "address", "netid")),
                      *(["link", "get", what, "link", link] for what in ("priority", "tolerance")), ["link", "get", "broadcast"],
                      *(["bearer", "get", what, *media] for what in ("priority", "tolerance", "window")),
                      *(["media", "get", what, "media", "eth"] for what in ("priority", "tolerance", "window"))):
            own = self.own(*words)
            self.assertEqual(self.rows(self.tipc(*words)), self.rows(own), words)
        for words in (["link", "statistics", "show"], ["link", "statistics", "show", "link", "all"],
                      ["-j", "link", "statistics", "show", "link", link]):
            own, other = (re.sub(r"\d+", "N", text) for text in (self.own(*words), self.tipc(*words)))
            self.assertEqual(own, other, words)

    def own(self, *words):
        # The broadcast method is always chosen by itself, and no word of xtipc.
        return "AUTOSELECT ratio:10\n" if words == ("link", "get", "broadcast") else self.alpha.tool(*words)

    @staticmethod
    def rows(text):
        """The topology service has sockets of its own for the tools that ask."""
        return sorted(text.splitlines())

    def test_the_tool_of_linux_changes_what_the_own_one_changes(self):
        self.alpha.namespace.ip("addr", "add", "10.77.0.1/24", "dev", "eth0")
        self.addCleanup(self.alpha.namespace.ip, "addr", "del", "10.77.0.1/24", "dev", "eth0")
        udp = "media", "udp", "name", "UDP1"
        self.tipc("bearer", "enable", "priority", "5", *udp, "localip", "10.77.0.1", "remoteip", "10.77.0.2")
        self.assertEqual(self.tipc("bearer", "list"), "eth:eth0\nudp:UDP1\n")
        self.assertEqual(self.tipc("bearer", "get", "priority", *udp), "5\n")
        self.assertEqual(self.tipc("bearer", "get", *udp, "localip"), "10.77.0.1\n")
        self.tipc("bearer", "add", *udp, "remoteip", "10.77.0.3")
        self.assertEqual(set(self.tipc("bearer", "get", *udp, "remoteip").split()), {"10.77.0.2", "10.77.0.3"})
        self.tipc("bearer", "set", "mtu", "3000", *udp)
        self.assertEqual(self.alpha.tool("bearer", "get", "mtu", *udp), "3000\n")
        self.tipc("bearer", "disable", *udp)
        self.assertEqual(self.tipc("bearer", "list"), "eth:eth0\n")
        self.tipc("bearer", "enable", "priority", "32", *udp, "localip", "10.77.0.1")
        self.assertEqual(self.tipc("bearer", "get", "priority", *udp), "10\n", "the media's")
        self.assertEqual(self.tipc("bearer", "get", *udp, "remoteip"), "228.0.18.103\n")
        self.tipc("bearer", "disable", *udp)
        self.tipc("media", "set", "tolerance", "1400", "media", "udp")
        self.assertEqual(self.alpha.tool("media", "get", "tolerance", "media", "udp"), "1400\n")
        self.tipc("media", "set", "tolerance", "1500", "media", "udp")
        self.tipc("link", "set", "tolerance", "1300", "link", "alpha:eth0-beta:eth0")
        self.assertEqual(self.alpha.tool("link", "get", "tolerance", "link", "alpha:eth0-beta:eth0"), "1300\n")
        self.tipc("link", "set", "tolerance", "1500", "link", "alpha:eth0-beta:eth0")
        self.tipc("link", "monitor", "set", "threshold", "40")
        self.assertEqual(self.tipc("link", "monitor", "get", "threshold"), "40\n")
        self.tipc("link", "monitor", "set", "threshold", "32")

    def test_refusals_say_what_is_wrong_and_what_to_do(self):
        refusal = self.refusal("bearer", "enable", "media", "eth", "device", "nosuch0")
        self.assertIn("kernel answers: No such device", refusal)
        self.assertIn("nosuch0", refusal)
        self.assertIn("kernel answers: Invalid argument", self.refusal("bearer", "disable", "media", "eth", "device", "nosuch0"))
        self.assertIn("xtipcd --identity", self.refusal("node", "set", "identity", "carl"))
        self.assertIn("kernel answers: Operation not supported", self.refusal("peer", "remove", "identity", "beta"))

    def test_a_program_that_speaks_netlink_itself_is_answered(self):
        status, out, err = self.run_in(self.alpha, PYTHON, lab.ROOT / "tests/programs/managed.py")
        self.assertEqual((status, err), (0, ""))
        self.assertIn('"refusal of 99": 95', out)
        self.assertIn('"refusal of 4": 22', out)
