//! The members of a captured group, Linux on both sides, say what ours would have said, each word of it.
//!
//! `eth-two-nodes-group-flow` is one slow reader and sixteen senders: joins with binding and JOIN in either
//! order, windows used up and granted anew, large windows taken back, broadcasts in fragments with their
//! acknowledgements, members that leave.

mod pcap;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use xtipc_protocol::addr::{NodeAddr, PortId, SocketAddr};
use xtipc_protocol::group::{Arrival, Arriving, Group, MemberNo, Membership, Note, blocks_of};
use xtipc_protocol::name::{Item, Scope};
use xtipc_protocol::seqno::SeqNo;
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{Bundle, DataType, GroupKind, Header, Msg, User, field, size};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");
const GROUP: u32 = 5000;
const NOW: Instant = Instant(0);

/// What a member did, as far as the wire shows it.
enum Step {
    /// It was bound.
    Bound(SocketAddr, u32),
    /// It told another.
    Said(SocketAddr, SocketAddr, GroupKind),
    /// It sent a message, to one member or to all.
    Sent(SocketAddr, Header, usize),
}

fn steps() -> Vec<Step> {
    let capture = pcap::files(FOLDER)
        .into_iter()
        .find(|path| path.ends_with("eth-two-nodes-group-flow.pcap"));
    let mut steps = Vec::new();
    let packets = pcap::read(&capture.expect("the capture exists")).packets;
    for packet in in_link_order(packets) {
        let msg = Msg::check(&packet).expect("Linux sent it");
        match msg.user() {
            User::MsgBundler => Bundle::new(msg).for_each(|inner| take(inner, &mut steps)),
            // The first fragment has the header of the message.
            User::MsgFragmenter if msg.kind() == 0 => {
                let inner = msg.payload().first_chunk::<{ size::MCAST }>();
                let mut header = *inner.expect("a fragment of a group message");
                let len = field::SIZE.get(&header) as usize - size::MCAST;
                field::SIZE.set(&mut header, size::MCAST as u32);
                let msg = Msg::check(&header).expect("a header of its own");
                steps.push(Step::Sent(origin(msg), Header::of(msg), len));
            }
            _ => take(msg, &mut steps),
        }
    }
    steps
}

/// Packets of one link that were captured in the wrong order, put right.
fn in_link_order(packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut ordered: Vec<Vec<u8>> = Vec::new();
    let number = |msg: Msg<'_>| {
        let unnumbered = matches!(msg.user(), User::LinkProtocol | User::LinkConfig);
        let numbered = !unnumbered && !msg.flag(field::NON_SEQ);
        numbered.then(|| (msg.prev_node(), msg.get(field::SEQNO)))
    };
    for packet in packets {
        let this = Msg::check(&packet).ok().and_then(number);
        let later = |other: &Vec<u8>| {
            let other = Msg::check(other).ok().and_then(number);
            matches!((other, this), (Some((a, n)), Some((b, m))) if a == b && n > m)
        };
        let place = ordered.iter().position(later).unwrap_or(ordered.len());
        ordered.insert(place, packet);
    }
    ordered
}

fn take(msg: Msg<'_>, steps: &mut Vec<Step>) {
    match msg.user() {
        User::NameDistributor if msg.kind() == 0 && !msg.flag(field::BULK) => {
            let item = Item::decode(msg.payload().first_chunk().expect("an item"));
            if item.range.type_ == GROUP {
                let addr = socket(item.port, msg.orig_node());
                steps.push(Step::Bound(addr, item.range.lower));
            }
        }
        User::GroupProtocol => {
            let kind = GroupKind::of(&Header::of(msg)).expect("a known type");
            let to = socket(msg.get(field::DEST_PORT), msg.get(field::DEST_NODE));
            steps.push(Step::Said(origin(msg), to, kind));
        }
        user if user.is_data() && msg.header_size() >= size::MCAST => {
            steps.push(Step::Sent(
                origin(msg),
                Header::of(msg),
                msg.payload().len(),
            ));
        }
        _ => {}
    }
}

fn origin(msg: Msg<'_>) -> SocketAddr {
    socket(msg.get(field::ORIG_PORT), msg.orig_node())
}

fn socket(port: u32, node: u32) -> SocketAddr {
    SocketAddr {
        port: PortId(port),
        node: NodeAddr(node),
    }
}

/// A member of ours that lives through the same.
struct Member {
    group: Group,
    addr: SocketAddr,
    notes: Vec<Note>,
    /// What it says and the capture has not shown yet.
    said: VecDeque<(SocketAddr, GroupKind)>,
    /// What its user has not read.
    unread: VecDeque<(MemberNo, u16)>,
}

impl Member {
    fn new(addr: SocketAddr, instance: u32) -> Self {
        let membership = Membership {
            group: GROUP,
            instance,
            scope: Scope::Cluster,
            loopback: false,
            events: true,
        };
        Self {
            group: Group::new(membership, addr, SeqNo(0)),
            addr,
            notes: Vec::new(),
            said: VecDeque::new(),
            unread: VecDeque::new(),
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Group, &mut Vec<Note>)) {
        act(&mut self.group, &mut self.notes);
        for note in self.notes.drain(..) {
            match note {
                // Members of one node tell each other nothing by wire.
                Note::Send(to, kind) if to.node != self.addr.node => {
                    self.said.push_back((to, kind));
                }
                Note::Violation => panic!("{:?} calls a violation what Linux did", self.addr),
                Note::Send(..) | Note::Joined(..) | Note::Left(..) | Note::Open => {}
            }
        }
    }

    /// Linux says this: so do we, if need be after the user has read something.
    fn must_say(&mut self, to: SocketAddr, kind: GroupKind) {
        if let GroupKind::Leave { .. } = kind
            && self.said.is_empty()
        {
            self.act(|group, notes| group.leave(notes));
        }
        while self.said.is_empty()
            && let Some((from, blocks)) = self.unread.pop_front()
        {
            self.act(|group, notes| group.on_read(from, blocks, notes));
        }
        let ours = self.said.pop_front();
        assert_eq!(ours, Some((to, kind)), "member {:?}", self.addr);
    }

    fn on_message(&mut self, from: SocketAddr, header: &Header, len: usize) {
        let about = Arriving::of(header, len);
        let mut arrival = None;
        self.act(|group, notes| arrival = Some(group.on_message(from, &about, notes)));
        match arrival {
            Some(Arrival::Deliver(no)) => self.unread.push_back((no, about.blocks)),
            Some(Arrival::NotForUs(_)) => {}
            other => panic!("nothing came early, twice or from strangers: {other:?}"),
        }
    }

    fn on_sent(&mut self, header: &Header, len: usize) {
        let (blocks, kind) = (blocks_of(len), DataType::from_bits(header.get(field::TYPE)));
        let number = header.get(field::GROUP_BC_SEQNO);
        assert_eq!(number, u32::from(self.group.bc_snd_nxt()));
        if kind == DataType::GroupUcast {
            let to = socket(header.get(field::DEST_PORT), header.get(field::DEST_NODE));
            self.act(|group, notes| {
                group
                    .may_send(NOW, to, blocks, notes)
                    .expect("Linux had credit");
                group.on_sent(to, blocks);
            });
        } else {
            let asks = header.get(field::GROUP_ACK_REQ) == 1;
            assert_eq!(self.group.is_behind_unicast(), asks);
            self.act(|group, notes| {
                group
                    .may_broadcast(NOW, blocks, notes)
                    .expect("Linux had credit");
                group.on_broadcast_sent(NOW, blocks);
            });
        }
    }
}

#[test]
fn every_member_of_the_captured_group_says_what_linux_said() {
    let steps = steps();
    let mut members: BTreeMap<(u32, u32), Member> = BTreeMap::new();
    let key = |addr: SocketAddr| (addr.node.0, addr.port.0);
    // The binding and the JOIN of a newcomer travel on different ways. The answer shows which came first.
    let answers = steps.iter().filter_map(|step| match step {
        Step::Said(_, to, GroupKind::Join { window: 0, .. }) => Some(key(*to)),
        _ => None,
    });
    let binding_first: BTreeSet<(u32, u32)> = answers.collect();
    let (mut said, mut sent) = (0, 0);
    for step in steps {
        match step {
            Step::Bound(addr, instance) => {
                let mut new = Member::new(addr, instance);
                for other in members.values_mut().filter(|m| m.addr.node != addr.node) {
                    let (there, its) = (other.addr, other.group.membership.instance);
                    new.act(|group, notes| group.on_published(NOW, there, its, notes));
                }
                members.insert(key(addr), new);
            }
            Step::Said(from, to, kind) => {
                said += 1;
                let its = members[&key(to)].group.membership.instance;
                let speaker = members.get_mut(&key(from)).expect("a member");
                if speaker.group.member(to).is_none() {
                    // It has seen the binding, and the JOIN is under way.
                    speaker.act(|group, notes| group.on_published(NOW, to, its, notes));
                }
                speaker.must_say(to, kind);
                let instance = speaker.group.membership.instance;
                let receiver = members.get_mut(&key(to)).expect("a member");
                let is_new = receiver.group.member(from).is_none();
                let early = is_new && binding_first.contains(&key(from));
                let late = is_new && !early;
                if early {
                    receiver.act(|group, notes| group.on_published(NOW, from, instance, notes));
                }
                receiver.act(|group, notes| group.on_protocol(NOW, from, kind, notes));
                if late {
                    receiver.act(|group, notes| group.on_published(NOW, from, instance, notes));
                }
            }
            Step::Sent(from, header, len) => {
                sent += 1;
                members
                    .get_mut(&key(from))
                    .expect("a member")
                    .on_sent(&header, len);
                for other in members.values_mut().filter(|m| m.addr.node != from.node) {
                    other.on_message(from, &header, len);
                }
            }
        }
    }
    assert_eq!((members.len(), said, sent), (17, 107, 75));
}
