//! What a sender waits for, and since when: no sender waits without a reason that can be seen
//! (`docs/protocol/sockets.md`, congestion).
//!
//! The reason is not kept but read off the queues that will wake the sender, so it cannot be out of date;
//! a socket only remembers when it was refused.

use super::Engine;
use super::send::SendError;
use crate::addr::{BearerId, NodeAddr, PortId, SocketAddr};
use crate::group::Blocked;
use crate::port::Port;
use crate::time::Instant;

/// What stands in a sender's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The other end of its connection has not read enough: the window is used up.
    Window(SocketAddr),
    /// A member of its group.
    Member(Blocked),
    /// The link to this node over this bearer is congested at the sender's importance.
    Link(NodeAddr, BearerId),
    /// The broadcast link is congested. The node is the peer that has acknowledged least, if there is one.
    BroadcastLink(Option<NodeAddr>),
    /// Peers have not been told of bindings the sender's process made before, which its message must not
    /// overtake: the broadcast link has no room for them. The node as above.
    Telling(Option<NodeAddr>),
    /// Too few frames of the pool are free.
    Frames,
}

/// A sender that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// When a message of it was refused for the first time since none was waiting.
    pub since: Instant,
    /// What it waits for. `None`: there is room again, and it has not tried since.
    pub obstacle: Option<Obstacle>,
}

impl Engine {
    /// Whether senders wait for frames.
    pub fn awaits_frames(&self) -> bool {
        !self.starved.is_empty()
    }

    /// What a socket waits for whose last message was refused.
    pub fn waiting(&self, id: PortId) -> Option<Waiting> {
        let port = self.ports.get(&id)?;
        let since = port.refused_at?;
        Some(Waiting {
            since,
            obstacle: self.obstacle(port),
        })
    }

    /// True if nothing a socket sent before holds its next message up. Where that goes may do so yet.
    pub fn is_writable(&self, id: PortId) -> bool {
        self.ports.get(&id).is_some_and(|port| {
            let window_used = port.connection().is_some_and(|c| c.flow.is_congested());
            let group_closed = port.group.as_deref().is_some_and(|group| !group.is_open());
            !port.is_congested() && !window_used && !group_closed
        })
    }

    /// Sockets with messages whose senders may wait until they are read. The host should let the engine know of that at
    /// once ([`Self::on_consumed`]).
    pub fn awaited_readers(&mut self) -> &[PortId] {
        let ports = &mut self.ports;
        self.awaited_readers.retain(|id| {
            let Some(port) = ports.get_mut(id) else {
                return false;
            };
            port.is_awaited = port.reading_matters();
            port.is_awaited
        });
        &self.awaited_readers
    }

    /// A message waits for a socket.
    pub(super) fn note_awaited(&mut self, id: PortId) {
        if let Some(port) = self.ports.get_mut(&id).filter(|port| !port.inner) {
            note_awaited(port, &mut self.awaited_readers);
        }
    }

    /// A message of a socket without a connection was refused, or went out though one to elsewhere may wait yet.
    /// `refused_at` is since when one has waited.
    pub(super) fn note_outcome(
        &mut self,
        now: Instant,
        id: PortId,
        refused_at: Option<Instant>,
        result: Result<(), SendError>,
    ) {
        if result == Err(SendError::Congested) {
            self.note_refused(id, refused_at.unwrap_or(now));
        } else if let Some(since) = refused_at
            && self
                .ports
                .get(&id)
                .and_then(|port| self.obstacle(port))
                .is_some()
        {
            self.note_refused(id, since);
        }
    }

    /// A message of a socket was refused for congestion.
    pub(super) fn note_refused(&mut self, id: PortId, since: Instant) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.refused_at = Some(since);
        }
    }

    fn obstacle(&self, port: &Port) -> Option<Obstacle> {
        if let Some(connection) = port.connection()
            && connection.flow.is_congested()
        {
            return Some(Obstacle::Window(connection.peer));
        }
        let Some(node) = port.congested().first().copied() else {
            let member = port.group.as_ref()?.blocked()?;
            return Some(Obstacle::Member(member));
        };
        Some(if self.starved.holds(port.id) {
            Obstacle::Frames
        } else if self.untold.awaits(port.id) {
            Obstacle::Telling(self.slowest_of_broadcast())
        } else if node == NodeAddr::NONE {
            Obstacle::BroadcastLink(self.slowest_of_broadcast())
        } else {
            Obstacle::Link(node, self.bearer_to(node, port.id))
        })
    }

    /// The bearer that messages of a socket to a node take.
    fn bearer_to(&self, node: NodeAddr, port: PortId) -> BearerId {
        let peer = self.index_of(node).and_then(|index| self.peer(index));
        let link = peer.and_then(|peer| peer.links.carrier(port.0));
        link.map_or(BearerId(0), |link| link.bearer)
    }

    /// The peer that has acknowledged the fewest broadcasts, if not all have acknowledged all.
    fn slowest_of_broadcast(&self) -> Option<NodeAddr> {
        let last = self.bcast.last_sent();
        let behind = |peer: &crate::node::Peer| last.distance_from(peer.bcast.acked);
        let up = self.peers.iter().flatten().filter(|peer| peer.is_up());
        let slowest = up.max_by_key(|peer| behind(peer))?;
        (behind(slowest) > 0).then_some(slowest.addr)
    }
}

/// The same for a socket of the host.
pub(super) fn note_awaited(port: &mut Port, readers: &mut Vec<PortId>) {
    if !port.is_awaited && port.reading_matters() {
        port.is_awaited = true;
        readers.push(port.id);
    }
}
