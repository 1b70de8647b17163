//! How closely the links are watched.

use super::ring::Entry;
use super::{Monitor, mixed};
use crate::addr::NodeAddr;
use crate::time::Instant;
use std::time::Duration;

/// Packets a node may send each second to watch all links, or those of the ring; some are left for changes.
const MESH_BUDGET: u64 = 1380;
const RING_BUDGET: u64 = 150;
/// The same for suspects, of which there may be many at once.
const SUSPECT_BUDGET: u64 = 100;
/// A suspect is probed so often within the tolerance at least.
const PROBES_OF_SUSPECT: u32 = 3;
/// A peer of which nothing was heard for this part of the tolerance is probed.
const PROBES_PER_TOLERANCE: u32 = 16;
/// Shortest and longest time between two probes.
const PROBE_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(500));
/// Beyond this part of the tolerance and the time between two probes, a living peer has had so long to be heard again.
/// One that stands still for less is not lost.
const STILL_TENTHS: u32 = 9;
const SLACK: Duration = Duration::from_millis(30);
/// Every node is to hear of a loss within the tolerance: those that noticed it tell it so much before.
pub(super) const TELLING: Duration = Duration::from_millis(15);
/// Parts of the interval of peers that others watch, too, by a few of which intervals differ.
const PHASES: u32 = 128;
/// What a peer of the ring is given beyond the tolerance, where probes are too far apart for all stalls below it to be
/// told from losses.
const RING_SLACK: Duration = Duration::from_millis(250);

/// How closely a link is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Silence after which the peer is probed; `None` if others watch it.
    pub interval: Option<Duration>,
    /// Silence after which it is lost.
    pub limit: Duration,
    /// There is other evidence than silence, so that silence counts from before it was watched like this.
    pub founded: bool,
    /// It is probed at the same moments as others, an interval apart and so many milliseconds behind its whole multiples:
    /// what is lost together is noticed together then, and told in one packet.
    pub round_ms: Option<u16>,
}

/// Silence after which a peer is lost that is probed after each `interval`; the end that does not lead waits an eighth
/// longer. In nanoseconds, since each look at a link asks for it, and a [`Duration`] is divided slowly.
fn limit(tolerance: Duration, interval: Duration) -> Duration {
    let nanos = |span: Duration| span.as_nanos() as u64;
    let still = nanos(tolerance) * u64::from(STILL_TENTHS) / 10;
    let heard = still + nanos(interval) * 9 / 8 + nanos(SLACK);
    Duration::from_nanos(heard.max(nanos(tolerance).saturating_sub(nanos(TELLING))))
}

/// The time between packets of which so many a second may be sent, until each of these was.
fn per_second(packets: u64, budget: u64) -> Duration {
    Duration::from_micros(packets * 1_000_000 / budget.max(1))
}

impl Pace {
    /// By one's own silence alone, which leaves nothing to be told by others.
    fn close(tolerance: Duration) -> Self {
        let interval = tolerance / PROBES_PER_TOLERANCE;
        let interval = interval.clamp(PROBE_INTERVAL.0, PROBE_INTERVAL.1);
        Self {
            interval: Some(interval),
            limit: limit(tolerance, interval),
            ..Self::default()
        }
    }
}

impl Monitor {
    /// How closely to watch the link to a peer with this tolerance.
    pub fn pace(&self, now: Instant, peer: NodeAddr, tolerance: Duration) -> Pace {
        let close = Pace::close(tolerance);
        if self.watches_all(tolerance) {
            return close;
        }
        let entry = self.index_of(peer).map(|index| &self.entries[index]);
        if entry.is_some_and(Entry::is_suspected) {
            return self.suspecting(tolerance);
        }
        if self.is_ring() {
            return self.pace_in_ring(now, entry, tolerance);
        }
        // Nothing else probes these, which spares what the end that does not lead waits longer.
        let interval = close.interval.unwrap_or_default() * 9 / 8;
        if entry.is_none_or(Entry::is_local) {
            return self.in_rounds(interval, close.limit);
        }
        // Its supervisors, for whom it is near, tell when it is lost.
        let near = 2 * self.members.len() as u64;
        let taken = near * 1_000_000 / interval.as_micros().max(1) as u64;
        let budget = MESH_BUDGET.saturating_sub(taken);
        let interval = per_second(self.others().saturating_sub(near), budget);
        let interval = interval.as_nanos() as u64 * u64::from(self.phase(peer));
        let interval = Duration::from_nanos(interval / u64::from(PHASES));
        let cut_off = self.is_cut_off(now);
        Pace {
            interval: Some(interval),
            limit: if cut_off {
                close.limit
            } else {
                limit(tolerance, interval)
            },
            founded: cut_off,
            round_ms: None,
        }
    }

    fn pace_in_ring(&self, now: Instant, entry: Option<&Entry>, tolerance: Duration) -> Pace {
        let close = Pace::close(tolerance);
        if entry.is_none_or(Entry::is_watched) {
            let near = self.members.len() as u64;
            let interval = per_second(2 * (near + self.heads() as u64), RING_BUDGET);
            return if close.interval >= Some(interval) {
                close
            } else {
                self.in_rounds(interval, tolerance + RING_SLACK)
            };
        }
        if self.is_cut_off(now) {
            return Pace {
                interval: Some(tolerance / 2),
                ..close
            };
        }
        Pace::default()
    }

    /// Every link is watched as closely as can be: there is nothing that others have to tell.
    pub fn watches_all(&self, tolerance: Duration) -> bool {
        let interval = Pace::close(tolerance).interval;
        !self.is_ring() && interval >= Some(per_second(self.others(), MESH_BUDGET))
    }

    /// Nodes besides this one.
    fn others(&self) -> u64 {
        self.nodes() as u64 - 1
    }

    fn suspecting(&self, tolerance: Duration) -> Pace {
        let close = Pace::close(tolerance);
        let affordable = per_second(self.suspected as u64, SUSPECT_BUDGET);
        let interval = affordable.min(tolerance / PROBES_OF_SUSPECT);
        Pace {
            interval: close.interval.max(Some(interval)),
            founded: true,
            ..close
        }
    }

    fn in_rounds(&self, interval: Duration, limit: Duration) -> Pace {
        let interval_ms = interval.as_millis().max(1) as u64;
        let behind = u64::from(mixed(self.own.0)) % interval_ms;
        Pace {
            interval: Some(interval),
            limit,
            founded: false,
            round_ms: Some(behind as u16),
        }
    }

    /// Peers are not probed all at the same moment, though their links came up together: each has an interval of its own,
    /// the same at both ends, by some hundredths longer or shorter.
    fn phase(&self, peer: NodeAddr) -> u32 {
        PHASES - 7 + (mixed(self.own.0 ^ peer.0) >> 28)
    }
}
