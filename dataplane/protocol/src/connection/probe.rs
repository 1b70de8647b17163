//! Is the peer still there? (`docs/protocol/connections.md`, probing)

use crate::time::Instant;
use std::time::Duration;

/// Time between two probes. Traffic does not put them off.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(3600);

/// What to do for a connection whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeDue {
    /// Its time has not come.
    Not,
    /// Send a probe.
    Send,
    /// The last one was not answered: the peer is gone.
    Silent,
}

/// Probing of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe {
    at: Instant,
    unanswered: bool,
}

impl Probe {
    /// For a connection established now.
    pub fn new(now: Instant) -> Self {
        Self {
            at: now + PROBE_INTERVAL,
            unanswered: false,
        }
    }

    /// When something is to be done.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// What is to be done now.
    pub fn due(&self, now: Instant) -> ProbeDue {
        match (now >= self.at, self.unanswered) {
            (false, _) => ProbeDue::Not,
            (true, false) => ProbeDue::Send,
            (true, true) => ProbeDue::Silent,
        }
    }

    /// A probe was sent.
    pub fn on_sent(&mut self, now: Instant) {
        self.at = now + PROBE_INTERVAL;
        self.unanswered = true;
    }

    /// The peer's CONN_MANAGER messages prove that it is there; data does not, as in Linux.
    pub fn on_answer(&mut self) {
        self.unanswered = false;
    }
}
