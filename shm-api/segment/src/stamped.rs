//! Ring whose entries carry their own number: single producer, single consumer, both writable memory.
//!
//! Word 0 of an entry holds a stamp in its low half, the number of the entry from 1 on, and 32 bits for its user. It is
//! written last, so an entry is there when its stamp is, and who looks for it touches the lines of the entry alone.
//! How much room there is the two sides tell each other in their own way; a producer that runs ahead writes over what
//! was not read, to its own harm.

use crate::primitive::{AtomicU64, Ordering};

/// The entries; their number is a power of two.
pub(crate) type Entries<'a, const W: usize> = &'a [[AtomicU64; W]];

fn entry<const W: usize>(entries: Entries<'_, W>, number: u32) -> &[AtomicU64; W] {
    &entries[number as usize & (entries.len() - 1)]
}

fn stamp(number: u32) -> u32 {
    number.wrapping_add(1)
}

/// The writing end.
#[derive(Debug, Default)]
pub(crate) struct StampedProducer {
    next: u32,
}

impl StampedProducer {
    /// Number of the next entry: how many were written.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Appends an entry: `head` for its user, and further words that `write` stores. The caller knows that there is room.
    pub(crate) fn push<const W: usize>(
        &mut self,
        entries: Entries<'_, W>,
        head: u32,
        write: impl FnOnce(&[AtomicU64]),
    ) {
        let entry = entry(entries, self.next);
        write(&entry[1..]);
        let word = u64::from(head) << 32 | u64::from(stamp(self.next));
        self.next = self.next.wrapping_add(1);
        // SYNC POINT with the load in `StampedConsumer::peek`.
        entry[0].store(word, Ordering::Release);
    }
}

/// The reading end. A copy of it looks for the same entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StampedConsumer {
    next: u32,
}

impl StampedConsumer {
    /// Number of the next entry: how many were read.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// The next entry, if it is there: what its user put into word 0, and all of its words, of which the first is to be
    /// let alone.
    pub(crate) fn peek<'a, const W: usize>(
        &self,
        entries: Entries<'a, W>,
    ) -> Option<(u32, &'a [AtomicU64; W])> {
        let entry = entry(entries, self.next);
        // SYNC POINT with the store in `StampedProducer::push`.
        let word = entry[0].load(Ordering::Acquire);
        (word as u32 == stamp(self.next)).then_some(((word >> 32) as u32, entry))
    }

    /// Goes on to the entry behind it.
    pub(crate) fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
    }
}
