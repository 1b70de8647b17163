//! Communication groups: what a member keeps of the other members (`docs/protocol/groups.md`).
//!
//! * `member` - one other member: its state, the windows in both directions;
//! * `table` - all of them, by address and by a small number;
//! * `membership` - the binding event and the message that make and end a member;
//! * `flow` - credit: who may have a large window, and how it is taken back;
//! * `order` - the filter that puts a member's messages in order;
//! * `sending` - whether a message may be sent, and whom a refused one waits for.
//!
//! A [`Group`] belongs to its socket ([`crate::port::Port`]). It decides and counts; what it wants done
//! comes out as [`Note`]s, and [`crate::engine`] does it. No I/O, no clock: time is an argument.

mod flow;
mod member;
mod membership;
mod order;
mod sending;
mod table;
#[cfg(test)]
mod tests;

pub use flow::{ADV_ACTIVE, ADV_IDLE};
pub use member::{Member, MemberNo, MemberState, WINDOW_MAX};
pub use membership::{JOIN_PATIENCE, LEAVE_PATIENCE};
pub use order::{Arrival, Arriving, DEFERRED_MAX, Held};
pub use sending::{Blocked, BlockedOn, Refusal};
pub use table::{MEMBERS_MAX, MEMBERS_OF_NODE_MAX};

use crate::addr::{NodeAddr, SocketAddr};
use crate::name::Scope;
use crate::seqno::SeqNo;
use crate::time::Instant;
use crate::wire::{GroupKind, Importance, size};
use order::Deferred;
use sending::Waiting;
use std::collections::{BTreeMap, VecDeque};
use table::Table;

/// Unit of windows in bytes.
const BLOCK: usize = 1024;

/// What a message with so many bytes of payload costs.
pub const fn blocks_of(payload: usize) -> u16 {
    ((size::MCAST + payload) / BLOCK + 1) as u16
}

/// How a socket is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group: a service type.
    pub group: u32,
    /// The member's instance. Several members may have the same.
    pub instance: u32,
    /// Whether members on other nodes belong to it.
    pub scope: Scope,
    /// The member gets its own messages too, where it is addressed.
    pub loopback: bool,
    /// The member is told of others that join and leave.
    pub events: bool,
}

/// Something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Send this to a member.
    Send(SocketAddr, GroupKind),
    /// A member is there: its messages follow.
    Joined(SocketAddr, u32),
    /// A member is gone: its last message came before.
    Left(SocketAddr, u32),
    /// The send that was refused may go now.
    Open,
    /// A member did what the protocol forbids.
    Violation,
}

/// A socket's view of its group.
#[derive(Debug)]
pub struct Group {
    /// How the socket is in it.
    pub membership: Membership,
    /// The socket's own address.
    own: SocketAddr,
    members: Table,
    /// Nodes with members, and how many.
    nodes: BTreeMap<NodeAddr, u32>,
    /// Members with a large window, the one that was read least recently first.
    active: VecDeque<u32>,
    /// Members that wait for one, oldest first.
    pending: VecDeque<u32>,
    /// Members that have a large window or have not given it back yet.
    active_count: usize,
    /// Messages that came before their turn, by member.
    deferred: BTreeMap<u32, Deferred>,
    /// Number of the next broadcast or multicast.
    bc_snd_nxt: SeqNo,
    /// Members whose acknowledgement of the last one is awaited.
    acks_due: usize,
    /// The next broadcast must not overtake what went to a member alone: it goes as copies, and is
    /// acknowledged before broadcasts take the other way.
    behind_unicast: bool,
    waiting: Option<Waiting>,
    /// When the LEAVE of a member will be overdue, should it not come.
    leave_due: Option<Instant>,
    /// Counts anycasts, to take those who got one least recently.
    anycasts: u32,
    /// Importance of the last message sent. Packets of different importance fill independently: the
    /// first message of another importance must not join one that waits already.
    pub sent_importance: Option<Importance>,
}

impl Group {
    /// A group whose members are to be told by [`Self::on_published`]. The socket's broadcasts begin with
    /// this number.
    pub fn new(membership: Membership, own: SocketAddr, bc_snd_nxt: SeqNo) -> Self {
        Self {
            membership,
            own,
            members: Table::default(),
            nodes: BTreeMap::new(),
            active: VecDeque::new(),
            pending: VecDeque::new(),
            active_count: 0,
            deferred: BTreeMap::new(),
            bc_snd_nxt,
            acks_due: 0,
            behind_unicast: true,
            waiting: None,
            leave_due: None,
            anycasts: 0,
            sent_importance: None,
        }
    }

    /// The other members, and this one if it wants its own messages, in the order of their addresses.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> + '_ {
        self.members.iter()
    }

    /// A member by its address.
    pub fn member(&self, addr: SocketAddr) -> Option<&Member> {
        self.members.find(addr).map(|slot| &self.members[slot])
    }

    /// A member by the number its messages carry.
    pub fn numbered(&self, no: MemberNo) -> Option<&Member> {
        let slot = self.members.find_numbered(no)?;
        Some(&self.members[slot])
    }

    /// Nodes that a broadcast goes to, this one among them if it has members.
    pub fn nodes(&self) -> impl Iterator<Item = NodeAddr> + '_ {
        self.nodes.keys().copied()
    }

    /// Number of the next broadcast.
    pub fn bc_snd_nxt(&self) -> u16 {
        self.bc_snd_nxt.0
    }

    /// Messages that wait for their turn.
    pub fn deferred(&self) -> usize {
        self.deferred.values().map(Deferred::len).sum()
    }

    /// Memory it has allocated.
    pub fn allocated_bytes(&self) -> usize {
        size_of::<Self>()
            + self.members.allocated_bytes()
            + self.nodes.len() * size_of::<(NodeAddr, u32)>()
            + (self.active.capacity() + self.pending.capacity()) * size_of::<u32>()
    }
}
