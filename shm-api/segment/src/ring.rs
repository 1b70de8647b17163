//! Single-producer single-consumer ring of fixed-size entries in memory shared with a process that is not trusted.
//!
//! Head and tail are free-running 32-bit counters, each written by one side only and on a cache line of its own. Each
//! side keeps its own counter in private memory and publishes it; what it reads is the other side's counter, once,
//! and checked: a distance above the capacity is a [`Violation`]. Entries are arrays of relaxed atomic words, so a
//! process that writes an entry while it is read yields garbage values but never undefined behaviour.
//!
//! The memory is passed to each call as a [`RingMemory`] view, so that the cursors can live beside the mapping.

use crate::primitive::{AtomicU32, AtomicU64, Ordering, fence};
use crate::violation::Violation;

/// View of one ring: both cursors and the entries of `W` words. The number of entries is a power of two.
#[derive(Clone, Copy)]
pub(crate) struct RingMemory<'a, const W: usize> {
    pub(crate) name: &'static str,
    pub(crate) head: &'a AtomicU32,
    pub(crate) tail: &'a AtomicU32,
    pub(crate) entries: &'a [[AtomicU64; W]],
}

impl<const W: usize> RingMemory<'_, W> {
    fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    fn entry(&self, counter: u32) -> &[AtomicU64; W] {
        &self.entries[self.place(counter)]
    }

    fn place(&self, counter: u32) -> usize {
        counter as usize & (self.entries.len() - 1)
    }

    /// Entries between `head` and `tail`, if that is possible at all.
    fn distance(&self, head: u32, tail: u32) -> Result<u32, Violation> {
        let distance = tail.wrapping_sub(head);
        if distance > self.capacity() {
            return Err(Violation::Cursor {
                ring: self.name,
                distance,
                capacity: self.capacity(),
            });
        }
        Ok(distance)
    }
}

/// Loads the other side's cursor. Relaxed load and fence, since one of the areas is mapped read-only and only relaxed
/// loads are promised to work there.
fn load_acquire(cursor: &AtomicU32) -> u32 {
    let value = cursor.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    value
}

/// The writing end. Owns the tail.
#[derive(Debug, Default)]
pub(crate) struct Producer {
    tail: u32,
    head_seen: u32,
}

impl Producer {
    /// Free entries, reading the consumer's cursor.
    pub(crate) fn free<const W: usize>(
        &mut self,
        ring: &RingMemory<'_, W>,
    ) -> Result<u32, Violation> {
        // SYNC POINT with the store of `head` in `Consumer::pop`.
        self.head_seen = load_acquire(ring.head);
        Ok(ring.capacity() - ring.distance(self.head_seen, self.tail)?)
    }

    /// How many entries the consumer has not taken.
    pub(crate) fn untaken<const W: usize>(
        &self,
        ring: &RingMemory<'_, W>,
    ) -> Result<u32, Violation> {
        ring.distance(load_acquire(ring.head), self.tail)
    }

    /// Whether an entry would fit; reads the consumer's cursor only if it must.
    pub(crate) fn has_room<const W: usize>(
        &mut self,
        ring: &RingMemory<'_, W>,
    ) -> Result<bool, Violation> {
        self.has_more_than(ring, 0)
    }

    /// Whether more than `reserve` entries are free; reads the consumer's cursor only if it must.
    pub(crate) fn has_more_than<const W: usize>(
        &mut self,
        ring: &RingMemory<'_, W>,
        reserve: u32,
    ) -> Result<bool, Violation> {
        // What was seen may be impossible, and was a violation then; it is one again.
        let taken = self.tail.wrapping_sub(self.head_seen);
        Ok(ring.capacity().saturating_sub(taken) > reserve || self.free(ring)? > reserve)
    }

    /// Index of the entry that the next [`Self::push`] writes.
    pub(crate) fn place<const W: usize>(&self, ring: &RingMemory<'_, W>) -> usize {
        ring.place(self.tail)
    }

    /// Appends an entry and publishes it. `Ok(false)`: the ring is full.
    pub(crate) fn push<const W: usize>(
        &mut self,
        ring: &RingMemory<'_, W>,
        words: &[u64; W],
    ) -> Result<bool, Violation> {
        if !self.has_room(ring)? {
            return Ok(false);
        }
        self.put(ring, words);
        Ok(true)
    }

    /// The same where [`Self::has_room`] was found.
    pub(crate) fn put<const W: usize>(&mut self, ring: &RingMemory<'_, W>, words: &[u64; W]) {
        for (slot, word) in ring.entry(self.tail).iter().zip(words) {
            slot.store(*word, Ordering::Relaxed);
        }
        self.tail = self.tail.wrapping_add(1);
        // SYNC POINT with the load of `tail` in `Consumer::available`.
        ring.tail.store(self.tail, Ordering::Release);
    }
}

/// The reading end. Owns the head.
#[derive(Debug, Default)]
pub(crate) struct Consumer {
    head: u32,
    tail_seen: u32,
}

impl Consumer {
    /// Entries that wait, reading the producer's cursor.
    pub(crate) fn available<const W: usize>(
        &mut self,
        ring: &RingMemory<'_, W>,
    ) -> Result<u32, Violation> {
        // SYNC POINT with the store of `tail` in `Producer::push`.
        let tail = load_acquire(ring.tail);
        let waiting = ring.distance(self.head, tail)?;
        self.tail_seen = tail;
        Ok(waiting)
    }

    /// Whether there is nothing to take, by the producer's cursor now: a hint, for [`Self::pop`] loads and checks.
    pub(crate) fn is_drained(&self, tail: &AtomicU32) -> bool {
        tail.load(Ordering::Relaxed) == self.head
    }

    /// Takes the oldest entry and hands its place back. The entry is a private copy.
    pub(crate) fn pop<const W: usize>(
        &mut self,
        ring: &RingMemory<'_, W>,
    ) -> Result<Option<[u64; W]>, Violation> {
        let words = self.front(ring)?;
        if words.is_some() {
            self.release(ring);
        }
        Ok(words)
    }

    /// A private copy of the oldest entry, which stays.
    pub(crate) fn front<const W: usize>(
        &mut self,
        ring: &RingMemory<'_, W>,
    ) -> Result<Option<[u64; W]>, Violation> {
        if self.head == self.tail_seen && self.available(ring)? == 0 {
            return Ok(None);
        }
        let slots = ring.entry(self.head);
        let words = core::array::from_fn(|i| slots[i].load(Ordering::Relaxed));
        Ok(Some(words))
    }

    /// Index of the oldest entry.
    pub(crate) fn place<const W: usize>(&self, ring: &RingMemory<'_, W>) -> usize {
        ring.place(self.head)
    }

    /// Hands the place of the oldest entry back. There is one: [`Self::front`] gave it.
    pub(crate) fn release<const W: usize>(&mut self, ring: &RingMemory<'_, W>) {
        self.head = self.head.wrapping_add(1);
        // SYNC POINT with the load of `head` in `Producer::free`.
        ring.head.store(self.head, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
