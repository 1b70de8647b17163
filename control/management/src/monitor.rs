//! Who watches whom.

use serde::{Deserialize, Serialize};

/// The monitors of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorsInfo {
    /// Nodes up to which all links are watched and no domain records are sent.
    pub threshold: u32,
    /// One for each bearer, in slot order.
    pub bearers: Vec<MonitorInfo>,
}

/// The monitor of a bearer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorInfo {
    /// The bearer, such as `eth:eth0`.
    pub bearer: String,
    /// Changes whenever it changes who watches whom.
    pub generation: u32,
    /// Only the links of the ring are watched, not all.
    pub ring: bool,
    /// The nodes in the order of the ring, the own one first.
    pub nodes: Vec<MonitoredInfo>,
}

/// A node on the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitoredInfo {
    /// Its address.
    pub address: u32,
    /// There is a link to it; of the own node always.
    pub up: bool,
    /// This node watches it itself.
    pub direct: bool,
    /// Generation of its domain record.
    pub generation: u32,
    /// Its domain, if it sent a record: the members and whether each is up.
    pub domain: Option<Vec<(u32, bool)>>,
    /// How many of these follow it on this node's ring, too.
    pub applied: u32,
}
