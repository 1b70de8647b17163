//! A closed socket whose memory the kernel has not yet released.
//!
//! `close(2)` returns before the kernel is done: skbs on their way out still refer to the socket, and
//! a zero-copy driver still has the receive chunks. The kernel frees the queue binding only after all
//! of that (`xp_release_deferred`), so a queue that can be bound again is the proof that nothing of the
//! pool is in its hands. A worker that serves the socket lets go of it first.

use crate::handover::Link;
use crate::open::{ReleaseProbe, is_queue_released};
use crate::pool::{FrameIndex, FramePool, ReceiveArea};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Frames and receive area of a closed socket, until the kernel has released them. Dropping it instead
/// leaves them out of circulation for good; [`FramePool::leaks`] then tells.
#[derive(Debug)]
#[must_use = "the frames and the receive area come back only when `poll` or `wait` says so"]
pub struct ClosingSocket {
    frames: Vec<(FrameIndex, u16)>,
    area: Option<ReceiveArea>,
    /// An unbound socket; made into a probe on the first poll.
    probe_fd: Option<OwnedFd>,
    probe: Option<ReleaseProbe>,
    /// To the worker that serves it.
    link: Option<Arc<Link>>,
    ifindex: u32,
    queue: u32,
}

impl ClosingSocket {
    pub(crate) fn new(
        frames: Vec<(FrameIndex, u16)>,
        area: ReceiveArea,
        probe_fd: OwnedFd,
        link: Option<Arc<Link>>,
        ifindex: u32,
        queue: u32,
    ) -> Self {
        Self {
            frames,
            area: Some(area),
            probe_fd: Some(probe_fd),
            probe: None,
            link,
            ifindex,
            queue,
        }
    }

    /// Asks the kernel, without blocking, whether it has released the socket; if so, gives frames and
    /// receive area back to the pool (which must be the socket's). `true` from then on. Poll to `true`
    /// before opening the same queue again: a new socket on it looks like the old one.
    pub fn poll(&mut self, pool: &mut FramePool) -> rustix::io::Result<bool> {
        let Some(area) = &self.area else {
            return Ok(true);
        };
        assert!(area.is_of(pool), "a socket of another pool");
        if self.link.as_ref().is_some_and(|link| !link.is_released()) {
            return Ok(false);
        }
        if let Some(fd) = self.probe_fd.take() {
            self.probe = Some(ReleaseProbe::new(fd)?);
        }
        let Some(probe) = &self.probe else {
            return Ok(false);
        };
        if !is_queue_released(probe, self.ifindex, self.queue)? {
            return Ok(false);
        }
        self.probe = None;
        for (frame, descriptors) in self.frames.drain(..) {
            pool.tx_finished(frame, descriptors);
        }
        if let Some(area) = self.area.take() {
            pool.return_receive_area(area);
        }
        Ok(true)
    }

    /// Polls until the kernel has released the socket or the deadline has passed. An error of the
    /// question itself counts as "not yet".
    pub fn wait(mut self, pool: &mut FramePool, deadline: Instant) -> Result<(), Self> {
        loop {
            if self.poll(pool) == Ok(true) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Frames that the kernel had not completed when the socket was closed and has not released.
    pub fn frames_held(&self) -> usize {
        self.frames.len()
    }
}
