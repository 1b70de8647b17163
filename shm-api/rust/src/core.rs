//! The dispatcher's state: everything of an attachment that its one lock guards.
//!
//! [`Core::dispatch`] moves what the daemon published to where it is waited for. Whoever holds the lock may call it;
//! the threads it concerns are told through their seats.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use xtipc_segment::application::{Receiver, Releaser, Staged, Submitter};
use xtipc_segment::board::BoardReader;
use xtipc_segment::{
    DeliveryFlags, Destination, Meta, PEER_SILENT, PayloadPlace, Ready, Request, Submission,
    Violation,
};

use crate::attachment::{SPIN_MAX, SPIN_MIN};
use crate::buffer::Buffer;
use crate::direct::{Bells, Direct, Leaving, Offer, Outgoing, Partners};
use crate::pending::{Pending, Purpose};
use crate::queues::Queues;
use crate::seat::Seat;
use crate::stand_by::StandBy;
use crate::watch::Watch;
use crate::{Error, Result};

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// The completion with this tag.
    Tag(u64),
    /// A message for this socket.
    Socket(u32),
    /// All posts of this socket to be done.
    Posts(u32),
    /// A free entry of the submission ring.
    Ring,
    /// Memory or a slot that some completion frees.
    AnyCompletion,
    /// Room for what a socket sends by its direct channel.
    Room(u32),
    /// A message for any socket, or a change of what one can do.
    AnySocket,
}

impl Interest {
    /// Whether this waits for what wakes only a sleeper that asks for room: entries taken out of the submission ring,
    /// posted sends answered.
    pub(crate) fn is_room(self) -> bool {
        match self {
            Self::Ring | Self::Posts(_) | Self::AnyCompletion => true,
            Self::Tag(_) | Self::Socket(_) | Self::Room(_) | Self::AnySocket => false,
        }
    }
}

/// A thread that waits while another one drives.
#[derive(Debug)]
struct Parked {
    interest: Interest,
    seat: Arc<Seat>,
}

/// The chunk of a stream, and how much of it was read.
pub(crate) type Partial = (Buffer, usize);

/// One socket of the attachment.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) messages: VecDeque<(Meta, Buffer)>,
    /// What the daemon delivered while messages come by the direct channel.
    pub(crate) later: VecDeque<(Meta, Buffer)>,
    /// Messages come by the direct channel.
    pub(crate) by_channel: bool,
    pub(crate) direct: Option<Box<Direct>>,
    /// Which way a connection's messages go.
    pub(crate) outgoing: Outgoing,
    /// Those that a datagram socket exchanges messages with.
    pub(crate) partners: Option<Box<Partners>>,
    /// Sends that the daemon has not answered.
    pub(crate) sends_under_way: u32,
    /// The chunk of a stream that a [`crate::Connection`] read in part, and how far.
    pub(crate) partial: Option<Partial>,
    /// Messages posted and under way.
    pub(crate) posts: u32,
    /// Result and destination of the first post that failed since the last flush.
    pub(crate) post_error: Option<(i32, Destination)>,
    pub(crate) watch: Option<Watch>,
    /// Bytes of the first message that were read already.
    pub(crate) read: usize,
    /// An errno that the next call reports, 0 for none.
    pub(crate) error: i32,
    /// Nobody shall wait for messages any more.
    pub(crate) shut_down: bool,
    /// There is something to read beside the messages: the rest of one, or the end of a connection.
    pub(crate) has_rest: bool,
    /// What the socket could do when the daemon last told, and was not found wrong since.
    pub(crate) ready: Ready,
    /// What the daemon was asked to tell of.
    awaited: Ready,
    /// Tasks that wait for such news.
    pub(crate) wakers: Vec<std::task::Waker>,
    pub(crate) custody: Custody,
    /// A close is under way: what is queued stays unread.
    closing: bool,
}

impl Queue {
    /// One that holds this message only.
    pub(crate) fn of(meta: Meta, buffer: Buffer) -> Self {
        Self {
            messages: VecDeque::from([(meta, buffer)]),
            ..Self::default()
        }
    }

    /// Whether a close is under way.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Some ends of a connection are errors of the socket as well.
    fn note_end(&mut self, meta: &Meta) {
        if meta.error == PEER_SILENT {
            self.error = libc::ECONNABORTED;
        } else if meta.flags.contains(DeliveryFlags::REFUSED) {
            self.error = match meta.error {
                NO_NODE => libc::EHOSTUNREACH,
                _ => libc::ECONNREFUSED,
            };
        }
    }
}

/// Errcode for a node that cannot be reached.
const NO_NODE: u8 = 3;

/// Where what arrives at a socket waits to be received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Custody {
    /// Here.
    #[default]
    Own,
    /// It is being handed to the daemon: nothing can be received meanwhile.
    InTransit,
    /// In the daemon, which is asked for each message, as other processes do.
    Shared,
}

/// Why the attachment is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    Gone,
    Corrupted(Violation),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Gone => Self::NodeGone,
            Failure::Corrupted(violation) => Self::Corrupted(violation),
        }
    }
}

/// Tells the threads of a process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadName(usize);

impl ThreadName {
    pub(crate) fn own() -> Self {
        thread_local! {
            static PLACE: u8 = const { 0 };
        }
        PLACE.with(|place| Self(std::ptr::from_ref(place).addr()))
    }
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) submitter: Submitter,
    pub(crate) receiver: Receiver,
    pub(crate) pending: Pending,
    /// Messages posted by all sockets, and under way.
    pub(crate) posts: usize,
    pub(crate) failure: Option<Failure>,
    /// The thread that waits for the daemon, spinning or asleep. Only one does, the others are parked.
    pub(crate) driver: Option<ThreadName>,
    /// The driver announced its sleep to the daemon.
    pub(crate) asleep: bool,
    /// Counts everything dispatched: lets the driver see that another thread dispatched something.
    pub(crate) progress: u64,
    /// How long the driver spins before it sleeps; adapts to what spinning brings.
    pub(crate) spin: Duration,
    pub(crate) stand_by: StandBy,
    /// The same of peers of direct channels.
    pub(crate) stand_by_for_peers: StandBy,
    /// Fruitless non-blocking receives, see [`crate::attachment`].
    pub(crate) fruitless: u32,
    /// Sockets whose channel is offered and not mapped; the peer's port where it is one of datagrams, else 0.
    pub(crate) unmapped: Vec<(u32, u32)>,
    /// What tells of changed bindings, once there was an offer of a channel of datagrams.
    pub(crate) board: Option<BoardReader>,
    /// Offers taken off the attach socket.
    pub(crate) offers: Vec<Offer>,
    /// Sockets with a direct channel.
    pub(crate) channelled: Vec<u32>,
    /// Those that were told to leave it.
    pub(crate) leaving: Vec<Leaving>,
    /// A thread has a conversation on the attach socket.
    pub(crate) conversing: bool,
    /// See [`xtipc_segment::attach::Welcome`]; with 0 offers are not taken either.
    pub(crate) direct_after: u32,
    /// Count of `progress` when what was unread was last kept: since then there is nothing new to keep.
    kept_at: Option<u64>,
    pub(crate) bells: Bells,
    pub(crate) queues: Queues,
    parked: Vec<Parked>,
    seats: Vec<Arc<Seat>>,
    pub(crate) releaser: Arc<Mutex<Releaser>>,
    /// The attach socket.
    pub(crate) socket: Arc<OwnedFd>,
}

impl Core {
    pub(crate) fn new(
        submitter: Submitter,
        receiver: Receiver,
        releaser: Arc<Mutex<Releaser>>,
        socket: Arc<OwnedFd>,
        direct_after: u32,
        bells: Bells,
    ) -> Self {
        Self {
            socket,
            unmapped: Vec::new(),
            board: None,
            offers: Vec::new(),
            channelled: Vec::new(),
            leaving: Vec::new(),
            conversing: false,
            direct_after,
            bells,
            pending: Pending::new(submitter.requests_max()),
            submitter,
            receiver,
            posts: 0,
            failure: None,
            driver: None,
            asleep: false,
            progress: 0,
            spin: SPIN_MAX,
            stand_by: StandBy::default(),
            stand_by_for_peers: StandBy::default(),
            fruitless: 0,
            kept_at: None,
            queues: Queues::default(),
            parked: Vec::new(),
            seats: Vec::new(),
            releaser,
        }
    }

    /// A socket that the daemon knew before this attachment.
    pub(crate) fn add_shared(&mut self, socket: u32) {
        let custody = Custody::Shared;
        let queue = Queue {
            custody,
            ..Queue::default()
        };
        self.queues.insert(socket, queue);
    }

    /// A close is under way.
    pub(crate) fn is_closing(&self) -> bool {
        self.queues.all().any(|queue| queue.closing)
    }

    /// The queue of an open socket.
    pub(crate) fn queue(&mut self, socket: u32) -> Result<&mut Queue> {
        self.queues
            .get_mut(socket)
            .ok_or_else(|| Error::from_result(-libc::EBADF))
    }

    /// Whether a socket is there and not being closed.
    pub(crate) fn is_open(&mut self, socket: u32) -> bool {
        let open = |queue: &mut Queue| !queue.closing;
        self.queues.get_mut(socket).is_some_and(open)
    }

    /// Moves all that the daemon published, and what came by channels. A violation ends the attachment.
    pub(crate) fn dispatch(&mut self) {
        self.dispatch_of_daemon();
        self.pull_all();
    }

    /// The same, but what came by channels stays there: who looks for a message takes it out of a channel by itself.
    pub(crate) fn dispatch_of_daemon(&mut self) {
        let goes_on = !self.unmapped.is_empty() || !self.leaving.is_empty();
        if !goes_on && !self.receiver.has_next() {
            return;
        }
        if let Some(Failure::Corrupted(_)) = self.failure {
            return;
        }
        if let Err(violation) = self.try_dispatch() {
            self.fail(Failure::Corrupted(violation));
        }
    }

    /// Ends the attachment for all threads, and for the daemon.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        self.progress += 1;
        self.tell(|_| true);
        // The daemon then closes the wake pipe, which ends the sleep of a driver. It fails only if the connection has
        // ended already.
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }

    /// While messages wait for delivery memory: copies out what is unread of all sockets. Called by whoever waits, since
    /// what it waits for may be behind messages that nobody reads.
    pub(crate) fn make_room(&mut self) {
        if !self.receiver.is_crowded() || self.kept_at == Some(self.progress) {
            return;
        }
        self.kept_at = Some(self.progress);
        if let Err(violation) = self.keep_unread() {
            self.fail(Failure::Corrupted(violation));
        }
    }

    fn keep_unread(&mut self) -> std::result::Result<(), Violation> {
        let mut releaser = crate::lock(&self.releaser);
        for queue in self.queues.all_mut() {
            // What is being handed to the daemon has its place already.
            if queue.custody == Custody::InTransit {
                continue;
            }
            let partial = queue.partial.iter_mut().map(|(buffer, _)| buffer);
            let partners = queue.partners.iter_mut();
            let later = partners.flat_map(|partners| partners.later());
            let messages = queue.messages.iter_mut().chain(&mut queue.later);
            let messages = messages.chain(later);
            for buffer in partial.chain(messages.map(|(_, buffer)| buffer)) {
                buffer.keep(&mut releaser)?;
            }
        }
        Ok(())
    }

    /// Lays a chunk that was read in part aside, or notes that there is none.
    pub(crate) fn set_partial(&mut self, socket: u32, partial: Option<Partial>) -> Result<()> {
        let queue = self.queue(socket)?;
        queue.has_rest = partial.is_some();
        queue.partial = partial;
        self.kept_at = None;
        Ok(())
    }

    fn try_dispatch(&mut self) -> std::result::Result<(), Violation> {
        self.dispatch_completions()?;
        self.dispatch_deliveries()?;
        self.map_offered();
        self.leave_idle();
        Ok(())
    }

    fn dispatch_deliveries(&mut self) -> std::result::Result<(), Violation> {
        while let Some((meta, buffer)) = self.receiver.next_delivery()? {
            self.progress += 1;
            if self.queues.get_mut(meta.socket).is_none() {
                // Opened so recently that the completion arrived after the loop above.
                self.dispatch_completions()?;
            }
            let open = self.queues.get_mut(meta.socket);
            let Some(queue) = open.filter(|queue| !queue.closing) else {
                // The daemon delivered it before it knew of the close, and takes it for unread.
                crate::lock(&self.releaser).returned(buffer)?;
                continue;
            };
            if meta.flags.contains(DeliveryFlags::NOTICE) {
                let noticed = self.on_notice(meta.socket, meta.source, &buffer);
                crate::lock(&self.releaser).discarded(buffer)?;
                noticed?;
                continue;
            }
            // Receivers throw empty messages away (`docs/protocol/sockets.md`).
            let is_event = meta
                .flags
                .intersects(DeliveryFlags::JOINED | DeliveryFlags::LEFT);
            if meta.error == 0 && buffer.is_empty() && !is_event {
                crate::lock(&self.releaser).discarded(buffer)?;
                continue;
            }
            queue.note_end(&meta);
            let returned = match meta.error {
                0 => None,
                _ => self.take_returned(meta.socket),
            };
            let buffer = match returned {
                Some(bytes) if buffer.is_empty() => {
                    crate::lock(&self.releaser).discarded(buffer)?;
                    Buffer::Own(bytes)
                }
                _ => Buffer::Delivered(buffer),
            };
            if let Some(queue) = self.queues.get_mut(meta.socket) {
                queue.arrive(meta, buffer);
            }
            self.tell(|interest| {
                interest == Interest::Socket(meta.socket) || interest == Interest::AnySocket
            });
        }
        Ok(())
    }

    fn dispatch_completions(&mut self) -> std::result::Result<(), Violation> {
        while let Some(completion) = self.receiver.next_completion()? {
            self.progress += 1;
            let (purpose, staged) = self.pending.complete(completion)?;
            if let Some(staged) = staged {
                self.submitter.unstage(staged);
            }
            match purpose {
                Purpose::Call | Purpose::Forget => {}
                Purpose::Open if completion.result == 0 => {
                    let socket = completion.values[0] as u32;
                    let queue = Queue {
                        outgoing: match self.direct_after {
                            0 => Outgoing::Never,
                            count => Outgoing::Daemon(count),
                        },
                        ..Queue::default()
                    };
                    self.queues.insert(socket, queue);
                }
                Purpose::Shutdown(socket) if completion.result == 0 => self.end_sending(socket),
                Purpose::Open | Purpose::Shutdown(_) => {}
                Purpose::Post {
                    socket,
                    messages,
                    destination,
                } => self.note_post(socket, messages, completion.result, destination),
                Purpose::Await(socket) => self.note_ready(socket, completion.values[0]),
                Purpose::MakeChannel {
                    socket,
                    destination,
                } => self.on_made(socket, destination, &completion),
                Purpose::SwitchToChannel { socket, peer } => {
                    self.on_switched(socket, peer, &completion);
                }
                Purpose::Close(socket) => {
                    if let Some(mut queue) = self.queues.remove(socket) {
                        let partners = queue.partners.take();
                        let later = partners.into_iter().flat_map(|all| all.into_later());
                        let messages = queue.messages.into_iter().chain(queue.later);
                        for (_, buffer) in messages.chain(later) {
                            if let Buffer::Delivered(buffer) = buffer {
                                crate::lock(&self.releaser).returned(buffer)?;
                            }
                        }
                    }
                }
            }
            self.tell(|interest| match interest {
                Interest::Tag(tag) => tag == completion.tag,
                Interest::Posts(awaited) => {
                    matches!(purpose, Purpose::Post { socket, .. } if socket == awaited)
                }
                Interest::AnyCompletion => true,
                Interest::AnySocket => matches!(purpose, Purpose::Await(_)),
                Interest::Ring | Interest::Socket(_) | Interest::Room(_) => false,
            });
        }
        Ok(())
    }

    fn note_post(&mut self, socket: u32, messages: u32, result: i32, destination: Destination) {
        self.posts -= messages as usize;
        if let Some(queue) = self.queues.get_mut(socket) {
            queue.posts -= messages;
            if result < 0 {
                queue.post_error.get_or_insert((result, destination));
            }
        }
    }

    /// The daemon tells what a socket can do, or that it cannot be waited for any more.
    fn note_ready(&mut self, socket: u32, told: u64) {
        if let Some(queue) = self.queues.get_mut(socket) {
            queue.ready |= Ready::from_bits_truncate(told as u32);
            queue.awaited = Ready::empty();
            for waker in queue.wakers.drain(..) {
                waker.wake();
            }
        }
    }

    /// Has the daemon tell when a socket can do this, unless it can already or the daemon was asked. `Err`: there is no
    /// room for the request.
    pub(crate) fn await_ready(
        &mut self,
        socket: u32,
        wanted: Ready,
    ) -> Result<std::result::Result<(), Interest>> {
        let wanted = match self.await_room(socket)? {
            // Of this the daemon knows nothing.
            Some(may) => {
                self.queue(socket)?.ready.set(Ready::SEND, may);
                wanted - Ready::SEND
            }
            None => wanted,
        };
        let queue = self.queue(socket)?;
        if queue.ready.contains(wanted) || queue.awaited.contains(wanted) {
            return Ok(Ok(()));
        }
        let request = |_| Request::Await { ready: wanted };
        let entered = self.submit(socket, &[], request, Purpose::Await(socket))?;
        if entered.is_ok() {
            self.queue(socket)?.awaited |= wanted;
        }
        Ok(entered.map(|_| ()))
    }

    /// A call found that a socket cannot do this now.
    pub(crate) fn note_not_ready(&mut self, socket: u32, what: Ready) {
        if let Some(queue) = self.queues.get_mut(socket) {
            queue.ready.remove(what);
        }
    }

    /// Submits a request, or says what it lacks.
    pub(crate) fn submit(
        &mut self,
        socket: u32,
        payload: &[u8],
        request: impl FnOnce(PayloadPlace) -> Request,
        purpose: Purpose,
    ) -> Result<std::result::Result<u64, Interest>> {
        let entered = self.enter(socket, payload, request, purpose)?;
        if entered.is_ok() {
            self.submitter.ring_doorbell();
        }
        Ok(entered)
    }

    /// The same, but the daemon may sleep on until the door-bell is rung.
    pub(crate) fn enter(
        &mut self,
        socket: u32,
        payload: &[u8],
        request: impl FnOnce(PayloadPlace) -> Request,
        purpose: Purpose,
    ) -> Result<std::result::Result<u64, Interest>> {
        if let Err(interest) = self.admit()? {
            return Ok(Err(interest));
        }
        let staged = if payload.is_empty() {
            None
        } else {
            match self.submitter.stage(payload) {
                Some(staged) => Some(staged),
                None => return Ok(Err(Interest::AnyCompletion)),
            }
        };
        self.push(socket, staged, request, purpose).map(Ok)
    }

    /// Whether a request can be entered, or what it lacks.
    pub(crate) fn admit(&mut self) -> Result<std::result::Result<(), Interest>> {
        Ok(if self.pending.is_full() {
            Err(Interest::AnyCompletion)
        } else if !self.submitter.has_room()? {
            Err(Interest::Ring)
        } else {
            Ok(())
        })
    }

    /// Puts a request that was admitted into the ring.
    pub(crate) fn push(
        &mut self,
        socket: u32,
        staged: Option<Staged>,
        request: impl FnOnce(PayloadPlace) -> Request,
        purpose: Purpose,
    ) -> Result<u64> {
        let place = staged
            .as_ref()
            .map_or_else(PayloadPlace::default, |staged| staged.place());
        match purpose {
            Purpose::Post {
                socket, messages, ..
            } => {
                self.queue(socket)?.posts += messages;
                self.posts += messages as usize;
            }
            Purpose::Close(socket) => self.queue(socket)?.closing = true,
            Purpose::Call
            | Purpose::Open
            | Purpose::Shutdown(_)
            | Purpose::Await(_)
            | Purpose::MakeChannel { .. }
            | Purpose::SwitchToChannel { .. }
            | Purpose::Forget => {}
        }
        let tag = self.pending.enter(purpose, staged);
        let submission = Submission {
            tag,
            socket,
            request: request(place),
        };
        let pushed = self.submitter.push(&submission)?;
        debug_assert!(pushed, "room was checked before");
        Ok(tag)
    }

    /// Notes whether spinning pays.
    pub(crate) fn learn(&mut self, pays: bool) {
        self.spin = if pays {
            (self.spin * 2).min(SPIN_MAX)
        } else {
            (self.spin / 2).max(SPIN_MIN)
        };
    }

    /// Tells parked threads whose interest matches.
    pub(crate) fn tell(&self, matches: impl Fn(Interest) -> bool) {
        for parked in &self.parked {
            if matches(parked.interest) {
                parked.seat.call();
            }
        }
    }

    /// Somebody must drive while threads wait: called by whoever leaves.
    pub(crate) fn hand_over(&self) {
        if self.driver.is_none()
            && let Some(next) = self.parked.first()
        {
            next.seat.call();
        }
    }

    /// Whether a parked thread waits for a free entry of the submission ring.
    pub(crate) fn is_ring_awaited(&self) -> bool {
        self.parked
            .iter()
            .any(|parked| parked.interest == Interest::Ring)
    }

    /// Whether a parked thread waits for room of any kind.
    pub(crate) fn is_room_awaited(&self) -> bool {
        self.parked.iter().any(|parked| parked.interest.is_room())
    }

    pub(crate) fn park(&mut self, interest: Interest) -> Arc<Seat> {
        let seat = self.seats.pop().unwrap_or_default();
        seat.take();
        self.parked.push(Parked {
            interest,
            seat: Arc::clone(&seat),
        });
        seat
    }

    pub(crate) fn unpark(&mut self, seat: Arc<Seat>) {
        self.parked
            .retain(|parked| !Arc::ptr_eq(&parked.seat, &seat));
        self.seats.push(seat);
    }
}
