//! The sockets.

use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xtipc_segment::{Destination, Ready, ServiceAddress, SocketAddress};

use super::side::Side;
use crate::{ConnectionKind, Error, Event, GroupEvent, Joining, Message, Node, Result};

/// A datagram socket.
#[derive(Debug)]
pub struct Datagram {
    receiving: Side,
    sending: Side,
    socket: crate::Datagram,
}

impl Datagram {
    /// Takes a socket over.
    pub fn new(socket: crate::Datagram) -> Result<Self> {
        socket.set_nonblocking(true);
        Ok(Self {
            receiving: Side::new(socket.handle())?,
            sending: Side::new(socket.handle())?,
            socket,
        })
    }

    /// Receives the next message, as [`crate::Datagram::recv`]. No message is lost when this is cancelled.
    pub async fn recv(&self) -> Result<Message> {
        self.receiving.attempt(|| self.socket.try_recv()).await
    }

    /// Sends a message, as [`crate::Datagram::send_to`]. Cancelled while it waits, it has not sent.
    pub async fn send_to(&self, payload: &[u8], destination: impl Into<Destination>) -> Result<()> {
        let destination = destination.into();
        let attempt = || self.socket.send_to(payload, destination);
        self.sending.attempt_when(Ready::SEND, attempt).await
    }

    /// Sends a message to the default destination, likewise.
    pub async fn send(&self, payload: &[u8]) -> Result<()> {
        let attempt = || self.socket.send(payload);
        self.sending.attempt_when(Ready::SEND, attempt).await
    }
}

impl Deref for Datagram {
    type Target = crate::Datagram;

    fn deref(&self) -> &crate::Datagram {
        &self.socket
    }
}

/// A socket that takes connection requests.
#[derive(Debug)]
pub struct Listener {
    side: Side,
    socket: crate::Listener,
}

impl Listener {
    /// Takes a socket over.
    pub fn new(socket: crate::Listener) -> Result<Self> {
        Ok(Self {
            side: Side::new(socket.handle())?,
            socket,
        })
    }

    /// Waits for a request and accepts it. No request is lost when this is cancelled.
    pub async fn accept(&self) -> Result<(Connection, SocketAddress)> {
        let attempt = || self.socket.try_accept();
        let (socket, peer) = self.side.attempt_when(Ready::ACCEPT, attempt).await?;
        Ok((Connection::new(socket)?, peer))
    }
}

impl Deref for Listener {
    type Target = crate::Listener;

    fn deref(&self) -> &crate::Listener {
        &self.socket
    }
}

/// A connection. [`AsyncRead`] and [`AsyncWrite`] are those of a stream; on a SEQPACKET connection each write is a
/// message and each read takes one, of which what does not fit is lost.
#[derive(Debug)]
pub struct Connection {
    receiving: Side,
    sending: Side,
    socket: crate::Connection,
}

impl Connection {
    /// Takes a connection over.
    pub fn new(socket: crate::Connection) -> Result<Self> {
        Ok(Self {
            receiving: Side::new(socket.handle())?,
            sending: Side::new(socket.handle())?,
            socket,
        })
    }

    /// Connects as [`crate::Connection::connect`]; a thread of the runtime's pool waits for the answer.
    pub async fn connect(
        node: &Node,
        kind: ConnectionKind,
        destination: impl Into<Destination>,
    ) -> Result<Self> {
        let (node, destination) = (node.clone(), destination.into());
        let connect = move || crate::Connection::connect(&node, kind, destination);
        let connected = tokio::task::spawn_blocking(connect).await;
        Self::new(connected.map_err(|error| Error::Io(error.into()))??)
    }

    /// Receives the next message or chunk, as [`crate::Connection::recv`]. Nothing is lost when this is cancelled.
    pub async fn recv(&self) -> Result<Option<Message>> {
        self.receiving.attempt(|| self.socket.try_recv()).await
    }

    /// Sends as [`crate::Connection::send`]. Cancelled while it waits, it has not sent.
    pub async fn send(&self, bytes: &[u8]) -> Result<usize> {
        let attempt = || self.socket.try_send(bytes);
        self.sending.attempt_when(Ready::SEND, attempt).await
    }
}

impl Deref for Connection {
    type Target = crate::Connection;

    fn deref(&self) -> &crate::Connection {
        &self.socket
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let attempt = || self.socket.try_read(out.initialize_unfilled());
        let len = ready!(self.receiving.poll_attempt(cx, attempt))?;
        out.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.try_send(bytes) {
                Err(Error::WouldBlock) => ready!(self.sending.poll_can(cx, Ready::SEND))?,
                other => return Poll::Ready(Ok(other?)),
            }
        }
    }

    /// What was written is with the node already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the connection in order, both ways: TIPC has no half-closed connections.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(self.socket.shutdown()?))
    }
}

/// A member of a group.
#[derive(Debug)]
pub struct Group {
    receiving: Side,
    sending: Side,
    socket: crate::Group,
}

impl Group {
    /// Takes a member over.
    pub fn new(socket: crate::Group) -> Result<Self> {
        socket.socket().set_nonblocking(true);
        Ok(Self {
            receiving: Side::new(socket.socket().handle())?,
            sending: Side::new(socket.socket().handle())?,
            socket,
        })
    }

    /// Joins as [`crate::Group::join`], which only the node has to answer.
    pub fn join(node: &Node, address: ServiceAddress, joining: Joining) -> Result<Self> {
        Self::new(crate::Group::join(node, address, joining)?)
    }

    /// Leaves as [`crate::Group::leave`].
    pub fn leave(self) -> Result<()> {
        self.socket.leave()
    }

    /// Receives the next message or event, as [`crate::Group::recv`]. Nothing is lost when this is cancelled.
    pub async fn recv(&self) -> Result<GroupEvent> {
        self.receiving.attempt(|| self.socket.try_recv()).await
    }

    /// Sends to all members once each of them has room, as [`crate::Group::broadcast`]. Cancelled while it waits, this
    /// and the other sends have not sent.
    pub async fn broadcast(&self, payload: &[u8]) -> Result<()> {
        self.send(|| self.socket.broadcast(payload)).await
    }

    /// Sends to all members with this instance, likewise.
    pub async fn multicast(&self, payload: &[u8], instance: u32) -> Result<()> {
        self.send(|| self.socket.multicast(payload, instance)).await
    }

    /// Sends to one of the members with this instance, likewise.
    pub async fn anycast(&self, payload: &[u8], instance: u32) -> Result<()> {
        self.send(|| self.socket.anycast(payload, instance)).await
    }

    /// Sends to one member, likewise.
    pub async fn send_to(&self, payload: &[u8], member: SocketAddress) -> Result<()> {
        self.send(|| self.socket.send_to(payload, member)).await
    }

    async fn send(&self, attempt: impl FnMut() -> Result<()>) -> Result<()> {
        self.sending.attempt_when(Ready::SEND, attempt).await
    }
}

impl Deref for Group {
    type Target = crate::Group;

    fn deref(&self) -> &crate::Group {
        &self.socket
    }
}

/// A subscriber of the topology service: a [`Stream`] of events, which ends when the service has closed it or the node
/// is gone.
#[derive(Debug)]
pub struct Subscriber {
    side: Side,
    socket: crate::Subscriber,
    ended: bool,
}

impl Subscriber {
    /// Takes a subscriber over.
    pub fn new(socket: crate::Subscriber) -> Result<Self> {
        Ok(Self {
            side: Side::new(socket.handle())?,
            socket,
            ended: false,
        })
    }

    /// Waits for the next event. No event is lost when this is cancelled.
    pub async fn recv(&self) -> Result<Event> {
        self.side.attempt(|| self.socket.try_recv()).await
    }
}

impl Deref for Subscriber {
    type Target = crate::Subscriber;

    fn deref(&self) -> &crate::Subscriber {
        &self.socket
    }
}

impl Stream for Subscriber {
    type Item = Result<Event>;

    /// An error other than that of a single event is the last item.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.side.poll_attempt(cx, || self.socket.try_recv()));
        self.ended = !matches!(event, Ok(_) | Err(Error::NotAnEvent { .. }));
        Poll::Ready(Some(event))
    }
}
