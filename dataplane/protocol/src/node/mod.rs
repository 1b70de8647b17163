//! A peer node: what is known of it, its link, its broadcasts (`docs/protocol/peer.md`).

pub mod fsm;

use crate::addr::{NodeAddr, NodeId};
use crate::broadcast::BroadcastPeer;
use crate::link::Link;
use crate::name::UpdateQueue;
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
        }
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
