//! Contact with a peer node, seen from both ends (`docs/protocol/peer.md`, node states).
//!
//! ```text
//!        peer seen down                 self up                  peer up         synch begin
//!  PEER_LEAVING ─────────▶ DOWN ───────────────▶ PEER_COMING ──────────▶ UP ◀──────────────────▶ SYNCHING
//!      ▲                     ▲ ◀──── self lost ──────┘                   │ │ ◀────┐ synch end        │
//!      │                     └─────────── lost by the peer ──────────────┘ │      │ failover end     │
//!      └───────────────────────────── self lost ───────────────────────────┘  FAILINGOVER ◀──────────┘
//! ```
//!
//! FAILINGOVER begins from PEER_COMING, UP and SYNCHING; from it and from SYNCHING contact is lost as from UP.
//!
//! After contact was lost on this side alone, the peer may still believe in it. Until it shows that it
//! does not, nothing from it is taken: its table of this node would be the old one.

/// Contact with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// No contact on either side.
    Down,
    /// This node has a link up; the peer is not yet seen to have.
    PeerComing,
    /// Contact on both sides.
    Up,
    /// This node lost contact; the peer may not know yet. Also the state of a node just met.
    PeerLeaving,
    /// The peer uses another link beside the one it used before, and some of what it sent by that is still to come.
    Synching,
    /// A link was lost, and some of what the peer had sent by it is still to come by another.
    FailingOver,
}

/// What can happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// The first link went up here.
    SelfUp,
    /// The last link went down because the peer reset it.
    LostByPeer,
    /// The last link went down for a reason of this end.
    SelfLost,
    /// A packet proves that the peer's link is up.
    PeerUp,
    /// A packet shows that the peer has no contact.
    PeerSeenDown,
    /// The peer uses another link, too.
    SynchBegin,
    /// All that was sent before that has arrived.
    SynchEnd,
    /// A link was lost, another is there.
    FailoverBegin,
    /// All that was sent by the lost link has arrived.
    FailoverEnd,
}

/// The next state.
#[inline]
pub fn step(state: NodeState, event: NodeEvent) -> NodeState {
    use {NodeEvent as E, NodeState as S};
    match (state, event) {
        (S::Up, E::SynchBegin) => S::Synching,
        (S::Synching, E::SynchEnd) => S::Up,
        (S::PeerComing | S::Up | S::Synching, E::FailoverBegin) => S::FailingOver,
        (S::FailingOver, E::FailoverEnd) => S::Up,
        (S::Synching | S::FailingOver, E::LostByPeer) => S::Down,
        (S::Synching | S::FailingOver, E::SelfLost) => S::PeerLeaving,
        (S::PeerLeaving, E::PeerSeenDown) => S::Down,
        // Links come up only after the peer was seen down.
        (S::PeerLeaving, E::SelfUp | E::LostByPeer | E::SelfLost | E::PeerUp) => S::PeerLeaving,
        (S::Down, E::SelfUp) => S::PeerComing,
        (S::Down, E::LostByPeer | E::SelfLost | E::PeerUp | E::PeerSeenDown) => S::Down,
        (S::PeerComing, E::PeerUp) => S::Up,
        (S::PeerComing, E::LostByPeer | E::SelfLost) => S::Down,
        (S::PeerComing, E::SelfUp | E::PeerSeenDown) => S::PeerComing,
        (S::Up, E::LostByPeer) => S::Down,
        (S::Up, E::SelfLost) => S::PeerLeaving,
        (S::Up | S::Synching | S::FailingOver, E::SelfUp | E::PeerUp | E::PeerSeenDown)
        | (
            S::PeerLeaving | S::Down | S::PeerComing | S::Synching | S::FailingOver,
            E::SynchBegin,
        )
        | (S::PeerLeaving | S::Down | S::PeerComing | S::Up | S::FailingOver, E::SynchEnd)
        | (S::PeerLeaving | S::Down | S::FailingOver, E::FailoverBegin)
        | (S::PeerLeaving | S::Down | S::PeerComing | S::Up | S::Synching, E::FailoverEnd) => state,
    }
}
