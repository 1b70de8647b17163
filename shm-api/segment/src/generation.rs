//! A word that counts changes of something, for who must not act on what it was before.
//!
//! Who makes a change known does so behind [`change`]: whoever knows of it reads another count. And who reads another count
//! sees what was changed before it.

use crate::primitive::{AtomicU32, Ordering, fence};

/// There is a change.
pub(crate) fn change(word: &AtomicU32) {
    // SYNC POINT with the fence in `read`.
    word.fetch_add(1, Ordering::Release);
}

/// The count.
pub(crate) fn read(word: &AtomicU32) -> u32 {
    let generation = word.load(Ordering::Relaxed);
    // SYNC POINT with the addition in `change`.
    fence(Ordering::Acquire);
    generation
}
