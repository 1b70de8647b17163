//! What the loader needs to know of an interface: address, queues, programs on it, VLAN offload.
//!
//! All of it comes from netlink and is therefore seen in the calling thread's network namespace.

use std::fmt;
use std::io;

use crate::netlink::{
    GENERIC_HEADER_SIZE, Netlink, attribute, attributes, generic_header, put_attribute, text,
};

const RTM_GETLINK: u16 = 18;
/// Bytes of `struct ifinfomsg`.
const INTERFACE_HEADER_SIZE: usize = 16;
const ARPHRD_ETHER: u16 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;

const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const RX_VLAN_FEATURE: &[u8] = b"rx-vlan-hw-parse";
const NLA_F_NESTED: u16 = 0x8000;

/// Longest interface name, without the terminating NUL (`IFNAMSIZ - 1`).
const NAME_SIZE_MAX: usize = 15;

/// How an XDP program found on an interface is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OccupantMode {
    /// By the driver.
    Native,
    /// In the kernel's generic receive path.
    Generic,
    /// In the network card.
    Hardware,
}

impl fmt::Display for OccupantMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Hardware => "hardware",
        })
    }
}

/// An XDP program that is attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// The kernel's id of the program, as `bpftool prog show id` takes it.
    pub program_id: u32,
    /// The program's name; `None` when this process may not read it (needs `CAP_SYS_ADMIN`).
    pub program_name: Option<String>,
    /// How it is attached.
    pub mode: OccupantMode,
}

impl fmt::Display for Occupant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program_id,
            program_name,
            mode,
        } = self;
        match program_name {
            Some(name) => write!(
                formatter,
                "XDP program \"{name}\" (id {program_id}, {mode} mode)"
            ),
            None => write!(formatter, "an XDP program (id {program_id}, {mode} mode)"),
        }
    }
}

/// An interface as the kernel describes it at the moment of the query.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Interface index.
    pub index: u32,
    /// Hardware address; `None` when the interface is not Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Receive queues it was created with (its driver may use fewer).
    pub rx_queues: u32,
    /// The XDP programs on it: at most one per mode.
    pub occupants: Vec<Occupant>,
}

impl Interface {
    /// Asks the kernel. An unknown name gives `ErrorKind::NotFound`.
    pub fn query(name: &str) -> io::Result<Self> {
        let mut body = vec![0; INTERFACE_HEADER_SIZE];
        put_attribute(&mut body, IFLA_IFNAME, &terminated(name)?);
        let answers = Netlink::open(None)?
            .get(RTM_GETLINK, &body)
            .map_err(unknown_as_not_found)?;
        answers
            .first()
            .and_then(|answer| Self::parse(answer))
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(answer: &[u8]) -> Option<Self> {
        let (header, list) = answer.split_first_chunk::<INTERFACE_HEADER_SIZE>()?;
        let [_, _, t0, t1, i0, i1, i2, i3, ..] = *header;
        let is_ethernet = u16::from_ne_bytes([t0, t1]) == ARPHRD_ETHER;
        let xdp = attribute(list, IFLA_XDP).unwrap_or_default();
        let modes = [
            (IFLA_XDP_DRV_PROG_ID, OccupantMode::Native),
            (IFLA_XDP_SKB_PROG_ID, OccupantMode::Generic),
            (IFLA_XDP_HW_PROG_ID, OccupantMode::Hardware),
        ];
        let occupants = modes.into_iter().filter_map(|(kind, mode)| {
            let program_id = number(attribute(xdp, kind)?)?;
            Some(Occupant {
                program_id,
                program_name: program_name(program_id),
                mode,
            })
        });
        Some(Self {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            mac: attribute(list, IFLA_ADDRESS)
                .filter(|_| is_ethernet)
                .and_then(|address| address.try_into().ok()),
            rx_queues: attribute(list, IFLA_NUM_RX_QUEUES)
                .and_then(number)
                .unwrap_or(1),
            occupants: occupants.collect(),
        })
    }
}

/// Whether the interface takes the VLAN tag out of received frames (`ethtool -k`: `rx-vlan-offload`).
///
/// A tag taken out is invisible to XDP. Then frames of a tagged bearer never match its VLAN, and
/// tagged frames look untagged to an untagged bearer. An interface that carries tagged TIPC
/// traffic therefore needs `ethtool -K INTERFACE rxvlan off`. A software device does not parse
/// tags: it keeps them beside the frame when the *sender* leaves them there, so on veth it is
/// the other end that needs `txvlan off`.
pub fn rx_vlan_offload(name: &str) -> io::Result<bool> {
    let mut netlink = Netlink::open(Some(rustix::net::netlink::GENERIC))?;
    let family = netlink
        .generic_family("ethtool")?
        .ok_or(io::ErrorKind::Unsupported)?;
    let mut header = Vec::new();
    put_attribute(&mut header, ETHTOOL_A_HEADER_DEV_NAME, &terminated(name)?);
    let mut body = generic_header(ETHTOOL_MSG_FEATURES_GET, 1).to_vec();
    put_attribute(&mut body, ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, &header);
    let answers = netlink.get(family, &body).map_err(unknown_as_not_found)?;
    let active = answers
        .first()
        .and_then(|answer| answer.get(GENERIC_HEADER_SIZE..))
        .and_then(|list| attribute(list, ETHTOOL_A_FEATURES_ACTIVE))
        .and_then(|bitset| attribute(bitset, ETHTOOL_A_BITSET_BITS))
        .ok_or(io::ErrorKind::InvalidData)?;
    // The kernel lists the active features only, each by its name.
    Ok(attributes(active).any(|(_, bit)| {
        attribute(bit, ETHTOOL_A_BITSET_BIT_NAME).map(text) == Some(RX_VLAN_FEATURE)
    }))
}

/// The name of a loaded program, if this process may read it.
fn program_name(id: u32) -> Option<String> {
    aya::programs::loaded_programs()
        .map_while(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
}

fn terminated(name: &str) -> io::Result<Vec<u8>> {
    if name.is_empty() || name.len() > NAME_SIZE_MAX || name.contains('\0') {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok([name.as_bytes(), &[0]].concat())
}

fn unknown_as_not_found(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENODEV) => io::Error::new(io::ErrorKind::NotFound, error),
        _ => error,
    }
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}
