//! How members come and go: the binding and the JOIN, in either order, and the end of both.

use super::member::{Member, MemberState};
use super::{ADV_IDLE, Group, MEMBERS_MAX, MEMBERS_OF_NODE_MAX, Note};
use crate::addr::{NodeAddr, SocketAddr};
use crate::seqno::SeqNo;
use crate::time::Instant;
use crate::wire::GroupKind;
use std::time::Duration;

/// How long a bound socket has to say that it is a member. Anybody can bind the group's type; without
/// this one who does would keep all members from broadcasting. (Linux waits for ever.)
pub const JOIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a member whose binding has gone is awaited. Its LEAVE comes with the binding's end, but to those only whom
/// it knew: a socket that has just come back may take a JOIN for itself which was meant for what it was before. (Linux
/// waits for ever.)
pub const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

impl Group {
    /// A socket is bound to the group's type.
    pub fn on_published(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        instance: u32,
        notes: &mut Vec<Note>,
    ) {
        if addr == self.own && !self.membership.loopback {
            return;
        }
        let Some(slot) = self.members.find(addr) else {
            if let Some(slot) = self.admit(addr, MemberState::Published, notes) {
                self.expect_join(now, slot, instance, notes);
            }
            return;
        };
        let member = &mut self.members[slot];
        member.bound = Some(instance);
        match member.state {
            MemberState::Joining => {
                self.on_both_known(slot, notes);
                self.send_join(slot, ADV_IDLE, notes);
                self.recount(now, notes);
            }
            MemberState::Gone => self.expect_join(now, slot, instance, notes),
            // The binding that went was of an earlier membership, or its LEAVE is still to come.
            MemberState::Leaving if member.awaits_leave() => {
                member.state = MemberState::Joined;
                self.recount(now, notes);
            }
            MemberState::Leaving
            | MemberState::Published
            | MemberState::Joined
            | MemberState::Pending
            | MemberState::Active
            | MemberState::Reclaiming
            | MemberState::Remitted => {}
        }
    }

    /// A socket is no longer bound to the group's type.
    pub fn on_withdrawn(&mut self, now: Instant, addr: SocketAddr, notes: &mut Vec<Note>) {
        let Some(slot) = self.members.find(addr) else {
            return;
        };
        let member = &mut self.members[slot];
        member.bound = None;
        match member.state {
            MemberState::Joining | MemberState::Leaving => {}
            MemberState::Published | MemberState::Gone => self.delete(now, slot, notes),
            MemberState::Joined
            | MemberState::Pending
            | MemberState::Active
            | MemberState::Reclaiming
            | MemberState::Remitted => {
                // Its LEAVE tells where its messages end.
                member.due = now + LEAVE_PATIENCE;
                let due = member.due;
                self.leave_due = Some(self.leave_due.map_or(due, |other| other.min(due)));
                self.stop_receiving(slot, notes);
                self.recount(now, notes);
            }
        }
    }

    /// A GROUP_PROTOCOL message.
    pub fn on_protocol(
        &mut self,
        now: Instant,
        from: SocketAddr,
        kind: GroupKind,
        notes: &mut Vec<Note>,
    ) {
        let slot = self.members.find(from);
        match (kind, slot) {
            (GroupKind::Join { bc_syncpt, window }, _) => {
                self.on_join(now, from, SeqNo(bc_syncpt), window, notes);
            }
            (_, None) => notes.push(Note::Violation),
            (GroupKind::Leave { bc_syncpt }, Some(slot)) => {
                self.on_leave(now, slot, SeqNo(bc_syncpt), notes);
            }
            (GroupKind::Adv { window }, Some(slot)) => self.grow(slot, window, notes),
            (GroupKind::Ack { bc_acked }, Some(slot)) => {
                self.on_ack(slot, SeqNo(bc_acked), notes);
            }
            (GroupKind::Reclaim, Some(slot)) => self.on_reclaim(slot, notes),
            (GroupKind::Remit { remitted }, Some(slot)) => self.on_remit(slot, remitted, notes),
        }
    }

    fn on_join(
        &mut self,
        now: Instant,
        from: SocketAddr,
        syncpt: SeqNo,
        window: u16,
        notes: &mut Vec<Note>,
    ) {
        let Some(slot) = self.members.find(from) else {
            if from == self.own && !self.membership.loopback {
                return notes.push(Note::Violation);
            }
            if let Some(slot) = self.admit(from, MemberState::Joining, notes) {
                self.members[slot].bc_rcv_nxt = syncpt;
                self.grow(slot, window, notes);
            }
            return;
        };
        let member = &mut self.members[slot];
        match member.state {
            MemberState::Joining => {
                member.bc_rcv_nxt = syncpt;
                self.grow(slot, window, notes);
            }
            MemberState::Published => {
                member.bc_rcv_nxt = syncpt;
                let skipped = std::mem::take(&mut member.skipped);
                self.on_both_known(slot, notes);
                if skipped {
                    // It waits for broadcasts that it was not sent.
                    self.behind_unicast = true;
                    self.send_join(slot, ADV_IDLE, notes);
                } else {
                    self.advertise(slot, ADV_IDLE, notes);
                }
                self.grow(slot, window, notes);
                self.recount(now, notes);
            }
            MemberState::Gone => {
                member.bc_rcv_nxt = syncpt;
                self.on_both_known(slot, notes);
                self.send_join(slot, ADV_IDLE, notes);
                self.grow(slot, window, notes);
                self.recount(now, notes);
            }
            MemberState::Leaving if member.leaves_at.is_some() => {
                member.rejoined = Some((syncpt.0, window));
            }
            MemberState::Leaving
            | MemberState::Joined
            | MemberState::Pending
            | MemberState::Active
            | MemberState::Reclaiming
            | MemberState::Remitted => {
                // It left this member out of its broadcasts for a while: to the user it begins anew. The
                // number never goes back.
                if member.bc_rcv_nxt.before(syncpt) {
                    member.bc_rcv_nxt = syncpt;
                    let (addr, instance) = (member.addr, member.instance);
                    notes.extend([Note::Left(addr, instance), Note::Joined(addr, instance)]);
                }
                self.grow(slot, window, notes);
            }
        }
    }

    fn on_leave(&mut self, now: Instant, slot: u32, syncpt: SeqNo, notes: &mut Vec<Note>) {
        match self.members[slot].state {
            MemberState::Gone => notes.push(Note::Violation),
            MemberState::Joining | MemberState::Published => self.delete(now, slot, notes),
            MemberState::Joined
            | MemberState::Pending
            | MemberState::Active
            | MemberState::Reclaiming
            | MemberState::Remitted
            | MemberState::Leaving => {
                self.members[slot].leaves_at = Some(syncpt);
                self.stop_receiving(slot, notes);
                self.recount(now, notes);
                self.finish_if_over(now, slot, notes);
            }
        }
    }

    /// The node of some members is lost: what of their messages has not come will not come.
    pub fn on_node_lost(&mut self, now: Instant, node: NodeAddr, notes: &mut Vec<Note>) {
        while let Some(slot) = self.members.first_on(node) {
            let member = &mut self.members[slot];
            (member.bound, member.rejoined) = (None, None);
            self.delete(now, slot, notes);
        }
    }

    /// The socket leaves: every member is told, whatever its state.
    pub fn leave(&self, notes: &mut Vec<Note>) {
        let bc_syncpt = self.bc_snd_nxt.0;
        let leave = GroupKind::Leave { bc_syncpt };
        notes.extend(self.members().map(|member| Note::Send(member.addr, leave)));
    }

    /// Gives up members whose LEAVE is overdue.
    pub fn expire(&mut self, now: Instant, notes: &mut Vec<Note>) {
        if self.leave_due.is_none_or(|due| now < due) {
            return;
        }
        let is_overdue = |slot: &u32| {
            let member = &self.members[*slot];
            member.awaits_leave() && member.due <= now
        };
        let overdue: Vec<u32> = self.members.slots().filter(is_overdue).collect();
        for slot in overdue {
            self.delete(now, slot, notes);
        }
        let awaited = self.members().filter(|member| member.awaits_leave());
        self.leave_due = awaited.map(|member| member.due).min();
    }

    /// A member has left if all before the synch point of its LEAVE has come.
    pub(super) fn finish_if_over(&mut self, now: Instant, slot: u32, notes: &mut Vec<Note>) {
        let member = &self.members[slot];
        if member.state == MemberState::Leaving
            && member
                .leaves_at
                .is_some_and(|end| !member.bc_rcv_nxt.before(end))
        {
            self.delete(now, slot, notes);
        }
    }

    /// A member sends what it may not: it and this socket are through with each other.
    pub(super) fn expel(&mut self, now: Instant, slot: u32, notes: &mut Vec<Note>) {
        let bc_syncpt = self.bc_snd_nxt.0;
        let leave = GroupKind::Leave { bc_syncpt };
        let member = &mut self.members[slot];
        let addr = member.addr;
        (member.bound, member.rejoined) = (None, None);
        notes.extend([Note::Violation, Note::Send(addr, leave)]);
        self.delete(now, slot, notes);
    }

    fn admit(
        &mut self,
        addr: SocketAddr,
        state: MemberState,
        notes: &mut Vec<Note>,
    ) -> Option<u32> {
        let there = self.nodes.get(&addr.node).copied().unwrap_or(0);
        let is_own = addr.node == self.own.node;
        if self.members.len() >= MEMBERS_MAX || (!is_own && there >= MEMBERS_OF_NODE_MAX) {
            notes.push(Note::Violation);
            return None;
        }
        *self.nodes.entry(addr.node).or_default() += 1;
        Some(self.members.insert(addr, state))
    }

    /// A socket is bound, and this one tells it that it is a member.
    fn expect_join(&mut self, now: Instant, slot: u32, instance: u32, notes: &mut Vec<Note>) {
        let member = &mut self.members[slot];
        member.state = MemberState::Published;
        member.bound = Some(instance);
        member.due = now + JOIN_PATIENCE;
        self.send_join(slot, 0, notes);
        self.recount(now, notes);
    }

    /// Binding and JOIN of a member are there.
    fn on_both_known(&mut self, slot: u32, notes: &mut Vec<Note>) {
        let member = &mut self.members[slot];
        member.instance = member.bound.unwrap_or(member.instance);
        member.state = MemberState::Joined;
        member.announced = true;
        notes.push(Note::Joined(member.addr, member.instance));
    }

    fn send_join(&mut self, slot: u32, window: u16, notes: &mut Vec<Note>) {
        let bc_syncpt = self.bc_snd_nxt.0;
        let member = &mut self.members[slot];
        member.advertised += window;
        let join = GroupKind::Join { bc_syncpt, window };
        notes.push(Note::Send(member.addr, join));
    }

    /// Nothing is sent to the member any more, and nothing expected of it.
    fn stop_receiving(&mut self, slot: u32, notes: &mut Vec<Note>) {
        let state = self.members[slot].state;
        self.members[slot].state = MemberState::Leaving;
        self.drop_credit_of(slot, state, notes);
        self.forgive_ack(slot, notes);
    }

    /// Forgets a member; the user is told if it knew of it.
    fn delete(&mut self, now: Instant, slot: u32, notes: &mut Vec<Note>) {
        self.stop_receiving(slot, notes);
        self.deferred.remove(&slot);
        let member = self.members.remove(slot);
        if let Some(count) = self.nodes.get_mut(&member.addr.node) {
            *count -= 1;
            if *count == 0 {
                self.nodes.remove(&member.addr.node);
            }
        }
        if member.announced {
            notes.push(Note::Left(member.addr, member.instance));
        }
        self.readmit(now, &member, notes);
        self.recount(now, notes);
    }

    /// A socket that left and is still bound, or came back before its end had come.
    fn readmit(&mut self, now: Instant, member: &Member, notes: &mut Vec<Note>) {
        if member.bound.is_some()
            && let Some(slot) = self.admit(member.addr, MemberState::Gone, notes)
        {
            self.members[slot].bound = member.bound;
        }
        if let Some((syncpt, window)) = member.rejoined {
            self.on_join(now, member.addr, SeqNo(syncpt), window, notes);
        }
    }
}
