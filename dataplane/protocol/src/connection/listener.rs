//! Connection requests that wait to be accepted (`docs/protocol/connections.md`, set-up).

use super::syn::name_of;
use crate::addr::{NodeAddr, PortId, SocketAddr};
use crate::host::DestName;
use crate::wire::{Header, Importance, field};
use std::collections::VecDeque;

/// A request that waits.
#[derive(Debug)]
pub struct PendingSyn {
    /// Its header.
    pub header: Header,
    /// The message it carries; mostly none.
    pub data: Vec<u8>,
    /// What it counts against the listener's receive buffer.
    pub cost: u32,
}

impl PendingSyn {
    /// Who wants to connect.
    pub fn source(&self) -> SocketAddr {
        SocketAddr {
            port: PortId(self.header.get(field::ORIG_PORT)),
            node: NodeAddr(self.header.orig_node()),
        }
    }

    /// The service address it was sent to.
    pub fn name(&self) -> Option<DestName> {
        name_of(&self.header)
    }

    /// The importance of the connection.
    pub fn importance(&self) -> Importance {
        Importance::from_bits(self.header.get(field::USER))
    }
}

/// What a listening socket holds.
#[derive(Debug, Default)]
pub struct Listener {
    /// Requests, oldest first.
    pub pending: VecDeque<PendingSyn>,
    /// How many may wait; `None`: as many as the receive buffer takes.
    pub limit: Option<u32>,
}

impl Listener {
    /// True if another request may wait as far as their number goes.
    pub fn has_place(&self) -> bool {
        self.limit
            .is_none_or(|limit| self.pending.len() < limit as usize)
    }
}
