//! The wire format: what each bit of a TIPC packet means, and nothing else.
//!
//! Two layers. [`Msg::check`] is the only way in for traffic: total on any input, it cuts a frame
//! to the stated size and makes every accessor infallible; [`Header`] is the way out. Control
//! messages have an owned form of their own with `parse` and `emit`. [`Packet`] is the same
//! knowledge as a value with named fields for every user and type: what traces, captures and tests
//! work with. Reference: `docs/protocol/wire.md`.

mod broadcast;
mod bundle;
mod conn_manager;
mod crypto;
mod data;
mod discovery;
mod domain;
pub mod field;
mod fragment;
mod gap_ack;
mod group_protocol;
mod header;
mod link_protocol;
mod msg;
mod name_distributor;
mod packet;
mod route;
mod text;
mod tunnel;

pub use broadcast::{BcastNack, BcastProtocol};
pub use bundle::{Bundle, MsgBundler, aligned};
pub use conn_manager::{ConnKind, ConnManager};
pub use crypto::{ALGORITHM_NAME, Encrypted, EncryptedSender, GCM_AES, MsgCrypto, TAG_SIZE};
pub use data::{Data, Form, GroupCast};
pub use discovery::{Capabilities, DISCOVERY_SIZE, DiscoveryKind, LinkConfig};
pub use domain::{DomainRecord, MAX_DOMAIN_MEMBERS};
pub use field::Field;
pub use fragment::{FragmentPlace, MsgFragmenter};
pub use gap_ack::{GapAckRecord, GapBlock, GapBlocks, GapList, MAX_GAP_BLOCKS};
pub use group_protocol::{GroupKind, GroupProtocol};
pub use header::Header;
pub use link_protocol::{Body, INTERFACE_NAME, LinkProtocol, Reset, State};
pub use msg::{DataType, Importance, Msg, User, WireError, check_size};
pub use name_distributor::{NameDistributor, NameItem, NameItems};
pub use packet::Packet;
pub use route::{Carrier, Route};
pub use text::type_name;
pub use tunnel::{TunnelKind, TunnelProtocol};

/// Header sizes in bytes.
pub mod size {
    /// Connection data between established endpoints.
    pub const SHORT: usize = 24;
    /// Data to a socket address.
    pub const BASIC: usize = 32;
    /// Data to a service address.
    pub const NAMED: usize = 40;
    /// Multicast and group data.
    pub const MCAST: usize = 44;
    /// Every internal user except LINK_CONFIG.
    pub const INT: usize = 40;
    /// LINK_CONFIG, and the largest header accepted.
    pub const MAX: usize = 60;
    /// The smallest header accepted.
    pub const MIN: usize = 24;
    /// Largest user payload of one message.
    pub const MAX_PAYLOAD: usize = 66_000;
    /// Largest message: header and payload.
    pub const MAX_MESSAGE: usize = MAX + MAX_PAYLOAD;
    /// Bytes of the original that a returned message carries at most.
    pub const MAX_RETURNED: usize = 1024;
    /// Smallest MTU of a bearer, without its encapsulation.
    pub const MIN_MTU: usize = 100;
    /// What such a bearer takes in one packet.
    pub const MIN_PACKET: usize = MIN_MTU - INT;
}

/// Error codes of rejected messages (word 1, bits 25 to 28).
pub mod errcode {
    /// Not an error.
    pub const OK: u32 = 0;
    /// No binding for the service address.
    pub const NO_NAME: u32 = 1;
    /// No such socket, or it does not accept the message.
    pub const NO_PORT: u32 = 2;
    /// Destination node unreachable.
    pub const NO_NODE: u32 = 3;
    /// Receive queue full.
    pub const OVERLOAD: u32 = 4;
    /// Orderly end of a connection.
    pub const CONN_SHUTDOWN: u32 = 5;
}

#[cfg(test)]
mod tests;
