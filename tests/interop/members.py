"""Members of groups, on Linux and on xtipc alike: what they are told to do, and what they heard."""
from typing import NamedTuple


class News(NamedTuple):
    """A message, or an event of a member, whose size and checksum are 0."""
    what: str
    instance: int
    port: int
    node: int
    size: int
    crc: int


class Heed(NamedTuple):
    """All messages a member heard: corrupt ones, and by instance of their senders how many, and how many out of order."""
    bad: int
    senders: dict


class Member:
    """A member of a group, of a driver's program."""

    def __init__(self, driver, group, instance, flags="events"):
        self.driver, self.instance = driver, instance
        number, self.port, self.node = (int(word) for word in driver.call("join", group, instance, flags))
        self.number = number

    @property
    def address(self):
        return f"socket,{self.node},{self.port}"

    def tell(self, whom, seed, size):
        self.driver.call("tell", self.number, whom, seed, size)

    def hear(self, timeout_s=5):
        """The next message or event; None if there is none in time."""
        self.start_hear(timeout_s)
        return self.heard(timeout_s + 10)

    def start_hear(self, timeout_s=5):
        self.driver.request("hear", self.number, int(timeout_s * 1000))

    def heard(self, timeout_s=15):
        words = self.driver.answer(timeout_s)
        return words and News(words[0], *(int(word) for word in words[1:]))

    def start_talk(self, count, whom, sizes):
        self.driver.request("talk", self.number, count, "/".join(whom), ",".join(map(str, sizes)))

    def talked(self, timeout_s=60):
        return int(self.driver.answer(timeout_s)[0])

    def start_heed(self, count, pause_us=0, pause_after=1 << 30, idle_s=15):
        self.driver.request("heed", self.number, count, int(idle_s * 1000), pause_us, pause_after)

    def heeded(self, timeout_s=60):
        bad, *senders = self.driver.answer(timeout_s)
        counts = (tuple(int(number) for number in sender.split(":")) for sender in senders)
        return Heed(int(bad), {instance: (count, disordered) for instance, count, disordered in counts})

    def leave(self):
        self.driver.call("leave", self.number)
        self.number = None

    def close(self):
        """What a test does at its end, whatever became of the member."""
        if self.number is not None and self.driver.process.poll() is None:
            self.leave()
