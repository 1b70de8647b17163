//! The choice of a queue, and its change.

use super::*;

fn station(number: u8) -> MediaAddr {
    MediaAddr::ethernet([2, 0, 0, 0, 0, number])
}

fn unknown(_: MediaAddr) -> Option<u32> {
    None
}

/// As a NIC's rules have it that looks at the last bit of the sender's address.
fn by_last_bit(addr: MediaAddr) -> Option<u32> {
    Some(u32::from(addr.mac()[5] & 1))
}

fn spread(queues: &[u32]) -> Spread {
    Spread::new(queues.to_vec(), 64)
}

impl Spread {
    fn link(&mut self, numbers: impl IntoIterator<Item = u8>) {
        self.set_linked(numbers.into_iter().map(station), unknown);
    }

    /// With nothing in transmission.
    fn settle_all(&mut self) {
        self.settle(std::iter::empty());
        assert!(!self.is_unsettled());
    }

    /// How many of the stations each queue has.
    fn counts(&self, numbers: impl IntoIterator<Item = u8>) -> Vec<usize> {
        let by: Vec<_> = numbers
            .into_iter()
            .map(|n| self.queue_of(&station(n)))
            .collect();
        let of = |queue: &u32| by.iter().filter(|by| *by == queue).count();
        self.queues.iter().map(of).collect()
    }

    fn send(&mut self, number: u8, frame: u32) -> u32 {
        self.queue_for(MediaDest::Unicast(station(number)), FrameIndex(frame))
    }
}

fn in_tx(frames: impl IntoIterator<Item = u32>) -> impl Iterator<Item = FrameIndex> {
    frames.into_iter().map(FrameIndex)
}

#[test]
fn stations_are_spread_evenly_however_they_come_and_go() {
    for queues in [&[0, 1][..], &[0, 1, 2], &[0, 2, 4, 6, 8]] {
        let mut spread = spread(queues);
        let is_even = |spread: &Spread, numbers: &[u8]| {
            let counts = spread.counts(numbers.iter().copied());
            assert_eq!(counts.iter().sum::<usize>(), numbers.len());
            let most = counts.iter().max().unwrap();
            assert!(most - counts.iter().min().unwrap() <= 1, "{counts:?}");
        };
        let mut linked = Vec::new();
        for number in 0..20 {
            linked.push(number);
            spread.link(linked.iter().copied());
            spread.settle_all();
            is_even(&spread, &linked);
        }
        while linked.len() > 1 {
            linked.remove(linked.len() * 7 / 10);
            spread.link(linked.iter().copied());
            spread.settle_all();
            is_even(&spread, &linked);
        }
    }
}

#[test]
fn no_station_changes_that_need_not() {
    let mut spread = spread(&[0, 1]);
    spread.link(0..8);
    spread.settle_all();
    let before: Vec<_> = (0..8).map(|n| spread.queue_of(&station(n))).collect();
    spread.link(0..8);
    assert!(!spread.is_unsettled());
    // One each has room for that.
    let gone = before.iter().position(|queue| *queue == 0).unwrap() as u8;
    let gone = [
        gone,
        before.iter().position(|queue| *queue == 1).unwrap() as u8,
    ];
    let stay = || (0..8).filter(|number| !gone.contains(number));
    spread.link(stay());
    spread.settle_all();
    for number in stay() {
        assert_eq!(
            spread.queue_of(&station(number)),
            before[usize::from(number)]
        );
    }
}

#[test]
fn a_station_goes_by_the_queue_that_its_packets_come_into_as_far_as_shares_are_even() {
    let mut spread = spread(&[0, 1]);
    spread.set_linked([1, 2, 3, 4].map(station).into_iter(), by_last_bit);
    spread.settle_all();
    for number in 1..=4 {
        assert_eq!(
            Some(spread.queue_of(&station(number))),
            by_last_bit(station(number))
        );
    }
    // All of one bit: half of them go by the other queue.
    let odd = [1, 3, 5, 7];
    spread.set_linked(odd.map(station).into_iter(), by_last_bit);
    spread.settle_all();
    assert_eq!(spread.counts(odd), [2, 2]);
    spread.set_linked([5].map(station).into_iter(), by_last_bit);
    spread.settle_all();
    assert_eq!(spread.queue_of(&station(5)), 1);
}

#[test]
fn what_goes_to_all_or_to_strangers_has_the_first_queue() {
    let mut spread = spread(&[3, 1]);
    spread.link([1, 2]);
    spread.settle_all();
    assert_eq!(spread.queue_for(MediaDest::Broadcast, FrameIndex(0)), 3);
    assert_eq!(spread.send(9, 1), 3);
    assert_eq!(spread.counts([1, 2]), [1, 1]);
}

#[test]
fn a_station_changes_when_nothing_to_it_is_in_transmission() {
    let mut spread = spread(&[0, 1]);
    spread.link([1]);
    spread.settle_all();
    spread.link([1, 2]);
    assert!(spread.is_unsettled());
    assert_eq!((spread.send(1, 10), spread.send(2, 20)), (0, 0));
    spread.settle(in_tx([10, 20]));
    assert_eq!(spread.send(2, 21), 0);
    spread.settle(in_tx([10, 21]));
    assert_eq!(spread.send(2, 22), 0);
    // What goes to others is not waited for.
    spread.settle(in_tx([10]));
    assert!(!spread.is_unsettled());
    assert_eq!((spread.send(2, 23), spread.send(1, 11)), (1, 0));
}

#[test]
fn what_was_sent_before_the_link_counts_too() {
    let mut spread = spread(&[0, 1]);
    spread.link([1]);
    assert_eq!(spread.send(2, 20), 0);
    spread.link([1, 2]);
    spread.settle(in_tx([20]));
    assert_eq!(spread.send(2, 21), 0);
    assert!(spread.is_unsettled());
    spread.settle_all();
    assert_eq!(spread.send(2, 22), 1);
}

#[test]
fn a_lost_link_keeps_its_queue_until_its_packets_are_out() {
    let mut spread = spread(&[0, 1]);
    spread.link([1, 2]);
    spread.settle_all();
    let [gone] = [1, 2]
        .into_iter()
        .filter(|n| spread.send(*n, 0) == 1)
        .collect::<Vec<_>>()[..]
    else {
        panic!("one each");
    };
    let other = 3 - gone;
    assert_eq!(spread.send(gone, 5), 1);
    spread.link([other]);
    spread.settle(in_tx([5]));
    assert_eq!(spread.send(gone, 6), 1);
    // It comes back before they are.
    spread.link([1, 2]);
    spread.settle(in_tx([5, 6]));
    assert_eq!(spread.send(gone, 7), 1);
    spread.link([other]);
    spread.settle_all();
    assert_eq!(spread.send(gone, 8), 0, "it is a stranger");
}

#[test]
fn sockets_made_anew_for_other_queues_have_all_stations() {
    let mut spread = spread(&[0, 1]);
    spread.link(0..6);
    spread.settle_all();
    spread.set_queues(vec![0, 2, 3]);
    spread.settle_all();
    assert_eq!(spread.counts(0..6), [2, 2, 2]);
}
