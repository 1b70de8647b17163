//! UDP datagrams as whole Ethernet frames, for sockets that the kernel's IP is not behind: AF_XDP.
//!
//! One datagram is one frame: no fragments, no IPv4 options, no IPv6 extension headers. Whatever a frame holds, it is
//! read or refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use Refused::{Checksum, Malformed};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
/// Bytes of the longest headers.
const HEADERS_MAX: usize = ETHERNET + IPV6 + UDP;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Version 4, and a header of five words.
const IPV4_PLAIN: u8 = 0x45;
/// More fragments, or not the first one.
const IPV4_FRAGMENT: u16 = 0x3fff;
const PROTOCOL_UDP: u8 = 17;

/// A received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// Whom it is for.
    pub to: SocketAddr,
    /// What it holds.
    pub payload: &'a [u8],
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no whole datagram from one station to whom it may concern.
    Malformed,
    /// A checksum is wrong.
    Checksum,
}

impl<'a> Datagram<'a> {
    /// Reads a frame.
    ///
    /// A checksum of UDP is verified; over IPv4 there may be none. One that holds the sum of addresses, length and
    /// protocol only is one that the sender left to a device, and there was none: the frame has not left this host's
    /// memory (veth, virtio).
    pub fn parse(frame: &'a [u8]) -> Result<Self, Refused> {
        let (ethernet, packet) = frame.split_first_chunk::<ETHERNET>().ok_or(Malformed)?;
        let [.., t0, t1] = *ethernet;
        let (from, to, segment) = match [t0, t1] {
            ETHERTYPE_IPV4 => ipv4(packet)?,
            ETHERTYPE_IPV6 => ipv6(packet)?,
            _ => return Err(Malformed),
        };
        let header = segment.first_chunk::<UDP>().ok_or(Malformed)?;
        let [s0, s1, d0, d1, l0, l1, c0, c1] = *header;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let segment = segment.get(..len).ok_or(Malformed)?;
        let payload = segment.get(UDP..).ok_or(Malformed)?;
        let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        if source == 0 || destination == 0 {
            return Err(Malformed);
        }
        let pseudo = pseudo_sum(from, to, len);
        match u16::from_be_bytes([c0, c1]) {
            0 if from.is_ipv4() => {}
            0 => return Err(Checksum),
            left if left == fold(pseudo) => {}
            _ if fold(pseudo + sum(segment)) == 0xffff => {}
            _ => return Err(Checksum),
        }
        Ok(Self {
            from: SocketAddr::new(from, source),
            to: SocketAddr::new(to, destination),
            payload,
        })
    }
}

fn ipv4(packet: &[u8]) -> Result<(IpAddr, IpAddr, &[u8]), Refused> {
    let header = packet.first_chunk::<IPV4>().ok_or(Malformed)?;
    let [
        plain,
        _,
        l0,
        l1,
        _,
        _,
        f0,
        f1,
        _,
        protocol,
        _,
        _,
        addresses @ ..,
    ] = *header;
    let [a, b, c, d, e, f, g, h] = addresses;
    let (from, to) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let whole = u16::from_be_bytes([f0, f1]) & IPV4_FRAGMENT == 0;
    let station = !(from.is_multicast()
        || from.is_broadcast()
        || from.is_loopback()
        || from.is_unspecified());
    if plain != IPV4_PLAIN || protocol != PROTOCOL_UDP || !whole || !station {
        return Err(Malformed);
    }
    if fold(sum(header)) != 0xffff {
        return Err(Checksum);
    }
    let segment = packet.get(IPV4..len).ok_or(Malformed)?;
    Ok((from.into(), to.into(), segment))
}

fn ipv6(packet: &[u8]) -> Result<(IpAddr, IpAddr, &[u8]), Refused> {
    let (header, rest) = packet.split_first_chunk::<IPV6>().ok_or(Malformed)?;
    let (words, addresses) = header.split_first_chunk::<8>().ok_or(Malformed)?;
    let [version, _, _, _, l0, l1, next, _] = *words;
    let (from, to) = addresses.split_first_chunk::<16>().ok_or(Malformed)?;
    let to: &[u8; 16] = to.try_into().map_err(|_| Malformed)?;
    let (from, to) = (Ipv6Addr::from(*from), Ipv6Addr::from(*to));
    let station = !(from.is_multicast() || from.is_loopback() || from.is_unspecified());
    if version >> 4 != 6 || next != PROTOCOL_UDP || !station {
        return Err(Malformed);
    }
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let segment = rest.get(..len).ok_or(Malformed)?;
    Ok((from.into(), to.into(), segment))
}

/// Where datagrams come from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The own hardware address.
    pub mac: [u8; 6],
    /// The own address and port.
    pub socket: SocketAddr,
}

/// The headers in front of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    bytes: [u8; HEADERS_MAX],
    len: usize,
}

impl Headers {
    /// Those of a datagram with this payload. `id` tells an IPv4 packet from others, for routers that cut it into
    /// fragments. `None`: addresses of two families, or more than a datagram holds.
    pub fn new(
        source: Source,
        next_hop: [u8; 6],
        to: SocketAddr,
        hops: u8,
        id: u16,
        payload: &[u8],
    ) -> Option<Self> {
        let segment_len = u16::try_from(UDP + payload.len()).ok()?;
        let (mut bytes, mut len) = ([0; HEADERS_MAX], 0);
        let mut put = |part: &[u8]| {
            bytes[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        };
        put(&next_hop);
        put(&source.mac);
        match (source.socket.ip(), to.ip()) {
            (IpAddr::V4(own), IpAddr::V4(to)) => {
                put(&ETHERTYPE_IPV4);
                let packet_len = segment_len.checked_add(IPV4 as u16)?;
                let mut header = [0; IPV4];
                header[0] = IPV4_PLAIN;
                header[2..4].copy_from_slice(&packet_len.to_be_bytes());
                header[4..6].copy_from_slice(&id.to_be_bytes());
                (header[8], header[9]) = (hops, PROTOCOL_UDP);
                header[12..16].copy_from_slice(&own.octets());
                header[16..].copy_from_slice(&to.octets());
                let checksum = !fold(sum(&header));
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                put(&header);
            }
            (IpAddr::V6(own), IpAddr::V6(to)) => {
                put(&ETHERTYPE_IPV6);
                put(&[0x60, 0, 0, 0]);
                put(&segment_len.to_be_bytes());
                put(&[PROTOCOL_UDP, hops]);
                put(&own.octets());
                put(&to.octets());
            }
            _ => return None,
        }
        let mut udp = [0; UDP];
        udp[..2].copy_from_slice(&source.socket.port().to_be_bytes());
        udp[2..4].copy_from_slice(&to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&segment_len.to_be_bytes());
        let pseudo = pseudo_sum(source.socket.ip(), to.ip(), segment_len.into());
        // No checksum has the value that stands for none.
        let checksum = match !fold(pseudo + sum(&udp) + sum(payload)) {
            0 => 0xffff,
            checksum => checksum,
        };
        udp[6..].copy_from_slice(&u16::to_be_bytes(checksum));
        put(&udp);
        Some(Self { bytes, len })
    }

    /// Their bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The hardware address of a multicast group.
pub fn group_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// The sum of what a UDP checksum covers of the packet around the datagram.
fn pseudo_sum(from: IpAddr, to: IpAddr, len: usize) -> u64 {
    let of = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    of(from) + of(to) + len as u64 + u64::from(PROTOCOL_UDP)
}

/// The sum of the words, far from an overflow: a frame has less than 2^17 bytes. Words of 32 bits have the same
/// remainder as their halves.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let whole: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_be_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    whole + u64::from(u32::from_be_bytes(last))
}

/// In ones' complement, 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests;
