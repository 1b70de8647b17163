//! Sockets that several processes use (`docs/architecture.md`, the application boundary).
//!
//! The queue of a shared socket is here, not in a segment: each receive is a request, and receivers are served in the
//! order in which they asked. What a holder was given and has not consumed when it lets go of the socket, or dies, is the
//! next message again, so the others miss nothing. For that to keep the order of a connection, its next message is not
//! handed out before the one before was consumed. The end of a connection stays in the queue: every holder sees it.
//!
//! Members of groups cannot be shared. The socket is closed when nobody holds it and no handle is open. One with a
//! descriptor lives as long as that, and is shared, too, when its process lets go of it and a copy of the descriptor is
//! open elsewhere.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hashbrown::HashMap;
use rustix::net::RecvFlags;
use xtipc_protocol::addr::PortId;
use xtipc_protocol::connection::Role as ConnectionRole;
use xtipc_protocol::engine::{Ending, Engine};
use xtipc_protocol::host::{Incoming, Payload};
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::errcode;
use xtipc_segment::attach::{Message, send_message};
use xtipc_segment::daemon::DeliverError;
use xtipc_segment::{ChannelNotice, Request, SendFlags, Submission};

use super::application::{Application, Awaited, Role, Socket, incoming_of_end, note_consumed};
use super::applications::{Applications, Slot};
use super::channels;
use super::connections::hold;
use super::handles::{Handles, Purpose};
use super::host::NodeHost;
use super::requests::{self, Outcome, SOCKETS_MAX};
use super::{Failure, Source, Worker};
use crate::wait::Interest;

/// A message that nobody has taken.
struct Waiting {
    about: Incoming,
    bytes: Vec<u8>,
    /// When it came.
    at_ns: u64,
    /// So many bytes of it were taken, of a stream.
    start: usize,
}

/// A holder that waits for a message; the request is held by its application.
struct Receiver {
    slot: Slot,
    tag: u64,
    len: usize,
    flags: SendFlags,
}

/// A socket that several processes use.
struct Shared {
    kind: SocketKind,
    holders: Vec<Slot>,
    /// Handles that are open somewhere.
    handles: usize,
    queue: VecDeque<Waiting>,
    receivers: VecDeque<Receiver>,
    /// Who has a message of the connection and has not consumed it.
    reading: Option<Slot>,
    /// As whoever shared it had it, for who uses it when nobody else does.
    settings: Socket,
}

/// All shared sockets.
#[derive(Default)]
pub(super) struct SharedSockets {
    sockets: HashMap<PortId, Shared>,
    pub(super) handles: Handles,
    /// Sockets with a message for a holder whose memory is full.
    stalled: Vec<PortId>,
}

/// What handing a message to a receiver came to.
enum Handed {
    Over,
    NoRoom,
}

impl SharedSockets {
    /// Those who use a socket; `None` if it is not shared.
    pub(super) fn holders(&self, port: PortId) -> Option<&[Slot]> {
        self.sockets.get(&port).map(|shared| &shared.holders[..])
    }

    /// A message of a shared socket waits to be asked for.
    pub(super) fn is_readable(&self, port: PortId) -> bool {
        let shared = self.sockets.get(&port);
        shared.is_some_and(|shared| !shared.queue.is_empty())
    }

    /// A message waits for room in the memory of some holder.
    pub(super) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }
}

impl Applications {
    /// Keeps a message for whoever asks for it. False: the socket is not shared.
    pub(super) fn deliver_shared<P: Payload + ?Sized>(
        &mut self,
        port: PortId,
        about: &Incoming,
        payload: &P,
    ) -> bool {
        let at_ns = self.round_ns;
        let Some(shared) = self.shared.sockets.get_mut(&port) else {
            return false;
        };
        let mut bytes = vec![0; payload.len()];
        payload.copy_to(0, &mut bytes);
        shared.queue.push_back(Waiting {
            about: *about,
            bytes,
            at_ns,
            start: 0,
        });
        self.hand_out(port);
        self.shared.handles.announce(port);
        true
    }

    /// Gives receivers what waits, as far as there is any, and room.
    fn hand_out(&mut self, port: PortId) {
        let Some(mut shared) = self.shared.sockets.remove(&port) else {
            return;
        };
        let mut passed_over = 0;
        while !shared.queue.is_empty()
            && shared.reading.is_none()
            && let Some(receiver) = shared.receivers.remove(passed_over)
        {
            let Some(application) = self.get_mut(receiver.slot) else {
                continue;
            };
            match shared.hand_to(port, &receiver, application) {
                Handed::Over => {}
                Handed::NoRoom => {
                    shared.receivers.insert(passed_over, receiver);
                    passed_over += 1;
                }
            }
        }
        let waits_for_reader = shared.reading.is_some() && !shared.receivers.is_empty();
        if (passed_over > 0 || waits_for_reader) && !self.shared.stalled.contains(&port) {
            self.shared.stalled.push(port);
        }
        self.shared.sockets.insert(port, shared);
    }

    /// Tries again what found no room.
    pub(super) fn hand_out_stalled(&mut self) {
        for port in std::mem::take(&mut self.shared.stalled) {
            self.hand_out(port);
        }
    }

    /// What an application has read of shared connections lets others go on.
    pub(super) fn note_awaited_reads(&mut self, slot: Slot) {
        while let Some(application) = self.get_mut(slot)
            && let Some(port) = application.awaited_reads.pop()
        {
            if let Some(shared) = self.shared.sockets.get_mut(&port) {
                shared.reading.take_if(|reader| *reader == slot);
            }
            self.hand_out(port);
        }
    }

    /// Moves the queue of a socket here and makes a handle for other processes: its index, and the end for them. A socket
    /// with a descriptor needs no other handle.
    fn share(
        &mut self,
        engine: &mut Engine,
        slot: Slot,
        port: PortId,
        read: usize,
    ) -> Result<Option<(usize, OwnedFd)>, i32> {
        let application = self.get_mut(slot).ok_or(libc::EBADF)?;
        let socket = application.sockets.get(&port).ok_or(libc::EBADF)?;
        if socket.role == Role::Subscriber {
            return Err(libc::EOPNOTSUPP);
        }
        if engine.port(port).ok_or(libc::EBADF)?.group.is_some() {
            return Err(libc::EOPNOTSUPP);
        }
        let handles = &mut self.shared.handles;
        let handle = match handles.has_descriptor(port) {
            true => None,
            false => Some(handles.add(port, Purpose::Right)?),
        };
        if !self.shared.sockets.contains_key(&port) {
            self.make_shared(engine, slot, port, read);
        }
        if handle.is_some()
            && let Some(shared) = self.shared.sockets.get_mut(&port)
        {
            shared.handles += 1;
        }
        Ok(handle)
    }

    /// The process that has a socket may let go of it while a copy of its descriptor is open elsewhere: who has that can
    /// use it then.
    pub(super) fn leave_to_others(&mut self, engine: &mut Engine, slot: Slot, port: PortId) {
        let in_group = engine.port(port).is_none_or(|about| about.group.is_some());
        if !in_group
            && !self.shared.sockets.contains_key(&port)
            && self.shared.handles.is_described(port)
        {
            self.make_shared(engine, slot, port, 0);
        }
    }

    /// Moves the queue of a socket here; of its first message so much was read.
    fn make_shared(&mut self, engine: &mut Engine, slot: Slot, port: PortId, read: usize) {
        let Some(kind) = engine.port(port).map(|about| about.kind) else {
            return;
        };
        channels::end_all(self, port, ChannelNotice::Left);
        let mut queue = self.take_back(engine, slot, port);
        if let Some(first) = queue.front_mut() {
            first.start = read.min(first.bytes.len());
        }
        let mut settings = Socket::default();
        if let Some(application) = self.get_mut(slot) {
            application.side.unwatch(port.0);
            if let Some(socket) = application.sockets.get(&port) {
                settings = *socket;
            }
        }
        let shared = Shared {
            kind,
            holders: vec![slot],
            handles: self.shared.handles.has_descriptor(port).into(),
            queue,
            receivers: VecDeque::new(),
            reading: None,
            settings,
        };
        self.shared.sockets.insert(port, shared);
        // From now on any process may wait for it, also one without the library.
        let _ = self.shared.handles.arm(port);
    }

    /// Takes what a holder was given of a socket and has not consumed.
    fn take_back(&mut self, engine: &mut Engine, slot: Slot, port: PortId) -> VecDeque<Waiting> {
        let mut queue = VecDeque::new();
        if let Some(application) = self.get_mut(slot) {
            application.take_unread(
                Some(port),
                |consumed| note_consumed(engine, consumed),
                |_, about, bytes, at_ns| {
                    queue.push_back(Waiting {
                        about: *about,
                        bytes: bytes.to_vec(),
                        at_ns,
                        start: 0,
                    });
                },
            );
        }
        queue
    }

    /// Lets a process use the socket of a handle.
    fn adopt(&mut self, slot: Slot, handle: BorrowedFd<'_>) -> Result<(PortId, SocketKind), i32> {
        let sockets = self.get(slot).map_or(0, |a| a.sockets.len());
        if sockets >= SOCKETS_MAX {
            return Err(libc::EMFILE);
        }
        let port = self.shared.handles.find(handle)?;
        if self.owner(port) == Some(slot) && !self.shared.sockets.contains_key(&port) {
            return Err(libc::EEXIST);
        }
        let shared = self.shared.sockets.get_mut(&port).ok_or(libc::EBUSY)?;
        if shared.holders.contains(&slot) {
            return Err(libc::EEXIST);
        }
        let (kind, first) = (shared.kind, shared.holders.first().copied());
        shared.holders.push(slot);
        let settings = shared.settings;
        let of_first = first.and_then(|first| self.get(first)?.sockets.get(&port).copied());
        let socket = of_first.unwrap_or(settings);
        if let Some(application) = self.get_mut(slot) {
            application.sockets.insert(port, socket);
        }
        if first.is_none() {
            self.own(port, slot);
        }
        Ok((port, kind))
    }
}

impl Shared {
    /// Gives the first message, or what a receiver takes of it.
    fn hand_to(
        &mut self,
        port: PortId,
        receiver: &Receiver,
        application: &mut Application,
    ) -> Handed {
        let Some(first) = self.queue.front_mut() else {
            return Handed::NoRoom;
        };
        let ends = first.about.errcode != errcode::OK as u8 && self.kind.is_connected();
        let rest = &first.bytes[first.start..];
        let in_parts = self.kind == SocketKind::Stream || receiver.flags.contains(SendFlags::PARTS);
        let len = match in_parts && !ends {
            true => rest.len().min(receiver.len),
            false => rest.len(),
        };
        let whole = len == rest.len();
        let peeks = receiver.flags.contains(SendFlags::PEEK);
        let about = Incoming {
            cost: if whole && !peeks { first.about.cost } else { 0 },
            returnable: first.about.returnable && whole && first.start == 0 && !peeks,
            ..first.about
        };
        let awaited = match self.kind.is_connected() && !ends && !peeks {
            true => Awaited::Yes,
            false => Awaited::No,
        };
        match application.hand_over(port, &about, &rest[..len], first.at_ns, awaited) {
            Ok(()) if awaited == Awaited::Yes => self.reading = Some(receiver.slot),
            Ok(()) => {}
            Err(DeliverError::NoRoom) => return Handed::NoRoom,
            Err(DeliverError::Violation(violation)) => {
                application.violation = Some(violation);
                return Handed::Over;
            }
        }
        match (peeks, ends, whole) {
            (true, ..) => {}
            (_, true, _) => first.about.cost = 0,
            (.., true) => drop(self.queue.pop_front()),
            (.., false) => first.start += len,
        }
        application
            .held
            .retain(|held| held.submission.tag != receiver.tag);
        let values = [len as u64, whole.into()];
        if let Err(violation) = application.side.complete(receiver.tag, 0, values) {
            application.violation = Some(violation);
        }
        Handed::Over
    }
}

/// Takes the next message of a shared socket for a holder, or waits for one.
pub(super) fn receive(
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
    submission: &Submission,
) -> Outcome {
    let Request::Receive { flags, len } = submission.request else {
        return Outcome::Done(Err(libc::EOPNOTSUPP));
    };
    let Some(shared) = host.applications.shared.sockets.get_mut(&port) else {
        return Outcome::Done(Err(libc::EINVAL));
    };
    let tag = submission.tag;
    shared.receivers.push_back(Receiver {
        slot,
        tag,
        len: (len as usize).max(1),
        flags,
    });
    hold(host, now, slot, port, submission);
    host.applications.hand_out(port);
    let waits = |a: &Application| a.held.iter().any(|held| held.submission.tag == tag);
    let still = host.applications.get(slot).is_some_and(waits);
    if still && flags.contains(SendFlags::DONTWAIT) {
        if let Some(application) = host.applications.get_mut(slot) {
            application.held.retain(|held| held.submission.tag != tag);
        }
        forget_receiver(&mut host.applications, slot, port, Some(tag));
        return Outcome::Done(Err(libc::EAGAIN));
    }
    Outcome::Held
}

/// A receive of a shared socket was given up; `None`: all of a holder.
pub(super) fn forget_receiver(
    applications: &mut Applications,
    slot: Slot,
    port: PortId,
    tag: Option<u64>,
) {
    if let Some(shared) = applications.shared.sockets.get_mut(&port) {
        let is_it = |r: &Receiver| r.slot == slot && tag.is_none_or(|tag| r.tag == tag);
        shared.receivers.retain(|receiver| !is_it(receiver));
    }
}

/// A process lets go of a socket. True: others still use it, and nothing more is to be done.
pub(super) fn release(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    slot: Slot,
    port: PortId,
) -> bool {
    let applications = &mut host.applications;
    if !applications.shared.sockets.contains_key(&port) {
        return false;
    }
    forget_receiver(applications, slot, port, None);
    let mut queue = applications.take_back(engine, slot, port);
    if let Some(shared) = applications.shared.sockets.get_mut(&port) {
        shared.holders.retain(|holder| *holder != slot);
        shared.reading.take_if(|reader| *reader == slot);
        // The end of the connection is in the queue already.
        if shared.kind.is_connected() {
            queue.retain(|waiting| waiting.about.errcode == errcode::OK as u8);
        }
        queue.append(&mut shared.queue);
        shared.queue = queue;
        if let Some(first) = shared.holders.first().copied() {
            applications.own(port, first);
        } else {
            applications.disown(port);
        }
    }
    if is_abandoned(applications, port) {
        end(engine, host, now, port, Ending::Close);
        host.applications.shared.sockets.remove(&port);
        return false;
    }
    applications.hand_out(port);
    true
}

fn is_abandoned(applications: &Applications, port: PortId) -> bool {
    let shared = applications.shared.sockets.get(&port);
    shared.is_some_and(|shared| shared.holders.is_empty() && shared.handles == 0)
}

/// Sends back what nobody will read of a shared socket. After a shutdown every holder hears of it.
pub(super) fn end(
    engine: &mut Engine,
    host: &mut NodeHost,
    now: Instant,
    port: PortId,
    ending: Ending,
) {
    let Some(shared) = host.applications.shared.sockets.get_mut(&port) else {
        return;
    };
    let connected = shared.kind.is_connected();
    for waiting in std::mem::take(&mut shared.queue) {
        if waiting.about.returnable && waiting.start == 0 {
            let message = (&waiting.about, &waiting.bytes[..]);
            engine.return_unread(now, port, ending, message, host);
        }
    }
    if connected && ending == Ending::Shutdown {
        let about = incoming_of_end(errcode::CONN_SHUTDOWN as u8);
        host.applications.deliver_shared(port, &about, &[][..]);
    }
}

impl Worker {
    /// An attached process says something about handles.
    pub(super) fn on_asked(
        &mut self,
        now: Instant,
        slot: Slot,
        message: Message,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let (answer, handle) = match (message, fds.pop()) {
            (Message::Share { socket, read }, None) => self.share(slot, socket, read)?,
            (Message::Describe { socket }, None) => self.describe(slot, socket)?,
            (Message::Adopt, Some(handle)) => (self.adopt(now, slot, &handle), None),
            (message, _) => {
                self.let_go(slot, now, &format!("said {message:?} out of turn"));
                return Ok(());
            }
        };
        let Some(application) = self.host.applications.get(slot) else {
            return Ok(());
        };
        let fds: Vec<_> = handle.iter().map(AsFd::as_fd).collect();
        if let Err(error) = send_message(application.connection.as_fd(), &answer, &fds) {
            self.let_go(slot, now, &error.to_string());
        }
        Ok(())
    }

    fn share(
        &mut self,
        slot: Slot,
        socket: u32,
        read: u32,
    ) -> Result<(Message, Option<OwnedFd>), Failure> {
        let applications = &mut self.host.applications;
        let shared = applications.share(&mut self.engine, slot, PortId(socket), read as usize);
        let (result, handle) = self.watch_handle(shared)?;
        Ok((Message::Shared { socket, result }, handle))
    }

    fn describe(&mut self, slot: Slot, socket: u32) -> Result<(Message, Option<OwnedFd>), Failure> {
        let applications = &mut self.host.applications;
        let port = PortId(socket);
        let described = match applications.get(slot).and_then(|a| a.sockets.get(&port)) {
            None => Err(libc::EBADF),
            Some(about) if about.role == Role::Subscriber => Err(libc::EOPNOTSUPP),
            Some(_) if applications.channels_of(port).next().is_some() => Err(libc::EBUSY),
            Some(_) if applications.shared.sockets.contains_key(&port) => Err(libc::EINVAL),
            Some(_) if applications.shared.handles.has_descriptor(port) => Err(libc::EEXIST),
            Some(_) => applications.shared.handles.add(port, Purpose::Descriptor),
        };
        let (result, descriptor) = self.watch_handle(described.map(Some))?;
        Ok((Message::Described { socket, result }, descriptor))
    }

    /// Waits for the last copy of a new handle to be closed. Gives the result for the process, and its end.
    fn watch_handle(
        &mut self,
        made: Result<Option<(usize, OwnedFd)>, i32>,
    ) -> Result<(i32, Option<OwnedFd>), Failure> {
        let (index, theirs) = match made {
            Ok(Some(made)) => made,
            Ok(None) => return Ok((0, None)),
            Err(errno) => return Ok((-errno, None)),
        };
        if let Some(end) = self.host.applications.shared.handles.end(index) {
            let token = Source::Handle(index).token(0);
            self.waiter.add(end, Interest::HangUp, token)?;
        }
        Ok((0, Some(theirs)))
    }

    fn adopt(&mut self, now: Instant, slot: Slot, handle: &OwnedFd) -> Message {
        let mut adopted = self.host.applications.adopt(slot, handle.as_fd());
        if adopted == Err(libc::EBUSY)
            && let Ok(port) = self.host.applications.shared.handles.find(handle.as_fd())
            && let Some(owner) = self.host.applications.owner(port)
            && self.has_hung_up(owner)
        {
            // A process that has become another program, which is quicker than the news of that.
            self.let_go(owner, now, "closed its connection");
            adopted = self.host.applications.adopt(slot, handle.as_fd());
        }
        let (port, kind) = match adopted {
            Ok(adopted) => adopted,
            Err(errno) => {
                return Message::Adopted {
                    result: -errno,
                    socket: 0,
                    kind: 0,
                    listens: 0,
                };
            }
        };
        let role = self.engine.port(port).map(|port| &port.role);
        Message::Adopted {
            result: 0,
            socket: port.0,
            kind: segment_kind(kind) as u32,
            listens: matches!(role, Some(ConnectionRole::Listener(_))).into(),
        }
    }

    fn has_hung_up(&self, slot: Slot) -> bool {
        let application = self.host.applications.get(slot);
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        application.is_some_and(|application| {
            matches!(
                rustix::net::recv(&application.connection, &mut [0; 1], flags),
                Ok((_, 0))
            )
        })
    }

    /// The last copy of a handle was closed, perhaps. With a descriptor its socket ends, whoever uses it.
    pub(super) fn on_handle(&mut self, now: Instant, index: usize) -> Result<(), Failure> {
        let handles = &mut self.host.applications.shared.handles;
        if !handles.is_closed(index) {
            return Ok(());
        }
        // While its descriptor is open: epoll knows it by that.
        self.waiter.remove(Source::Handle(index).token(0))?;
        let Some((Some(port), purpose)) = handles.remove(index) else {
            return Ok(());
        };
        let (engine, host) = (&mut self.engine, &mut self.host);
        if let Some(shared) = host.applications.shared.sockets.get_mut(&port) {
            shared.handles -= 1;
        }
        if is_abandoned(&host.applications, port) {
            end(engine, host, now, port, Ending::Close);
            host.applications.shared.sockets.remove(&port);
            engine.close(now, port, host);
        } else if purpose == Purpose::Descriptor {
            while let Some(holder) = host.applications.holder(port, 0) {
                requests::close(engine, host, now, holder, port);
            }
        }
        Ok(())
    }
}

fn segment_kind(kind: SocketKind) -> xtipc_segment::SocketKind {
    match kind {
        SocketKind::Rdm => xtipc_segment::SocketKind::Rdm,
        SocketKind::Dgram => xtipc_segment::SocketKind::Dgram,
        SocketKind::Seqpacket => xtipc_segment::SocketKind::Seqpacket,
        SocketKind::Stream => xtipc_segment::SocketKind::Stream,
    }
}
