//! Bindings: made here, told to the cluster, learned from it (`docs/protocol/names.md`).

use super::{Engine, PeerIndex};
use crate::addr::PortId;
use crate::host::{DownReason, Host, Reserve};
use crate::name::{
    Item, NameFlags, NameMessage, Operation, Publication, PublishError, RESERVED_TYPES, Scope,
    ServiceRange, Update, UpdateError,
};
use crate::port::Binding;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{Capabilities, Header, Importance, Msg, User, field, size};

/// Changes the cluster has not been told, beyond which nothing new is bound.
const UNTOLD_MAX: usize = 65_536;

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
}

impl Engine {
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
        if self.untold.len() >= UNTOLD_MAX {
            return Err(BindError::TooMany);
        }
        let node = self.names.own_node();
        let port = self.ports.get_mut(&id).ok_or(BindError::NoSuchSocket)?;
        let key = port.next_key().ok_or(BindError::KeysUsedUp)?;
        let publication = Publication {
            range,
            scope,
            port: id.0,
            node,
            key,
        };
        self.names.publish(publication).map_err(|why| match why {
            PublishError::EmptyRange(lower, upper) => BindError::EmptyRange { lower, upper },
            _ => BindError::TooMany,
        })?;
        port.on_bound(range, scope, key);
        self.tell(now, Operation::Publish, publication, host);
        self.settle(now, host);
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
        let port = self.ports.get_mut(&id).ok_or(BindError::NoSuchSocket)?;
        if port.bindings.is_empty() {
            return Ok(());
        }
        let newest = port
            .bindings
            .iter()
            .rposition(|b| b.range == range && b.scope == scope);
        let binding = port.bindings.remove(newest.ok_or(BindError::NotBound)?);
        self.withdraw(now, id, binding, host);
        self.settle(now, host);
        Ok(())
    }

    /// Removes all bindings of a socket, the newest first.
    pub fn unbind_all<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        host: &mut H,
    ) -> Result<(), BindError> {
        let port = self.ports.get_mut(&id).ok_or(BindError::NoSuchSocket)?;
        let mut bindings = std::mem::take(&mut port.bindings);
        while let Some(binding) = bindings.pop() {
            self.withdraw(now, id, binding, host);
        }
        self.settle(now, host);
        Ok(())
    }

    fn withdraw<H: Host>(&mut self, now: Instant, id: PortId, binding: Binding, host: &mut H) {
        let node = self.names.own_node();
        if let Some(change) = self.names.withdraw(binding.range, id.0, node, binding.key) {
            self.tell(now, Operation::Withdraw, change.publication, host);
        }
    }

    /// Makes the node known to the cluster under its address.
    pub(super) fn publish_node_state<H: Host>(&mut self, now: Instant, host: &mut H) {
        let own = self.core.own.0;
        self.names.set_own_node(own);
        let publication = Publication::node_state(own);
        if self.names.publish(publication).is_ok() {
            self.tell(now, Operation::Publish, publication, host);
        }
    }

    pub(super) fn publish_link_state(&mut self, index: PeerIndex) {
        if let Some(publication) = self.link_state(index) {
            // Refused only if it is there already.
            let _ = self.names.publish(publication);
        }
    }

    pub(super) fn withdraw_link_state(&mut self, index: PeerIndex) {
        if let Some(p) = self.link_state(index) {
            self.names.withdraw(p.range, p.port, p.node, p.key);
        }
    }

    fn link_state(&self, index: PeerIndex) -> Option<Publication> {
        let peer = self.peer(index)?;
        let link = peer.link.as_ref()?;
        let own_bearer = link.bearer.0.into();
        Some(Publication::link_state(
            self.core.own.0,
            peer.addr.0,
            own_bearer,
            link.peer_bearer().into(),
        ))
    }

    /// Tells the cluster of a change, at once or as soon as there is room.
    fn tell<H: Host>(
        &mut self,
        now: Instant,
        operation: Operation,
        what: Publication,
        host: &mut H,
    ) {
        if what.scope == Scope::Cluster {
            self.untold.push_back((operation, what));
            self.tell_untold(now, host);
        }
    }

    /// Tells the cluster of changes in the order made. One that is not told gets no number yet: peers
    /// would wait for it in vain.
    pub(super) fn tell_untold<H: Host>(&mut self, now: Instant, host: &mut H) {
        while let Some((operation, what)) = self.untold.front().copied()
            && self.try_tell(now, operation, what, host)
        {
            self.untold.pop_front();
        }
    }

    /// By the broadcast link, or as copies if a peer does not take that. False if there is no room.
    fn try_tell<H: Host>(
        &mut self,
        now: Instant,
        operation: Operation,
        what: Publication,
        host: &mut H,
    ) -> bool {
        let up = || {
            self.peers
                .iter()
                .enumerate()
                .filter(|(_, p)| p.as_ref().is_some_and(|p| p.is_up()))
        };
        let legacy = |p: &Option<crate::node::Peer>| {
            p.as_ref()
                .is_some_and(|p| !p.capabilities.has(Capabilities::NAMED_BCAST))
        };
        if up().any(|(_, p)| legacy(p)) {
            let indexes: Vec<PeerIndex> = up().map(|(index, _)| index).collect();
            if let Some(update) = self.distributor.update(operation, what) {
                for index in indexes {
                    self.send_update(now, index, &update, host);
                }
            }
            return true;
        }
        if self.bcast.peers() == 0 {
            self.distributor.update(operation, what);
            return true;
        }
        if self.bcast.is_congested(Importance::System) {
            return false;
        }
        let mut ctx = super::Ctx {
            now,
            core: &mut self.core,
            host,
            bcast_ack: crate::seqno::SeqNo(0),
        };
        let own = ctx.core.own.0;
        // It can wait, unlike what keeps links alive: the reserve is not for it.
        let distributor = &mut self.distributor;
        let frame = ctx.alloc_written(Reserve::Data, Importance::System, UPDATE_SIZE, |out| {
            if let Some(update) = distributor.update(operation, what) {
                write_update(&update, own, 0, out);
            }
        });
        let Some(frame) = frame else {
            return false;
        };
        self.bcast.submit(&mut ctx, frame);
        true
    }

    fn send_update<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        update: &Update,
        host: &mut H,
    ) {
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let (own, dest) = (ctx.core.own.0, peer.addr.0);
        let Some(link) = peer.up_link() else {
            return;
        };
        let frame = ctx.alloc_written(Reserve::Control, Importance::System, UPDATE_SIZE, |out| {
            write_update(update, own, dest, out);
        });
        match frame {
            Some(frame) => link.submit(&mut ctx, frame, true),
            // Its table would never be right again.
            None => self.fail_link(now, index, DownReason::Overflow, host),
        }
    }

    /// Tells a peer that has just come up all bindings of this node.
    pub(super) fn send_bulk<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        let own = self.core.own.0;
        let mut bulk = self.distributor.bulk(self.names.own_cluster_publications());
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        let mut ctx = super::Ctx {
            now,
            core: &mut self.core,
            host,
            bcast_ack: peer.bcast.ack(),
        };
        let mut items = vec![0; link.mss() - size::INT];
        let mut complete = true;
        while let Some(message) = bulk.next_message(&mut items) {
            let mut header = Header::internal(User::NameDistributor, 0, own, peer.addr.0);
            header
                .set(field::BULK, 1)
                .set(field::LAST_BULK, message.flags.last_bulk.into())
                .set(field::NON_LEGACY, 1)
                .set(field::BC_ACK_INVALID, 1)
                .set(field::NAMED_SEQNO, message.named_seqno.into())
                .set_payload_len(message.data_size);
            let len = size::INT + message.data_size;
            let frame = ctx.alloc_written(Reserve::Control, Importance::System, len, |out| {
                out[..size::INT].copy_from_slice(header.as_bytes());
                out[size::INT..].copy_from_slice(&items[..message.data_size]);
            });
            let Some(frame) = frame else {
                complete = false;
                break;
            };
            link.submit(&mut ctx, frame, false);
        }
        drop(bulk);
        if !complete {
            // Its table would never be right; with the next contact it gets a new bulk.
            self.fail_link(now, index, DownReason::Overflow, host);
        }
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
        let (names, drops) = (&mut self.names, &mut self.core.drops);
        let result = peer.updates.on_message(message, |operation, item| {
            let publication = item.publication_of(node);
            let done = match operation {
                Operation::Publish => names.publish(publication).is_ok(),
                Operation::Withdraw => names
                    .withdraw(item.range, item.port, node, item.key)
                    .is_some(),
            };
            if !done {
                drops.count(Drop::BadBinding);
            }
        });
        match result {
            Ok(()) => {}
            Err(UpdateError::ForeignOrigin { .. }) => self.core.drops.count(Drop::BadBinding),
            Err(UpdateError::Overflow(_)) => self.fail_link(now, index, DownReason::Overflow, host),
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

/// Size of an update: header and one item.
const UPDATE_SIZE: usize = size::INT + Item::SIZE;

fn write_update(update: &Update, own: u32, dest: u32, out: &mut [u8]) {
    let mut header = Header::internal(
        User::NameDistributor,
        update.operation.to_wire().into(),
        own,
        dest,
    );
    header
        .set(field::NON_LEGACY, 1)
        .set(field::NAMED_SEQNO, update.named_seqno.into())
        .set_payload_len(Item::SIZE);
    out[..size::INT].copy_from_slice(header.as_bytes());
    out[size::INT..].copy_from_slice(&update.item.encode());
}
