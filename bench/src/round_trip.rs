//! The round-trip kind: one end asks, the other sends back what it gets.
//!
//! Closed loop: a request leaves when the answer to the one before has come. So a stall shows as one long round trip,
//! not as the many that an open load would have met meanwhile (*coordinated omission*): the percentiles are those
//! of a caller that waits, and are not corrected.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use crate::statistics::Percentiles;

/// An answer that takes longer does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Significant digits of the histogram.
const DIGITS: u8 = 3;

/// The end that asks.
pub(crate) trait Asker {
    /// Sends a message and waits for its echo; gives the echo's length.
    fn ask(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize>;
}

/// Makes round trips for so long, after a warm-up, and gives their times.
pub(crate) fn measure(
    asker: &mut dyn Asker,
    size: usize,
    warm_up: Duration,
    duration: Duration,
) -> Result<Percentiles> {
    let mut message: Vec<u8> = (0..size).map(|i| i as u8).collect();
    let mut answer = vec![0; size];
    let mut nanoseconds = Histogram::<u64>::new(DIGITS)?;
    let begun = Instant::now();
    let mut last = begun;
    for number in 0_u32.. {
        message[..4].copy_from_slice(&number.to_ne_bytes());
        let len = asker.ask(&message, &mut answer)?;
        ensure!(
            len == size && answer == message,
            "round trip {number}: the echo differs from what was sent"
        );
        let now = Instant::now();
        if now - begun >= warm_up + duration {
            break;
        }
        if last - begun >= warm_up {
            nanoseconds.record((now - last).as_nanos().try_into()?)?;
        }
        last = now;
    }
    Ok(Percentiles::of(&nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let percentiles = measure(&mut mirror, 64, 5 * MS, 20 * MS).unwrap();
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
        assert!(measure(&mut mirror, 64, MS, MS).is_err());
    }
}
