//! Signals to threads, which take unsafe code: for programs that may have none and test that calls end with a signal.

use std::io::{Error, Result};
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

/// What a signal does to a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ends it.
    Ends,
    /// Lets it go on, as far as calls do: its handler was installed with `SA_RESTART`.
    Restarts,
}

impl Signal {
    fn number(self) -> i32 {
        match self {
            Self::Ends => libc::SIGUSR1,
            Self::Restarts => libc::SIGUSR2,
        }
    }
}

/// Has both signals handled, by doing nothing.
pub fn handle() -> Result<()> {
    extern "C" fn ignore(_: i32) {}
    for (signal, flags) in [(Signal::Ends, 0), (Signal::Restarts, libc::SA_RESTART)] {
        // SAFETY: all zero is a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ignore as *const () as usize;
        action.sa_flags = flags;
        // SAFETY: the action is a valid one, and its handler does nothing.
        let result =
            unsafe { libc::sigaction(signal.number(), &raw const action, std::ptr::null_mut()) };
        if result != 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}

/// Sends a thread a signal.
pub fn send<T>(thread: &JoinHandle<T>, signal: Signal) -> Result<()> {
    // SAFETY: the thread was not joined, so its name is its own still.
    let result = unsafe { libc::pthread_kill(thread.as_pthread_t(), signal.number()) };
    match result {
        0 => Ok(()),
        errno => Err(Error::from_raw_os_error(errno)),
    }
}
