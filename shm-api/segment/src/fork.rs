//! Which process is this? Answered by a memory load.
//!
//! A segment is not inherited over fork(), so a child that used it would fault. Asking getpid() each time would be a
//! system call per message. Instead one page of the process is marked to be wiped on fork: it holds a number in the
//! process that wrote it and zero in its children, until they write a number of their own.

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

const PAGE_SIZE: usize = 4096;

/// Counts processes along one line of descent: a child starts from its parent's value, so numbers never repeat.
static LAST: AtomicU32 = AtomicU32::new(0);
static PAGE: OnceLock<&'static AtomicU32> = OnceLock::new();

/// The identity of a process among its ancestors and descendants.
#[derive(Clone, Copy, Debug)]
pub struct Incarnation {
    number: u32,
    page: &'static AtomicU32,
}

impl Incarnation {
    /// This process. Fails if a page of memory is not to be had.
    pub fn current() -> io::Result<Self> {
        let page = match PAGE.get() {
            Some(page) => page,
            // Two threads may both map a page; one page is then never used again.
            None => {
                let page = wiped_on_fork()?;
                PAGE.get_or_init(|| page)
            }
        };
        let fresh = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let number = match page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => fresh,
            Err(current) => current,
        };
        Ok(Self { number, page })
    }

    /// Whether the caller still is that process.
    pub fn is_current(self) -> bool {
        self.page.load(Ordering::Relaxed) == self.number
    }
}

fn wiped_on_fork() -> io::Result<&'static AtomicU32> {
    // SAFETY: a new private mapping at an address of the kernel's choice.
    let page = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            PAGE_SIZE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }?;
    // SAFETY: the range is the mapping made above, unused so far.
    unsafe { madvise(page, PAGE_SIZE, Advice::LinuxWipeOnFork) }?;
    // SAFETY: page aligned, zeroed, never unmapped, only used as this atomic.
    Ok(unsafe { AtomicU32::from_ptr(page.cast()) })
}
