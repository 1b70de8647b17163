//! A UDP bearer: kernel sockets over IPv4 or IPv6, to a multicast group or to a list of peers (replicast).
//!
//! What goes to all goes to the group, or as a copy to every peer: those configured, and those that have a link. One
//! socket has the own address, so that it is the source of all that is sent; another one hears the group.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};

use xtipc_management::{BearerInfo, BearerMode, Media, UdpAddresses};
use xtipc_protocol::addr::MediaAddr;
use xtipc_protocol::host::MediaDest;
use xtipc_xsk::addresses::{InterfaceAddress, addresses};
use xtipc_xsk::udp::{UdpError, UdpSocket};
use xtipc_xsk::{FrameIndex, FramePool};

use super::error::{BearerError, ChangeError, MTU_MIN};
use super::health::BearerEvent;
use super::traffic::{Traffic, TxDrop, named};
use super::{Defaults, HEADROOM};
use crate::config::{HEADERS_V4, HEADERS_V6, Local, MTU_MAX, PORT_DEFAULT, REMOTES_MAX, UdpSpec};

/// Bytes that the kernel may hold for each direction of a socket: some hundred packets of the longest MTU.
const BUFFER: usize = 8 << 20;
/// As Linux has them: IP cuts these into fragments, and IPv6 passes them everywhere whole.
pub(crate) const MTU_V4: u32 = 14_000;
const MTU_V6: u32 = 1280;

/// Whom a packet for all goes to.
enum Everybody {
    /// A multicast group, and the socket that hears it.
    Group(SocketAddr, UdpSocket),
    /// Copies.
    Replicast {
        /// Peers that were configured.
        configured: Vec<SocketAddr>,
        /// Peers that have a link and were not.
        linked: Vec<SocketAddr>,
    },
}

/// See the module.
pub(super) struct UdpBearer {
    socket: UdpSocket,
    everybody: Everybody,
    /// With the interface it is on.
    local: SocketAddr,
    interface: InterfaceAddress,
    mtu: usize,
    mode_reason: String,
    traffic: Traffic,
}

impl UdpBearer {
    /// Opens the sockets. Packets are not longer than `room`.
    pub(super) fn open(
        spec: &UdpSpec,
        defaults: &Defaults,
        room: usize,
    ) -> Result<Self, BearerError> {
        let interface = find(spec)?;
        spec.check_family(interface.ip).map_err(BearerError::Udp)?;
        let port = spec.local_port.unwrap_or(PORT_DEFAULT);
        let local = scoped(SocketAddr::new(interface.ip, port), interface.index);
        let socket = UdpSocket::open(local, BUFFER)?;
        let remotes = spec
            .remotes
            .iter()
            .map(|remote| scoped(remote.socket(), interface.index));
        let remotes: Vec<_> = remotes.collect();
        let group = match remotes.first() {
            Some(first) => Some(*first).filter(|remote| remote.ip().is_multicast()),
            None => {
                let ip = cluster_group(interface.ip, defaults.cluster_id);
                let port = spec.group_port.unwrap_or(PORT_DEFAULT);
                Some(scoped(SocketAddr::new(ip, port), interface.index))
            }
        };
        let everybody = match group {
            Some(group) => {
                let heard = scoped(SocketAddr::new(group.ip(), port), interface.index);
                Everybody::Group(group, UdpSocket::open(heard, BUFFER)?)
            }
            None => Everybody::Replicast {
                configured: remotes,
                linked: Vec::new(),
            },
        };
        let wanted = spec.mtu.unwrap_or(match interface.ip {
            IpAddr::V4(_) => defaults.udp_mtu,
            IpAddr::V6(_) => MTU_V6,
        }) as usize;
        let mtu = wanted.min(room);
        let mut mode_reason = match &everybody {
            Everybody::Group(group, _) => format!("multicast group {group}"),
            Everybody::Replicast { .. } => "copies to each peer".into(),
        };
        if mtu < wanted {
            mode_reason.push_str(&format!(
                "; packets limited to {mtu} of {wanted} bytes by the frame pool, made for the bearers of the start"
            ));
        }
        let bearer = Self {
            socket,
            everybody,
            local,
            interface,
            mtu,
            mode_reason,
            traffic: Traffic::default(),
        };
        bearer.listen_on(&bearer.interface)?;
        Ok(bearer)
    }

    pub(super) fn media_addr(&self) -> MediaAddr {
        MediaAddr::from_udp(self.local)
    }

    pub(super) fn mtu(&self) -> usize {
        self.mtu
    }

    pub(super) fn reaches_all_at_once(&self) -> bool {
        matches!(self.everybody, Everybody::Group(..))
    }

    pub(super) fn receive(
        &mut self,
        budget: usize,
        mut sink: impl FnMut(MediaAddr, &[u8]),
    ) -> usize {
        let Self {
            socket,
            everybody,
            traffic,
            ..
        } = self;
        let mut take = |from: SocketAddr, packet: &[u8]| {
            traffic.received(packet.len());
            sink(MediaAddr::from_udp(from), packet);
        };
        let taken = socket.receive(budget, &mut take);
        match everybody {
            Everybody::Group(_, group) => taken + group.receive(budget - taken, take),
            Everybody::Replicast { .. } => taken,
        }
    }

    pub(super) fn transmit(
        &mut self,
        pool: &FramePool,
        frame: FrameIndex,
        to: MediaDest,
        len: usize,
    ) {
        if len > self.mtu {
            return self.traffic.sent(len, Err(TxDrop::TooLong));
        }
        let packet = &pool.bytes(frame)[HEADROOM..HEADROOM + len];
        let (socket, traffic) = (&mut self.socket, &mut self.traffic);
        let mut send = |to| {
            if socket.stage(to, packet) {
                flush(socket, traffic);
            }
        };
        match (to, &self.everybody) {
            (MediaDest::Unicast(to), _) => match to.udp() {
                Some(to) => send(scoped(to, self.interface.index)),
                None => self.traffic.sent(len, Err(TxDrop::Refused)),
            },
            (MediaDest::Broadcast, Everybody::Group(group, _)) => send(*group),
            (MediaDest::Broadcast, Everybody::Replicast { configured, linked }) => {
                configured.iter().chain(linked).for_each(|to| send(*to));
            }
        }
    }

    pub(super) fn flush(&mut self) {
        flush(&mut self.socket, &mut self.traffic);
    }

    /// The stations that have a link now: what goes to all goes to them too, configured or not.
    pub(super) fn set_linked(&mut self, stations: impl Iterator<Item = MediaAddr>) {
        let Everybody::Replicast { configured, linked } = &mut self.everybody else {
            return;
        };
        let index = self.interface.index;
        let stations = stations.filter_map(|station| Some(scoped(station.udp()?, index)));
        *linked = stations
            .filter(|station| !configured.contains(station))
            .collect();
    }

    /// Adds a peer that copies are sent to.
    pub(super) fn add_remote(&mut self, remote: SocketAddr) -> Result<(), ChangeError> {
        let remote = scoped(remote, self.interface.index);
        let Everybody::Replicast { configured, linked } = &mut self.everybody else {
            return Err(ChangeError::Multicast);
        };
        if remote.is_ipv4() != self.local.is_ipv4() || remote.ip().is_multicast() {
            return Err(ChangeError::Address(remote.ip()));
        }
        if configured.contains(&remote) {
            return Err(ChangeError::Known(remote));
        }
        if configured.len() == REMOTES_MAX {
            return Err(ChangeError::TooMany);
        }
        configured.push(remote);
        linked.retain(|linked| *linked != remote);
        Ok(())
    }

    /// Sends no more copies to a peer that was added.
    pub(super) fn remove_remote(&mut self, remote: SocketAddr) -> Result<(), ChangeError> {
        let remote = scoped(remote, self.interface.index);
        let Everybody::Replicast { configured, .. } = &mut self.everybody else {
            return Err(ChangeError::Multicast);
        };
        let before = configured.len();
        configured.retain(|configured| *configured != remote);
        match configured.len() < before {
            true => Ok(()),
            false => Err(ChangeError::Unknown(remote)),
        }
    }

    /// Makes packets longer or shorter.
    pub(super) fn set_mtu(&mut self, mtu: u32, room: usize) -> Result<(), ChangeError> {
        let least = match self.local {
            SocketAddr::V4(_) => HEADERS_V4,
            SocketAddr::V6(_) => HEADERS_V6,
        } + MTU_MIN;
        let most = MTU_MAX.min(room as u32);
        if !(least..=most).contains(&mtu) {
            return Err(ChangeError::Mtu { least, most });
        }
        self.mtu = mtu as usize;
        Ok(())
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let group = match &self.everybody {
            Everybody::Group(_, socket) => Some(socket.as_fd()),
            Everybody::Replicast { .. } => None,
        };
        [self.socket.as_fd()].into_iter().chain(group)
    }

    pub(super) fn rx_ready(&self) -> bool {
        let group = match &self.everybody {
            Everybody::Group(_, socket) => socket.rx_ready(),
            Everybody::Replicast { .. } => false,
        };
        group || self.socket.rx_ready()
    }

    /// Whether the own address is there and its interface up. The kernel forgets which groups are heard on an interface
    /// that is gone.
    pub(super) fn check(&mut self) -> BearerEvent {
        let Ok(all) = addresses() else {
            return BearerEvent::Fine;
        };
        let mut found = all
            .into_iter()
            .filter(|found| found.ip == self.interface.ip);
        let was_up = self.interface.up;
        match found.find(|found| found.up) {
            Some(found) if was_up && found.index == self.interface.index => BearerEvent::Fine,
            Some(found) => match self.listen_on(&found) {
                Ok(()) => {
                    self.interface = found;
                    BearerEvent::Up
                }
                Err(error) => {
                    tracing::warn!(interface = found.interface, %error, "cannot go on with the bearer on it");
                    self.interface.up = false;
                    BearerEvent::Fine
                }
            },
            None => {
                self.interface.up = false;
                match was_up {
                    true => BearerEvent::Down,
                    false => BearerEvent::Fine,
                }
            }
        }
    }

    fn listen_on(&self, interface: &InterfaceAddress) -> Result<(), UdpError> {
        self.socket.send_groups_by(interface.ip, interface.index)?;
        match &self.everybody {
            Everybody::Group(group, socket) => {
                socket.join(group.ip(), interface.ip, interface.index)
            }
            Everybody::Replicast { .. } => Ok(()),
        }
    }

    pub(super) fn info(&self) -> BearerInfo {
        let (remotes, group_drops) = match &self.everybody {
            Everybody::Group(group, socket) => (vec![*group], socket.kernel_drops()),
            Everybody::Replicast { configured, linked } => {
                (configured.iter().chain(linked).copied().collect(), 0)
            }
        };
        let mut drops = self.traffic.drops();
        let overflow = self.socket.kernel_drops() + group_drops;
        drops.extend(named([("rx-buffer-full", overflow)]));
        BearerInfo {
            media: Media::Udp,
            mode: BearerMode::Udp,
            mode_reason: self.mode_reason.clone(),
            up: self.interface.up,
            media_address: self.media_addr().to_string(),
            udp: Some(UdpAddresses {
                local: self.local,
                remotes,
            }),
            mtu: self.mtu as u32,
            drops,
            ..self.traffic.info()
        }
    }
}

fn flush(socket: &mut UdpSocket, traffic: &mut Traffic) {
    socket.flush(|len, result| traffic.sent(len, result.map_err(TxDrop::of)));
}

/// The MTU of a bearer that is to be opened; where the family is not known yet, the larger one.
pub(super) fn mtu_wanted(spec: &UdpSpec) -> u32 {
    spec.mtu.unwrap_or(match &spec.local {
        Some(Local::Address(local)) if local.ip.is_ipv6() => MTU_V6,
        _ => MTU_V4,
    })
}

/// Link-local addresses are of an interface.
fn scoped(address: SocketAddr, ifindex: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => {
            let local = v6.ip().is_unicast_link_local() || v6.ip().is_multicast();
            let scope = if local { ifindex } else { 0 };
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope).into()
        }
        v4 => v4,
    }
}

/// The multicast group of a cluster, as the `tipc` tool computes it: over IPv6 its decimal digits are read as
/// hexadecimal ones.
fn cluster_group(local: IpAddr, cluster_id: u32) -> IpAddr {
    match local {
        IpAddr::V4(_) => {
            let [_, _, high, low] = cluster_id.to_be_bytes();
            Ipv4Addr::new(228, 0, high, low).into()
        }
        IpAddr::V6(_) => {
            let digits = cluster_id.to_string();
            let last = u16::from_str_radix(&digits, 16).unwrap_or(0);
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, last).into()
        }
    }
}

/// The interface that has the own address.
fn find(spec: &UdpSpec) -> Result<InterfaceAddress, BearerError> {
    let all = addresses().map_err(BearerError::Addresses)?;
    let (found, wanted) = match &spec.local {
        Some(Local::Address(wanted)) => {
            let found = all.iter().find(|found| {
                let scope = wanted.scope.as_deref();
                found.ip == wanted.ip && scope.is_none_or(|scope| scope == found.interface)
            });
            (found, wanted.to_string())
        }
        Some(Local::Device(device)) => {
            let found = all.iter().find(|found| found.interface == *device);
            (found, format!("of interface {device}"))
        }
        None => (None, "(none)".into()),
    };
    found.cloned().ok_or_else(|| BearerError::NoAddress {
        wanted,
        existing: all.iter().map(|found| found.ip.to_string()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_cluster_is_the_one_linux_takes() {
        for (local, cluster_id, group) in [
            ("10.0.0.1", 4711, "228.0.18.103"),
            ("10.0.0.1", 1, "228.0.0.1"),
            ("10.0.0.1", 9999, "228.0.39.15"),
            ("fe80::1", 4711, "ff02::4711"),
            ("2001:db8::1", 9999, "ff02::9999"),
        ] {
            let local = local.parse().unwrap();
            assert_eq!(cluster_group(local, cluster_id).to_string(), group);
        }
    }
}
