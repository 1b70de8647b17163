"""The two halves of tests/programs/crowd.py, on any nodes."""
import subprocess

import lab

PROGRAM = lab.ROOT / "tests/programs/crowd.py"
PYTHON = "/usr/bin/python3"


class Half:
    """One of them, at work."""

    def __init__(self, command, *words):
        self.process = lab.spawn([*command, *map(str, words)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def told(self):
        """The next line, in words."""
        line = self.process.stdout.readline()
        if not line:
            raise lab.LabError(f"a half of the crowd ended, status {self.process.wait()}")
        return line.split()

    def tell(self, word):
        print(word, file=self.process.stdin, flush=True)

    def end(self):
        """The rest of what it tells."""
        rest, _ = self.process.communicate(timeout=60)
        return [line.split() for line in rest.splitlines()]

    def close(self):
        self.process.kill()
        self.process.communicate()


def command_on(node):
    """Runs the program on an xtipc node."""
    return node.run_command(PYTHON, PROGRAM)


def command_in(linux):
    """Runs it on a Linux node."""
    return [lab.GUEST, "exec", linux.guest.name, "-i", "--", *linux.prefix, "python3", "-ES", "-c", PROGRAM.read_text()]


def killed_and_restarted(test, serving, asking, kind, servers=50, sockets=20, lives=3):
    """Has all servers killed and started again so often while a client asks; gives when that began and when the last was dead, and
    when questions were asked that came back, and when they did."""
    crowd = test.enter(Half(serving, "serve", kind, servers, sockets))
    test.assertEqual(crowd.told(), ["ready", "0"])
    client = test.enter(Half(asking, "ask", kind, servers * sockets))
    kills, told = [], []
    for life in range(1, lives + 1):
        # Not before there is somebody who is asked.
        while ["heard", str(life - 1)] not in told:
            told.append(client.told())
        crowd.tell("again")
        word, *times = crowd.told()
        test.assertEqual(word, "killed")
        kills.append(tuple(map(float, times)))
        test.assertEqual(crowd.told(), ["ready", str(life)])
    while ["heard", str(lives)] not in told:
        told.append(client.told())
    client.tell("end")
    *rest, (_, asked) = client.end()
    rejected, unanswered = ([tuple(map(float, times)) for word, *times in told + rest if word == which]
                            for which in ("rejected", "unanswered"))
    print(f"{lives} times {servers} servers with {sockets} sockets each killed: {asked} questions, {len(rejected)} came back,"
          f" {len(unanswered)} died with a server", flush=True)
    crowd.tell("end")
    kills.append(tuple(map(float, crowd.told()[1:])))
    crowd.end()
    # One question is under way at a time, so each kill can take one with it.
    test.assertLessEqual(len(unanswered), lives, "questions without an answer")
    return kills, rejected
