//! What a UDP bearer is given: own address, peers, MTU. The keys are those of the `tipc` tool.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::value::number;

/// The port of TIPC, local and remote.
pub const PORT_DEFAULT: u16 = 6118;
/// Bytes of IP and UDP headers before a packet over IPv4; a bearer's MTU is at least 100 more.
pub(crate) const HEADERS_V4: u32 = 28;
pub(crate) const HEADERS_V6: u32 = 48;
const MTU_SMALLEST: u32 = 100;
/// The least MTU that a bearer can be given.
pub(crate) const MTU_LEAST: u32 = HEADERS_V4 + MTU_SMALLEST;
/// The longest datagram that fits into an IPv4 packet.
pub(crate) const MTU_MAX: u32 = 65_507;
/// Peers that a bearer can be given.
pub(crate) const REMOTES_MAX: usize = 256;

/// The own address of a UDP bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// This address, with its interface if that is named.
    Address(ScopedIp),
    /// The first address of this interface.
    Device(String),
}

/// An address, and the interface if it was named behind a `%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopedIp {
    /// The address.
    pub ip: IpAddr,
    /// The name of its interface.
    pub scope: Option<String>,
}

impl fmt::Display for ScopedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip.fmt(f)?;
        match &self.scope {
            Some(scope) => write!(f, "%{scope}"),
            None => Ok(()),
        }
    }
}

/// A UDP bearer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpSpec {
    /// The own address; a bearer that is to be opened has one.
    pub local: Option<Local>,
    /// The own port; [`PORT_DEFAULT`] if not given.
    pub local_port: Option<u16>,
    /// A multicast group, or the peers that copies are sent to; empty for the group of the cluster.
    pub remotes: Vec<Remote>,
    /// The remote port where no remote address is given: that of the cluster's group.
    pub group_port: Option<u16>,
    /// Largest packet in bytes; 14,000 over IPv4 and 1280 over IPv6 if not given.
    pub mtu: Option<u32>,
}

/// A multicast group or a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its address.
    pub ip: IpAddr,
    /// Its port; [`PORT_DEFAULT`] if not given.
    pub port: Option<u16>,
}

impl Remote {
    /// Address and port.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(PORT_DEFAULT))
    }
}

/// Why a value of a UDP bearer cannot be, and what can.
#[derive(Debug)]
pub struct Refused {
    /// What is wrong.
    pub problem: String,
    /// What is accepted.
    pub accepted: String,
}

fn refused<T>(problem: impl Into<String>, accepted: impl Into<String>) -> Result<T, Refused> {
    Err(Refused {
        problem: problem.into(),
        accepted: accepted.into(),
    })
}

impl UdpSpec {
    /// The interface, where it is named.
    pub fn interface(&self) -> Option<&str> {
        match self.local.as_ref()? {
            Local::Device(name) => Some(name),
            Local::Address(local) => local.scope.as_deref(),
        }
    }

    /// The keys of [`Self::set`].
    pub const KEYS: [&str; 6] = [
        "localip",
        "device",
        "localport",
        "remoteip",
        "remoteport",
        "mtu",
    ];

    /// Takes a key of [`Self::KEYS`]; true if it was given before. `device` beside `localip` names the interface that has
    /// the address, as a `%` does. `remoteport` belongs to the `remoteip`
    /// before it, or to the cluster's group.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, Refused> {
        match key {
            "localip" => {
                let mut local = scoped(value)?;
                let before = match self.local.take() {
                    Some(Local::Device(device)) if local.scope.is_none() => {
                        local.scope = Some(device);
                        None
                    }
                    before => before,
                };
                self.local = Some(Local::Address(local));
                Ok(before.is_some())
            }
            "device" => match &mut self.local {
                Some(Local::Address(local)) => Ok(local.scope.replace(value.into()).is_some()),
                local => Ok(local.replace(Local::Device(value.into())).is_some()),
            },
            "localport" => Ok(self.local_port.replace(port(value)?).is_some()),
            "mtu" => match number(value, MTU_LEAST..=MTU_MAX) {
                Ok(mtu) => Ok(self.mtu.replace(mtu).is_some()),
                Err((why, range)) => refused(why, range),
            },
            "remoteip" if self.remotes.len() == REMOTES_MAX => refused(
                "is one peer too many",
                format!("at most {REMOTES_MAX} peers"),
            ),
            "remoteip" => {
                let ip = scoped(value)?.ip;
                if !is_for_somebody(ip) {
                    return refused(
                        "is no address of one peer, nor of a group",
                        "an address of a peer, or a multicast group",
                    );
                }
                self.remotes.push(Remote { ip, port: None });
                Ok(false)
            }
            _ => {
                let last = self.remotes.last_mut();
                let place = last.map_or(&mut self.group_port, |remote| &mut remote.port);
                Ok(place.replace(port(value)?).is_some())
            }
        }
    }

    /// What the values mean to each other.
    pub fn check(&self) -> Result<(), Refused> {
        let Some(local) = &self.local else {
            return refused(
                "there is no own address",
                "localip=ADDRESS, or device=IFACE for the first address of an interface",
            );
        };
        if self.group_port.is_some() && !self.remotes.is_empty() {
            return refused(
                "a remoteport stands before the first remoteip",
                "remoteip=ADDRESS,remoteport=PORT",
            );
        }
        let groups = self
            .remotes
            .iter()
            .filter(|remote| remote.ip.is_multicast());
        if groups.count() > 0 && self.remotes.len() > 1 {
            return refused(
                "there is a multicast group beside other peers",
                "one multicast group, or any number of peers",
            );
        }
        if let Local::Address(local) = local {
            if local.ip.is_multicast() || local.ip.is_unspecified() {
                return refused(
                    format!("localip {} is no address of one node", local.ip),
                    "an address of this node",
                );
            }
            self.check_family(local.ip)?;
        }
        Ok(())
    }

    /// Own and remote addresses are of one family, and the MTU has room for a TIPC header.
    pub fn check_family(&self, local: IpAddr) -> Result<(), Refused> {
        let other = self
            .remotes
            .iter()
            .find(|remote| remote.ip.is_ipv4() != local.is_ipv4());
        if let Some(other) = other {
            return refused(
                format!(
                    "own address {local} and remoteip {} are of two families",
                    other.ip
                ),
                "both IPv4 or both IPv6",
            );
        }
        let mtu_min = HEADERS_V6 + MTU_SMALLEST;
        match self.mtu {
            Some(mtu) if local.is_ipv6() && mtu < mtu_min => refused(
                format!("mtu {mtu} is out of range"),
                format!("{mtu_min} to {MTU_MAX} over IPv6"),
            ),
            _ => Ok(()),
        }
    }
}

/// Not everybody's address, nor nobody's: a group, or one that one node can have.
pub(crate) fn is_for_somebody(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}

fn port(text: &str) -> Result<u16, Refused> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => refused("is no port", "1 to 65535"),
    }
}

fn scoped(text: &str) -> Result<ScopedIp, Refused> {
    let (ip, scope) = match text.split_once('%') {
        Some((ip, scope)) => (ip, Some(scope.to_owned())),
        None => (text, None),
    };
    match ip.parse() {
        Ok(ip) => Ok(ScopedIp { ip, scope }),
        Err(_) => refused(
            "is no address",
            "an IPv4 or IPv6 address, a link-local one with its interface: fe80::1%eth0",
        ),
    }
}
