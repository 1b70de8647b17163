//! Why a bearer could not be opened or closed, said so that an operator can act on it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use xtipc_ebpf::{AttachError, LoadError, Occupant, UpdateError};
use xtipc_xsk::OpenError;
use xtipc_xsk::interface::InterfaceError;
use xtipc_xsk::packet::PacketError;
use xtipc_xsk::udp::UdpError;

use super::ladder::Rung;
use super::links;
use crate::config::{REMOTES_MAX, Refused};

/// The smallest MTU of a TIPC bearer: the longest header and a tunnelled one.
pub(super) const MTU_MIN: u32 = 100;

/// Why a bearer could not be opened. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BearerError {
    /// No interface has this name.
    #[error("there is no interface `{interface}`; {media} interfaces here: {}", list(.existing))]
    UnknownInterface {
        interface: String,
        media: &'static str,
        existing: Vec<String>,
    },
    /// The interface is not Ethernet, or could not be asked.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The interface is not IP over InfiniBand.
    #[error(
        "interface `{interface}` has link type {link_type} and addresses of {address_len} bytes: only IP over InfiniBand \
         (32, 20 bytes) can carry an InfiniBand bearer{}",
        instead(*.link_type, .interface)
    )]
    NotInfiniBand {
        interface: String,
        link_type: u16,
        address_len: usize,
    },
    /// The kernel did not say which interfaces there are.
    #[error("cannot ask for the addresses of interface {interface}: {source}")]
    Links {
        interface: String,
        source: io::Error,
    },
    /// Too small for TIPC.
    #[error(
        "interface {interface} has an MTU of {mtu}: TIPC needs at least {MTU_MIN} \
         (ip link set {interface} mtu 1500)"
    )]
    MtuTooSmall { interface: String, mtu: u32 },
    /// Listed queues that the interface does not have, or that leave others out.
    #[error(
        "queues={} does not name all receive queues of {interface}, which are {}: TIPC frames may arrive on any of \
         them; leave `queues` out, or change the number of queues (ethtool -L {interface} combined {})",
        numbers(.listed), numbers(.existing), .listed.len()
    )]
    Queues {
        interface: String,
        listed: Vec<usize>,
        existing: Vec<usize>,
    },
    /// The kernel's own TIPC answers there.
    #[error(
        "the kernel's own TIPC has a bearer on {interface}: remove it \
         (tipc bearer disable media {media} device {interface})"
    )]
    KernelBearer {
        media: &'static str,
        interface: String,
    },
    /// Another daemon has a bearer there, or this one.
    #[error("{} has a bearer on {interface}: an interface carries one bearer of one node", holder(*.process))]
    OtherDaemon {
        interface: String,
        process: Option<i32>,
    },
    /// Another XDP program is there.
    #[error(
        "interface {interface} is occupied by {occupant}: remove that \
         (ip link set dev {interface} xdp off, or end its owner), or set xdp = off to run beside it over AF_PACKET"
    )]
    Occupied {
        interface: String,
        occupant: Occupant,
    },
    /// The interface or queue is in use, or went away meanwhile.
    #[error(transparent)]
    Xdp(XdpError),
    /// The configured path was refused.
    #[error("xdp = {asked} on {interface}: {rung} refused: {source}")]
    ModeRefused {
        interface: String,
        asked: &'static str,
        rung: Rung,
        source: Box<XdpError>,
    },
    /// What a UDP bearer was given does not go together.
    #[error("{}; accepted: {}", .0.problem, .0.accepted)]
    Udp(Refused),
    /// The own address of a UDP bearer is not here.
    #[error("{missing}; addresses here: {}", list(.existing))]
    NoAddress {
        missing: String,
        existing: Vec<String>,
    },
    /// The addresses could not be asked for.
    #[error("cannot ask for the addresses of this node: {0}")]
    Addresses(io::Error),
    /// A UDP socket could not be had, or not with what it needs.
    #[error(transparent)]
    UdpSocket(#[from] UdpError),
    /// The nodes of this host cannot be met.
    #[error("cannot {step} the directory {} of a shared-memory bearer: {source}", directory.display())]
    Directory {
        directory: PathBuf,
        step: &'static str,
        source: io::Error,
    },
    /// Not even AF_PACKET.
    #[error("{source}, for interface {interface}{}", after(.refused))]
    Packet {
        interface: String,
        source: PacketError,
        /// What was refused before.
        refused: String,
    },
}

impl BearerError {
    /// The error number that the kernel's TIPC gives in the same case.
    pub(crate) fn errno(&self) -> i32 {
        match self {
            Self::UnknownInterface { .. } | Self::NoAddress { .. } => libc::ENODEV,
            Self::KernelBearer { .. } | Self::OtherDaemon { .. } | Self::Occupied { .. } => {
                libc::EBUSY
            }
            Self::Interface(_)
            | Self::NotInfiniBand { .. }
            | Self::MtuTooSmall { .. }
            | Self::Queues { .. }
            | Self::Udp(_) => libc::EINVAL,
            Self::UdpSocket(error) => error.errno(),
            Self::Directory { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            Self::Links { .. }
            | Self::Addresses(_)
            | Self::Xdp(_)
            | Self::ModeRefused { .. }
            | Self::Packet { .. } => libc::EIO,
        }
    }
}

/// Why a bearer in use could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    /// Not a UDP bearer.
    #[error("UDP option is unsupported: only bearers of media udp have it")]
    NotUdp,
    /// The bearer has a multicast group.
    #[error(
        "the bearer uses a multicast group: a list of peers needs a bearer enabled with a unicast remoteip"
    )]
    Multicast,
    /// Of another family, or a group.
    #[error("remoteip {0} is no address of one peer in the family of the bearer's own address")]
    Address(IpAddr),
    /// It is there.
    #[error("{0} already is a peer of the bearer")]
    Known(SocketAddr),
    /// It is not there.
    #[error("{0} is no peer of the bearer")]
    Unknown(SocketAddr),
    /// Too short or too long.
    #[error("MTU value is out-of-range: {least} to {most} accepted")]
    Mtu { least: u32, most: u32 },
    /// There are enough.
    #[error("a bearer has at most {REMOTES_MAX} configured peers")]
    TooMany,
}

/// Why AF_XDP could not be had in one mode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum XdpError {
    /// The classifier was not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map of the classifier was not changed.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The classifier was not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A socket was not opened.
    #[error(transparent)]
    Socket(#[from] OpenError),
    /// Frames would come without their tag.
    #[error(
        "the device takes VLAN tags out of frames before the classifier sees them \
         (ethtool -K {interface} rxvlan off)"
    )]
    VlanOffload { interface: String },
}

impl XdpError {
    /// Whether no other mode, nor AF_PACKET, is the answer: somebody else is there, or nobody at all.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Attach(
                AttachError::Occupied { .. }
                    | AttachError::Busy { .. }
                    | AttachError::UnknownInterface { .. }
                    | AttachError::NotEthernet { .. }
            ) | Self::Socket(OpenError::Busy { .. })
        )
    }
}

/// The kernel did not let go in time: these frames stay out of circulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel still holds {frames} frames of {sockets} closed AF_XDP sockets")]
pub(crate) struct StillHeld {
    pub(crate) sockets: usize,
    pub(crate) frames: usize,
}

fn holder(process: Option<i32>) -> String {
    match process {
        Some(id) if id.cast_unsigned() == std::process::id() => format!(
            "this node (process {id}), over Ethernet, or over UDP with device=IFACE instead of localip=ADDRESS,"
        ),
        Some(id) => format!("another xtipcd (process {id})"),
        None => "another xtipcd (of unknown process)".into(),
    }
}

fn instead(link_type: u16, interface: &str) -> String {
    match link_type {
        links::ETHERNET => format!("; Ethernet carries a bearer eth:{interface}"),
        _ => String::new(),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

fn numbers(queues: &[usize]) -> String {
    let texts: Vec<_> = queues.iter().map(usize::to_string).collect();
    texts.join(",")
}

fn after(refused: &str) -> String {
    if refused.is_empty() {
        String::new()
    } else {
        format!(" (before: {refused})")
    }
}
