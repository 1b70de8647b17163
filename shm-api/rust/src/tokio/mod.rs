//! Sockets for programs of tokio (feature `tokio`).
//!
//! Each type owns a socket of the same name in this crate, which it derefs to: what does not wait is called there. A
//! socket has two descriptors in the runtime's reactor, one for receiving and one for sending, so that a task that
//! receives and one that sends do not take each other's news.
//!
//! A send is one round trip through shared memory to the node, which answers at once; it suspends the task only while the
//! destination is congested. All of it has to happen within a runtime with I/O enabled.

mod side;
mod sockets;

pub use sockets::{Connection, Datagram, Group, Listener, Subscriber};
