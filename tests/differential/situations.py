"""Situations of sockets and their results: reading, comparing, recording. README.md describes them."""
import itertools
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
ON_KERNEL = HERE / "on_kernel.py"
DIFFERENCES = HERE.parents[1] / "docs/differences.md"
ARROW = " -> "
# Makes a second node in a guest, in a network namespace, and waits for the link.
FAR_NODE = """
ip netns add far
ip link add near type veth peer name far netns far
ip link set near up
ip -n far link set far up
ip -n far link set lo up
ip netns exec far tipc node set identity far
tipc bearer enable media eth device near
ip netns exec far tipc bearer enable media eth device far
for _ in $(seq 50); do tipc link list | grep -q -- '-far:far: up' && break; sleep 0.2; done
tipc link list | grep -q -- '-far:far: up'
"""
NO_FAR_NODE = "tipc bearer disable media eth device near; ip netns del far"


def paragraphs(text):
    """Title and lines of each situation, before `for` lines are carried out."""
    for block in re.split(r"\n\s*\n", text):
        lines = [line.rstrip() for line in block.splitlines() if line.strip()]
        if lines and lines[0].startswith("# ") and len(lines) > 1:
            yield lines[0][2:], lines[1:]


def expanded(text):
    """Title and steps of each situation; one with `for` lines becomes one for each combination of their words."""
    for title, lines in paragraphs(text):
        loops = [line.split() for line in lines if line.startswith("for ")]
        steps = [line for line in lines if not line.startswith("for ")]
        names = [words[1] for words in loops]
        for values in itertools.product(*(words[3:] for words in loops)):
            fill = dict(zip(names, values))
            yield title.format(**fill), [step.format(**fill) for step in steps]


def all_situations():
    """All situations as title → steps."""
    situations = {}
    for path in sorted(HERE.glob("*.situations")):
        for title, steps in expanded(path.read_text()):
            if title in situations:
                raise ValueError(f"{path.name}: there are two situations named: {title}")
            situations[title] = steps
    return situations


def text_of(situations):
    """What the interpreters read, and, of situations with results, what they print."""
    return "\n".join("\n".join([f"# {title}", *lines, ""]) for title, lines in situations.items())


def parsed(text):
    return dict(paragraphs(text))


def recording(release):
    """The results on the newest recorded kernel that is not newer than this release: those of the oldest, and what
    later ones do otherwise."""
    version = number_of(release)
    results = {}
    for path in sorted(HERE.glob("linux-*.recorded"), key=lambda path: number_of(path.stem)):
        if not results or number_of(path.stem) <= version:
            results.update(parsed(path.read_text()))
    return results


def number_of(text):
    return tuple(int(digits) for digits in re.search(r"(\d+)\.(\d+)", text).groups())


def differing_lines(expected, got):
    """Per title, the lines that differ: (expected, got)."""
    differences = {}
    for title in {**expected, **got}:
        pairs = itertools.zip_longest(expected.get(title, []), got.get(title, []), fillvalue="nothing")
        lines = [(one, other) for one, other in pairs if one != other]
        if lines:
            differences[title] = lines
    return differences


def documented_differences():
    """The lines that docs/differences.md gives for xtipc, by title: blocks of the language `situation`."""
    blocks = re.findall(r"^```situation\n(.*?)^```", DIFFERENCES.read_text(), re.M | re.S)
    documented = {}
    for block in blocks:
        for title, lines in expanded(block):
            documented.setdefault(title, []).extend(lines)
    return documented


def with_differences(recorded, documented):
    """The recording with the lines that xtipc has instead: each takes the place of the line with its step; where a step
    occurs several times in a situation, `N. step` is for the Nth."""
    expected = {title: list(lines) for title, lines in recorded.items()}
    for title, lines in documented.items():
        if title not in expected:
            raise ValueError(f"docs/differences.md: there is no situation named: {title}")
        for line in lines:
            numbered = re.match(r"\s*(?:(\d+)\. )?(.*?)$", line)
            which, text = int(numbered[1] or 1), numbered[2]
            step = text.split(ARROW)[0]
            places = [at for at, old in enumerate(expected[title]) if old.split(ARROW)[0].strip() == step]
            if len(places) < which:
                raise ValueError(f"docs/differences.md: {title}: no step: {line.strip()}")
            expected[title][places[which - 1]] = f"  {text}"
    return expected


def report(differences):
    return "\n".join(f"# {title}\n" + "\n".join(f"  expected: {one.strip()}\n       got: {other.strip()}" for one, other in lines)
                     for title, lines in differences.items())
