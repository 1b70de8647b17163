//! Signals as something to wait for: blocked in every thread, read from a signalfd by the steward.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};

/// SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 of the process, or what stands for them where the process is not ours.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// Ends a steward that hears no signals.
#[derive(Debug)]
pub struct Ender(OwnedFd);

impl Ender {
    /// Does what SIGTERM would.
    pub fn end(&self) {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        record[..4].copy_from_slice(&libc::SIGTERM.to_ne_bytes());
        // Fails only when the steward has ended.
        let _ = rustix::io::write(&self.0, &record);
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT, with its number.
    Stop(i32),
    /// SIGHUP, SIGUSR1 and SIGUSR2, with its number: nothing. A daemon started from a terminal outlives it, there is no
    /// reload, and other daemons are told things by the user signals, which else would end this one.
    Ignored(i32),
}

const ENDING: [i32; 2] = [libc::SIGTERM, libc::SIGINT];
const IGNORED: [i32; 3] = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

impl Signals {
    /// Blocks the signals in the calling thread. Call it before any thread starts, since threads inherit it.
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is valid for writes; the call initialises it.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in [&ENDING[..], &IGNORED].concat() {
            // SAFETY: `set` was initialised above and `signal` is a signal.
            unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
        }
        // SAFETY: `set` is initialised and only read; the old mask is not asked for.
        let blocked =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        // SAFETY: `set` is initialised and only read.
        let fd =
            unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above returned a new fd that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// None of the process: only what an [`Ender`] says.
    pub fn from_ender() -> io::Result<(Self, Ender)> {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (reader, writer) = pipe_with(flags)?;
        Ok((Self(reader), Ender(writer)))
    }

    /// The next signal, if one came.
    pub fn next(&self) -> Option<Signal> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        // The record starts with the signal's number, `ssi_signo`.
        let n = rustix::io::read(&self.0, &mut record).ok()?;
        let number = record[..n].first_chunk::<4>()?;
        match i32::from_ne_bytes(*number) {
            number if IGNORED.contains(&number) => Some(Signal::Ignored(number)),
            number => Some(Signal::Stop(number)),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ender_stands_for_a_signal() {
        let (signals, ender) = Signals::from_ender().unwrap();
        assert_eq!(signals.next(), None);
        ender.end();
        assert_eq!(signals.next(), Some(Signal::Stop(libc::SIGTERM)));
        assert_eq!(signals.next(), None);
    }

    #[test]
    fn signals_are_read_and_do_not_kill() {
        // The mask is the thread's own, and `raise` signals the calling thread.
        let thread = std::thread::spawn(|| {
            let signals = Signals::block().unwrap();
            assert_eq!(signals.next(), None);
            let expected = [
                (libc::SIGTERM, Signal::Stop(libc::SIGTERM)),
                (libc::SIGHUP, Signal::Ignored(libc::SIGHUP)),
                (libc::SIGUSR1, Signal::Ignored(libc::SIGUSR1)),
                (libc::SIGUSR2, Signal::Ignored(libc::SIGUSR2)),
                (libc::SIGINT, Signal::Stop(libc::SIGINT)),
            ];
            for (number, signal) in expected {
                // SAFETY: the signal is blocked, so it only becomes readable.
                unsafe { libc::raise(number) };
                assert_eq!(signals.next(), Some(signal));
            }
            assert_eq!(signals.next(), None);
        });
        thread.join().unwrap();
    }
}
