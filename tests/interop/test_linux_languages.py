"""Hello world of each interpreted language with a Linux node: its half is the standard library of Python on the kernel's sockets."""
import subprocess

import lab
from cluster import LinuxTest
from test_languages import INTERPRETED, SOCKET, SOURCES, command_of, environment

HELLO_OF_LINUX = "hello from Python"


class LinuxLanguagesTest(LinuxTest):
    def start(self, command, **options):
        process = subprocess.Popen([*map(str, command)], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def on_linux(self, role):
        program = (SOURCES / "python/examples/standard.py").read_text()
        return self.start([lab.GUEST, "exec", self.linux.guest.name, "--", *self.linux.prefix, "python3", "-ES", "-c", program, role])

    def here(self, language, role):
        return self.start([*command_of(language, "hello"), role], env=environment(self.alpha))

    def told(self, process):
        output, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, output)
        return output

    def test_programs_greet_linux_and_are_greeted(self):
        for language in INTERPRETED:
            greeting = f"hello from {language}"
            with self.subTest(language=language):
                server, client = self.on_linux("server"), self.here(language, "client")
                self.assertEqual(self.told(client), f"{HELLO_OF_LINUX}\n")
                self.assertRegex(self.told(server), f"^{greeting}, from {SOCKET}\r?\n$")
                server, client = self.here(language, "server"), self.on_linux("client")
                self.assertRegex(self.told(client), f"^{greeting}\r?\n$")
                self.assertRegex(self.told(server), f"^{HELLO_OF_LINUX}, from {SOCKET}\n$")
