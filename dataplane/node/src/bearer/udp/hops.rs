//! Which hardware address a datagram goes to: what the kernel has told of its routes and neighbours.
//!
//! A table that makes no system call. It names the destinations to be asked for, and takes the kernel's answers and
//! what the kernel tells of changes. Until it knows a destination, or where the kernel would not send it off plainly by
//! the bearer's interface, it gives nothing, and the datagram is the kernel's to send; that is also how the kernel comes to
//! resolve a neighbour.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;
use xtipc_ebpf::netlink::{Message, NLMSG_ERROR, attribute, put_attribute};

pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_GETNEIGH: u16 = 30;

/// Bytes of `struct rtmsg`.
const ROUTE_HEADER_SIZE: usize = 12;
/// `RTN_UNICAST`: by way of a gateway, or to a neighbour.
const ROUTE_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_METRICS: u16 = 8;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTAX_MTU: u16 = 2;

/// Bytes of `struct ndmsg`.
const NEIGHBOUR_HEADER_SIZE: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// States in which the kernel itself uses a neighbour's address, and is sure of it or asks already.
const NUD_USABLE: u16 = 0x02 | 0x08 | 0x10 | 0x40 | 0x80;
/// In use, but to be asked again when somebody sends.
const NUD_STALE: u16 = 0x04;

/// Destinations that are remembered: more than a node has peers.
const ROUTES_MAX: usize = 8192;

/// Where the datagrams to a destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// Not known yet.
    Asked,
    /// By another interface, or not plainly.
    Elsewhere,
    /// To this neighbour; packets on the way are not longer than `mtu`.
    Via { next: IpAddr, mtu: Option<u32> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbour {
    mac: [u8; 6],
    /// The next datagram is to be sent by the kernel, which then asks the neighbour whether it is still there.
    doubtful: bool,
}

/// A known way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) mac: [u8; 6],
    pub(super) mtu: Option<u32>,
}

/// See the module.
pub(super) struct Hops {
    ifindex: u32,
    own: IpAddr,
    routes: HashMap<IpAddr, Route>,
    neighbours: HashMap<IpAddr, Neighbour>,
    /// To be asked for.
    wanted: Vec<IpAddr>,
    /// Asked and not answered.
    asked: HashMap<u32, IpAddr>,
}

impl Hops {
    /// For datagrams from this address, by this interface.
    pub(super) fn new(ifindex: u32, own: IpAddr) -> Self {
        Self {
            ifindex,
            own,
            routes: HashMap::new(),
            neighbours: HashMap::new(),
            wanted: Vec::new(),
            asked: HashMap::new(),
        }
    }

    /// The way to a station.
    pub(super) fn find(&mut self, to: IpAddr) -> Option<Hop> {
        let (next, mtu) = match self.routes.get(&to) {
            Some(Route::Via { next, mtu }) => (*next, *mtu),
            Some(Route::Asked | Route::Elsewhere) => return None,
            None => {
                if self.routes.len() == ROUTES_MAX {
                    self.routes.clear();
                }
                self.routes.insert(to, Route::Asked);
                self.wanted.push(to);
                return None;
            }
        };
        let neighbour = self.neighbours.get_mut(&next)?;
        let mac = neighbour.mac;
        (!std::mem::take(&mut neighbour.doubtful)).then_some(Hop { mac, mtu })
    }

    /// Whether there is something to be asked.
    pub(super) fn has_questions(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// A destination to be asked for, and the body of the `RTM_GETROUTE`.
    pub(super) fn next_question(&mut self) -> Option<(IpAddr, Vec<u8>)> {
        let to = self.wanted.pop()?;
        let (family, bits) = match to {
            IpAddr::V4(_) => (libc::AF_INET as u8, 32),
            IpAddr::V6(_) => (libc::AF_INET6 as u8, 128),
        };
        let mut body = vec![0; ROUTE_HEADER_SIZE];
        body[..3].copy_from_slice(&[family, bits, bits]);
        put_attribute(&mut body, RTA_DST, &octets(to));
        put_attribute(&mut body, RTA_SRC, &octets(self.own));
        if matches!(to, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            put_attribute(&mut body, RTA_OIF, &self.ifindex.to_ne_bytes());
        }
        Some((to, body))
    }

    /// The question was asked, under this number.
    pub(super) fn asked(&mut self, sequence: u32, to: IpAddr) {
        self.asked.insert(sequence, to);
    }

    /// Routes may have changed: all are asked for once more, and used until the answer comes.
    pub(super) fn doubt_routes(&mut self) {
        self.wanted.clear();
        self.wanted.extend(self.routes.keys());
    }

    /// What the kernel told was lost in part: neighbours have to be asked for from the beginning.
    pub(super) fn forget(&mut self) {
        self.neighbours.clear();
        self.asked.clear();
        self.doubt_routes();
    }

    /// Takes what the kernel says; true if routes may have changed.
    pub(super) fn take(&mut self, message: &Message<'_>) -> bool {
        match message.kind {
            RTM_NEWNEIGH | RTM_DELNEIGH => {
                self.take_neighbour(message);
                false
            }
            RTM_NEWROUTE | NLMSG_ERROR => match self.asked.remove(&message.sequence) {
                Some(to) => {
                    let route = self.route_in(message).unwrap_or(Route::Elsewhere);
                    self.routes.insert(to, route);
                    false
                }
                None => message.kind == RTM_NEWROUTE,
            },
            // Only what was subscribed to comes unasked; the end of a list does not change anything.
            kind => kind >= FIRST_OWN_KIND,
        }
    }

    fn route_in(&self, message: &Message<'_>) -> Option<Route> {
        let (header, list) = message.body.split_first_chunk::<ROUTE_HEADER_SIZE>()?;
        let plain = message.kind == RTM_NEWROUTE && header[7] == ROUTE_UNICAST;
        let here = attribute(list, RTA_OIF).and_then(number) == Some(self.ifindex);
        if !plain || !here || attribute(list, RTA_ENCAP_TYPE).is_some() {
            return None;
        }
        // Behind its family.
        let via = attribute(list, RTA_VIA).and_then(|via| via.get(2..));
        let gateway = attribute(list, RTA_GATEWAY).or(via);
        let next = gateway.or_else(|| attribute(list, RTA_DST))?;
        let metrics = attribute(list, RTA_METRICS).unwrap_or_default();
        Some(Route::Via {
            next: address(next)?,
            mtu: attribute(metrics, RTAX_MTU).and_then(number),
        })
    }

    fn take_neighbour(&mut self, message: &Message<'_>) {
        let body = message.body;
        let Some((header, list)) = body.split_first_chunk::<NEIGHBOUR_HEADER_SIZE>() else {
            return;
        };
        let [_, _, _, _, i0, i1, i2, i3, s0, s1, _, _] = *header;
        let Some(ip) = attribute(list, NDA_DST).and_then(address) else {
            return;
        };
        if u32::from_ne_bytes([i0, i1, i2, i3]) != self.ifindex {
            return;
        }
        let state = u16::from_ne_bytes([s0, s1]);
        let mac = attribute(list, NDA_LLADDR).and_then(|mac| mac.try_into().ok());
        let usable = message.kind == RTM_NEWNEIGH && state & (NUD_USABLE | NUD_STALE) != 0;
        match mac.filter(|_| usable) {
            Some(mac) => {
                let doubtful = state & NUD_STALE != 0;
                self.neighbours.insert(ip, Neighbour { mac, doubtful });
            }
            None => {
                self.neighbours.remove(&ip);
            }
        }
    }
}

/// The kinds below are those of netlink itself.
const FIRST_OWN_KIND: u16 = 16;

/// The body of an `RTM_GETNEIGH` for all neighbours.
pub(super) fn neighbours_question() -> [u8; NEIGHBOUR_HEADER_SIZE] {
    [0; NEIGHBOUR_HEADER_SIZE]
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
