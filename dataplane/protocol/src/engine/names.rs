//! Bindings: made here and learned from the cluster (`docs/protocol/names.md`). What the cluster is told
//! of them is in `telling`.

use super::{Engine, PeerIndex};
use crate::addr::{BearerId, NodeAddr, PortId, SocketAddr};
use crate::connection::State;
use crate::host::{DownReason, Host};
use crate::name::{
    NameFlags, NameMessage, Operation, Publication, PublishError, RESERVED_TYPES, Scope,
    ServiceRange, UpdateError,
};
use crate::port::Binding;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{Msg, field};

/// Why a binding was not made or not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The socket does not exist.
    #[error("no such socket")]
    NoSuchSocket,
    /// lower > upper.
    #[error("range {lower}..{upper} is empty: lower must not be above upper")]
    EmptyRange {
        /// Lower bound asked for.
        lower: u32,
        /// Upper bound asked for.
        upper: u32,
    },
    /// A type that only the system binds.
    #[error("service type {0} is reserved: applications bind types from {RESERVED_TYPES} on")]
    ReservedType(u32),
    /// The socket has bound so often that its keys are used up.
    #[error("the socket has no binding key left")]
    KeysUsedUp,
    /// As many bindings as a node may have, or as many changes as it may have to tell.
    #[error(
        "the node has as many bindings as it may have, or cannot tell its peers of more for now"
    )]
    TooMany,
    /// The socket has no such binding.
    #[error("the socket has no such binding")]
    NotBound,
    /// The socket is in a group, which binds it.
    #[error("the socket is a member of a group: it binds nothing else until it leaves")]
    Member,
    /// The socket has a connection.
    #[error("the socket is connected: only listening sockets and those without a connection bind")]
    Connected,
}

impl Engine {
    /// The one socket that any message to this service address reaches. `None`: there is none, or others are bound, too.
    pub fn sole_socket(&self, kind: u32, instance: u32) -> Option<SocketAddr> {
        let (port, node) = self.names.sole(kind, instance)?;
        Some(SocketAddr {
            port: PortId(port),
            node: NodeAddr(node),
        })
    }

    /// Binds a socket to a service range.
    pub fn bind<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        range: ServiceRange,
        scope: Scope,
        host: &mut H,
    ) -> Result<(), BindError> {
        check_range(range)?;
        if self.group(id).is_some() {
            return Err(BindError::Member);
        }
        self.make_binding(now, id, range, scope, host)?;
        self.settle(now, host);
        Ok(())
    }

    /// Binds a socket within an input. The range has been checked.
    pub(super) fn make_binding<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        range: ServiceRange,
        scope: Scope,
        host: &mut H,
    ) -> Result<(), BindError> {
        if self.untold.is_full() {
            return Err(BindError::TooMany);
        }
        let node = self.names.own_node();
        let port = self.ports.get_mut(&id).ok_or(BindError::NoSuchSocket)?;
        if port
            .connection()
            .is_some_and(|c| c.state == State::Established)
        {
            return Err(BindError::Connected);
        }
        let key = port.next_key().ok_or(BindError::KeysUsedUp)?;
        let publication = Publication {
            range,
            scope,
            port: id.0,
            node,
            key,
        };
        let owner = port.owner;
        self.publish(publication).map_err(|why| match why {
            PublishError::EmptyRange(lower, upper) => BindError::EmptyRange { lower, upper },
            _ => BindError::TooMany,
        })?;
        if let Some(port) = self.ports.get_mut(&id) {
            port.on_bound(range, scope, key);
        }
        self.tell(now, owner, Operation::Publish, publication, host);
        Ok(())
    }

    /// Removes one binding of a socket.
    pub fn unbind<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        range: ServiceRange,
        scope: Scope,
        host: &mut H,
    ) -> Result<(), BindError> {
        check_range(range)?;
        if self.group(id).is_some() {
            return Err(BindError::Member);
        }
        let port = self.ports.get(&id).ok_or(BindError::NoSuchSocket)?;
        if !port.bindings.is_empty() && !self.drop_binding(now, id, range, scope, host) {
            return Err(BindError::NotBound);
        }
        self.release_unbound(now, id, host);
        self.settle(now, host);
        Ok(())
    }

    /// Removes the newest binding of a socket to exactly this range within an input; false if there is none.
    pub(super) fn drop_binding<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        range: ServiceRange,
        scope: Scope,
        host: &mut H,
    ) -> bool {
        let Some(port) = self.ports.get_mut(&id) else {
            return false;
        };
        let same = |b: &Binding| b.range == range && b.scope == scope;
        let Some(newest) = port.bindings.iter().rposition(same) else {
            return false;
        };
        let (binding, owner) = (port.bindings.remove(newest), port.owner);
        self.withdraw(now, id, owner, binding, host);
        true
    }

    /// Removes all bindings of a socket, the newest first.
    pub fn unbind_all<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        host: &mut H,
    ) -> Result<(), BindError> {
        if self.group(id).is_some() {
            return Err(BindError::Member);
        }
        self.withdraw_all(now, id, host)?;
        self.release_unbound(now, id, host);
        self.settle(now, host);
        Ok(())
    }

    pub(super) fn withdraw_all<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        host: &mut H,
    ) -> Result<(), BindError> {
        let port = self.ports.get_mut(&id).ok_or(BindError::NoSuchSocket)?;
        let owner = port.owner;
        let mut bindings = std::mem::take(&mut port.bindings);
        while let Some(binding) = bindings.pop() {
            self.withdraw(now, id, owner, binding, host);
        }
        Ok(())
    }

    /// The socket no longer gets the multicasts that some of those it holds wait for.
    fn release_unbound<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        if let Some(port) = self.ports.get_mut(&id) {
            let bound = &port.bindings;
            let gets = |range| {
                let serves = |b: &Binding| b.scope == Scope::Cluster && b.range.overlaps(range);
                bound.iter().any(serves)
            };
            port.mcast_order.release_unbound(gets);
            self.deliver_ready(now, id, host);
        }
    }

    fn withdraw<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        owner: u32,
        binding: Binding,
        host: &mut H,
    ) {
        if let Some(change) = self.retract(binding.range, id.0, binding.key) {
            self.tell(now, owner, Operation::Withdraw, change.publication, host);
        }
    }

    /// Makes the node known to the cluster under its address.
    pub(super) fn publish_node_state<H: Host>(&mut self, now: Instant, host: &mut H) {
        let own = self.core.own.0;
        self.names.set_own_node(own);
        self.open_topology_server();
        let publication = Publication::node_state(own);
        if self.publish(publication).is_ok() {
            self.tell(now, 0, Operation::Publish, publication, host);
        }
    }

    pub(super) fn publish_link_state(&mut self, index: PeerIndex, id: BearerId) {
        if let Some(publication) = self.link_state(index, id) {
            // Refused only if it is there already.
            let _ = self.publish(publication);
        }
    }

    /// The binding that stands for a link to a peer.
    pub(super) fn link_state(&self, index: PeerIndex, id: BearerId) -> Option<Publication> {
        let peer = self.peer(index)?;
        let link = peer.links.get(id)?;
        let own_bearer = link.bearer.0.into();
        Some(Publication::link_state(
            self.core.own.0,
            peer.addr.0,
            own_bearer,
            link.peer_bearer().into(),
        ))
    }

    /// A NAME_DISTRIBUTOR message of a peer.
    pub(super) fn on_name_message<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        msg: Msg<'_>,
        host: &mut H,
    ) {
        // What comes behind the message that took the link down must not enter the table again.
        let peer = self.peers.get_mut(index).and_then(Option::as_mut);
        let Some(peer) = peer.filter(|peer| peer.is_up()) else {
            return self.core.drops.count(Drop::LinkDown);
        };
        let message = NameMessage {
            origin: msg.orig_node(),
            message_type: msg.kind() as u8,
            flags: NameFlags {
                bulk: msg.flag(field::BULK),
                last_bulk: msg.flag(field::LAST_BULK),
                non_legacy: msg.flag(field::NON_LEGACY),
            },
            named_seqno: msg.get16(field::NAMED_SEQNO),
            items: msg.payload(),
        };
        let node = peer.addr.0;
        let (names, topology) = (&mut self.names, &mut self.topology);
        let drops = &mut self.core.drops;
        let result = peer.updates.on_message(message, |operation, item| {
            let publication = item.publication_of(node);
            match operation {
                Operation::Publish => match names.publish(publication) {
                    Ok(change) => topology.on_published(&change),
                    Err(_) => drops.count(Drop::BadBinding),
                },
                Operation::Withdraw => {
                    match names.withdraw(item.range, item.port, node, item.key) {
                        Some(change) => topology.on_withdrawn(&change),
                        None => drops.count(Drop::BadBinding),
                    }
                }
            }
        });
        let is_due = !peer.bcast.told && peer.updates.is_open();
        peer.bcast.told |= is_due;
        let waits = is_due && peer.bcast.progress().missing;
        // What follows in this input may be a message of the socket that was bound.
        self.tell_subscribers(now, host);
        match result {
            Ok(()) if waits => {
                self.take_held_broadcasts(now, index, host);
            }
            Ok(()) => {}
            Err(UpdateError::ForeignOrigin { .. }) => self.core.drops.count(Drop::BadBinding),
            Err(UpdateError::Overflow(_)) => {
                self.lose_contact(now, index, DownReason::Overflow, host)
            }
        }
    }
}

fn check_range(range: ServiceRange) -> Result<(), BindError> {
    if !range.is_valid() {
        return Err(BindError::EmptyRange {
            lower: range.lower,
            upper: range.upper,
        });
    }
    if range.type_ < RESERVED_TYPES {
        return Err(BindError::ReservedType(range.type_));
    }
    Ok(())
}
