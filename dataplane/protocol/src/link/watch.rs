//! Whether the peer is alive, judged by its silence (`docs/protocol/link.md`, silence).

use super::{TICK_MAX, TRANSIT_MAX};
use crate::time::Instant;
use std::time::Duration;

/// A peer that was not heard for this part of the tolerance is probed, so one that stands still for nine tenths of it
/// is heard again in time.
const PROBES_PER_TOLERANCE: u32 = 10;
/// Shortest time between two probes.
const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Probes in the time of a tick while there is reason to doubt that the peer still knows this link.
const PROBES_PER_TICK_IN_DOUBT: u32 = 4;

/// The silence of the peer of a link that is up.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Last sign of life, moved on by the time during which this node stood still and heard nothing.
    heard: Instant,
    /// Last probe.
    probed: Instant,
    /// This end asks first: its question is a sign of life for the other, and its answer one for this.
    leads: bool,
    /// This node stood still, and what the peer thinks of it has to be found out soon.
    in_doubt: bool,
}

impl Watch {
    /// The link went up.
    pub(super) fn open(&mut self, now: Instant, leads: bool) {
        self.leads = leads;
        self.on_sign_of_life(now);
    }

    /// The peer spoke.
    pub(super) fn on_sign_of_life(&mut self, now: Instant) {
        self.heard = now;
        self.in_doubt = false;
    }

    /// It was asked to speak.
    pub(super) fn on_probe(&mut self, now: Instant) {
        self.probed = now;
    }

    /// This look at the peer comes late by `stall`: time in which nobody listened.
    ///
    /// After more than the tolerance the peer has most likely given this node up, and may have said so while nobody
    /// listened. Two probes at short intervals find out.
    pub(super) fn on_own_stall(&mut self, now: Instant, stall: Duration, tolerance: Duration) {
        if stall > tolerance {
            self.in_doubt = true;
            self.probed = Instant::default();
            let rest = 2 * self.probe_interval(tolerance);
            let before = limit(tolerance).saturating_sub(rest);
            self.heard = Instant(now.0.saturating_sub(before.as_nanos() as u64));
        } else {
            self.heard = (self.heard + stall).min(now);
        }
    }

    /// The peer was silent for so long that it has to be given up.
    pub(super) fn is_over(&self, now: Instant, tolerance: Duration) -> bool {
        now >= self.heard + limit(tolerance)
    }

    /// Nothing was heard for a while, and it is time to ask.
    pub(super) fn is_probe_due(&self, now: Instant, tolerance: Duration) -> bool {
        now >= self.next_probe(tolerance)
    }

    /// When there is something to do unless the peer speaks.
    pub(super) fn next_look(&self, tolerance: Duration) -> Instant {
        self.next_probe(tolerance)
            .min(self.heard + limit(tolerance))
    }

    fn next_probe(&self, tolerance: Duration) -> Instant {
        let last = if self.in_doubt {
            self.probed
        } else {
            self.probed.max(self.heard)
        };
        last + self.probe_interval(tolerance)
    }

    fn probe_interval(&self, tolerance: Duration) -> Duration {
        if self.in_doubt {
            return TICK_MAX.min(tolerance / 4) / PROBES_PER_TICK_IN_DOUBT;
        }
        let interval = (tolerance / PROBES_PER_TOLERANCE).clamp(PROBE_INTERVAL_MIN, TICK_MAX);
        if self.leads {
            interval
        } else {
            interval + interval / 8
        }
    }
}

/// The answer to a probe may be under way when the tolerance is over. With the shortest tolerance, and a timer that is
/// late by a tick, a loss is told within twice that.
fn limit(tolerance: Duration) -> Duration {
    tolerance + TRANSIT_MAX.min(tolerance * 9 / 10)
}
