//! A few words that one side writes and the other reads whenever it likes: it sees all of one state or all of the next,
//! never parts of two. The reader takes no lock and makes no system call.
//!
//! The first word counts the writes and is odd during one.

use crate::primitive::{AtomicU64, Ordering, fence};

/// Words of a snapshot, the count among them.
#[cfg(not(loom))]
pub(crate) const SNAPSHOT_WORDS: usize = 8;
/// Words of a state.
#[cfg(not(loom))]
pub(crate) const STATE_WORDS: usize = SNAPSHOT_WORDS - 1;
/// Looks of a reader before it gives up: a write takes some nanoseconds, but its writer can be interrupted, or end.
#[cfg(not(loom))]
const LOOKS_MAX: u32 = 100_000;

/// Writes a state. One writer only.
#[cfg(not(loom))]
pub(crate) fn write(words: &[AtomicU64; SNAPSHOT_WORDS], state: &[u64; STATE_WORDS]) {
    let [count, rest @ ..] = words;
    write_words(count, rest, state);
}

/// The same for any number of words, as the model check has fewer.
fn write_words(count: &AtomicU64, rest: &[AtomicU64], state: &[u64]) {
    let before = count.load(Ordering::Relaxed);
    count.store(before.wrapping_add(1), Ordering::Relaxed);
    // SYNC(count): pairs with the acquire fence in `read`: who sees a word stored below sees the odd count too.
    fence(Ordering::Release);
    for (word, value) in rest.iter().zip(state) {
        word.store(*value, Ordering::Relaxed);
    }
    // SYNC(count): pairs with the acquire load in `read`.
    count.store(before.wrapping_add(2), Ordering::Release);
}

/// Reads a state once. False: it is being written.
fn look(count: &AtomicU64, rest: &[AtomicU64], state: &mut [u64]) -> bool {
    let before = count.load(Ordering::Acquire);
    if !before.is_multiple_of(2) {
        return false;
    }
    for (value, word) in state.iter_mut().zip(rest) {
        *value = word.load(Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    count.load(Ordering::Relaxed) == before
}

/// Reads a state. `None`: its writer does not come to an end.
#[cfg(not(loom))]
pub(crate) fn read(words: &[AtomicU64; SNAPSHOT_WORDS]) -> Option<[u64; STATE_WORDS]> {
    let [count, rest @ ..] = words;
    let mut state = [0; STATE_WORDS];
    for _ in 0..LOOKS_MAX {
        if look(count, rest, &mut state) {
            return Some(state);
        }
        std::hint::spin_loop();
    }
    None
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn a_reader_sees_no_part_of_a_state_that_is_being_written() {
        loom::model(|| {
            let shared = Arc::new((AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)]));
            let writer = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    for n in 1..=2 {
                        write_words(&shared.0, &shared.1, &[n, n]);
                    }
                })
            };
            let mut state = [0; 2];
            if look(&shared.0, &shared.1, &mut state) {
                assert_eq!(state[0], state[1]);
            }
            writer.join().expect("the writer ends");
            assert!(look(&shared.0, &shared.1, &mut state));
            assert_eq!(state, [2, 2]);
        });
    }
}
