//! Addresses: of nodes, sockets, services and media (`docs/protocol/discovery.md`, addresses).

use std::fmt;

/// 32-bit address of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddr(pub u32);

impl NodeAddr {
    /// No address yet, or "this node" in a socket address.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// 128-bit identity of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// An identity from text: its bytes, zero padded. `None` if it is empty, longer than 16 bytes or
    /// has characters outside `[0-9A-Za-z.:_@-]`.
    pub fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > 16 || !text.bytes().all(is_name_byte) {
            return None;
        }
        let mut id = [0; 16];
        id[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self(id))
    }

    /// The identity of a node that is named after an Ethernet address.
    pub fn from_mac(mac: [u8; 6]) -> Self {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&mac);
        Self(id)
    }

    /// The identity Linux gives a node of an older release that announces none.
    pub fn from_legacy_addr(addr: NodeAddr) -> Self {
        let mut id = [0; 16];
        let text = addr.to_string();
        id[..text.len()].copy_from_slice(text.as_bytes());
        Self(id)
    }

    /// The trial address that belongs to the identity.
    pub fn hash(self) -> NodeAddr {
        let words = self
            .0
            .as_chunks::<4>()
            .0
            .iter()
            .map(|w| u32::from_be_bytes(*w));
        let xor = words.clone().fold(0, |a, w| a ^ w);
        NodeAddr(if xor == 0 {
            words.fold(0, |a, w| a | w)
        } else {
            xor
        })
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".:_@-".contains(&byte)
}

impl fmt::Display for NodeId {
    /// Text if all bytes up to the last non-zero one are name characters, else hexadecimal without
    /// trailing zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self
            .0
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |last| last + 1);
        if self.0[..end].iter().all(|b| is_name_byte(*b)) {
            return self.0[..end]
                .iter()
                .try_for_each(|b| write!(f, "{}", *b as char));
        }
        let hex: String = self.0.iter().map(|b| format!("{b:02x}")).collect();
        f.write_str(hex.trim_end_matches('0'))
    }
}

/// A socket's port number, unique on its node; 0 is no port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

/// A socket of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketAddr {
    /// The socket's port number.
    pub port: PortId,
    /// Its node; [`NodeAddr::NONE`] is this node.
    pub node: NodeAddr,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// One socket.
    Socket(SocketAddr),
    /// One of the sockets bound to a service address.
    Service {
        /// Service type.
        kind: u32,
        /// Service instance.
        instance: u32,
        /// Look-up domain: a node, or [`NodeAddr::NONE`] for the whole cluster.
        domain: NodeAddr,
    },
    /// Every socket bound to an overlapping service range.
    Range {
        /// Service type.
        kind: u32,
        /// Lowest instance.
        lower: u32,
        /// Highest instance.
        upper: u32,
    },
}

/// A media address as it travels in discovery messages: 32 bytes, compared as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MediaAddr(pub [u8; 32]);

impl MediaAddr {
    const ETHERNET: u8 = 1;

    /// An Ethernet address.
    pub fn ethernet(mac: [u8; 6]) -> Self {
        let mut addr = [0; 32];
        addr[3] = Self::ETHERNET;
        addr[4..10].copy_from_slice(&mac);
        Self(addr)
    }

    /// The Ethernet address in it. Linux does not look at the media type byte, nor do we.
    pub fn mac(&self) -> [u8; 6] {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.0[4..10]);
        mac
    }
}

impl fmt::Debug for MediaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.mac();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Index of a bearer of this node, also its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BearerId(pub u8);

/// Bearers a node has at most.
pub const MAX_BEARERS: usize = 3;

impl BearerId {
    /// The bearer as an index below [`MAX_BEARERS`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}
