//! The generic netlink family `TIPCv2`, by which programs manage the kernel's TIPC, answered for an xtipc node: a message in, what
//! the daemon is to be asked, messages out. Whoever uses this carries the messages and asks the daemon.
//!
//! What the commands do is what `xtipc` does by its words; the numbers are those of `linux/tipc_netlink.h`. Messages are
//! checked to the last attribute, which the kernel is not as strict with.
//!
//! Reference: `docs/netlink.md`.
#![forbid(unsafe_code)]

mod answer;
mod bearer;
mod change;
mod family;
mod link;
mod show;
mod wire;

pub use answer::{Asker, answer, is_for_tipc};
pub use wire::Message;
