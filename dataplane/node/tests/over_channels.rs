//! The tests of connections, groups, pollers and asynchronous sockets again, over direct channels.
#![allow(
    clippy::duplicate_mod,
    reason = "each file has the module `host` for itself"
)]

#[path = "async_sockets.rs"]
mod async_sockets;
#[path = "connections.rs"]
mod connections;
#[path = "groups.rs"]
mod groups;
#[path = "poller.rs"]
mod poller;
#[path = "sharing.rs"]
mod sharing;
