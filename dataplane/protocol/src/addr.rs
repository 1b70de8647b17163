//! Addresses: of nodes, sockets, services and media (`docs/protocol/discovery.md`, addresses).

use std::fmt;
use std::net::{IpAddr, SocketAddr as IpSocket};

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

/// What carries the packets of a bearer; it decides how stations are addressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// Ethernet.
    #[default]
    Ethernet,
    /// IP over InfiniBand devices.
    InfiniBand,
    /// UDP over IPv4 or IPv6.
    Udp,
    /// Memory shared by the nodes of one host.
    SharedMemory,
}

impl Media {
    /// The one station that an announced address names, written as a bearer writes the sender of a packet.
    /// `None` if it names a group, or nothing on this media.
    pub fn station(self, announced: MediaAddr) -> Option<MediaAddr> {
        match self {
            // Linux does not look at the media type byte, nor do we.
            Self::Ethernet => {
                let mac = announced.mac();
                (mac[0] & 1 == 0).then(|| MediaAddr::ethernet(mac))
            }
            Self::InfiniBand => {
                let address = announced.infiniband();
                (address[4] != MediaAddr::GROUP_GID).then(|| MediaAddr::from_infiniband(address))
            }
            Self::Udp => {
                let address = announced.udp()?;
                (!address.ip().is_multicast()).then(|| MediaAddr::from_udp(address))
            }
            Self::SharedMemory => {
                let number = announced.shared_memory()?;
                Some(MediaAddr::from_shared_memory(number))
            }
        }
    }
}

/// A media address as it travels in discovery messages: 32 bytes, compared as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MediaAddr(pub [u8; 32]);

impl MediaAddr {
    /// The sender of a packet whose media does not tell it: IPoIB.
    pub const UNTOLD: Self = Self([0; 32]);

    const ETHERNET: u8 = 1;
    const UDP: u8 = 3;
    const SHARED_MEMORY: u8 = 4;
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    /// First byte of the GID of a multicast group, byte 4 of an IPoIB address.
    const GROUP_GID: u8 = 0xff;

    /// An Ethernet address.
    pub fn ethernet(mac: [u8; 6]) -> Self {
        Self::with_type(Self::ETHERNET, &mac)
    }

    /// The Ethernet address in it.
    pub fn mac(&self) -> [u8; 6] {
        self.at(4)
    }

    /// An IPoIB address: queue pair and GID. It has no media type byte.
    pub fn from_infiniband(address: [u8; 20]) -> Self {
        let mut addr = [0; 32];
        addr[..20].copy_from_slice(&address);
        Self(addr)
    }

    /// The IPoIB address in it.
    pub fn infiniband(&self) -> [u8; 20] {
        self.at(0)
    }

    /// A UDP socket. The scope of a link-local address does not travel.
    pub fn from_udp(address: IpSocket) -> Self {
        let mut bytes = [0; 20];
        let protocol = match address.ip() {
            IpAddr::V4(ip) => {
                bytes[4..8].copy_from_slice(&ip.octets());
                Self::IPV4
            }
            IpAddr::V6(ip) => {
                bytes[4..].copy_from_slice(&ip.octets());
                Self::IPV6
            }
        };
        bytes[..2].copy_from_slice(&protocol.to_be_bytes());
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        Self::with_type(Self::UDP, &bytes)
    }

    /// The UDP socket in it; anything that is not IPv4 is IPv6, as in Linux.
    pub fn udp(&self) -> Option<IpSocket> {
        let port = u16::from_be_bytes(self.at(6));
        let ip = match u16::from_be_bytes(self.at(4)) {
            Self::IPV4 => IpAddr::from(self.at::<4>(8)),
            _ => IpAddr::from(self.at::<16>(8)),
        };
        (self.0[3] == Self::UDP).then(|| IpSocket::new(ip, port))
    }

    /// A station of a directory of nodes that share memory.
    pub fn from_shared_memory(number: u64) -> Self {
        Self::with_type(Self::SHARED_MEMORY, &number.to_be_bytes())
    }

    /// The station's number in it.
    pub fn shared_memory(&self) -> Option<u64> {
        (self.0[3] == Self::SHARED_MEMORY).then(|| u64::from_be_bytes(self.at(4)))
    }

    fn with_type(media: u8, bytes: &[u8]) -> Self {
        let mut addr = [0; 32];
        addr[3] = media;
        addr[4..4 + bytes.len()].copy_from_slice(bytes);
        Self(addr)
    }

    /// The bytes from `offset` on; a caller's field lies within the 32.
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[offset..offset + N]);
        bytes
    }
}

impl fmt::Display for MediaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(socket) = self.udp() {
            return write!(f, "{socket}");
        }
        if let Some(number) = self.shared_memory() {
            return write!(f, "{number:016x}");
        }
        let mac = self.mac();
        let infiniband = self.infiniband();
        let bytes: &[u8] = if *self == Self::ethernet(mac) {
            &mac
        } else {
            &infiniband
        };
        for (n, byte) in bytes.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MediaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> MediaAddr {
        let mut addr = [0; 32];
        for (byte, digits) in addr.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        }
        MediaAddr(addr)
    }

    #[test]
    fn media_addresses_are_written_as_linux_writes_them() {
        let udp = |text: &str| MediaAddr::from_udp(text.parse().unwrap());
        let queue_pair = *b"\x80\x00\x00\x48\xfe\x80\0\0\0\0\0\0\x02\x11\x22\x33\x44\x55\x66\x77";
        for (media, addr, expected, text) in [
            (
                Media::Ethernet,
                MediaAddr::ethernet([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
                "00000001525400123456",
                "52:54:00:12:34:56",
            ),
            (
                Media::Udp,
                udp("10.1.0.1:6118"),
                "00000003080017e60a010001",
                "10.1.0.1:6118",
            ),
            (
                Media::Udp,
                udp("[2001:db8::1]:6118"),
                "0000000386dd17e620010db8000000000000000000000001",
                "[2001:db8::1]:6118",
            ),
            (
                Media::InfiniBand,
                MediaAddr::from_infiniband(queue_pair),
                "80000048fe800000000000000211223344556677",
                "80:00:00:48:fe:80:00:00:00:00:00:00:02:11:22:33:44:55:66:77",
            ),
            (
                Media::SharedMemory,
                MediaAddr::from_shared_memory(0x12_3456),
                "000000040000000000123456",
                "0000000000123456",
            ),
        ] {
            assert_eq!(addr.0, wire(expected).0);
            assert_eq!(media.station(addr), Some(addr));
            assert_eq!(addr.to_string(), text);
        }
    }

    #[test]
    fn an_announced_address_of_a_group_or_another_media_names_no_station() {
        for (media, announced) in [
            (Media::Ethernet, "00000001ffffffffffff"),
            (Media::Ethernet, "00000001015e00000001"),
            (Media::Udp, "00000003080017e6e4001267"),
            (
                Media::Udp,
                "0000000386dd17e6ff020000000000000000000000004711",
            ),
            (Media::Udp, "00000001525400123456"),
            (
                Media::InfiniBand,
                "00ffffffff12401bffff00000000000000000001",
            ),
            (Media::SharedMemory, "00000001525400123456"),
        ] {
            assert_eq!(media.station(wire(announced)), None, "{announced}");
        }
    }

    #[test]
    fn what_a_station_address_does_not_use_is_not_looked_at() {
        let ethernet = wire("00000009525400123456ffff");
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        assert_eq!(
            Media::Ethernet.station(ethernet),
            Some(MediaAddr::ethernet(mac))
        );
        // Neither IPv4 nor IPv6 is IPv6.
        let odd = Media::Udp.station(wire("00000003000017e620010db8"));
        let plain = MediaAddr::from_udp("[2001:db8::]:6118".parse().unwrap());
        assert_eq!(odd, Some(plain));
    }
}
