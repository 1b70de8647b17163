//! `struct sockaddr_tipc`: 16 bytes in the byte order of the machine (`docs/protocol/calls.md`).
//!
//! ```text
//!   0  family:16 (30)    2  kind:8 (1 service range, 2 service address, 3 socket address)    3  scope:8, signed
//!   4  type | port       8  first instance | instance | node       12  last instance | lookup domain | unused
//! ```

use xtipc_segment::{Destination, Scope, ServiceAddress, ServiceRange, SocketAddress};

use super::{AF_TIPC, Errno};

/// Length of an address.
pub const ADDRESS_LEN: usize = 16;

const KIND_RANGE: u8 = 1;
const KIND_SERVICE: u8 = 2;
const KIND_SOCKET: u8 = 3;

/// What an address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Range(ServiceRange),
    Service {
        address: ServiceAddress,
        domain: u32,
    },
    Socket(SocketAddress),
}

/// A TIPC address of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAddress {
    pub(super) name: Name,
    pub(super) scope: i8,
}

/// Why bytes are no TIPC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Too few bytes.
    #[error("address of {0} bytes: at least {ADDRESS_LEN} are needed")]
    Short(usize),
    /// `AF_UNSPEC`, which undoes a connect.
    #[error("address of no family")]
    Unspecified,
    /// Another family.
    #[error("address of family {0}: {AF_TIPC} is TIPC's")]
    Family(u16),
    /// None of the three kinds.
    #[error("address of kind {0}: 1 is a service range, 2 a service address, 3 a socket address")]
    Kind(u8),
    /// A range that ends before it begins.
    #[error("service range {0}: lower is above upper")]
    Range(ServiceRange),
}

impl From<AddressError> for Errno {
    fn from(_: AddressError) -> Self {
        Self(libc::EINVAL)
    }
}

impl RawAddress {
    /// Reads an address; bytes behind it are not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, AddressError> {
        let Some(bytes) = bytes.first_chunk::<ADDRESS_LEN>() else {
            return Err(AddressError::Short(bytes.len()));
        };
        let [f0, f1, kind, scope, ..] = *bytes;
        let family = u16::from_ne_bytes([f0, f1]);
        match i32::from(family) {
            AF_TIPC => {}
            libc::AF_UNSPEC => return Err(AddressError::Unspecified),
            _ => return Err(AddressError::Family(family)),
        }
        let word = |at: usize| {
            let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_ne_bytes(bytes)
        };
        let [a, b, c] = [word(4), word(8), word(12)];
        let name = match kind {
            KIND_RANGE => {
                let (type_, lower, upper) = (a, b, c);
                let range = ServiceRange {
                    type_,
                    lower,
                    upper,
                };
                if lower > upper {
                    return Err(AddressError::Range(range));
                }
                Name::Range(range)
            }
            KIND_SERVICE => Name::Service {
                address: ServiceAddress {
                    type_: a,
                    instance: b,
                },
                domain: c,
            },
            KIND_SOCKET => Name::Socket(SocketAddress { port: a, node: b }),
            kind => return Err(AddressError::Kind(kind)),
        };
        let scope = scope as i8;
        Ok(Self { name, scope })
    }

    /// The bytes of the address.
    pub fn to_bytes(self) -> [u8; ADDRESS_LEN] {
        let (kind, words) = match self.name {
            Name::Range(range) => (KIND_RANGE, [range.type_, range.lower, range.upper]),
            Name::Service { address, domain } => {
                (KIND_SERVICE, [address.type_, address.instance, domain])
            }
            Name::Socket(address) => (KIND_SOCKET, [address.port, address.node, 0]),
        };
        let mut bytes = [0; ADDRESS_LEN];
        bytes[..2].copy_from_slice(&(AF_TIPC as u16).to_ne_bytes());
        bytes[2] = kind;
        bytes[3] = self.scope as u8;
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// The address of a socket.
    pub fn of_socket(address: SocketAddress) -> Self {
        Self {
            name: Name::Socket(address),
            scope: 0,
        }
    }

    /// What it binds to; a socket address binds to nothing.
    pub(super) fn range(self) -> Option<ServiceRange> {
        match self.name {
            Name::Range(range) => Some(range),
            Name::Service { address, .. } => Some(address.into()),
            Name::Socket(_) => None,
        }
    }

    /// The scope of a binding: of 3 and -3 the node, of all others the cluster.
    pub(super) fn binding_scope(self) -> Scope {
        match self.scope {
            3 | -3 => Scope::Node,
            _ => Scope::Cluster,
        }
    }
}

impl From<Name> for Destination {
    fn from(name: Name) -> Self {
        match name {
            Name::Range(range) => Self::Multicast(range),
            Name::Service { address, domain } => Self::Service { address, domain },
            Name::Socket(address) => Self::Socket(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_an_address_that_is_written_as_it_was_read_or_an_error(
            family in prop_oneof![Just(AF_TIPC as u16), any::<u16>()], kind in 0u8..5, bytes: [u8; 13],
        ) {
            let mut all = [0; 16];
            all[..2].copy_from_slice(&family.to_ne_bytes());
            all[2] = kind;
            all[3..].copy_from_slice(&bytes);
            if let Ok(address) = RawAddress::parse(&all) {
                let written = address.to_bytes();
                // The third word of a socket address has no meaning.
                let len = if kind == KIND_SOCKET { 12 } else { 16 };
                prop_assert_eq!(&written[..len], &all[..len]);
            } else {
                let is_range = kind == KIND_RANGE;
                prop_assert!(i32::from(family) != AF_TIPC || !(2..=3).contains(&kind) || is_range);
            }
        }
    }
}
