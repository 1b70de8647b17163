"""The examples of each language: hello world, service tracking, a group. Run by `run.py --languages`; scripts/libxtipc must have been run."""
import os
import pathlib
import re
import subprocess
import tempfile

import lab
from cluster import SegmentTest

LIBRARY = lab.TARGET.parent / "libxtipc"
SOURCES = lab.ROOT / "shm-api"
SOCKET = r"0:\d{10}@[0-9a-f]+"
PYTHON = "/usr/bin/python3"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2"]


class LanguageTest(SegmentTest):
    """Builds the examples, where that is needed, into a directory of their own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = tempfile.TemporaryDirectory(prefix=f"{lab.PREFIX}-")
        cls.addClassCleanup(directory.cleanup)
        cls.built = pathlib.Path(directory.name)

    def environment(self):
        places = {"XTIPC_SOCKET": self.alpha.runtime / "attach.sock", "LD_LIBRARY_PATH": LIBRARY / "lib",
                  "PKG_CONFIG_PATH": LIBRARY / "lib/pkgconfig", "PYTHONPATH": SOURCES / "python", "PERL5LIB": SOURCES / "perl/lib",
                  "RUBYLIB": SOURCES / "ruby/lib", "GOCACHE": lab.TARGET.parent / "go-cache", "PYTHONDONTWRITEBYTECODE": 1}
        return dict(os.environ, **{name: str(place) for name, place in places.items()})

    def command(self, *words, timeout_s=60, **others):
        """What a command prints that must succeed."""
        done = subprocess.run(list(map(str, words)), timeout=timeout_s, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=self.environment(), **others)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def show_their_work(self, language, example):
        """The examples of a language; `example(name)` is the command of one."""
        self.greet(language, example("hello"))
        self.assertRegex(self.command(*example("track")),
                         rf"^up 18889:17 at ({SOCKET})\ndown 18889:17 at \1\nno more events\n$")
        self.assertEqual(self.command(*example("group")), "18890:2 joined\n18890:2 says hello\n18890:2 left\n")

    def greet(self, language, hello):
        server = subprocess.Popen([*map(str, hello), "server"], text=True, stdout=subprocess.PIPE, env=self.environment())
        try:
            self.assertEqual(self.command(*hello, "client"), f"hello from {language}\n")
            told, _ = server.communicate(timeout=20)
        finally:
            server.kill()
        self.assertRegex(told, f"^hello from {re.escape(language)}, from {SOCKET}\n$")

    def library_flags(self, which):
        return self.command("pkg-config", which, "xtipc").split()


class CTest(LanguageTest):
    def compiled(self, name, *options, compiler="cc", libraries=None):
        program = self.built / (name + "".join(options).replace("/", ""))
        libraries = self.library_flags("--libs") if libraries is None else libraries
        self.command(compiler, *WARNINGS, *options, *self.library_flags("--cflags"), SOURCES / f"c/examples/{name}.c", "-o", program,
                     *libraries)
        return program

    def test_programs_in_c(self):
        self.show_their_work("C", lambda name: [self.compiled(name)])

    def test_programs_in_c_with_other_settings_of_the_compiler(self):
        for options in (["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"], ["-D_FILE_OFFSET_BITS=64"], ["-std=c99", "-D_GNU_SOURCE"]):
            with self.subTest(options=options):
                self.show_their_work("C", lambda name: [self.compiled(name, *options)])

    def test_programs_in_c_with_the_archive(self):
        archive = [LIBRARY / "lib/libxtipc.a", "-lgcc_s"]
        self.show_their_work("C", lambda name: [self.compiled(name, "-DARCHIVE", libraries=archive)])

    def test_programs_in_c_under_xtipc_run(self):
        self.show_their_work("C", lambda name: self.alpha.run_command(self.compiled(name)))

    def test_the_header_is_one_of_cxx_too(self):
        program = "#include <xtipc/tipcc.h>\nint main() { return tipc_own_node() == 0; }\n"
        (self.built / "own.cc").write_text(program)
        self.command("c++", *WARNINGS, *self.library_flags("--cflags"), self.built / "own.cc", "-o", self.built / "own",
                     *self.library_flags("--libs"))
        self.command(self.built / "own")

    def test_the_library_has_the_functions_of_its_map_and_what_it_stands_before(self):
        def symbols(library):
            told = self.command("nm", "--dynamic", "--defined-only", "--with-symbol-versions", library)
            return {line.split()[2] for line in told.splitlines()}
        functions = re.findall(r"^ *(\w+);$", (SOURCES / "c/xtipc.map").read_text(), re.M)
        versioned = {f"{name}@@XTIPC_1" for name in functions} | {"XTIPC_1"}
        self.assertEqual(symbols(LIBRARY / "lib/libxtipc.so.1"), versioned | symbols(lab.TARGET / "libxtipc_preload.so"))
        self.assertIn("[libxtipc.so.1]", self.command("readelf", "--dynamic", "--wide", LIBRARY / "lib/libxtipc.so.1"))


class PythonTest(LanguageTest):
    def test_programs_in_python(self):
        self.show_their_work("Python", lambda name: [PYTHON, SOURCES / f"python/examples/{name}.py"])

    def test_programs_in_python_with_the_standard_module(self):
        self.greet("Python", self.alpha.run_command(PYTHON, SOURCES / "python/examples/standard.py"))

    def test_the_library_gives_what_libtipc_does(self):
        self.command(PYTHON, "-W", "error", lab.ROOT / "tests/programs/libxtipc.py")

    def test_the_library_gives_what_libtipc_does_under_xtipc_run(self):
        self.command(*self.alpha.run_command(PYTHON, "-W", "error", lab.ROOT / "tests/programs/libxtipc.py"))


class PerlTest(LanguageTest):
    def test_programs_in_perl(self):
        self.show_their_work("Perl", lambda name: ["perl", SOURCES / f"perl/examples/{name}.pl"])


class RubyTest(LanguageTest):
    def test_programs_in_ruby(self):
        self.show_their_work("Ruby", lambda name: ["ruby", "-w", SOURCES / f"ruby/examples/{name}.rb"])


class GoTest(LanguageTest):
    def test_programs_in_go(self):
        self.command("go", "vet", "./...", cwd=SOURCES / "go")
        self.command("go", "build", "-o", self.built, "./examples/...", cwd=SOURCES / "go")
        self.show_their_work("Go", lambda name: [self.built / name])


class DTest(LanguageTest):
    def compiled(self, name):
        program = self.built / f"d-{name}"
        self.command("gdc", "-Wall", "-Werror", "-I", SOURCES / "d", SOURCES / "d/xtipc.d", SOURCES / f"d/examples/{name}.d",
                     "-o", program, *self.library_flags("--libs"))
        return program

    def test_programs_in_d(self):
        self.show_their_work("D", lambda name: [self.compiled(name)])
