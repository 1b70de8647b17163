//! Times of operations: one end asks, the other sends back what it gets.
//!
//! *Closed loop*: a request leaves when the answer to the one before has come. So a stall shows as one long round trip,
//! not as the many that an open load would have met meanwhile (*coordinated omission*): the percentiles are those
//! of a caller that waits, and are not corrected. *Paced*: requests are due at fixed times, and the time of each counts from
//! when it was due, also if an earlier answer was late and it could not leave in time, and all count that were due.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use crate::extent::Extent;
use crate::statistics::Times;

/// An answer that takes longer does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Significant digits of the histogram.
const DIGITS: u8 = 3;

/// The end that asks.
pub(crate) trait Asker {
    /// Sends a message and waits for its echo; gives the echo's length.
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize>;
}

/// Makes round trips, after a warm-up, and gives their times. `interval`: one is due after each.
pub(crate) fn measure(
    asker: &mut dyn Asker,
    size: usize,
    extent: &Extent,
    interval: Option<Duration>,
) -> Result<Times> {
    let mut message: Vec<u8> = (0..size).map(|i| i as u8).collect();
    let mut answer = vec![0; size];
    let mut nanoseconds = Histogram::<u64>::new(DIGITS)?;
    let begun = Instant::now();
    let mut measured = None;
    let mut due = begun;
    for number in 0_u32.. {
        let stamp = number.to_ne_bytes();
        let stamped = size.min(stamp.len());
        message[..stamped].copy_from_slice(&stamp[..stamped]);
        while interval.is_some() && Instant::now() < due {
            // A daemon may share this processor.
            thread::yield_now();
        }
        let len = asker.ask(&message, &mut answer)?;
        ensure!(
            len == size && answer == message,
            "round trip {number}: the echo differs from what was sent"
        );
        let now = Instant::now();
        let warm = extent.is_warm(number.into(), now - begun);
        let next_due = match interval {
            Some(interval) if measured.is_some() => due + interval,
            Some(_) | None => now,
        };
        if let Some(since) = measured {
            nanoseconds.record((now - due).as_nanos().try_into()?)?;
            // Of what is paced, all that was due in the time counts: a stall at its end would else hide what it held up.
            if extent.is_over(nanoseconds.len(), next_due.saturating_duration_since(since)) {
                break;
            }
        } else if warm {
            measured = Some(now);
        }
        due = next_due;
    }
    Ok(Times::of(&nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Percentiles;

    struct Mirror {
        delay: Duration,
        broken: bool,
    }

    impl Asker for Mirror {
        fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
            let begun = Instant::now();
            while begun.elapsed() < self.delay {}
            answer.copy_from_slice(message);
            answer[message.len() - 1] ^= u8::from(self.broken);
            Ok(message.len())
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_times_are_those_of_the_echoes_after_the_warm_up() {
        let mut mirror = Mirror {
            delay: Duration::from_micros(100),
            broken: false,
        };
        let percentiles = measure(&mut mirror, 64, &Extent::Lasting(20 * MS), None).unwrap();
        let percentiles = percentiles.percentiles;
        assert!((1..=200).contains(&percentiles.count), "{percentiles:?}");
        assert!(percentiles.p50 >= 99_000, "{percentiles:?}");
        assert!(percentiles.max >= percentiles.p999, "{percentiles:?}");
    }

    #[test]
    fn an_echo_of_something_else_is_an_error() {
        let mut mirror = Mirror {
            delay: Duration::ZERO,
            broken: true,
        };
        assert!(measure(&mut mirror, 64, &Extent::Lasting(MS), None).is_err());
    }

    /// Stands still once.
    struct Stalling(u32);

    impl Asker for Stalling {
        fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
            self.0 += 1;
            if self.0 == 100 {
                thread::sleep(20 * MS);
            }
            answer.copy_from_slice(message);
            Ok(message.len())
        }
    }

    #[test]
    fn a_stall_counts_for_everything_that_was_due_meanwhile() {
        let extent = Extent::Counted(500);
        let interval = Duration::from_micros(100);
        let paced = measure(&mut Stalling(0), 64, &extent, Some(interval)).unwrap();
        assert!(
            paced.percentiles.p90 >= 5_000_000,
            "{:?}",
            paced.percentiles
        );
        let closed = measure(&mut Stalling(0), 64, &extent, None).unwrap();
        assert!(
            closed.percentiles.p90 < 5_000_000,
            "{:?}",
            closed.percentiles
        );
        assert_eq!(closed.percentiles.count, 500);
    }

    /// Stands still once, after some time.
    struct StallingAt(Instant, bool);

    impl Asker for StallingAt {
        fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize> {
            if !self.1 && Instant::now() >= self.0 {
                self.1 = true;
                thread::sleep(30 * MS);
            }
            answer.copy_from_slice(message);
            Ok(message.len())
        }
    }

    /// A loop that ended by the clock would count one request of all that the stall held up.
    #[test]
    fn a_stall_that_outlasts_the_measurement_counts_for_all_that_was_due_in_it() {
        let interval = Duration::from_micros(100);
        let stalled = || {
            let mut stalling = StallingAt(Instant::now() + 15 * MS, false);
            let paced = measure(&mut stalling, 64, &Extent::Lasting(20 * MS), Some(interval));
            let Percentiles { count, p90, .. } = paced.unwrap().percentiles;
            assert!((199..=201).contains(&count), "{count}");
            // Those of the last 7 ms were answered when 30 were over.
            p90 >= 20_000_000
        };
        // On a busy machine the stall may come before the measured time.
        assert!((0..50).any(|_| stalled()), "never in the measured time");
    }
}
