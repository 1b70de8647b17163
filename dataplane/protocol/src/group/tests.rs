//! Members against each other without a network: whatever is sent and read in whatever order, credit is
//! neither made nor lost.

use super::*;
use crate::addr::PortId;
use crate::time::Instant;
use crate::wire::DataType;
use proptest::prelude::*;

const NOW: Instant = Instant(0);

/// What is under way from one member to another; in order for each pair.
enum Way {
    Says(GroupKind),
    Message(u16),
}

struct Member {
    group: Group,
    unread: VecDeque<(MemberNo, u16)>,
}

/// Members that all know each other.
struct Room {
    members: Vec<Member>,
    ways: BTreeMap<(usize, usize), VecDeque<Way>>,
}

fn addr(n: usize) -> SocketAddr {
    SocketAddr {
        port: PortId(n as u32 + 1),
        node: NodeAddr(7),
    }
}

impl Room {
    fn new(count: usize) -> Self {
        let member = |n: usize| Member {
            group: Group::new(
                Membership {
                    group: 5000,
                    instance: n as u32,
                    scope: Scope::Cluster,
                    loopback: false,
                    events: true,
                },
                addr(n),
                SeqNo(0),
            ),
            unread: VecDeque::new(),
        };
        let mut room = Self {
            members: (0..count).map(member).collect(),
            ways: BTreeMap::new(),
        };
        for at in 0..count {
            for other in 0..count {
                room.act(at, |group, notes| {
                    group.on_published(NOW, addr(other), other as u32, notes);
                });
            }
        }
        room.deliver_all();
        room
    }

    fn act<R>(&mut self, at: usize, act: impl FnOnce(&mut Group, &mut Vec<Note>) -> R) -> R {
        let mut notes = Vec::new();
        let result = act(&mut self.members[at].group, &mut notes);
        for note in notes {
            match note {
                Note::Send(to, kind) => {
                    let to = to.port.0 as usize - 1;
                    self.ways
                        .entry((at, to))
                        .or_default()
                        .push_back(Way::Says(kind));
                }
                Note::Violation => panic!("member {at} finds a violation among honest members"),
                Note::Joined(..) | Note::Left(..) | Note::Open => {}
            }
        }
        result
    }

    fn send(&mut self, from: usize, to: usize, blocks: u16) -> bool {
        let refused = self.act(from, |group, notes| {
            group.may_send(NOW, addr(to), blocks, notes)
        });
        if refused.is_err() {
            return false;
        }
        self.members[from].group.on_sent(addr(to), blocks);
        let way = self.ways.entry((from, to)).or_default();
        way.push_back(Way::Message(blocks));
        true
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let next = self.ways.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        match next {
            None => return false,
            Some(Way::Says(kind)) => self.act(to, |group, notes| {
                group.on_protocol(NOW, addr(from), kind, notes);
            }),
            Some(Way::Message(blocks)) => {
                let about = Arriving {
                    kind: DataType::GroupUcast,
                    bc_seqno: SeqNo(0),
                    instance: 0,
                    ack_requested: false,
                    blocks,
                    importance: Importance::Low,
                };
                let arrival = self.act(to, |group, notes| {
                    group.on_message(addr(from), &about, notes)
                });
                let Arrival::Deliver(no) = arrival else {
                    panic!("{arrival:?}");
                };
                self.members[to].unread.push_back((no, blocks));
            }
        }
        true
    }

    fn read(&mut self, at: usize) -> bool {
        let Some((no, blocks)) = self.members[at].unread.pop_front() else {
            return false;
        };
        self.act(at, |group, notes| group.on_read(no, blocks, notes));
        true
    }

    fn deliver_all(&mut self) {
        let pairs: Vec<(usize, usize)> = (0..self.members.len())
            .flat_map(|a| (0..self.members.len()).map(move |b| (a, b)))
            .collect();
        while pairs
            .iter()
            .fold(false, |any, (a, b)| self.deliver(*a, *b) | any)
        {}
    }

    fn settle(&mut self) {
        loop {
            self.deliver_all();
            let read = (0..self.members.len()).fold(false, |any, at| self.read(at) | any);
            if !read {
                return;
            }
        }
    }

    /// What a member thinks that another may send is what that one has, spent, or is being granted.
    fn check_credit(&self) {
        for (to, receiver) in self.members.iter().enumerate() {
            let group = &receiver.group;
            let slots = group.members().filter(|m| m.state.holds_slot()).count();
            assert_eq!(group.active_count, slots);
            assert!(slots <= group.active_max() + 1);
            for member in group.members() {
                let from = member.addr.port.0 as usize - 1;
                let sender = self.members[from].group.member(addr(to)).expect("a member");
                assert!(member.advertised <= WINDOW_MAX && sender.window <= WINDOW_MAX);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_is_sent_and_read_everybody_can_send_the_largest_message_in_the_end(
        count in 2usize..24,
        steps in proptest::collection::vec((0u8..4, any::<(u8, u8)>(), 1u16..66), 1..400),
    ) {
        let mut room = Room::new(count);
        let mut under_way = 0;
        for (what, (a, b), blocks) in steps {
            let (a, b) = (usize::from(a) % count, usize::from(b) % count);
            match what {
                0 | 1 if a != b => under_way += usize::from(room.send(a, b, blocks)),
                2 => { room.deliver(a, b); }
                _ => { room.read(a); }
            }
            room.check_credit();
        }
        room.settle();
        room.check_credit();
        for a in 0..count {
            for b in (0..count).filter(|b| *b != a) {
                let sender = room.members[a].group.member(addr(b)).expect("a member");
                let receiver = room.members[b].group.member(addr(a)).expect("a member");
                prop_assert!(sender.window >= ADV_IDLE, "{a} to {b}, {under_way} sent");
                prop_assert!(sender.window <= receiver.advertised, "{a} to {b}");
            }
        }
    }
}

#[test]
fn blocks_of_a_message_count_its_header() {
    let blocks = [0, 979, 980, 2003, 2004, 66_000].map(blocks_of);
    assert_eq!(blocks, [1, 1, 2, 2, 3, 65]);
}

#[test]
fn what_all_members_may_send_finds_room_in_the_receive_buffer() {
    for payload in [1, 500, 979, 980, 10_000, 66_000] {
        let (cost, blocks) = (crate::port::message_cost(payload), blocks_of(payload));
        assert!(cost <= u32::from(blocks) * 2048, "{payload}");
    }
    for others in [1, 15, 16, 17, 100, 1000] {
        let room = Room::new(1);
        let mut group = room.members.into_iter().next().expect("one").group;
        for n in 1..=others {
            group.on_published(NOW, addr(n), 0, &mut Vec::new());
        }
        let (active, all) = (group.active_max() + 1, others);
        let active = active.min(all);
        let granted = active * usize::from(ADV_ACTIVE) + (all - active) * usize::from(ADV_IDLE);
        assert!(group.receive_limit() >= granted as u64 * 1536, "{others}");
    }
}

#[test]
fn numbers_of_members_that_are_gone_name_nobody() {
    let mut room = Room::new(2);
    room.send(0, 1, 1);
    room.deliver_all();
    let (no, _) = room.members[1].unread[0];
    room.act(0, |group, notes| group.leave(notes));
    room.deliver_all();
    let group = &mut room.members[1].group;
    assert!(group.numbered(no).is_none());
    group.on_published(NOW, addr(5), 5, &mut Vec::new());
    assert!(group.numbered(no).is_none(), "the slot has another member");
}

/// One node cannot crowd out the others, and all together not this one.
#[test]
fn a_group_knows_so_many_members_of_a_node_and_in_all_and_room_that_returns_is_used() {
    let mut room = Room::new(1);
    let group = &mut room.members[0].group;
    let mut notes = Vec::new();
    let mut publish = |group: &mut Group, node: u32, port: u32| {
        notes.clear();
        let addr = SocketAddr {
            port: PortId(port),
            node: NodeAddr(node),
        };
        group.on_published(NOW, addr, 1, &mut notes);
        let refused = notes.iter().any(|note| matches!(note, Note::Violation));
        assert_eq!(refused, group.member(addr).is_none());
        !refused
    };
    let nodes = MEMBERS_MAX as u32 / MEMBERS_OF_NODE_MAX;
    for node in 100..100 + nodes {
        for port in 1..=MEMBERS_OF_NODE_MAX {
            assert!(publish(group, node, port), "{port} of node {node}");
        }
        assert!(!publish(group, node, MEMBERS_OF_NODE_MAX + 1));
    }
    assert_eq!(group.members().count(), MEMBERS_MAX);
    assert!(!publish(group, 99, 1), "a node that has no member yet");
    assert!(publish(group, 100, 1), "one that is known already");
    let mut gone = Vec::new();
    group.on_node_lost(NOW, NodeAddr(100), &mut gone);
    assert!(publish(group, 99, 1));
}
