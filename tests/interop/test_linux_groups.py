"""Communication groups with members on a Linux node and on two xtipc nodes."""
import contextlib
import time
import zlib

import drive
import lab
from cluster import LinuxTest
from members import Member

SIZES = (1, 979, 980, 1436, 5000, 66000)
MIXED = (12, 200, 3000, 64, 20000, 900)


def crc(seed, size):
    return zlib.crc32(drive.pattern(seed, size))


class LinuxGroupsTest(LinuxTest):
    group = 33000

    @classmethod
    def setUpClass(cls):
        """A third node, and two programs on each: one has the listening members, the other the talking ones."""
        cls.beta = cls.started_for_all("beta")
        cls.nodes = (cls.segment.alpha, cls.beta, cls.segment.linux)
        lab.until(lambda: all(one.is_linked_to(other.identity) for one in cls.nodes for other in cls.nodes if one is not other),
                  10, "all nodes linked")
        cls.drivers = {}
        for node in cls.nodes:
            cls.drivers[node] = node.drive(), node.drive()
            for driver in cls.drivers[node]:
                cls.addClassCleanup(driver.close)

    def setUp(self):
        super().setUp()
        self.new_group()

    def new_group(self):
        LinuxGroupsTest.group += 1

    def member(self, node, instance, flags="events", talks=False):
        return self.enter(Member(self.drivers[node][talks], self.group, instance, flags))

    def joined(self, *instances, flags="events"):
        """A member on each node, and all know each other."""
        members = [self.member(node, instance, flags) for node, instance in zip(self.nodes, instances)]
        self.assert_know_each_other(members, "loopback" in flags)
        return members

    def assert_know_each_other(self, members, and_themselves=False):
        for member in members:
            expected = sorted(other.instance for other in members if and_themselves or other is not member)
            events = [member.hear() for _ in expected]
            self.assertEqual([event and event.what for event in events], ["joined"] * len(events))
            self.assertEqual(sorted(event.instance for event in events), expected)

    def assert_hears(self, member, sender, seed, size):
        self.assertEqual(member.hear(), ("message", sender.instance, sender.port, sender.node, size, crc(seed, size)))

    def assert_heeded(self, members, expected):
        """Each of these members heard so many messages of each sender, all as sent and in order, and none besides."""
        self.assertEqual([member.heeded(180) for member in members],
                         [(0, {instance: (count, 0) for instance, count in counts.items()}) for counts in expected])
        self.assertEqual([member.hear(0.1) for member in members], [None] * len(members))

    @contextlib.contextmanager
    def tables_told(self):
        """Who is known where, when a call was refused."""
        try:
            yield
        except lab.Failed:
            for node in self.nodes:
                node.show("nametable show", "socket list")
            raise

    def test_members_hear_each_other_in_all_modes(self):
        members = self.joined(1, 2, 3)
        for seed, size in enumerate(SIZES):
            for sender in members:
                others = [member for member in members if member is not sender]
                with self.subTest(sender=sender.instance, size=size):
                    sender.tell("all", seed, size)
                    for other in others:
                        self.assert_hears(other, sender, seed, size)
                    for other in others:
                        for whom in (other.address, f"any,{other.instance}", f"at,{other.instance}"):
                            sender.tell(whom, seed + 1, size)
                            self.assert_hears(other, sender, seed + 1, size)

    def test_a_multicast_goes_to_all_with_the_instance_and_an_anycast_to_each_in_turn(self):
        members = self.joined(5, 5, 5)
        for sender in members:
            others = [member for member in members if member is not sender]
            for seed in range(3):
                sender.tell("at,5", seed, 100)
                for other in others:
                    self.assert_hears(other, sender, seed, 100)
            for _ in range(6):
                sender.tell("any,5", 9, 100)
            for other in others:
                for _ in range(3):
                    self.assert_hears(other, sender, 9, 100)

    def test_own_messages_come_back_to_who_wants_them(self):
        members = self.joined(1, 1, 1, flags="loopback+events")
        for sender in members:
            for whom in ("all", "at,1"):
                sender.tell(whom, 3, 2000)
                for member in members:
                    self.assert_hears(member, sender, 3, 2000)
            sender.tell(sender.address, 4, 10)
            self.assert_hears(sender, sender, 4, 10)

    def test_messages_of_a_member_keep_their_order_across_all_modes(self):
        count = 20_000 if self.segment.full else 160
        for source in self.nodes:
            with self.subTest(source.identity):
                self.new_group()
                listeners = [self.member(node, instance, "none") for node, instance in zip(self.nodes, (2, 2, 3))]
                sender = self.member(source, 1, talks=True)
                self.assertEqual({sender.hear().what for _ in listeners}, {"joined"})
                modes = ("all", listeners[0].address, "at,2", "all", "any,3", "all", "at,2", "at,2")

                def of(*turns):
                    return sum(number % len(modes) in turns for number in range(count))

                expected = (of(0, 1, 2, 3, 5, 6, 7), of(0, 2, 3, 5, 6, 7), of(0, 3, 4, 5))
                for listener, number in zip(listeners, expected):
                    listener.start_heed(number)
                sender.start_talk(count, modes, MIXED)
                self.assertEqual(sender.talked(60 + count // 20), count)
                self.assert_heeded(listeners, [{1: number} for number in expected])

    def test_many_senders_reach_a_slow_member_each_message_once_and_in_order(self):
        senders, count = (24, 400) if self.segment.full else (9, 24)
        for target in (self.linux, self.alpha):
            with self.subTest(slow=target.identity):
                self.new_group()
                slow = self.member(target, 1, "none")
                choirs = [self.drivers[node][1] for node in self.nodes if node is not target]
                slow.start_heed(2 * senders * count, pause_us=10_000, pause_after=20)
                for number, choir in enumerate(choirs, start=1):
                    choir.request("chorus", self.group, 100 * number, senders, count, slow.address, 6000)
                with self.tables_told():
                    for choir in choirs:
                        choir.answer(900 if self.segment.full else 180)
                self.assert_heeded([slow], [{100 * number + n: count for number in (1, 2) for n in range(senders)}])

    def test_broadcasts_wait_for_the_slowest_member(self):
        count = 3000 if self.segment.full else 80
        for source, target in ((self.alpha, self.linux), (self.linux, self.alpha)):
            with self.subTest(source.identity, slow=target.identity):
                self.new_group()
                slow, quick = self.member(target, 1, "none"), self.member(self.beta, 2, "none")
                sender = self.member(source, 3, talks=True)
                self.assertEqual({sender.hear().instance for _ in range(2)}, {1, 2})
                slow.start_heed(count, pause_us=20_000, pause_after=8)
                quick.start_heed(count)
                sender.start_talk(count, ("all",), (9000, 500))
                self.assertEqual(sender.talked(120), count)
                self.assert_heeded([slow, quick], [{3: count}] * 2)

    def test_the_end_of_a_member_is_told_behind_its_last_message(self):
        members = self.joined(1, 2, 3)
        for node in (self.linux, self.alpha):
            last = Member(self.drive(node), self.group, 4)
            for member in members:
                self.assertEqual(member.hear()[:2], ("joined", 4))
            self.assertEqual({last.hear().what for _ in members}, {"joined"})
            last.tell("all", 7, 500)
            last.driver.request("die")
            began = time.monotonic()
            for member in members:
                self.assert_hears(member, last, 7, 500)
                self.assertEqual(member.hear()[:4], ("left", 4, last.port, last.node))
            self.assertLess(time.monotonic() - began, 2)

    def test_a_member_leaves_and_comes_back(self):
        members = self.joined(1, 2, 3)
        for at, member in enumerate(members):
            others = [other for other in members if other is not member]
            member.leave()
            for other in others:
                self.assertEqual(other.hear()[:2], ("left", member.instance))
            again = members[at] = self.enter(Member(member.driver, self.group, member.instance))
            for other in others:
                self.assertEqual(other.hear()[:2], ("joined", member.instance))
            self.assertEqual(sorted(again.hear().instance for _ in others), sorted(o.instance for o in others))
            again.tell("all", 1, 50)
            for other in others:
                self.assert_hears(other, again, 1, 50)

    def test_members_of_a_node_that_was_lost_are_members_again_when_it_is_back(self):
        members = alpha, beta, linux = self.joined(1, 2, 3)
        self.addCleanup(self.switch.ip, "link", "set", "linux", "up")
        for seconds in (2.5, 4) if self.segment.full else (2.5,):
            self.switch.ip("link", "set", "linux", "down")
            for member in (alpha, beta):
                self.assertEqual(member.hear()[:2], ("left", 3))
            self.assertEqual({linux.hear()[:2] for _ in range(2)}, {("left", 1), ("left", 2)})
            time.sleep(seconds - 1.5)
            self.switch.ip("link", "set", "linux", "up")
            for member in (alpha, beta):
                self.assertEqual(member.hear(10)[:2], ("joined", 3))
            self.assertEqual({linux.hear(10)[:2] for _ in range(2)}, {("joined", 1), ("joined", 2)})
            for sender in members:
                others = [member for member in members if member is not sender]
                for whom in ("all", *(other.address for other in others)):
                    sender.tell(whom, 5, 3000)
                for other in others:
                    for _ in range(2):
                        self.assert_hears(other, sender, 5, 3000)
