//! Which queue the packets to each station are sent by, where several workers serve queues.
//!
//! Owned by a port. A station that has a link has one queue, so that the packets of the link stay in order, and the queues have
//! equally many stations, or one more. Within that a station goes by the queue that its own packets come into, so that one
//! worker is awake for both; else it stays where it is.
//!
//! A station changes its queue when nothing to it is in transmission. Until then it goes on by the old one, also if its
//! link was lost meanwhile: a packet of the old session must not come after the first ones of a new one.

#[cfg(test)]
mod tests;

use hashbrown::HashMap;
use xtipc_protocol::addr::MediaAddr;
use xtipc_protocol::host::MediaDest;
use xtipc_xsk::FrameIndex;

/// A station by which a frame in transmission is known; two may have the same, and then wait for each other.
type Mark = u16;

/// What goes to all stations.
const ALL: Mark = 0;
/// What goes to stations without a link.
const STRANGER: Mark = 1;
const FIRST_MARK: Mark = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Spread {
    queues: Vec<u32>,
    /// What goes to all is sent by it, and what goes to stations without a link.
    fixed: u32,
    stations: HashMap<MediaAddr, Station>,
    /// By frame: whom it was last sent to.
    sent_to: Box<[Mark]>,
    next_mark: Mark,
    /// Stations that have not the queue that they are to have.
    unsettled: usize,
}

#[derive(Debug)]
struct Station {
    mark: Mark,
    /// The queue that its packets are sent by.
    by: u32,
    /// The one that they are to be sent by; `None`: its link is gone.
    wanted: Option<u32>,
    /// The one that its own packets come into.
    comes_into: Option<u32>,
}

impl Spread {
    /// Over these queues, for a pool of so many frames.
    pub(super) fn new(queues: Vec<u32>, frames: u32) -> Self {
        Self {
            fixed: queues[0],
            queues,
            stations: HashMap::new(),
            sent_to: vec![ALL; frames as usize].into_boxed_slice(),
            next_mark: FIRST_MARK,
            unsettled: 0,
        }
    }

    pub(super) fn queues(&self) -> &[u32] {
        &self.queues
    }

    /// Over other queues. Those that are not among them have no socket any more: what lay there is lost, and goes by another one
    /// at once.
    pub(super) fn set_queues(&mut self, queues: Vec<u32>) {
        if self.queues == queues {
            return;
        }
        self.queues = queues;
        if !self.queues.contains(&self.fixed) {
            self.fixed = self.queues[0];
        }
        self.stations.retain(|_, station| {
            let has_socket = self.queues.contains(&station.by);
            if !has_socket {
                station.by = self.fixed;
            }
            has_socket || station.wanted.is_some()
        });
        self.share_out();
    }

    /// Those that have a link now, and which queue what they send comes into, where that is known.
    pub(super) fn set_linked(
        &mut self,
        linked: impl Iterator<Item = MediaAddr>,
        comes_into: impl Fn(MediaAddr) -> Option<u32>,
    ) {
        let fixed = self.fixed;
        for station in self.stations.values_mut() {
            station.wanted = None;
        }
        for addr in linked {
            let mark = self.next_mark;
            let station = self.stations.entry(addr).or_insert_with(|| {
                self.next_mark = mark.checked_add(1).unwrap_or(FIRST_MARK);
                Station {
                    mark,
                    by: fixed,
                    wanted: None,
                    comes_into: comes_into(addr),
                }
            });
            station.wanted = Some(station.by);
        }
        self.share_out();
    }

    /// Gives each station that has a link a queue.
    fn share_out(&mut self) {
        let linked = self.stations.iter_mut();
        let mut linked: Vec<_> = linked
            .filter(|(_, station)| station.wanted.is_some())
            .collect();
        linked.sort_unstable_by_key(|(addr, _)| addr.0);
        let mut room = Room::new(&self.queues, linked.len());
        let wishes: [fn(&Station) -> Option<u32>; 3] = [
            |station| station.comes_into.filter(|queue| *queue == station.by),
            |station| station.comes_into,
            |station| Some(station.by),
        ];
        for wish in wishes {
            linked.retain_mut(|(_, station)| {
                let granted = wish(station).filter(|queue| room.take(*queue));
                station.wanted = granted.or(station.wanted);
                granted.is_none()
            });
        }
        for (_, station) in linked {
            station.wanted = Some(room.take_emptiest());
        }
        self.count_unsettled();
    }

    /// The queue for a frame, which is noted as sent.
    pub(super) fn queue_for(&mut self, to: MediaDest, frame: FrameIndex) -> u32 {
        let station = match to {
            MediaDest::Broadcast => (self.fixed, ALL),
            MediaDest::Unicast(addr) => match self.stations.get(&addr) {
                Some(station) => (station.by, station.mark),
                None => (self.fixed, STRANGER),
            },
        };
        let (queue, mark) = station;
        self.sent_to[frame.0 as usize] = mark;
        queue
    }

    /// The queue that packets to a station are sent by.
    pub(super) fn queue_of(&self, addr: &MediaAddr) -> u32 {
        let station = self.stations.get(addr);
        station.map_or(self.fixed, |station| station.by)
    }

    /// Whether there is something for [`Self::settle`] to do.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled > 0
    }

    /// Lets those stations change to which no frame is in transmission; these frames are.
    pub(super) fn settle(&mut self, in_tx: impl Iterator<Item = FrameIndex>) {
        let mut marks: Vec<_> = in_tx.map(|frame| self.sent_to[frame.0 as usize]).collect();
        marks.sort_unstable();
        marks.dedup();
        let is_under_way = |mark| marks.binary_search(&mark).is_ok();
        let fixed = self.fixed;
        self.stations.retain(|_, station| {
            // Before it had a link it was a stranger.
            let waits = is_under_way(station.mark) || station.by == fixed && is_under_way(STRANGER);
            match station.wanted {
                None => waits,
                Some(wanted) => {
                    if !waits {
                        station.by = wanted;
                    }
                    true
                }
            }
        });
        self.count_unsettled();
    }

    fn count_unsettled(&mut self) {
        let stations = self.stations.values();
        let unsettled = stations.filter(|station| station.wanted != Some(station.by));
        self.unsettled = unsettled.count();
    }
}

/// How many stations the queues still take: all the same number, and some one more.
struct Room {
    /// With their stations.
    queues: Vec<(u32, usize)>,
    share: usize,
    one_more: usize,
}

impl Room {
    fn new(queues: &[u32], stations: usize) -> Self {
        Self {
            queues: queues.iter().map(|queue| (*queue, 0)).collect(),
            share: stations / queues.len(),
            one_more: stations % queues.len(),
        }
    }

    fn take(&mut self, queue: u32) -> bool {
        let place = self.queues.iter().position(|(number, _)| *number == queue);
        place.is_some_and(|place| self.take_at(place))
    }

    fn take_at(&mut self, place: usize) -> bool {
        let taken = &mut self.queues[place].1;
        if *taken == self.share && self.one_more > 0 {
            self.one_more -= 1;
        } else if *taken >= self.share {
            return false;
        }
        *taken += 1;
        true
    }

    /// Of as many stations as this is for, none finds it full.
    fn take_emptiest(&mut self) -> u32 {
        let places = 0..self.queues.len();
        let place = places
            .min_by_key(|place| self.queues[*place].1)
            .unwrap_or(0);
        self.take_at(place);
        self.queues[place].0
    }
}
