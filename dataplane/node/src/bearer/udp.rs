//! A UDP bearer: kernel sockets over IPv4 or IPv6, to a multicast group or to a list of peers (replicast); where its
//! interface is named, AF_XDP beside them ([`express`]).
//!
//! What goes to all goes to the group, or as a copy to every peer: those configured, and those that have a link. One
//! socket has the own address, so that it is the source of all that is sent; another one hears the group.

mod express;
mod hops;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hashbrown::HashSet;
use xtipc_ebpf::Classifier;
use xtipc_management::{BearerInfo, BearerMode, Media, UdpAddresses};
use xtipc_protocol::addr::MediaAddr;
use xtipc_protocol::host::{MediaDest, Reserve};
use xtipc_xsk::addresses::{InterfaceAddress, addresses};
use xtipc_xsk::udp::{UdpError, UdpSocket};
use xtipc_xsk::{FrameIndex, FramePool};

use super::claim::Claim;
use super::error::{BearerError, ChangeError, MTU_MIN, StillHeld, XdpError};
use super::health::BearerEvent;
use super::traffic::{Traffic, TxDrop, named};
use super::xdp::{ClosingSockets, XdpPort};
use super::{Defaults, HEADROOM, Hands};
use crate::config::{
    HEADERS_V4, HEADERS_V6, Local, MTU_MAX, PORT_DEFAULT, REMOTES_MAX, Refused, UdpSpec,
    is_for_somebody,
};
use crate::wait::Interest;
use express::Express;

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
        /// Peers that an operator has removed: not heard until they are added again, for they may know us still.
        removed: HashSet<SocketAddr>,
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
    express: Option<Box<Express>>,
    /// What was left of an express whose interface is gone.
    closing: ClosingSockets,
    /// The waiter has reported a bearer since the sockets were asked.
    called: bool,
    mode_reason: String,
    traffic: Traffic,
}

impl UdpBearer {
    /// Opens the sockets, and AF_XDP beside them where that can be had. Packets are not longer than `room`.
    pub(super) fn open(
        spec: &UdpSpec,
        defaults: &Defaults,
        room: usize,
        ready: Option<Classifier>,
        pool: &mut FramePool,
    ) -> Result<Self, BearerError> {
        let interface = find(spec)?;
        spec.check_family(interface.ip).map_err(BearerError::Udp)?;
        let mtus = mtus(interface.ip, room);
        if let Some(mtu) = spec.mtu.filter(|mtu| !mtus.contains(mtu)) {
            return Err(BearerError::Udp(Refused {
                problem: format!(
                    "mtu {mtu} is more than the frame pool holds, which was made for the bearers of the start"
                ),
                accepted: format!("{} to {}", mtus.start(), mtus.end()),
            }));
        }
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
                removed: HashSet::new(),
            },
        };
        let heard = match &everybody {
            Everybody::Group(group, _) => Some(group.ip()),
            Everybody::Replicast { .. } => None,
        };
        let mut mode_reason = match heard {
            Some(group) => format!("multicast group {group}"),
            None => "copies to each peer".into(),
        };
        let opened = spec.interface().map(|_| {
            Express::open(
                &interface.interface,
                local,
                heard,
                defaults.xdp,
                ready,
                pool,
            )
        });
        let express = match opened {
            Some(Ok((express, reason))) => {
                mode_reason.push_str(&format!("; {reason}"));
                Some(Box::new(express))
            }
            Some(Err(reason)) => {
                mode_reason.push_str(&format!("; sockets: {reason}"));
                None
            }
            None => {
                mode_reason.push_str("; sockets: no interface is named (device=IFACE)");
                None
            }
        };
        let wanted = spec.mtu.unwrap_or(match interface.ip {
            IpAddr::V4(_) => defaults.udp_mtu,
            IpAddr::V6(_) => MTU_V6,
        }) as usize;
        let mut mtu = wanted.min(room);
        if mtu < wanted {
            mode_reason.push_str(&format!(
                "; packets limited to {mtu} of {wanted} bytes by the frame pool, made for the bearers of the start"
            ));
        }
        // In one piece they pass the kernel by.
        if let (None, Some(express)) = (spec.mtu, &express)
            && express.room() < mtu
        {
            mode_reason.push_str(&format!(
                "; packets of {} instead of {mtu} bytes, so that they go by AF_XDP (mtu=N for longer ones)",
                express.room()
            ));
            mtu = express.room();
        }
        let bearer = Self {
            socket,
            everybody,
            local,
            interface,
            mtu,
            express,
            closing: ClosingSockets::default(),
            called: true,
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
        let must_ask_sockets = self.must_ask_sockets();
        let traffic = &mut self.traffic;
        let mut of_removed = 0;
        let (group, removed) = match &mut self.everybody {
            Everybody::Group(_, group) => (Some(group), None),
            Everybody::Replicast { removed, .. } => (None, Some(&*removed)),
        };
        let removed = removed.filter(|removed| !removed.is_empty());
        let index = self.interface.index;
        let mut take = |from, packet: &[u8]| {
            if removed.is_some_and(|removed| removed.contains(&scoped(from, index))) {
                of_removed += 1;
            } else {
                sink(MediaAddr::from_udp(from), packet);
            }
        };
        let mut taken = 0;
        if let Some(express) = &mut self.express {
            taken = express.receive(budget, traffic, &mut take);
        }
        if must_ask_sockets {
            self.called = false;
            let mut take = |from, packet: &[u8]| {
                traffic.received(packet.len());
                take(from, packet);
            };
            taken += self.socket.receive(budget - taken, &mut take);
            if let Some(group) = group {
                taken += group.receive(budget - taken, take);
            }
        }
        self.traffic.rx_removed_peer += of_removed;
        taken
    }

    /// Whether the kernel's sockets may have something: where the express takes whole packets of any length, they get
    /// little, and the waiter tells.
    fn must_ask_sockets(&self) -> bool {
        let takes_all = |express: &Express| self.mtu <= express.room();
        self.called || self.rx_left() || !self.express.as_deref().is_some_and(takes_all)
    }

    /// The waiter has reported a bearer.
    pub(super) fn on_call(&mut self) {
        self.called = true;
        if let Some(express) = &mut self.express {
            express.listen();
        }
    }

    pub(super) fn transmit(
        &mut self,
        pool: &mut FramePool,
        frame: FrameIndex,
        to: MediaDest,
        len: usize,
        reserve: Reserve,
    ) {
        if len > self.mtu {
            return self.traffic.sent(len, Err(TxDrop::TooLong));
        }
        let Self {
            socket,
            express,
            traffic,
            ..
        } = self;
        let mut send = |to| {
            let express = express.as_deref_mut();
            let sent = express.and_then(|express| express.transmit(pool, frame, to, len, reserve));
            if let Some(result) = sent {
                traffic.sent(len, result);
            } else if socket.stage(to, &pool.bytes(frame)[HEADROOM..HEADROOM + len]) {
                flush(socket, traffic);
            }
        };
        match (to, &self.everybody) {
            (MediaDest::Unicast(to), _) => match to.udp() {
                Some(to) => send(scoped(to, self.interface.index)),
                None => self.traffic.sent(len, Err(TxDrop::Refused)),
            },
            (MediaDest::Broadcast, Everybody::Group(group, _)) => send(*group),
            (
                MediaDest::Broadcast,
                Everybody::Replicast {
                    configured, linked, ..
                },
            ) => {
                configured.iter().chain(linked).for_each(|to| send(*to));
            }
        }
    }

    pub(super) fn reclaim(&mut self, pool: &mut FramePool) {
        if let Some(express) = &mut self.express {
            express.reclaim(pool);
        }
    }

    pub(super) fn set_clock(&mut self, now: Duration) {
        if let Some(express) = &mut self.express {
            express.set_clock(now);
        }
    }

    pub(super) fn flush(&mut self) {
        flush(&mut self.socket, &mut self.traffic);
        if let Some(express) = &mut self.express {
            express.flush();
        }
    }

    /// Spreads over the queues that further workers serve what is sent, and has their interrupts next to these.
    pub(super) fn steer(&mut self, hands: &Hands<'_>, pool: &FramePool) {
        if let Some(express) = &mut self.express {
            express.steer(hands, pool);
        }
    }

    /// The stations that have a link now: what goes to all goes to them too, configured or not.
    pub(super) fn set_linked(&mut self, stations: impl Iterator<Item = MediaAddr>) {
        let stations: Vec<_> = stations.collect();
        if let Some(port) = self.port_mut() {
            // The NIC's hash does not tell.
            port.set_linked(stations.iter().copied(), |_| None);
        }
        let Everybody::Replicast {
            configured, linked, ..
        } = &mut self.everybody
        else {
            return;
        };
        let index = self.interface.index;
        let stations = stations.iter();
        let stations = stations.filter_map(|station| Some(scoped(station.udp()?, index)));
        *linked = stations
            .filter(|station| !configured.contains(station))
            .collect();
    }

    /// Adds a peer that copies are sent to.
    pub(super) fn add_remote(&mut self, remote: SocketAddr) -> Result<(), ChangeError> {
        let remote = scoped(remote, self.interface.index);
        let Everybody::Replicast {
            configured,
            linked,
            removed,
        } = &mut self.everybody
        else {
            return Err(ChangeError::Multicast);
        };
        let of_one = is_for_somebody(remote.ip()) && !remote.ip().is_multicast();
        if remote.is_ipv4() != self.local.is_ipv4() || !of_one {
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
        removed.remove(&remote);
        Ok(())
    }

    /// Sends no more copies to a peer, listed or not, and hears it no more.
    pub(super) fn remove_remote(&mut self, remote: SocketAddr) -> Result<(), ChangeError> {
        let remote = scoped(remote, self.interface.index);
        let Everybody::Replicast {
            configured,
            linked,
            removed,
        } = &mut self.everybody
        else {
            return Err(ChangeError::Multicast);
        };
        if !configured.contains(&remote) && !linked.contains(&remote) {
            return Err(ChangeError::Unknown(remote));
        }
        configured.retain(|configured| *configured != remote);
        linked.retain(|linked| *linked != remote);
        removed.insert(remote);
        Ok(())
    }

    /// Makes packets longer or shorter.
    pub(super) fn set_mtu(&mut self, mtu: u32, room: usize) -> Result<(), ChangeError> {
        let mtus = mtus(self.local.ip(), room);
        if !mtus.contains(&mtu) {
            let (least, most) = mtus.into_inner();
            return Err(ChangeError::Mtu { least, most });
        }
        self.mtu = mtu as usize;
        Ok(())
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        let group = match &self.everybody {
            Everybody::Group(_, socket) => Some(socket.as_fd()),
            Everybody::Replicast { .. } => None,
        };
        let express = self.express.as_deref().map(Express::fds);
        let sockets = [self.socket.as_fd()].into_iter().chain(group);
        let sockets = sockets.map(|socket| (socket, Interest::Read));
        sockets.chain(express.into_iter().flatten())
    }

    /// The sockets of AF_XDP, where it runs.
    pub(super) fn port(&self) -> Option<&XdpPort> {
        self.express.as_deref().map(Express::port)
    }

    /// The same, to use them.
    pub(super) fn port_mut(&mut self) -> Option<&mut XdpPort> {
        self.express.as_deref_mut().map(Express::port_mut)
    }

    pub(super) fn rx_ready(&mut self) -> bool {
        let left = self.rx_left();
        left || self.express.as_deref_mut().is_some_and(Express::rx_ready)
    }

    /// Whether the last round may have left datagrams in the sockets.
    fn rx_left(&self) -> bool {
        let group = match &self.everybody {
            Everybody::Group(_, socket) => socket.rx_ready(),
            Everybody::Replicast { .. } => false,
        };
        group || self.socket.rx_ready()
    }

    pub(super) fn is_quiet(&self) -> bool {
        let quiet = self.express.as_deref().is_some_and(Express::is_quiet);
        quiet && !self.must_ask_sockets()
    }

    /// Whether the own address is there and its interface up. The kernel forgets which groups are heard on an interface
    /// that is gone.
    pub(super) fn check(&mut self, pool: &mut FramePool, now: Duration) -> BearerEvent {
        self.closing.poll(pool);
        let express = self.express.as_deref_mut();
        match express.is_some_and(|express| express.must_reopen(pool, now)) {
            true => BearerEvent::Stuck,
            false => self.check_address(),
        }
    }

    /// Makes the sockets of AF_XDP anew, or goes on without where the interface is gone.
    pub(super) fn reopen(&mut self, pool: &mut FramePool) -> Result<(), XdpError> {
        let Some(express) = &mut self.express else {
            return Ok(());
        };
        if express.look().is_some() {
            return express.reopen(pool);
        }
        if let Some(express) = self.express.take() {
            let (sockets, _claim) = express.begin_close(pool);
            self.closing.add(sockets);
            let reason = "sockets: the interface went away";
            tracing::warn!(interface = self.interface.interface, reason);
            self.mode_reason = format!("{}; {reason}", self.mode_reason);
        }
        Ok(())
    }

    fn check_address(&mut self) -> BearerEvent {
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
            Everybody::Replicast {
                configured, linked, ..
            } => (configured.iter().chain(linked).copied().collect(), 0),
        };
        let express = self.express.as_deref().map(Express::info);
        let express = express.unwrap_or(BearerInfo {
            mode: BearerMode::Udp,
            ..BearerInfo::default()
        });
        let mut drops = self.traffic.drops();
        let overflow = self.socket.kernel_drops() + group_drops;
        drops.extend(named([("rx-buffer-full", overflow)]));
        drops.extend(express.drops);
        BearerInfo {
            media: Media::Udp,
            mode: express.mode,
            classifier: express.classifier,
            queues: express.queues,
            numa_node: express.numa_node,
            steering: express.steering,
            interrupts: express.interrupts,
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

    pub(super) fn close(self, pool: &mut FramePool) -> Result<(), StillHeld> {
        if let Some(express) = self.express {
            express.close(pool)?;
        }
        self.closing.finish(pool)
    }

    pub(super) fn begin_close(self, pool: &mut FramePool) -> (ClosingSockets, Option<Claim>) {
        let mut closing = self.closing;
        let claim = self.express.map(|express| {
            let (sockets, claim) = express.begin_close(pool);
            closing.add(sockets);
            claim
        });
        (closing, claim)
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

/// What a bearer can be given whose packets are not longer than `room`.
fn mtus(local: IpAddr, room: usize) -> RangeInclusive<u32> {
    let headers = match local {
        IpAddr::V4(_) => HEADERS_V4,
        IpAddr::V6(_) => HEADERS_V6,
    };
    headers + MTU_MIN..=MTU_MAX.min(room as u32)
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
    let (found, missing) = match &spec.local {
        Some(Local::Address(wanted)) => {
            let found = all.iter().find(|found| {
                let scope = wanted.scope.as_deref();
                found.ip == wanted.ip && scope.is_none_or(|scope| scope == found.interface)
            });
            (found, format!("no interface has the address {wanted}"))
        }
        Some(Local::Device(device)) => {
            let found = all.iter().find(|found| found.interface == *device);
            (
                found,
                format!("there is no interface {device} with an address"),
            )
        }
        None => (None, "no address is given".into()),
    };
    found.cloned().ok_or_else(|| BearerError::NoAddress {
        missing,
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
