//! Members of groups on a cluster's nodes.

use crate::cluster::Cluster;
use crate::host::Received;
use xtipc_protocol::addr::{Destination, PortId, SocketAddr};
use xtipc_protocol::engine::{Engine, JoinError, NoMember, SendError};
use xtipc_protocol::group::{Group, Membership};
use xtipc_protocol::host::{Incoming, MemberNews, Payload};
use xtipc_protocol::name::Scope;

/// A membership as most tests want it: in the whole cluster, with events, without own messages.
pub fn membership(group: u32, instance: u32) -> Membership {
    Membership {
        group,
        instance,
        scope: Scope::Cluster,
        loopback: false,
        events: true,
    }
}

/// To one of the members with this instance.
pub fn any_at(instance: u32) -> Destination {
    crate::cluster::service(0, instance)
}

/// To all members with this instance.
pub fn all_at(instance: u32) -> Destination {
    crate::cluster::range(0, instance, instance)
}

/// Tells the engine that a message was read.
pub fn consume(engine: &mut Engine, port: PortId, about: &Incoming) {
    match about.group.map(|from| from.news) {
        Some(MemberNews::Message(member)) => engine.on_group_read(port, member, about.cost),
        Some(MemberNews::Joined | MemberNews::Left) | None => engine.on_consumed(port, about.cost),
    }
}

/// What a member read, in words: `+1` and `-1` for a member with instance 1 that came and went, else
/// the sender's instance and the text.
pub fn read_as(message: &Received) -> String {
    let from = message.about.group.expect("a member gets nothing else");
    match from.news {
        MemberNews::Joined => format!("+{}", from.instance),
        MemberNews::Left => format!("-{}", from.instance),
        MemberNews::Message(_) => format!("{}:{}", from.instance, message.text()),
    }
}

impl Cluster {
    /// Opens a socket and joins a group with it.
    pub fn join(&mut self, station: usize, membership: Membership) -> SocketAddr {
        let addr = self.open(station);
        self.try_join(station, addr.port, membership)
            .expect("a new socket can join");
        addr
    }

    /// Joins a group.
    pub fn try_join(
        &mut self,
        station: usize,
        port: PortId,
        membership: Membership,
    ) -> Result<(), JoinError> {
        let now = self.now;
        self.with(station, |n| {
            n.engine.join_group(now, port, membership, &mut n.host)
        })
    }

    /// Leaves the group.
    pub fn leave(&mut self, station: usize, port: PortId) -> Result<(), NoMember> {
        let now = self.now;
        self.with(station, |n| n.engine.leave_group(now, port, &mut n.host))
    }

    /// Sends to all members.
    pub fn broadcast<P: Payload + ?Sized>(
        &mut self,
        station: usize,
        from: PortId,
        payload: &P,
    ) -> Result<(), SendError> {
        let now = self.now;
        self.with(station, |n| {
            n.engine.send_to_group(now, from, payload, &mut n.host)
        })
    }

    /// What a member has of its group.
    pub fn group(&self, station: usize, port: PortId) -> &Group {
        let group = self.node(station).engine.group(port);
        group.expect("the socket is a member")
    }

    /// All that waits for a member, as [`read_as`] says it.
    pub fn news(&mut self, station: usize, port: PortId) -> Vec<String> {
        self.recv_all(station, port).iter().map(read_as).collect()
    }
}
