//! The broadcast link (`docs/protocol/broadcast.md`): one send link per node, one receive link per
//! peer. It has no protocol messages of its own; acknowledgements and gaps ride on the unicast links.

mod receive;
mod send;

pub use receive::{BroadcastPeer, BroadcastSequenced};
pub use send::{Asker, BroadcastLink, Report};

/// Broadcasts in flight at most: a receiver does not believe in more.
pub const BROADCAST_WINDOW: u16 = 50;
