//! The log: lines on standard error.
//!
//! The workers write them too, so nobody is waited for: a line that is not taken at once, because its reader stands
//! still, has gone, or has no room left, is left out. The next one that is taken tells how many are missing.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a pipe takes without waiting when poll(2) finds it writable.
const ROOM: usize = 4096;

/// Lines left out since the last one that was taken.
static LEFT_OUT: Mutex<u64> = Mutex::new(0);

/// Sends what passes the filter to standard error from here on.
pub(crate) fn start(filter: &str) {
    tracing_subscriber::fmt()
        .compact()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(Lines::locked)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// Takes one line at a time, whatever becomes of it.
struct Lines(MutexGuard<'static, u64>);

impl Lines {
    fn locked() -> Self {
        Self(LEFT_OUT.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if *self.0 > 0 {
            let told = format!(
                "{} lines of the log were not taken, and are missing\n",
                self.0
            );
            if put(told.as_bytes()) {
                *self.0 = 0;
            }
        }
        if *self.0 > 0 || !put(line) {
            *self.0 += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the text could be written without waiting.
fn put(text: &[u8]) -> bool {
    let output = io::stderr();
    text.chunks(ROOM).all(|part| {
        let mut fds = [PollFd::new(&output, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
            && rustix::io::write(&output, part).is_ok()
    })
}
