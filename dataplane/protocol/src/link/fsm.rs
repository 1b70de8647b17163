//! The link endpoint's states (`docs/protocol/link.md`, states).
//!
//! ```text
//!            peer reset              establish                 synch begin
//!   RESET ───────────────▶ ESTABLISHING ─────────▶ ESTABLISHED ◀───────────▶ SYNCHING
//!    ▲ ▲ ◀───────────────────────┘  ▲                  │  │     synch end        │
//!    │ │         local reset        └──── peer reset ──┘  │  (goes down as ESTABLISHED)
//!    │ └────────────── failure, local reset ──────────────┘
//!    │ failover end                       failover begin: from RESET and ESTABLISHING
//!   FAILINGOVER
//! ```
//!
//! Linux has transient states between "link down" and "endpoint reset"; here the one follows the
//! other within one input, so they do not exist.

/// State of a link endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Nothing heard from the peer's endpoint: sends RESET.
    Reset,
    /// The peer's endpoint is known: sends ACTIVATE.
    Establishing,
    /// Up.
    Established,
    /// Up; what arrives waits until the other link has brought all that was sent before.
    Synching,
    /// Down, and says and hears nothing until the other link has brought what this one still held.
    FailingOver,
}

/// What can happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The peer proved that its endpoint knows us.
    Establish,
    /// The peer's endpoint was reset.
    PeerReset,
    /// Silence, an impossible sequence, an orderly stop.
    Failure,
    /// The peer has begun to use this link beside another.
    SynchBegin,
    /// The other link has brought what was sent before.
    SynchEnd,
    /// What this link held goes over another one.
    FailoverBegin,
    /// All of it has arrived.
    FailoverEnd,
}

/// What follows for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The link went up.
    Up,
    /// The link went down; the endpoint has to be reset.
    Down,
}

/// The next state. Pure: the caller performs the effect.
pub fn step(state: LinkState, event: LinkEvent) -> (LinkState, Option<Effect>) {
    use {LinkEvent as E, LinkState as S};
    match (state, event) {
        (S::Reset, E::PeerReset) => (S::Establishing, None),
        (S::Establishing, E::Establish) => (S::Established, Some(Effect::Up)),
        (S::Established | S::Synching, E::PeerReset) => (S::Establishing, Some(Effect::Down)),
        (S::Established | S::Synching, E::Failure) => (S::Reset, Some(Effect::Down)),
        (S::Established, E::SynchBegin) => (S::Synching, None),
        (S::Synching, E::SynchEnd) => (S::Established, None),
        (S::Reset | S::Establishing, E::FailoverBegin) => (S::FailingOver, None),
        (S::FailingOver, E::FailoverEnd) => (S::Reset, None),
        // Only a peer whose session is known can establish, and there is nothing to fail before.
        (S::Reset, E::Establish | E::Failure)
        | (S::Establishing, E::PeerReset | E::Failure)
        | (S::Established | S::Synching, E::Establish)
        | (S::Synching, E::SynchBegin)
        | (S::FailingOver, E::PeerReset | E::Establish | E::Failure | E::FailoverBegin)
        // A link that is up is taken down first, and one that is down has nothing to wait for.
        | (S::Established | S::Synching, E::FailoverBegin)
        | (S::Reset | S::Establishing | S::FailingOver, E::SynchBegin)
        | (S::Reset | S::Establishing | S::Established | S::FailingOver, E::SynchEnd)
        | (S::Reset | S::Establishing | S::Established | S::Synching, E::FailoverEnd) => {
            (state, None)
        }
    }
}
