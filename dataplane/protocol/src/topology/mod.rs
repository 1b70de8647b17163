//! The topology service: tells subscribers which service ranges are bound and withdrawn, which nodes and which
//! links are up (`docs/protocol/topology.md`).
//!
//! * `subscription`, `filter` - what a subscriber asks for, in its own byte order;
//! * `event` - what it is told;
//! * `index` - which subscriptions a change of the binding table concerns;
//! * `queue` - events that wait for their subscriber;
//! * `service` - the set of subscriptions: timeouts, limits, order of events.
//!
//! Owned by the engine; pure state without I/O, clock or threads. A subscriber is whoever the engine says: the
//! node's end of a connection to {1,1}, or an application that needs no connection.

mod event;
mod filter;
mod index;
mod queue;
mod service;
mod subscription;
#[cfg(test)]
mod tests;

pub use event::{Event, EventKind};
pub use filter::Filter;
pub use service::{Limits, Load, Subscriber, TopologyService};
pub use subscription::{Request, RequestError, Subscription};
