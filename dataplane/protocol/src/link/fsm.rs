//! The link endpoint's states (`docs/protocol/link.md`, states).
//!
//! ```text
//!            peer reset              establish
//!   RESET ───────────────▶ ESTABLISHING ─────────▶ ESTABLISHED
//!     ▲ ◀───────────────────────┘  ▲                  │  │
//!     │         local reset        └──── peer reset ──┘  │
//!     └────────────── failure, local reset ──────────────┘
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
        // Only a peer whose session is known can establish.
        (S::Reset, E::Establish | E::Failure) => (S::Reset, None),
        (S::Establishing, E::Establish) => (S::Established, Some(Effect::Up)),
        // There is nothing to fail yet.
        (S::Establishing, E::PeerReset | E::Failure) => (S::Establishing, None),
        (S::Established, E::Establish) => (S::Established, None),
        (S::Established, E::PeerReset) => (S::Establishing, Some(Effect::Down)),
        (S::Established, E::Failure) => (S::Reset, Some(Effect::Down)),
    }
}
