//! Sockets in groups: joining and leaving, and what members tell each other
//! (`docs/protocol/groups.md`).
//!
//! The groups decide ([`crate::group`]); what they want said goes through one queue, to members of this
//! node as well, and is said at the end of the input. A message that finds no room on its link is said
//! later, in its order.

use super::send::{Message, SendError};
use super::{BindError, Engine, GROUP_TIMER};
use crate::addr::{NodeAddr, PortId, SocketAddr};
use crate::group::{Group, MemberNo, Membership, Note, blocks_of};
use crate::host::{FromMember, Host, Incoming, MemberNews};
use crate::name::{RESERVED_TYPES, Scope, ServiceRange};
use crate::port::{MESSAGE_OVERHEAD, SocketKind};
use crate::seqno::SeqNo;
use crate::stats::Drop;
use crate::time::Instant;
use crate::topology::{Event, EventKind, Filter, Subscriber, Subscription};
use crate::wire::{GroupKind, Header, Importance, errcode, field};
use std::collections::{BTreeMap, VecDeque};

/// Members that all sockets of this node know together at most.
pub const GROUP_MEMBERS_MAX: usize = 1 << 20;

/// Why a socket did not join a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It does not exist.
    #[error("no such socket")]
    NoSuchSocket,
    /// It is of a connection type.
    #[error(
        "a socket of a connection type gets no messages of a group: RDM and DGRAM sockets join"
    )]
    ConnectionType,
    /// A type that only the system uses.
    #[error("group {0} is reserved: groups have types from {RESERVED_TYPES} on")]
    ReservedType(u32),
    /// A socket is in one group at a time.
    #[error("the socket is in group {0} already: it can join one group only")]
    Member(u32),
    /// The node tells no more subscribers.
    #[error("the node has as many subscriptions as it may have, and a group needs one")]
    TooMany,
    /// It could not be bound.
    #[error("the group's type and instance could not be bound: {0}")]
    Bind(#[from] BindError),
}

/// A socket that was to leave a group is in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the socket is in no group")]
pub struct NoMember;

/// Something one member tells another.
#[derive(Clone, Copy, Debug)]
struct Mail {
    from: PortId,
    to: SocketAddr,
    kind: GroupKind,
}

/// What all groups of the node have in common.
#[derive(Default)]
pub(super) struct Groups {
    /// Sockets of this node, by group.
    by_type: BTreeMap<u32, Vec<PortId>>,
    /// Members that all of them know.
    known: usize,
    /// To be said.
    mail: VecDeque<Mail>,
    /// Said, and found no room.
    stuck: VecDeque<Mail>,
    /// Sockets whose refused message may go.
    open: Vec<PortId>,
    /// What the group at hand wants.
    notes: Vec<Note>,
    /// When refused messages are looked at again.
    look_at: Option<Instant>,
}

impl Groups {
    /// Sockets of this node in a group.
    pub(super) fn of_type(&self, group: u32) -> &[PortId] {
        self.by_type.get(&group).map_or(&[], Vec::as_slice)
    }

    /// True if nothing is left to do at all.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.is_quiet() && self.stuck.is_empty()
    }

    /// True if nothing is left to do in this input.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.mail.is_empty() && self.open.is_empty()
    }

    fn enter(&mut self, group: u32, id: PortId) {
        self.by_type.entry(group).or_default().push(id);
    }

    fn forget(&mut self, group: u32, id: PortId) {
        if let Some(sockets) = self.by_type.get_mut(&group) {
            sockets.retain(|socket| *socket != id);
            if sockets.is_empty() {
                self.by_type.remove(&group);
            }
        }
    }

    /// Keeps what found no room. One member says each thing to another once: what it says again comes
    /// to what the last one said.
    fn keep(&mut self, mail: Mail) {
        let same = |m: &&mut Mail| {
            (m.from, m.to) == (mail.from, mail.to)
                && std::mem::discriminant(&m.kind) == std::mem::discriminant(&mail.kind)
        };
        let Some(there) = self.stuck.iter_mut().find(same) else {
            return self.stuck.push_back(mail);
        };
        match (&mut there.kind, mail.kind) {
            (GroupKind::Adv { window }, GroupKind::Adv { window: more }) => {
                *window = window.saturating_add(more);
            }
            (GroupKind::Remit { .. } | GroupKind::Reclaim, _) => {}
            (kept, newer) => *kept = newer,
        }
    }
}

impl Engine {
    /// Makes a socket a member of a group: binds it to the group's type and its instance, and tells the
    /// members there are. They answer, and then can be sent to.
    pub fn join_group<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        membership: Membership,
        host: &mut H,
    ) -> Result<(), JoinError> {
        let joined = self.enter_group(now, id, membership, host);
        self.settle(now, host);
        joined
    }

    fn enter_group<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        membership: Membership,
        host: &mut H,
    ) -> Result<(), JoinError> {
        let own = self.socket_addr(id);
        let port = self.ports.get_mut(&id).ok_or(JoinError::NoSuchSocket)?;
        if membership.group < RESERVED_TYPES {
            return Err(JoinError::ReservedType(membership.group));
        }
        if let Some(group) = &port.group {
            return Err(JoinError::Member(group.membership.group));
        }
        if !matches!(port.kind, SocketKind::Rdm | SocketKind::Dgram) {
            return Err(JoinError::ConnectionType);
        }
        self.hear_of_members(now, id, membership)?;
        if let Some(port) = self.ports.get_mut(&id) {
            let group = Group::new(membership, own, port.bc_snd_nxt);
            port.group = Some(Box::new(group));
        }
        self.groups.enter(membership.group, id);
        self.find_members(now, id, host);
        let range = ServiceRange::instance(membership.group, membership.instance);
        let bound = self.make_binding(now, id, range, membership.scope, host);
        if let Err(error) = bound {
            self.leave(now, id, host);
            return Err(error.into());
        }
        Ok(())
    }

    /// Ends a membership: the members are told, then the binding is taken back.
    pub fn leave_group<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        host: &mut H,
    ) -> Result<(), NoMember> {
        let was_member = self.leave(now, id, host);
        self.settle(now, host);
        if was_member { Ok(()) } else { Err(NoMember) }
    }

    /// The same within an input. False if the socket is in no group.
    pub(super) fn leave<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) -> bool {
        self.in_group(id, host, |group, notes| group.leave(notes));
        let Some(port) = self.ports.get_mut(&id) else {
            return false;
        };
        let Some(group) = port.group.take() else {
            return false;
        };
        port.bc_snd_nxt = SeqNo(group.bc_snd_nxt());
        let Membership {
            group: type_,
            instance,
            scope,
            ..
        } = group.membership;
        self.groups.known -= group.members().count();
        self.groups.forget(type_, id);
        self.topology.close(Subscriber(id.0));
        self.post_mail(now, host);
        self.drop_binding(
            now,
            id,
            ServiceRange::instance(type_, instance),
            scope,
            host,
        );
        true
    }

    /// A socket's group, with what it knows of the other members.
    pub fn group(&self, id: PortId) -> Option<&Group> {
        self.ports.get(&id)?.group.as_deref()
    }

    /// The socket has read a message of a member, which counted `cost`: the member may send more.
    /// [`Self::acknowledge_consumed`] tells it.
    pub fn on_group_read(&mut self, id: PortId, member: MemberNo, cost: u32) {
        self.on_consumed(id, cost);
        let blocks = blocks_of(cost.saturating_sub(MESSAGE_OVERHEAD) as usize);
        let mut notes = std::mem::take(&mut self.groups.notes);
        if let Some(group) = self.ports.get_mut(&id).and_then(|p| p.group.as_mut()) {
            group.on_read(member, blocks, &mut notes);
        }
        for note in notes.drain(..) {
            // Reading makes nobody come or go.
            let _ = self.act_on_note(id, note);
        }
        self.groups.notes = notes;
    }

    /// Does something in a socket's group, and what that asks for.
    pub(super) fn in_group<H: Host, R>(
        &mut self,
        id: PortId,
        host: &mut H,
        act: impl FnOnce(&mut Group, &mut Vec<Note>) -> R,
    ) -> Option<R> {
        let group = self.ports.get_mut(&id)?.group.as_deref_mut()?;
        let mut notes = std::mem::take(&mut self.groups.notes);
        let before = group.members().len();
        let result = act(group, &mut notes);
        self.groups.known = self.groups.known - before + group.members().len();
        if let Some(at) = group.looks_again_at() {
            self.look_at_groups(at);
        }
        for note in notes.drain(..) {
            if let Some((member, instance, news)) = self.act_on_note(id, note) {
                self.deliver_member_event(id, member, instance, news, host);
            }
        }
        self.groups.notes = notes;
        Some(result)
    }

    /// Does what a group asks for; gives the event to be delivered, if that is what it is.
    fn act_on_note(&mut self, id: PortId, note: Note) -> Option<(SocketAddr, u32, MemberNews)> {
        match note {
            Note::Send(to, kind) => {
                let from = id;
                self.groups.mail.push_back(Mail { from, to, kind });
            }
            Note::Open => self.groups.open.push(id),
            Note::Violation => self.core.drops.count(Drop::GroupViolation),
            Note::Joined(member, instance) => return Some((member, instance, MemberNews::Joined)),
            Note::Left(member, instance) => return Some((member, instance, MemberNews::Left)),
        }
        None
    }

    fn deliver_member_event<H: Host>(
        &mut self,
        id: PortId,
        member: SocketAddr,
        instance: u32,
        news: MemberNews,
        host: &mut H,
    ) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        let Some(group) = port.group.as_ref().filter(|g| g.membership.events) else {
            return;
        };
        let group = group.membership.group;
        if !port.has_room(Importance::Low, MESSAGE_OVERHEAD) {
            port.overloads += 1;
            return self.core.drops.count(Drop::Overload);
        }
        port.on_waiting(MESSAGE_OVERHEAD);
        let about = Incoming {
            source: member,
            dest_name: None,
            importance: Importance::Low,
            errcode: errcode::OK as u8,
            cost: MESSAGE_OVERHEAD,
            returnable: false,
            refused: false,
            group: Some(FromMember {
                group,
                instance,
                news,
            }),
        };
        host.deliver(id, &about, &[][..]);
    }

    /// Subscribes a socket to the bindings of its group.
    fn hear_of_members(
        &mut self,
        now: Instant,
        id: PortId,
        membership: Membership,
    ) -> Result<(), JoinError> {
        let scope = match membership.scope {
            Scope::Cluster => Filter::CLUSTER_SCOPE,
            Scope::Node => Filter::NODE_SCOPE,
        };
        let filter = Filter::PORTS.with(Filter::NO_STATUS).with(scope);
        let subscription = Subscription::new(everyone(membership.group), filter, None, [0; 8]);
        let subscriber = Subscriber(id.0);
        self.topology.open(subscriber, None);
        self.topology
            .on_request(now, subscriber, subscription.as_bytes(), &self.names)
            .map_err(|_| JoinError::TooMany)
    }

    /// Tells a socket's group who is bound, and who is not any more.
    fn find_members<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        let Some(group) = self.group(id) else {
            return;
        };
        let membership = group.membership;
        let bound = self.names.overlapping(everyone(membership.group));
        let bound = bound.filter(|(found, _)| found.scope == membership.scope);
        let bound: Vec<(SocketAddr, u32)> = bound
            .map(|(found, _)| (addr_of(found.port, found.node), found.range.lower))
            .collect();
        let is_bound = |addr| bound.iter().any(|(there, _)| *there == addr);
        let gone = group.members().map(|m| m.addr).filter(|m| !is_bound(*m));
        let gone: Vec<SocketAddr> = gone.collect();
        for addr in gone {
            self.in_group(id, host, |group, notes| {
                group.on_withdrawn(now, addr, notes)
            });
        }
        for (addr, instance) in bound {
            self.on_member_bound(now, id, addr, instance, host);
        }
    }

    fn on_member_bound<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        addr: SocketAddr,
        instance: u32,
        host: &mut H,
    ) {
        if self.admits(id, addr) {
            self.in_group(id, host, |group, notes| {
                group.on_published(now, addr, instance, notes);
            });
        }
    }

    /// False if the member is new, and the node knows as many as it may.
    fn admits(&mut self, id: PortId, addr: SocketAddr) -> bool {
        let is_full = self.groups.known >= GROUP_MEMBERS_MAX;
        let is_new = || self.group(id).is_some_and(|g| g.member(addr).is_none());
        let refused = is_full && is_new();
        if refused {
            self.core.drops.count(Drop::GroupViolation);
        }
        !refused
    }

    /// What the topology service has to say to a socket's group.
    pub(super) fn feed_group<H: Host>(
        &mut self,
        now: Instant,
        subscriber: Subscriber,
        host: &mut H,
    ) {
        let id = PortId(subscriber.0);
        while let Some(event) = self.topology.next_event(subscriber).and_then(Event::decode) {
            self.topology.taken(subscriber);
            let addr = addr_of(event.port, event.node);
            match event.kind {
                EventKind::Published => {
                    self.on_member_bound(now, id, addr, event.found_lower, host);
                }
                EventKind::Withdrawn => {
                    self.in_group(id, host, |group, notes| {
                        group.on_withdrawn(now, addr, notes)
                    });
                }
                EventKind::Timeout => {}
            }
        }
    }

    /// The topology service has closed the subscription of a socket's group, since more happened at once
    /// than it keeps: what is bound now is all that counts.
    pub(super) fn resume_group<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        if let Some(membership) = self.group(id).map(|group| group.membership) {
            // Its place has just become free.
            let _ = self.hear_of_members(now, id, membership);
            self.find_members(now, id, host);
        }
    }

    /// A node is lost, and with it its members of all groups.
    pub(super) fn lose_members<H: Host>(&mut self, now: Instant, node: NodeAddr, host: &mut H) {
        for id in self.group_sockets() {
            self.in_group(id, host, |group, notes| {
                group.on_node_lost(now, node, notes)
            });
        }
    }

    fn group_sockets(&self) -> Vec<PortId> {
        self.groups.by_type.values().flatten().copied().collect()
    }

    /// A GROUP_PROTOCOL message of a peer.
    pub(super) fn on_group_packet<H: Host>(&mut self, now: Instant, header: &Header, host: &mut H) {
        let from = addr_of(header.get(field::ORIG_PORT), header.orig_node());
        let to = PortId(header.get(field::DEST_PORT));
        match GroupKind::of(header) {
            Some(kind) => self.on_group_protocol(now, to, from, kind, host),
            None => self.core.drops.count(Drop::MalformedControl),
        }
    }

    fn on_group_protocol<H: Host>(
        &mut self,
        now: Instant,
        to: PortId,
        from: SocketAddr,
        kind: GroupKind,
        host: &mut H,
    ) {
        let Some(membership) = self.group(to).map(|group| group.membership) else {
            return self.core.drops.count(Drop::NoPort);
        };
        if membership.scope == Scope::Node && !self.is_own(from.node) {
            return self.core.drops.count(Drop::NotMember);
        }
        if matches!(kind, GroupKind::Join { .. }) && !self.admits(to, from) {
            return;
        }
        self.in_group(to, host, |group, notes| {
            group.on_protocol(now, from, kind, notes)
        });
    }

    /// The end of every input: what members tell each other is said, senders hear that they may go on.
    pub(super) fn serve_groups<H: Host>(&mut self, now: Instant, host: &mut H) {
        self.post_mail(now, host);
        while let Some(id) = self.groups.open.pop() {
            // A congested link has its own call.
            if self.ports.get(&id).is_some_and(|port| !port.is_congested()) {
                self.tell_writable(id, host);
            }
        }
    }

    /// Tries again what found no room. Nothing overtakes what waits for the same node.
    pub(super) fn post_stuck<H: Host>(&mut self, now: Instant, host: &mut H) {
        if self.groups.stuck.is_empty() {
            return;
        }
        let stuck = std::mem::take(&mut self.groups.stuck);
        for mail in stuck {
            self.post(now, mail, host);
        }
    }

    fn post_mail<H: Host>(&mut self, now: Instant, host: &mut H) {
        while let Some(mail) = self.groups.mail.pop_front() {
            self.post(now, mail, host);
        }
    }

    fn post<H: Host>(&mut self, now: Instant, mail: Mail, host: &mut H) {
        let node = mail.to.node;
        let waits_behind = self.groups.stuck.iter().any(|m| m.to.node == node);
        if waits_behind || !self.say(now, mail, host) {
            self.groups.keep(mail);
        }
    }

    /// False if there is no room.
    fn say<H: Host>(&mut self, now: Instant, mail: Mail, host: &mut H) -> bool {
        let Mail { to, kind, .. } = mail;
        let from = self.socket_addr(mail.from);
        if self.is_own(to.node) {
            self.on_group_protocol(now, to.port, from, kind, host);
            return true;
        }
        let Some(index) = self.reachable(to.node) else {
            return true;
        };
        if !self.tell_first(now, index, mail.from.0, host) {
            return false;
        }
        let header = kind.message(from, to);
        let message = if matches!(kind, GroupKind::Leave { .. }) {
            // It stays behind the messages that were sent before it.
            Message::apart(&header, &[][..])
        } else {
            Message::new(&header, &[][..])
        };
        let said = self.transmit_message(now, to.node, &message, host);
        said != Err(SendError::Congested)
    }

    fn look_at_groups(&mut self, at: Instant) {
        if self.groups.look_at.is_none_or(|before| at < before) {
            self.groups.look_at = Some(at);
            self.wheel.arm(GROUP_TIMER, at);
        }
    }

    /// Messages that waited for sockets which turn out to be no members may go, and members whose LEAVE is overdue
    /// are gone.
    pub(super) fn on_group_timer<H: Host>(&mut self, now: Instant, host: &mut H) {
        self.groups.look_at = None;
        for id in self.group_sockets() {
            let at = self.group(id).and_then(Group::looks_again_at);
            match at {
                Some(at) if at <= now => {
                    self.in_group(id, host, |group, notes| {
                        group.expire(now, notes);
                        group.recount(now, notes);
                    });
                }
                Some(at) => self.look_at_groups(at),
                None => {}
            }
        }
    }
}

/// All members of a group, as a service range.
fn everyone(group: u32) -> ServiceRange {
    ServiceRange {
        type_: group,
        lower: 0,
        upper: u32::MAX,
    }
}

fn addr_of(port: u32, node: u32) -> SocketAddr {
    SocketAddr {
        port: PortId(port),
        node: NodeAddr(node),
    }
}
