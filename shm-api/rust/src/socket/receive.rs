//! Receiving (`docs/protocol/calls.md`, receiving).
//!
//! Messages are copied out under the attachment's lock, so that of several readers each gets whole messages, and the
//! bytes of a stream in order.

use xtipc_segment::{
    DeliveryFlags, DestinationName, Meta, PEER_SILENT, SendFlags, ServiceAddress, SocketKind,
};

use super::address::Name;
use super::control::ControlWriter;
use super::{ADDRESS_LEN, Errno, RawAddress, Result, Socket, is_connected_kind};
use crate::attachment::{Look, Patience};
use crate::buffer::Buffer;
use crate::core::{Core, Custody, Interest, Queue};
use crate::{Error, lock};

/// Errcode of an orderly end.
const SHUTDOWN: u8 = 5;
/// Types of ancillary data.
const ERRINFO: i32 = 1;
const RETDATA: i32 = 2;
const DESTNAME: i32 = 3;
/// Events of the topology service, and their length.
const PUBLISHED: u32 = 1;
const WITHDRAWN: u32 = 2;
const EVENT_LEN: usize = 48;

/// Where what is received goes, as in `struct msghdr`.
#[derive(Debug)]
pub struct ReceiveRoom<'a> {
    /// For the message.
    pub data: &'a mut [u8],
    /// For ancillary data, if there is a pointer to room for it.
    pub control: Option<&'a mut [u8]>,
}

/// What was received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Received {
    /// Bytes of the message.
    pub len: usize,
    /// Who sent it, in the first [`Received::name_len`] bytes; of a member of a group also its address in the group.
    pub name: [u8; 2 * ADDRESS_LEN],
    /// Bytes of addresses.
    pub name_len: usize,
    /// Bytes of ancillary data.
    pub control_len: usize,
    /// `MSG_TRUNC`, `MSG_CTRUNC`, `MSG_EOR` and, for the event that a member of the group joined or left, `MSG_OOB`.
    pub flags: i32,
}

/// How a receive goes on.
enum Step {
    /// It is done.
    Done(Result<()>),
    /// It needs a further message.
    More,
}

impl Socket {
    /// `recvmsg`, with `MSG_PEEK`, `MSG_WAITALL`, `MSG_DONTWAIT` and, for messages read in parts, `MSG_EOR`.
    pub fn receive(&self, room: ReceiveRoom<'_>, flags: i32) -> Result<Received> {
        if room.data.is_empty() {
            return Err(Errno(libc::EINVAL));
        }
        if self.is_fresh() {
            return Err(Errno(libc::ENOTCONN));
        }
        let settings = *lock(&self.settings);
        let patience = if self.waits(flags) {
            Patience::lasting(settings.receive_timeout).of_system_call()
        } else {
            Patience::None
        };
        let required = match self.kind {
            SocketKind::Stream if flags & libc::MSG_WAITALL != 0 => room.data.len(),
            SocketKind::Stream => room.data.len().min(settings.receive_low_water as usize),
            _ => 1,
        };
        let mut receiving = Receiving {
            socket: self,
            room,
            flags,
            required,
            waits: self.waits(flags),
            received: Received::default(),
        };
        let own = self
            .attachment
            .wait(patience, |core| receiving.look(core))
            .transpose();
        let waited = own.unwrap_or_else(|| receiving.ask(patience));
        let received = receiving.received;
        self.attachment.settle_releases();
        match waited {
            Ok(result) => result.map(|()| received),
            // The time is over, or the node is gone: what was read before counts.
            Err(_) if received.len > 0 => Ok(received),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets go of a message that was read in part: it counts as read.
    pub(super) fn discard_read_part(&self) -> Result<()> {
        let part = {
            let mut core = self.attachment.core()?;
            let queue = core.queue(self.id)?;
            match std::mem::take(&mut queue.read) {
                0 => None,
                _ => queue.pop(),
            }
        };
        if let Some((_, buffer)) = part {
            self.attachment.note_all_consumed([&buffer])?;
            self.attachment.give_back(buffer);
        }
        Ok(())
    }
}

/// A receive under way.
struct Receiving<'a> {
    socket: &'a Socket,
    room: ReceiveRoom<'a>,
    flags: i32,
    /// Fewer bytes do not end the wait.
    required: usize,
    waits: bool,
    received: Received,
}

impl Receiving<'_> {
    /// Takes what there is, until it is enough. `None`: other processes use the socket, too, and the daemon is to be asked.
    fn look(&mut self, core: &mut Core) -> crate::Result<Look<Option<Result<()>>>> {
        let id = self.socket.id;
        loop {
            let queue = core.queue(id)?;
            match queue.custody {
                Custody::Own => {}
                Custody::InTransit => return Ok(Look::WaitFor(Interest::Socket(id))),
                Custody::Shared => return Ok(Look::Found(None)),
            }
            match std::mem::take(&mut queue.error) {
                0 => {}
                // Not lost, but for the next call.
                error if self.received.len > 0 => queue.error = error,
                error => return Ok(Look::Found(Some(Err(Errno(error))))),
            }
            if !queue.messages.is_empty() {
                match self.take(queue)? {
                    Step::Done(result) => {
                        self.socket.attachment.settle_watch(core, id)?;
                        return Ok(Look::Found(Some(result)));
                    }
                    Step::More => continue,
                }
            }
            if self.socket.attachment.settle_watch(core, id)? {
                continue;
            }
            if self.received.len >= self.required {
                return Ok(Look::Found(Some(Ok(()))));
            }
            if core.queue(id)?.shut_down && self.waits {
                return Ok(Look::Found(Some(match self.received.len {
                    0 => Err(Errno(libc::ENOTCONN)),
                    _ => Ok(()),
                })));
            }
            if !self.waits {
                self.socket.attachment.note_fruitless(core);
            }
            return Ok(Look::WaitFor(Interest::Socket(id)));
        }
    }

    /// Takes from the daemon what there is of a shared socket, until it is enough.
    fn ask(&mut self, patience: Patience) -> crate::Result<Result<()>> {
        let attachment = &self.socket.attachment;
        let mut how = SendFlags::empty();
        how.set(SendFlags::PEEK, self.flags & libc::MSG_PEEK != 0);
        how.set(SendFlags::PARTS, self.flags & libc::MSG_EOR != 0);
        loop {
            let enough = self.received.len >= self.required;
            let patience = if enough { Patience::None } else { patience };
            let len = self.room.data.len() - self.received.len;
            let asked = attachment.ask_for_message(self.socket.id, len, how, patience);
            let asked = match asked {
                Ok(Some(asked)) => asked,
                Ok(None) => continue,
                Err(Error::WouldBlock) if enough => return Ok(Ok(())),
                Err(error) => return Err(error),
            };
            let mut queue = Queue::of(asked.meta, asked.buffer);
            let error = std::mem::take(&mut attachment.core()?.queue(self.socket.id)?.error);
            let step = match (error, self.received.len) {
                (0, _) | (_, 1..) => self.take(&mut queue)?,
                (error, 0) => Step::Done(Err(Errno(error))),
            };
            if !asked.whole {
                self.received.flags &= !libc::MSG_EOR;
            }
            // A part that stays there, the end of a connection, or what was only looked at.
            for (_, buffer) in queue.messages {
                attachment.give_back(buffer);
            }
            if let Step::Done(result) = step {
                return Ok(result);
            }
        }
    }

    /// Reads the first message, as far as there is room.
    fn take(&mut self, queue: &mut Queue) -> crate::Result<Step> {
        let Some((meta, buffer)) = queue.messages.front_mut() else {
            return Ok(Step::More);
        };
        buffer.make_own();
        if meta.error == PEER_SILENT {
            // It was told as an error of the socket.
            self.drop_first(queue)?;
            return Ok(Step::More);
        }
        let is_stream = self.socket.kind == SocketKind::Stream;
        if self.received.len == 0 {
            self.describe(meta, buffer);
        }
        if meta.error != 0 {
            return self.take_end(meta.error, queue);
        }
        let events = DeliveryFlags::JOINED | DeliveryFlags::LEFT;
        if meta.flags.intersects(events) {
            let event = *meta;
            return self.take_event(&event, queue);
        }
        let rest = &buffer[queue.read.min(buffer.len())..];
        let room = &mut self.room.data[self.received.len..];
        let len = rest.len().min(room.len());
        room[..len].copy_from_slice(&rest[..len]);
        self.received.len += len;
        let is_whole = len == rest.len();
        let peeks = self.flags & libc::MSG_PEEK != 0;
        if is_stream {
            if !is_whole {
                queue.read += if peeks { 0 } else { len };
                return Ok(Step::Done(Ok(())));
            }
            if peeks {
                return Ok(Step::Done(Ok(())));
            }
            self.drop_first(queue)?;
            let full = self.received.len == self.room.data.len();
            return Ok(if full { Step::Done(Ok(())) } else { Step::More });
        }
        let in_parts = self.flags & libc::MSG_EOR != 0;
        match (is_whole, in_parts) {
            (true, true) => self.received.flags |= libc::MSG_EOR,
            (true, false) => {}
            (false, true) => {
                queue.read += if peeks { 0 } else { len };
                return Ok(Step::Done(Ok(())));
            }
            (false, false) => self.received.flags |= libc::MSG_TRUNC,
        }
        if peeks {
            // As in Linux, what looks at a part without MSG_EOR begins anew.
            queue.read = 0;
        } else {
            self.drop_first(queue)?;
        }
        Ok(Step::Done(Ok(())))
    }

    /// The end of a connection, or a message of ours that came back.
    fn take_end(&mut self, code: u8, queue: &mut Queue) -> crate::Result<Step> {
        let connected = is_connected_kind(self.socket.kind);
        if self.received.len > 0 {
            // For the next call.
            return Ok(Step::Done(Ok(())));
        }
        if connected && code != SHUTDOWN && self.room.control.is_none() {
            return Ok(Step::Done(Err(Errno(libc::ECONNRESET))));
        }
        if self.flags & libc::MSG_PEEK == 0 {
            self.drop_first(queue)?;
        }
        Ok(Step::Done(Ok(())))
    }

    /// A member of the group joined or left. As in Linux the event of the topology service is there as well, though
    /// no bytes count as received.
    fn take_event(&mut self, meta: &Meta, queue: &mut Queue) -> crate::Result<Step> {
        let bytes = member_event(meta);
        let len = bytes.len().min(self.room.data.len());
        self.room.data[..len].copy_from_slice(&bytes[..len]);
        if len < bytes.len() {
            self.received.flags |= libc::MSG_TRUNC;
        }
        self.received.flags |= libc::MSG_OOB;
        if meta.flags.contains(DeliveryFlags::LEFT) {
            self.received.flags |= libc::MSG_EOR;
        }
        if self.flags & libc::MSG_PEEK == 0 {
            self.drop_first(queue)?;
        }
        Ok(Step::Done(Ok(())))
    }

    /// A message was read to its end. The daemon is told at once: the peer may need the room for what is waited for.
    fn drop_first(&mut self, queue: &mut Queue) -> crate::Result<()> {
        queue.read = 0;
        let attachment = &self.socket.attachment;
        if let Some((_, buffer)) = queue.pop() {
            attachment.note_all_consumed([&buffer])?;
            attachment.give_back(buffer);
        }
        Ok(())
    }

    /// Notes the source and writes the ancillary data of a message.
    fn describe(&mut self, meta: &Meta, buffer: &Buffer) {
        let (source, member) = self.received.name.split_at_mut(ADDRESS_LEN);
        source.copy_from_slice(&RawAddress::of_socket(meta.source).to_bytes());
        self.received.name_len = ADDRESS_LEN;
        if let Some(address) = address_in_group(meta) {
            let name = Name::Service { address, domain: 0 };
            member.copy_from_slice(&RawAddress { name, scope: 0 }.to_bytes());
            self.received.name_len += ADDRESS_LEN;
        }
        let room = self.room.control.as_deref_mut().unwrap_or_default();
        if room.is_empty() {
            return;
        }
        let mut control = ControlWriter::new(room);
        if meta.error != 0 {
            control.put_words(ERRINFO, [meta.error.into(), buffer.len() as u32]);
            if !buffer.is_empty() {
                control.put(RETDATA, buffer);
            }
        }
        let name = match meta.destination {
            _ if meta.error != 0 && buffer.is_empty() => None,
            _ if address_in_group(meta).is_some() => None,
            DestinationName::None => None,
            DestinationName::Service(name) => Some([name.type_, name.instance, name.instance]),
            DestinationName::Multicast(range) => Some([range.type_, range.lower, range.upper]),
        };
        if let Some(name) = name {
            control.put_words(DESTNAME, name);
        }
        self.received.control_len = control.used();
        if control.is_cut {
            self.received.flags |= libc::MSG_CTRUNC;
        }
    }
}

/// The address in its group of the member that something comes from.
fn address_in_group(meta: &Meta) -> Option<ServiceAddress> {
    match meta.destination {
        DestinationName::Service(address) if meta.flags.contains(DeliveryFlags::FROM_MEMBER) => {
            Some(address)
        }
        _ => None,
    }
}

/// The event of the topology service that tells of a member: what happened, the instance twice, the socket, and the
/// subscription that stands for membership.
fn member_event(meta: &Meta) -> [u8; EVENT_LEN] {
    let left = meta.flags.contains(DeliveryFlags::LEFT);
    let ServiceAddress { type_, instance } = address_in_group(meta).unwrap_or_default();
    let (port, node) = (meta.source.port, meta.source.node);
    let what = if left { WITHDRAWN } else { PUBLISHED };
    let words = [
        what, instance, instance, port, node, type_, instance, instance,
    ];
    let mut bytes = [0; EVENT_LEN];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}
