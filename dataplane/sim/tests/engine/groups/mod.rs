//! Groups: one file per part of `docs/protocol/groups.md`.

mod events;
mod flow;
mod hostile;
mod joining;
mod order;
mod sending;

use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId, SocketAddr};
use xtipc_protocol::engine::SendError;
use xtipc_protocol::group::MemberState;
use xtipc_protocol::host::Notice;
use xtipc_protocol::wire::{DataType, GroupKind, Header, Msg, User, field};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::groups::membership;

const GROUP: u32 = 5000;

/// Members on nodes of their own: node and instance 0, 1, 2 ..., who know each other.
fn members(seed: u64, nodes: usize) -> (Cluster, Vec<SocketAddr>) {
    let mut c = Cluster::settled(seed, nodes);
    let members: Vec<SocketAddr> = (0..nodes)
        .map(|node| c.join(node, membership(GROUP, node as u32)))
        .collect();
    settle(&mut c);
    for (node, member) in members.iter().enumerate() {
        assert_eq!(c.news(node, member.port).len(), nodes - 1);
    }
    c.segment.record = true;
    c.segment.seen.clear();
    (c, members)
}

/// Lets packets arrive.
fn settle(c: &mut Cluster) {
    c.run_for(Duration::from_millis(5));
}

/// What one member has of another.
fn view(c: &Cluster, station: usize, of: SocketAddr, other: SocketAddr) -> (MemberState, u16, u16) {
    let member = c.group(station, of.port).member(other);
    let member = member.expect("the other is known");
    (member.state, member.window, member.advertised)
}

/// GROUP_PROTOCOL messages among the packets seen: sending station and what they say.
fn group_protocol(c: &Cluster) -> Vec<(usize, GroupKind)> {
    let mut found = Vec::new();
    for seen in &c.segment.seen {
        each_message(&seen.bytes, &mut |msg| {
            if msg.user() == User::GroupProtocol {
                let kind = GroupKind::of(&Header::of(msg)).expect("a known type");
                found.push((seen.from, kind));
            }
        });
    }
    found
}

/// Types of the group messages among the packets seen, with their numbers and whether they ask for an
/// acknowledgement.
fn group_data(c: &Cluster) -> Vec<(DataType, u32, bool, bool)> {
    let mut found = Vec::new();
    for seen in &c.segment.seen {
        each_message(&seen.bytes, &mut |msg| {
            let kind = msg.data_type();
            let is_group = matches!(
                kind,
                DataType::GroupBcast | DataType::GroupMcast | DataType::GroupUcast
            );
            if msg.user().is_data() && is_group {
                let number = msg.get(field::GROUP_BC_SEQNO);
                let asks = msg.flag(field::GROUP_ACK_REQ);
                found.push((kind, number, asks, msg.flag(field::NON_SEQ)));
            }
        });
    }
    found
}

fn each_message(bytes: &[u8], act: &mut impl FnMut(Msg<'_>)) {
    let Ok(msg) = Msg::check(bytes) else {
        return;
    };
    if msg.user() == User::MsgBundler {
        for inner in xtipc_protocol::wire::Bundle::new(msg) {
            act(inner);
        }
    } else {
        act(msg);
    }
}

/// Sends to a socket, trying again while the sender has to wait.
fn send_patiently(c: &mut Cluster, station: usize, from: PortId, to: Destination, text: &str) {
    for _ in 0..1000 {
        match c.send(station, from, to, text.as_bytes()) {
            Ok(()) => return,
            Err(SendError::Congested) => settle(c),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{text} could not be sent");
}

/// The same to all.
fn broadcast_patiently(c: &mut Cluster, station: usize, from: PortId, text: &str) {
    for _ in 0..1000 {
        match c.broadcast(station, from, text.as_bytes()) {
            Ok(()) => return,
            Err(SendError::Congested) => settle(c),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{text} could not be sent");
}

fn is_told_to_go_on(c: &mut Cluster, station: usize, port: PortId) -> bool {
    c.notices(station).contains(&Notice::Writable(port))
}
