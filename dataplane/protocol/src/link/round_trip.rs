//! How long a packet and its acknowledgement take, as short as it gets (`docs/protocol/link.md`, round trip).
//!
//! Measured without a word on the wire: an acknowledgement tells of the newest packet it covers, the answer to a
//! probe of the probe. Receivers may wait with an acknowledgement, for more packets or for data to send along, so
//! only the shortest time of the last seconds says something about the path.

use crate::time::Instant;
use std::time::Duration;

/// The estimate is the shortest time of one to two spans.
const SPAN: Duration = Duration::from_secs(5);

/// The estimate of one link.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    /// The shortest of the present span, and of the one before, in nanoseconds; 0 before there is one.
    shortest: [u32; 2],
    began: Instant,
    /// A probe that was not answered yet.
    probed_at: Option<Instant>,
}

impl RoundTrip {
    /// A probe is being sent.
    pub(super) fn on_probe(&mut self, now: Instant) {
        self.probed_at = Some(now);
    }

    /// The answer to a probe came.
    pub(super) fn on_answer(&mut self, now: Instant) {
        if let Some(at) = self.probed_at.take() {
            self.on_sample(now, now.since(at));
        }
    }

    /// So long took a packet that was sent once, and its acknowledgement.
    pub(super) fn on_sample(&mut self, now: Instant, took: Duration) {
        let age = now.since(self.began);
        if age >= SPAN {
            let before = if age < 2 * SPAN { self.shortest[0] } else { 0 };
            self.shortest = [0, before];
            self.began = now;
        }
        let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX).max(1);
        let present = &mut self.shortest[0];
        if *present == 0 || took < *present {
            *present = took;
        }
    }

    /// The shortest of late, if there was any.
    pub(super) fn estimate(&self) -> Option<Duration> {
        let known = self.shortest.into_iter().filter(|shortest| *shortest > 0);
        known.min().map(|ns| Duration::from_nanos(ns.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_shortest_of_late_counts_and_is_forgotten_after_two_spans() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.estimate(), None);
        let mut now = Instant(0);
        for took in [9, 3, 7] {
            trip.on_sample(now, MS(took));
        }
        assert_eq!(trip.estimate(), Some(MS(3)));
        now = now + SPAN;
        trip.on_sample(now, MS(5));
        assert_eq!(trip.estimate(), Some(MS(3)), "that of the span before");
        now = now + SPAN;
        trip.on_sample(now, MS(8));
        assert_eq!(trip.estimate(), Some(MS(5)));
        now = now + 3 * SPAN;
        trip.on_sample(now, MS(11));
        assert_eq!(trip.estimate(), Some(MS(11)), "the others are too old");
    }

    #[test]
    fn only_the_first_answer_belongs_to_a_probe() {
        let mut trip = RoundTrip::default();
        trip.on_answer(Instant(5));
        assert_eq!(trip.estimate(), None);
        trip.on_probe(Instant(1_000_000));
        trip.on_answer(Instant(3_000_000));
        trip.on_answer(Instant(3_000_001));
        assert_eq!(trip.estimate(), Some(MS(2)));
    }
}
