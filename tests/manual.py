#!/usr/bin/env python3
"""The manual pages are well-formed, leave out no function of the library, no option, key or command, and declare the functions as
the headers do. Needs mandoc and the release build.
"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs/man"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def told(*command):
    return subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


def page(name):
    """What a reader sees of a page, in one line; bold and underlined letters are struck over."""
    return " ".join(re.sub(".\b", "", told("mandoc", "-T", "ascii", "-O", "width=1000", PAGES / name)).split())


def missing(name, words):
    text = page(name)
    yield from (f"{name}: says nothing of {word}" for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text))


def declarations_of_headers():
    text = "".join(path.read_text() for path in sorted((ROOT / "shm-api/c/include/xtipc").iterdir()))
    return set(re.findall(r"^(\w[^\n;]*\(.*\));$", text, re.M))


def declarations_of_page():
    text = (PAGES / "libxtipc.3").read_text()
    for kind, name, arguments in re.findall(r'^\.Ft (.*)\n\.Fn (\w+) (.*)$', text, re.M):
        kind = kind.strip('"')
        words = re.findall(r'"([^"]*)"', arguments) or [arguments]
        yield f"{kind}{'' if kind.endswith('*') else ' '}{name}({', '.join(words)})"


def options(program):
    return sorted(set(re.findall(r"^ .*?(--[a-z-]+)", told(TARGET / program, "--help"), re.M)))


def troubles():
    for path in sorted(PAGES.iterdir()):
        yield from told("mandoc", "-T", "lint", "-W", "warning", path).splitlines()
    functions = re.findall(r"^ *(\w+);$", (ROOT / "shm-api/c/xtipc.map").read_text(), re.M)
    yield from missing("libxtipc.3", functions)
    yield from (f"libxtipc.3: not in both headers and page: {declaration}"
                for declaration in sorted(declarations_of_headers() ^ set(declarations_of_page())))
    yield from missing("xtipcd.8", options("xtipcd"))
    only_options = {"--config", "--check", "--instance", "--help", "--version"}
    keys = [option[2:].replace("-", "_") for option in options("xtipcd") if option not in only_options]
    yield from missing("xtipcd.toml.5", keys)
    commands = re.findall(r"^ ([a-z]+) +- ", told(TARGET / "xtipc", "--help"), re.M)
    yield from missing("xtipc.8", commands + options("xtipc"))
    if not (functions and keys and commands):
        yield "no functions, keys or commands to look for"


def main():
    found = list(troubles())
    print("\n".join(found) or "manual pages: nothing is missing")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
