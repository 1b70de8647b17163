//! Datagram sockets: RDM and DGRAM. Semantics as in `docs/protocol/sockets.md`.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use xtipc_segment::channel::DirectBuffer;
use xtipc_segment::{
    Destination, Importance, MESSAGE_LEN_MAX, Request, SendFlags, ServiceRange, SocketAddress,
    SocketKind, address_of_value, option,
};

use crate::attachment::{Attachment, Look, Patience};
use crate::buffer::Buffer;
use crate::core::{Custody, Interest};
use crate::sharing::ReadPart;
use crate::watch::Descriptor;
use crate::{Error, Message, Node, Result, Scope, SharedHandle, lock};

/// First service type that can be bound.
const FIRST_USER_TYPE: u32 = 64;

/// How a multicast reaches its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MulticastMethod {
    /// One packet for all, sent to everybody.
    Broadcast,
    /// A copy for each node that has a receiver.
    Replicast,
}

/// A datagram socket. Closed on drop; messages it did not receive are then rejected to their senders.
#[derive(Debug)]
pub struct Datagram {
    attachment: Arc<Attachment>,
    id: u32,
    nonblocking: AtomicBool,
    read_timeout: Mutex<Option<Duration>>,
    write_timeout: Mutex<Option<Duration>>,
    descriptor: Descriptor,
}

impl Datagram {
    /// Opens a socket on a node.
    pub fn open(node: &Node, kind: SocketKind) -> Result<Self> {
        let attachment = Arc::clone(&node.attachment);
        let [id, _] = attachment
            .call(0, Request::OpenSocket { kind })?
            .map_err(Error::from_result)?;
        Ok(Self::of(attachment, id as u32))
    }

    /// A handle of the socket, for other processes to use it too. The daemon then keeps what arrives, and each receive
    /// asks it.
    pub fn share(&self) -> Result<SharedHandle> {
        self.attachment.share(self.id, || Ok(ReadPart::default()))
    }

    /// Uses the socket of a handle, together with the others who do.
    pub fn adopt(node: &Node, handle: &SharedHandle) -> Result<Self> {
        let attachment = Arc::clone(&node.attachment);
        let adopted = attachment.adopt(handle.as_fd())?;
        let socket = Self::of(attachment, adopted.id);
        match adopted.kind {
            SocketKind::Rdm | SocketKind::Dgram => Ok(socket),
            SocketKind::Seqpacket | SocketKind::Stream => {
                Err(Error::from_result(-libc::EPROTOTYPE))
            }
        }
    }

    fn of(attachment: Arc<Attachment>, id: u32) -> Self {
        Self {
            attachment,
            id,
            nonblocking: AtomicBool::new(false),
            read_timeout: Mutex::new(None),
            write_timeout: Mutex::new(None),
            descriptor: Descriptor::default(),
        }
    }

    /// Binds to a service address or range: messages sent there may come here. A socket can have several bindings.
    pub fn bind(&self, range: impl Into<ServiceRange>, scope: Scope) -> Result<()> {
        let range = check_bindable(range.into())?;
        self.call(Request::Bind { range, scope })?
            .map_err(|result| match -result {
                libc::EINVAL => Error::TooManyBindings(range),
                _ => Error::from_result(result),
            })?;
        Ok(())
    }

    /// Takes a binding back, given exactly as it was made.
    pub fn unbind(&self, range: impl Into<ServiceRange>, scope: Scope) -> Result<()> {
        let range = check_bindable(range.into())?;
        self.call(Request::Unbind { range, scope })?
            .map_err(|result| match -result {
                libc::EINVAL => Error::NotBound(range),
                _ => Error::from_result(result),
            })?;
        Ok(())
    }

    /// Takes all bindings back.
    pub fn unbind_all(&self) -> Result<()> {
        self.call(Request::UnbindAll)?.map_err(Error::from_result)?;
        Ok(())
    }

    /// Sets the default destination of [`Datagram::send`]. Does not filter what is received.
    pub fn connect(&self, destination: impl Into<Destination>) -> Result<()> {
        let destination = Some(check_destination(destination.into())?);
        let flags = SendFlags::empty();
        self.call(Request::Connect { flags, destination })?
            .map_err(Error::from_result)?;
        Ok(())
    }

    /// Clears the default destination.
    pub fn disconnect(&self) -> Result<()> {
        let none = Request::Connect {
            flags: SendFlags::empty(),
            destination: None,
        };
        self.call(none)?.map_err(Error::from_result)?;
        Ok(())
    }

    /// Sends a message. When this returns the node has taken it, or the error says why not. Rejection by the receiver
    /// is no error here: see [`Datagram::set_dest_droppable`].
    ///
    /// Waits while the destination is congested, as [`Datagram::set_write_timeout`] and
    /// [`Datagram::set_nonblocking`] say.
    pub fn send_to(&self, payload: &[u8], destination: impl Into<Destination>) -> Result<()> {
        self.send_message(payload, Some(check_destination(destination.into())?))
    }

    /// Sends a message to the default destination.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        self.send_message(payload, None)
    }

    /// Sends a message without waiting for the node to take it: for many messages in a row. Waits only for room in
    /// shared memory. What fails later is reported by [`Datagram::flush`]. Messages of one socket stay in order.
    pub fn post_to(&self, payload: &[u8], destination: impl Into<Destination>) -> Result<()> {
        check_len(payload.len())?;
        let destination = check_destination(destination.into())?;
        self.attachment
            .post(self.id, payload, destination, self.write_patience())
    }

    /// Posts messages to one destination until there is no more room in shared memory; gives how many it took. Waits for
    /// room for the first, as [`Datagram::post_to`] does. One wake of the node at most.
    pub fn post_many<P: AsRef<[u8]>>(
        &self,
        payloads: &[P],
        destination: impl Into<Destination>,
    ) -> Result<usize> {
        for payload in payloads {
            check_len(payload.as_ref().len())?;
        }
        let destination = check_destination(destination.into())?;
        self.attachment
            .post_many(self.id, payloads, destination, self.write_patience())
    }

    /// Waits until the node has taken all messages posted on this socket, and reports the first failure since the last
    /// flush.
    pub fn flush(&self) -> Result<()> {
        let id = self.id;
        let patience = Patience::lasting(*lock(&self.write_timeout));
        let failed = self.attachment.wait(patience, |core| {
            let queue = core.queue(id)?;
            Ok(if queue.posts == 0 {
                Look::Found(queue.post_error.take())
            } else {
                Look::WaitFor(Interest::Posts(id))
            })
        })?;
        match failed {
            Some((result, destination)) => Err(send_error(result, Some(destination))),
            None => Ok(()),
        }
    }

    /// Receives the next message; waits for it as [`Datagram::set_read_timeout`] and [`Datagram::set_nonblocking`]
    /// say. Also returned are own messages that were rejected: see [`Message::error`].
    pub fn recv(&self) -> Result<Message> {
        if self.nonblocking.load(Ordering::Relaxed) {
            return self.try_recv();
        }
        self.receive(Patience::lasting(*lock(&self.read_timeout)))
    }

    /// Appends messages to `messages`, as many as wait but at most `max`; gives how many. Waits for the first as
    /// [`Datagram::recv`] does.
    pub fn recv_many(&self, messages: &mut Vec<Message>, max: usize) -> Result<usize> {
        let patience = if self.nonblocking.load(Ordering::Relaxed) {
            Patience::None
        } else {
            Patience::lasting(*lock(&self.read_timeout))
        };
        let before = messages.len();
        let attachment = &self.attachment;
        let shared = attachment.take_after(
            |_| (),
            self.id,
            patience,
            |core, id| {
                let at_once = core.take_at_once(id, max, |meta, buffer| {
                    messages.push(Message::new(attachment, meta, buffer));
                });
                if at_once > 0 {
                    return Ok(Some(false));
                }
                core.dispatch_of_daemon();
                let queue = core.queue(id)?;
                match queue.custody {
                    Custody::Own => {}
                    Custody::InTransit => return Ok(None),
                    Custody::Shared => return Ok(Some(true)),
                }
                let count = queue.messages.len().min(max);
                let taken = queue.messages.range(..count).map(|(_, buffer)| buffer);
                DirectBuffer::all_consumed(taken.filter_map(Buffer::as_direct));
                let taken = queue.messages.drain(..count);
                attachment.consume_all(taken, |meta, buffer| {
                    messages.push(Message::new(attachment, meta, buffer));
                })?;
                Ok((count > 0 || max == 0).then_some(false))
            },
        )?;
        if shared && max > 0 {
            // The daemon is asked for one at a time.
            messages.push(self.receive(patience)?);
        }
        Ok(messages.len() - before)
    }

    /// Receives the next message, spinning for it until then; [`Error::TimedOut`] if none came. Never sleeps: for programs
    /// with a processor of their own.
    pub fn recv_spin(&self, until: Instant) -> Result<Message> {
        self.attachment.receive_spinning(self.id, until)
    }

    /// Receives the next message, waiting at most so long.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message> {
        self.receive(Patience::lasting(Some(timeout)))
    }

    /// Receives the next message if one is there; else [`Error::WouldBlock`].
    pub fn try_recv(&self) -> Result<Message> {
        self.receive(Patience::None)
    }

    /// Whether operations that would wait give [`Error::WouldBlock`] instead.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    /// How long [`Datagram::recv`] waits at most; `None`, the default: as long as it takes.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        *lock(&self.read_timeout) = timeout;
    }

    /// How long a send waits at most; `None`, the default: as long as it takes. A message not sent in time is taken
    /// back.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        *lock(&self.write_timeout) = timeout;
    }

    /// Importance of the messages sent from now on. Default: low.
    pub fn set_importance(&self, importance: Importance) -> Result<()> {
        self.set_option(option::IMPORTANCE, importance as u32)
    }

    /// Whether messages sent from now on are dropped (true, the default) or come back (false) when they are rejected.
    pub fn set_dest_droppable(&self, droppable: bool) -> Result<()> {
        self.set_option(option::DEST_DROPPABLE, droppable.into())
    }

    /// Whether messages sent from now on are marked as droppable by a congested sender.
    pub fn set_src_droppable(&self, droppable: bool) -> Result<()> {
        self.set_option(option::SRC_DROPPABLE, droppable.into())
    }

    /// How multicasts sent from now on travel. Until it is set the node decides, by the number of receiving nodes.
    pub fn set_multicast_method(&self, method: MulticastMethod) -> Result<()> {
        self.set_option(
            match method {
                MulticastMethod::Broadcast => option::MCAST_BROADCAST,
                MulticastMethod::Replicast => option::MCAST_REPLICAST,
            },
            1,
        )
    }

    /// Size of the receive buffer in bytes, as `SO_RCVBUF`. Messages beyond it are rejected with
    /// [`crate::Rejection::Overload`].
    pub fn set_receive_buffer(&self, bytes: u32) -> Result<()> {
        self.call(Request::SetReceiveBuffer { bytes })?
            .map_err(Error::from_result)?;
        Ok(())
    }

    /// Address of this socket. The node is 0 as long as the node has no address.
    pub fn local_addr(&self) -> Result<SocketAddress> {
        let [value, _] = self.call(Request::GetName)?.map_err(Error::from_result)?;
        Ok(address_of_value(value))
    }

    /// A descriptor that is readable when messages wait or the node is gone, for poll, epoll and event loops. It may be
    /// readable without a message once in a while: use it with [`Datagram::try_recv`]. Only to be polled.
    pub fn as_fd(&self) -> Result<BorrowedFd<'_>> {
        self.descriptor.of(&self.attachment, self.id)
    }

    /// The attachment, and the number of the socket.
    pub(crate) fn handle(&self) -> (&Arc<Attachment>, u32) {
        (&self.attachment, self.id)
    }

    pub(crate) fn call(&self, request: Request) -> Result<std::result::Result<[u64; 2], i32>> {
        self.attachment.call(self.id, request)
    }

    fn set_option(&self, option: u32, value: u32) -> Result<()> {
        self.call(Request::SetOption { option, value })?
            .map_err(Error::from_result)?;
        Ok(())
    }

    fn write_patience(&self) -> Patience {
        if self.nonblocking.load(Ordering::Relaxed) {
            Patience::None
        } else {
            Patience::lasting(*lock(&self.write_timeout))
        }
    }

    pub(crate) fn send_message(
        &self,
        payload: &[u8],
        destination: Option<Destination>,
    ) -> Result<()> {
        check_len(payload.len())?;
        let patience = self.write_patience();
        let sent = self
            .attachment
            .send_datagram(self.id, payload, destination, patience);
        match sent? {
            0.. => Ok(()),
            result => Err(send_error(result, destination)),
        }
    }

    fn receive(&self, patience: Patience) -> Result<Message> {
        self.attachment.receive(self.id, patience)
    }
}

impl Drop for Datagram {
    fn drop(&mut self) {
        self.attachment.close(self.id);
    }
}

/// That a message of this length can be sent.
pub(crate) fn check_len(len: usize) -> Result<()> {
    if len > MESSAGE_LEN_MAX {
        return Err(Error::MessageTooLong {
            len,
            max: MESSAGE_LEN_MAX,
        });
    }
    Ok(())
}

fn check_range(range: ServiceRange) -> Result<ServiceRange> {
    if range.lower > range.upper {
        return Err(Error::InvalidRange(range));
    }
    Ok(range)
}

pub(crate) fn check_bindable(range: ServiceRange) -> Result<ServiceRange> {
    let range = check_range(range)?;
    if range.type_ < FIRST_USER_TYPE {
        return Err(Error::ReservedType { type_: range.type_ });
    }
    Ok(range)
}

fn check_destination(destination: Destination) -> Result<Destination> {
    if let Destination::Multicast(range) = destination {
        check_range(range)?;
    }
    Ok(destination)
}

fn send_error(result: i32, destination: Option<Destination>) -> Error {
    match (-result, destination) {
        (libc::EHOSTUNREACH, Some(destination)) => Error::Unreachable { destination },
        (libc::EHOSTUNREACH, None) => Error::DefaultUnreachable,
        _ => Error::from_result(result),
    }
}
