//! What arrives at sockets of the connection types (`docs/protocol/connections.md`).

use super::Engine;
use super::waiting::note_awaited;
use crate::addr::{NodeAddr, PortId, SocketAddr};
use crate::connection::{Connection, Flow, Nagle, Probe, Role, State, retry_delay};
use crate::host::{ConnectFailure, Disconnect, Host, Incoming, Notice, Payload};
use crate::port::{MESSAGE_OVERHEAD, Port, SocketKind};
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{Capabilities, ConnKind, DataType, Header, Importance, errcode, field};

/// Largest message that a stream gathers for a socket of its own node.
const LOCAL_UNIT: usize = 1500;

/// The socket a message comes from.
pub(super) fn origin_of(header: &Header) -> SocketAddr {
    SocketAddr {
        port: PortId(header.get(field::ORIG_PORT)),
        node: NodeAddr(header.orig_node()),
    }
}

impl Engine {
    /// A data message for a socket of a connection type. The error is what it is rejected with.
    pub(super) fn take_data<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) -> Result<(), u32> {
        let kind = DataType::from_bits(header.get(field::TYPE));
        if !matches!(kind, DataType::Conn | DataType::Named | DataType::Direct) {
            return Err(errcode::NO_PORT);
        }
        let port = self.ports.get_mut(&id).ok_or(errcode::NO_PORT)?;
        let connection = match &mut port.role {
            Role::Open => return Err(errcode::NO_PORT),
            Role::Listener(_) => return self.on_request(now, id, header, payload, host),
            Role::Connection(connection) => connection,
        };
        connection.nagle.on_received();
        let holds = !connection.nagle.held.is_empty();
        match connection.state {
            State::Connecting => self.on_answer(now, id, header, payload, host),
            State::Established => {
                if holds {
                    self.push_held(now, id, host);
                }
                self.on_data(now, id, header, payload, host)
            }
            State::Disconnecting => Err(errcode::NO_PORT),
        }
    }

    /// A message for a socket that has sent its request.
    fn on_answer<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) -> Result<(), u32> {
        let code = header.get(field::ERRCODE);
        let origin = origin_of(header);
        let is_conn = DataType::from_bits(header.get(field::TYPE)) == DataType::Conn;
        if is_conn && code == errcode::OK {
            // From whichever socket: the one that accepts is not the one that listens.
            if let Some(port) = self.ports.get_mut(&id) {
                port.importance = Importance::from_bits(header.get(field::USER));
            }
            host.notice(Notice::Connected(id));
            if !self.establish(now, id, origin, host) || payload.is_empty() {
                return Ok(());
            }
            return self.deliver_data(id, header, payload, host);
        }
        let refuses = is_conn || self.is_peer_of(id, origin) && code != errcode::OK;
        if !refuses {
            return Err(errcode::NO_PORT);
        }
        if !is_conn && code == errcode::OVERLOAD {
            self.retry_later(now, id);
            return Ok(());
        }
        self.end_connection(
            id,
            Disconnect::Errcode(code as u8),
            Importance::from_bits(header.get(field::USER)),
            payload,
            host,
        );
        Ok(())
    }

    /// The listener was full: the request is sent again, after a time that parts those who try.
    fn retry_later(&mut self, now: Instant, id: PortId) {
        let random = self.clock.random();
        if let Some(port) = self.ports.get_mut(&id) {
            let delay = retry_delay(port.connect_timeout_ms, random);
            self.retry_at(now + delay, id);
        }
    }

    /// The peer of a socket is known: the connection is established. False if its node cannot be
    /// reached any more, which ends the connection.
    pub(super) fn establish<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        peer: SocketAddr,
        host: &mut H,
    ) -> bool {
        let known = self.capabilities_of(peer.node);
        let capabilities = known.unwrap_or(Capabilities::OWN);
        let unit = self.gathered_unit(peer.node);
        let Some(port) = self.ports.get_mut(&id) else {
            return false;
        };
        let gathers = port.kind == SocketKind::Stream && !port.nodelay;
        let Some(connection) = port.connection_mut() else {
            return false;
        };
        connection.state = State::Established;
        connection.peer = peer;
        connection.flow = Flow::new(capabilities.has(Capabilities::BLOCK_FLOWCTL));
        if let Some(syn) = connection.syn.take()
            && !syn.data.is_empty()
        {
            let units = connection.flow.units(syn.header.len() + syn.data.len());
            connection.flow.on_sent(units);
        }
        connection.nagle = Nagle::new(if gathers { unit } else { 0 });
        connection.probe = Probe::new(now);
        self.await_turn(id);
        if known.is_none() {
            let lost = Disconnect::Errcode(errcode::NO_NODE as u8);
            self.end_connection(id, lost, Importance::Critical, &[][..], host);
        }
        known.is_some()
    }

    /// What a node can do, if it can be reached.
    fn capabilities_of(&self, node: NodeAddr) -> Option<Capabilities> {
        if self.is_own(node) {
            return Some(Capabilities::OWN);
        }
        let index = self.reachable(node)?;
        self.peer(index).map(|peer| peer.capabilities)
    }

    /// Largest message that a stream to a socket of this node gathers; 0 if it does not gather.
    pub(super) fn gathered_unit(&self, node: NodeAddr) -> usize {
        match self.reachable(node) {
            _ if self.is_own(node) => LOCAL_UNIT,
            Some(index)
                if self
                    .capabilities_of(node)
                    .is_some_and(|c| c.has(Capabilities::NAGLE)) =>
            {
                self.mss_to(index)
            }
            Some(_) | None => 0,
        }
    }

    /// A data message for an established connection.
    fn on_data<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) -> Result<(), u32> {
        if !self.is_peer_of(id, origin_of(header)) {
            return Err(errcode::NO_PORT);
        }
        let code = header.get(field::ERRCODE);
        if code != errcode::OK {
            let importance = Importance::from_bits(header.get(field::USER));
            let reason = Disconnect::Errcode(code as u8);
            self.end_connection(id, reason, importance, payload, host);
            return Ok(());
        }
        let is_conn = DataType::from_bits(header.get(field::TYPE)) == DataType::Conn;
        if is_conn && header.get(field::ACK_REQUIRED) == 1 {
            // Due at once, whatever the application has read: the peer holds data until it comes.
            self.acknowledge(now, id, true, host);
        }
        self.deliver_data(id, header, payload, host)
    }

    /// Gives the message to the socket if its peer may send so much.
    pub(super) fn deliver_data<H: Host, P: Payload + ?Sized>(
        &mut self,
        id: PortId,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) -> Result<(), u32> {
        if payload.is_empty() {
            self.core.drops.count(Drop::Empty);
            return Ok(());
        }
        let port = self.ports.get_mut(&id).ok_or(errcode::NO_PORT)?;
        let Role::Connection(connection) = &port.role else {
            return Err(errcode::NO_PORT);
        };
        let is_conn = DataType::from_bits(header.get(field::TYPE)) == DataType::Conn;
        let about = Incoming {
            source: connection.peer,
            dest_name: connection.name,
            importance: Importance::from_bits(header.get(field::USER)),
            errcode: 0,
            cost: payload.len() as u32 + MESSAGE_OVERHEAD,
            // What came with the request was sent to the listener: sent back it would find nobody.
            returnable: is_conn && header.get(field::DEST_DROPPABLE) == 0,
            group: None,
            refused: false,
        };
        let limit = connection.flow.receive_limit(port.receive_buffer);
        if port.used + u64::from(about.cost) > limit {
            port.overloads += 1;
            return Err(errcode::OVERLOAD);
        }
        port.on_waiting(about.cost);
        if port.inner {
            self.give(id, &about, payload, host);
        } else {
            note_awaited(port, &mut self.awaited_readers);
            host.deliver(id, &about, payload);
        }
        Ok(())
    }

    /// The connection of a socket is over, or what was to become one. If an errcode says why, the
    /// socket is given it behind all data, with what came back.
    pub(super) fn end_connection<H: Host, P: Payload + ?Sized>(
        &mut self,
        id: PortId,
        reason: Disconnect,
        importance: Importance,
        payload: &P,
        host: &mut H,
    ) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        let Role::Connection(connection) = &mut port.role else {
            return;
        };
        let was = connection.state;
        let about = Incoming {
            source: connection.peer,
            dest_name: connection.name,
            importance,
            errcode: match reason {
                Disconnect::Errcode(code) => code,
                Disconnect::Silent => 0,
            },
            cost: payload.len() as u32 + MESSAGE_OVERHEAD,
            returnable: false,
            group: None,
            refused: was == State::Connecting,
        };
        let inner = port.inner;
        self.dismantle(id);
        if let Disconnect::Errcode(code) = reason {
            if let Some(port) = self.ports.get_mut(&id) {
                port.on_waiting(about.cost);
            }
            self.give(id, &about, payload, host);
            if was == State::Connecting {
                let why = ConnectFailure::Refused(code);
                return host.notice(Notice::ConnectFailed(id, why));
            }
        }
        if inner {
            self.inner.end(id, reason);
        } else {
            host.notice(Notice::Disconnected(id, reason));
        }
    }

    /// Ends a connection on this side and forgets what it held.
    pub(super) fn dismantle(&mut self, id: PortId) {
        let Some(connection) = self.ports.get_mut(&id).and_then(Port::connection_mut) else {
            return;
        };
        connection.state = State::Disconnecting;
        connection.owed = Default::default();
        connection.syn = None;
        let held = std::mem::take(&mut connection.nagle.held);
        if held.capacity() > 0 {
            self.core.buffers.put(held);
        }
    }

    /// Ends all connections to a node that was lost, and forgets the requests from it.
    pub(super) fn abort_connections<H: Host>(&mut self, node: NodeAddr, host: &mut H) {
        let mut lost = Vec::new();
        for (id, port) in &mut self.ports {
            match &mut port.role {
                Role::Open => {}
                Role::Connection(connection) => {
                    let over = connection.state == State::Disconnecting;
                    if connection.peer.node == node && !over {
                        lost.push(*id);
                    }
                }
                Role::Listener(listener) => {
                    let mut freed = (0, 0);
                    listener.pending.retain(|syn| {
                        let stays = syn.source().node != node;
                        if !stays {
                            freed = (freed.0 + u64::from(syn.cost), freed.1 + 1);
                        }
                        stays
                    });
                    port.used = port.used.saturating_sub(freed.0);
                    port.waiting = port.waiting.saturating_sub(freed.1);
                }
            }
        }
        // In an order that does not depend on the table, so that a run can be repeated.
        lost.sort_unstable();
        for id in lost {
            let reason = Disconnect::Errcode(errcode::NO_NODE as u8);
            self.end_connection(id, reason, Importance::Critical, &[][..], host);
        }
    }

    /// A message of user CONN_MANAGER for a socket of any type.
    pub(super) fn on_conn_manager<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        header: &Header,
        host: &mut H,
    ) {
        let established = self.established(id).is_some();
        if !established || !self.is_peer_of(id, origin_of(header)) {
            return self.core.drops.count(Drop::NotPeer);
        }
        let code = header.get(field::ERRCODE);
        if code != errcode::OK {
            // What this end sent met no socket. Linux only sets the state, and the reader never hears.
            let reason = Disconnect::Errcode(code as u8);
            return self.end_connection(id, reason, Importance::Critical, &[][..], host);
        }
        if let Some(connection) = self.established(id) {
            connection.probe.on_answer();
        }
        match header.get(field::TYPE) {
            PROBE => {
                if self
                    .send_conn_manager(now, id, ConnKind::ProbeReply, host)
                    .is_err()
                {
                    self.owe_with(id, |owed| owed.probe_reply = true);
                }
            }
            PROBE_REPLY => {}
            ACK => self.on_ack(now, id, header, host),
            _ => self.core.drops.count(Drop::MalformedControl),
        }
    }

    fn on_ack<H: Host>(&mut self, now: Instant, id: PortId, header: &Header, host: &mut H) {
        let acked = header.get(field::CONN_ACK) as u16;
        let window = header.get(field::ADV_WINDOW) as u16;
        let Some(connection) = self.established(id) else {
            return;
        };
        if !connection.flow.is_plausible(acked) {
            return self.core.drops.count(Drop::ImpossibleAck);
        }
        if header.get(field::NAGLE_ACK) == 1 {
            connection.nagle.on_nagle_ack();
        }
        self.push_held(now, id, host);
        if self
            .established(id)
            .is_some_and(|c| c.flow.on_ack(acked, window))
        {
            self.tell_writable(id, host);
        }
    }

    /// The connection of a socket, if it is established.
    pub(super) fn established(&mut self, id: PortId) -> Option<&mut Connection> {
        let connection = self.ports.get_mut(&id)?.connection_mut()?;
        (connection.state == State::Established).then_some(connection)
    }

    /// True if `origin` is the other end, or where the request went. Node 0 is this node.
    fn is_peer_of(&self, id: PortId, origin: SocketAddr) -> bool {
        let connection = self.ports.get(&id).and_then(Port::connection);
        connection.is_some_and(|c| {
            let same_node =
                c.peer.node == origin.node || self.is_own(c.peer.node) && self.is_own(origin.node);
            c.peer.port == origin.port && same_node
        })
    }

    /// Hands something to a socket: to the host, or to the engine itself.
    fn give<H: Host, P: Payload + ?Sized>(
        &mut self,
        id: PortId,
        about: &Incoming,
        payload: &P,
        host: &mut H,
    ) {
        if !self.ports.get(&id).is_some_and(|port| port.inner) {
            return host.deliver(id, about, payload);
        }
        if about.errcode == 0 {
            self.inner.message(id, payload);
        }
        self.on_consumed(id, about.cost);
    }

    /// A socket that met congestion may send again.
    pub(super) fn tell_writable<H: Host>(&mut self, id: PortId, host: &mut H) {
        match self.ports.get(&id) {
            Some(port) if port.inner => self.inner.writable(id),
            Some(_) => host.notice(Notice::Writable(id)),
            None => {}
        }
    }
}

const PROBE: u32 = 0;
const PROBE_REPLY: u32 = 1;
const ACK: u32 = 2;
