//! Sockets of this node: open, options, close (`docs/protocol/sockets.md`).

use super::Engine;
use crate::addr::{PortId, SocketAddr};
use crate::host::{Host, Incoming, Payload};
use crate::port::{Port, RECEIVE_BUFFER_RANGE, SocketKind};
use crate::time::Instant;
use crate::wire::errcode;

impl Engine {
    /// Opens a socket.
    pub fn open(&mut self, kind: SocketKind) -> PortId {
        loop {
            let id = PortId(self.next_port);
            self.next_port = self.next_port.wrapping_add(1);
            if id.0 != 0 && !self.ports.contains_key(&id) {
                let buffer = self.config.receive_buffer;
                self.ports.insert(id, Port::new(id, kind, buffer));
                return id;
            }
        }
    }

    /// Closes a socket: withdraws its bindings and forgets it. What was delivered and not yet taken
    /// goes back by [`Self::return_unread`] before.
    pub fn close<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        // Fails only if the socket does not exist.
        let _ = self.withdraw_all(now, id, host);
        if self.ports.remove(&id).is_some() {
            self.bcast.forget(id);
            self.starved.forget(id);
            self.untold.forget(id);
            for link in self
                .peers
                .iter_mut()
                .flatten()
                .filter_map(|peer| peer.link.as_mut())
            {
                link.forget(id);
            }
        }
        self.settle(now, host);
    }

    /// Sends a message back that was delivered to a socket which will never take it.
    pub fn return_unread<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        about: &Incoming,
        payload: &P,
        host: &mut H,
    ) {
        if about.returnable {
            let header = self.header_of_delivered(id, about, payload.len());
            self.reject(now, &header, payload, errcode::NO_PORT, host);
            self.settle(now, host);
        }
    }

    /// A socket, for its options.
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(&id)
    }

    /// A socket, to set its options.
    pub fn port_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(&id)
    }

    /// Sets a socket's receive buffer, cut to what is possible; gives what was set.
    pub fn set_receive_buffer(&mut self, id: PortId, bytes: u32) -> Option<u32> {
        let port = self.ports.get_mut(&id)?;
        port.receive_buffer =
            bytes.clamp(*RECEIVE_BUFFER_RANGE.start(), *RECEIVE_BUFFER_RANGE.end());
        Some(port.receive_buffer)
    }

    /// The socket's own address.
    pub fn socket_addr(&self, id: PortId) -> SocketAddr {
        SocketAddr {
            port: id,
            node: self.core.own,
        }
    }

    /// The socket has taken a message that counted `cost`.
    pub fn on_consumed(&mut self, id: PortId, cost: u32) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.used = port.used.saturating_sub(cost.into());
            port.waiting = port.waiting.saturating_sub(1);
        }
    }
}
