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

use crate::primitive::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const WANTS_ROOM: u32 = 1;

/// The owner of a sleep word.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    epoch: u32,
}

impl Sleeper {
    /// Announces a sleep. The caller then looks at the rings once more, and only if there is nothing, sleeps.
    pub(crate) fn announce(&mut self, word: &AtomicU32, wants_room: bool) {
        // 31 bits, never 0: an epoch of 0 would read as awake.
        self.epoch = (self.epoch + 1) & (u32::MAX >> 1);
        if self.epoch == 0 {
            self.epoch = 1;
        }
        let room = if wants_room { WANTS_ROOM } else { 0 };
        word.store(self.epoch << 1 | room, Ordering::Relaxed);
        // SYNC POINT with the fence in `Waker::must_ring`.
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back.
    pub(crate) fn awake(&mut self, word: &AtomicU32) {
        word.store(AWAKE, Ordering::Relaxed);
    }
}

/// What the waker has done since it last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// Entries were taken out or buffers returned: room for a sleeper that asked for room.
    Room,
    /// Entries were put in: something to do for the sleeper.
    Work,
}

/// The side that publishes.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    rung: u32,
}

impl Waker {
    /// After publishing: is a write to the wake fd due?
    pub(crate) fn must_ring(&mut self, word: &AtomicU32, progress: Progress) -> bool {
        // SYNC POINT with the fence in `Sleeper::announce`.
        fence(Ordering::SeqCst);
        let seen = word.load(Ordering::Relaxed);
        if seen == AWAKE || seen == self.rung {
            return false;
        }
        if progress == Progress::Room && seen & WANTS_ROOM == 0 {
            return false;
        }
        self.rung = seen;
        true
    }
}
