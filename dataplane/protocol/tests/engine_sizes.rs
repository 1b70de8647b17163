//! One node with more than 1,000 peers, and with 100,000 bindings of theirs: what each costs in memory, and that
//! the table still answers.
//!
//! The peers are packets only, what nodes say when they meet and then stay idle. Memory is counted by the
//! allocator; the frame table, whose size is that of the pool, is not part of it.

mod counting;

use std::time::Duration;
use xtipc_protocol::addr::{BearerId, Destination, Media, MediaAddr, NodeAddr, NodeId, PortId};
use xtipc_protocol::engine::{BearerSetup, Engine, NodeConfig};
use xtipc_protocol::frame::{Frame, FrameRef};
use xtipc_protocol::host::{Host, Incoming, MediaDest, Notice, Payload, Reserve};
use xtipc_protocol::link::LinkParams;
use xtipc_protocol::name::{Item, ServiceRange};
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{
    Body, Capabilities, DiscoveryKind, Header, INTERFACE_NAME, LinkConfig, LinkProtocol, Reset,
    User, field,
};

const ROOM: usize = 2048;
const FRAMES: usize = 4096;
const NET_ID: u32 = 4711;
const INTERFACE: [u8; INTERFACE_NAME] = *b"eth0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Not a power of two, just above which growing by doubling would look cheap.
const PEERS: u32 = 1250;
const BINDINGS: u32 = 100_000;
/// An idle link with its peer may take this.
const PEER_BYTES_MAX: usize = 1536;
const SERVICE: u32 = 5000;

fn bytes() -> usize {
    counting::bytes_and_allocations().0
}

/// A frame pool, and a wire that leads nowhere.
struct DeadEnd {
    arena: Vec<u8>,
    free: Vec<u32>,
}

impl Host for DeadEnd {
    fn frame_count(&self) -> u32 {
        FRAMES as u32
    }

    fn frames_free(&self) -> usize {
        self.free.len()
    }

    fn frame_room(&self) -> usize {
        ROOM
    }

    fn alloc(&mut self, _: Reserve) -> Option<Frame> {
        self.free.pop().map(Frame::new)
    }

    fn free(&mut self, frame: Frame) {
        self.free.push(frame.index());
    }

    fn bytes(&self, frame: FrameRef) -> &[u8] {
        &self.arena[frame.index() as usize * ROOM..][..ROOM]
    }

    fn bytes_mut(&mut self, frame: FrameRef) -> Option<&mut [u8]> {
        Some(&mut self.arena[frame.index() as usize * ROOM..][..ROOM])
    }

    fn transmit(&mut self, _: BearerId, _: MediaDest, _: FrameRef, _: usize, _: Reserve) {}

    fn deliver<P: Payload + ?Sized>(&mut self, _: PortId, _: &Incoming, _: &P) {}

    fn notice(&mut self, _: Notice) {}
}

fn mac(n: u32) -> [u8; 6] {
    let [_, a, b, c] = n.to_be_bytes();
    [2, 0, 0, a, b, c]
}

/// A node that exists as packets.
#[derive(Clone, Copy)]
struct Peer {
    number: u32,
    addr: u32,
    /// Number of its last packet on the link.
    sent: u16,
}

struct Node {
    now: Instant,
    engine: Engine,
    host: DeadEnd,
}

impl Node {
    fn new() -> Self {
        let mut host = DeadEnd {
            arena: vec![0; FRAMES * ROOM],
            free: (0..FRAMES as u32).collect(),
        };
        let now = Instant::from_millis(1000);
        let config = NodeConfig {
            id: NodeId::from_mac(mac(0)),
            net_id: NET_ID,
            random: 77,
            session_base: 1,
            receive_buffer: 2 << 20,
            start: now,
        };
        let setup = BearerSetup {
            interface: INTERFACE,
            media: Media::Ethernet,
            broadcast: true,
            media_addr: MediaAddr::ethernet(mac(0)),
            mtu: 1500,
            params: LinkParams::default(),
        };
        let mut engine = Engine::new(config, &host);
        engine
            .add_bearer(now, setup, &mut host)
            .expect("the first bearer");
        let mut node = Self { now, engine, host };
        while node.engine.own_addr() == NodeAddr::NONE {
            node.now = node.now + Duration::from_millis(100);
            node.engine.on_time(node.now, &mut node.host);
        }
        node
    }

    fn receive(&mut self, from: &Peer, bytes: &[u8]) {
        let source = MediaAddr::ethernet(mac(from.number));
        self.engine
            .on_packet(self.now, BearerId(0), source, bytes, &mut self.host);
    }

    /// Brings up the link with a new peer, whose bulk holds its own state only.
    fn meet(&mut self, number: u32) -> Peer {
        let addr = 0x0100_0000 + number;
        let mut peer = Peer {
            number,
            addr,
            sent: 0,
        };
        let mut bytes = [0; ROOM];
        let len = LinkConfig {
            kind: DiscoveryKind::Request,
            capabilities: Capabilities::OWN,
            signature: number as u16,
            dest_domain: 0,
            prev_node: NodeAddr(addr),
            net_id: NET_ID,
            media_addr: MediaAddr::ethernet(mac(number)),
            net_hash: number,
            suggested: NodeAddr::NONE,
            node_id: Some(NodeId::from_mac(mac(number))),
        }
        .emit(&mut bytes);
        self.receive(&peer, &bytes[..len]);
        let reset = Reset {
            peer_stopping: false,
            max_packet: 1500,
            interface: INTERFACE,
        };
        for body in [
            Body::Reset(reset.clone()),
            Body::Activate {
                reset,
                dest_session: None,
            },
        ] {
            let message = LinkProtocol {
                own: addr,
                peer: self.engine.own_addr().0,
                session: 1,
                bearer_id: 0,
                net_plane: 0,
                tolerance_ms: 1500,
                priority: 10,
                redundant_link: false,
                bc_ack_invalid: true,
                bcast_ack: 0,
                last_bcast: 0,
                next_sent: 1,
                ack: 0,
                seqno: 0x8000,
                body,
            };
            let len = message.emit(&mut bytes);
            self.receive(&peer, &bytes[..len]);
        }
        let mut start = Header::internal(User::BcastProtocol, 0, addr, 0);
        start.set(field::BC_ACK_INVALID, 1);
        self.sequenced(&mut peer, start, &[]);
        let state = item((0, addr, addr), 0, addr);
        self.bindings(&mut peer, &[state], true);
        peer
    }

    /// A numbered packet of a peer, which has received all that this node sent.
    fn sequenced(&mut self, from: &mut Peer, mut header: Header, payload: &[u8]) {
        from.sent += 1;
        header
            .set(field::SEQNO, from.sent.into())
            .set(field::ACK, 2)
            .set(field::DEST_NODE, self.engine.own_addr().0)
            .set_payload_len(payload.len());
        let bytes = [header.as_bytes(), payload].concat();
        self.receive(from, &bytes);
    }

    fn bindings(&mut self, from: &mut Peer, items: &[Item], is_last: bool) {
        let mut header = Header::internal(User::NameDistributor, 0, from.addr, 0);
        header
            .set(field::BULK, 1)
            .set(field::LAST_BULK, is_last.into())
            .set(field::NON_LEGACY, 1)
            .set(field::BC_ACK_INVALID, 1);
        let payload: Vec<u8> = items.iter().flat_map(Item::encode).collect();
        self.sequenced(from, header, &payload);
    }
}

fn item((type_, lower, upper): (u32, u32, u32), port: u32, key: u32) -> Item {
    let range = ServiceRange {
        type_,
        lower,
        upper,
    };
    Item { range, port, key }
}

#[test]
fn more_than_a_thousand_idle_peers_and_a_hundred_thousand_bindings_fit() {
    let mut node = Node::new();
    let before = bytes();
    let mut peers: Vec<Peer> = Vec::with_capacity(PEERS as usize);
    let list = bytes() - before;
    for number in 1..=PEERS {
        peers.push(node.meet(number));
    }
    assert_eq!(node.engine.peers().filter(|p| p.up).count(), PEERS as usize);
    // Own state and topology service, and per peer its state and that of the link.
    assert_eq!(node.engine.publications().count(), 2 + 2 * PEERS as usize);
    let per_peer = (bytes() - before - list) / PEERS as usize;
    println!("{per_peer} bytes per idle peer with its link and what the table says of it");
    assert!(per_peer <= PEER_BYTES_MAX);

    // Instances with four publishers each.
    let before = bytes();
    for (n, peer) in peers.iter_mut().enumerate() {
        let share: Vec<Item> = (0..BINDINGS / PEERS)
            .map(|k| {
                let instance = (n as u32 / 4) * (BINDINGS / PEERS) + k;
                item((SERVICE, instance, instance), 1 + k, 2 + k)
            })
            .collect();
        for part in share.chunks(71) {
            node.bindings(peer, part, false);
        }
    }
    assert_eq!(
        node.engine.publications().count(),
        (2 + 2 * PEERS + BINDINGS) as usize
    );
    let per_binding = (bytes() - before) / BINDINGS as usize;
    println!("{per_binding} bytes per binding");
    assert!(per_binding <= 200);

    let from = node.engine.open(SocketKind::Rdm);
    for instance in (0..BINDINGS / 4).step_by(100) {
        let to = Destination::Service {
            kind: SERVICE,
            instance,
            domain: NodeAddr::NONE,
        };
        let (now, host) = (node.now, &mut node.host);
        let sent = node.engine.send(now, from, &to, &[0; 64][..], host);
        assert_eq!(sent, Ok(()), "instance {instance}");
    }
}
