//! What xtipcd and its tools tell each other over the control socket.
//!
//! The daemon owns the facts, a tool owns how they look: the structs here carry numbers and enums, never formatted
//! text. One request and one response are each one line of JSON on a Unix stream socket; `transport` describes the
//! framing and its limits, [`Client`] is the tool's end and [`serve`] the daemon's.
//!
//! A tool and a daemon of neighbouring versions understand each other: unknown fields are ignored, and fields that a
//! later version may add to a status have a default.
//!
//! Reference: `docs/protocol/management.md`.
#![forbid(unsafe_code)]

mod client;
mod identity;
mod key;
mod link;
mod message;
mod monitor;
mod path;
mod socket;
mod status;
mod transport;

pub use client::{Client, ClientError};
pub use identity::{IdentityError, NodeIdentity};
pub use key::{
    KEY_MAX, KeyBytes, KeyText, KeyTextError, KeysInfo, RekeyingTime, SessionKeyInfo, wipe,
};
pub use link::{
    LinkFilter, LinkInfo, LinkKind, LinkState, LinkStatistics, LinkSummary, SizeProfile,
};
pub use message::{Failure, MediaInfo, NodeInfo, OwnNode, Property, Reply, Request, Response};
pub use monitor::{MonitorInfo, MonitoredInfo, MonitorsInfo};
pub use path::{InstanceNameError, attach_socket, control_socket, runtime_directory};
pub use socket::{
    Binding, Call, ChannelInfo, Connection, ConnectionWindow, MemberLacks, Obstacle, Publication,
    Scope, SendWait, ServiceAddress, SocketDetails, SocketInfo, SocketKind, SocketState,
    SubscriberInfo, WaitingCalls, WindowUnit,
};
pub use status::{
    AttachmentInfo, BearerInfo, BearerMode, Counters, FramePool, Interrupt, Interrupts, Media,
    PeerInfo, QueueInfo, Status, Steering, SteeringWay, UdpAddresses, WaitMethod, WorkerInfo,
    WorkerPolicy, WorkerState,
};
pub use transport::{
    MAX_REQUEST, MAX_RESPONSE, TransportError, decode_request, decode_response, encode_request,
    encode_response, serve,
};
