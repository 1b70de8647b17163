//! Listening and accepting (`docs/protocol/connections.md`, set-up).

use super::Engine;
use super::inner::INNER_MAX;
use super::send::Message;
use crate::addr::{NodeAddr, PortId, SocketAddr};
use crate::connection::{Connection, Listener, PendingSyn, Role};
use crate::host::{DestName, Host, Notice, Payload};
use crate::port::{MESSAGE_OVERHEAD, Port, SocketKind};
use crate::time::Instant;
use crate::wire::{Capabilities, DataType, Header, Importance, errcode, field, size};

/// Why a socket does not listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// The socket does not exist.
    #[error("no such socket")]
    NoSuchSocket,
    /// A datagram socket.
    #[error("only SEQPACKET and STREAM sockets listen")]
    NotSupported,
    /// The socket listens, or has, seeks or had a peer.
    #[error("only a socket that neither listens nor ever connected can listen")]
    State,
}

/// Why nothing was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The socket does not exist.
    #[error("no such socket")]
    NoSuchSocket,
    /// A datagram socket.
    #[error("only SEQPACKET and STREAM sockets accept connections")]
    NotSupported,
    /// The socket does not listen.
    #[error("the socket does not listen")]
    NotListening,
    /// No request waits: [`Notice::Acceptable`] tells when to try again.
    #[error("no connection request waits")]
    Nothing,
}

/// Why two sockets are not paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// One of the sockets does not exist.
    #[error("no such socket")]
    NoSuchSocket,
    /// Only new sockets of the same connection type.
    #[error(
        "only two new sockets of one type, SEQPACKET or STREAM, can be connected to each other"
    )]
    NotAlike,
}

/// A connection that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The new socket, of the listener's type.
    pub port: PortId,
    /// Who asked.
    pub peer: SocketAddr,
    /// The service address it asked for, if it did by one.
    pub name: Option<DestName>,
}

impl Engine {
    /// Lets a socket take connection requests, `limit` waiting at a time; `None`: as many as its
    /// receive buffer takes.
    pub fn listen(&mut self, id: PortId, limit: Option<u32>) -> Result<(), ListenError> {
        let port = self.ports.get_mut(&id).ok_or(ListenError::NoSuchSocket)?;
        if !port.kind.is_connected() {
            return Err(ListenError::NotSupported);
        }
        if !matches!(port.role, Role::Open) {
            return Err(ListenError::State);
        }
        let pending = Default::default();
        port.role = Role::Listener(Box::new(Listener { pending, limit }));
        Ok(())
    }

    /// A message for a listening socket. The error is what it is rejected with.
    pub(super) fn on_request<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        header: &Header,
        payload: &P,
        host: &mut H,
    ) -> Result<(), u32> {
        let is_conn = DataType::from_bits(header.get(field::TYPE)) == DataType::Conn;
        if is_conn || header.get(field::ERRCODE) != errcode::OK {
            return Err(errcode::NO_PORT);
        }
        if header.get(field::SYN) == 0 && self.marks_requests(NodeAddr(header.orig_node())) {
            return Err(errcode::NO_PORT);
        }
        let importance = Importance::from_bits(header.get(field::USER));
        let cost = payload.len() as u32 + MESSAGE_OVERHEAD;
        let port = self.ports.get_mut(&id).ok_or(errcode::NO_PORT)?;
        let has_room = port.has_room(importance, cost);
        let Role::Listener(listener) = &mut port.role else {
            return Err(errcode::NO_PORT);
        };
        let has_place = if port.inner {
            self.inner.sockets() < INNER_MAX
        } else {
            listener.has_place()
        };
        if !has_place || !has_room {
            port.overloads += 1;
            return Err(errcode::OVERLOAD);
        }
        let mut data = vec![0; payload.len()];
        payload.copy_to(0, &mut data);
        let syn = PendingSyn {
            header: *header,
            data,
            cost,
        };
        if port.inner {
            self.accept_request(now, id, syn, host, |_, _| {});
            return Ok(());
        }
        listener.pending.push_back(syn);
        port.on_waiting(cost);
        host.notice(Notice::Acceptable(id));
        Ok(())
    }

    /// True if requests of this node carry the SYN bit.
    fn marks_requests(&self, node: NodeAddr) -> bool {
        let index = self.index_of(node);
        let peer = index.and_then(|index| self.peer(index));
        peer.is_none_or(|peer| peer.capabilities.has(Capabilities::SYN_BIT))
    }

    /// Accepts the oldest request. `own` makes the new socket known to the host before it is given
    /// what came with the request.
    pub fn accept<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        host: &mut H,
        own: impl FnOnce(&mut H, &Accepted),
    ) -> Result<Accepted, AcceptError> {
        let port = self.ports.get_mut(&id).ok_or(AcceptError::NoSuchSocket)?;
        if !port.kind.is_connected() {
            return Err(AcceptError::NotSupported);
        }
        let Role::Listener(listener) = &mut port.role else {
            return Err(AcceptError::NotListening);
        };
        let syn = listener.pending.pop_front().ok_or(AcceptError::Nothing)?;
        port.on_taken(syn.cost, 1);
        let accepted = self.accept_request(now, id, syn, host, own);
        self.settle(now, host);
        Ok(accepted)
    }

    /// Connects two new sockets of this node to each other.
    pub fn pair<H: Host>(
        &mut self,
        now: Instant,
        [one, other]: [PortId; 2],
        host: &mut H,
    ) -> Result<(), PairError> {
        let of = |id| self.ports.get(&id).ok_or(PairError::NoSuchSocket);
        let (a, b) = (of(one)?, of(other)?);
        let is_new = |port: &Port| matches!(port.role, Role::Open) && port.bindings.is_empty();
        let alike = a.kind == b.kind && a.kind.is_connected() && one != other;
        if !alike || !is_new(a) || !is_new(b) {
            return Err(PairError::NotAlike);
        }
        for (id, peer) in [(one, other), (other, one)] {
            let peer = self.socket_addr(peer);
            if let Some(port) = self.ports.get_mut(&id) {
                port.role = Role::Connection(Box::new(Connection::accepted(peer, None)));
            }
            self.establish(now, id, peer, host);
        }
        Ok(())
    }

    /// Makes the socket that a request asks for, and answers it.
    fn accept_request<H: Host>(
        &mut self,
        now: Instant,
        listener: PortId,
        syn: PendingSyn,
        host: &mut H,
        own: impl FnOnce(&mut H, &Accepted),
    ) -> Accepted {
        let from = self.ports.get(&listener);
        let (kind, owner, inner) = from.map_or((SocketKind::Seqpacket, 0, false), |p| {
            (p.kind, p.owner, p.inner)
        });
        let accepted = Accepted {
            port: self.open(kind),
            peer: syn.source(),
            name: syn.name(),
        };
        let id = accepted.port;
        if let Some(port) = self.ports.get_mut(&id) {
            port.importance = syn.importance();
            (port.owner, port.inner) = (owner, inner);
            let connection = Connection::accepted(accepted.peer, accepted.name);
            port.role = Role::Connection(Box::new(connection));
        }
        own(host, &accepted);
        if inner {
            self.inner.accepted(listener, &accepted);
        }
        if self.establish(now, id, accepted.peer, host) {
            if !syn.data.is_empty() {
                // What found room at the listener finds room here.
                let _ = self.deliver_data(id, &syn.header, &syn.data[..], host);
            }
            self.send_acceptance(now, id, host);
        }
        accepted
    }

    /// Tells the client that it was accepted. It counts for flow control, as in Linux, though nobody
    /// will ever acknowledge it.
    pub(super) fn send_acceptance<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        let Some(header) = self.connection_header(id, 0) else {
            return;
        };
        let Some(connection) = self.established(id) else {
            return;
        };
        let node = connection.peer.node;
        let units = connection.flow.units(size::SHORT);
        connection.flow.on_sent(units);
        connection.owed.acceptance = false;
        let message = Message::new(&header, &[][..]);
        if self.hand_over(now, id, node, &message, host).is_err() {
            if let Some(connection) = self.established(id) {
                connection.flow.on_unsent(units);
            }
            self.owe_with(id, |owed| owed.acceptance = true);
        }
    }
}
