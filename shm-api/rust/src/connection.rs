//! Connections: SEQPACKET and STREAM sockets. Semantics as in `docs/protocol/connections.md`.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use xtipc_segment::{
    Destination, Importance, MESSAGE_LEN_MAX, Meta, PEER_SILENT, PayloadPlace, Ready, Request,
    SendFlags, ServiceRange, SocketAddress, SocketKind, address_of_value, option,
};

use crate::attachment::{Attachment, Patience};
use crate::buffer::Buffer;
use crate::core::{Core, Interest, Partial, Queue};
use crate::datagram::{check_bindable, check_len};
use crate::sharing::ReadPart;
use crate::{Error, Message, Node, Result, Scope, SharedHandle, lock};

/// Type of a connection's socket; both talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Messages: each write is one, each read takes one.
    Seqpacket,
    /// Bytes.
    Stream,
}

impl ConnectionKind {
    fn socket(self) -> SocketKind {
        match self {
            Self::Seqpacket => SocketKind::Seqpacket,
            Self::Stream => SocketKind::Stream,
        }
    }
}

/// An open socket of a connection type; closed on drop.
#[derive(Debug)]
struct Socket {
    attachment: Arc<Attachment>,
    id: u32,
}

impl Socket {
    fn open(node: &Node, kind: ConnectionKind) -> Result<Self> {
        let attachment = Arc::clone(&node.attachment);
        let kind = kind.socket();
        let [id, _] = attachment
            .call(0, Request::OpenSocket { kind })?
            .map_err(Error::from_result)?;
        let id = id as u32;
        Ok(Self { attachment, id })
    }

    /// Takes a socket of a handle into use, if it is of the right type.
    fn adopt(node: &Node, handle: &SharedHandle, listens: bool) -> Result<(Self, ConnectionKind)> {
        let attachment = Arc::clone(&node.attachment);
        let adopted = attachment.adopt(handle.as_fd())?;
        let id = adopted.id;
        let socket = Self { attachment, id };
        match adopted.kind {
            SocketKind::Seqpacket if adopted.listens == listens => {
                Ok((socket, ConnectionKind::Seqpacket))
            }
            SocketKind::Stream if adopted.listens == listens => {
                Ok((socket, ConnectionKind::Stream))
            }
            _ => Err(Error::from_result(-libc::EPROTOTYPE)),
        }
    }

    fn call(&self, request: Request) -> Result<[u64; 2]> {
        let answer = self.attachment.call(self.id, request)?;
        answer.map_err(Error::from_result)
    }

    fn local_addr(&self) -> Result<SocketAddress> {
        let [value, _] = self.call(Request::GetName)?;
        Ok(address_of_value(value))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.attachment.close(self.id);
    }
}

/// A socket that takes connection requests.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    kind: ConnectionKind,
}

impl Listener {
    /// Listens at a service address or range.
    pub fn bind(
        node: &Node,
        kind: ConnectionKind,
        range: impl Into<ServiceRange>,
        scope: Scope,
    ) -> Result<Self> {
        let listener = Self::open(node, kind)?;
        let range = check_bindable(range.into())?;
        listener.socket.call(Request::Bind { range, scope })?;
        Ok(listener)
    }

    /// Listens at its socket address only.
    pub fn open(node: &Node, kind: ConnectionKind) -> Result<Self> {
        let socket = Socket::open(node, kind)?;
        socket.call(Request::Listen { limit: 0 })?;
        Ok(Self { socket, kind })
    }

    /// Waits for a request and accepts it: only then the client is connected. Gives the address of the client too.
    pub fn accept(&self) -> Result<(Connection, SocketAddress)> {
        self.accept_with(SendFlags::empty(), Patience::Endless)
    }

    /// Accepts a request if one waits; else [`Error::WouldBlock`].
    pub fn try_accept(&self) -> Result<(Connection, SocketAddress)> {
        self.accept_with(SendFlags::DONTWAIT, Patience::Endless)
    }

    /// Accepts a request, waiting at most so long.
    pub fn accept_timeout(&self, timeout: Duration) -> Result<(Connection, SocketAddress)> {
        self.accept_with(SendFlags::empty(), Patience::lasting(Some(timeout)))
    }

    fn accept_with(
        &self,
        flags: SendFlags,
        patience: Patience,
    ) -> Result<(Connection, SocketAddress)> {
        let attachment = &self.socket.attachment;
        let request = Request::Accept { flags };
        let answer = attachment.call_within(self.socket.id, request, patience)?;
        if answer == Err(-libc::EAGAIN) {
            let mut core = attachment.core()?;
            core.note_not_ready(self.socket.id, Ready::ACCEPT);
        }
        let [id, peer] = answer.map_err(Error::from_result)?;
        let socket = Socket {
            attachment: Arc::clone(attachment),
            id: id as u32,
        };
        Ok((Connection::new(socket, self.kind), address_of_value(peer)))
    }

    /// The attachment, and the number of the socket.
    pub(crate) fn handle(&self) -> (&Arc<Attachment>, u32) {
        (&self.socket.attachment, self.socket.id)
    }

    /// Address of this socket.
    pub fn local_addr(&self) -> Result<SocketAddress> {
        self.socket.local_addr()
    }

    /// A handle of the socket, for other processes to accept too. Each request goes to one of them.
    pub fn share(&self) -> Result<SharedHandle> {
        let attachment = &self.socket.attachment;
        attachment.share(self.socket.id, || Ok(ReadPart::default()))
    }

    /// Accepts at the socket of a handle, together with the others who do.
    pub fn adopt(node: &Node, handle: &SharedHandle) -> Result<Self> {
        let (socket, kind) = Socket::adopt(node, handle, true)?;
        Ok(Self { socket, kind })
    }

    /// Size of the receive buffer in bytes, as `SO_RCVBUF`: what requests may wait. A client that finds it full tries
    /// again until its connect times out.
    pub fn set_receive_buffer(&self, bytes: u32) -> Result<()> {
        self.socket.call(Request::SetReceiveBuffer { bytes })?;
        Ok(())
    }
}

/// How reading and sending are done.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Threads that read bytes now: each may have a chunk in hand.
    readers: u32,
    /// Why the connection is over, once that was read.
    end: Option<u8>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    nonblocking: bool,
    /// Nobody reads any more.
    shut_down: bool,
}

impl Inbox {
    /// Why there is nothing more to read.
    fn over(&self) -> Option<u8> {
        if self.shut_down {
            return Some(SHUTDOWN);
        }
        self.end
    }

    pub(crate) fn patience_to_read(&self) -> Patience {
        match self.nonblocking {
            true => Patience::None,
            false => Patience::lasting(self.read_timeout),
        }
    }

    fn patience_to_write(&self) -> Patience {
        match self.nonblocking {
            true => Patience::None,
            false => Patience::lasting(self.write_timeout),
        }
    }
}

/// A connection. Dropping it closes it: the peer then reads what was sent, and after that finds the connection reset;
/// [`Connection::shutdown`] ends it in order.
///
/// [`Read`] and [`Write`] are implemented for it and for `&Connection`, so that one thread may read and another write.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    kind: ConnectionKind,
    inbox: Mutex<Inbox>,
}

impl Connection {
    fn new(socket: Socket, kind: ConnectionKind) -> Self {
        Self {
            socket,
            kind,
            inbox: Mutex::new(Inbox::default()),
        }
    }

    /// Connects to a socket, or to one of those that listen at a service address. Waits until the other end has accepted,
    /// 8 seconds at most.
    pub fn connect(
        node: &Node,
        kind: ConnectionKind,
        destination: impl Into<Destination>,
    ) -> Result<Self> {
        let socket = Socket::open(node, kind)?;
        let destination = Some(destination.into());
        let flags = SendFlags::empty();
        socket.call(Request::Connect { flags, destination })?;
        Ok(Self::new(socket, kind))
    }

    /// Connects with a wait of at most so many milliseconds.
    pub fn connect_timeout(
        node: &Node,
        kind: ConnectionKind,
        destination: impl Into<Destination>,
        timeout_ms: u16,
    ) -> Result<Self> {
        let socket = Socket::open(node, kind)?;
        socket.call(Request::SetOption {
            option: option::CONN_TIMEOUT,
            value: timeout_ms.into(),
        })?;
        let destination = Some(destination.into());
        let flags = SendFlags::empty();
        socket.call(Request::Connect { flags, destination })?;
        Ok(Self::new(socket, kind))
    }

    /// Connects by a first message, without waiting for the answer. Until it comes nothing more can be sent; a refusal
    /// shows when reading.
    pub fn connect_with(
        node: &Node,
        kind: ConnectionKind,
        destination: impl Into<Destination>,
        first: &[u8],
    ) -> Result<Self> {
        let connection = Self::new(Socket::open(node, kind)?, kind);
        connection.submit(first, Some(destination.into()), Patience::Endless)?;
        Ok(connection)
    }

    /// A handle of the connection, for other processes to use it too, or to use it from now on: what was not read stays
    /// for them. The daemon then keeps what arrives, and each read asks it. Fails with `EBUSY` while another thread reads
    /// a stream.
    pub fn share(&self) -> Result<SharedHandle> {
        let inbox = lock(&self.inbox);
        let (attachment, id) = (&self.socket.attachment, self.socket.id);
        let handle = attachment.share(id, || {
            if inbox.readers > 0 {
                return Err(Error::from_result(-libc::EBUSY));
            }
            let mut core = attachment.core()?;
            let queue = core.queue(id)?;
            Ok(match &queue.partial {
                None => ReadPart::default(),
                Some((Buffer::Direct(chunk), read)) => {
                    chunk.consumed();
                    let rest = chunk[*read..].to_vec();
                    queue.partial = None;
                    ReadPart { read: 0, rest }
                }
                Some((_, read)) => ReadPart {
                    read: *read,
                    rest: Vec::new(),
                },
            })
        })?;
        if let Some((buffer, _)) = self.take_partial()? {
            attachment.give_back(buffer);
        }
        Ok(handle)
    }

    /// Uses the connection of a handle, beside or after the process that gave it.
    pub fn adopt(node: &Node, handle: &SharedHandle) -> Result<Self> {
        let (socket, kind) = Socket::adopt(node, handle, false)?;
        Ok(Self::new(socket, kind))
    }

    /// Sends on the connection and gives the number of bytes taken: a message of a SEQPACKET connection whole, of a
    /// stream at most 66,000. Waits for room as [`Connection::set_write_timeout`] says.
    pub fn send(&self, bytes: &[u8]) -> Result<usize> {
        let patience = lock(&self.inbox).patience_to_write();
        self.submit(self.cut(bytes), None, patience)
    }

    /// What of these bytes is sent at once.
    fn cut<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self.kind {
            ConnectionKind::Stream => &bytes[..bytes.len().min(MESSAGE_LEN_MAX)],
            ConnectionKind::Seqpacket => bytes,
        }
    }

    fn submit(
        &self,
        bytes: &[u8],
        destination: Option<Destination>,
        patience: Patience,
    ) -> Result<usize> {
        check_len(bytes.len())?;
        let request = |payload: PayloadPlace, flags: SendFlags| Request::Send {
            flags,
            destination,
            payload,
        };
        let attachment = &self.socket.attachment;
        let id = self.socket.id;
        let result = match destination {
            None => attachment.send_connected(id, bytes, request, patience)?,
            Some(_) => attachment.send(id, bytes, request, patience)?,
        };
        match result {
            0.. => Ok(bytes.len()),
            result => Err(Error::from_result(result)),
        }
    }

    /// Receives the next message of a SEQPACKET connection, or the next chunk of a stream. `None`: the peer has ended
    /// the connection in order. Any other end is an error, each time.
    pub fn recv(&self) -> Result<Option<Message>> {
        self.recv_with(Inbox::patience_to_read)
    }

    fn recv_with(&self, patience: impl FnOnce(&Inbox) -> Patience) -> Result<Option<Message>> {
        let next = self.next(MESSAGE_LEN_MAX, patience, Queue::pop, |_, _| true)?;
        Ok(next.map(|(meta, buffer)| self.message(meta, buffer)))
    }

    pub(crate) fn message(&self, meta: Meta, buffer: Buffer) -> Message {
        Message::new(&self.socket.attachment, meta, buffer)
    }

    pub(crate) fn patience_to_write(&self) -> Patience {
        lock(&self.inbox).patience_to_write()
    }

    /// The same if something waits; else [`Error::WouldBlock`].
    pub fn try_recv(&self) -> Result<Option<Message>> {
        self.recv_with(|_| Patience::None)
    }

    /// The same, spinning until then; [`Error::TimedOut`] if nothing came. Never sleeps.
    pub fn recv_spin(&self, until: Instant) -> Result<Option<Message>> {
        let next = self.next_spinning(until, Queue::pop)?;
        Ok(next.map(|(meta, buffer)| self.message(meta, buffer)))
    }

    /// The next message, spinning until it, or the end, is there.
    pub(crate) fn next_spinning(
        &self,
        until: Instant,
        pop: fn(&mut Queue) -> Option<(Meta, Buffer)>,
    ) -> Result<Option<(Meta, Buffer)>> {
        if let Some(code) = lock(&self.inbox).over() {
            return end_of(code);
        }
        let (attachment, id) = (&self.socket.attachment, self.socket.id);
        let mut taken = None;
        let take = |core: &mut Core| match attachment.pop(core, id, pop, |_, _| true, &mut taken)? {
            None if core.queue(id)?.has_rest => Ok(Some(())),
            None => Ok(None),
            found => {
                attachment.settle_watch(core, id)?;
                Ok(found)
            }
        };
        let dispatch = Core::dispatch_of_daemon;
        let found = attachment.spin(dispatch, Interest::Socket(id), until, take)?;
        attachment.settle_releases();
        found.ok_or(Error::TimedOut)?;
        match taken {
            Some((meta, buffer)) if meta.error != 0 => self.on_end(meta.error, buffer),
            Some(_) => Ok(taken),
            None => self.next(MESSAGE_LEN_MAX, |_| Patience::None, pop, |_, _| true),
        }
    }

    /// Sends as [`Connection::send`] if there is room; else [`Error::WouldBlock`].
    pub fn try_send(&self, bytes: &[u8]) -> Result<usize> {
        self.submit(self.cut(bytes), None, Patience::None)
    }

    /// Reads as [`Read::read`] if something waits; else [`Error::WouldBlock`].
    pub fn try_read(&self, out: &mut [u8]) -> Result<usize> {
        self.read_within(out, |_| Patience::None)
    }

    /// Whether what is sent goes by a direct channel: to a program of the same node, after some messages.
    pub fn is_direct(&self) -> Result<bool> {
        let mut core = self.socket.attachment.core()?;
        Ok(core.queue(self.socket.id)?.may_send().is_some())
    }

    /// The attachment, and the number of the socket.
    pub(crate) fn handle(&self) -> (&Arc<Attachment>, u32) {
        (&self.socket.attachment, self.socket.id)
    }

    /// The next message or chunk that is data; of a shared stream at most `len` bytes.
    pub(crate) fn next(
        &self,
        len: usize,
        patience: impl FnOnce(&Inbox) -> Patience,
        pop: fn(&mut Queue) -> Option<(Meta, Buffer)>,
        consumes: impl Fn(&Meta, &Buffer) -> bool,
    ) -> Result<Option<(Meta, Buffer)>> {
        let patience = {
            let inbox = lock(&self.inbox);
            if let Some(code) = inbox.over() {
                return end_of(code);
            }
            patience(&inbox)
        };
        let (attachment, id) = (&self.socket.attachment, self.socket.id);
        let mut taken = None;
        attachment.next(id, len, patience, pop, consumes, &mut taken)?;
        match taken {
            Some((meta, buffer)) if meta.error != 0 => self.on_end(meta.error, buffer),
            taken => Ok(taken),
        }
    }

    /// What was taken is the end of the connection.
    fn on_end<T>(&self, code: u8, buffer: Buffer) -> Result<Option<T>> {
        let (attachment, id) = (&self.socket.attachment, self.socket.id);
        attachment.give_back(buffer);
        lock(&self.inbox).end = Some(code);
        let mut core = attachment.core()?;
        core.queue(id)?.has_rest = true;
        end_of(code)
    }

    fn read_within(
        &self,
        out: &mut [u8],
        patience: impl FnOnce(&Inbox) -> Patience,
    ) -> Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let (partial, patience) = {
            let mut inbox = lock(&self.inbox);
            let partial = self.take_partial()?;
            inbox.readers += 1;
            (partial, patience(&inbox))
        };
        let was_partial = partial.is_some();
        let read = self.read_on(partial, patience, out);
        let mut inbox = lock(&self.inbox);
        inbox.readers -= 1;
        let (len, rest) = read?;
        if was_partial || rest.is_some() {
            let mut core = self.socket.attachment.core()?;
            core.set_partial(self.socket.id, rest)?;
        }
        self.socket.attachment.settle_releases();
        Ok(len)
    }

    fn take_partial(&self) -> Result<Option<Partial>> {
        let mut core = self.socket.attachment.core()?;
        Ok(core.queue(self.socket.id)?.partial.take())
    }

    /// Reads from a chunk that was read in part, or from the next one. Gives what is left of it too.
    fn read_on(
        &self,
        partial: Option<Partial>,
        patience: Patience,
        out: &mut [u8],
    ) -> Result<(usize, Option<Partial>)> {
        let (kind, room) = (self.kind, out.len());
        let takes_all = |meta: &Meta, buffer: &Buffer| {
            kind == ConnectionKind::Seqpacket || meta.error != 0 || buffer.len() <= room
        };
        let (buffer, start, consumed) = match partial {
            Some((buffer, start)) => (buffer, start, false),
            None => match self.next(room, |_| patience, Queue::pop, takes_all)? {
                Some((meta, buffer)) => {
                    let consumed = takes_all(&meta, &buffer);
                    (buffer, 0, consumed)
                }
                None => return Ok((0, None)),
            },
        };
        let rest = &buffer[start..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        if self.kind == ConnectionKind::Stream && len < rest.len() {
            return Ok((len, Some((buffer, start + len))));
        }
        let attachment = &self.socket.attachment;
        if !consumed {
            attachment.note_all_consumed([&buffer])?;
        }
        attachment.give_back(buffer);
        Ok((len, None))
    }

    /// Ends the connection in order: the peer reads what was sent, then the end. Nothing more can be sent or received.
    pub fn shutdown(&self) -> Result<()> {
        // The daemon sends the oldest message that was not read at all back to the peer, as the end.
        self.discard_partial()?;
        self.socket.call(Request::Shutdown)?;
        let (attachment, id) = (&self.socket.attachment, self.socket.id);
        lock(&self.inbox).shut_down = true;
        let unread = std::mem::take(&mut attachment.core()?.queue(id)?.messages);
        for (_, buffer) in unread {
            attachment.give_back(buffer);
        }
        Ok(())
    }

    /// Lets go of a chunk that was read in part.
    fn discard_partial(&self) -> Result<()> {
        let attachment = &self.socket.attachment;
        let Some((buffer, _)) = self.take_partial()? else {
            return Ok(());
        };
        attachment.note_all_consumed([&buffer])?;
        attachment.give_back(buffer);
        Ok(())
    }

    /// The socket at the other end.
    pub fn peer_addr(&self) -> Result<SocketAddress> {
        let [value, _] = self.socket.call(Request::GetPeer)?;
        Ok(address_of_value(value))
    }

    /// Address of this socket.
    pub fn local_addr(&self) -> Result<SocketAddress> {
        self.socket.local_addr()
    }

    /// How long reading waits at most; `None`, the default: as long as it takes.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        lock(&self.inbox).read_timeout = timeout;
    }

    /// How long sending waits at most; `None`, the default: as long as it takes.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        lock(&self.inbox).write_timeout = timeout;
    }

    /// Whether reading and sending give [`Error::WouldBlock`] instead of waiting.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        lock(&self.inbox).nonblocking = nonblocking;
    }

    /// Importance of what is sent from now on. Both ends begin with the client's.
    pub fn set_importance(&self, importance: Importance) -> Result<()> {
        self.set_option(option::IMPORTANCE, importance as u32)
    }

    /// Whether a stream sends every piece at once (true), or gathers small ones while the peer has not answered (false,
    /// the default).
    pub fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        self.set_option(option::NODELAY, nodelay.into())
    }

    /// Size of the receive buffer in bytes, as `SO_RCVBUF`: a 4096th of it is the window of blocks that the peer may
    /// send ahead.
    pub fn set_receive_buffer(&self, bytes: u32) -> Result<()> {
        self.socket.call(Request::SetReceiveBuffer { bytes })?;
        Ok(())
    }

    fn set_option(&self, option: u32, value: u32) -> Result<()> {
        self.socket.call(Request::SetOption { option, value })?;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Where this fails there is no daemon that would want the memory back.
        let _ = self.discard_partial();
    }
}

/// Errcode of an orderly end.
const SHUTDOWN: u8 = 5;

/// What the end of a connection is to its reader.
fn end_of<T>(code: u8) -> Result<Option<T>> {
    let errno = match code {
        SHUTDOWN => return Ok(None),
        PEER_SILENT => libc::ECONNABORTED,
        _ => libc::ECONNRESET,
    };
    Err(Error::from_result(-errno))
}

impl Read for &Connection {
    /// Reads bytes of a stream, or the next message of a SEQPACKET connection, of which what does not fit is lost. 0: the
    /// peer has ended the connection in order.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_within(out, Inbox::patience_to_read)?)
    }
}

impl Write for &Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.send(bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        (&*self).read(out)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
