#!/usr/bin/env python3
"""House rules that no compiler checks, over all files that git knows or would take.

File length, unfinished work, paths of somebody's machine, unsafe code only where it belongs.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
LINES_MAX = 800
CODE = {".rs", ".py", ".sh", ".c", ".h", ".go", ".pl", ".pm", ".rb", ".d"}
PROSE = {".md", ".toml", ".service", ".yml", ".conf"}
# Written in pieces, so that this file does not accuse itself.
UNFINISHED = re.compile("|".join([r"\bTO" r"DO\b", r"\bFIX" r"ME\b", r"\bXX" r"X\b", "todo" r"!", "unimplemented" r"!",
                                  r"#\[ig" r"nore"]))
MACHINE = re.compile(r"(?<![\w.$}])/(?:ro" r"ot|ho" r"me|wo" r"rk|U" r"sers)/\w")
# Crates that may hold unsafe code; every other one forbids it.
UNSAFE_ALLOWED = {"dataplane/xsk", "dataplane/node", "shm-api/segment", "shm-api/descriptors", "shm-api/c", "bench/sockets", "tests/signals"}
UNSAFE = re.compile(r"^\s*[^/\s\"].*\bunsafe\s*(?:\{|fn\b|impl\b|extern\b)|^\s*unsafe\s*(?:\{|fn\b|impl\b|extern\b)")
FORBIDS = re.compile(r"^#!\[forbid\(unsafe_code\)\]", re.M)


def files():
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, listed):
        path = ROOT / name
        if path.is_file() and (path.suffix in CODE | PROSE or is_script(path)):
            yield name, path


def is_script(path):
    return not path.suffix and path.read_bytes()[:2] == b"#!"


def crates():
    for manifest in ROOT.glob("*/**/Cargo.toml"):
        if "target" not in manifest.parts:
            yield manifest.parent


def check_text(name, path):
    text = path.read_text(errors="replace")
    lines = text.splitlines()
    is_code = path.suffix in CODE or not path.suffix
    if is_code and len(lines) > LINES_MAX:
        yield f"{name}: {len(lines)} lines, at most {LINES_MAX}"
    for number, line in enumerate(lines, start=1):
        if is_code and UNFINISHED.search(line):
            yield f"{name}:{number}: unfinished work: {line.strip()}"
        if MACHINE.search(line):
            yield f"{name}:{number}: a path of some machine: {line.strip()}"


def check_crate(crate):
    name = str(crate.relative_to(ROOT))
    if name in UNSAFE_ALLOWED:
        return
    roots = [crate / "src" / root for root in ("lib.rs", "main.rs") if (crate / "src" / root).exists()]
    for root in roots:
        if not FORBIDS.search(root.read_text()):
            yield f"{root.relative_to(ROOT)}: lacks #![forbid(unsafe_code)]"
    # Test programs may call the operating system directly; they are not part of the product.
    for source in (source for part in ("src", "examples") for source in (crate / part).rglob("*.rs")):
        for number, line in enumerate(source.read_text().splitlines(), start=1):
            if UNSAFE.search(line):
                yield f"{source.relative_to(ROOT)}:{number}: unsafe code in {name}: {line.strip()}"


def main():
    troubles = [trouble for name, path in files() for trouble in check_text(name, path)]
    troubles += [trouble for crate in crates() for trouble in check_crate(crate)]
    for trouble in troubles:
        print(trouble)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
