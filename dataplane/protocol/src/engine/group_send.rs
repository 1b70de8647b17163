//! From a member to the others (`docs/protocol/groups.md`, sending).

use super::Engine;
use super::send::{Message, SendError, Sender, packet_count};
use crate::addr::{Destination, NodeAddr, PortId, SocketAddr};
use crate::group::{Group, Membership, Refusal, blocks_of};
use crate::host::{Host, Payload};
use crate::port::McastMethod;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{DataType, Header, field, size};

impl From<Refusal> for SendError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoMember => Self::Unreachable,
            Refusal::Wait => Self::Congested,
        }
    }
}

impl Engine {
    /// Sends a message of a member to all others.
    pub fn send_to_group<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let Some(port) = self.ports.get_mut(&from) else {
            return Err(SendError::NoSuchSocket);
        };
        let refused_at = port.refused_at.take();
        let result = self.send_to_all(now, from, payload, host);
        self.note_outcome(now, from, refused_at, result);
        self.settle(now, host);
        result
    }

    fn send_to_all<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        if payload.len() > size::MAX_PAYLOAD {
            return Err(SendError::TooLong(payload.len()));
        }
        if self.group(from).is_none() {
            return Err(SendError::NotConnected);
        }
        self.group_cast(now, from, DataType::GroupBcast, 0, payload, host)
    }

    /// The group a socket is in.
    pub(super) fn membership(&self, id: PortId) -> Option<Membership> {
        self.group(id).map(|group| group.membership)
    }

    /// Sends a message of a member to those that a destination means: of its service type and look-up
    /// domain nothing counts, since the group is meant.
    pub(super) fn send_in_group<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        to: &Destination,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        match *to {
            Destination::Socket(SocketAddr { port, node }) => {
                let node = if node == NodeAddr::NONE {
                    self.core.own
                } else {
                    node
                };
                let to = SocketAddr { port, node };
                self.group_unicast(now, from, to, payload, host)
            }
            Destination::Service { instance, .. } => {
                let blocks = blocks_of(payload.len());
                let chosen = self.ask_group(from, host, |group, notes| {
                    group.choose(now, instance, blocks, notes)
                });
                self.group_unicast(now, from, chosen?, payload, host)
            }
            Destination::Range { lower, upper, .. } if lower > upper => {
                Err(SendError::EmptyRange(lower, upper))
            }
            Destination::Range { lower, .. } => {
                let found = self.group(from).and_then(|g| g.bearer_of(now, lower));
                match found.ok_or(SendError::Unreachable)? {
                    (only, true) => self.group_unicast(now, from, only, payload, host),
                    (_, false) => {
                        let kind = DataType::GroupMcast;
                        self.group_cast(now, from, kind, lower, payload, host)
                    }
                }
            }
        }
    }

    fn ask_group<H: Host, R>(
        &mut self,
        from: PortId,
        host: &mut H,
        ask: impl FnOnce(&mut Group, &mut Vec<crate::group::Note>) -> Result<R, Refusal>,
    ) -> Result<R, SendError> {
        match self.in_group(from, host, ask) {
            Some(answer) => Ok(answer?),
            None => Err(SendError::NotConnected),
        }
    }

    fn group_unicast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        to: SocketAddr,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let port = self.ports.get(&from);
        if port.is_some_and(|port| port.is_congested_to(to.node)) {
            return Err(SendError::Congested);
        }
        let blocks = blocks_of(payload.len());
        self.ask_group(from, host, |group, notes| {
            group.may_send(now, to, blocks, notes)
        })?;
        let mut header = self.group_header(from, DataType::GroupUcast)?;
        header
            .set(field::DEST_PORT, to.port.0)
            .set(field::DEST_NODE, to.node.0)
            .set_payload_len(payload.len());
        let message = self.in_order(from, &header, payload);
        self.hand_over(now, from, to.node, &message, host)?;
        self.note_sent(from, |group| group.on_sent(to, blocks));
        Ok(())
    }

    /// A broadcast, or a multicast that several members may get.
    fn group_cast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        kind: DataType,
        instance: u32,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        if self.ports.get(&from).is_some_and(|p| p.is_congested()) {
            return Err(SendError::Congested);
        }
        let blocks = blocks_of(payload.len());
        self.ask_group(from, host, |group, notes| {
            group.may_broadcast(now, blocks, notes)
        })?;
        let mut header = self.group_header(from, kind)?;
        header
            .set(field::NAME_LOWER, instance)
            .set_payload_len(payload.len());
        let own = self.core.own;
        let mut remote = std::mem::take(&mut self.receivers);
        remote.clear();
        let mut is_here = false;
        if let Some(group) = self.group(from) {
            is_here = group.nodes().any(|node| node == own);
            remote.extend(group.nodes().filter(|node| *node != own));
            header.set(field::GROUP_ACK_REQ, group.is_behind_unicast().into());
        }
        let sent = if remote.is_empty() {
            Ok(())
        } else {
            self.cast_to_nodes(now, from, &mut header, payload, &remote, host)
        };
        self.receivers = remote;
        sent?;
        self.note_sent(from, |group| group.on_broadcast_sent(now, blocks));
        if is_here {
            self.deliver_group_cast(now, &header, payload, host);
        }
        Ok(())
    }

    /// All copies or none.
    fn cast_to_nodes<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        from: PortId,
        header: &mut Header,
        payload: &P,
        nodes: &[NodeAddr],
        host: &mut H,
    ) -> Result<(), SendError> {
        let behind = self.group(from).is_some_and(Group::is_behind_unicast);
        let (chosen, _) = self.choose_method(from, nodes.len());
        let method = if behind {
            McastMethod::Replicast
        } else {
            chosen
        };
        self.admit_copies(now, from, method, header.len() + payload.len(), nodes, host)?;
        let is_rcast = method == McastMethod::Replicast;
        header.set(field::IS_RCAST, is_rcast.into());
        let message = self.in_order(from, header, payload);
        self.multicast_by(now, from, method, &message, nodes, host);
        Ok(())
    }

    /// Makes sure that all packets of a message of `len` bytes find a frame.
    fn admit_copies<H: Host>(
        &mut self,
        now: Instant,
        from: PortId,
        method: McastMethod,
        len: usize,
        nodes: &[NodeAddr],
        host: &mut H,
    ) -> Result<(), SendError> {
        self.await_telling(from, NodeAddr::NONE)?;
        let mut mss = self.bcast.mss();
        for node in nodes {
            let Some(index) = self.reachable(*node) else {
                continue;
            };
            mss = mss.min(self.mss_to(index));
            if method == McastMethod::Replicast && !self.tell_first(now, index, from.0, host) {
                self.note_starved(from, NodeAddr::NONE, nodes.len());
                return Err(SendError::Congested);
            }
        }
        let copies = match method {
            McastMethod::Broadcast => 1,
            McastMethod::Replicast => nodes.len(),
        };
        let frames = copies * packet_count(len, mss);
        if !self.starved.admits(from, frames, host.frames_free()) {
            self.note_starved(from, NodeAddr::NONE, frames);
            return Err(SendError::Congested);
        }
        Ok(())
    }

    /// Delivers a broadcast or multicast to the members of this node.
    pub(super) fn deliver_group_cast<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) {
        let scope = header.get(field::LOOKUP_SCOPE);
        let mut members = std::mem::take(&mut self.members);
        members.clear();
        let here = self.groups.of_type(header.get(field::NAME_TYPE));
        members.extend(here.iter().map(|id| id.0));
        let mut found = false;
        for id in &members {
            let id = PortId(*id);
            if self
                .membership(id)
                .is_some_and(|m| m.scope.to_wire() == scope)
            {
                found = true;
                self.take_group_message(now, id, header, payload, host);
            }
        }
        self.members = members;
        if !found {
            self.core.drops.count(Drop::NoMulticastMember);
        }
    }

    /// What all messages of a member have in common.
    fn group_header(&self, from: PortId, kind: DataType) -> Result<Header, SendError> {
        let port = self.ports.get(&from).ok_or(SendError::NoSuchSocket)?;
        let group = port.group.as_deref().ok_or(SendError::NotConnected)?;
        let membership = group.membership;
        let mut header = self.data_header(&Sender::of(port), kind, size::MCAST);
        header
            .set(field::DEST_DROPPABLE, 1)
            .set(field::IS_RCAST, 0)
            .set(field::LOOKUP_SCOPE, membership.scope.to_wire())
            .set(field::NAME_TYPE, membership.group)
            .set(field::GROUP_BC_SEQNO, group.bc_snd_nxt().into());
        Ok(header)
    }

    /// A message that does not overtake those the member sent with another importance.
    fn in_order<'a, P: Payload + ?Sized>(
        &self,
        from: PortId,
        header: &'a Header,
        payload: &'a P,
    ) -> Message<'a, P> {
        let importance = self.ports.get(&from).map(|port| port.importance);
        let before = self.group(from).and_then(|group| group.sent_importance);
        if before.is_none() || before == importance {
            Message::new(header, payload)
        } else {
            Message::apart(header, payload)
        }
    }

    fn note_sent(&mut self, from: PortId, note: impl FnOnce(&mut Group)) {
        let Some(port) = self.ports.get_mut(&from) else {
            return;
        };
        if let Some(group) = port.group.as_deref_mut() {
            group.sent_importance = Some(port.importance);
            note(group);
        }
    }
}
