//! An Ethernet segment in virtual time: stations by MAC address, broadcast, and faults from a seed.

use crate::arrivals::Arrivals;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xtipc_protocol::addr::{Media, MediaAddr};
use xtipc_protocol::host::MediaDest;
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{Msg, Packet, User};

/// Bytes at the begin of a packet that headers are in.
const HEADERS: usize = 60;

/// Virtual time for readers.
pub fn seconds(at: Instant) -> f64 {
    Duration::from_nanos(at.0).as_secs_f64()
}

/// What goes wrong, each in per mille of the packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Packets that do not arrive.
    pub loss: u32,
    /// Packets that arrive twice.
    pub duplication: u32,
    /// Packets that take up to `straggle` longer than others, and so come out of order.
    pub reordering: u32,
    /// Longest extra time of a reordered packet.
    pub straggle_us: u64,
    /// Packets with a flipped bit, half of them in the headers: on a real Ethernet the checksum makes a
    /// loss of them.
    pub corruption: u32,
}

/// A packet between two stations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Sending station.
    pub from: usize,
    /// Receiving station.
    pub to: usize,
    /// Sending MAC address.
    pub source: [u8; 6],
    /// The packet.
    pub bytes: Vec<u8>,
}

/// What a filter decides of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on to meet the faults.
    Pass,
    /// It is gone.
    Lose,
    /// These bytes go on in its place.
    Replace(Vec<u8>),
}

/// Decides what becomes of each packet.
pub type Filter = Box<dyn FnMut(&Flight) -> Fate>;

/// A packet seen on the wire, before any fault.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it was sent.
    pub at: Instant,
    /// Sending station.
    pub from: usize,
    /// `None` for a broadcast.
    pub to: Option<usize>,
    /// The packet.
    pub bytes: Vec<u8>,
}

/// The segment. Stations are numbered; station n has the MAC address [`mac_of`] n.
pub struct Segment {
    rng: Rng,
    /// Faults in force.
    pub faults: Faults,
    /// Time from station to station.
    pub delay_us: u64,
    /// Asked for each packet and receiver.
    pub filter: Option<Filter>,
    /// Directed pairs that do not hear each other.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Stations that get everything later, by so many microseconds: their node is slow.
    pub slow: BTreeMap<usize, u64>,
    /// When a station that was slow has got what waits for it. What follows does not overtake that.
    queued: BTreeMap<usize, Instant>,
    stations: BTreeSet<usize>,
    in_flight: Arrivals,
    /// Print each packet.
    pub log: bool,
    /// Keep [`Self::seen`].
    pub record: bool,
    /// Packets so far, if recorded.
    pub seen: Vec<Seen>,
    /// Depends on every packet, its sender and its time.
    pub trace: u64,
    /// Packets sent so far.
    pub packets: u64,
    /// Those of them that are of the link protocol, by station.
    pub supervision: Vec<u64>,
}

/// A station's MAC address.
pub fn mac_of(station: usize) -> [u8; 6] {
    let [_, high, middle, low] = (station as u32 + 1).to_be_bytes();
    [2, 0, 0, high, middle, low]
}

fn station_of([_, _, _, high, middle, low]: [u8; 6]) -> Option<usize> {
    (u32::from_be_bytes([0, high, middle, low]) as usize).checked_sub(1)
}

impl Segment {
    /// An empty segment without faults.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            faults: Faults::default(),
            delay_us: 20,
            filter: None,
            cuts: BTreeSet::new(),
            slow: BTreeMap::new(),
            queued: BTreeMap::new(),
            stations: BTreeSet::new(),
            in_flight: Arrivals::default(),
            log: false,
            record: false,
            seen: Vec::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            packets: 0,
            supervision: Vec::new(),
        }
    }

    /// Connects a station.
    pub fn plug(&mut self, station: usize) {
        self.stations.insert(station);
    }

    /// Disconnects a station.
    pub fn unplug(&mut self, station: usize) {
        self.stations.remove(&station);
    }

    /// Two stations no longer hear each other.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Takes a packet that a station sent.
    pub fn send(&mut self, now: Instant, from: usize, to: MediaDest, bytes: Vec<u8>) {
        self.note(now, from, to, &bytes);
        let source = mac_of(from);
        match to {
            MediaDest::Unicast(addr) => {
                if let Some(to) = station_of(addr.mac()) {
                    self.pass(
                        now,
                        Flight {
                            from,
                            to,
                            source,
                            bytes,
                        },
                    );
                }
            }
            MediaDest::Broadcast => {
                for to in self.stations.clone() {
                    if to != from {
                        self.pass(
                            now,
                            Flight {
                                from,
                                to,
                                source,
                                bytes: bytes.clone(),
                            },
                        );
                    }
                }
            }
        }
    }

    fn note(&mut self, at: Instant, from: usize, to: MediaDest, bytes: &[u8]) {
        self.packets += 1;
        if Msg::check(bytes).is_ok_and(|msg| msg.user() == User::LinkProtocol) {
            if self.supervision.len() <= from {
                self.supervision.resize(from + 1, 0);
            }
            self.supervision[from] += 1;
        }
        self.mix(at.0);
        self.mix(from as u64);
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut padded = [0; 8];
            padded[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(padded));
        }
        let to = match to {
            MediaDest::Unicast(addr) => station_of(addr.mac()),
            MediaDest::Broadcast => None,
        };
        if self.log {
            let to = to.map_or("all".to_string(), |to| to.to_string());
            match Packet::decode(bytes) {
                Ok(packet) => println!("{:.6} {from} > {to} {packet}", seconds(at)),
                Err(error) => println!("{:.6} {from} > {to} {error}: {bytes:02x?}", seconds(at)),
            }
        }
        if self.record {
            self.seen.push(Seen {
                at,
                from,
                to,
                bytes: bytes.to_vec(),
            });
        }
    }

    fn mix(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.trace ^= self.trace >> 32;
    }

    /// One receiver's copy meets its faults.
    fn pass(&mut self, now: Instant, mut flight: Flight) {
        if self.cuts.contains(&(flight.from, flight.to)) {
            return;
        }
        match self.filter.as_mut().map(|filter| filter(&flight)) {
            None | Some(Fate::Pass) => {}
            Some(Fate::Lose) => return,
            Some(Fate::Replace(bytes)) => flight.bytes = bytes,
        }
        let faults = self.faults;
        if self.rng.chance(faults.loss) {
            return;
        }
        if self.rng.chance(faults.corruption) {
            let len = flight.bytes.len();
            let reach = if self.rng.chance(500) {
                len.min(HEADERS)
            } else {
                len
            };
            let bit = self.rng.below(reach as u64 * 8);
            flight.bytes[bit as usize / 8] ^= 1 << (bit % 8);
        }
        let usual = self.usual_arrival(now, flight.to);
        if self.rng.chance(faults.duplication) {
            let at = self.straggle(usual);
            self.in_flight.put(at, flight.clone());
        }
        let at = self.straggle(usual);
        self.in_flight.put(at, flight);
    }

    /// When a packet arrives that may be reordered.
    fn straggle(&mut self, usual: Instant) -> Instant {
        let Faults {
            reordering,
            straggle_us,
            ..
        } = self.faults;
        let late = self.rng.chance(reordering);
        let extra = if late {
            self.rng.below(straggle_us + 1)
        } else {
            0
        };
        Instant(usual.0 + extra * 1000)
    }

    fn usual_arrival(&mut self, now: Instant, to: usize) -> Instant {
        let slow = self.slow.get(&to).copied();
        let at = Instant(now.0 + (self.delay_us + slow.unwrap_or(0)) * 1000);
        if slow.is_none() && !self.queued.contains_key(&to) {
            return at;
        }
        let end = self.queued.entry(to).or_insert(at);
        *end = at.max(*end);
        *end
    }

    /// When the next packet arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.in_flight.next()
    }

    /// Takes the next packet that has arrived.
    pub fn pop_arrived(&mut self, now: Instant) -> Option<Flight> {
        self.in_flight.pop(now)
    }
}

/// The address of a station on a media with hardware addresses: [`Segment::send`] finds the MAC address at the same place.
pub fn media_addr(media: Media, mac: [u8; 6]) -> MediaAddr {
    match media {
        Media::InfiniBand => {
            let mut address = [0; 20];
            address[4..10].copy_from_slice(&mac);
            MediaAddr::from_infiniband(address)
        }
        _ => MediaAddr::ethernet(mac),
    }
}

/// The source of a packet as the engine takes it.
pub fn source_addr(media: Media, mac: [u8; 6]) -> MediaAddr {
    match media {
        Media::InfiniBand => MediaAddr::UNTOLD,
        _ => media_addr(media, mac),
    }
}
