//! Rings between two workers, in memory of the process.

use super::{Consumer, Cursor, Parts, Producer};
use crate::primitive::AtomicU32;
use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

/// An index on cache lines of its own: processors fetch lines in pairs.
#[repr(align(128))]
struct Index(AtomicU32);

struct Shared<T> {
    producer: Index,
    consumer: Index,
    flags: Index,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: the slots are touched only by the two cursors, which hand them to each other by the indices; values of `T` go
// from one thread to the other.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a ring of {}", self.slots.len())
    }
}

impl<T> Shared<T> {
    fn parts(&self) -> Parts<T> {
        Parts {
            producer: NonNull::from(&self.producer.0),
            consumer: NonNull::from(&self.consumer.0),
            flags: NonNull::from(&self.flags.0),
            slots: NonNull::from(&*self.slots).cast(),
            entries: self.slots.len() as u32,
        }
    }
}

/// Both sides of a ring of so many entries, a power of two.
pub fn pair<T: Copy + Send + 'static>(entries: u32) -> (Producer<T>, Consumer<T>) {
    starting_at(entries, 0)
}

/// The same with both indices at `start`.
pub(crate) fn starting_at<T: Copy + Send + 'static>(
    entries: u32,
    start: u32,
) -> (Producer<T>, Consumer<T>) {
    let index = |value| Index(AtomicU32::new(value));
    let memory = Arc::new(Shared {
        producer: index(start),
        consumer: index(start),
        flags: index(0),
        slots: (0..entries)
            .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
            .collect(),
    });
    #[cfg(loom)]
    let touched: Arc<[_]> = (0..entries)
        .map(|_| loom::cell::UnsafeCell::new(()))
        .collect();
    let cursor = || {
        // SAFETY: a whole ring that `memory` keeps alive, with slots for writing through shared references. Only published
        // slots are read, and a `T` was written there before. One cursor is made for each side below.
        let cursor = unsafe { Cursor::new(memory.clone(), memory.parts()) };
        #[cfg(loom)]
        let cursor = Cursor {
            touched: Arc::clone(&touched),
            ..cursor
        };
        cursor
    };
    (Producer::on(cursor()), Consumer::on(cursor()))
}
