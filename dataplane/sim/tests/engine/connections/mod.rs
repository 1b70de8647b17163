//! Connections: one file per part of `docs/protocol/connections.md`.

mod ending;
mod flow;
mod hostile;
mod inner;
mod nagle;
mod set_up;
mod waiting;

use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr, PortId, SocketAddr};
use xtipc_protocol::host::{Host, Notice};
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::wire::{DataType, Msg, User, field};
use xtipc_sim::cluster::Cluster;

const NO_PORT: u8 = 2;
const NO_NODE: u8 = 3;
const OVERLOAD: u8 = 4;
const SHUTDOWN: u8 = 5;

/// Two nodes with an established connection.
struct Wired {
    c: Cluster,
    /// Station of the client.
    near: usize,
    /// Station of the server.
    far: usize,
    client: SocketAddr,
    server: SocketAddr,
    listener: SocketAddr,
}

fn wired(seed: u64, kind: SocketKind) -> Wired {
    wire_up(Cluster::settled(seed, 2), kind, 0, 1)
}

/// Both sockets on one node.
fn wired_within(seed: u64, kind: SocketKind) -> Wired {
    wire_up(Cluster::settled(seed, 2), kind, 0, 0)
}

fn wire_up(mut c: Cluster, kind: SocketKind, near: usize, far: usize) -> Wired {
    let listener = c.listener(far, kind);
    let client = c.open_kind(near, kind);
    c.connect(near, client.port, Destination::Socket(listener))
        .unwrap();
    settle(&mut c);
    let accepted = c.accept(far, listener.port).unwrap();
    settle(&mut c);
    assert_eq!(accepted.peer, client);
    assert!(c.notices(near).contains(&Notice::Connected(client.port)));
    c.notices(far);
    let server = SocketAddr {
        port: accepted.port,
        node: listener.node,
    };
    Wired {
        c,
        near,
        far,
        client,
        server,
        listener,
    }
}

/// Two nodes with few frames.
fn small_cluster(seed: u64) -> Cluster {
    let mut c = Cluster::new(seed);
    c.recipe.frames = 300;
    c.start(0);
    c.start(1);
    c.until("links", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    c
}

/// Uses up all frames of a node for datagrams to another, which does not acknowledge them.
fn exhaust_frames(c: &mut Cluster, station: usize, to: NodeAddr) {
    let nobody = Destination::Socket(SocketAddr {
        port: PortId(1),
        node: to,
    });
    while c.node(station).host.frames_free() > 0 {
        let port = c.open(station).port;
        let _ = c.send(station, port, nobody, &[0; 1400][..]);
    }
}

/// Lets packets arrive.
fn settle(c: &mut Cluster) {
    c.run_for(Duration::from_millis(2));
}

/// Everything that belongs to connections among the packets seen: sender and bytes.
fn connection_traffic(c: &Cluster) -> Vec<(usize, Vec<u8>)> {
    let belongs = |bytes: &[u8]| {
        Msg::check(bytes).is_ok_and(|msg| match msg.user() {
            User::ConnManager => true,
            user if user.is_data() => msg.data_type() == DataType::Conn || msg.flag(field::SYN),
            _ => false,
        })
    };
    let seen = c.segment.seen.iter().filter(|s| belongs(&s.bytes));
    seen.map(|s| (s.from, s.bytes.clone())).collect()
}

/// The first two words of a header, without what the link writes into the second.
fn words(bytes: &[u8]) -> (u32, u32) {
    (field::word(bytes, 0), field::word(bytes, 1) & 0xffff_0000)
}

/// Reads all that waits for a socket and gives the bytes.
fn read_bytes(c: &mut Cluster, station: usize, addr: SocketAddr) -> Vec<u8> {
    let messages = c.recv_all(station, addr.port);
    assert!(
        messages.iter().all(|m| m.about.errcode == 0),
        "{messages:?}"
    );
    messages.into_iter().flat_map(|m| m.bytes).collect()
}

/// Bytes whose value tells their place.
fn pattern(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(|n| (n % 251) as u8).collect()
}
