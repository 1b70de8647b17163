//! Packets under way, given out in the order in which they arrive, and those of one moment in the order in which they were
//! sent.

use crate::segment::Flight;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use xtipc_protocol::time::Instant;

/// One packet under way.
struct Arrival {
    at: Instant,
    serial: u64,
    flight: Flight,
}

impl Arrival {
    fn turn(&self) -> (Instant, u64) {
        (self.at, self.serial)
    }
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.turn() == other.turn()
    }
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    /// The first one is the greatest: a heap gives that out.
    fn cmp(&self, other: &Self) -> Ordering {
        other.turn().cmp(&self.turn())
    }
}

/// All packets under way. Most take the same time, so they arrive as they were sent and need only a queue; those that
/// would have to overtake its end are sorted.
#[derive(Default)]
pub(crate) struct Arrivals {
    queue: VecDeque<Arrival>,
    overtaking: BinaryHeap<Arrival>,
    serial: u64,
}

impl Arrivals {
    /// Adds a packet that arrives at `at`.
    pub(crate) fn put(&mut self, at: Instant, flight: Flight) {
        self.serial += 1;
        let arrival = Arrival {
            at,
            serial: self.serial,
            flight,
        };
        if self.queue.back().is_some_and(|last| last.at > at) {
            self.overtaking.push(arrival);
        } else {
            self.queue.push_back(arrival);
        }
    }

    /// When the next one arrives.
    pub(crate) fn next(&self) -> Option<Instant> {
        let first = [self.queue.front(), self.overtaking.peek()];
        first.into_iter().flatten().map(|first| first.at).min()
    }

    /// Takes the next one that has arrived.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Flight> {
        let (queued, overtaking) = (self.queue.front(), self.overtaking.peek());
        let is_overtaken = match (queued, overtaking) {
            (Some(queued), Some(overtaking)) => overtaking.turn() < queued.turn(),
            (queued, _) => queued.is_none(),
        };
        let first = if is_overtaken { overtaking } else { queued };
        first.filter(|first| first.at <= now)?;
        let arrival = if is_overtaken {
            self.overtaking.pop()
        } else {
            self.queue.pop_front()
        };
        arrival.map(|arrival| arrival.flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(from: usize) -> Flight {
        Flight {
            from,
            to: 0,
            source: [0; 6],
            bytes: Vec::new(),
        }
    }

    #[test]
    fn packets_come_by_their_time_and_those_of_one_moment_as_they_were_sent() {
        let mut arrivals = Arrivals::default();
        let times = [20, 20, 500, 40, 40, 20, 500, 600, 60];
        for (from, at) in times.into_iter().enumerate() {
            arrivals.put(Instant(at), flight(from));
        }
        let mut order = Vec::new();
        while let Some(next) = arrivals.next() {
            assert!(arrivals.pop(Instant(next.0 - 1)).is_none());
            let arrived = std::iter::from_fn(|| arrivals.pop(next));
            order.extend(arrived.map(|flight| (next.0, flight.from)));
        }
        let mut expected: Vec<_> = times.into_iter().zip(0..).collect();
        expected.sort_unstable();
        assert_eq!(order, expected);
    }
}
