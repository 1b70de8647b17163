//! The application's side of a segment, in parts that different locks may guard.
//!
//! At most [`Submitter::requests_max`] requests may be under way. The daemon is trusted to own its memory, but not to
//! be free of faults: what cannot be is a [`Violation`], never a panic.
//!
//! Nothing here may be called in a forked child of the process that attached: ask [`crate::fork::Incarnation`] first; a
//! read of a [`DeliveryBuffer`] asks by itself.

use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::area::{Area, Segment, sealed_len};
use crate::batch;
use crate::blocks::{BlockMap, Run};
use crate::daemon::SegmentFds;
use crate::delivery::{DeliveryEntry, Meta, ReleaseKind, encode_release, encode_run};
use crate::handle::Handle;
use crate::layout::{IDLE_CLASS, LayoutError, Word};
use crate::path::PathState;
use crate::primitive::Ordering;
use crate::request::{Completion, PayloadPlace, Submission};
use crate::ring::{Consumer, Producer};
use crate::snapshot;
use crate::violation::Violation;
use crate::wake::{Progress, Sleeper, Waker, sleeps};

/// Bytes of a message that is better copied than read in place.
pub const SHORT_MAX: usize = 64;

/// A segment that was received cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Its header is not one of ours.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It cannot be mapped.
    #[error("cannot map the segment: {0}")]
    Io(#[from] io::Error),
}

/// All parts of the application's side.
#[derive(Debug)]
pub struct ApplicationSide {
    /// Puts requests in.
    pub submitter: Submitter,
    /// Takes completions and deliveries out.
    pub receiver: Receiver,
    /// Gives delivery buffers back.
    pub releaser: Releaser,
    /// Reads path states.
    pub paths: PathReader,
    /// Read end of the pipe to sleep on, blocking: [`take_wake`].
    pub wake: OwnedFd,
}

impl ApplicationSide {
    /// Takes all memory of the segment now, so that no call is ever held up by a page fault.
    pub fn prefault(&self) -> io::Result<()> {
        self.paths.segment.application.populate(true)?;
        self.paths.segment.daemon.populate(false)
    }

    /// Maps what the daemon sent.
    pub fn map(fds: SegmentFds) -> Result<Self, MapError> {
        let application_len = sealed_len(&fds.application)?;
        let daemon_len = sealed_len(&fds.daemon)?;
        let smallest = crate::layout::Word::Release.offset();
        if application_len <= smallest || daemon_len <= smallest {
            return Err(LayoutError::Region { region: "header" }.into());
        }
        let daemon = Area::map(fds.daemon.as_fd(), daemon_len, false)?;
        let header = daemon.read_header();
        header.check(application_len, daemon_len)?;
        let application = Area::map(fds.application.as_fd(), application_len, true)?;
        let segment = Arc::new(Segment::new(application, daemon, header));
        // One blocking read is a whole sleep.
        rustix::io::ioctl_fionbio(&fds.wake, false).map_err(io::Error::from)?;
        let doorbell = Arc::new(fds.doorbell);
        Ok(Self {
            submitter: Submitter {
                segment: Arc::clone(&segment),
                submissions: Producer::default(),
                arena: BlockMap::new(header.submission_arena.len as usize),
                bell: Bell::new(&doorbell),
            },
            receiver: Receiver {
                segment: Arc::clone(&segment),
                completions: Consumer::default(),
                deliveries: Consumer::default(),
                sleeper: Sleeper::default(),
            },
            paths: PathReader {
                segment: Arc::clone(&segment),
            },
            releaser: Releaser {
                segment,
                releases: Producer::default(),
                bell: Bell::new(&doorbell),
                used_up: None,
                kept: 0,
                backlog: VecDeque::new(),
                overflowed: Arc::default(),
            },
            wake: fds.wake,
        })
    }
}

/// One of those who may wake the daemon.
#[derive(Debug)]
struct Bell {
    waker: Waker,
    doorbell: Arc<OwnedFd>,
}

impl Bell {
    fn new(doorbell: &Arc<OwnedFd>) -> Self {
        Self {
            waker: Waker::default(),
            doorbell: Arc::clone(doorbell),
        }
    }

    fn ring_if_asleep(&mut self, segment: &Segment, progress: Progress) {
        if self.waker.must_ring(segment.daemon_sleep(), progress) {
            // Fails only if the counter is full, and then the daemon is being woken already.
            let _ = rustix::io::write(&*self.doorbell, &1u64.to_ne_bytes());
        }
    }
}

/// A payload in the submission arena. To be given back by [`Submitter::unstage`] when its send is completed.
#[derive(Debug)]
pub struct Staged {
    run: Run,
    place: PayloadPlace,
}

impl Staged {
    /// What to put into the request.
    pub fn place(&self) -> PayloadPlace {
        self.place
    }
}

/// Puts requests into the submission ring and their payloads into the arena.
#[derive(Debug)]
pub struct Submitter {
    segment: Arc<Segment>,
    submissions: Producer,
    arena: BlockMap,
    bell: Bell,
}

impl Submitter {
    /// How many requests may be under way: submitted, and their completion not yet taken.
    pub fn requests_max(&self) -> usize {
        self.segment.header.completions.entries as usize
    }

    /// Copies a payload into the arena. `None`: no room now.
    pub fn stage(&mut self, payload: &[u8]) -> Option<Staged> {
        let run = self.arena.take(payload.len())?;
        let place = PayloadPlace {
            offset: run.offset() as u32,
            len: payload.len() as u32,
        };
        let arena = self.segment.header.submission_arena.offset as usize;
        self.segment
            .application
            .copy_in(arena + run.offset(), payload);
        Some(Staged { run, place })
    }

    /// Copies as many of these as make a batch into the arena; gives how many. `None`: no room now, or less than two make
    /// one.
    pub fn stage_several<P: AsRef<[u8]>>(&mut self, payloads: &[P]) -> Option<(Staged, usize)> {
        let (count, len) = batch::extent(payloads);
        if count < 2 {
            return None;
        }
        let run = self.arena.take(len)?;
        let place = PayloadPlace {
            offset: run.offset() as u32,
            len: len as u32,
        };
        let memory = &self.segment.application;
        let mut at = self.segment.header.submission_arena.offset as usize + run.offset();
        for payload in &payloads[..count] {
            let payload = payload.as_ref();
            memory.copy_in(at, &(payload.len() as u32).to_ne_bytes());
            memory.copy_in(at + batch::LEN_WORD, payload);
            at += batch::room(payload.len());
        }
        Some((Staged { run, place }, count))
    }

    /// Makes room again.
    pub fn unstage(&mut self, staged: Staged) {
        self.arena.give_back(staged.run);
    }

    /// Whether the submission ring takes another request.
    pub fn has_room(&mut self) -> Result<bool, Violation> {
        self.submissions.has_room(&self.segment.submissions())
    }

    /// Submits a request. `Ok(false)`: the ring is full.
    pub fn push(&mut self, submission: &Submission) -> Result<bool, Violation> {
        self.submissions
            .push(&self.segment.submissions(), &submission.encode())
    }

    /// After one or several submissions: wakes the daemon if it sleeps.
    pub fn ring_doorbell(&mut self) {
        self.bell.ring_if_asleep(&self.segment, Progress::Work);
    }
}

/// Where the daemon's worker is, seen from a thread that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On another processor, or not known yet: spinning may help.
    Elsewhere,
    /// On this one: it gets on when the thread gives the processor away.
    Here,
    /// On this one, asleep or in SCHED_IDLE: it gets on when the thread sleeps.
    Behind,
}

/// Takes completions and deliveries, and owns the application's sleep word.
#[derive(Debug)]
pub struct Receiver {
    segment: Arc<Segment>,
    completions: Consumer,
    deliveries: Consumer,
    sleeper: Sleeper,
}

impl Receiver {
    /// The next completion.
    pub fn next_completion(&mut self) -> Result<Option<Completion>, Violation> {
        let words = self.completions.pop(&self.segment.completions())?;
        Ok(words.as_ref().map(Completion::decode))
    }

    /// The next message, with its memory.
    pub fn next_delivery(&mut self) -> Result<Option<(Meta, DeliveryBuffer)>, Violation> {
        Ok(self.look_at_delivery()?.map(Delivery::take))
    }

    /// The next message, which stays in the ring unless it is taken.
    #[inline(always)]
    pub fn look_at_delivery(&mut self) -> Result<Option<Delivery<'_>>, Violation> {
        let Some(words) = self.deliveries.front(&self.segment.deliveries())? else {
            return Ok(None);
        };
        let entry = DeliveryEntry::decode(&words, self.segment.header.delivery_arena.len)?;
        Ok(Some(Delivery {
            receiver: self,
            entry,
        }))
    }

    #[inline]
    fn take_out(&mut self) {
        self.deliveries.release(&self.segment.deliveries());
    }

    /// Whether there is a completion that was not taken out.
    pub fn has_completion(&self) -> bool {
        let tail = self.segment.daemon.word(Word::Completion);
        !self.completions.is_drained(tail)
    }

    /// Whether the daemon has published something that was not taken out.
    pub fn has_next(&self) -> bool {
        let tail = self.segment.daemon.word(Word::Delivery);
        self.has_completion() || !self.deliveries.is_drained(tail)
    }

    /// Whether messages wait for memory that others hold: whoever waits for one is to have them kept
    /// ([`Releaser::keep`]).
    pub fn is_crowded(&self) -> bool {
        self.segment.crowded().load(Ordering::Relaxed) != 0
    }

    /// Where the daemon's worker is, seen from the calling thread. A hint: a wrong one costs time, nothing else.
    pub fn place_of_daemon(&self) -> Place {
        let daemon = self.segment.daemon_processor().load(Ordering::Relaxed);
        if rustix::thread::sched_getcpu() != (daemon & !IDLE_CLASS) as usize {
            Place::Elsewhere
        } else if daemon & IDLE_CLASS != 0 || sleeps(self.segment.daemon_sleep()) {
            Place::Behind
        } else {
            Place::Here
        }
    }

    /// Announces that a thread is about to sleep on the wake fd. The caller then looks at the rings once more, and
    /// sleeps only if there was nothing. `wants_room`: wake also when only submissions were taken or posted sends
    /// answered.
    pub fn announce_sleep(&mut self, wants_room: bool) {
        self.sleeper
            .announce(self.segment.application_sleep(), wants_room);
    }

    /// Says that the caller only waits, on the worker's processor, and gives that away between two looks.
    pub fn stand_by(&mut self, wants_room: bool) {
        self.sleeper
            .stand_by(self.segment.application_sleep(), wants_room);
    }

    /// Takes the announcement back.
    pub fn awake(&mut self) {
        self.sleeper.awake(self.segment.application_sleep());
    }
}

/// A message in the delivery ring.
#[derive(Debug)]
pub struct Delivery<'a> {
    receiver: &'a mut Receiver,
    entry: DeliveryEntry,
}

impl Delivery<'_> {
    /// All about it but its bytes.
    #[inline]
    pub fn meta(&self) -> &Meta {
        &self.entry.meta
    }

    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.entry.payload.len as usize
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entry.payload.len == 0
    }

    /// The bytes of a message that has at most [`SHORT_MAX`], and any others behind them. `None`: it is longer, or empty.
    #[inline]
    pub fn short(&self) -> Option<&[u8; SHORT_MAX]> {
        let arena = self.receiver.segment.header.delivery_arena;
        let place = self.entry.payload;
        let is_short = (1..=SHORT_MAX).contains(&self.len());
        if !is_short || arena.len - place.offset < SHORT_MAX as u32 {
            return None;
        }
        let at = arena.offset as usize + place.offset as usize;
        // SAFETY: the daemon gave these bytes, which lie in one block, to this message alone and does not write them until it
        // is returned, which consumes `self`; nobody else can write the area at all (sealed).
        let bytes = unsafe { self.receiver.segment.daemon.bytes(at, SHORT_MAX) };
        bytes.first_chunk()
    }

    /// Takes it out, with its memory.
    pub fn take(self) -> (Meta, DeliveryBuffer) {
        let buffer = DeliveryBuffer(Memory::Shared {
            segment: Arc::clone(&self.receiver.segment),
            handle: self.entry.handle,
            place: self.entry.payload,
        });
        self.receiver.take_out();
        (self.entry.meta, buffer)
    }

    /// Takes it out for a reader who has a copy of it. After one or several: [`Releaser::ring_doorbell`].
    #[inline]
    pub fn use_up(self, releaser: &mut Releaser) -> Result<(), Violation> {
        self.receiver.take_out();
        releaser.note_used_up(self.entry.handle)
    }
}

/// Memory of a delivered message; only the daemon can write it, and does not until it is returned. Or that of the
/// process, if the message is kept.
///
/// Dropping it without [`Releaser::returned`] keeps its room taken until the attachment ends.
#[derive(Debug)]
pub struct DeliveryBuffer(Memory);

#[derive(Debug)]
enum Memory {
    Shared {
        segment: Arc<Segment>,
        handle: Handle,
        place: PayloadPlace,
    },
    Kept {
        id: u64,
        bytes: Box<[u8]>,
    },
}

impl DeliveryBuffer {
    /// The number of a message that is kept.
    pub fn kept_id(&self) -> Option<u64> {
        match self.0 {
            Memory::Shared { .. } => None,
            Memory::Kept { id, .. } => Some(id),
        }
    }

    /// How the release ring names it.
    fn id(&self) -> (u64, ReleaseKind) {
        match self.0 {
            Memory::Shared { handle, .. } => (handle.bits(), ReleaseKind::empty()),
            Memory::Kept { id, .. } => (id, ReleaseKind::KEPT),
        }
    }
}

impl Deref for DeliveryBuffer {
    type Target = [u8];

    /// # Panics
    /// In a forked child of the process that received the message: its memory is not there.
    fn deref(&self) -> &[u8] {
        let (segment, place) = match &self.0 {
            Memory::Shared { segment, place, .. } => (segment, place),
            Memory::Kept { bytes, .. } => return bytes,
        };
        assert!(
            segment.daemon.is_mapped_here(),
            "a TIPC message cannot be read in a forked child of the process that received it"
        );
        let arena = segment.header.delivery_arena.offset as usize;
        let at = arena + place.offset as usize;
        // SAFETY: the daemon gave this run to this buffer alone and does not write it until it is returned, which
        // consumes the buffer; nobody else can write the area at all (sealed).
        unsafe { segment.daemon.bytes(at, place.len as usize) }
    }
}

/// Reads what the daemon shows of paths. No lock, no system call.
#[derive(Debug)]
pub struct PathReader {
    segment: Arc<Segment>,
}

impl PathReader {
    /// The state of the path in a slot. `None`: the daemon stands still in the middle of a change, or there is no such
    /// slot.
    pub fn read(&self, slot: u32) -> Option<PathState> {
        let words = snapshot::read(self.segment.path(slot)?)?;
        Some(PathState::decode(&words))
    }
}

/// Messages that were used up in the order in which they were delivered.
#[derive(Clone, Copy, Debug)]
struct UsedUp {
    first: Handle,
    more: u8,
    /// The message that makes it one more.
    next: Handle,
}

/// Gives delivery buffers back to the daemon.
#[derive(Debug)]
pub struct Releaser {
    segment: Arc<Segment>,
    releases: Producer,
    bell: Bell,
    /// Those used up that have no entry yet.
    used_up: Option<UsedUp>,
    /// Messages kept so far.
    kept: u64,
    /// Entries that found the ring full. Of buffers in the arena there are never so many, but of kept messages.
    backlog: VecDeque<u64>,
    overflowed: Arc<AtomicBool>,
}

impl Releaser {
    /// Reports that recv handed the message to its caller. After one or several: [`Releaser::ring_doorbell`].
    pub fn consumed(&mut self, buffer: &DeliveryBuffer) -> Result<(), Violation> {
        let (id, kind) = buffer.id();
        self.enter(id, kind | ReleaseKind::CONSUMED)
    }

    /// Makes the entries that are still to be made, and wakes the daemon if it sleeps and waits for room.
    pub fn ring_doorbell(&mut self) -> Result<(), Violation> {
        self.enter_used_up()?;
        self.bell.ring_if_asleep(&self.segment, Progress::Room);
        Ok(())
    }

    /// Gives the memory back.
    pub fn returned(&mut self, buffer: DeliveryBuffer) -> Result<(), Violation> {
        let (id, kind) = buffer.id();
        self.push(id, kind | ReleaseKind::RETURNED)
    }

    /// Both at once, for a message that was just delivered and that nobody needs to see.
    pub fn discarded(&mut self, buffer: DeliveryBuffer) -> Result<(), Violation> {
        self.used_up(buffer)?;
        self.ring_doorbell()
    }

    /// The same for a message that its reader has a copy of. After one or several: [`Releaser::ring_doorbell`].
    pub fn used_up(&mut self, buffer: DeliveryBuffer) -> Result<(), Violation> {
        match buffer.0 {
            Memory::Shared { handle, .. } => self.note_used_up(handle),
            Memory::Kept { id, .. } => self.enter(id, ReleaseKind::KEPT | ReleaseKind::CONSUMED),
        }
    }

    #[inline]
    fn note_used_up(&mut self, handle: Handle) -> Result<(), Violation> {
        if let Some(run) = &mut self.used_up
            && run.next == handle
            && run.more < u8::MAX
        {
            run.more += 1;
            run.next = handle.next();
            return Ok(());
        }
        self.enter_used_up()?;
        self.used_up = Some(UsedUp {
            first: handle,
            more: 0,
            next: handle.next(),
        });
        Ok(())
    }

    fn enter_used_up(&mut self) -> Result<(), Violation> {
        match self.used_up.take() {
            Some(run) => self.enter(encode_run(run.first, run.more), ReleaseKind::USED_UP),
            None => Ok(()),
        }
    }

    /// Copies a message that nobody has read to memory of the process, and gives the shared memory back.
    pub fn keep(&mut self, buffer: &mut DeliveryBuffer) -> Result<(), Violation> {
        let Memory::Shared { handle, .. } = buffer.0 else {
            return Ok(());
        };
        buffer.0 = Memory::Kept {
            id: self.kept,
            bytes: Box::from(&buffer[..]),
        };
        self.kept += 1;
        self.push(handle.bits(), ReleaseKind::KEPT)
    }

    /// Whether entries found the ring full, to be looked at without a lock. Whoever finds that is to call
    /// [`Releaser::flush`] until they are gone, letting the daemon work in between.
    pub fn overflowed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.overflowed)
    }

    /// Puts what found the ring full into it. False: some of it still does.
    pub fn flush(&mut self) -> Result<bool, Violation> {
        let ring = self.segment.releases();
        while let Some(word) = self.backlog.front() {
            if !self.releases.push(&ring, &[*word])? {
                self.bell.ring_if_asleep(&self.segment, Progress::Work);
                return Ok(false);
            }
            self.backlog.pop_front();
        }
        self.overflowed.store(false, Ordering::Relaxed);
        self.bell.ring_if_asleep(&self.segment, Progress::Room);
        Ok(true)
    }

    fn push(&mut self, id: u64, kind: ReleaseKind) -> Result<(), Violation> {
        self.enter(id, kind)?;
        self.ring_doorbell()
    }

    fn enter(&mut self, id: u64, kind: ReleaseKind) -> Result<(), Violation> {
        let word = encode_release(id, kind);
        let ring = self.segment.releases();
        if self.backlog.is_empty() && self.releases.push(&ring, &[word])? {
            return Ok(());
        }
        self.backlog.push_back(word);
        self.overflowed.store(true, Ordering::Relaxed);
        self.flush().map(drop)
    }
}

/// Waits on [`ApplicationSide::wake`] until the daemon has written to it, and empties it as far as one read does: what is
/// left makes the next sleep short.
pub fn take_wake(read_end: BorrowedFd<'_>) -> Wake {
    match rustix::io::read(read_end, &mut [0u8; 256]) {
        Ok(0) => Wake::Gone,
        Err(rustix::io::Errno::INTR) => Wake::Signal,
        _ => Wake::Called,
    }
}

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The daemon, or the time was over.
    Called,
    /// A signal whose handler does not want system calls to be restarted.
    Signal,
    /// The daemon is gone.
    Gone,
}

/// Empties a pipe the daemon writes to. Callers then look for what they were woken for. False: the daemon closed it.
pub fn drain_wake(read_end: BorrowedFd<'_>) -> bool {
    let mut bytes = [0u8; 256];
    loop {
        match rustix::io::read(read_end, &mut bytes) {
            Ok(0) => return false,
            Ok(256) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::area::make_memfd;
    use crate::layout::{Header, Sizes};
    use proptest::prelude::*;
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::pipe::{PipeFlags, pipe_with};

    /// A segment whose daemon area stays writable through the fd, as no daemon would make it.
    fn unguarded() -> (ApplicationSide, OwnedFd, Header) {
        let header = Header::lay_out(&Sizes {
            submissions: 8,
            deliveries: 8,
            submission_arena: 128 << 10,
            delivery_arena: 128 << 10,
        })
        .expect("possible sizes");
        let application = make_memfd("test", header.application_len as usize).expect("memfd");
        let daemon = make_memfd("test", header.daemon_len as usize).expect("memfd");
        Area::map(daemon.as_fd(), header.daemon_len as usize, true)
            .expect("map")
            .write_header(&header);
        let writer = daemon.try_clone().expect("fd");
        let side = ApplicationSide::map(SegmentFds {
            application,
            daemon,
            doorbell: eventfd(0, EventfdFlags::CLOEXEC).expect("event fd"),
            wake: pipe_with(PipeFlags::CLOEXEC).expect("pipe").0,
        });
        (side.expect("a good header"), writer, header)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_word_a_daemon_can_write_makes_the_application_panic_or_stay(
            writes in proptest::collection::vec((any::<bool>(), 0u64..600, prop_oneof![
                any::<u64>(), 0u64..20, (0u64..=1 << 17).prop_map(|len| len << 32),
            ]), 1..60),
        ) {
            let (mut side, daemon, header) = unguarded();
            let mut taken = 0;
            for (cursor, word, value) in writes {
                let offset = if cursor { 1024 + word % 6 * 128 } else { 4096 + word * 8 };
                rustix::io::pwrite(&daemon, &value.to_ne_bytes(), offset).expect("write");
                while let Ok(Some((_, buffer))) = side.receiver.next_delivery() {
                    prop_assert!(buffer.len() <= header.delivery_arena.len as usize);
                    prop_assert_eq!(buffer.iter().count(), buffer.len());
                    let _ = side.releaser.consumed(&buffer);
                    let _ = side.releaser.returned(buffer);
                    taken += 1;
                    prop_assert!(taken <= 8 * 60);
                }
                while let Ok(Some(_)) = side.receiver.next_completion() {
                    taken += 1;
                    prop_assert!(taken <= 24 * 60);
                }
                let _ = side.submitter.has_room();
            }
        }
    }
}
