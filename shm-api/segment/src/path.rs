//! The way to a node as the daemon shows it to an application, in the first page of the daemon area:
//!
//! ```text
//! byte 2048 + 64 * slot, words of 64 bits
//!   0  count of writes, odd during one
//!   1  flags:32 (1 up, 2 congested, 4 round trip known, 8 of a connection)  window:32
//!   2  round trip in ns
//!   3  packets in flight:32  packets waiting:32
//!   4  largest message in one packet:32  zero:32
//!   5  connection: under way:32  limit:32
//!   6..7  zero
//! ```

use bitflags::bitflags;
use std::time::Duration;

use crate::snapshot::STATE_WORDS;

/// Paths that an attachment can have open.
pub const PATHS_MAX: u32 = 32;

/// Units under way on a connection (blocks of 1024 bytes, or messages with an old peer), and how many may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionWindow {
    /// Sent and not acknowledged.
    pub under_way: u32,
    /// A message may be sent as long as no more than this is under way.
    pub limit: u32,
}

/// What a sender may want to know before it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathState {
    /// The node can be reached.
    pub is_up: bool,
    /// A sender of low importance would have to wait.
    pub is_congested: bool,
    /// The shortest time of the last seconds between a packet and its acknowledgement, once it is known.
    pub round_trip: Option<Duration>,
    /// Packets sent and not acknowledged.
    pub in_flight: u32,
    /// Packets that wait for the window.
    pub waiting: u32,
    /// Packets that may be in flight; 0 on this node.
    pub window: u32,
    /// Largest message that goes in one packet; 0 on this node.
    pub single_packet_max: u32,
    /// Of the path of a connection: what is under way on it.
    pub connection: Option<ConnectionWindow>,
}

bitflags! {
    #[derive(Clone, Copy)]
    struct Flags: u32 {
        const UP = 1;
        const CONGESTED = 2;
        const ROUND_TRIP = 4;
        const CONNECTION = 8;
    }
}

impl PathState {
    pub(crate) fn encode(&self) -> [u64; STATE_WORDS] {
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let mut flags = Flags::empty();
        flags.set(Flags::UP, self.is_up);
        flags.set(Flags::CONGESTED, self.is_congested);
        flags.set(Flags::ROUND_TRIP, self.round_trip.is_some());
        flags.set(Flags::CONNECTION, self.connection.is_some());
        let round_trip = self.round_trip.unwrap_or_default().as_nanos();
        let connection = self.connection.unwrap_or_default();
        [
            pair(flags.bits(), self.window),
            u64::try_from(round_trip).unwrap_or(u64::MAX),
            pair(self.in_flight, self.waiting),
            pair(self.single_packet_max, 0),
            pair(connection.under_way, connection.limit),
            0,
            0,
        ]
    }

    pub(crate) fn decode(words: &[u64; STATE_WORDS]) -> Self {
        let halves = |word: u64| (word as u32, (word >> 32) as u32);
        let (flags, window) = halves(words[0]);
        let flags = Flags::from_bits_truncate(flags);
        let (in_flight, waiting) = halves(words[2]);
        let (single_packet_max, _) = halves(words[3]);
        let (under_way, limit) = halves(words[4]);
        Self {
            is_up: flags.contains(Flags::UP),
            is_congested: flags.contains(Flags::CONGESTED),
            round_trip: flags
                .contains(Flags::ROUND_TRIP)
                .then(|| Duration::from_nanos(words[1])),
            in_flight,
            waiting,
            window,
            single_packet_max,
            connection: flags
                .contains(Flags::CONNECTION)
                .then_some(ConnectionWindow { under_way, limit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_state_reads_as_it_was_written(
            flags: [bool; 4], numbers: [u32; 6], round_trip: u64,
        ) {
            let [is_up, is_congested, has_round_trip, has_connection] = flags;
            let [in_flight, waiting, window, single_packet_max, under_way, limit] = numbers;
            let state = PathState {
                is_up,
                is_congested,
                round_trip: has_round_trip.then(|| Duration::from_nanos(round_trip)),
                in_flight,
                waiting,
                window,
                single_packet_max,
                connection: has_connection.then_some(ConnectionWindow { under_way, limit }),
            };
            prop_assert_eq!(PathState::decode(&state.encode()), state);
        }

        #[test]
        fn any_words_are_a_state(words: [u64; STATE_WORDS]) {
            let _ = PathState::decode(&words);
        }
    }
}
