//! Which counters of one key have been seen (`docs/protocol/crypto.md`, replay).

/// Counters behind the highest that may still come. Networks reorder far less; a sender counts the frames of all
/// its links together.
const WINDOW: u64 = 2048;
const WORDS: usize = (WINDOW / 64) as usize;

/// The last counters received.
#[derive(Clone, Debug)]
pub(super) struct Window {
    highest: u64,
    /// Bit `n % WINDOW` for counter `n`, of the last `WINDOW` ones.
    seen: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            highest: 0,
            seen: [0; WORDS],
        }
    }
}

impl Window {
    /// Notes a counter. False if it was seen before, or is too old to tell.
    pub(super) fn note(&mut self, counter: u64) -> bool {
        if counter > self.highest {
            let ahead = counter - self.highest;
            if ahead >= WINDOW {
                self.seen.fill(0);
            } else {
                (self.highest + 1..=counter).for_each(|n| *self.word(n) &= !bit(n));
            }
            self.highest = counter;
        } else if self.highest - counter >= WINDOW {
            return false;
        }
        let word = self.word(counter);
        let is_new = *word & bit(counter) == 0;
        *word |= bit(counter);
        is_new
    }

    fn word(&mut self, counter: u64) -> &mut u64 {
        &mut self.seen[(counter % WINDOW / 64) as usize]
    }
}

fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn what_is_new_passes_once_also_out_of_order() {
        let mut window = Window::default();
        for counter in [5, 3, 4, 100_000, 99_000] {
            assert!(window.note(counter), "{counter}");
            assert!(!window.note(counter), "{counter} again");
        }
        assert!(!window.note(100_000 - WINDOW));
        assert!(window.note(100_001 - WINDOW));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(steps in prop::collection::vec(0u64..4096, 1..400)) {
            let (mut window, mut seen, mut highest) = (Window::default(), HashSet::new(), 0);
            for (n, step) in steps.into_iter().enumerate() {
                let counter = 1 + n as u64 * 40 + step;
                highest = highest.max(counter);
                let expected = highest - counter < WINDOW && seen.insert(counter);
                prop_assert_eq!(window.note(counter), expected);
            }
        }
    }
}
