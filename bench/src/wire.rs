//! One side of the wire, as a measuring process needs to know it.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wire {
    /// Of a node on it.
    pub(crate) bearer: String,
    pub(crate) interface: String,
    pub(crate) mac: [u8; 6],
    pub(crate) peer_mac: [u8; 6],
    /// Where the other end is.
    pub(crate) peer: Ipv4Addr,
}
