//! What the kernel says of an IPoIB interface: its addresses do not fit into the ioctls for interfaces, so netlink is asked.

use std::io;

use xtipc_xsk::packet::LongAddress;

use crate::bearer::error::BearerError;
use crate::bearer::links::{self, Link};

const IFLA_ADDRESS: u16 = 1;
const IFLA_BROADCAST: u16 = 2;
const IFLA_MTU: u16 = 4;

/// A snapshot of an IPoIB interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) index: u32,
    /// Queue pair and GID.
    pub(super) address: LongAddress,
    /// The group in which all stations of the partition are.
    pub(super) broadcast: LongAddress,
    pub(super) mtu: u32,
    /// It is up and has a carrier.
    pub(super) up: bool,
}

impl Port {
    /// The interface with this name.
    pub(super) fn query(name: &str) -> Result<Self, BearerError> {
        let all = Link::all().map_err(|source| BearerError::Links {
            interface: name.into(),
            source,
        })?;
        let found = all.iter().find(|link| link.name().as_deref() == Some(name));
        let link = found.ok_or_else(|| BearerError::UnknownInterface {
            interface: name.into(),
            media: "InfiniBand",
            existing: links::names(links::INFINIBAND),
        })?;
        Self::parse(link).ok_or_else(|| BearerError::NotInfiniBand {
            interface: name.into(),
            link_type: link.link_type(),
            address_len: link.attribute(IFLA_ADDRESS).map_or(0, <[u8]>::len),
        })
    }

    /// The interface with this index; `None` if it is gone.
    pub(super) fn at(index: u32) -> io::Result<Option<Self>> {
        let all = Link::all()?;
        let found = all.iter().find(|link| link.index() == index);
        Ok(found.and_then(Self::parse))
    }

    /// `None` if that is no IPoIB interface.
    pub(super) fn parse(link: &Link) -> Option<Self> {
        let address = |kind| LongAddress::try_from(link.attribute(kind)?).ok();
        let needed = (libc::IFF_UP | libc::IFF_RUNNING).cast_unsigned();
        (link.link_type() == links::INFINIBAND).then_some(())?;
        Some(Self {
            name: link.name()?,
            index: link.index(),
            address: address(IFLA_ADDRESS)?,
            broadcast: address(IFLA_BROADCAST)?,
            mtu: u32::from_ne_bytes(*link.attribute(IFLA_MTU)?.first_chunk()?),
            up: link.flags() & needed == needed,
        })
    }
}
