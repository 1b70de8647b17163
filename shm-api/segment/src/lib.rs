//! The shared-memory contract between xtipcd and an application: memory layout, rings, waking, and the handshake that
//! sets them up. Both sides' types live here, and all `unsafe` of this border.
//!
//! | module | what |
//! |---|---|
//! | [`attach`] | messages on the attach socket: hello, welcome, refusal, fds |
//! | [`daemon`] | the daemon's side of a segment |
//! | [`application`] | the application's side of a segment |
//! | [`batch`] | several messages in one payload |
//! | [`channel`] | direct channels between two applications |
//! | [`board`], `generation` | which service types have changed bindings, to be read without asking; model-checked with loom |
//! | [`fork`] | telling a process from its forked children |
//! | [`line`](mod@line) | what two nodes of one host share instead: a ring of packets each way |
//! | [`layout`] | where everything is in memory |
//! | `path`, `snapshot` | what the daemon shows of the way to a node, to be read without asking; model-checked with loom |
//! | `ring`, `stamped`, `wake` | single-producer single-consumer rings, sleep and wake handshake; model-checked with loom |
//!
//! What travels:
//!
//! ```text
//!             submission ring ───────▶            requests; payloads in the submission arena
//! application ◀─────── completion ring  daemon    one answer per request
//!             ◀─────── delivery ring              messages; payloads in the delivery arena
//!             release ring ──────────▶            messages consumed, kept, memory returned
//! ```
//!
//! Offsets and lengths only, no pointers. Memory lives in two sealed memfds: the *application area* is written by the
//! application, the *daemon area* by the daemon alone, which the kernel enforces. The daemon trusts nothing it reads:
//! every index and length is read once, checked, and used from the private copy; see [`Violation`].

mod generation;
mod primitive;
mod ring;
mod snapshot;
mod stamped;
mod violation;
mod wake;

#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
pub mod application;
#[cfg(not(loom))]
mod area;
#[cfg(not(loom))]
pub mod attach;
#[cfg(not(loom))]
pub mod batch;
#[cfg(not(loom))]
mod blocks;
#[cfg(not(loom))]
pub mod board;
#[cfg(not(loom))]
mod buffers;
#[cfg(not(loom))]
pub mod channel;
#[cfg(not(loom))]
pub mod daemon;
#[cfg(not(loom))]
mod delivery;
#[cfg(not(loom))]
pub mod fork;
#[cfg(not(loom))]
mod handle;
#[cfg(not(loom))]
mod kept;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
pub mod line;
#[cfg(not(loom))]
mod path;
#[cfg(not(loom))]
mod request;
#[cfg(not(loom))]
pub mod signals;
#[cfg(not(loom))]
mod state;

#[cfg(not(loom))]
pub use crate::{
    address::{
        Destination, DestinationName, Importance, Scope, ServiceAddress, ServiceRange,
        SocketAddress, SocketKind,
    },
    delivery::{ChannelNotice, DeliveryFlags, Meta, PEER_SILENT},
    path::{ConnectionWindow, PATHS_MAX, PathState},
    request::{
        Completion, GroupFlags, PayloadPlace, Ready, Request, SendFlags, Submission,
        address_of_value, address_value, option,
    },
    state::{Phase, SocketState},
};
pub use violation::Violation;

/// Most bytes a message can carry.
pub const MESSAGE_LEN_MAX: usize = 66_000;

#[cfg(all(test, loom))]
mod model;
