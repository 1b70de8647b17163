//! Has the worker see to processes that have ended at once, whatever else wants its processor.
//!
//! Of fifty servers that are killed and started again the fifty that start leave the worker a small share of a processor, and until it has
//! closed the sockets of the dead others send to them. So a thread of real-time priority, which does nothing but wait for their ends,
//! raises the worker to that priority; the worker goes back to its own by the round that has closed the sockets.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::placement::{Class, set_class};
use crate::watchdog::Pulse;

/// What ends the thread.
const STOP: u64 = 0;
const PROCESS: u64 = 1;

/// The thread; it ends when this is dropped.
pub(super) struct Undertaker {
    waited_for: Arc<OwnedFd>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Undertaker {
    /// For the worker whose pulse it is. Fails where the system grants no real-time priority.
    pub(super) fn start(pulse: Arc<Pulse>) -> io::Result<Self> {
        let waited_for = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(STOP);
        epoll::add(&*waited_for, &stop, data, epoll::EventFlags::IN)?;
        let (granted, answer) = std::sync::mpsc::channel();
        let ends = Arc::clone(&waited_for);
        let thread = std::thread::Builder::new()
            .name("undertaker".into())
            .spawn(move || {
                let own = set_class(rustix::thread::gettid(), Class::Urgent);
                let goes_on = own.is_ok();
                // Who started this waits for the answer.
                let _ = granted.send(own);
                while goes_on && is_process(&ends) {
                    pulse.raise();
                }
            })?;
        answer.recv().map_err(io::Error::other)??;
        Ok(Self {
            waited_for,
            stop,
            thread: Some(thread),
        })
    }

    /// Waits for the end of a process, too, until its descriptor is closed.
    pub(super) fn watch(&self, process: BorrowedFd<'_>) {
        let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        let data = epoll::EventData::new_u64(PROCESS);
        if let Err(error) = epoll::add(&*self.waited_for, process, data, once) {
            tracing::debug!(%error, "the end of a process will have no priority");
        }
    }
}

impl Drop for Undertaker {
    fn drop(&mut self) {
        // Neither fails: the count of a new descriptor has room, and the thread does not panic.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits. False: it is to stop.
fn is_process(ends: &OwnedFd) -> bool {
    let mut events = [epoll::Event {
        flags: epoll::EventFlags::empty(),
        data: epoll::EventData::new_u64(PROCESS),
    }; 16];
    match epoll::wait(ends, &mut events[..], None) {
        Ok(count) => events[..count]
            .iter()
            .all(|event| event.data.u64() == PROCESS),
        Err(error) => error == rustix::io::Errno::INTR,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;
    use crate::clock::now_ns;
    use crate::policy::Core;

    #[test]
    fn the_end_of_a_process_raises_the_worker_until_it_has_looked() {
        let pulse = Arc::new(Pulse::new(Core::Shared));
        pulse.begin(now_ns());
        let Ok(undertaker) = Undertaker::start(Arc::clone(&pulse)) else {
            eprintln!("not run: no real-time priority is granted here");
            return;
        };
        // SAFETY: 0 is the calling thread.
        let class = || unsafe { libc::sched_getscheduler(0) };
        for _ in 0..2 {
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            let process = Pid::from_raw(child.id().cast_signed()).unwrap();
            let process = pidfd_open(process, PidfdFlags::empty()).unwrap();
            undertaker.watch(process.as_fd());
            assert!(!pulse.is_raised());
            child.kill().unwrap();
            let started = Instant::now();
            while !pulse.is_raised() {
                assert!(started.elapsed() < Duration::from_secs(10), "not raised");
                std::thread::yield_now();
            }
            assert_eq!(class(), libc::SCHED_FIFO);
            pulse.come_down();
            assert_eq!(class(), libc::SCHED_OTHER);
            child.wait().unwrap();
        }
    }
}
