//! What a thread sleeps on that has direct channels: an epoll instance over the wake pipe of the attachment, and the bells of
//! channels as they come.
//!
//! A bell wakes when it is rung, not for as long as it was, so who was woken need not empty it
//! ([`xtipc_segment::channel::Channel::announce`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::event::{Timespec, epoll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::Result;

/// See the module; made with the first channel.
#[derive(Clone, Debug)]
pub(crate) struct Bells {
    instance: Arc<OnceLock<Arc<OwnedFd>>>,
    wake: Arc<OwnedFd>,
}

const WAKE: u64 = 1;
const RUNG: u64 = 0;

impl Bells {
    pub(crate) fn new(wake: &Arc<OwnedFd>) -> Self {
        Self {
            instance: Arc::default(),
            wake: Arc::clone(wake),
        }
    }

    /// The instance, once there was a channel.
    pub(crate) fn get(&self) -> Option<&Arc<OwnedFd>> {
        self.instance.get()
    }

    /// Adds a bell.
    pub(super) fn add(&self, rung: BorrowedFd<'_>) -> Result<()> {
        let instance = match self.get() {
            Some(instance) => Arc::clone(instance),
            None => {
                let instance = Arc::new(make(self.wake.as_fd()).map_err(std::io::Error::from)?);
                Arc::clone(self.instance.get_or_init(|| instance))
            }
        };
        listen(&instance, rung).map_err(std::io::Error::from)?;
        Ok(())
    }

    /// Sleeps until a bell is rung or the daemon wakes us, or the time is over: whether the daemon does.
    pub(super) fn sleep(instance: &OwnedFd, left: Option<&Timespec>) -> rustix::io::Result<bool> {
        let mut events = [NONE; 8];
        let count = epoll::wait(instance, &mut events[..], left)?;
        let of_daemon = |event: &epoll::Event| { event.data }.u64() == WAKE;
        Ok(events[..count].iter().any(of_daemon))
    }
}

const NONE: epoll::Event = epoll::Event {
    flags: epoll::EventFlags::empty(),
    data: epoll::EventData::new_u64(RUNG),
};

fn listen(instance: &OwnedFd, rung: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(instance, rung, epoll::EventData::new_u64(RUNG), flags)
}

fn make(wake: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let instance = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    if !hears_each_ring(&instance)? {
        return Err(rustix::io::Errno::NOSYS);
    }
    let data = epoll::EventData::new_u64(WAKE);
    epoll::add(&instance, wake, data, epoll::EventFlags::IN)?;
    Ok(instance)
}

/// Whether a pipe wakes for what is written into it while it is not empty: not from Linux 5.5 on until that was mended (5.14,
/// 5.10.56). Without it there are no channels.
fn hears_each_ring(instance: &OwnedFd) -> rustix::io::Result<bool> {
    let (rung, bell) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    listen(instance, rung.as_fd())?;
    let mut heard = 0;
    for _ in 0..2 {
        rustix::io::write(&bell, &[1])?;
        heard += epoll::wait(instance, &mut [NONE][..], Some(&Timespec::default()))?;
    }
    epoll::delete(instance, &rung)?;
    Ok(heard == 2)
}
