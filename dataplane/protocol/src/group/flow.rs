//! Credit (`docs/protocol/groups.md`, windows). Each member may send a small window at any time; those that
//! are read get a large one, as many as there are slots, and the one read least recently gives it back.

use super::member::{Member, MemberNo, MemberState};
use super::{Group, Note};
use crate::seqno::SeqNo;
use crate::wire::GroupKind;

/// The small window: one message of the largest size.
pub const ADV_IDLE: u16 = super::blocks_of(crate::wire::size::MAX_PAYLOAD);
/// The large window.
pub const ADV_ACTIVE: u16 = 12 * ADV_IDLE;
/// An active member is granted more when it has this much left, or less.
const REFILL_AT: u16 = ADV_ACTIVE / 4 * 3;
/// A member that waits for a slot is granted the small window anew when it has this much left: it must not
/// stand still because others do not give theirs back. (Linux grants nothing.)
const PENDING_REFILL_AT: u16 = ADV_IDLE / 4;

/// What a block of credit may come to in the receive buffer: messages cost more than their bytes.
const BLOCK_COST: u64 = 2048;

const _: () = assert!(ADV_IDLE == 65 && ADV_ACTIVE == 780 && REFILL_AT == 585);

impl Group {
    /// Members that may have a large window at once.
    pub(super) fn active_max(&self) -> usize {
        ((self.members.len() + 1) / 8).clamp(16, 64)
    }

    /// What may wait for the socket, in bytes as a receive buffer counts them: all that its members were
    /// granted, and more.
    pub fn receive_limit(&self) -> u64 {
        let active = self.active_max() as u64;
        let others = (self.members.len() as u64 + 1).saturating_sub(active);
        (active * u64::from(ADV_ACTIVE) + others * u64::from(ADV_IDLE)) * BLOCK_COST
    }

    /// A message was read, or is not to be read: its sender has the blocks back in time.
    pub fn on_read(&mut self, no: MemberNo, blocks: u16, notes: &mut Vec<Note>) {
        if let Some(slot) = self.members.find_numbered(no) {
            self.credit(slot, blocks, notes);
        }
    }

    pub(super) fn credit(&mut self, slot: u32, blocks: u16, notes: &mut Vec<Note>) {
        let member = &mut self.members[slot];
        // A Linux sender may overrun what it was granted.
        member.advertised = member.advertised.saturating_sub(blocks);
        let left = member.advertised;
        match member.state {
            MemberState::Joined => self.want_slot(slot, notes),
            MemberState::Active => {
                self.active.retain(|other| *other != slot);
                self.active.push_back(slot);
                if left <= REFILL_AT {
                    self.advertise(slot, ADV_ACTIVE, notes);
                }
            }
            MemberState::Pending if left <= PENDING_REFILL_AT => {
                self.advertise(slot, ADV_IDLE, notes);
            }
            MemberState::Remitted if left <= ADV_IDLE => {
                self.release_slot(slot);
                self.advertise(slot, ADV_IDLE, notes);
                self.promote_pending(notes);
            }
            MemberState::Joining
            | MemberState::Published
            | MemberState::Pending
            | MemberState::Reclaiming
            | MemberState::Remitted
            | MemberState::Leaving
            | MemberState::Gone => {}
        }
    }

    /// A member of the small window was read: it gets the large one, or waits for it.
    fn want_slot(&mut self, slot: u32, notes: &mut Vec<Note>) {
        let (count, max) = (self.active_count, self.active_max());
        if count <= max {
            self.members[slot].state = MemberState::Active;
            self.active.push_back(slot);
            self.active_count += 1;
            self.advertise(slot, ADV_ACTIVE, notes);
        } else {
            self.members[slot].state = MemberState::Pending;
            self.pending.push_back(slot);
        }
        if count < max * 3 / 4 {
            return;
        }
        if let Some(oldest) = self.active.pop_front() {
            let oldest = &mut self.members[oldest];
            oldest.state = MemberState::Reclaiming;
            notes.push(Note::Send(oldest.addr, GroupKind::Reclaim));
        } else if let Some(oldest) = self.pending.pop_front() {
            self.members[oldest].state = MemberState::Joined;
            self.advertise(oldest, ADV_IDLE, notes);
        }
    }

    /// The large window is to be given back: what is left of it is told, and the small one remains.
    pub(super) fn on_reclaim(&mut self, slot: u32, notes: &mut Vec<Note>) {
        let member = &mut self.members[slot];
        let remitted = member.window;
        notes.push(Note::Send(member.addr, GroupKind::Remit { remitted }));
        member.window = 0;
        self.grow(slot, ADV_IDLE, notes);
    }

    /// A large window came back.
    pub(super) fn on_remit(&mut self, slot: u32, remitted: u16, notes: &mut Vec<Note>) {
        let member = &mut self.members[slot];
        if member.state != MemberState::Reclaiming {
            return notes.push(Note::Violation);
        }
        match member.advertised.checked_sub(remitted) {
            Some(in_flight) if in_flight > 0 => {
                member.state = MemberState::Remitted;
                member.advertised = ADV_IDLE + in_flight;
            }
            all_read => {
                if all_read.is_none() {
                    notes.push(Note::Violation);
                }
                member.advertised = ADV_IDLE;
                self.release_slot(slot);
                self.promote_pending(notes);
            }
        }
    }

    fn release_slot(&mut self, slot: u32) {
        self.members[slot].state = MemberState::Joined;
        self.active_count -= 1;
    }

    /// A slot is free: the member that has waited longest gets it.
    fn promote_pending(&mut self, notes: &mut Vec<Note>) {
        if let Some(oldest) = self.pending.pop_front() {
            self.members[oldest].state = MemberState::Active;
            self.active.push_back(oldest);
            self.active_count += 1;
            self.advertise(oldest, ADV_ACTIVE, notes);
        }
    }

    /// A member that was in `state` is to get no more credit.
    pub(super) fn drop_credit_of(&mut self, slot: u32, state: MemberState, notes: &mut Vec<Note>) {
        if state == MemberState::Pending {
            self.pending.retain(|other| *other != slot);
        }
        if state == MemberState::Active {
            self.active.retain(|other| *other != slot);
        }
        if state.holds_slot() {
            self.active_count -= 1;
            self.promote_pending(notes);
        }
    }

    /// Grants a member what it lacks of `window`.
    pub(super) fn advertise(&mut self, slot: u32, window: u16, notes: &mut Vec<Note>) {
        let member = &mut self.members[slot];
        let granted = window.saturating_sub(member.advertised);
        if granted > 0 {
            member.advertised += granted;
            let adv = GroupKind::Adv { window: granted };
            notes.push(Note::Send(member.addr, adv));
        }
    }

    /// A send has to wait for this member: perhaps it waits for this one.
    pub(super) fn top_up(&mut self, slot: u32, notes: &mut Vec<Note>) {
        match self.members[slot].state {
            MemberState::Joined | MemberState::Pending => self.advertise(slot, ADV_IDLE, notes),
            MemberState::Active => self.advertise(slot, ADV_ACTIVE, notes),
            MemberState::Joining
            | MemberState::Published
            | MemberState::Reclaiming
            | MemberState::Remitted
            | MemberState::Leaving
            | MemberState::Gone => {}
        }
    }

    /// A member lets one send more.
    pub(super) fn grow(&mut self, slot: u32, granted: u16, notes: &mut Vec<Note>) {
        let member = &mut self.members[slot];
        let before = member.window;
        if !member.widen(granted) {
            notes.push(Note::Violation);
        }
        self.on_window_grown(slot, before, notes);
    }

    /// A member has the last broadcast. Only the first answer to the last one counts.
    pub(super) fn on_ack(&mut self, slot: u32, acked: SeqNo, notes: &mut Vec<Note>) {
        if acked == self.bc_snd_nxt && self.members[slot].ack_due {
            self.forgive_ack(slot, notes);
        } else {
            notes.push(Note::Violation);
        }
    }

    pub(super) fn forgive_ack(&mut self, slot: u32, notes: &mut Vec<Note>) {
        let member: &mut Member = &mut self.members[slot];
        if std::mem::take(&mut member.ack_due) {
            self.acks_due -= 1;
            if self.acks_due == 0 {
                self.on_all_acked(notes);
            }
        }
    }
}
