//! Sleeping and waking without system calls while both sides are busy.
//!
//! ```text
//! sleeper                                waker
//!   word := new epoch                      publish (ring tail or head)
//!   fence                                  fence
//!   look at the rings once more            word = 0, or already rung? nothing to do
//!   nothing there: poll(wake fd)           else write to the wake fd
//!   word := 0, drain the wake fd
//! ```
//!
//! The two fences order the accesses so that at least one side sees the other: the sleeper sees what was published or
//! the waker sees the word. The word is written by its owner only (the waker may have it mapped read-only), therefore
//! it carries an epoch: the waker rings once per epoch, however much it publishes until the sleeper runs. A wake-up
//! that comes late only makes the next sleep short. Who drained the wake fd must look at the rings again, and must
//! announce a new epoch before it sleeps.
//!
//! Bit 0 of the word asks to be woken also when only room was made (entries taken out of a ring, buffers returned).
//!
//! A side that shares the processor of the other can *stand by* instead of sleeping: it looks at the rings again and
//! again, and gives the processor away in between. Bit 1 of its word says so. That is a hint, on which nothing depends:
//! the other side needs no write to the wake fd, but is to give the processor back when it has published something.

use crate::primitive::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const WANTS_ROOM: u32 = 1;
const STANDS_BY: u32 = 2;
const EPOCH_SHIFT: u32 = 2;

/// The owner of a sleep word.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    epoch: u32,
}

impl Sleeper {
    /// Announces a sleep. The caller then looks at the rings once more, and only if there is nothing, sleeps.
    pub(crate) fn announce(&mut self, word: &AtomicU32, wants_room: bool) {
        // 30 bits, never 0: an epoch of 0 would read as awake.
        self.epoch = (self.epoch + 1) & (u32::MAX >> EPOCH_SHIFT);
        if self.epoch == 0 {
            self.epoch = 1;
        }
        let room = if wants_room { WANTS_ROOM } else { 0 };
        word.store(self.epoch << EPOCH_SHIFT | room, Ordering::Relaxed);
        // SYNC POINT with the fence in `Waker::must_ring`.
        fence(Ordering::SeqCst);
    }

    /// Number of the last announcement.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Says that it only waits, on a processor that the other side needs too.
    pub(crate) fn stand_by(&mut self, word: &AtomicU32, wants_room: bool) {
        let room = if wants_room { WANTS_ROOM } else { 0 };
        word.store(STANDS_BY | room, Ordering::Relaxed);
    }

    /// Takes the announcement back.
    pub(crate) fn awake(&mut self, word: &AtomicU32) {
        word.store(AWAKE, Ordering::Relaxed);
    }
}

/// In place of a sleep word: the other side shall publish nothing more. Its last entry may be too late; where this side
/// looked for the last time it tells in another way.
pub(crate) const REVOKED: u32 = u32::MAX;

/// Revokes. The caller then looks at the ring for the last time.
pub(crate) fn revoke(word: &AtomicU32) {
    word.store(REVOKED, Ordering::Relaxed);
    // SYNC POINT with the fence in `Waker::call`: the publisher sees this, or what it published is seen.
    fence(Ordering::SeqCst);
}

/// Whether a side has announced to sleep.
pub(crate) fn sleeps(word: &AtomicU32) -> bool {
    word.load(Ordering::Relaxed) >> EPOCH_SHIFT != 0
}

/// Whether a side stands by.
pub(crate) fn stands_by(word: &AtomicU32) -> bool {
    let seen = word.load(Ordering::Relaxed);
    seen != REVOKED && seen & STANDS_BY != 0
}

/// What the waker has done since it last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// Entries were taken out or buffers returned: room for a sleeper that asked for room.
    Room,
    /// Entries were put in: something to do for the sleeper.
    Work,
}

/// What the other side needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Nothing,
    /// It stands by: the processor, as soon as it can be spared.
    Processor,
    /// It sleeps: a write to its wake fd.
    Bell,
}

/// The side that publishes.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    rung: u32,
}

impl Waker {
    /// After publishing: is a write to the wake fd due?
    pub(crate) fn must_ring(&mut self, word: &AtomicU32, progress: Progress) -> bool {
        self.call(word, progress) == Call::Bell
    }

    /// After publishing: what is due?
    pub(crate) fn call(&mut self, word: &AtomicU32, progress: Progress) -> Call {
        // SYNC POINT with the fence in `Sleeper::announce`.
        fence(Ordering::SeqCst);
        let seen = word.load(Ordering::Relaxed);
        if seen == AWAKE || seen == self.rung {
            return Call::Nothing;
        }
        if progress == Progress::Room && seen & WANTS_ROOM == 0 {
            return Call::Nothing;
        }
        if seen & STANDS_BY != 0 {
            return Call::Processor;
        }
        self.rung = seen;
        Call::Bell
    }
}
