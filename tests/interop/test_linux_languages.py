"""The examples of each language on a Linux node, and with their other half on one. There the functions of the library are made of the sockets
of the kernel (tests/programs/libtipc.c), so the programs at both ends are the same."""
import pathlib
import shutil
import subprocess
import tempfile

import lab
import languages
from cluster import LinuxTest
from languages import COMPILED, INTERPRETED, LANGUAGES, SOCKET, SOURCES, TOLD


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
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, output)
        return output

    def assert_greeted(self, language, server, client):
        greeting = f"hello from {language}"
        self.assertEqual(self.told(client), f"{greeting}\n")
        self.assertRegex(self.told(server), f"^{greeting}, from {SOCKET}\n$")

    def test_programs_greet_those_of_linux_and_are_greeted(self):
        for language in LANGUAGES:
            with self.subTest(language=language):
                # That of Linux first: it takes longer to start.
                server, client = self.on_linux(language, "hello", "server"), self.here(language, "hello", "client")
                self.assert_greeted(language, server, client)
                client, server = self.on_linux(language, "hello", "client"), self.here(language, "hello", "server")
                self.assert_greeted(language, server, client)

    def test_programs_greet_the_standard_module_on_linux_and_are_greeted(self):
        server, client = self.python_on_linux("server"), self.here("Python", "hello", "client")
        self.assert_greeted("Python", server, client)
        client, server = self.python_on_linux("client"), self.here("Python", "hello", "server")
        self.assert_greeted("Python", server, client)

    def test_programs_on_linux_tell_what_they_do_on_a_node(self):
        if not self.segment.full:
            self.skipTest("12 programs more on a slow guest: with --full")
        for language in LANGUAGES:
            for example, told in TOLD.items():
                with self.subTest(language=language, example=example):
                    self.assertRegex(self.told(self.on_linux(language, example)), told)
