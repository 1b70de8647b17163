//! Sockets and the bindings of the cluster.

use serde::{Deserialize, Serialize};

use crate::NodeIdentity;

/// How far a binding is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The old name of cluster scope, still shown as such.
    Zone,
    /// By every node.
    Cluster,
    /// By the own node only.
    Node,
}

/// A row of the binding table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Service type.
    #[serde(rename = "type")]
    pub service_type: u32,
    /// Lower end of the range.
    pub lower: u32,
    /// Upper end of the range, included.
    pub upper: u32,
    /// How far it is seen.
    pub scope: Scope,
    /// The port that is bound; 0 for the node state service.
    pub port: u32,
    /// Address of the node the port is on.
    pub address: u32,
    /// Its identity, where known.
    pub node: Option<NodeIdentity>,
}

/// A socket of any process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketInfo {
    /// Its port number.
    pub port: u32,
    /// Its type.
    pub kind: SocketKind,
    /// The process that owns it; `None` for the daemon's own.
    pub pid: Option<u32>,
    /// Its bindings.
    pub bound: Vec<Binding>,
    /// The peer of a connected socket.
    pub connected: Option<Connection>,
    /// Messages waiting to be received.
    #[serde(default)]
    pub receive_queue_messages: u64,
    /// Octets waiting to be received.
    #[serde(default)]
    pub receive_queue_bytes: u64,
    /// Messages that were dropped or rejected for want of room.
    #[serde(default)]
    pub drops: u64,
}

/// The types of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketKind {
    /// Reliable datagrams.
    Rdm,
    /// Datagrams.
    Dgram,
    /// Connections with message boundaries.
    Seqpacket,
    /// Byte streams.
    Stream,
}

/// A service range a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Service type.
    #[serde(rename = "type")]
    pub service_type: u32,
    /// Lower end of the range.
    pub lower: u32,
    /// Upper end of the range, included.
    pub upper: u32,
    /// How far it is seen.
    pub scope: Scope,
}

/// The other end of a connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Node address of the peer.
    pub address: u32,
    /// Port of the peer.
    pub port: u32,
    /// The service address the connection was made through, if any.
    pub via: Option<ServiceAddress>,
}

/// A service address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// Service type.
    #[serde(rename = "type")]
    pub service_type: u32,
    /// Service instance.
    pub instance: u32,
}
