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
    /// What the tipc tool has no place for; only where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<SocketDetails>,
}

/// More about a socket: where its connection stands, and what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SocketDetails {
    /// Where it stands as far as connections go.
    pub state: SocketState,
    /// The processes that use it, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<u32>,
    /// The inode of its descriptor, by which `/proc` shows who else has a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<u64>,
    /// What is under way on its connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<ConnectionWindow>,
    /// Connection requests that wait to be accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u32>,
    /// What it asked of the topology service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriber: Option<SubscriberInfo>,
    /// What keeps it from sending, if its last message was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<SendWait>,
    /// Calls of its process that wait for an answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<WaitingCalls>,
    /// What goes by its direct channel, past the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelInfo>,
}

/// Messages of a direct channel, as the programs at its ends count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// Sent by this socket.
    pub sent: u64,
    /// Sent to it.
    pub received: u64,
    /// Of these those that its program has not received.
    pub unread: u32,
}

/// Where a socket stands as far as connections go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketState {
    /// Neither connected nor listening.
    #[default]
    Open,
    /// Takes connection requests.
    Listening,
    /// Its connection request is not answered yet.
    Connecting,
    /// It has a peer.
    Connected,
    /// Its connection is over.
    Disconnected,
}

/// What is under way to the peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionWindow {
    /// Whether blocks of 1024 octets are counted, or messages.
    pub unit: WindowUnit,
    /// Sent and not acknowledged.
    pub under_way: u32,
    /// How much may be: a message that begins within it may end beyond it.
    pub limit: u16,
    /// Octets of a stream that wait to share a packet.
    pub gathered_bytes: u64,
}

/// What the window of a connection counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowUnit {
    /// Blocks of 1024 octets.
    Blocks,
    /// Messages.
    Messages,
}

/// A subscriber of the topology service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriberInfo {
    /// Its subscriptions.
    pub subscriptions: u32,
    /// Events that wait in the service.
    pub events_waiting: u32,
    /// Events handed to its process and not read.
    pub events_unread: u32,
}

/// A sender that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendWait {
    /// For how long: since the first message that was refused.
    pub for_ms: u64,
    /// What for. `None`: there is room again, and it has not tried since.
    pub obstacle: Option<Obstacle>,
}

/// What stands in a sender's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "obstacle", rename_all = "kebab-case")]
pub enum Obstacle {
    /// The other end of its connection does not read: the window is used up.
    Peer {
        /// Its node.
        address: u32,
        /// Its port.
        port: u32,
    },
    /// A member of the socket's group.
    Member {
        /// Its node.
        address: u32,
        /// Its port.
        port: u32,
        /// What it has to do.
        lacks: MemberLacks,
    },
    /// A link is congested.
    Link {
        /// Its name.
        link: String,
        /// The node at its other end.
        address: u32,
    },
    /// The broadcast link is congested.
    BroadcastLink {
        /// The peer that has acknowledged least.
        slowest: Option<u32>,
    },
    /// The broadcast link has no room to tell the cluster of bindings that this process made before, and its messages must
    /// not overtake.
    Bindings {
        /// The peer that has acknowledged least.
        slowest: Option<u32>,
    },
    /// Too few frames of the pool are free.
    Frames,
}

/// What a member of a group has to do before another may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "lacks", rename_all = "kebab-case")]
pub enum MemberLacks {
    /// Say that it is a member: a socket is bound to the group's type.
    Join,
    /// Read: its window is too small for the message.
    Credit {
        /// Blocks it may be sent.
        window: u16,
        /// Blocks of the message.
        needed: u16,
    },
    /// Acknowledge the last broadcast.
    Acknowledgement,
}

/// Calls on a socket that wait for their answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingCalls {
    /// Which call.
    pub call: Call,
    /// How many of them.
    pub count: u32,
    /// How long the oldest has waited.
    pub for_ms: u64,
}

/// A call that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Sends that are not taken yet.
    Send,
    /// Connection requests that are not answered yet.
    Connect,
    /// Waits for a connection request.
    Accept,
    /// Any other.
    Other,
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
    /// No socket of the tipc tool: a subscriber of the topology service that needs no connection.
    Subscriber,
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
