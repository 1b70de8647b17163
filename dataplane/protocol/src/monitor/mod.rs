//! Who supervises whom on a bearer: overlapping ring monitoring (`docs/protocol/monitor.md`).
//!
//! A [`Monitor`] keeps the nodes of a bearer as a ring in the order of their addresses, the domain records they send,
//! and what follows: which links this node watches and how closely, and who was reported lost. It sends nothing; links
//! ask it for the record that goes into their STATE messages.

mod losses;
mod pace;
mod places;
mod ring;
mod telling;

use crate::addr::NodeAddr;
use crate::time::Instant;
use crate::wire::{DomainRecord, MAX_DOMAIN_MEMBERS};
use losses::Losses;
use places::Places;
use ring::Entry;
use std::hint::black_box;

pub use pace::Pace;
pub use ring::Role;

/// Nodes up to which no records are sent, unless set otherwise; as in Linux.
pub const THRESHOLD_DEFAULT: usize = 32;
/// Largest threshold.
pub const THRESHOLD_MAX: usize = 4095;
/// Nodes up to which every link is watched unless set otherwise.
const MESH_MAX: usize = 1000;
/// Reports after which a node counts as lost without a look of one's own.
const REPORTS: u8 = 4;
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
    /// Nodes that were reported lost and not heard since.
    suspected: usize,
    /// Those of them that are still to be looked at.
    suspects: Vec<NodeAddr>,
    losses: Losses,
    /// Members were lost, of which nobody was told yet.
    news: bool,
    /// The last change of the own record was a loss: those who need it know of it already.
    unhurried: bool,
    /// When another peer may be told of that to which nothing else is to be said.
    tell_next: Instant,
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
