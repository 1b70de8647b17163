//! TIPC's addresses and choices, as both sides of the boundary speak of them.

use std::fmt;

use crate::Violation;

/// A socket: port number and node address. Node 0 means the own node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketAddress {
    /// Port number, unique on its node.
    pub port: u32,
    /// Node address.
    pub node: u32,
}

/// A service address: one instance of a service type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAddress {
    /// Service type; 0 to 63 are reserved for TIPC itself.
    pub type_: u32,
    /// Service instance.
    pub instance: u32,
}

/// A range of instances of a service type, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceRange {
    /// Service type; 0 to 63 are reserved for TIPC itself.
    pub type_: u32,
    /// First instance.
    pub lower: u32,
    /// Last instance.
    pub upper: u32,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To this very socket.
    Socket(SocketAddress),
    /// To one of the sockets bound to the service address (anycast).
    Service {
        /// The service address.
        address: ServiceAddress,
        /// Lookup domain: 0 for the whole cluster, or the address of the node that shall do the lookup.
        domain: u32,
    },
    /// To every socket bound to an instance of the range (multicast).
    Multicast(ServiceRange),
}

/// The service name a message was sent to, as its receiver sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DestinationName {
    /// It was sent to a socket address.
    #[default]
    None,
    /// It was sent to a service address.
    Service(ServiceAddress),
    /// It was sent to a service range.
    Multicast(ServiceRange),
}

/// How far a binding can be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// On every node of the cluster.
    #[default]
    Cluster = 2,
    /// On the own node only.
    Node = 3,
}

/// Importance of a message: the higher, the more of it a link or a receiver takes before it refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Importance {
    /// The default.
    #[default]
    Low = 0,
    /// Twice the room of low.
    Medium = 1,
    /// Four times the room of low.
    High = 2,
    /// Eight times the room of low.
    Critical = 3,
}

/// Type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketKind {
    /// `SOCK_STREAM`: bytes over a connection.
    Stream = 1,
    /// `SOCK_DGRAM`: unreliable datagrams.
    Dgram = 2,
    /// `SOCK_RDM`: reliable datagrams.
    Rdm = 4,
    /// `SOCK_SEQPACKET`: messages over a connection.
    Seqpacket = 5,
}

fn meaningless<T>(field: &'static str, value: u32) -> Result<T, Violation> {
    Err(Violation::Field { field, value })
}

impl Scope {
    pub(crate) fn decode(value: u32) -> Result<Self, Violation> {
        match value {
            2 => Ok(Self::Cluster),
            3 => Ok(Self::Node),
            _ => meaningless("scope", value),
        }
    }
}

impl Importance {
    /// The importance of this number, 0 to 3.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Low),
            1 => Some(Self::Medium),
            2 => Some(Self::High),
            3 => Some(Self::Critical),
            _ => None,
        }
    }

    pub(crate) fn decode(value: u32) -> Result<Self, Violation> {
        Self::from_number(value).map_or_else(|| meaningless("importance", value), Ok)
    }
}

impl SocketKind {
    /// The type that this number stands for.
    pub fn decode(value: u32) -> Result<Self, Violation> {
        match value {
            1 => Ok(Self::Stream),
            2 => Ok(Self::Dgram),
            4 => Ok(Self::Rdm),
            5 => Ok(Self::Seqpacket),
            _ => meaningless("socket kind", value),
        }
    }
}

impl Destination {
    /// Kind and three words, as they stand in a submission. Kind 0 is left for "none".
    pub(crate) fn encode(self) -> (u8, [u32; 3]) {
        match self {
            Self::Multicast(range) => (1, [range.type_, range.lower, range.upper]),
            Self::Service { address, domain } => (2, [address.type_, address.instance, domain]),
            Self::Socket(socket) => (3, [socket.port, socket.node, 0]),
        }
    }

    pub(crate) fn decode(kind: u8, words: [u32; 3]) -> Result<Option<Self>, Violation> {
        let [a, b, c] = words;
        Ok(Some(match kind {
            0 => return Ok(None),
            1 => Self::Multicast(ServiceRange {
                type_: a,
                lower: b,
                upper: c,
            }),
            2 => Self::Service {
                address: ServiceAddress {
                    type_: a,
                    instance: b,
                },
                domain: c,
            },
            3 => Self::Socket(SocketAddress { port: a, node: b }),
            _ => return meaningless("destination kind", kind.into()),
        }))
    }
}

impl DestinationName {
    pub(crate) fn encode(self) -> (u8, [u32; 3]) {
        match self {
            Self::None => (0, [0; 3]),
            Self::Multicast(range) => (1, [range.type_, range.lower, range.upper]),
            Self::Service(name) => (2, [name.type_, name.instance, name.instance]),
        }
    }

    pub(crate) fn decode(kind: u8, [type_, lower, upper]: [u32; 3]) -> Result<Self, Violation> {
        match kind {
            0 => Ok(Self::None),
            1 => Ok(Self::Multicast(ServiceRange {
                type_,
                lower,
                upper,
            })),
            2 => Ok(Self::Service(ServiceAddress {
                type_,
                instance: lower,
            })),
            _ => meaningless("destination name kind", kind.into()),
        }
    }
}

impl From<SocketAddress> for Destination {
    fn from(address: SocketAddress) -> Self {
        Self::Socket(address)
    }
}

impl From<ServiceAddress> for Destination {
    fn from(address: ServiceAddress) -> Self {
        Self::Service { address, domain: 0 }
    }
}

impl From<ServiceRange> for Destination {
    fn from(range: ServiceRange) -> Self {
        Self::Multicast(range)
    }
}

impl From<ServiceAddress> for ServiceRange {
    fn from(address: ServiceAddress) -> Self {
        Self {
            type_: address.type_,
            lower: address.instance,
            upper: address.instance,
        }
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:x}", self.port, self.node)
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.type_, self.instance)
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.type_, self.lower, self.upper)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Service { address, domain: 0 } => address.fmt(f),
            Self::Service { address, domain } => write!(f, "{address} on {domain:x}"),
            Self::Multicast(range) => range.fmt(f),
        }
    }
}
