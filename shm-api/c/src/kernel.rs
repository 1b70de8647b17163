//! Structures and numbers of the socket interface of TIPC, as programs in C have them from `linux/tipc.h`.

use std::ffi::c_int;
use std::mem::size_of;

use libc::{sockaddr, socklen_t};
use xtipc_descriptors::memory::In;

use crate::address::tipc_addr;

pub(crate) const AF_TIPC: c_int = 30;
pub(crate) const SOL_TIPC: c_int = 271;

/// Options.
pub(crate) const IMPORTANCE: c_int = 127;
pub(crate) const DEST_DROPPABLE: c_int = 129;
pub(crate) const GROUP_JOIN: c_int = 135;
pub(crate) const GROUP_LEAVE: c_int = 136;

pub(crate) const CLUSTER_SCOPE: i8 = 2;
pub(crate) const NODE_SCOPE: i8 = 3;

pub(crate) const KIND_RANGE: u8 = 1;
pub(crate) const KIND_SERVICE: u8 = 2;
pub(crate) const KIND_SOCKET: u8 = 3;

/// `struct sockaddr_tipc`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketName {
    pub(crate) family: u16,
    pub(crate) kind: u8,
    pub(crate) scope: i8,
    pub(crate) words: [u32; 3],
}

pub(crate) const NAME_LEN: socklen_t = size_of::<SocketName>() as socklen_t;

impl SocketName {
    pub(crate) fn new(kind: u8, scope: i8, words: [u32; 3]) -> Self {
        Self {
            family: AF_TIPC as u16,
            kind,
            scope,
            words,
        }
    }

    /// Where a message or a request for a connection is to go.
    pub(crate) fn of(address: &tipc_addr) -> Self {
        let tipc_addr {
            r#type,
            instance,
            node,
        } = *address;
        match r#type {
            0 => Self::new(KIND_SOCKET, 0, [instance, node, 0]),
            _ => Self::new(KIND_SERVICE, 0, [r#type, instance, node]),
        }
    }

    /// The address of a socket.
    pub(crate) fn socket(&self) -> tipc_addr {
        tipc_addr {
            r#type: 0,
            instance: self.words[0],
            node: self.words[1],
        }
    }

    pub(crate) fn pointer(&self) -> In<sockaddr> {
        In::new((&raw const *self).cast())
    }
}

/// What the topology service is asked: `struct tipc_subscr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subscription {
    pub(crate) range: [u32; 3],
    pub(crate) timeout_ms: u32,
    pub(crate) filter: u32,
    pub(crate) handle: [u8; 8],
}

/// What it tells: `struct tipc_event`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Event {
    pub(crate) what: u32,
    pub(crate) found: [u32; 2],
    pub(crate) port: u32,
    pub(crate) node: u32,
    pub(crate) subscription: Subscription,
}
