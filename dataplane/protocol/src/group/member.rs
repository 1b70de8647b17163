//! One other member of a group (`docs/protocol/groups.md`, member states and windows).

use crate::addr::SocketAddr;
use crate::seqno::SeqNo;
use crate::time::Instant;

/// Blocks that a member may ever let one send: twice the large window. What it grants beyond is a
/// violation, and not taken.
pub const WINDOW_MAX: u16 = 2 * super::ADV_ACTIVE;

/// Where a member stands.
///
/// ```text
///            binding                JOIN
///   (none) ──────────▶ PUBLISHED ─────────▶ JOINED ──read──▶ ACTIVE ──least recently read──▶ RECLAIMING
///      │     JOIN                 binding     ▲ │                ▲                               │ REMIT
///      └─────────────▶ JOINING ───────────────┘ └─no slot─▶ PENDING                           REMITTED
///                                             └──────────────────────── all in flight read ──────┘
///   any, on LEAVE or withdrawal ─▶ LEAVING ── all before the synch point read ─▶ (none), or GONE if bound
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Its JOIN has come, its binding not yet.
    Joining,
    /// Its binding is known, its JOIN has not come.
    Published,
    /// Both are there. It has a small window.
    Joined,
    /// It wants a large window, and there is none to have.
    Pending,
    /// It has a large window.
    Active,
    /// It was told to give the large window back.
    Reclaiming,
    /// It did, and what it had sent before is not read yet.
    Remitted,
    /// It leaves; what it sent before is awaited.
    Leaving,
    /// It has left, and its binding is still there: that of its next membership, or soon to go.
    Gone,
}

impl MemberState {
    /// True if its messages are taken.
    pub fn is_sender(self) -> bool {
        match self {
            Self::Joining | Self::Published | Self::Gone => false,
            Self::Joined
            | Self::Pending
            | Self::Active
            | Self::Reclaiming
            | Self::Remitted
            | Self::Leaving => true,
        }
    }

    /// True if it has a large window or has not given it back.
    pub(super) fn holds_slot(self) -> bool {
        matches!(self, Self::Active | Self::Reclaiming | Self::Remitted)
    }
}

/// Names a member among those of one group: goes out with each of its messages, and comes back when
/// that was read. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberNo(pub u32);

/// A member.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its socket.
    pub addr: SocketAddr,
    /// Its instance; 0 as long as its binding is not known.
    pub instance: u32,
    /// Where it stands.
    pub state: MemberState,
    /// Blocks it may be sent.
    pub window: u16,
    /// Blocks it may send.
    pub advertised: u16,
    /// Number of its next broadcast.
    pub(super) bc_rcv_nxt: SeqNo,
    /// It leaves when all broadcasts before this one have come.
    pub(super) leaves_at: Option<SeqNo>,
    /// It has not acknowledged the last broadcast.
    pub(super) ack_due: bool,
    /// It was told to the user.
    pub(super) announced: bool,
    /// Broadcasts were sent without it.
    pub(super) skipped: bool,
    /// Tells it from those that had its slot before; 0 for none.
    pub(super) generation: u16,
    /// If its JOIN has not come by then, its binding is that of a socket which is no member; if its LEAVE
    /// has not, it is gone without one.
    pub(super) due: Instant,
    /// When it got an anycast last.
    pub(super) anycast_at: u32,
    /// Blocks it has among the deferred messages.
    pub(super) deferred_blocks: u16,
    /// The instance it is bound to now. Bindings and messages travel on different ways: this may be that
    /// of an earlier or a later membership.
    pub(super) bound: Option<u32>,
    /// Its JOIN came back before it had left: synch point and window.
    pub(super) rejoined: Option<(u16, u16)>,
}

impl Member {
    /// Member number `made` of a group. The newest one is the first that an anycast takes.
    pub(super) fn new(addr: SocketAddr, state: MemberState, made: u32) -> Self {
        Self {
            addr,
            instance: 0,
            state,
            window: 0,
            advertised: 0,
            bc_rcv_nxt: SeqNo(0),
            leaves_at: None,
            ack_due: false,
            announced: false,
            skipped: false,
            generation: (made % u32::from(u16::MAX)) as u16 + 1,
            due: Instant(0),
            anycast_at: 0u32.wrapping_sub(made),
            deferred_blocks: 0,
            bound: None,
            rejoined: None,
        }
    }

    /// True if its binding has gone and its LEAVE has not come.
    pub(super) fn awaits_leave(&self) -> bool {
        self.state == MemberState::Leaving && self.leaves_at.is_none()
    }

    /// True if broadcasts go to it. One whose JOIN is overdue is no member.
    pub fn is_receiver(&self, now: Instant) -> bool {
        match self.state {
            MemberState::Joining | MemberState::Leaving | MemberState::Gone => false,
            MemberState::Published => now < self.due,
            MemberState::Joined
            | MemberState::Pending
            | MemberState::Active
            | MemberState::Reclaiming
            | MemberState::Remitted => true,
        }
    }

    /// Takes what it grants; false if that is more than any member may.
    #[must_use]
    pub(super) fn widen(&mut self, granted: u16) -> bool {
        let wide = self.window.saturating_add(granted);
        self.window = wide.min(WINDOW_MAX);
        wide <= WINDOW_MAX
    }
}
