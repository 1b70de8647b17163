//! Sockets of this node: open, options, close (`docs/protocol/sockets.md`).

use super::{Ending, Engine};
use crate::addr::{PortId, SocketAddr};
use crate::connection::State;
use crate::host::{Host, Incoming, Payload};
use crate::port::{MESSAGE_OVERHEAD, Port, RECEIVE_BUFFER_RANGE, SocketKind};
use crate::time::Instant;
use crate::wire::errcode;

impl Engine {
    /// Opens a socket.
    pub fn open(&mut self, kind: SocketKind) -> PortId {
        let id = self.free_port();
        let buffer = self.config.receive_buffer;
        self.ports.insert(id, Port::new(id, kind, buffer));
        id
    }

    /// A number that no socket and no subscriber has.
    pub(super) fn free_port(&mut self) -> PortId {
        loop {
            let id = PortId(self.next_port);
            self.next_port = self.next_port.wrapping_add(1);
            if id.0 != 0 && !self.ports.contains_key(&id) && !self.readers.contains_key(&id) {
                return id;
            }
        }
    }

    /// Closes a socket or a subscriber: ends its connection, sends waiting requests back, withdraws its bindings and
    /// forgets it. What was delivered and not yet taken goes back by [`Self::return_unread`] before.
    pub fn close<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        self.close_subscriber(id);
        self.discard(now, id, host);
        self.settle(now, host);
    }

    /// Closes a socket within an input.
    pub(super) fn discard<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        self.part(now, id, errcode::NO_PORT, host);
        self.leave(now, id, host);
        // Fails only if the socket does not exist.
        let _ = self.withdraw_all(now, id, host);
        if self.ports.remove(&id).is_some() {
            self.inner.forget(id);
            self.bcast.forget(id);
            self.starved.forget(id);
            self.untold.forget(id);
            let peers = self.peers.iter_mut().flatten();
            for link in peers.flat_map(|peer| peer.links.iter_mut()) {
                link.forget(id);
            }
        }
    }

    /// Sends a message back that was delivered to a socket which will never take it, since it is being
    /// closed or shut down. On a connection the first such message takes the place of the message that
    /// ends it, and others are dropped.
    pub fn return_unread<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        ending: Ending,
        message: (&Incoming, &P),
        host: &mut H,
    ) {
        let (about, payload) = message;
        if about.returnable {
            let header = self.header_of_delivered(id, about, payload.len());
            if self.ports.get(&id).is_some_and(|p| p.kind.is_connected()) {
                self.part_returning(now, id, &header, payload, ending.errcode(), host);
            } else {
                self.reject(now, &header, payload, ending.errcode(), host);
            }
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

    /// Lets a stream send every piece at once, or gather small ones. What it holds goes out with the
    /// next piece.
    pub fn set_nodelay(&mut self, id: PortId, nodelay: bool) -> Option<()> {
        let port = self.ports.get_mut(&id)?;
        port.nodelay = nodelay;
        let gathers = port.kind == SocketKind::Stream && !nodelay;
        let node = port.connection().filter(|c| c.state == State::Established);
        if let Some(node) = node.map(|c| c.peer.node) {
            let unit = if gathers { self.gathered_unit(node) } else { 0 };
            self.established(id)?.nagle.set_unit(unit);
        }
        Some(())
    }

    /// The socket's own address.
    pub fn socket_addr(&self, id: PortId) -> SocketAddr {
        SocketAddr {
            port: id,
            node: self.core.own,
        }
    }

    /// The socket, or the subscriber, has taken a message that counted `cost`, all of it. [`Self::acknowledge_consumed`]
    /// tells the peers of connections.
    pub fn on_consumed(&mut self, id: PortId, cost: u32) {
        self.on_several_consumed(id, cost, 1);
    }

    /// The same of `count` messages, each of which counted `cost`.
    pub fn on_several_consumed(&mut self, id: PortId, cost: u32, count: u32) {
        let Some(port) = self.ports.get_mut(&id) else {
            return self.on_events_read(id, cost, count);
        };
        port.on_taken(cost, count);
        if let Some(connection) = port.connection_mut()
            && connection.state == State::Established
        {
            let payload = cost.saturating_sub(MESSAGE_OVERHEAD) as usize;
            let mut is_ack_due = false;
            for _ in 0..count {
                is_ack_due |= connection.flow.on_consumed(payload);
            }
            if is_ack_due {
                self.owe_with(id, |owed| owed.ack = true);
            }
        }
    }

    /// Sends the acknowledgements that became due since [`Self::on_consumed`].
    pub fn acknowledge_consumed<H: Host>(&mut self, now: Instant, host: &mut H) {
        if !self.owing.is_empty() || !self.groups.is_quiet() {
            self.settle(now, host);
        }
    }
}
