//! Whether the peer is alive, judged by its silence (`docs/protocol/link.md`, silence).

use super::TICK_MAX;
use crate::monitor::Pace;
use crate::time::Instant;
use std::time::Duration;

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
    /// The pace, in few bytes: microseconds, 0 for no interval, and one more than the milliseconds of the round, 0 for none.
    interval_us: u32,
    limit_us: u32,
    round: u16,
    /// The millisecond in which this node began to watch it as closely as now; it wraps.
    watched_ms: u32,
}

impl Watch {
    /// The link went up.
    pub(super) fn open(&mut self, now: Instant, leads: bool) {
        self.leads = leads;
        self.on_sign_of_life(now);
    }

    /// How closely it is watched from now on. Silence while it was watched less closely, or by others, proves nothing.
    pub(super) fn set_pace(&mut self, now: Instant, pace: Pace) {
        let before = self.pace();
        if before.interval.is_none() || pace.limit < before.limit && !pace.founded {
            self.watched_ms = now.as_millis() as u32;
        }
        let micros = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
        self.interval_us = pace.interval.map_or(0, micros);
        self.limit_us = micros(pace.limit);
        self.round = pace.round_ms.map_or(0, |ms| ms.saturating_add(1));
    }

    /// For how long the peer has not been heard.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.since(self.heard)
    }

    /// The peer spoke.
    #[inline]
    pub(super) fn on_sign_of_life(&mut self, now: Instant) {
        self.heard = now;
        self.watched_ms = now.as_millis() as u32;
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
            let before = self.pace().limit.saturating_sub(rest);
            self.heard = Instant(now.0.saturating_sub(before.as_nanos() as u64));
        } else {
            self.heard = (self.heard + stall).min(now);
        }
    }

    /// The peer was silent for so long that it has to be given up.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.pace().interval.is_some() && now >= self.end()
    }

    /// Nothing was heard for a while, and it is time to ask.
    pub(super) fn is_probe_due(&self, now: Instant, tolerance: Duration) -> bool {
        self.pace().interval.is_some() && now >= self.next_probe(tolerance)
    }

    /// The peer is asked again and again.
    pub(super) fn asks(&self) -> bool {
        self.pace().interval.is_some()
    }

    /// When there is something to do unless the peer speaks.
    pub(super) fn next_look(&self, tolerance: Duration) -> Option<Instant> {
        let next = self.next_probe(tolerance);
        self.pace().interval.map(|_| next.min(self.end()))
    }

    fn pace(&self) -> Pace {
        let span = |micros: u32| Duration::from_micros(micros.into());
        Pace {
            interval: (self.interval_us > 0).then(|| span(self.interval_us)),
            limit: span(self.limit_us),
            founded: false,
            round_ms: self.round.checked_sub(1),
        }
    }

    /// When the silence has lasted for too long, counted from when this node began to watch it closely.
    fn end(&self) -> Instant {
        let later_ms = self.watched_ms.wrapping_sub(self.heard.as_millis() as u32);
        let later = Duration::from_millis(later_ms.cast_signed().max(0).unsigned_abs().into());
        self.heard + later + self.pace().limit
    }

    fn next_probe(&self, tolerance: Duration) -> Instant {
        let last = if self.in_doubt {
            self.probed
        } else {
            self.probed.max(self.heard)
        };
        let (interval, pace) = (self.probe_interval(tolerance), self.pace());
        let next = last + interval;
        match pace.round_ms {
            Some(behind_ms) if !self.in_doubt => {
                let since = next.0.saturating_sub(u64::from(behind_ms) * 1_000_000);
                Instant(next.0 - since % interval.as_nanos().max(1) as u64)
            }
            _ => next,
        }
    }

    fn probe_interval(&self, tolerance: Duration) -> Duration {
        if self.in_doubt {
            return TICK_MAX.min(tolerance / 4) / PROBES_PER_TICK_IN_DOUBT;
        }
        let pace = self.pace();
        let interval = pace.interval.unwrap_or(tolerance);
        if self.leads || pace.round_ms.is_some() {
            interval
        } else {
            interval + interval / 8
        }
    }
}
