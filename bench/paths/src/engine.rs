//! Two engines, and messages between them: everything from the sender's call to the delivery, with acknowledgements.

use std::time::Duration;

use xtipc_protocol::addr::{
    BearerId, Destination, Media, MediaAddr, NodeAddr, NodeId, PortId, SocketAddr,
};
use xtipc_protocol::engine::{BearerSetup, Engine, NodeConfig};
use xtipc_protocol::host::Payload;
use xtipc_protocol::link::LinkParams;
use xtipc_protocol::name::{Scope, ServiceRange};
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::time::Instant;

use crate::host::FixedHost;

const SERVICE: u32 = 5000;
/// Messages between two rounds of the receiver, below what a link lets be under way.
const BATCH: u64 = 8;
/// The same of messages in more fragments than this many bytes make.
const LARGE: usize = 30_000;
const BATCH_OF_LARGE: u64 = 1;
/// The same of messages handed over together: as many as a request of an application has.
const BATCH_OF_BATCH: u64 = 64;
const TICK: Duration = Duration::from_millis(1);

/// Whether messages share packets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packets {
    One,
    Shared,
    /// Shared, and the messages are handed over together.
    Batch,
}

/// One of several messages.
struct Copied<'a>(&'a [u8]);

impl Payload for Copied<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        self.0.copy_to(offset, out);
    }
}

struct Pair {
    now: Instant,
    nodes: [(Engine, FixedHost); 2],
}

fn mac(node: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, node as u8 + 1]
}

impl Pair {
    /// Two nodes whose link is up.
    fn new() -> Self {
        let now = Instant::from_millis(1000);
        let node = |n: usize| {
            let mut host = FixedHost::new();
            let config = NodeConfig {
                id: NodeId::from_mac(mac(n)),
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
                media_addr: MediaAddr::ethernet(mac(n)),
                mtu: 1500,
                params: LinkParams::default(),
            };
            let mut engine = Engine::new(config, &host);
            let added = engine.add_bearer(now, setup, &mut host);
            added.expect("the first bearer");
            (engine, host)
        };
        let mut pair = Self {
            now,
            nodes: [node(0), node(1)],
        };
        let up = |(engine, _): &(Engine, FixedHost)| engine.peers().any(|peer| peer.up);
        while !pair.nodes.iter().all(up) {
            pair.tick();
        }
        (0..1000).for_each(|_| pair.tick());
        pair
    }

    /// Carries packets to and fro until there are none.
    fn carry(&mut self) {
        let now = self.now;
        loop {
            let [(a, a_host), (b, b_host)] = &mut self.nodes;
            let from = |n| MediaAddr::ethernet(mac(n));
            let bearer = BearerId(0);
            let there = a_host.drain(|packet| b.on_packet(now, bearer, from(0), packet, b_host));
            let back = b_host.drain(|packet| a.on_packet(now, bearer, from(1), packet, a_host));
            if there + back == 0 {
                break;
            }
        }
        for (engine, host) in &mut self.nodes {
            if host.costs.is_empty() {
                continue;
            }
            for (port, cost, count) in host.costs.drain(..) {
                engine.on_several_consumed(port, cost, count);
            }
            engine.acknowledge_consumed(now, host);
        }
    }

    fn tick(&mut self) {
        self.carry();
        self.now = self.now + TICK;
        for (engine, host) in &mut self.nodes {
            engine.on_time(self.now, host);
        }
    }

    /// Binds a socket of a node.
    fn serve(&mut self, node: usize) {
        let now = self.now;
        let (engine, host) = &mut self.nodes[node];
        let port = engine.open(SocketKind::Rdm);
        let range = ServiceRange::instance(SERVICE, 1);
        let bound = engine.bind(now, port, range, Scope::Cluster, host);
        bound.expect("a range that can be bound");
        self.tick();
    }

    /// Connects a socket of node 0 with one of the other node, and gives the first.
    fn connect(&mut self) -> PortId {
        let [(client, client_host), (server, _)] = &mut self.nodes;
        let listener = server.open(SocketKind::Seqpacket);
        let listens = server.listen(listener, None);
        listens.expect("a new socket");
        let to = Destination::Socket(server.socket_addr(listener));
        let port = client.open(SocketKind::Seqpacket);
        let asked = client.connect(self.now, port, &to, client_host);
        asked.expect("a link to the node");
        self.carry();
        let (server, server_host) = &mut self.nodes[1];
        let accepted = server.accept(self.now, listener, server_host, |_, _| {});
        accepted.expect("the request has come");
        self.tick();
        port
    }

    fn send(&mut self, from: SocketAddr, payload: &[u8], count: u64, packets: Packets) {
        let to = Destination::Service {
            kind: SERVICE,
            instance: 1,
            domain: NodeAddr::NONE,
        };
        let (engine, host) = &mut self.nodes[0];
        if packets != Packets::One {
            engine.begin_gathering();
        }
        if packets == Packets::Batch {
            let messages = (0..count).map(|_| Copied(payload));
            let done = engine.send_many(self.now, from.port, &to, messages, host);
            assert_eq!(done.sent as u64, count, "the link's window has room");
        } else {
            for _ in 0..count {
                let sent = engine.send(self.now, from.port, &to, payload, host);
                sent.expect("the link's window has room");
            }
        }
        if packets != Packets::One {
            engine.end_gathering(self.now, host);
        }
    }
}

/// From node 0 to a socket of the other node, or of its own, by service address.
fn exchange(count: u64, len: usize, packets: Packets, server: usize) {
    let mut pair = Pair::new();
    pair.serve(server);
    let (engine, _) = &mut pair.nodes[0];
    let port = engine.open(SocketKind::Rdm);
    let from = engine.socket_addr(port);
    let payload = vec![7; len];
    let most = match packets {
        _ if len > LARGE => BATCH_OF_LARGE,
        Packets::Batch => BATCH_OF_BATCH,
        Packets::One | Packets::Shared => BATCH,
    };
    let mut left = count;
    while left > 0 {
        let batch = left.min(most);
        pair.send(from, &payload, batch, packets);
        pair.carry();
        left -= batch;
    }
    (0..1000).for_each(|_| pair.tick());
    assert_eq!(pair.nodes[server].1.delivered, count, "each message once");
}

/// Messages to the other node.
pub(crate) fn messages(count: u64, len: usize, packets: Packets) {
    exchange(count, len, packets, 1);
}

/// Small messages to the other node, handed over 64 at a time.
pub(crate) fn messages_of_batches(count: u64) {
    messages(count, 64, Packets::Batch);
}

/// Messages to a socket of the same node.
pub(crate) fn local_messages(count: u64) {
    exchange(count, 64, Packets::One, 0);
}

/// Messages of 64 bytes on a connection to the other node.
pub(crate) fn connected_messages(count: u64) {
    let mut pair = Pair::new();
    let port = pair.connect();
    let payload = [7; 64];
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        let (engine, host) = &mut pair.nodes[0];
        for _ in 0..batch {
            let sent = engine.send_connected(pair.now, port, &payload[..], host);
            sent.expect("the connection's window has room");
        }
        pair.carry();
        left -= batch;
    }
    (0..1000).for_each(|_| pair.tick());
    assert_eq!(pair.nodes[1].1.delivered, count, "each message once");
}

/// Two nodes with a link and nothing to say: timers and probes of a millisecond.
pub(crate) fn idle(count: u64) {
    let mut pair = Pair::new();
    (0..count).for_each(|_| pair.tick());
}
