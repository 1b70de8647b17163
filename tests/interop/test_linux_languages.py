"""The examples of each language on a Linux node, and with their other half on one. There the functions of the library are made of the sockets
of the kernel (tests/programs/libtipc.c), so the programs at both ends are the same."""
import pathlib
import shutil
import subprocess
import tempfile
import time

import lab
import languages
from cluster import LinuxTest
from languages import COMPILED, INTERPRETED, LANGUAGES, SOCKET, SOURCES, TOLD

HELLO = 18888, 17
START_S = 60


class LinuxLanguagesTest(LinuxTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # The guest sees the file system of this machine, but has a /tmp of its own.
        directory = tempfile.TemporaryDirectory(prefix=f"{lab.PREFIX}-", dir="/var/tmp")
        cls.addClassCleanup(directory.cleanup)
        place = pathlib.Path(directory.name)
        cls.library = languages.libtipc_of_linux(place / "lib")
        for language in INTERPRETED:
            shutil.copytree(SOURCES / language.lower(), place / language.lower())
        cls.place = place
        cls.programs = {}

    def start(self, command, **options):
        process = subprocess.Popen([*map(str, command)], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def example(self, language, name):
        if language in INTERPRETED:
            return languages.interpreted(language, name, self.place)
        program = self.programs.get((language, name)) or COMPILED[language](self.place, name)
        self.programs[language, name] = program
        return [program]

    def on_linux(self, language, name, *words):
        found = languages.places(self.library, self.place)
        return self.start([lab.GUEST, "exec", self.linux.guest.name, "--", *self.linux.prefix, "env",
                           *(f"{variable}={value}" for variable, value in found.items()), *self.example(language, name), *words])

    def here(self, language, name, *words):
        return self.start([*self.example(language, name), *words], env=languages.environment(self.alpha))

    def python_on_linux(self, role):
        """The standard module of Python, without any library."""
        program = (SOURCES / "python/examples/standard.py").read_text()
        return self.start([lab.GUEST, "exec", self.linux.guest.name, "--", *self.linux.prefix, "python3", "-ES", "-c", program, role])

    def told(self, process):
        output, _ = process.communicate(timeout=START_S)
        self.assertEqual(process.returncode, 0, output)
        return output

    def greet(self, language, there):
        """Both halves of hello world, each in each role; `there(role)` starts the one on Linux."""
        greeting = f"hello from {language}"
        heard = f"^{greeting}, from {SOCKET}\n$"
        server = there("server")
        self.await_binding(self.alpha, *HELLO, self.linux, timeout_s=START_S)
        self.assertEqual(self.told(self.here(language, "hello", "client")), f"{greeting}\n")
        self.assertRegex(self.told(server), heard)
        client = there("client")
        self.assertRegex(self.served(language), heard)
        self.assertEqual(self.told(client), f"{greeting}\n")

    def served(self, language):
        """What a server here tells; another one as long as nobody has come, for programs take a while to start on the guest."""
        deadline = time.monotonic() + START_S
        while True:
            server = self.here(language, "hello", "server")
            output, _ = server.communicate(timeout=START_S)
            if not server.returncode or time.monotonic() > deadline:
                return output

    def test_programs_greet_those_of_linux_and_are_greeted(self):
        for language in LANGUAGES:
            with self.subTest(language=language):
                self.greet(language, lambda role: self.on_linux(language, "hello", role))

    def test_programs_greet_the_standard_module_on_linux_and_are_greeted(self):
        self.greet("Python", self.python_on_linux)

    def test_programs_on_linux_tell_what_they_do_on_a_node(self):
        if not self.segment.full:
            self.skipTest("12 programs more on a slow guest: with --full")
        for language in LANGUAGES:
            for example, told in TOLD.items():
                with self.subTest(language=language, example=example):
                    self.assertRegex(self.told(self.on_linux(language, example)), told)
