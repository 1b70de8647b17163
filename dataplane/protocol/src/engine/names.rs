//! Bindings: made here, told to the cluster, learned from it (`docs/protocol/names.md`).

use super::{Engine, PeerIndex};
use crate::addr::PortId;
use crate::host::{DownReason, Host, Reserve};
use crate::name::{
    NameFlags, NameMessage, Operation, Publication, PublishError, RESERVED_TYPES, Scope, ServiceRange, Update,
    UpdateError,
};
use crate::port::Binding;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{Capabilities, Header, Importance, Msg, User, field, size};

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
    /// As many bindings as a node may have.
    #[error("the node has as many bindings as it may have")]
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
        let node = self.names.own_node();
        let port = self.ports.get_mut(&id).ok_or(BindError::NoSuchSocket)?;
        let key = port.next_key().ok_or(BindError::KeysUsedUp)?;
        let publication = Publication { range, scope, port: id.0, node, key };
        self.names.publish(publication).map_err(|why| match why {
            PublishError::EmptyRange(lower, upper) => BindError::EmptyRange { lower, upper },
            _ => BindError::TooMany,
        })?;
        port.on_bound(range, scope, key);
        self.tell(now, Operation::Publish, publication, host);
        self.settle(host);
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
        let newest = port.bindings.iter().rposition(|b| b.range == range && b.scope == scope);
        let binding = port.bindings.remove(newest.ok_or(BindError::NotBound)?);
        self.withdraw(now, id, binding, host);
        self.settle(host);
        Ok(())
    }

    /// Removes all bindings of a socket, the newest first.
    pub fn unbind_all<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) -> Result<(), BindError> {
        let port = self.ports.get_mut(&id).ok_or(BindError::NoSuchSocket)?;
        let mut bindings = std::mem::take(&mut port.bindings);
        while let Some(binding) = bindings.pop() {
            self.withdraw(now, id, binding, host);
        }
        self.settle(host);
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
        Some(Publication::link_state(self.core.own.0, peer.addr.0, own_bearer, link.peer_bearer().into()))
    }

    /// Tells the cluster of a change: by the broadcast link, or as copies if a peer does not take that.
    fn tell<H: Host>(&mut self, now: Instant, operation: Operation, what: Publication, host: &mut H) {
        let Some(update) = self.distributor.update(operation, what) else {
            return;
        };
        let up = || self.peers.iter().enumerate().filter(|(_, p)| p.as_ref().is_some_and(|p| p.is_up()));
        let legacy = |p: &Option<crate::node::Peer>| {
            p.as_ref().is_some_and(|p| !p.capabilities.has(Capabilities::NAMED_BCAST))
        };
        if up().any(|(_, p)| legacy(p)) {
            let indexes: Vec<PeerIndex> = up().map(|(index, _)| index).collect();
            for index in indexes {
                self.send_update(now, index, &update, host);
            }
            return;
        }
        if self.bcast.peers() == 0 {
            return;
        }
        let mut ctx = super::Ctx { now, core: &mut self.core, host, bcast_ack: crate::seqno::SeqNo(0) };
        let (header, item) = update_message(&update, ctx.core.own.0, 0);
        let packet = [header.as_bytes(), &item].concat();
        match ctx.alloc_filled(Reserve::Control, Importance::System, &packet) {
            Some(frame) => self.bcast.submit(&mut ctx, frame),
            None => ctx.core.drops.count(Drop::NoFrame),
        }
    }

    fn send_update<H: Host>(&mut self, now: Instant, index: PeerIndex, update: &Update, host: &mut H) {
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let (header, item) = update_message(update, ctx.core.own.0, peer.addr.0);
        let packet = [header.as_bytes(), &item].concat();
        let frame = ctx.alloc_filled(Reserve::Control, Importance::System, &packet);
        if let Some(frame) = frame
            && let Some(link) = peer.up_link()
        {
            link.submit(&mut ctx, frame, true);
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
        let mut ctx = super::Ctx { now, core: &mut self.core, host, bcast_ack: peer.bcast.ack() };
        let mut items = vec![0; link.mss() - size::INT];
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
            match frame {
                Some(frame) => link.submit(&mut ctx, frame, false),
                None => ctx.core.drops.count(Drop::NoFrame),
            }
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
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
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
                Operation::Withdraw => names.withdraw(item.range, item.port, node, item.key).is_some(),
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
        return Err(BindError::EmptyRange { lower: range.lower, upper: range.upper });
    }
    if range.type_ < RESERVED_TYPES {
        return Err(BindError::ReservedType(range.type_));
    }
    Ok(())
}

fn update_message(update: &Update, own: u32, dest: u32) -> (Header, [u8; 20]) {
    let item = update.item.encode();
    let mut header = Header::internal(User::NameDistributor, update.operation.to_wire().into(), own, dest);
    header
        .set(field::NON_LEGACY, 1)
        .set(field::NAMED_SEQNO, update.named_seqno.into())
        .set_payload_len(item.len());
    (header, item)
}
