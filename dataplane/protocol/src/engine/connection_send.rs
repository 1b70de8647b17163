//! Sending on a connection: windows, Nagle, acknowledgements (`docs/protocol/connections.md`).

use super::Engine;
use super::send::{Message, SendError};
use crate::addr::PortId;
use crate::connection::{HELD_MAX, Owed, Role, State, Verdict};
use crate::host::{Host, Payload};
use crate::port::{Port, SocketKind};
use crate::time::Instant;
use crate::wire::{ConnKind, DataType, Header, User, field, size};

/// A part of what a stream was asked to send.
struct Part<'a, P: ?Sized> {
    whole: &'a P,
    start: usize,
    len: usize,
}

impl<P: Payload + ?Sized> Payload for Part<'_, P> {
    fn len(&self) -> usize {
        self.len
    }

    fn copy_to(&self, offset: usize, out: &mut [u8]) {
        self.whole.copy_to(self.start + offset, out);
    }
}

impl Engine {
    /// Sends on an established connection and gives the number of bytes taken: a message of a
    /// SEQPACKET socket as a whole, of a stream as much as there is room for.
    pub fn send_connected<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        payload: &P,
        host: &mut H,
    ) -> Result<usize, SendError> {
        let Some(port) = self.ports.get_mut(&id) else {
            return Err(SendError::NoSuchSocket);
        };
        let (kind, refused_at) = (port.kind, port.refused_at.take());
        let result = self.send_parts(now, id, kind, payload, host);
        if result == Err(SendError::Congested) {
            self.note_refused(id, refused_at.unwrap_or(now));
        }
        self.settle(now, host);
        result
    }

    fn send_parts<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        kind: SocketKind,
        payload: &P,
        host: &mut H,
    ) -> Result<usize, SendError> {
        let total = payload.len();
        if total <= size::MAX_PAYLOAD {
            return self.send_message(now, id, payload, host).map(|()| total);
        }
        if kind != SocketKind::Stream {
            return Err(SendError::TooLong(total));
        }
        let mut sent = 0;
        while sent < total {
            let part = Part {
                whole: payload,
                start: sent,
                len: (total - sent).min(size::MAX_PAYLOAD),
            };
            match self.send_message(now, id, &part, host) {
                Ok(()) => sent += part.len,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Sends what fits in one message, or lets a stream hold it.
    pub(super) fn send_message<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let port = self.ports.get_mut(&id).ok_or(SendError::NoSuchSocket)?;
        let congested = |p: &Port, node| p.is_congested_to(node);
        let node = match &port.role {
            Role::Connection(c) => match c.state {
                State::Connecting => return Err(SendError::NotConnected),
                State::Disconnecting => return Err(SendError::Disconnected),
                State::Established if c.flow.is_congested() || congested(port, c.peer.node) => {
                    return Err(SendError::Congested);
                }
                State::Established => c.peer.node,
            },
            Role::Open | Role::Listener(_) => return Err(SendError::NotConnected),
        };
        let Some(connection) = port.connection_mut() else {
            return Err(SendError::NotConnected);
        };
        let connection = if connection.nagle.held_units(&connection.flow) > HELD_MAX {
            self.send_held(now, id, host)?;
            self.established(id).ok_or(SendError::Disconnected)?
        } else {
            connection
        };
        if connection.nagle.gathers(payload.len()) {
            if self.hold(id, payload) == Verdict::Send {
                // What finds no room stays held, and goes out when there is some.
                let _ = self.send_held(now, id, host);
            }
            return Ok(());
        }
        if !connection.nagle.held.is_empty() {
            self.send_held(now, id, host)?;
        }
        self.send_counted(now, id, node, false, payload, host)
    }

    /// Adds a piece to what a stream holds.
    fn hold<P: Payload + ?Sized>(&mut self, id: PortId, payload: &P) -> Verdict {
        let buffers = &mut self.core.buffers;
        let Some(connection) = self.ports.get_mut(&id).and_then(Port::connection_mut) else {
            return Verdict::Hold;
        };
        let held = &mut connection.nagle.held;
        if held.capacity() == 0 {
            *held = buffers.take();
        }
        let start = held.len();
        held.resize(start + payload.len(), 0);
        payload.copy_to(0, &mut held[start..]);
        connection.nagle.on_added(&connection.flow)
    }

    /// Sends what a stream holds because something else happened: it need not wait longer.
    pub(super) fn push_held<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        let congested = port.is_congested();
        let Some(connection) = port.connection_mut() else {
            return;
        };
        if connection.nagle.held.is_empty() || congested {
            return;
        }
        connection.nagle.on_pushed();
        // What finds no room stays held.
        let _ = self.send_held(now, id, host);
    }

    /// Sends all that a stream holds. What finds no room stays held.
    pub(super) fn send_held<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        host: &mut H,
    ) -> Result<(), SendError> {
        let Some(connection) = self.established(id) else {
            return Ok(());
        };
        if connection.nagle.held.is_empty() {
            return Ok(());
        }
        let node = connection.peer.node;
        let (piece, asks) = (connection.nagle.piece(), connection.nagle.asks);
        let mut held = std::mem::take(&mut connection.nagle.held);
        let mut sent = 0;
        let mut result = Ok(());
        while sent < held.len() {
            let message = &held[sent..held.len().min(sent + piece)];
            let last = sent + message.len() == held.len();
            result = self.send_counted(now, id, node, asks && last, message, host);
            if result.is_err() {
                break;
            }
            sent += message.len();
        }
        match self.established(id) {
            Some(connection) if result.is_err() => {
                held.drain(..sent);
                connection.nagle.held = held;
            }
            Some(connection) => {
                connection.nagle.asks = false;
                self.core.buffers.put(held);
            }
            None => self.core.buffers.put(held),
        }
        result
    }

    /// Sends a message of a connection, which `asks` for an acknowledgement or not, and counts it. Counted before it is
    /// sent: a peer on this node may acknowledge it from within.
    fn send_counted<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        node: crate::addr::NodeAddr,
        asks: bool,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let own = self.core.own.0;
        let Some(port) = self.ports.get_mut(&id) else {
            return Err(SendError::NoSuchSocket);
        };
        let header = header_on_connection(port, own, payload.len());
        let mut header = header.ok_or(SendError::NotConnected)?;
        header.set(field::ACK_REQUIRED, asks.into());
        let importance = port.importance;
        let Some(connection) = port.connection_mut() else {
            return Err(SendError::NotConnected);
        };
        let units = connection.flow.units(size::SHORT + payload.len());
        connection.flow.on_sent(units);
        let before = connection.sent_importance.replace(importance);
        let message = if before.is_none_or(|before| before == importance) {
            Message::new(&header, payload)
        } else {
            Message::apart(&header, payload)
        };
        let result = self.hand_over(now, id, node, &message, host);
        if let Some(connection) = self.established(id) {
            match result {
                // Any message tells the client that it was accepted.
                Ok(()) => connection.owed.acceptance = false,
                Err(_) => {
                    connection.flow.on_unsent(units);
                    connection.sent_importance = before;
                }
            }
        }
        result
    }

    /// Header of a message of `len` bytes on the connection of a socket.
    pub(super) fn connection_header(&self, id: PortId, len: usize) -> Option<Header> {
        header_on_connection(self.ports.get(&id)?, self.core.own.0, len)
    }

    /// Acknowledges what was consumed; `nagle` if the peer asked for it.
    pub(super) fn acknowledge<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        nagle: bool,
        host: &mut H,
    ) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        let buffer = port.receive_buffer;
        let Some(connection) = port.connection_mut() else {
            return;
        };
        let (acked, window) = connection.flow.acknowledgement(buffer);
        connection.flow.on_ack_sent(acked, window);
        connection.owed.ack = false;
        connection.owed.nagle_ack &= !nagle;
        let kind = ConnKind::Ack {
            nagle_ack: nagle,
            acked,
            window,
        };
        if self.send_conn_manager(now, id, kind, host).is_err() {
            if let Some(connection) = self.established(id) {
                connection.flow.on_ack_unsent(acked);
            }
            self.owe_with(id, |owed| {
                owed.ack = true;
                owed.nagle_ack |= nagle;
            });
        }
    }

    pub(super) fn send_probe<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        if let Some(connection) = self.established(id) {
            // Before it is sent: a peer on this node answers from within. If there is no room now the
            // missing answer will be one to a later probe.
            connection.probe.on_sent(now);
        }
        if self
            .send_conn_manager(now, id, ConnKind::Probe, host)
            .is_err()
            && let Some(connection) = self.established(id)
        {
            connection.probe.on_answer();
        }
    }

    /// Sends a message of user CONN_MANAGER to the peer.
    pub(super) fn send_conn_manager<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        kind: ConnKind,
        host: &mut H,
    ) -> Result<(), SendError> {
        let own = self.core.own;
        let Some(connection) = self.established(id) else {
            return Ok(());
        };
        let peer = connection.peer;
        let header = kind.header(own, id, peer);
        if self.is_own(peer.node) {
            self.deliver_unicast(now, &header, &[][..], host);
            return Ok(());
        }
        self.transmit(now, peer.node, &header, &[][..], host)
            .map(|_| ())
    }

    /// A message of the socket found no room: it is tried again.
    pub(super) fn owe_with(&mut self, id: PortId, what: impl FnOnce(&mut Owed)) {
        if let Some(connection) = self.established(id) {
            let listed = !connection.owed.is_nothing();
            what(&mut connection.owed);
            if !listed {
                self.owing.push_back(id);
            }
        }
    }

    /// Tries again what found no room, each connection once.
    pub(super) fn pay_owed<H: Host>(&mut self, now: Instant, host: &mut H) {
        for _ in 0..self.owing.len() {
            let Some(id) = self.owing.pop_front() else {
                return;
            };
            let Some(owed) = self.established(id).map(|c| std::mem::take(&mut c.owed)) else {
                continue;
            };
            if owed.acceptance {
                self.send_acceptance(now, id, host);
            }
            if owed.probe_reply
                && self
                    .send_conn_manager(now, id, ConnKind::ProbeReply, host)
                    .is_err()
            {
                self.owe_with(id, |owed| owed.probe_reply = true);
            }
            if owed.ack || owed.nagle_ack {
                self.acknowledge(now, id, owed.nagle_ack, host);
            }
        }
    }
}

/// Header of a message of `len` bytes on the connection of a socket of this node.
fn header_on_connection(port: &Port, own: u32, len: usize) -> Option<Header> {
    let connection = port.connection()?;
    let user = User::from_bits(port.importance as u32);
    let mut header = Header::new(user, DataType::Conn as u32, size::SHORT);
    header
        .set(field::DEST_DROPPABLE, port.dest_droppable.into())
        .set(field::PREV_NODE, own)
        .set(field::ORIG_PORT, port.id.0)
        .set(field::DEST_PORT, connection.peer.port.0)
        .set_payload_len(len);
    Some(header)
}
