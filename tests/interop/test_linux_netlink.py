"""The generic netlink family of TIPC: messages as those of Linux."""
import json
import pathlib
import subprocess

import lab
from cluster import LinuxTest

PROGRAM = lab.ROOT / "tests/programs/managed.py"
# Linux tells more of these, that the tool does not show: of sockets their type, inode, user, state and counters; the cluster of links.
MORE_OF_LINUX = {"sockets": {5, 6, 7, 8, 9, 10, 11, 12}, "links": {2}}


class LinuxNetlinkTest(LinuxTest):
    def test_messages_have_the_attributes_of_those_of_linux(self):
        # Of a node that has not known any that are gone: Linux has forgotten those.
        own_node = self.started("manager")
        self.await_link(own_node, self.linux)
        text = pathlib.Path(PROGRAM).read_text()
        linux = json.loads(self.linux.exec("python3", "-ES", "-c", text))
        command = own_node.run_command("/usr/bin/python3", PROGRAM)
        own = json.loads(subprocess.run(command, check=True, timeout=20, text=True, stdout=subprocess.PIPE).stdout)
        self.assertEqual(own.keys(), linux.keys())
        for name, kinds in linux.items():
            if name.startswith("refusal"):
                self.assertEqual(own[name], kinds, name)
                continue
            less = MORE_OF_LINUX.get(name, ())
            kinds = [[[top, [entry for entry in held if entry[0] not in less]] for top, held in kind] for kind in kinds]
            for kind in own[name]:
                self.assertIn(kind, kinds, name)
