//! What 1,000 groups on one node cost, and a group of 400 members: memory, counted by the allocator; and that messages
//! between members allocate nothing once traffic is steady. The time a join takes is printed, not asserted.

mod counting;

use counting::bytes_and_allocations;
use xtipc_protocol::addr::{BearerId, Destination, NodeAddr, NodeId, PortId};
use xtipc_protocol::engine::{Engine, NodeConfig, SendError};
use xtipc_protocol::frame::{Frame, FrameRef};
use xtipc_protocol::group::{MemberNo, Membership};
use xtipc_protocol::host::{Host, Incoming, MediaDest, MemberNews, Notice, Payload, Reserve};
use xtipc_protocol::name::Scope;
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::time::Instant;

const NOW: Instant = Instant(0);
const MEMBERS: u32 = 400;

/// A host without a wire, whose sockets read at once what they are told to.
#[derive(Default)]
struct Alone {
    unread: Vec<(PortId, MemberNo, u32)>,
}

impl Host for Alone {
    fn frame_count(&self) -> u32 {
        64
    }

    fn frames_free(&self) -> usize {
        0
    }

    fn frame_room(&self) -> usize {
        2048
    }

    fn alloc(&mut self, _: Reserve) -> Option<Frame> {
        None
    }

    fn free(&mut self, _: Frame) {}

    fn bytes(&self, _: FrameRef) -> &[u8] {
        &[]
    }

    fn bytes_mut(&mut self, _: FrameRef) -> Option<&mut [u8]> {
        None
    }

    fn transmit(&mut self, _: BearerId, _: MediaDest, _: FrameRef, _: usize, _: Reserve) {}

    fn deliver<P: Payload + ?Sized>(&mut self, to: PortId, about: &Incoming, _: &P) {
        if let Some(MemberNews::Message(member)) = about.group.map(|from| from.news) {
            self.unread.push((to, member, about.cost));
        }
    }

    fn notice(&mut self, _: Notice) {}
}

struct Node {
    engine: Engine,
    host: Alone,
}

impl Node {
    fn new() -> Self {
        let mut host = Alone::default();
        let config = NodeConfig {
            id: NodeId::from_text("alone").expect("a name"),
            net_id: 4711,
            random: 77,
            session_base: 1,
            receive_buffer: 2 << 20,
            start: NOW,
        };
        let mut engine = Engine::new(config, &host);
        engine.stand_alone(NOW, &mut host);
        assert_ne!(engine.own_addr(), NodeAddr::NONE);
        Self { engine, host }
    }

    fn join(&mut self, group: u32, instance: u32) -> PortId {
        let port = self.engine.open(SocketKind::Rdm);
        let membership = Membership {
            group,
            instance,
            scope: Scope::Cluster,
            loopback: false,
            events: false,
        };
        let joined = self
            .engine
            .join_group(NOW, port, membership, &mut self.host);
        joined.expect("room for all of them");
        port
    }

    fn read_all(&mut self) {
        while let Some((port, member, cost)) = self.host.unread.pop() {
            self.engine.on_group_read(port, member, cost);
        }
        self.engine.acknowledge_consumed(NOW, &mut self.host);
    }

    /// Sends in all modes, as much as goes, and has it read.
    fn exchange(&mut self, members: &[PortId], rounds: usize) {
        let payload = [7; 3000];
        for round in 0..rounds {
            let (from, to) = (
                members[round % members.len()],
                members[(round + 1) % members.len()],
            );
            let one = Destination::Socket(self.engine.socket_addr(to));
            let sent = match round % 3 {
                0 => self
                    .engine
                    .send_to_group(NOW, from, &payload[..], &mut self.host),
                1 => self
                    .engine
                    .send(NOW, from, &one, &payload[..], &mut self.host),
                _ => {
                    let any = Destination::Service {
                        kind: 0,
                        instance: 0,
                        domain: NodeAddr::NONE,
                    };
                    self.engine
                        .send(NOW, from, &any, &payload[..], &mut self.host)
                }
            };
            assert!(
                matches!(sent, Ok(()) | Err(SendError::Congested)),
                "{sent:?}"
            );
            if round % 16 == 15 {
                self.read_all();
            }
        }
        self.read_all();
    }
}

fn bytes() -> usize {
    bytes_and_allocations().0
}

#[test]
fn a_thousand_groups_are_cheap_and_messages_of_members_allocate_nothing() {
    let mut node = Node::new();
    let before = bytes();
    let start = std::time::Instant::now();
    for group in 0..1000 {
        node.join(5000 + group, 1);
        node.join(5000 + group, 2);
    }
    let each = (bytes() - before) / 2000;
    let micros = start.elapsed().as_micros() / 2000;
    println!("{each} bytes, {micros} us per socket in one of 1,000 groups of two");
    assert!(each < 2000, "{each} bytes per socket");

    let mut node = Node::new();
    let before = bytes();
    let start = std::time::Instant::now();
    let members: Vec<PortId> = (0..MEMBERS).map(|n| node.join(5000, n % 10)).collect();
    let each = (bytes() - before) / (MEMBERS * (MEMBERS - 1)) as usize;
    let micros = start.elapsed().as_micros() / u128::from(MEMBERS);
    println!("{each} bytes per member known, {micros} us per join, in one group of {MEMBERS}");
    assert!(each < 200, "{each} bytes per member known");

    node.exchange(&members[..20], 2000);
    let allocations = bytes_and_allocations().1;
    node.exchange(&members[..20], 2000);
    assert_eq!(bytes_and_allocations().1, allocations);

    let start = std::time::Instant::now();
    for member in members {
        node.engine.close(NOW, member, &mut node.host);
    }
    let micros = start.elapsed().as_micros() / u128::from(MEMBERS);
    println!("{micros} us per leave");
}
