//! A sleep on many descriptors that a signal ends or not, as its handler was installed: the kernel goes on with a `read` where a
//! handler restarts calls, and never with an `epoll_wait`. So for a call without a time limit that is to behave as one of
//! the kernel, another thread waits for the descriptors, and this one reads what that writes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use xtipc_segment::application::Wake;
use xtipc_segment::signals;

/// Of an attachment; its thread ends with it.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Readable when something was there to be seen since it was last asked.
    seen: Arc<OwnedFd>,
    ask: Sender<()>,
    /// The thread was asked, and what it has seen not read.
    asked: AtomicBool,
}

impl Relay {
    /// For an epoll instance that has the wake pipe, whose end is the end of the thread.
    pub(crate) fn start(bells: &Arc<OwnedFd>, wake: &Arc<OwnedFd>) -> std::io::Result<Self> {
        let seen = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (ask, asked) = channel();
        let watched = (Arc::clone(bells), Arc::clone(wake));
        let told = Arc::clone(&seen);
        thread::Builder::new()
            .name("xtipc-relay".to_owned())
            .spawn(move || watch(&watched.0, &told, &asked))?;
        Ok(Self {
            seen,
            ask,
            asked: AtomicBool::new(false),
        })
    }

    /// Sleeps until there is something to be seen, or was lately. Only one thread may.
    pub(crate) fn sleep(&self) -> Wake {
        if !self.asked.swap(true, Ordering::Relaxed) && self.ask.send(()).is_err() {
            return Wake::Called;
        }
        match rustix::io::read(&*self.seen, &mut [0u8; 8]) {
            Err(Errno::INTR) => Wake::Signal,
            _ => {
                self.asked.store(false, Ordering::Relaxed);
                Wake::Called
            }
        }
    }
}

fn watch(bells: &OwnedFd, seen: &OwnedFd, asked: &Receiver<()>) {
    // The signals of the process are for its own threads.
    signals::block_all();
    while asked.recv().is_ok() {
        // What it is, or why there is nothing, finds out who is told: bells are heard once, by who asks the instance itself.
        let _ = poll(&mut [PollFd::new(bells, PollFlags::IN)], None);
        let _ = rustix::io::write(seen, &1u64.to_ne_bytes());
    }
}
