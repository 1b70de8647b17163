//! The order of one member's messages (`docs/protocol/groups.md`, order): by the numbers of its broadcasts,
//! whichever way each came.

use super::member::{MemberNo, MemberState};
use super::{ADV_ACTIVE, ADV_IDLE, Group, Note};
use crate::addr::SocketAddr;
use crate::seqno::SeqNo;
use crate::time::Instant;
use crate::wire::{DataType, GroupKind, Header, Importance, field};
use std::collections::VecDeque;

/// Blocks of one member that may wait for their turn: all it can have been granted.
pub const DEFERRED_MAX: u16 = ADV_ACTIVE + ADV_IDLE;

/// A message of a member, as far as its place in the order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arriving {
    /// To whom: GroupBcast, GroupMcast or GroupUcast.
    pub kind: DataType,
    /// Its number; of a message to one member, that of the next broadcast.
    pub bc_seqno: SeqNo,
    /// The instance a multicast is for.
    pub instance: u32,
    /// The sender wants to know that it came.
    pub ack_requested: bool,
    /// What it costs.
    pub blocks: u16,
    /// Its importance.
    pub importance: Importance,
}

impl Arriving {
    /// Reads a header of a group message.
    pub fn of(header: &Header, payload: usize) -> Self {
        Self {
            kind: DataType::from_bits(header.get(field::TYPE)),
            bc_seqno: SeqNo(header.get(field::GROUP_BC_SEQNO) as u16),
            instance: header.get(field::NAME_LOWER),
            ack_requested: header.get(field::GROUP_ACK_REQ) == 1,
            blocks: super::blocks_of(payload),
            importance: Importance::from_bits(header.get(field::USER)),
        }
    }

    fn is_numbered(&self) -> bool {
        self.kind != DataType::GroupUcast
    }
}

/// What to do with a message that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Deliver it: its turn has come. Then what [`Group::next_in_turn`] gives.
    Deliver(MemberNo),
    /// It was for another instance. Deliver what [`Group::next_in_turn`] gives.
    NotForUs(MemberNo),
    /// It waits for its turn: [`Group::hold`] it.
    Early(MemberNo),
    /// It came before.
    Duplicate,
    /// Its sender is no member, or not yet.
    Stranger,
}

/// A message that waited.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// Its place.
    pub about: Arriving,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Messages of one member that wait, in the order of their turns.
pub(super) type Deferred = VecDeque<Held>;

impl Group {
    /// A message has arrived.
    pub fn on_message(
        &mut self,
        from: SocketAddr,
        arriving: &Arriving,
        notes: &mut Vec<Note>,
    ) -> Arrival {
        let found = self.members.find(from);
        let Some(slot) = found.filter(|slot| self.members[*slot].state.is_sender()) else {
            return Arrival::Stranger;
        };
        let member = &self.members[slot];
        let no = self.members.number(slot);
        if arriving.bc_seqno.before(member.bc_rcv_nxt) {
            Arrival::Duplicate
        } else if arriving.bc_seqno.after(member.bc_rcv_nxt) || self.deferred.contains_key(&slot) {
            Arrival::Early(no)
        } else if self.pass(slot, arriving, notes) {
            Arrival::Deliver(no)
        } else {
            Arrival::NotForUs(no)
        }
    }

    /// Keeps a message until its turn comes. A member of whom more waits than it can have been granted is
    /// expelled.
    pub fn hold(&mut self, now: Instant, no: MemberNo, message: Held, notes: &mut Vec<Note>) {
        let Some(slot) = self.members.find_numbered(no) else {
            return;
        };
        let member = &mut self.members[slot];
        let blocks = member.deferred_blocks + message.about.blocks;
        if blocks > DEFERRED_MAX {
            return self.expel(now, slot, notes);
        }
        member.deferred_blocks = blocks;
        let queue = self.deferred.entry(slot).or_default();
        // A message to one member was sent before the broadcast whose number it carries.
        let next = member.bc_rcv_nxt;
        let turn = |about: &Arriving| (about.bc_seqno.distance_from(next), about.is_numbered());
        let own = turn(&message.about);
        let place = queue.iter().position(|held| turn(&held.about) > own);
        queue.insert(place.unwrap_or(queue.len()), message);
    }

    /// The next message whose turn has come and that is to be delivered. Once there is none, a member
    /// that was waited for has left.
    pub fn next_in_turn(
        &mut self,
        now: Instant,
        no: MemberNo,
        notes: &mut Vec<Note>,
    ) -> Option<Held> {
        let slot = self.members.find_numbered(no)?;
        while let Some(held) = self.take_head(slot) {
            let numbered = held.about.is_numbered();
            if numbered && held.about.bc_seqno != self.members[slot].bc_rcv_nxt {
                // The same number came twice, both times early.
                continue;
            }
            if self.pass(slot, &held.about, notes) {
                return Some(held);
            }
        }
        self.finish_if_over(now, slot, notes);
        None
    }

    /// The oldest held message of a member if its turn has come.
    fn take_head(&mut self, slot: u32) -> Option<Held> {
        let queue = self.deferred.get_mut(&slot)?;
        let member = &mut self.members[slot];
        let next = member.bc_rcv_nxt;
        let head = queue.pop_front_if(|held| held.about.bc_seqno.before_or_eq(next));
        if let Some(head) = &head {
            member.deferred_blocks -= head.about.blocks;
        }
        if queue.is_empty() {
            self.deferred.remove(&slot);
        }
        head
    }

    /// A message whose turn it is. False if it is for another instance.
    fn pass(&mut self, slot: u32, about: &Arriving, notes: &mut Vec<Note>) -> bool {
        let member = &mut self.members[slot];
        if about.is_numbered() {
            member.bc_rcv_nxt = member.bc_rcv_nxt.next();
            if about.ack_requested && member.state != MemberState::Leaving {
                let bc_acked = member.bc_rcv_nxt.0;
                notes.push(Note::Send(member.addr, GroupKind::Ack { bc_acked }));
            }
        }
        let is_ours =
            about.kind != DataType::GroupMcast || about.instance == self.membership.instance;
        if !is_ours {
            self.credit(slot, about.blocks, notes);
        }
        is_ours
    }
}
