//! Who supervises whom on a bearer: overlapping ring monitoring (`docs/protocol/monitor.md`).
//!
//! A [`Monitor`] keeps the nodes of a bearer as a ring in the order of their addresses, the domain records they send,
//! and what follows: which links this node watches and how closely, and who was reported lost. It sends nothing; links
//! ask it for the record that goes into their STATE messages.

mod places;
mod ring;

use crate::addr::NodeAddr;
use crate::time::Instant;
use crate::wire::{DomainRecord, MAX_DOMAIN_MEMBERS};
use places::Places;
use ring::Entry;
use std::hint::black_box;
use std::time::Duration;

pub use ring::Role;

/// Nodes up to which no records are sent, unless set otherwise; as in Linux.
pub const THRESHOLD_DEFAULT: usize = 32;
/// Largest threshold.
pub const THRESHOLD_MAX: usize = 4095;
/// Nodes up to which every link is watched unless set otherwise.
const MESH_MAX: usize = 1000;
/// Reports after which a node counts as lost without a look of one's own.
const REPORTS: u8 = 4;
/// Packets a node may send each second to watch all links, or those of the ring; some are left for changes.
const MESH_BUDGET: u64 = 1450;
const RING_BUDGET: u64 = 165;
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
const TELLING: Duration = Duration::from_millis(15);
/// So many of those that watch a lost node tell each of the others at once, who then look for themselves: enough for some
/// to be left when a tenth of all nodes die together. Who lost this part of its domain by one cause tells all.
const TELLERS: usize = 6;
const MANY: usize = 4;
/// Parts of the interval of peers that others watch, too, by a few of which intervals differ.
const PHASES: u32 = 128;
/// Losses in the own domain within this time have one cause, which is acted on for a few times as long.
const ONE_CAUSE: Duration = Duration::from_secs(1);
const CAUSE_LASTS: u32 = 3;
/// The same where probes are too far apart for all stalls below the tolerance to be told from losses.
const RING_SLACK: Duration = Duration::from_millis(250);

/// Which links are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Supervision {
    /// All up to 1,000 nodes, those of the ring beyond.
    #[default]
    Auto,
    /// All.
    Mesh,
    /// Those of the ring, once there are more nodes than the threshold.
    Ring,
}

/// How closely a link is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Silence after which the peer is probed; `None` if others watch it.
    pub interval: Option<Duration>,
    /// Silence after which it is lost.
    pub limit: Duration,
    /// There is other evidence than silence, so that silence counts from before it was watched like this.
    pub founded: bool,
}

/// The same in a link, where there may be a thousand: in microseconds, 0 for no interval.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PackedPace(u32, u32);

impl From<Pace> for PackedPace {
    fn from(pace: Pace) -> Self {
        let micros = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
        Self(pace.interval.map_or(0, micros), micros(pace.limit))
    }
}

impl From<PackedPace> for Pace {
    fn from(PackedPace(interval, limit): PackedPace) -> Self {
        let span = |micros: u32| Duration::from_micros(micros.into());
        Self {
            interval: (interval > 0).then(|| span(interval)),
            limit: span(limit),
            founded: false,
        }
    }
}

/// Silence after which a peer is lost that is probed after each `interval`; the end that does not lead waits an eighth
/// longer. In nanoseconds, since each look at a link asks for it, and a [`Duration`] is divided slowly.
fn limit(tolerance: Duration, interval: Duration) -> Duration {
    let nanos = |span: Duration| span.as_nanos() as u64;
    let still = nanos(tolerance) * u64::from(STILL_TENTHS) / 10;
    let heard = still + nanos(interval) * 9 / 8 + nanos(SLACK);
    Duration::from_nanos(heard.max(nanos(tolerance).saturating_sub(nanos(TELLING))))
}

/// A number that is spread over all, best in its upper bits.
fn mixed(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9)
}

/// The monitor of a bearer.
#[derive(Debug, Default)]
pub struct Monitor {
    own: NodeAddr,
    /// This node and its peers in the order of their addresses; empty without peers.
    entries: Vec<Entry>,
    supervision: Supervision,
    threshold: Option<usize>,
    /// Of the own record.
    generation: u16,
    /// Changes whenever roles do.
    list_generation: u16,
    members: Vec<NodeAddr>,
    up_map: u64,
    suspects: Vec<NodeAddr>,
    /// Nodes of the own domain lost by one cause, and when the first of them was.
    own_losses: (u16, Instant),
    /// Where in `entries` a node was seen last, by its address: with a thousand nodes a search meets memory that is cold at
    /// each step, and each packet needs one.
    places: Places,
}

/// A node of the ring as operators see it.
#[derive(Clone, Debug)]
pub struct MonitoredNode {
    /// Its address.
    pub addr: NodeAddr,
    /// There is a link to it.
    pub up: bool,
    /// Who watches it.
    pub role: Role,
    /// Generation of its record, 0 without one.
    pub generation: u16,
    /// Members of its record, whether each is up, and how many of them follow it on this node's ring, too.
    pub record: Option<(Vec<(NodeAddr, bool)>, usize)>,
}

impl Monitor {
    /// Takes what operators set.
    pub fn set_supervision(&mut self, supervision: Supervision) {
        self.supervision = supervision;
    }

    /// Nodes, this one included, up to which there are no records and no ring.
    pub fn threshold(&self) -> usize {
        self.threshold.unwrap_or(THRESHOLD_DEFAULT)
    }

    /// Changes the threshold.
    pub fn set_threshold(&mut self, threshold: usize) {
        self.threshold = Some(threshold.min(THRESHOLD_MAX));
    }

    /// Nodes on the ring, this one included.
    pub fn nodes(&self) -> usize {
        self.entries.len().max(1)
    }

    /// Number that changes whenever roles do.
    pub fn list_generation(&self) -> u16 {
        self.list_generation
    }

    /// Records are sent.
    fn sends_records(&self) -> bool {
        self.nodes() > self.threshold()
    }

    /// Only the links of the ring are watched.
    pub fn is_ring(&self) -> bool {
        self.sends_records()
            && match self.supervision {
                Supervision::Auto => self.nodes() > MESH_MAX,
                Supervision::Mesh => false,
                Supervision::Ring => true,
            }
    }

    /// The nodes in the order of the ring, from this one on.
    pub fn list(&self) -> impl Iterator<Item = MonitoredNode> + '_ {
        let start = self.index_of(self.own).unwrap_or(0);
        let (before, after) = self.entries.split_at(start);
        after.iter().chain(before).map(|entry| self.view(entry))
    }

    /// How closely to watch the link to a peer with this tolerance.
    pub fn pace(&self, now: Instant, peer: NodeAddr, tolerance: Duration) -> Pace {
        let interval = tolerance / PROBES_PER_TOLERANCE;
        let interval = interval.clamp(PROBE_INTERVAL.0, PROBE_INTERVAL.1);
        let close = Pace {
            interval: Some(interval),
            limit: limit(tolerance, interval),
            founded: false,
        };
        let suspected = Pace {
            founded: true,
            ..close
        };
        let all = self.nodes() as u64 - 1;
        let per_second =
            |packets: u64, budget: u64| Duration::from_micros(packets * 1_000_000 / budget.max(1));
        let near = self.members.len() as u64;
        let entry = || self.index_of(peer).map(|index| &self.entries[index]);
        if self.is_ring() {
            let heads = all / (near + 1);
            let interval = per_second(2 * (near + heads), RING_BUDGET);
            let ring = if close.interval >= Some(interval) {
                close
            } else {
                Pace {
                    interval: Some(interval),
                    limit: tolerance + RING_SLACK,
                    founded: false,
                }
            };
            return match entry() {
                Some(entry) if entry.is_suspected() => suspected,
                Some(entry) if entry.is_watched() => ring,
                Some(_) if self.is_cut_off(now) => Pace {
                    interval: Some(tolerance / 2),
                    ..close
                },
                Some(_) => Pace::default(),
                None => ring,
            };
        }
        if close.interval >= Some(per_second(all, MESH_BUDGET)) {
            return close;
        }
        if entry().is_none_or(Entry::is_local) {
            return close;
        }
        if entry().is_some_and(Entry::is_suspected) {
            return suspected;
        }
        // Its supervisors, for whom it is near, tell when it is lost.
        let rate = Duration::from_secs(1).as_micros() as u64 / interval.as_micros().max(1) as u64;
        let budget = MESH_BUDGET.saturating_sub(2 * near * rate);
        let interval = per_second(all.saturating_sub(2 * near), budget);
        let interval = interval.as_nanos() as u64 * u64::from(self.phase(peer));
        let interval = Duration::from_nanos(interval / u64::from(PHASES));
        let cut_off = self.is_cut_off(now);
        let limit = if cut_off {
            close.limit
        } else {
            limit(tolerance, interval)
        };
        Pace {
            interval: Some(interval),
            limit,
            founded: cut_off,
        }
    }

    /// Peers are not probed all at the same moment, though their links came up together: each has an interval of its own,
    /// the same at both ends, by some hundredths longer or shorter.
    fn phase(&self, peer: NodeAddr) -> u32 {
        PHASES - 7 + (mixed(self.own.0 ^ peer.0) >> 28)
    }

    /// Most of the own domain was lost at the same time: it is this node that was cut off, and there is nobody left to
    /// report those whom others watch.
    pub fn is_cut_off(&self, now: Instant) -> bool {
        let (lost, since) = self.own_losses;
        usize::from(lost) * 2 > self.members.len() && now.since(since) <= ONE_CAUSE * CAUSE_LASTS
    }

    /// The own record has not reached this peer, as far as is known.
    pub fn is_untold(&self, peer: NodeAddr) -> bool {
        self.sends_records()
            && self
                .index_of(peer)
                .is_some_and(|index| self.entries[index].acked != self.generation)
    }

    /// Whether this peer is to be told at once that a node of the own domain was lost. In a large mesh, where one report is
    /// enough, those that watched the node share the others among them; the rest hears of it with the next probe.
    pub fn tells_at_once(&self, lost: NodeAddr, peer: NodeAddr) -> bool {
        let watchers = self.members.len();
        let stride = (watchers / TELLERS).max(1);
        let many = usize::from(self.own_losses.0) * MANY > watchers;
        if self.is_ring() || stride == 1 || many {
            return true;
        }
        let place = self.members.iter().position(|member| *member == lost);
        let first = (mixed(peer.0 ^ lost.0) >> 16) as usize % watchers;
        place.is_some_and(|place| ((place + watchers - first) % watchers).is_multiple_of(stride))
    }

    /// Reads what is known of a peer ([`crate::engine::Engine::read_links`]).
    pub fn read(&self, peer: NodeAddr) {
        let entry = self.places.guess(peer).and_then(|at| self.entries.get(at));
        black_box(entry.map(|entry| entry.acked));
    }

    /// Writes the record for a STATE to this peer; gives its length, 0 for none.
    pub fn emit(&self, peer: NodeAddr, out: &mut [u8]) -> usize {
        let index = self.index_of(peer).filter(|_| self.sends_records());
        let Some(entry) = index.map(|index| &self.entries[index]) else {
            return 0;
        };
        let (generation, ack_generation) = (self.generation, entry.peer_generation);
        if entry.acked == self.generation && entry.synchronised {
            let known = DomainRecord {
                generation,
                ack_generation,
                up_map: 0,
                members: &[],
            };
            return known.emit(out);
        }
        let mut members = [[0; 4]; MAX_DOMAIN_MEMBERS];
        for (bytes, member) in members.iter_mut().zip(&self.members) {
            *bytes = member.0.to_be_bytes();
        }
        let record = DomainRecord {
            generation,
            ack_generation,
            up_map: self.up_map,
            members: &members[..self.members.len()],
        };
        record.emit(out)
    }

    /// Peers that were reported lost since the last call, or whose supervisor was lost. True: often enough to believe it.
    pub fn pop_suspect(&mut self) -> Option<(NodeAddr, bool)> {
        let addr = self.suspects.pop()?;
        let reports = self.index_of(addr).map_or(0, |i| self.entries[i].reports);
        Some((addr, reports >= REPORTS))
    }
}
