//! The daemon's side of a segment.
//!
//! One [`DaemonSide`] per attached process, owned by one worker. A round of the worker is: [`DaemonSide::pop`] within a
//! budget, [`DaemonSide::drain_releases`], [`DaemonSide::complete`] and [`DaemonSide::deliver`] as the protocol engine
//! says, and one [`DaemonSide::notify`] at the end, which is the only place with a system call, and only if the
//! application sleeps. Before the worker sleeps on the door-bell it calls [`DaemonSide::before_sleep`].
//!
//! Nothing the application does can harm the daemon: what it wrote is read once and checked, and a [`Violation`] ends
//! the attachment. The wake fds are pipes, not event fds: the flags of an event fd are shared by all who hold it, so
//! an application could clear O_NONBLOCK and block the daemon's write; the daemon's end of a pipe is its own.
//! SIGPIPE must be ignored, as Rust's runtime does.
//!
//! When a message finds no room the daemon says so in the segment: the memory is crowded. An application that waits then
//! keeps what it has not read in its own memory (`delivery`), until there is room for all that waits.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::ReadWriteFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::area::{Area, Segment, make_memfd, seal_read_only, seal_size};
use crate::batch::Messages;
use crate::buffers::Buffers;
use crate::delivery::{DeliveryEntry, Meta, ReleaseKind, decode_release, decode_run};
use crate::handle::Handle;
use crate::kept::{Kept, KeptMessage};
use crate::layout::{Header, IDLE_CLASS, LayoutError, Sizes, Word};
#[cfg(doc)]
use crate::path::PATHS_MAX;
use crate::path::PathState;
use crate::primitive::Ordering;
#[cfg(doc)]
use crate::request::SendFlags;
use crate::request::{Completion, PayloadPlace, Request, Submission};
use crate::ring::{Consumer, Producer};
use crate::snapshot;
use crate::violation::Violation;
use crate::wake::{Call, Progress, Sleeper, Waker, stands_by};

/// The fds an application needs, in the order in which the attach handshake passes them.
#[derive(Debug)]
pub struct SegmentFds {
    /// Memory the application writes.
    pub application: OwnedFd,
    /// Memory only the daemon can write.
    pub daemon: OwnedFd,
    /// Event fd: written to wake the daemon.
    pub doorbell: OwnedFd,
    /// Read end of a pipe: readable when the daemon woke the application.
    pub wake: OwnedFd,
}

/// A segment could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The sizes are impossible.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The system refused memory or fds.
    #[error("cannot make a segment: {0}")]
    Io(#[from] io::Error),
}

/// A message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// The delivery ring or arena is full: try again after [`DaemonSide::drain_releases`] returned buffers.
    #[error("no room in the delivery memory of the process")]
    NoRoom,
    /// The application broke the contract.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// Notice that a delivered message left its socket's receive buffer, or several that were delivered one directly after the
/// other and differ in none of this. Each delivered message is in exactly one, unless [`DaemonSide::take_unread`] took the
/// message before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// The socket it was delivered to.
    pub socket: u32,
    /// [`Meta::cost`] of the delivery.
    pub cost: u32,
    /// [`Meta::cookie`] of the delivery.
    pub cookie: u64,
    /// False if the application gave the buffer back unread.
    pub read: bool,
    /// How many messages.
    pub count: u32,
}

/// Payload of a send, in memory the application can write at any time. Valid until the send is completed; kept longer,
/// its bytes are whatever the application puts there next.
#[derive(Clone, Debug)]
pub struct PayloadRef {
    segment: Arc<Segment>,
    place: PayloadPlace,
}

impl PayloadRef {
    /// Length in bytes. Not limited to what TIPC can carry.
    pub fn len(&self) -> usize {
        self.place.len as usize
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.place.len == 0
    }

    /// Copies `out.len()` bytes starting at `offset`. Never a reference: the application may write meanwhile.
    ///
    /// # Panics
    /// If the range is not inside the payload: ranges are computed by the daemon from [`PayloadRef::len`].
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) {
        MessageRef::new(&self.segment, self.place).copy_to(offset, out);
    }

    /// The messages of a payload that is a batch.
    pub fn messages(&self) -> Messages<'_> {
        Messages::new(&self.segment, self.place)
    }
}

/// One message of a batch, or a whole payload; as [`PayloadRef`], for as long as that is there.
#[derive(Clone, Copy, Debug)]
pub struct MessageRef<'a> {
    segment: &'a Segment,
    place: PayloadPlace,
}

impl<'a> MessageRef<'a> {
    /// The place lies inside the submission arena.
    #[inline]
    pub(crate) fn new(segment: &'a Segment, place: PayloadPlace) -> Self {
        Self { segment, place }
    }

    /// Length in bytes. Not limited to what TIPC can carry.
    #[inline]
    pub fn len(&self) -> usize {
        self.place.len as usize
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.place.len == 0
    }

    /// See [`PayloadRef::copy_to`].
    ///
    /// # Panics
    /// If the range is not inside the message.
    #[inline]
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) {
        assert!(
            offset <= self.len() && out.len() <= self.len() - offset,
            "range inside the payload"
        );
        let arena = self.segment.header.submission_arena.offset as usize;
        self.segment
            .application
            .copy_out(arena + self.place.offset as usize + offset, out);
    }
}

/// Wake fd of one socket.
#[derive(Debug)]
struct Watch {
    write_end: OwnedFd,
    due: bool,
}

/// See the module.
#[derive(Debug)]
pub struct DaemonSide {
    segment: Arc<Segment>,
    submissions: Consumer,
    completions: Producer,
    deliveries: Producer,
    releases: Consumer,
    buffers: Buffers,
    kept: Kept,
    /// Says so in the segment.
    crowded: bool,
    sleeper: Sleeper,
    waker: Waker,
    /// Answers that nobody waits for, since the last that somebody does.
    posted_answers: u32,
    /// The best news for the application since the last `notify`.
    progress: Option<Progress>,
    doorbell: OwnedFd,
    wake: OwnedFd,
    watches: HashMap<u32, Watch>,
    watches_due: Vec<u32>,
}

impl DaemonSide {
    /// Makes a segment. The fds are for the application; the daemon drops its copies once they are sent.
    pub fn create(sizes: &Sizes) -> Result<(Self, SegmentFds), CreateError> {
        let header = Header::lay_out(sizes)?;
        let (application_len, daemon_len) =
            (header.application_len as usize, header.daemon_len as usize);

        let application_fd = make_memfd("xtipc-application", application_len)?;
        let mut application = Area::map(application_fd.as_fd(), application_len, true)?;
        application.write_header(&header);
        seal_size(application_fd.as_fd())?;

        let daemon_fd = make_memfd("xtipc-daemon", daemon_len)?;
        let mut daemon = Area::map(daemon_fd.as_fd(), daemon_len, true)?;
        daemon.write_header(&header);
        seal_read_only(daemon_fd.as_fd())?;

        let segment = Segment::new(application, daemon, header);
        segment
            .daemon_processor()
            .store(u32::MAX, Ordering::Relaxed);

        let doorbell =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let (wake_read, wake) = wake_pipe()?;
        let fds = SegmentFds {
            application: application_fd,
            daemon: daemon_fd,
            doorbell: doorbell.try_clone()?,
            wake: wake_read,
        };
        let side = Self {
            segment: Arc::new(segment),
            submissions: Consumer::default(),
            completions: Producer::default(),
            deliveries: Producer::default(),
            releases: Consumer::default(),
            buffers: Buffers::new(sizes.deliveries, sizes.delivery_arena as usize),
            kept: Kept::default(),
            crowded: false,
            sleeper: Sleeper::default(),
            waker: Waker::default(),
            posted_answers: u32::MAX,
            progress: None,
            doorbell,
            wake,
            watches: HashMap::new(),
            watches_due: Vec::new(),
        };
        Ok((side, fds))
    }

    /// Takes the next request. It must be answered by [`DaemonSide::complete`], at once or later.
    pub fn pop(&mut self) -> Result<Option<Submission>, Violation> {
        let Some(words) = self.submissions.pop(&self.segment.submissions())? else {
            return Ok(None);
        };
        self.made(Progress::Room);
        Submission::decode(&words, self.segment.header.submission_arena.len).map(Some)
    }

    /// The memory of a [`Request::Send`], [`Request::PutBack`] or [`Request::Restore`]; empty for other requests.
    pub fn payload(&self, submission: &Submission) -> PayloadRef {
        let place = match submission.request {
            Request::Send { payload, .. }
            | Request::PutBack { payload, .. }
            | Request::Restore { payload, .. } => payload,
            _ => PayloadPlace::default(),
        };
        // A `Submission` of another process must not reach outside this one's arena.
        let len = self.segment.header.submission_arena.len;
        let fits = place.offset <= len && place.len <= len - place.offset;
        PayloadRef {
            segment: Arc::clone(&self.segment),
            place: if fits { place } else { PayloadPlace::default() },
        }
    }

    /// Answers a request: 0 or a negative errno, and values as [`Request`] says. Its payload is the application's again.
    pub fn complete(&mut self, tag: u64, result: i32, values: [u64; 2]) -> Result<(), Violation> {
        self.answer(tag, result, values, Progress::Work)
    }

    /// Answers a send with [`SendFlags::POSTED`]: wakes only a sleeper that asked for room, since no other waits for it.
    pub fn complete_posted(&mut self, tag: u64, result: i32) -> Result<(), Violation> {
        self.answer(tag, result, [0; 2], Progress::Room)
    }

    fn answer(
        &mut self,
        tag: u64,
        result: i32,
        values: [u64; 2],
        progress: Progress,
    ) -> Result<(), Violation> {
        let completion = Completion {
            tag,
            result,
            values,
        };
        let ring = self.segment.completions();
        if !self.completions.push(&ring, &completion.encode())? {
            return Err(Violation::TooManyRequests {
                entries: self.segment.header.completions.entries,
            });
        }
        self.posted_answers = match progress {
            Progress::Room => self.posted_answers.saturating_add(1),
            Progress::Work => 0,
        };
        self.made(progress);
        Ok(())
    }

    /// Delivers a message of `len` bytes, which `fill` writes in place. The bytes given to `fill` hold old data.
    pub fn deliver(
        &mut self,
        meta: &Meta,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DeliverError> {
        let ring = self.segment.deliveries();
        let has_entry = self.deliveries.has_room(&ring)?;
        let buffer = has_entry.then(|| self.buffers.take(meta, len)).flatten();
        let Some(buffer) = buffer else {
            self.set_crowded(true);
            return Err(DeliverError::NoRoom);
        };
        let arena = self.segment.header.delivery_arena.offset as usize;
        // SAFETY: `Buffers` hands out each run once until the application returned it, the area is sealed against all
        // writers but this mapping, and the application learns of the run only by the entry pushed below.
        let bytes = unsafe {
            self.segment
                .daemon
                .bytes_mut(arena + buffer.place.offset as usize, len)
        };
        fill(bytes);
        let entry = DeliveryEntry {
            meta: *meta,
            handle: buffer.handle,
            payload: buffer.place,
        };
        self.deliveries.put(&ring, &entry.encode());
        self.call_watch(meta.socket);
        self.made(Progress::Work);
        Ok(())
    }

    fn set_crowded(&mut self, crowded: bool) {
        if crowded != self.crowded {
            self.crowded = crowded;
            let word = self.segment.crowded();
            word.store(crowded.into(), Ordering::Relaxed);
            if crowded {
                self.made(Progress::Work);
            }
        }
    }

    /// Has the fd of a socket that is watched become readable at the end of the round: something happened that its owner
    /// waits for.
    pub fn call_watch(&mut self, socket: u32) {
        if let Some(watch) = self.watches.get_mut(&socket)
            && !watch.due
        {
            watch.due = true;
            self.watches_due.push(socket);
        }
    }

    /// Takes up to `budget` release entries. Returns how many buffers came back, that is, whether there is new room.
    pub fn drain_releases(
        &mut self,
        budget: usize,
        mut on_consumed: impl FnMut(Consumed),
    ) -> Result<usize, Violation> {
        let mut returned = 0;
        for _ in 0..budget {
            let Some([word]) = self.releases.pop(&self.segment.releases())? else {
                break;
            };
            let (id, kind) = decode_release(word)?;
            let consumed = if kind == ReleaseKind::USED_UP {
                let (first, more) = decode_run(id);
                let count = u32::from(more) + 1;
                self.buffers.use_up(first, count, &mut on_consumed)?;
                returned += count as usize;
                None
            } else if kind == ReleaseKind::KEPT {
                self.keep(Handle::from_bits(id))?;
                returned += 1;
                None
            } else if kind.contains(ReleaseKind::KEPT) {
                self.kept
                    .release(id, kind.contains(ReleaseKind::CONSUMED))?
            } else {
                let released = self.buffers.release(Handle::from_bits(id), kind)?;
                returned += usize::from(released.returned);
                released.consumed
            };
            if let Some(consumed) = consumed {
                on_consumed(consumed);
            }
        }
        if returned > 0 {
            // What still finds none says so again.
            self.set_crowded(false);
        }
        Ok(returned)
    }

    /// The application has copied a message out of its buffer.
    fn keep(&mut self, handle: Handle) -> Result<(), Violation> {
        let arena = self.segment.header.delivery_arena.offset as usize;
        let unread = self.buffers.keep(handle)?.map(|unread| {
            let len = unread.place.len.min(unread.meta.retained) as usize;
            // SAFETY: the run is written again only by a later `deliver`, which `&mut self` excludes here.
            let bytes = unsafe {
                self.segment
                    .daemon
                    .bytes(arena + unread.place.offset as usize, len)
            };
            let bytes = Box::from(bytes);
            (unread, bytes)
        });
        self.kept.add(unread);
        Ok(())
    }

    /// Takes note of all bytes of a message that the application keeps: [`Request::Restore`].
    pub fn restore(&mut self, id: u64, payload: &PayloadRef) -> Result<(), Violation> {
        if let Some(retained) = self.kept.restore(id, payload.place.len)? {
            let mut bytes = vec![0; payload.len()];
            payload.copy_to(0, &mut bytes);
            *retained = bytes.into();
        }
        Ok(())
    }

    /// At the end of a socket (or of the process, `None`): takes all release notices, then hands out what was delivered
    /// but never consumed, oldest first, for the protocol to reject. There will be no notice for these. Of a message that
    /// the application kept there is what [`Meta::retained`] asked for.
    ///
    /// A violation is reported after the messages were handed out.
    pub fn take_unread(
        &mut self,
        socket: Option<u32>,
        on_consumed: impl FnMut(Consumed),
        mut on_unread: impl FnMut(&Meta, &[u8]),
    ) -> Result<(), Violation> {
        // Twice the ring: an honest application cannot have more under way, another one shall not keep us here.
        let budget = self.segment.header.releases.entries as usize * 2;
        let drained = self.drain_releases(budget, on_consumed);
        let arena = self.segment.header.delivery_arena.offset as usize;
        let segment = &self.segment;
        let kept = self.kept.take(socket);
        let mut unread: Vec<(u64, &Meta, &[u8])> = Vec::new();
        for KeptMessage {
            meta,
            number,
            bytes,
        } in &kept
        {
            unread.push((*number, meta, bytes));
        }
        let delivered: Vec<_> = self.buffers.take_unread(socket).collect();
        for message in &delivered {
            let (at, len) = (message.place.offset as usize, message.place.len as usize);
            // SAFETY: the buffer is out, so it is not written until it is returned, which `&mut self` excludes here.
            let bytes = unsafe { segment.daemon.bytes(arena + at, len) };
            unread.push((message.number, &message.meta, bytes));
        }
        unread.sort_unstable_by_key(|(number, ..)| *number);
        for (_, meta, bytes) in unread {
            on_unread(meta, bytes);
        }
        drained.map(|_| ())
    }

    /// Gives a socket a pollable fd of its own: the read end of a pipe that each round with a delivery to the socket
    /// writes to. It goes to the application in the attach protocol's `Watching`.
    pub fn watch(&mut self, socket: u32) -> io::Result<OwnedFd> {
        let (read_end, write_end) = wake_pipe()?;
        self.watch_by(socket, write_end);
        Ok(read_end)
    }

    /// The same, by writing to this, which must never make a write wait.
    pub fn watch_by(&mut self, socket: u32, write_end: OwnedFd) {
        self.watches.insert(
            socket,
            Watch {
                write_end,
                due: false,
            },
        );
    }

    /// Ends [`DaemonSide::watch`], at the latest when the socket is closed.
    pub fn unwatch(&mut self, socket: u32) {
        self.watches.remove(&socket);
    }

    /// Shows the state of a path in one of its slots, below [`PATHS_MAX`].
    pub fn show_path(&mut self, slot: u32, state: &PathState) {
        if let Some(words) = self.segment.path(slot) {
            snapshot::write(words, &state.encode());
        }
    }

    /// Tells the application where its requests are worked on, so that it knows how to wait: on which processor, and
    /// whether in SCHED_IDLE.
    pub fn run_on(&mut self, processor: u32, idle_class: bool) {
        let place = processor & !IDLE_CLASS | if idle_class { IDLE_CLASS } else { 0 };
        let word = self.segment.daemon_processor();
        // The line is shared with a reader that looks at it each time before it waits.
        if word.load(Ordering::Relaxed) != place {
            word.store(place, Ordering::Relaxed);
        }
    }

    /// End of a round: wakes the application if it sleeps and there is something for it. True: it stands by, and is to
    /// have the processor as soon as the worker can spare it.
    pub fn notify(&mut self) -> bool {
        let mut waits = false;
        if let Some(progress) = self.progress.take() {
            let word = self.segment.application_sleep();
            let call = self.waker.call(word, progress);
            if call == Call::Bell {
                ring(&self.wake);
            }
            waits = call == Call::Processor;
        }
        while let Some(socket) = self.watches_due.pop() {
            if let Some(watch) = self.watches.get_mut(&socket) {
                watch.due = false;
                ring(&watch.write_end);
            }
        }
        waits
    }

    /// Whether the application stands by and has taken all it can wait for: it only waits, on the worker's processor.
    pub fn stands_by_for_news(&self) -> bool {
        if !stands_by(self.segment.application_sleep()) {
            return false;
        }
        let (completions, deliveries) = (self.segment.completions(), self.segment.deliveries());
        // A violation shows when something is published.
        let answers = self.completions.untaken(&completions).unwrap_or_default();
        answers <= self.posted_answers && self.deliveries.untaken(&deliveries) == Ok(0)
    }

    /// Whether the application has put nothing into its rings since they were emptied.
    pub fn is_quiet(&self) -> bool {
        let cursors = &self.segment.application;
        self.submissions.is_drained(cursors.word(Word::Submission))
            && self.releases.is_drained(cursors.word(Word::Release))
    }

    /// Announces that the daemon is about to sleep on the door-bell. True: it may, nothing is there. False: there is
    /// work. `wants_room`: wake also for returned buffers, because a delivery found no room.
    pub fn before_sleep(&mut self, wants_room: bool) -> Result<bool, Violation> {
        self.sleeper
            .announce(self.segment.daemon_sleep(), wants_room);
        let idle = self.submissions.available(&self.segment.submissions())? == 0
            && (!wants_room || self.releases.available(&self.segment.releases())? == 0);
        if !idle {
            self.sleeper.awake(self.segment.daemon_sleep());
        }
        Ok(idle)
    }

    /// Takes the announcement back: after something else has woken the worker, applications need not ring.
    pub fn awake(&mut self) {
        self.sleeper.awake(self.segment.daemon_sleep());
    }

    /// Takes the announcement back and empties the door-bell. To be followed by a look at the rings.
    pub fn after_sleep(&mut self) {
        self.sleeper.awake(self.segment.daemon_sleep());
        let mut count = [0u8; 8];
        // RWF_NOWAIT rather than O_NONBLOCK, which the application could clear. Empty is as good as emptied.
        let _ = rustix::io::preadv2(
            &self.doorbell,
            &mut [IoSliceMut::new(&mut count)],
            u64::MAX,
            ReadWriteFlags::NOWAIT,
        );
    }

    /// The event fd to sleep on.
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// Messages delivered and not yet returned.
    pub fn delivered(&self) -> usize {
        self.buffers.out()
    }

    /// Bytes of both areas of the segment.
    pub fn segment_len(&self) -> usize {
        let header = &self.segment.header;
        header.application_len as usize + header.daemon_len as usize
    }

    fn made(&mut self, progress: Progress) {
        self.progress = self.progress.max(Some(progress));
    }
}

fn wake_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// Makes the read end readable. A full pipe already is; a closed one has nobody to wake.
fn ring(write_end: &OwnedFd) {
    let _ = rustix::io::write(write_end, &[1]);
}
