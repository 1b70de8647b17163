//! The end of a connection as this side wants it (`docs/protocol/connections.md`, termination).

use super::Engine;
use super::send::{Message, SendError};
use crate::addr::{NodeAddr, PortId};
use crate::connection::{Role, State};
use crate::host::{Host, Payload};
use crate::time::Instant;
use crate::wire::{DataType, Header, User, errcode, field, size};

/// How a socket comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is closed, or its process has died.
    Close,
    /// It is shut down in order.
    Shutdown,
}

impl Ending {
    /// What the peer is told.
    pub(super) fn errcode(self) -> u32 {
        match self {
            Self::Close => errcode::NO_PORT,
            Self::Shutdown => errcode::CONN_SHUTDOWN,
        }
    }
}

/// Why a shutdown ended no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShutdownError {
    /// The socket does not exist.
    #[error("no such socket")]
    NoSuchSocket,
    /// There is no connection. Waiting requests were sent back.
    #[error("the socket is not connected")]
    NotConnected,
}

/// The last messages of a connection that found no room; its socket may be gone.
#[derive(Debug)]
pub(super) struct Farewell {
    node: NodeAddr,
    /// Header of the data that was held.
    header: Header,
    held: Vec<u8>,
    /// Payload of one message of it.
    piece: usize,
    /// The message that ends the connection.
    fin: Header,
}

impl Engine {
    /// Ends a connection in order, or sends back the requests that wait at a listening socket. What
    /// was delivered and not taken goes back by [`Self::return_unread`] before; the host forgets it.
    pub fn shutdown<H: Host>(
        &mut self,
        now: Instant,
        id: PortId,
        host: &mut H,
    ) -> Result<(), ShutdownError> {
        self.part(now, id, errcode::CONN_SHUTDOWN, host);
        self.settle(now, host);
        let port = self.ports.get_mut(&id);
        let port = port.ok_or(ShutdownError::NoSuchSocket)?;
        (port.used, port.waiting) = (0, 0);
        match port.role {
            Role::Connection(_) => Ok(()),
            Role::Open | Role::Listener(_) => Err(ShutdownError::NotConnected),
        }
    }

    /// Ends what a socket has of connections.
    pub(super) fn part<H: Host>(&mut self, now: Instant, id: PortId, code: u32, host: &mut H) {
        let Some(port) = self.ports.get_mut(&id) else {
            return;
        };
        match &mut port.role {
            Role::Open => {}
            Role::Listener(listener) => {
                let pending = std::mem::take(&mut listener.pending);
                for syn in pending {
                    self.reject(now, &syn.header, &syn.data[..], code, host);
                }
            }
            Role::Connection(connection) => match connection.state {
                State::Established => {
                    self.send_fin(now, id, code, host);
                    self.dismantle(id);
                }
                // The answer, when it comes, finds no socket and tells the peer.
                State::Connecting => self.dismantle(id),
                State::Disconnecting => {}
            },
        }
    }

    /// Ends a connection by sending back a message that nobody will read.
    pub(super) fn part_returning<H: Host, P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: PortId,
        header: &Header,
        payload: &P,
        code: u32,
        host: &mut H,
    ) {
        if self.established(id).is_none() || self.send_held(now, id, host).is_err() {
            return;
        }
        // Before it is sent: a peer on this node reacts from within.
        let fin = self.farewell(id, code);
        self.dismantle(id);
        if self.send_back(now, header, payload, code, host).is_err()
            && let Some(fin) = fin
        {
            self.farewells.push_back(fin);
        }
    }

    /// Sends what is held and the message that ends the connection, now or when there is room.
    fn send_fin<H: Host>(&mut self, now: Instant, id: PortId, code: u32, host: &mut H) {
        // What finds no room becomes part of the farewell.
        let _ = self.send_held(now, id, host);
        if let Some(farewell) = self.farewell(id, code) {
            self.dismantle(id);
            self.farewells.push_back(farewell);
            // Where others wait this one would wait, too.
            if self.farewells.len() == 1 {
                self.say_farewells(now, host);
            }
        }
    }

    fn farewell(&mut self, id: PortId, code: u32) -> Option<Farewell> {
        let header = self.connection_header(id, 0)?;
        let connection = self.established(id)?;
        let mut fin = Header::new(User::Critical, DataType::Conn as u32, size::SHORT);
        for field in [field::PREV_NODE, field::ORIG_PORT, field::DEST_PORT] {
            fin.set(field, header.get(field));
        }
        fin.set(field::ERRCODE, code);
        Some(Farewell {
            node: connection.peer.node,
            header,
            piece: connection.nagle.piece(),
            held: std::mem::take(&mut connection.nagle.held),
            fin,
        })
    }

    /// Tries to send what ends connections. After the first in vain no other one is tried, but it is the next one's turn:
    /// with thousands that wait each input would take as many attempts.
    pub(super) fn say_farewells<H: Host>(&mut self, now: Instant, host: &mut H) {
        while let Some(mut farewell) = self.farewells.pop_front() {
            if !self.say_farewell(now, &mut farewell, host) {
                self.farewells.push_back(farewell);
                break;
            }
        }
    }

    /// True if there is nothing left to say: all was sent, or there is no way to the node.
    fn say_farewell<H: Host>(
        &mut self,
        now: Instant,
        farewell: &mut Farewell,
        host: &mut H,
    ) -> bool {
        let node = farewell.node;
        while !farewell.held.is_empty() {
            let len = farewell.held.len().min(farewell.piece);
            farewell.header.set_payload_len(len);
            let message = Message::new(&farewell.header, &farewell.held[..len]);
            match self.transmit_message(now, node, &message, host) {
                Ok(_) => drop(farewell.held.drain(..len)),
                Err(error) => return error != SendError::Congested,
            }
        }
        if self.is_own(node) {
            self.deliver_unicast(now, &farewell.fin, &[][..], host);
            return true;
        }
        let message = Message::apart(&farewell.fin, &[][..]);
        let result = self.transmit_message(now, node, &message, host);
        result != Err(SendError::Congested)
    }
}
