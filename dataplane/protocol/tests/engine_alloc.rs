//! The data path allocates nothing once it is warm: two engines exchange 100,000 messages, and 20,000
//! that follow a new binding, under an allocator that counts.
//!
//! Packets go from one engine to the other through fixed buffers; every fortieth is lost, so that
//! deferral, negative acknowledgements and retransmission are part of it, as are the timers.

mod counting;

use std::time::Duration;
use xtipc_protocol::addr::{
    BearerId, Destination, Media, MediaAddr, NodeAddr, NodeId, PortId, SocketAddr,
};
use xtipc_protocol::crypto::{KeyMaterial, KeyUse};
use xtipc_protocol::engine::{BearerSetup, Engine, NodeConfig, SendError};
use xtipc_protocol::frame::{Frame, FrameRef};
use xtipc_protocol::host::{Host, Incoming, MediaDest, Notice, Payload, Reserve};
use xtipc_protocol::link::LinkParams;
use xtipc_protocol::name::{Scope, ServiceRange};
use xtipc_protocol::port::{McastMethod, SocketKind};
use xtipc_protocol::time::Instant;

fn allocations() -> u64 {
    counting::bytes_and_allocations().1
}

const ROOM: usize = 2048;
const FRAMES: usize = 2048;
const SERVICE: u32 = 5000;

/// A frame pool and a wire out, all of fixed size.
struct FixedHost {
    arena: Vec<u8>,
    free: Vec<u32>,
    out: Vec<([u8; ROOM], usize)>,
    bytes: u64,
    cost: Vec<(PortId, u32)>,
    writable: u64,
}

impl FixedHost {
    fn new() -> Self {
        Self {
            arena: vec![0; FRAMES * ROOM],
            free: (0..FRAMES as u32).collect(),
            out: Vec::with_capacity(4 * FRAMES),
            bytes: 0,
            cost: Vec::with_capacity(4 * FRAMES),
            writable: 0,
        }
    }
}

impl Host for FixedHost {
    fn frame_count(&self) -> u32 {
        FRAMES as u32
    }

    fn frames_free(&self) -> usize {
        self.free.len().saturating_sub(64)
    }

    fn frame_room(&self) -> usize {
        ROOM
    }

    fn alloc(&mut self, reserve: Reserve) -> Option<Frame> {
        if reserve == Reserve::Data && self.frames_free() == 0 {
            return None;
        }
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

    fn transmit(&mut self, _: BearerId, _: MediaDest, frame: FrameRef, len: usize, _: Reserve) {
        let mut packet = [0; ROOM];
        packet[..len].copy_from_slice(&self.bytes(frame)[..len]);
        self.out.push((packet, len));
    }

    fn deliver<P: Payload + ?Sized>(&mut self, to: PortId, about: &Incoming, payload: &P) {
        self.bytes += payload.len() as u64;
        self.cost.push((to, about.cost));
    }

    fn notice(&mut self, notice: Notice) {
        self.writable += u64::from(matches!(notice, Notice::Writable(_)));
    }
}

struct Pair {
    now: Instant,
    nodes: [(Engine, FixedHost); 2],
    packets: u64,
    /// One packet in so many is lost; 0 for none.
    loss: u64,
}

fn mac(n: usize) -> MediaAddr {
    MediaAddr::ethernet([2, 0, 0, 0, 0, n as u8 + 1])
}

impl Pair {
    fn new() -> Self {
        let now = Instant::from_millis(1000);
        let node = |n: usize| {
            let mut host = FixedHost::new();
            let config = NodeConfig {
                id: NodeId::from_mac([2, 0, 0, 0, 0, n as u8 + 1]),
                net_id: 4711,
                random: 77 + n as u64,
                session_base: 1,
                receive_buffer: 16 << 20,
                start: now,
            };
            let setup = BearerSetup {
                interface: *b"eth0\0\0\0\0\0\0\0\0\0\0\0\0",
                media: Media::Ethernet,
                broadcast: true,
                media_addr: mac(n),
                mtu: 1500,
                params: LinkParams::default(),
            };
            let mut engine = Engine::new(config, &host);
            engine
                .add_bearer(now, setup, &mut host)
                .expect("the first bearer");
            (engine, host)
        };
        let mut pair = Self {
            now,
            nodes: [node(0), node(1)],
            packets: 0,
            loss: 0,
        };
        while !pair
            .nodes
            .iter()
            .all(|(engine, _)| engine.peers().any(|p| p.up))
        {
            pair.run(Duration::from_millis(1));
        }
        pair.run(Duration::from_secs(1));
        pair
    }

    /// Carries packets to and fro until there are none, then lets time pass.
    fn run(&mut self, span: Duration) {
        loop {
            let quiet = self.nodes.iter().all(|(_, host)| host.out.is_empty());
            if quiet {
                break;
            }
            for from in 0..2 {
                let [a, b] = &mut self.nodes;
                let (sender, receiver) = if from == 0 { (a, b) } else { (b, a) };
                for (packet, len) in sender.1.out.drain(..) {
                    self.packets += 1;
                    if self.loss == 0 || !self.packets.is_multiple_of(self.loss) {
                        let (engine, host) = &mut *receiver;
                        engine.on_packet(self.now, BearerId(0), mac(from), &packet[..len], host);
                    }
                }
            }
        }
        self.now = self.now + span;
        for (engine, host) in &mut self.nodes {
            while let Some((port, cost)) = host.cost.pop() {
                engine.on_consumed(port, cost);
            }
            engine.on_time(self.now, host);
        }
    }

    /// A connection from node 0 to node 1; gives the client's socket.
    fn connect(&mut self, kind: SocketKind) -> PortId {
        let now = self.now;
        let [(near, near_host), (far, _)] = &mut self.nodes;
        let listener = far.open(kind);
        far.listen(listener, None).expect("a new socket");
        let to = Destination::Socket(far.socket_addr(listener));
        let client = near.open(kind);
        near.connect(now, client, &to, near_host)
            .expect("the node is reachable");
        self.run(Duration::from_millis(1));
        let (now, (far, far_host)) = (self.now, &mut self.nodes[1]);
        far.accept(now, listener, far_host, |_, _| {})
            .expect("the request has arrived");
        self.run(Duration::from_millis(1));
        client
    }

    fn open(&mut self, node: usize) -> SocketAddr {
        let engine = &mut self.nodes[node].0;
        let port = engine.open(SocketKind::Rdm);
        engine.socket_addr(port)
    }

    /// Sends `count` messages, and gives the number of allocations meanwhile.
    fn exchange(&mut self, from: PortId, to: &Destination, len: usize, count: u64) -> u64 {
        let payload = vec![7; len];
        let start = self.nodes[1].1.bytes;
        let before = allocations();
        let mut sent = 0;
        while sent < count {
            let (engine, host) = &mut self.nodes[0];
            // Half of the time small messages share packets.
            if sent % 2000 < 1000 {
                engine.begin_gathering();
            }
            let result = engine.send(self.now, from, to, &payload[..], host);
            if sent % 8 == 7 || result.is_err() {
                engine.end_gathering(self.now, host);
            }
            match result {
                Ok(()) => sent += 1,
                Err(SendError::Congested) => self.run(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
            // Now and then as much as goes, so that the sender is congested and woken.
            if sent % 8 == 0 && sent % 1000 > 500 {
                self.run(Duration::from_micros(20));
            }
        }
        for _ in 0..3000 {
            self.run(Duration::from_millis(1));
        }
        let after = allocations();
        assert_eq!(self.nodes[1].1.bytes - start, count * len as u64);
        after - before
    }
}

#[test]
fn a_hundred_thousand_messages_of_each_kind_allocate_nothing() {
    let mut pair = Pair::new();
    let from = pair.open(0).port;
    let server = pair.open(1);
    let range = ServiceRange {
        type_: SERVICE,
        lower: 0,
        upper: 9,
    };
    let now = pair.now;
    let (engine, host) = &mut pair.nodes[1];
    engine
        .bind(now, server.port, range, Scope::Cluster, host)
        .expect("a range that can be bound");
    pair.run(Duration::from_millis(1));
    pair.run(Duration::from_millis(1));
    let service = Destination::Service {
        kind: SERVICE,
        instance: 3,
        domain: NodeAddr::NONE,
    };
    let multicast = Destination::Range {
        kind: SERVICE,
        lower: 0,
        upper: 5,
    };
    let methods = [
        None,
        None,
        Some(McastMethod::Replicast),
        Some(McastMethod::Broadcast),
    ];
    let kinds = [Destination::Socket(server), service, multicast, multicast];
    for (to, method) in kinds.iter().zip(methods) {
        for loss in [0, 40] {
            for (len, count) in [(64, 100_000), (1400, 5_000), (10_000, 2_000)] {
                pair.loss = loss;
                if let Some(port) = pair.nodes[0].0.port_mut(from) {
                    port.mcast_wanted = method;
                }
                pair.exchange(from, to, len, 2_000);
                let allocations = pair.exchange(from, to, len, count);
                assert_eq!(
                    allocations, 0,
                    "{count} messages of {len} bytes to {to:?} by {method:?}, loss {loss}"
                );
            }
        }
    }
    assert!(
        pair.nodes[0]
            .0
            .drops()
            .iter()
            .all(|(reason, n)| n == 0 || reason.label() != "no_frame")
    );
}

#[test]
fn encrypted_messages_allocate_nothing() {
    let mut pair = Pair::new();
    let now = pair.now;
    for (engine, host) in &mut pair.nodes {
        engine.begin_epoch(1);
        let key = KeyMaterial::new(&[3; 36]).expect("a key of 256 bits");
        engine
            .set_key(now, key, KeyUse::Cluster, host)
            .expect("the first key");
    }
    let from = pair.open(0).port;
    let to = Destination::Socket(pair.open(1));
    for loss in [0, 40] {
        for (len, count) in [(64, 10_000), (1400, 2_000), (10_000, 500)] {
            pair.loss = loss;
            pair.exchange(from, &to, len, 1_000);
            assert_eq!(pair.exchange(from, &to, len, count), 0, "{len} bytes");
        }
    }
    let crypto = pair.nodes[1].0.crypto();
    assert!(crypto.stats.opened > 10_000 && crypto.active.is_some());
}

#[test]
fn messages_and_streams_on_a_connection_allocate_nothing() {
    let mut pair = Pair::new();
    for kind in [SocketKind::Seqpacket, SocketKind::Stream] {
        let client = pair.connect(kind);
        // Ignored: the socket is connected.
        let to = Destination::Socket(SocketAddr::default());
        for loss in [0, 40] {
            for (len, count) in [(20, 20_000), (1400, 5_000), (10_000, 2_000)] {
                pair.loss = loss;
                pair.exchange(client, &to, len, 2_000);
                let allocations = pair.exchange(client, &to, len, count);
                assert_eq!(
                    allocations, 0,
                    "{count} times {len} bytes on a {kind:?}, loss {loss}"
                );
            }
        }
    }
}

/// Binds, sends and unbinds over and over; gives the number of allocations.
fn bind_send_unbind(pair: &mut Pair, from: PortId, to: &Destination, rounds: u32) -> u64 {
    let before = allocations();
    for n in 0..rounds {
        let instance = n % 8;
        let range = ServiceRange {
            type_: SERVICE + 1,
            lower: instance,
            upper: instance,
        };
        let (now, (engine, host)) = (pair.now, &mut pair.nodes[0]);
        let bound = engine.bind(now, from, range, Scope::Cluster, host);
        assert_eq!(bound, Ok(()));
        assert_eq!(engine.send(now, from, to, &[7; 64][..], host), Ok(()));
        pair.run(Duration::from_micros(20));
        let (now, (engine, host)) = (pair.now, &mut pair.nodes[0]);
        let gone = engine.unbind(now, from, range, Scope::Cluster, host);
        assert_eq!(gone, Ok(()));
        pair.run(Duration::from_micros(20));
    }
    allocations() - before
}

#[test]
fn messages_behind_bindings_allocate_nothing() {
    let mut pair = Pair::new();
    let from = pair.open(0).port;
    let to = Destination::Socket(pair.open(1));
    bind_send_unbind(&mut pair, from, &to, 2_000);
    assert_eq!(bind_send_unbind(&mut pair, from, &to, 20_000), 0);
}
