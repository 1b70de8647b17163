//! The allocator of tests that count: what each thread allocates. Tests that run beside it count their own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that the calling thread has allocated and not freed, and how often it has allocated.
pub(crate) fn bytes_and_allocations() -> (usize, u64) {
    (BYTES.get(), ALLOCATIONS.get())
}

fn note(freed: usize, taken: usize) {
    // What another thread allocated may be freed here.
    BYTES.set(BYTES.get().wrapping_sub(freed).wrapping_add(taken));
    if taken > 0 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(0, layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(layout.size(), size);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}
