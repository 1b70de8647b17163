//! Sockets that wait for frames, served in the order they came (`docs/protocol/link.md`, senders and
//! wake-up).
//!
//! As long as one waits, newcomers wait behind it: who asks for one frame must not keep who asks for
//! many waiting for ever. A socket whose turn has come has its frames set aside until it sends, for a
//! short time only, since it may have nothing to send any more.

use crate::addr::PortId;
use crate::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// How long frames are set aside for a socket that was told to send: long enough to be scheduled.
const GRANT_LIFE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    port: PortId,
    /// Frames its message needs.
    frames: usize,
    /// When its turn came.
    granted: Option<Instant>,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct FrameQueue(VecDeque<Waiting>);

impl FrameQueue {
    /// Whether `port` may use `frames` of the `free` ones now. If its turn had come it is used up.
    #[inline]
    pub(super) fn admits(&mut self, port: PortId, frames: usize, free: usize) -> bool {
        if self.0.is_empty() {
            return free >= frames;
        }
        self.admits_in_turn(port, frames, free)
    }

    fn admits_in_turn(&mut self, port: PortId, frames: usize, free: usize) -> bool {
        let others = self.0.iter().filter(|w| w.port != port);
        let set_aside: usize = others
            .filter(|w| w.granted.is_some())
            .map(|w| w.frames)
            .sum();
        let its_turn = match self.0.iter().position(|w| w.port == port) {
            Some(at) if self.0[at].granted.is_some() => self.0.remove(at).is_some(),
            Some(_) => false,
            None => self.0.iter().all(|w| w.granted.is_some()),
        };
        its_turn && free >= frames + set_aside
    }

    /// Lines `port` up for `frames`.
    pub(super) fn wait(&mut self, port: PortId, frames: usize) {
        if !self.0.iter().any(|w| w.port == port) {
            let granted = None;
            self.0.push_back(Waiting {
                port,
                frames,
                granted,
            });
        }
    }

    /// Calls those whose turn it is, with `free` frames.
    pub(super) fn grant(&mut self, now: Instant, free: usize, mut call: impl FnMut(PortId)) {
        self.0
            .retain(|w| w.granted.is_none_or(|at| now.since(at) < GRANT_LIFE));
        let granted = self.0.iter().filter(|w| w.granted.is_some());
        let mut left = free.saturating_sub(granted.map(|w| w.frames).sum());
        for waiting in self.0.iter_mut().filter(|w| w.granted.is_none()) {
            if waiting.frames > left {
                return;
            }
            left -= waiting.frames;
            waiting.granted = Some(now);
            call(waiting.port);
        }
    }

    /// True if nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if this socket waits and was not called.
    pub(super) fn holds(&self, port: PortId) -> bool {
        self.0.iter().any(|w| w.port == port && w.granted.is_none())
    }

    /// Forgets a socket that no longer exists.
    pub(super) fn forget(&mut self, port: PortId) {
        self.0.retain(|w| w.port != port);
    }
}
