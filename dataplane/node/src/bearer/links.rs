//! The interfaces of the calling thread's network namespace, as rtnetlink describes them.

use std::io;

use xtipc_ebpf::netlink::{Netlink, attribute, text};

const RTM_GETLINK: u16 = 18;
/// Bytes of `struct ifinfomsg`.
const HEADER_SIZE: usize = 16;
const IFLA_IFNAME: u16 = 3;

/// Link types, `ARPHRD_` of `linux/if_arp.h`.
pub(super) const ETHERNET: u16 = 1;
pub(super) const INFINIBAND: u16 = 32;

/// The kernel's answer about one interface.
pub(super) struct Link(Vec<u8>);

impl Link {
    /// Those of all interfaces.
    pub(super) fn all() -> io::Result<Vec<Self>> {
        let answers = Netlink::open(None)?.dump(RTM_GETLINK, &[0; HEADER_SIZE])?;
        Ok(answers.into_iter().filter_map(Self::new).collect())
    }

    /// `None` for what is too short to be one.
    pub(super) fn new(answer: Vec<u8>) -> Option<Self> {
        (answer.len() >= HEADER_SIZE).then_some(Self(answer))
    }

    /// Its `ARPHRD_` number.
    pub(super) fn link_type(&self) -> u16 {
        u16::from_ne_bytes([self.0[2], self.0[3]])
    }

    pub(super) fn index(&self) -> u32 {
        self.word(4)
    }

    /// Its `IFF_` flags.
    pub(super) fn flags(&self) -> u32 {
        self.word(8)
    }

    pub(super) fn name(&self) -> Option<String> {
        String::from_utf8(text(self.attribute(IFLA_IFNAME)?).to_vec()).ok()
    }

    /// What the kernel says under an `IFLA_` number.
    pub(super) fn attribute(&self, kind: u16) -> Option<&[u8]> {
        attribute(&self.0[HEADER_SIZE..], kind)
    }

    fn word(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        u32::from_ne_bytes(bytes)
    }
}

/// The names of all interfaces of a link type; none if they cannot be asked for.
pub(super) fn names(link_type: u16) -> Vec<String> {
    let links = Link::all().unwrap_or_default().into_iter();
    let such = links.filter(|link| link.link_type() == link_type);
    such.filter_map(|link| link.name()).collect()
}

/// The name of the interface with this index; `None` if there is none.
pub(super) fn name_of(index: u32) -> Option<String> {
    let links = Link::all().ok()?;
    links.iter().find(|link| link.index() == index)?.name()
}
