//! Asking for a connection (`docs/protocol/connections.md`, set-up).

use super::Engine;
use super::send::{Message, SendError, Sender};
use crate::addr::{Destination, NodeAddr, PortId, SocketAddr};
use crate::connection::{Connection, Role, State, Syn};
use crate::host::{Host, Payload};
use crate::port::Port;
use crate::time::Instant;
use crate::wire::field;
use std::time::Duration;

/// A request that finds no room is tried again so much later.
const CONGESTED_RETRY: Duration = Duration::from_millis(100);

/// Why a socket does not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The socket does not exist.
    #[error("no such socket")]
    NoSuchSocket,
    /// A datagram socket.
    #[error("only SEQPACKET and STREAM sockets connect")]
    NotSupported,
    /// The socket is connected.
    #[error("the socket is connected already")]
    Connected,
    /// The socket listens, or its connection is over.
    #[error("a socket that listens, or whose connection is over, cannot connect")]
    State,
    /// The request could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl Engine {
    /// Asks for a connection. [`crate::host::Notice::Connected`] or
    /// [`crate::host::Notice::ConnectFailed`] tells the outcome, maybe from within this call. Asked
    /// again while the request is under way, it waits anew.
    pub fn connect<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        to: &Destination,
        host: &mut H,
    ) -> Result<(), ConnectError> {
        let result = self.start_connect(now, id, to, host);
        self.settle(now, host);
        result
    }

    fn start_connect<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        to: &Destination,
        host: &mut H,
    ) -> Result<(), ConnectError> {
        let port = self.ports.get(&id).ok_or(ConnectError::NoSuchSocket)?;
        if !port.kind.is_connected() {
            return Err(ConnectError::NotSupported);
        }
        match &port.role {
            Role::Open => self.set_up(now, id, to, &[][..], host)?,
            Role::Listener(_) => return Err(ConnectError::State),
            Role::Connection(connection) => match connection.state {
                State::Connecting => {}
                State::Established => return Err(ConnectError::Connected),
                State::Disconnecting => return Err(ConnectError::State),
            },
        }
        let Some(port) = self.ports.get_mut(&id) else {
            return Err(ConnectError::NoSuchSocket);
        };
        let timeout = Duration::from_millis(port.connect_timeout_ms.into());
        // Answered already if the peer is on this node.
        if let Some(syn) = port.connection_mut().and_then(|c| c.syn.as_mut()) {
            let at = now + timeout;
            syn.give_up_at = Some(at);
            self.attend(at, id);
        }
        Ok(())
    }

    /// A message of a socket that may not be connected yet, with the address it goes to.
    pub(super) fn send_connecting<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        to: &Destination,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let port = self.ports.get(&id).ok_or(SendError::NoSuchSocket)?;
        match &port.role {
            Role::Open => self.set_up(now, id, to, payload, host),
            Role::Listener(_) | Role::Connection(_) => self.send_message(now, id, payload, host),
        }
    }

    /// Sends a request, with data or without.
    fn set_up<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        to: &Destination,
        payload: &P,
        host: &mut H,
    ) -> Result<(), SendError> {
        let port = self.ports.get(&id).ok_or(SendError::NoSuchSocket)?;
        if !port.bindings.is_empty() {
            return Err(SendError::Bound);
        }
        let mut header = self.unicast_header(&Sender::of(port), to, payload.len())?;
        header.set(field::SYN, 1);
        let peer = SocketAddr {
            port: PortId(header.get(field::DEST_PORT)),
            node: NodeAddr(header.get(field::DEST_NODE)),
        };
        if !self.is_own(peer.node) && self.reachable(peer.node).is_none() {
            return Err(SendError::Unreachable);
        }
        let mut data = vec![0; payload.len()];
        payload.copy_to(0, &mut data);
        let syn = Syn {
            header,
            data,
            retry_at: None,
            give_up_at: None,
        };
        let port = self.ports.get_mut(&id).ok_or(SendError::NoSuchSocket)?;
        // Before it is sent: a socket of this node may answer at once.
        port.role = Role::Connection(Box::new(Connection::connecting(peer, syn)));
        let sent = self.send_syn(now, id, host);
        if sent.is_err()
            && let Some(port) = self.ports.get_mut(&id)
        {
            port.role = Role::Open;
        }
        sent
    }

    /// Sends the request of a socket, or sends it again. If there is no room it is tried later.
    pub(super) fn send_syn<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        host: &mut H,
    ) -> Result<(), SendError> {
        let Some(connection) = self.ports.get_mut(&id).and_then(Port::connection_mut) else {
            return Err(SendError::NoSuchSocket);
        };
        let node = connection.peer.node;
        let Some(syn) = connection.syn.as_mut() else {
            return Ok(());
        };
        let (header, data) = (syn.header, std::mem::take(&mut syn.data));
        // The data has to be there when the answer comes from within this call.
        syn.data.clone_from(&data);
        match self.hand_over(now, id, node, &Message::new(&header, &data[..]), host) {
            Err(SendError::Congested) => {
                self.retry_at(now + CONGESTED_RETRY, id);
                Ok(())
            }
            other => other,
        }
    }

    /// The request of a socket is to be sent again at `at`.
    pub(super) fn retry_at(&mut self, at: Instant, id: PortId) {
        let port = self.ports.get_mut(&id);
        if let Some(syn) = port.and_then(|p| p.connection_mut()?.syn.as_mut()) {
            syn.retry_at = Some(at);
            self.attend(at, id);
        }
    }
}
