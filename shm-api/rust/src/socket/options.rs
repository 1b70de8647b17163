//! `setsockopt` and `getsockopt` (`docs/protocol/calls.md`, options and requests): TIPC's own.

use xtipc_segment::{GroupFlags, Request, Scope, ServiceAddress, SocketKind, option};

use super::{Errno, FIRST_USER_TYPE, Result, SOL_TIPC, Socket};

/// Obsolete: always 0.
const NODE_RECVQ_DEPTH: u32 = 131;
const GROUP_LEAVE: u32 = 136;

impl Socket {
    /// `setsockopt`; `None` is a null pointer, of which `len` says how long it is said to be.
    pub fn set_option(
        &self,
        level: i32,
        name: i32,
        value: Option<&[u8]>,
        len: usize,
    ) -> Result<()> {
        match level {
            SOL_TIPC => self.set_tipc_option(name as u32, value, len),
            libc::SOL_SOCKET => self.set_socket_option(name, value.unwrap_or_default()),
            libc::IPPROTO_TCP if self.kind == SocketKind::Stream => Ok(()),
            _ => Err(Errno(libc::ENOPROTOOPT)),
        }
    }

    fn set_tipc_option(&self, option: u32, value: Option<&[u8]>, len: usize) -> Result<()> {
        let invalid = Errno(libc::EINVAL);
        let value = match option {
            option::IMPORTANCE
            | option::SRC_DROPPABLE
            | option::DEST_DROPPABLE
            | option::CONN_TIMEOUT
            | option::NODELAY => number(value.unwrap_or_default())?,
            option::MCAST_BROADCAST | option::MCAST_REPLICAST | GROUP_LEAVE => match value {
                None if len == 0 => 1,
                _ => return Err(invalid),
            },
            option::GROUP_JOIN => return self.join(value.unwrap_or_default()),
            _ => return Err(invalid),
        };
        self.call(match option {
            GROUP_LEAVE => Request::LeaveGroup,
            _ => Request::SetOption { option, value },
        })
        .map(drop)
    }

    /// Joins a group: type, instance, scope and flags.
    fn join(&self, value: &[u8]) -> Result<()> {
        let words = value.first_chunk::<16>().ok_or(Errno(libc::EINVAL))?;
        let word = |at: usize| number(&words[at * 4..]);
        let [type_, instance, scope, flags] = [word(0)?, word(1)?, word(2)?, word(3)?];
        if type_ < FIRST_USER_TYPE {
            return Err(Errno(libc::EACCES));
        }
        let scope = match scope {
            0..=2 => Scope::Cluster,
            3 => Scope::Node,
            _ => return Err(Errno(libc::EINVAL)),
        };
        let address = ServiceAddress { type_, instance };
        let flags = GroupFlags::from_bits_truncate(flags);
        self.call(Request::JoinGroup {
            address,
            scope,
            flags,
        })
        .map(drop)
    }

    /// `getsockopt`: writes the value into `out`, gives its length.
    pub fn option(&self, level: i32, name: i32, out: &mut [u8]) -> Result<usize> {
        match level {
            SOL_TIPC => {
                let place = out.first_chunk_mut::<4>().ok_or(Errno(libc::EINVAL))?;
                *place = self.tipc_option(name as u32)?.to_ne_bytes();
                Ok(4)
            }
            libc::SOL_SOCKET => self.socket_option(name, out),
            libc::IPPROTO_TCP if self.kind == SocketKind::Stream => Ok(0),
            _ => Err(Errno(libc::ENOPROTOOPT)),
        }
    }

    fn tipc_option(&self, option: u32) -> Result<u32> {
        match option {
            NODE_RECVQ_DEPTH => Ok(0),
            _ => Ok(self.call(Request::GetOption { option })?[0] as u32),
        }
    }
}

pub(super) fn number(value: &[u8]) -> Result<u32> {
    let bytes = value.first_chunk::<4>().ok_or(Errno(libc::EINVAL))?;
    Ok(u32::from_ne_bytes(*bytes))
}
