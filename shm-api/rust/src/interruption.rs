//! Signal handlers that wait for the daemon, as the thread they interrupted does.

use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xtipc_segment::application::Wake;

use crate::attachment::Attachment;
use crate::core::{Core, Failure};
use crate::lock;

/// Longest sleep: the bells of direct channels are not heard.
const GLANCE: Duration = Duration::from_millis(1);

impl Attachment {
    /// Waits in a signal handler for which the driver, this very thread, was interrupted. What the daemon has written to the pipe
    /// is left there, so that the driver wakes in its turn.
    pub(crate) fn wait_within<'a>(
        &'a self,
        mut core: MutexGuard<'a, Core>,
        left: Option<Duration>,
    ) -> (MutexGuard<'a, Core>, Wake) {
        // The driver may have been interrupted before it did so.
        core.receiver.announce_sleep(true);
        let before = core.progress;
        core.dispatch();
        core.make_room();
        if core.progress != before {
            return (core, Wake::Called);
        }
        drop(core);
        let left = left.map_or(GLANCE, |left| left.min(GLANCE));
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        let result = poll(&mut fds, timeout.as_ref());
        let mut core = lock(&self.core);
        match result {
            Err(rustix::io::Errno::INTR) => return (core, Wake::Signal),
            Ok(1) if fds[0].revents() == PollFlags::HUP => {
                core.dispatch();
                core.fail(Failure::Gone);
            }
            // What woke it before stays: it is not asked again at once.
            Ok(1) => {
                drop(core);
                thread::yield_now();
                core = lock(&self.core);
            }
            Ok(_) | Err(_) => {}
        }
        (core, Wake::Called)
    }
}
