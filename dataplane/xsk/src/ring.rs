//! The one cursor type under all four rings that the kernel shares with an AF_XDP socket, and under those between two
//! workers ([`pair`]).
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
//! | `Producer::needs_wakeup` (load of the flags) | `xsk_set_tx_need_wakeup`, `xsk_set_rx_need_wakeup`; see `Kernel::kick` for the fence |
//!
//! Between two workers the two sides are each other's partners: `publish` of one with `refresh` of the other, and
//! `Consumer::announce_sleep` with `Producer::must_wake`.

use crate::memory::Mapping;
use crate::primitive::{AtomicU32, Ordering, fence};
use std::fmt::Debug;
use std::ptr::NonNull;
use std::sync::Arc;

mod between;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
pub(crate) mod tests;

pub use between::pair;

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

/// Whatever keeps the addresses of a ring valid.
type Memory = dyn Debug + Send + Sync;

/// The same as addresses.
#[derive(Debug)]
struct Parts<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    entries: u32,
}

impl<T> Parts<T> {
    /// Panics if the ring is not wholly inside the mapping.
    fn of_mapping(memory: &Mapping, layout: RingLayout) -> Self {
        let index = |offset| {
            memory
                .at(offset, size_of::<AtomicU32>())
                .cast::<AtomicU32>()
        };
        let slots_len = layout.entries as usize * size_of::<T>();
        let parts = Self {
            producer: index(layout.producer),
            consumer: index(layout.consumer),
            flags: index(layout.flags),
            slots: memory.at(layout.slots, slots_len).cast(),
            entries: layout.entries,
        };
        assert!(
            parts.producer.is_aligned(),
            "producer index at {}",
            layout.producer
        );
        assert!(
            parts.consumer.is_aligned(),
            "consumer index at {}",
            layout.consumer
        );
        assert!(parts.flags.is_aligned(), "flags at {}", layout.flags);
        assert!(parts.slots.is_aligned(), "slots at {}", layout.slots);
        parts
    }
}

#[derive(Debug)]
struct Cursor<T> {
    /// Keeps the addresses below valid.
    _memory: Arc<Memory>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    mask: u32,
    /// The slot we use next: ahead of our published index by what is not yet published.
    next: u32,
    /// The opposite index as last loaded.
    opposite: u32,
    /// Between workers, the flags of the last announced sleep: the consumer's own, and the one that the producer answered.
    announced: u32,
    /// Where the model checker sees who touches which slot.
    #[cfg(loom)]
    touched: Arc<[loom::cell::UnsafeCell<()>]>,
}

// SAFETY: a cursor is the only user of its side of the ring, from whichever thread it is on; the
// addresses stay valid through `_memory`.
unsafe impl<T: Send> Send for Cursor<T> {}

impl<T: Copy> Cursor<T> {
    /// # Safety
    ///
    /// The parts are those of a ring in `memory`, aligned; whatever is in a slot that its producer has published is a
    /// `T`; and no other cursor of this process works on the same side of that ring.
    unsafe fn new(memory: Arc<Memory>, parts: Parts<T>) -> Self {
        assert!(
            parts.entries.is_power_of_two(),
            "ring of {} entries",
            parts.entries
        );
        Self {
            _memory: memory,
            producer: parts.producer,
            consumer: parts.consumer,
            flags: parts.flags,
            slots: parts.slots,
            mask: parts.entries - 1,
            next: 0,
            opposite: 0,
            announced: 0,
            #[cfg(loom)]
            touched: Arc::new([]),
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: in the ring's memory and aligned (contract of `new`), which lives as long as `self`.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: in the ring's memory and aligned (contract of `new`), which lives as long as `self`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: in the ring's memory and aligned (contract of `new`), which lives as long as `self`.
        unsafe { self.flags.as_ref() }
    }

    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: `index & mask` is below `entries`, and the ring has so many slots (contract of `new`).
        unsafe { self.slots.add((index & self.mask) as usize) }
    }

    fn capacity(&self) -> u32 {
        self.mask + 1
    }

    /// The other side may not have this slot now.
    #[cfg(loom)]
    fn touch(&self, index: u32) {
        let place = (index & self.mask) as usize;
        self.touched[place].with_mut(|_| ());
    }
}

/// Our side of a ring that the kernel, or another worker, consumes.
#[derive(Debug)]
pub struct Producer<T>(Cursor<T>);

impl<T: Copy> Producer<T> {
    /// # Safety
    ///
    /// `memory` holds a ring of `T` at `layout`, `T` is valid for any bit pattern, and no other cursor of this process
    /// works on its producing side.
    pub(crate) unsafe fn new(memory: &Arc<Mapping>, layout: RingLayout) -> Self {
        let parts = Parts::of_mapping(memory, layout);
        let memory: Arc<Mapping> = Arc::clone(memory);
        // SAFETY: passed on to our caller; the place was checked just now.
        Self::on(unsafe { Cursor::new(memory, parts) })
    }

    fn on(mut cursor: Cursor<T>) -> Self {
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
    pub fn has_room(&mut self, wanted: u32) -> bool {
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
    pub fn push(&mut self, value: T) {
        assert!(self.used() < self.0.capacity(), "push into a full ring");
        #[cfg(loom)]
        self.0.touch(self.0.next);
        let slot = self.0.slot(self.0.next);
        // SAFETY: in bounds and aligned; the consumer does not read slots from `next` on before they
        // are published, and has released this one (`used() < capacity`).
        unsafe { slot.write(value) };
        self.0.next = self.0.next.wrapping_add(1);
    }

    /// Makes everything pushed so far visible to the consumer.
    pub fn publish(&mut self) {
        // SYNC(producer index): pairs with `__xskq_cons_peek`; see the table above.
        self.0.producer().store(self.0.next, Ordering::Release);
    }

    /// Pushed slots that the consumer has not taken, as of now.
    pub fn waiting(&mut self) -> u32 {
        self.refresh();
        self.used()
    }

    /// Whether the consumer has taken all that was pushed, as of now.
    pub fn is_drained(&self) -> bool {
        self.0.consumer().load(Ordering::Relaxed) == self.0.next
    }

    /// Whether the kernel asked to be woken for this ring.
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.0.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    /// After [`Self::publish`] into a ring to another worker: whether that one has to be woken for what it has not taken.
    /// True once for each time that it has announced its sleep.
    pub fn must_wake(&mut self) -> bool {
        // SYNC(flags): pairs with `Consumer::announce_sleep`. Either it sees what was published, or we see that it sleeps.
        fence(Ordering::SeqCst);
        let flags = self.0.flags().load(Ordering::Relaxed);
        let must = flags != 0 && flags != self.0.announced && !self.is_drained();
        if must {
            self.0.announced = flags;
        }
        must
    }
}

/// Our side of a ring that the kernel, or another worker, produces.
#[derive(Debug)]
pub struct Consumer<T>(Cursor<T>);

impl<T: Copy> Consumer<T> {
    /// # Safety
    ///
    /// `memory` holds a ring of `T` at `layout`, `T` is valid for any bit pattern, and no other cursor of this process
    /// works on its consuming side.
    pub(crate) unsafe fn new(memory: &Arc<Mapping>, layout: RingLayout) -> Self {
        let parts = Parts::of_mapping(memory, layout);
        let memory: Arc<Mapping> = Arc::clone(memory);
        // SAFETY: passed on to our caller; the place was checked just now.
        Self::on(unsafe { Cursor::new(memory, parts) })
    }

    fn on(mut cursor: Cursor<T>) -> Self {
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
    pub fn is_ready(&self) -> bool {
        // Only a hint for whoever wants to sleep; `pop` loads again with Acquire.
        self.0.producer().load(Ordering::Relaxed) != self.0.next
    }

    /// Takes the next slot, in the producer's order. The slot itself returns to the producer with
    /// [`Self::publish`].
    pub fn pop(&mut self) -> Option<T> {
        if self.0.next == self.0.opposite {
            self.refresh();
            if self.0.next == self.0.opposite {
                return None;
            }
        }
        #[cfg(loom)]
        self.0.touch(self.0.next);
        let slot = self.0.slot(self.0.next);
        // SAFETY: in bounds and aligned; published by the producer (Acquire in `refresh`), which does
        // not write it again before our `publish`; it is a `T` (contract of `new`).
        let value = unsafe { slot.read() };
        self.0.next = self.0.next.wrapping_add(1);
        Some(value)
    }

    /// Returns all popped slots to the producer.
    pub fn publish(&mut self) {
        // SYNC(consumer index): pairs with `xskq_prod_nb_free`; see the table above.
        self.0.consumer().store(self.0.next, Ordering::Release);
    }

    /// To be woken by whoever publishes from now on: look once more ([`Self::is_ready`]), then sleep.
    pub fn announce_sleep(&mut self) {
        // Each another number, with the bit that the kernel has.
        self.0.announced = self.0.announced.wrapping_add(2) | NEED_WAKEUP;
        self.0.flags().store(self.0.announced, Ordering::Relaxed);
        // SYNC(flags): pairs with `Producer::must_wake`.
        fence(Ordering::SeqCst);
    }

    /// No longer.
    pub fn awake(&self) {
        self.0.flags().store(0, Ordering::Relaxed);
    }

    /// A view for another thread.
    pub(crate) fn level(&self) -> Level {
        let Cursor {
            producer, consumer, ..
        } = self.0;
        Level {
            _memory: Arc::clone(&self.0._memory),
            producer,
            consumer,
        }
    }
}

/// Whether a ring is empty, as anybody may see it.
#[derive(Debug)]
pub(crate) struct Level {
    _memory: Arc<Memory>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
}

// SAFETY: it only loads atomics, whose addresses stay valid through `_memory`.
unsafe impl Send for Level {}

impl Level {
    /// Whether the consumer has taken, and published that it has, all that there is. What it did before that is visible.
    pub(crate) fn is_empty(&self) -> bool {
        // SAFETY: in the ring's memory and aligned, as for the cursor that this is a view of.
        let producer = unsafe { self.producer.as_ref() };
        // SAFETY: the same.
        let consumer = unsafe { self.consumer.as_ref() };
        // SYNC(consumer index): pairs with `Consumer::publish`.
        consumer.load(Ordering::Acquire) == producer.load(Ordering::Relaxed)
    }
}
