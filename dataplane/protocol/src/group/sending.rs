//! Whether a message may go, and whom one that may not waits for (`docs/protocol/groups.md`, sending).

use super::member::{Member, MemberState};
use super::{Group, Note};
use crate::addr::SocketAddr;
use crate::time::Instant;

/// Why a message does not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such member.
    NoMember,
    /// It has to wait: [`Note::Open`] tells for what it was.
    Wait,
}

/// What a sender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockedOn {
    /// The member is bound and has not said that it is a member.
    Join,
    /// The member has to read.
    Credit {
        /// Blocks it may be sent.
        window: u16,
        /// Blocks of the message.
        needed: u16,
    },
    /// The member has to acknowledge the last broadcast.
    Acknowledgement,
}

/// A sender that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// For this member; there may be others besides.
    pub member: SocketAddr,
    /// For this.
    pub on: BlockedOn,
}

/// To whom a refused message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Member(SocketAddr),
    Instance(u32),
    All,
    /// Several messages were refused, to different receivers: what helps one of them is not known.
    Several,
}

/// A message that was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    to: To,
    /// Of the largest one.
    blocks: u16,
    /// When time may let it go.
    until: Option<Instant>,
    /// Of a message to all: members whose window is too small.
    short: usize,
    /// It was told that it may go.
    told: bool,
}

impl Group {
    /// Whether a message to this member may go.
    pub fn may_send(
        &mut self,
        now: Instant,
        to: SocketAddr,
        blocks: u16,
        notes: &mut Vec<Note>,
    ) -> Result<(), Refusal> {
        let found = self.members.find(to);
        let slot = found.filter(|slot| self.members[*slot].is_receiver(now));
        let slot = slot.ok_or(Refusal::NoMember)?;
        if self.members[slot].window >= blocks {
            return Ok(());
        }
        self.top_up(slot, notes);
        self.refuse(now, To::Member(to), blocks);
        Err(Refusal::Wait)
    }

    /// Chooses the member for a message to one with this instance: of those who can take it, the one
    /// that got such a message least recently.
    pub fn choose(
        &mut self,
        now: Instant,
        instance: u32,
        blocks: u16,
        notes: &mut Vec<Note>,
    ) -> Result<SocketAddr, Refusal> {
        let bears = |m: &Member| m.instance == instance && m.is_receiver(now);
        let able = self
            .members
            .slots()
            .filter(|slot| bears(&self.members[*slot]) && self.members[*slot].window >= blocks);
        let age = |slot: &u32| self.anycasts.wrapping_sub(self.members[*slot].anycast_at);
        if let Some(chosen) = able.min_by_key(|slot| u32::MAX - age(slot)) {
            self.anycasts = self.anycasts.wrapping_add(1);
            let member = &mut self.members[chosen];
            member.anycast_at = self.anycasts;
            return Ok(member.addr);
        }
        let unable = self
            .members
            .slots()
            .find(|slot| bears(&self.members[*slot]));
        self.top_up(unable.ok_or(Refusal::NoMember)?, notes);
        self.refuse(now, To::Instance(instance), blocks);
        Err(Refusal::Wait)
    }

    /// The members with an instance: one of them, and whether it is the only one.
    pub fn bearer_of(&self, now: Instant, instance: u32) -> Option<(SocketAddr, bool)> {
        let bears = |m: &&Member| m.instance == instance && m.is_receiver(now);
        let mut bearers = self.members().filter(bears);
        let first = bearers.next()?;
        Some((first.addr, bearers.next().is_none()))
    }

    /// Whether a message to all may go.
    pub fn may_broadcast(
        &mut self,
        now: Instant,
        blocks: u16,
        notes: &mut Vec<Note>,
    ) -> Result<(), Refusal> {
        if !self.members().any(|m| m.is_receiver(now)) {
            return Err(Refusal::NoMember);
        }
        let short = self
            .members
            .slots()
            .find(|slot| self.members[*slot].is_short(now, blocks));
        match short {
            Some(slot) => self.top_up(slot, notes),
            None if self.acks_due == 0 => return Ok(()),
            None => {}
        }
        self.refuse(now, To::All, blocks);
        Err(Refusal::Wait)
    }

    /// A message to one member went out.
    pub fn on_sent(&mut self, to: SocketAddr, blocks: u16) {
        if let Some(slot) = self.members.find(to) {
            let member = &mut self.members[slot];
            member.window = member.window.saturating_sub(blocks);
        }
        self.behind_unicast = true;
        let instance = self.member(to).map(|member| member.instance);
        self.note_taken(|waits| match waits {
            To::Member(addr) => addr == to,
            To::Instance(wanted) => Some(wanted) == instance,
            To::All | To::Several => false,
        });
    }

    /// True if the next broadcast has to go as copies, and is to be acknowledged.
    pub fn is_behind_unicast(&self) -> bool {
        self.behind_unicast
    }

    /// A broadcast went out, acknowledgements asked for as [`Self::is_behind_unicast`] said.
    pub fn on_broadcast_sent(&mut self, now: Instant, blocks: u16) {
        self.bc_snd_nxt = self.bc_snd_nxt.next();
        let asked = std::mem::take(&mut self.behind_unicast);
        let mut acks_due = 0;
        self.members.for_each(|member| {
            if member.is_receiver(now) {
                member.window = member.window.saturating_sub(blocks);
                member.ack_due = asked;
                acks_due += usize::from(asked);
            } else {
                member.skipped |= member.state == MemberState::Published;
            }
        });
        self.acks_due = acks_due;
        self.note_taken(|waits| waits == To::All);
    }

    /// A message went out. One to others may wait still.
    fn note_taken(&mut self, waited: impl Fn(To) -> bool) {
        self.waiting = self
            .waiting
            .filter(|waiting| !waiting.told && !waited(waiting.to));
    }

    /// True if there is a member that could be sent to, and no message was refused that still may not go.
    pub fn is_open(&self) -> bool {
        let could =
            |m: &Member| m.is_receiver(Instant::default()) && m.state != MemberState::Published;
        self.members().any(could) && self.blocked().is_none()
    }

    /// Whom the refused message waits for; nobody once it may go.
    pub fn blocked(&self) -> Option<Blocked> {
        let waiting = self.waiting.as_ref().filter(|waiting| !waiting.told)?;
        let now = Instant::default();
        let needed = waiting.blocks;
        let concerned = |m: &&Member| match waiting.to {
            To::Member(addr) => m.addr == addr,
            To::Instance(instance) => m.instance == instance,
            To::All | To::Several => true,
        };
        let mut members = self.members().filter(concerned);
        let member = members.find(|m| m.is_short(now, needed) || m.ack_due)?;
        let on = if !member.is_short(now, needed) {
            BlockedOn::Acknowledgement
        } else if member.state == MemberState::Published {
            BlockedOn::Join
        } else {
            let window = member.window;
            BlockedOn::Credit { window, needed }
        };
        Some(Blocked {
            member: member.addr,
            on,
        })
    }

    /// When a refused message, or a member that leaves, is to be looked at again though nothing has happened.
    pub fn looks_again_at(&self) -> Option<Instant> {
        let waiting = self.waiting.as_ref().filter(|w| !w.told);
        let until = waiting.and_then(|waiting| waiting.until);
        until.into_iter().chain(self.leave_due).min()
    }

    /// Looks at a refused message again, since members came, went, or are overdue.
    pub fn recount(&mut self, now: Instant, notes: &mut Vec<Note>) {
        let Some(waiting) = self.waiting else {
            return;
        };
        self.waiting = None;
        self.refuse(now, waiting.to, waiting.blocks);
        if let Some(waiting) = &mut self.waiting {
            let may_go = match waiting.to {
                // The next attempt finds out.
                To::Member(_) | To::Instance(_) | To::Several => true,
                To::All => waiting.short == 0 && self.acks_due == 0,
            };
            waiting.open_if(may_go, notes);
        }
    }

    /// Notes that a message waits, perhaps besides another one.
    fn refuse(&mut self, now: Instant, to: To, blocks: u16) {
        let before = self.waiting.filter(|waiting| !waiting.told);
        let (to, blocks) = match before {
            Some(other) if other.to != to => (To::Several, blocks.max(other.blocks)),
            _ => (to, blocks),
        };
        let short = |m: &&Member| m.is_short(now, blocks);
        let is_unjoined =
            |m: &&Member| m.state == MemberState::Published && m.is_short(now, blocks);
        let until = self.members().filter(is_unjoined).map(|m| m.due).min();
        self.waiting = Some(Waiting {
            to,
            blocks,
            until,
            short: self.members().filter(short).count(),
            told: false,
        });
    }

    /// A member's window was `before` and may have grown.
    pub(super) fn on_window_grown(&mut self, slot: u32, before: u16, notes: &mut Vec<Note>) {
        let (member, acks_due) = (&self.members[slot], self.acks_due);
        let Some(waiting) = &mut self.waiting else {
            return;
        };
        let crossed = before < waiting.blocks && waiting.blocks <= member.window;
        let may_go = match waiting.to {
            To::Member(addr) => crossed && addr == member.addr,
            To::Instance(instance) => crossed && instance == member.instance,
            To::All => {
                waiting.short -= usize::from(crossed && waiting.short > 0);
                waiting.short == 0 && acks_due == 0
            }
            To::Several => before < member.window,
        };
        waiting.open_if(may_go, notes);
    }

    pub(super) fn on_all_acked(&mut self, notes: &mut Vec<Note>) {
        if let Some(waiting) = &mut self.waiting {
            let may_go = match waiting.to {
                To::All => waiting.short == 0,
                To::Several => true,
                To::Member(_) | To::Instance(_) => false,
            };
            waiting.open_if(may_go, notes);
        }
    }
}

impl Waiting {
    fn open_if(&mut self, may_go: bool, notes: &mut Vec<Note>) {
        if may_go && !self.told {
            self.told = true;
            notes.push(Note::Open);
        }
    }
}

impl Member {
    /// True if a message of so many blocks to all has to wait for it.
    fn is_short(&self, now: Instant, blocks: u16) -> bool {
        self.is_receiver(now) && self.window < blocks
    }
}
