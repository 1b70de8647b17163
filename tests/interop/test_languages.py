"""The examples of each language: hello world, service tracking, a group. Run by `run.py --languages`; scripts/libxtipc must have been run."""
import pathlib
import re
import subprocess
import tempfile

import lab
from cluster import SegmentTest
from languages import (INTERPRETED, LIBRARY, PYTHON, SOCKET, SOURCES, TOLD, WARNINGS, compiled_c, compiled_d, compiled_go, environment,
                       interpreted, library_flags)


class LanguageTest(SegmentTest):
    """Builds the examples, where that is needed, into a directory of their own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = tempfile.TemporaryDirectory(prefix=f"{lab.PREFIX}-")
        cls.addClassCleanup(directory.cleanup)
        cls.built = pathlib.Path(directory.name)

    def command(self, *words, node=None, timeout_s=60, **others):
        """What a command prints that must succeed."""
        done = subprocess.run(list(map(str, words)), timeout=timeout_s, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=environment(node or self.alpha), **others)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def show_their_work(self, language, example):
        """The examples of a language; `example(name)` is the command of one."""
        self.greet(language, example("hello"))
        for name, told in TOLD.items():
            self.assertRegex(self.command(*example(name)), told)

    def greet(self, language, hello):
        self.greet_each_other((language, hello, self.alpha), (language, hello, self.alpha))

    def greet_across_nodes(self, language, hello):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        self.greet_each_other((language, hello, self.alpha), (language, hello, beta))
        self.greet_each_other((language, hello, beta), (language, hello, self.alpha))

    def greet_each_other(self, server, client):
        """Runs two programs of hello world; each is given as its language, its command and its node."""
        server_language, hello, node = server
        process = subprocess.Popen([*map(str, hello), "server"], text=True, stdout=subprocess.PIPE, env=environment(node))
        try:
            client_language, hello, node = client
            self.assertEqual(self.command(*hello, "client", node=node), f"hello from {server_language}\n")
            told, _ = process.communicate(timeout=20)
        finally:
            process.kill()
        self.assertRegex(told, f"^hello from {client_language}, from {SOCKET}\n$")


class CTest(LanguageTest):
    def compiled(self, name, *options, **others):
        return compiled_c(self.built, name, *options, **others)

    def test_programs_in_c(self):
        self.show_their_work("C", lambda name: [self.compiled(name)])
        self.greet_across_nodes("C", [self.compiled("hello")])

    def test_programs_in_c_with_other_settings_of_the_compiler(self):
        for options in (["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"], ["-D_FILE_OFFSET_BITS=64"], ["-std=c99", "-D_GNU_SOURCE"]):
            with self.subTest(options=options):
                self.show_their_work("C", lambda name: [self.compiled(name, *options)])

    def test_programs_in_c_with_the_archive(self):
        archive = [LIBRARY / "lib/libxtipc.a", "-lgcc_s", "-lm"]
        self.show_their_work("C", lambda name: [self.compiled(name, "-DARCHIVE", libraries=archive)])

    def test_programs_in_c_under_xtipc_run(self):
        self.show_their_work("C", lambda name: self.alpha.run_command(self.compiled(name)))

    def test_messages_that_are_not_copied(self):
        told = "a message of 60000 bytes, not copied\nwritten in place\n"
        program = self.compiled("loan")
        self.assertEqual(self.command(program), told)
        beta = self.started("beta", "--direct-after=1")
        self.assertEqual(self.command(program, beta.runtime / "attach.sock"), told)

    def test_the_header_is_one_of_cxx_too(self):
        program = "#include <xtipc/xtipc.h>\nint main() { return tipc_own_node() == 0; }\n"
        (self.built / "own.cc").write_text(program)
        self.command("c++", *WARNINGS, *library_flags("--cflags"), self.built / "own.cc", "-o", self.built / "own",
                     *library_flags("--libs"))
        self.command(self.built / "own")

    def test_the_library_has_the_functions_of_its_map_and_what_it_stands_before(self):
        def symbols(library):
            told = self.command("nm", "--dynamic", "--defined-only", "--with-symbol-versions", library)
            return {line.split()[2] for line in told.splitlines()}
        functions = re.findall(r"^ *(\w+);$", (SOURCES / "c/xtipc.map").read_text(), re.M)
        versioned = {f"{name}@@XTIPC_1" for name in functions} | {"XTIPC_1"}
        self.assertEqual(symbols(LIBRARY / "lib/libxtipc.so.1"), versioned | symbols(lab.TARGET / "libxtipc_preload.so"))
        self.assertIn("[libxtipc.so.1]", self.command("readelf", "--dynamic", "--wide", LIBRARY / "lib/libxtipc.so.1"))


class InterpretedTest(LanguageTest):
    def test_programs_in_python(self):
        self.show_their_work("Python", lambda name: interpreted("Python", name))

    def test_programs_in_perl(self):
        self.show_their_work("Perl", lambda name: interpreted("Perl", name))

    def test_programs_in_ruby(self):
        self.show_their_work("Ruby", lambda name: interpreted("Ruby", name))

    def test_programs_on_two_nodes_in_different_languages_greet_each_other(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        languages = list(INTERPRETED)
        for here, there in zip(languages, languages[1:] + languages[:1]):
            with self.subTest(server=here, client=there):
                self.greet_each_other((here, interpreted(here, "hello"), self.alpha), (there, interpreted(there, "hello"), beta))


class PythonTest(LanguageTest):
    def test_programs_in_python_with_the_standard_module(self):
        self.greet("Python", self.alpha.run_command(PYTHON, SOURCES / "python/examples/standard.py"))

    def test_the_library_gives_what_libtipc_does(self):
        self.command(PYTHON, "-W", "error", lab.ROOT / "tests/programs/libxtipc.py")

    def test_the_library_gives_what_libtipc_does_under_xtipc_run(self):
        self.command(*self.alpha.run_command(PYTHON, "-W", "error", lab.ROOT / "tests/programs/libxtipc.py"))

    def test_nodes_and_links_are_tracked_and_have_names(self):
        beta = self.started("beta")
        self.await_link(self.alpha, beta)
        number = self.command(PYTHON, "-c", "import xtipc; print(xtipc.own_node())", node=beta).strip()
        told = self.command(PYTHON, lab.ROOT / "tests/programs/neighbours.py", number)
        self.assertEqual(told, "node up, link up\nalpha:eth0-beta:eth0\n\n")


class GoTest(LanguageTest):
    def test_programs_in_go(self):
        self.command("go", "vet", "./...", cwd=SOURCES / "go")
        self.show_their_work("Go", lambda name: [compiled_go(self.built, name)])
        self.greet_across_nodes("Go", [self.built / "go-hello"])


class DTest(LanguageTest):
    def test_programs_in_d(self):
        self.show_their_work("D", lambda name: [compiled_d(self.built, name)])
        self.greet_across_nodes("D", [self.built / "d-hello"])
