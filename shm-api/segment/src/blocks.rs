//! Allocator for an arena of 256-byte blocks, freed in any order. Private to the side that writes the arena: nothing
//! of it is shared.
//!
//! First fit from the lowest address, so that the part of the arena in use stays small and warm.

/// Every buffer starts and is rounded up to a multiple of this: a buffer never shares a cache line with another, and
/// copies are aligned.
pub(crate) const BLOCK: usize = 256;

/// A run of blocks. Empty for an empty payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    first: u32,
    count: u32,
}

impl Run {
    /// Of no blocks, from this one on.
    pub(crate) fn empty_at(first: u32) -> Self {
        Self { first, count: 0 }
    }

    /// With the run that begins where this one ends.
    #[inline]
    pub(crate) fn and(self, next: Self) -> Self {
        debug_assert_eq!(self.first + self.count, next.first);
        Self {
            count: self.count + next.count,
            ..self
        }
    }

    /// Its first block.
    #[inline]
    pub(crate) fn first(self) -> u32 {
        self.first
    }

    /// Byte offset in the arena.
    pub(crate) fn offset(self) -> usize {
        self.first as usize * BLOCK
    }
}

/// Which blocks of an arena are taken.
#[derive(Debug)]
pub(crate) struct BlockMap {
    /// One bit per block, set = taken. Bits past `blocks` are set for ever.
    words: Vec<u64>,
    /// No word below this one has a free block.
    lowest: usize,
    /// Runs of this many blocks or more did not fit, and nothing was freed since.
    too_large: u32,
}

impl BlockMap {
    pub(crate) fn new(arena_len: usize) -> Self {
        let blocks = arena_len / BLOCK;
        let mut words = vec![0u64; blocks.div_ceil(64)];
        if let (Some(last), rest @ 1..) = (words.last_mut(), blocks % 64) {
            *last = u64::MAX << rest;
        }
        Self {
            words,
            lowest: 0,
            too_large: u32::MAX,
        }
    }

    /// Takes room for `len` bytes, or `None` if no run of free blocks is long enough.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<Run> {
        // Nearly all messages are this small.
        if (1..=BLOCK).contains(&len)
            && let Some(word) = self.words.get_mut(self.lowest)
            && *word != u64::MAX
        {
            let bit = word.trailing_ones();
            *word |= 1 << bit;
            let first = self.lowest as u32 * 64 + bit;
            return Some(Run { first, count: 1 });
        }
        self.take_anywhere(len)
    }

    fn take_anywhere(&mut self, len: usize) -> Option<Run> {
        let count = u32::try_from(len.div_ceil(BLOCK)).ok()?;
        if count == 0 {
            return Some(Run { first: 0, count });
        }
        if count >= self.too_large {
            return None;
        }
        while self.words.get(self.lowest) == Some(&u64::MAX) {
            self.lowest += 1;
        }
        let Some(first) = self.find(count as usize) else {
            self.too_large = count;
            return None;
        };
        let run = Run {
            first: first as u32,
            count,
        };
        self.for_each_word(run, |word, mask| *word |= mask);
        Some(run)
    }

    /// Gives a run back.
    pub(crate) fn give_back(&mut self, run: Run) {
        if run.count == 0 {
            return;
        }
        self.for_each_word(run, |word, mask| {
            debug_assert_eq!(*word & mask, mask, "a block was given back twice");
            *word &= !mask;
        });
        self.lowest = self.lowest.min(run.first as usize / 64);
        self.too_large = u32::MAX;
    }

    /// The lowest run of `count` free blocks.
    fn find(&self, count: usize) -> Option<usize> {
        // What is free from here on, as far as was looked.
        let mut start = self.lowest * 64;
        for (index, &word) in self.words.iter().enumerate().skip(self.lowest) {
            let (begin, mut taken) = (index * 64, word);
            while taken != 0 {
                let stop = begin + taken.trailing_zeros() as usize;
                if stop - start >= count {
                    return Some(start);
                }
                // The taken ones at the stop are full of zeros from there on.
                let filled = taken | (taken - 1);
                start = begin + filled.trailing_ones() as usize;
                taken &= filled.wrapping_add(1);
            }
            if begin + 64 - start >= count {
                return Some(start);
            }
        }
        None
    }

    fn for_each_word(&mut self, run: Run, mut change: impl FnMut(&mut u64, u64)) {
        let mut at = run.first as usize;
        let end = at + run.count as usize;
        while at < end {
            let bits = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - bits)) << (at % 64);
            change(&mut self.words[at / 64], mask);
            at += bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_never_overlap_and_first_fit_finds_room_when_there_is_any(
            steps in proptest::collection::vec((any::<bool>(), 0usize..40_000, any::<prop::sample::Index>()), 1..200)
        ) {
            const BLOCKS: usize = 300;
            let mut map = BlockMap::new(BLOCKS * BLOCK);
            let mut taken = [false; BLOCKS];
            let mut runs: Vec<Run> = Vec::new();
            for (take, len, which) in steps {
                if take {
                    let count = len.div_ceil(BLOCK);
                    let fits = count == 0 || taken.windows(count).any(|w| w.iter().all(|t| !t));
                    match map.take(len) {
                        Some(run) => {
                            prop_assert!(fits);
                            for block in &mut taken[run.first as usize..][..count] {
                                prop_assert!(!*block);
                                *block = true;
                            }
                            runs.push(run);
                        }
                        None => prop_assert!(!fits),
                    }
                } else if !runs.is_empty() {
                    let run = runs.swap_remove(which.index(runs.len()));
                    taken[run.first as usize..][..run.count as usize].fill(false);
                    map.give_back(run);
                }
            }
        }
    }

    #[test]
    fn the_lowest_free_block_is_used_again_first() {
        let mut map = BlockMap::new(1 << 20);
        let first = map.take(64).expect("empty arena");
        map.take(64).expect("room");
        map.give_back(first);
        assert_eq!(map.take(64), Some(first));
    }
}
