//! A peer node: what is known of it, its link, its broadcasts (`docs/protocol/peer.md`).

pub mod fsm;

use crate::addr::{NodeAddr, NodeId};
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

/// Another node of the cluster.
pub struct Peer {
    /// Its address.
    pub addr: NodeAddr,
    /// Its identity.
    pub id: NodeId,
    /// Its instance; `None` until discovery showed it on a link.
    pub signature: Option<u16>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Contact with it.
    pub state: NodeState,
    /// The link to it.
    pub link: Option<Link>,
    /// The broadcast link, in both directions.
    pub bcast: BroadcastPeer,
    /// Its binding updates.
    pub updates: UpdateQueue,
    /// How many of this node's updates its link carries, or it has from the broadcast link.
    pub told: u64,
    /// When it was met, or last lost.
    pub since: Instant,
    /// It has had a link that was up.
    pub was_up: bool,
    /// Discovery has shown a new instance while the link to the old one is still up.
    pub restarted: bool,
    link_quiet: Quiet,
    bcast_quiet: Quiet,
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
            link: None,
            bcast: BroadcastPeer::default(),
            updates: UpdateQueue::new(addr.0),
            told: 0,
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
        let Some(link) = &self.link else {
            return overdue;
        };
        let limit = ago(Duration::from_millis(link.tolerance_ms.into()));
        if self.link_quiet.look(link.progress()) > link.ticks_of_tolerance() {
            overdue.for_replicast = limit;
        }
        if self.bcast_quiet.look(self.bcast.progress()) > link.ticks_of_tolerance() {
            overdue.for_broadcast = limit;
        }
        overdue
    }

    /// The link, if messages can be sent over it.
    pub fn up_link(&mut self) -> Option<&mut Link> {
        self.link.as_mut().filter(|link| link.is_up())
    }

    /// True while a link is up.
    pub fn is_up(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_up)
    }
}
