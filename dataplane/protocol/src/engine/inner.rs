//! Sockets of the engine itself: services that a node offers under reserved addresses.
//!
//! A listening socket made by [`Engine::open_inner`] accepts every request at once. What arrives at
//! the sockets it accepts counts as read; it waits here, in order, as [`InnerEvent`]s that the
//! service takes with [`Engine::pop_inner`] at the end of an input. The service answers with
//! [`Engine::send_connected`], which tells congestion, after which [`InnerEvent::Writable`] comes;
//! it ends a connection with [`Engine::shutdown`] and gives its socket back with [`Engine::close`],
//! also when the peer has ended it. The host hears nothing of these sockets.

use super::accept::Accepted;
use super::{Engine, FastMap};
use crate::addr::{PortId, SocketAddr};
use crate::connection::Role;
use crate::host::{Disconnect, Payload};
use crate::port::SocketKind;
use std::collections::VecDeque;

/// Connections that all services of the node together have at most.
pub(super) const INNER_MAX: usize = 16_384;

/// News for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InnerEvent {
    /// A connection was accepted.
    Accepted {
        /// The listening socket.
        listener: PortId,
        /// The socket of the connection.
        port: PortId,
        /// Who asked for it.
        peer: SocketAddr,
    },
    /// A message arrived.
    Message(PortId, Vec<u8>),
    /// A connection that met congestion may be sent on again.
    Writable(PortId),
    /// The connection is over; its socket is still to be closed.
    Ended(PortId, Disconnect),
}

/// What waits for the services.
#[derive(Default)]
pub(super) struct Inner {
    events: VecDeque<InnerEvent>,
    /// Sockets of connections, with their listeners.
    sockets: FastMap<PortId, PortId>,
}

impl Inner {
    /// True if nothing waits for any service.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Open connections.
    pub(super) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn accepted(&mut self, listener: PortId, accepted: &Accepted) {
        let (port, peer) = (accepted.port, accepted.peer);
        self.sockets.insert(port, listener);
        self.events.push_back(InnerEvent::Accepted {
            listener,
            port,
            peer,
        });
    }

    pub(super) fn message<P: Payload + ?Sized>(&mut self, id: PortId, payload: &P) {
        let mut bytes = vec![0; payload.len()];
        payload.copy_to(0, &mut bytes);
        self.events.push_back(InnerEvent::Message(id, bytes));
    }

    pub(super) fn writable(&mut self, id: PortId) {
        self.events.push_back(InnerEvent::Writable(id));
    }

    pub(super) fn end(&mut self, id: PortId, reason: Disconnect) {
        self.events.push_back(InnerEvent::Ended(id, reason));
    }

    /// True if something waits for the service of this listening socket.
    pub(super) fn has_of(&self, listener: PortId) -> bool {
        self.position_of(listener).is_some()
    }

    /// The oldest event for the service of this listening socket.
    pub(super) fn pop_of(&mut self, listener: PortId) -> Option<InnerEvent> {
        self.events.remove(self.position_of(listener)?)
    }

    fn position_of(&self, listener: PortId) -> Option<usize> {
        let is_of = |event: &InnerEvent| self.sockets.get(&event.port()) == Some(&listener);
        self.events.iter().position(is_of)
    }

    /// Forgets a socket that was closed.
    pub(super) fn forget(&mut self, id: PortId) {
        if self.sockets.remove(&id).is_some() {
            self.events.retain(|event| event.port() != id);
        }
    }
}

impl InnerEvent {
    /// The socket it is about.
    pub fn port(&self) -> PortId {
        match self {
            Self::Accepted { port, .. }
            | Self::Message(port, _)
            | Self::Writable(port)
            | Self::Ended(port, _) => *port,
        }
    }
}

impl Engine {
    /// Opens a listening socket of the engine. The caller binds it.
    pub fn open_inner(&mut self, kind: SocketKind) -> PortId {
        let id = self.open(kind);
        if let Some(port) = self.ports.get_mut(&id) {
            port.inner = true;
            port.role = Role::Listener(Box::default());
        }
        id
    }

    /// The oldest event of the engine's sockets.
    pub fn pop_inner(&mut self) -> Option<InnerEvent> {
        self.inner.events.pop_front()
    }
}
