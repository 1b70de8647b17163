//! Whether there is anything to make a round for.
//!
//! A worker that waits looks far more often than it finds something, and what comes waits for the next look. So a
//! look is a few loads, and only if they find something, or a timer is due, a round that goes through everything. What
//! is done outside of rounds says so ([`Worker::stirred`]); all else that a round would act on shows in memory here.

use std::time::Duration;

use super::Worker;
use super::applications::Applications;

/// How long timers wait at a time for what other workers have to bring.
const AWAIT_NS: u64 = 1_000_000;

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: no round was made, and nothing has changed for anybody.
    Nothing,
    /// Nothing that came from outside; timers may have run, and applications been told of that.
    Chores,
    /// Packets, or requests of applications.
    Work,
}

impl Worker {
    /// Takes back what was sent. That alone is no reason for a round: copied packets are mostly sent by the first look after the
    /// round that they are from. True: it is one, since senders wait for frames.
    pub(super) fn reclaim(&mut self, now_ns: u64) -> bool {
        let before = self.host.pool.counts().free;
        for enabled in self.bearers.iter_mut().flatten() {
            enabled.bearer.set_clock(Duration::from_nanos(now_ns));
            enabled.bearer.reclaim(&mut self.host.pool);
        }
        self.engine.awaits_frames() && self.host.pool.counts().free > before
    }

    /// Whether a round at this time would find nothing to do.
    pub(super) fn is_quiet(&mut self, now_ns: u64) -> bool {
        if self.stirred
            || !self.host.notices.is_empty()
            || self.own.pulse().is_idle_class() != self.shown_idle_class
        {
            return false;
        }
        let due_ns = match self.timer_due_ns {
            Some(due_ns) => due_ns,
            None => *self.timer_due_ns.insert(self.next_due_ns()),
        };
        let mut bearers = self.bearers.iter().flatten();
        now_ns < due_ns
            && bearers.all(|enabled| enabled.bearer.is_quiet())
            && self.host.applications.are_quiet()
    }

    /// When the node has to do something by itself.
    pub(super) fn next_due_ns(&self) -> u64 {
        let timer = self.engine.next_timeout();
        let due_ns = timer.map_or(self.care_due_ns, |due| due.0.min(self.care_due_ns));
        match self.awaits_workers {
            // What they bring comes with a wake; this is for when they bring nothing.
            true => due_ns.max(self.host.applications.round_ns + AWAIT_NS),
            false => due_ns,
        }
    }
}

impl Applications {
    /// Whether none has asked for anything, returned anything, or waits for what only a round can bring it.
    fn are_quiet(&self) -> bool {
        self.iter().all(|(_, application)| application.is_quiet())
    }
}
