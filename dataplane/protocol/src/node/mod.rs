//! A peer node: what is known of it, its links, its broadcasts (`docs/protocol/peer.md`).

mod failover;
pub mod fsm;
mod links;

pub use failover::{Failover, Tunnelled};
pub use links::{Links, Place};

use crate::addr::{BearerId, NodeAddr, NodeId};
use crate::broadcast::BroadcastPeer;
use crate::link::{Link, Progress};
use crate::name::UpdateQueue;
use crate::port::Overdue;
use crate::seqno::SeqNo;
use crate::time::Instant;
use crate::wire::Capabilities;
use fsm::NodeState;
use std::time::Duration;

/// A node without a link is forgotten after this time.
pub const FORGET_AFTER: Duration = Duration::from_secs(300);
/// Nodes that never had a link, kept at most: anybody on the segment can invent them.
pub const UNESTABLISHED_MAX: usize = 1024;

/// Another node of the cluster. What an idle one needs comes first, as in [`Link`].
#[repr(C, align(64))]
pub struct Peer {
    /// Its address.
    pub addr: NodeAddr,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Contact with it.
    pub state: NodeState,
    /// It has had a link that was up.
    pub was_up: bool,
    /// The links to it.
    pub links: Links,
    link_quiet: Quiet,
    bcast_quiet: Quiet,
    /// What is still to come by a link that was lost.
    pub failover: Option<Box<Failover>>,
    // The second line.
    /// The peer began to use a link beside another one.
    pub synch: Option<Synch>,
    /// This node did.
    pub hold: Option<Synch>,
    /// Discovery has shown a new instance while the link to the old one is still up.
    pub restarted: bool,
    /// The broadcast link, in both directions.
    pub bcast: BroadcastPeer,
    /// Its identity.
    pub id: NodeId,
    /// Its instance; `None` until discovery showed it on a link.
    pub signature: Option<u16>,
    /// Its binding updates.
    pub updates: UpdateQueue,
    /// When it was met, or last lost.
    pub since: Instant,
}

/// A link that one end began to use, and what is waited for before: packet `point` of the link over `other`.
#[derive(Clone, Copy, Debug)]
pub struct Synch {
    /// The new link.
    pub link: BearerId,
    /// The one used before.
    pub other: BearerId,
    /// The last packet given to that before.
    pub point: SeqNo,
}

/// For how many ticks a link has brought nothing and has had nothing to bring. Ticks, not time: a node
/// that was stopped has not listened meanwhile.
#[derive(Clone, Copy, Debug, Default)]
struct Quiet {
    next: SeqNo,
    ticks: u32,
}

impl Quiet {
    fn look(&mut self, progress: Progress) -> u32 {
        let is_quiet = !progress.missing && progress.next == self.next;
        self.ticks = if is_quiet {
            self.ticks.saturating_add(1)
        } else {
            0
        };
        self.next = progress.next;
        self.ticks
    }
}

impl Peer {
    /// A node that discovery has just shown.
    pub fn new(addr: NodeAddr, id: NodeId, capabilities: Capabilities, now: Instant) -> Self {
        Self {
            addr,
            id,
            signature: None,
            capabilities,
            state: NodeState::PeerLeaving,
            links: Links::default(),
            failover: None,
            synch: None,
            hold: None,
            bcast: BroadcastPeer::default(),
            updates: UpdateQueue::new(addr.0),
            since: now,
            was_up: false,
            restarted: false,
            link_quiet: Quiet::default(),
            bcast_quiet: Quiet::default(),
        }
    }

    /// The regular look at what arrives: halves of a pair that have waited for so long will not be
    /// joined. Nothing is under way on a link that has been quiet for a tolerance, and what is under way
    /// for `patience` has failed its link.
    pub fn overdue(&mut self, now: Instant, patience: Duration) -> Overdue {
        let ago = |span: Duration| Instant(now.0.saturating_sub(span.as_nanos() as u64));
        let mut overdue = Overdue::since(ago(patience));
        let up = || self.links.iter().filter(|link| link.is_up());
        let Some(tolerance_ms) = up().map(|link| link.tolerance_ms).max() else {
            return overdue;
        };
        let ticks = up().map(Link::ticks_of_tolerance).max().unwrap_or(0);
        let progress = up().map(Link::progress).reduce(|all, one| Progress {
            next: all.next + one.next.0,
            missing: all.missing || one.missing,
        });
        let limit = ago(Duration::from_millis(tolerance_ms.into()));
        if progress.is_some_and(|progress| self.link_quiet.look(progress) > ticks) {
            overdue.for_replicast = limit;
        }
        if self.bcast_quiet.look(self.bcast.progress()) > ticks {
            overdue.for_broadcast = limit;
        }
        overdue
    }

    /// True while something waits for what another link brings, or has brought.
    #[inline]
    pub fn waits_for_other_link(&self) -> bool {
        self.synch.is_some() || self.hold.is_some()
    }

    /// True while a link is up.
    #[inline]
    pub fn is_up(&self) -> bool {
        self.links.is_up()
    }

    /// True if it can be spoken to over two links: what SYNCH and FAILOVER say it understands, and binding updates come
    /// by a way that the choice of a link does not touch.
    pub fn takes_tunnels(&self) -> bool {
        let understood = Capabilities::TUNNEL_ENHANCED;
        self.capabilities.has(understood) && self.capabilities.has(Capabilities::NAMED_BCAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn what_probes_need_is_in_two_lines() {
        assert_eq!(offset_of!(Peer, synch), 64);
        let last = offset_of!(Peer, bcast) + offset_of!(BroadcastPeer, acked_ahead);
        assert!(last < 2 * 64, "{last}");
    }
}
