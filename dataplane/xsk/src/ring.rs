//! The one cursor type under all four rings that the kernel shares with an AF_XDP socket.
//!
//! A ring is a power-of-two array of slots with a producer and a consumer index that count up and
//! wrap at 2^32. Each index has one writer. [`Producer`] and [`Consumer`] are the two sides of it:
//! fill and TX are produced by us and consumed by the kernel, completion and RX the other way.
//!
//! Both sides move a private index (`next`) slot by slot and make a whole batch visible with one
//! store (`publish`); both keep a copy of the opposite index and load the shared one only when the
//! copy says "full" or "empty", so that a busy ring seldom touches the other side's cache line.
//!
//! Partners of each atomic, ours left, the kernel's right (`net/xdp/xsk_queue.h`):
//!
//! | ours | pairs with |
//! |---|---|
//! | `Producer::publish` (Release store of the producer index) | `__xskq_cons_peek` (acquire load): slots written before are visible to the kernel |
//! | `Producer::refresh` (Acquire load of the consumer index) | `__xskq_cons_release` (release store): the kernel has read the slots that we may overwrite |
//! | `Consumer::refresh` (Acquire load of the producer index) | `xskq_prod_submit` (release store): slots, and for RX the packet bytes, are visible to us |
//! | `Consumer::publish` (Release store of the consumer index) | `xskq_prod_nb_free` (load, ordered by a control dependency): our reads of the slots are done |
//! | `Producer::needs_wakeup` (load of the flags) | `xsk_set_tx_need_wakeup`, `xsk_set_rx_need_wakeup`; see `XskSocket::kick` for the fence |

use crate::memory::Mapping;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(test)]
pub(crate) mod tests;

/// `XDP_RING_NEED_WAKEUP`, in the flags word of the fill and the TX ring.
const NEED_WAKEUP: u32 = libc::XDP_RING_NEED_WAKEUP;

/// Where a ring's parts lie in its mapping, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingLayout {
    pub(crate) producer: usize,
    pub(crate) consumer: usize,
    pub(crate) flags: usize,
    pub(crate) slots: usize,
    pub(crate) entries: u32,
}

#[derive(Debug)]
struct Cursor<T> {
    /// Keeps the addresses below valid.
    _memory: Arc<Mapping>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    mask: u32,
    /// The slot we use next: ahead of our published index by what is not yet published.
    next: u32,
    /// The opposite index as last loaded.
    opposite: u32,
}

// SAFETY: a cursor is the only user of its side of the ring, from whichever thread it is on; the
// addresses stay valid through `_memory`.
unsafe impl<T: Send> Send for Cursor<T> {}

impl<T: Copy> Cursor<T> {
    /// # Safety
    ///
    /// `memory` holds a ring of `T` at `layout`, `T` is valid for any bit pattern, and no other
    /// cursor of this process works on the same side of that ring.
    unsafe fn new(memory: &Arc<Mapping>, layout: RingLayout) -> Self {
        assert!(
            layout.entries.is_power_of_two(),
            "ring of {} entries",
            layout.entries
        );
        let index = |offset| {
            memory
                .at(offset, size_of::<AtomicU32>())
                .cast::<AtomicU32>()
        };
        let slots_len = layout.entries as usize * size_of::<T>();
        let cursor = Self {
            producer: index(layout.producer),
            consumer: index(layout.consumer),
            flags: index(layout.flags),
            slots: memory.at(layout.slots, slots_len).cast(),
            _memory: Arc::clone(memory),
            mask: layout.entries - 1,
            next: 0,
            opposite: 0,
        };
        assert!(
            cursor.producer.is_aligned(),
            "producer index at {}",
            layout.producer
        );
        assert!(
            cursor.consumer.is_aligned(),
            "consumer index at {}",
            layout.consumer
        );
        assert!(cursor.flags.is_aligned(), "flags at {}", layout.flags);
        assert!(cursor.slots.is_aligned(), "slots at {}", layout.slots);
        cursor
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: in the mapping and aligned (checked in `new`), mapped as long as `self`.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: in the mapping and aligned (checked in `new`), mapped as long as `self`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: in the mapping and aligned (checked in `new`), mapped as long as `self`.
        unsafe { self.flags.as_ref() }
    }

    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: `index & mask` is below `entries`, and `new` checked that so many slots are mapped.
        unsafe { self.slots.add((index & self.mask) as usize) }
    }

    fn capacity(&self) -> u32 {
        self.mask + 1
    }
}

/// Our side of a ring that the kernel consumes (fill, TX).
#[derive(Debug)]
pub(crate) struct Producer<T>(Cursor<T>);

impl<T: Copy> Producer<T> {
    /// # Safety
    ///
    /// As for [`Cursor::new`]; the side is the producing one.
    pub(crate) unsafe fn new(memory: &Arc<Mapping>, layout: RingLayout) -> Self {
        // SAFETY: passed on to our caller.
        let mut cursor = unsafe { Cursor::new(memory, layout) };
        // Nobody else writes this index, so there is nothing to order.
        cursor.next = cursor.producer().load(Ordering::Relaxed);
        let mut producer = Self(cursor);
        producer.refresh();
        producer
    }

    fn refresh(&mut self) {
        // SYNC(consumer index): pairs with `__xskq_cons_release`; see the table above.
        self.0.opposite = self.0.consumer().load(Ordering::Acquire);
        debug_assert!(
            self.used() <= self.0.capacity(),
            "consumer index beyond the producer's"
        );
    }

    fn used(&self) -> u32 {
        self.0.next.wrapping_sub(self.0.opposite)
    }

    /// Whether `wanted` slots may be pushed now.
    pub(crate) fn has_room(&mut self, wanted: u32) -> bool {
        let fits = |used: u32| wanted <= self.0.capacity().saturating_sub(used);
        if fits(self.used()) {
            return true;
        }
        self.refresh();
        let used = self.used();
        wanted <= self.0.capacity().saturating_sub(used)
    }

    /// Writes the next slot; the kernel sees it after [`Self::publish`]. Panics when the ring is
    /// full: the caller asks [`Self::has_room`] first.
    pub(crate) fn push(&mut self, value: T) {
        assert!(self.used() < self.0.capacity(), "push into a full ring");
        let slot = self.0.slot(self.0.next);
        // SAFETY: in bounds and aligned; the consumer does not read slots from `next` on before they
        // are published, and has released this one (`used() < capacity`).
        unsafe { slot.write(value) };
        self.0.next = self.0.next.wrapping_add(1);
    }

    /// Makes everything pushed so far visible to the consumer.
    pub(crate) fn publish(&mut self) {
        // SYNC(producer index): pairs with `__xskq_cons_peek`; see the table above.
        self.0.producer().store(self.0.next, Ordering::Release);
    }

    /// Pushed slots that the consumer has not taken, as of now.
    pub(crate) fn waiting(&mut self) -> u32 {
        self.refresh();
        self.used()
    }

    /// Whether the consumer has taken all that was pushed, as of now.
    pub(crate) fn is_drained(&self) -> bool {
        self.0.consumer().load(Ordering::Relaxed) == self.0.next
    }

    /// Whether the kernel asked to be woken for this ring.
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.0.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// Our side of a ring that the kernel produces (completion, RX).
#[derive(Debug)]
pub(crate) struct Consumer<T>(Cursor<T>);

impl<T: Copy> Consumer<T> {
    /// # Safety
    ///
    /// As for [`Cursor::new`]; the side is the consuming one.
    pub(crate) unsafe fn new(memory: &Arc<Mapping>, layout: RingLayout) -> Self {
        // SAFETY: passed on to our caller.
        let mut cursor = unsafe { Cursor::new(memory, layout) };
        // Nobody else writes this index, so there is nothing to order.
        cursor.next = cursor.consumer().load(Ordering::Relaxed);
        let mut consumer = Self(cursor);
        consumer.refresh();
        consumer
    }

    fn refresh(&mut self) {
        // SYNC(producer index): pairs with `xskq_prod_submit`; see the table above.
        self.0.opposite = self.0.producer().load(Ordering::Acquire);
        debug_assert!(
            self.0.opposite.wrapping_sub(self.0.next) <= self.0.capacity(),
            "producer index beyond the ring"
        );
    }

    /// Whether a slot is there to be popped, as of now.
    pub(crate) fn is_ready(&self) -> bool {
        // Only a hint for whoever wants to sleep; `pop` loads again with Acquire.
        self.0.producer().load(Ordering::Relaxed) != self.0.next
    }

    /// Takes the next slot, in the producer's order. The slot itself returns to the producer with
    /// [`Self::publish`].
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.0.next == self.0.opposite {
            self.refresh();
            if self.0.next == self.0.opposite {
                return None;
            }
        }
        let slot = self.0.slot(self.0.next);
        // SAFETY: in bounds and aligned; published by the producer (Acquire in `refresh`), which does
        // not write it again before our `publish`; any bit pattern is a `T` (contract of `new`).
        let value = unsafe { slot.read() };
        self.0.next = self.0.next.wrapping_add(1);
        Some(value)
    }

    /// Returns all popped slots to the producer.
    pub(crate) fn publish(&mut self) {
        // SYNC(consumer index): pairs with `xskq_prod_nb_free`; see the table above.
        self.0.consumer().store(self.0.next, Ordering::Release);
    }
}
