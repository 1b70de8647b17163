//! Where a thread sleeps while another one waits for the daemon.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::futex::{self, Flags, Timespec};
use xtipc_segment::application::Wake;

const TAKEN: u32 = 0;
const CALLED: u32 = 1;

/// A place for one thread. What a condition variable does, but a signal that would end a system call ends the sleep and
/// is told. Taken and called with the attachment's lock held, so that no call is lost; it needs no ordering of its own.
#[derive(Debug, Default)]
pub(crate) struct Seat(AtomicU32);

impl Seat {
    /// Calls count from now on.
    pub(crate) fn take(&self) {
        self.0.store(TAKEN, Ordering::Relaxed);
    }

    /// Wakes who has it.
    pub(crate) fn call(&self) {
        if self.0.swap(CALLED, Ordering::Relaxed) == TAKEN {
            // It fails only for an address that is none.
            let _ = futex::wake(&self.0, Flags::PRIVATE, 1);
        }
    }

    /// Sleeps, without the lock, until called or the time is over. It may also wake for no reason.
    pub(crate) fn sleep(&self, left: Option<Duration>) -> Wake {
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match futex::wait(&self.0, Flags::PRIVATE, TAKEN, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => Wake::Signal,
            Ok(()) | Err(_) => Wake::Called,
        }
    }
}
