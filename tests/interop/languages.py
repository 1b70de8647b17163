"""The examples of all languages as commands. scripts/libxtipc must have been run."""
import os

import lab

LIBRARY = lab.TARGET.parent / "libxtipc"
SOURCES = lab.ROOT / "shm-api"
PYTHON = "/usr/bin/python3"
INTERPRETED = {"Python": (PYTHON, "py"), "Perl": ("perl", "pl"), "Ruby": ("ruby", "rb")}
LANGUAGES = ["C", "Go", "D", *INTERPRETED]
#: What the functions of the library write of a socket.
SOCKET = r"0:\d{10}@[0-9a-f]+"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2"]
#: What the examples tell that need no other half, in any language.
TOLD = {"track": rf"^up 18889:17 at ({SOCKET})\ndown 18889:17 at \1\nno more events\n$",
        "group": "^18890:2 joined\n18890:2 says hello\n18890:2 left\n$"}


def places(library, sources):
    """Where programs find the library and the packages on it."""
    return {"LD_LIBRARY_PATH": library, "PYTHONPATH": sources / "python", "PERL5LIB": sources / "perl/lib", "RUBYLIB": sources / "ruby/lib",
            "PYTHONDONTWRITEBYTECODE": 1}


def environment(node=None):
    """For programs that use a node by the library that scripts/libxtipc has made, and for compilers."""
    if not LIBRARY.is_dir():
        raise lab.LabError(f"{LIBRARY} is not there: run scripts/libxtipc")
    found = places(LIBRARY / "lib", SOURCES)
    found |= {"PKG_CONFIG_PATH": LIBRARY / "lib/pkgconfig", "GOCACHE": lab.TARGET.parent / "go-cache"}
    if node:
        found["XTIPC_SOCKET"] = node.runtime / "attach.sock"
    return dict(os.environ, **{name: str(place) for name, place in found.items()})


def interpreted(language, example, sources=SOURCES):
    """The command of an example."""
    interpreter, ending = INTERPRETED[language]
    return [interpreter, sources / f"{language.lower()}/examples/{example}.{ending}"]


def compiler(*words, timeout_s=300, **options):
    """What a compiler prints that must succeed."""
    return lab.run(*words, timeout_s=timeout_s, env=environment(), **options)


def library_flags(which):
    return compiler("pkg-config", which, "xtipc").split()


def compiled_c(directory, name, *options, libraries=None):
    program = directory / ("c-" + name + "".join(options).replace("/", ""))
    libraries = library_flags("--libs") if libraries is None else libraries
    compiler("cc", *WARNINGS, *options, *library_flags("--cflags"), SOURCES / f"c/examples/{name}.c", "-o", program, *libraries)
    return program


def compiled_d(directory, name):
    program = directory / f"d-{name}"
    compiler("gdc", "-Wall", "-Werror", "-I", SOURCES / "d", SOURCES / "d/xtipc.d", SOURCES / f"d/examples/{name}.d", "-o", program,
             *library_flags("--libs"))
    return program


def compiled_go(directory, name):
    program = directory / f"go-{name}"
    compiler("go", "build", "-buildvcs=false", "-o", program, f"./examples/{name}", cwd=SOURCES / "go")
    return program


COMPILED = {"C": compiled_c, "Go": compiled_go, "D": compiled_d}


def libtipc_of_linux(directory):
    """The functions of the library by the sockets of the kernel, for programs on a Linux node, in a directory for LD_LIBRARY_PATH."""
    directory.mkdir()
    compiler("cc", *WARNINGS, "-fPIC", "-shared", "-Wl,-soname,libxtipc.so.1", f"-Wl,--version-script={SOURCES / 'c/xtipc.map'}",
             *library_flags("--cflags"), lab.ROOT / "tests/programs/libtipc.c", "-o", directory / "libxtipc.so.1")
    return directory
