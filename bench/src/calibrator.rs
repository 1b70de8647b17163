//! How near the two processors are to each other right now.
//!
//! On shared hosts a pair of virtual processors is at times near (two hyperthreads of a core, or two cores with a
//! cache in common) and at times far, and everything that crosses between them moves with it, by factors of 1.4 to 4.
//! So a round trip of 64 bytes through shared memory, both sides spinning, is measured around every measurement; two
//! measurements are compared only if it stayed the same. Somebody else's program that shares a processor with the measurement
//! leaves most round trips as they are and makes a few of them last a time slice: so the mean is looked at beside the median.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::lab::pin;

/// Processors are near below this. Seen: 0.12 and 0.49 to 0.55 µs on one kind of machine, 0.24 to 0.28 µs on another.
pub(crate) const NEAR_NS_MAX: f64 = 370.0;
/// Two measurements compare if all calibrations around them lie within this factor.
const DRIFT_MAX: f64 = 1.3;
/// Round trips between two looks at the clock.
const BATCH: u32 = 256;
/// How long one calibration takes.
pub(crate) const DURATION: Duration = Duration::from_millis(50);

/// Where the processors are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Distance {
    Near,
    Far,
}

/// Nanoseconds of one round trip through shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// Of batches of them.
    pub(crate) median: f64,
    /// Over the whole time: whoever took a processor meanwhile is in it.
    pub(crate) mean: f64,
}

impl Calibration {
    /// Where instructions are counted, nothing disturbs.
    pub(crate) const NONE: Self = Self::undisturbed(0.0);

    pub(crate) const fn undisturbed(nanoseconds: f64) -> Self {
        Self {
            median: nanoseconds,
            mean: nanoseconds,
        }
    }

    /// Of the time of each batch.
    fn of(mut batches: Vec<f64>) -> Option<Self> {
        batches.sort_by(f64::total_cmp);
        let median = *batches.get(batches.len() / 2)?;
        let mean = batches.iter().sum::<f64>() / batches.len() as f64;
        Some(Self { median, mean })
    }

    pub(crate) fn distance(self) -> Distance {
        if self.median < NEAR_NS_MAX {
            Distance::Near
        } else {
            Distance::Far
        }
    }
}

/// Whether nothing changed between these calibrations, and nobody else had much of the processors in any.
pub(crate) fn steady(calibrations: &[Calibration]) -> bool {
    let medians = calibrations.iter().map(|c| c.median);
    // A mean is at least the median but where most batches are slow: then that is the pace.
    let most = calibrations.iter().map(|c| c.mean.max(c.median));
    match (medians.reduce(f64::min), most.reduce(f64::max)) {
        (Some(least), Some(most)) => most <= least * DRIFT_MAX,
        _ => false,
    }
}

/// 64 bytes that one side writes and the other reads; the first word says which message it is. The neighbouring line
/// belongs to it, since processors fetch lines in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Mailbox([AtomicU64; 8]);

impl Mailbox {
    fn write(&self, number: u64) {
        for word in &self.0[1..] {
            word.store(number, Ordering::Relaxed);
        }
        // Pairs with the Acquire load in `read`: who sees the number sees the other words.
        self.0[0].store(number, Ordering::Release);
    }

    /// Waits for a message. False: it was told to stop, or the message is torn.
    fn read(&self, number: u64, stop: &AtomicBool) -> bool {
        while self.0[0].load(Ordering::Acquire) != number {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            spin_loop();
        }
        self.0[1..]
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == number)
    }
}

/// Measures for about so long, between these two processors.
pub(crate) fn calibrate(cpus: [usize; 2], duration: Duration) -> anyhow::Result<Calibration> {
    let (ping, pong) = (Mailbox::default(), Mailbox::default());
    let stop = AtomicBool::new(false);
    let batches = thread::scope(|scope| {
        let echo = scope.spawn(|| {
            pin(cpus[1]).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            let mut number = 1;
            while ping.read(number, &stop) {
                pong.write(number);
                number += 1;
            }
            anyhow::Ok(())
        });
        let ask = scope.spawn(|| {
            let batches = pin(cpus[0]).map(|()| ask(&ping, &pong, &stop, duration));
            stop.store(true, Ordering::Relaxed);
            batches
        });
        let batches = ask.join().expect("the calibrating thread does not panic");
        let echoed = echo.join().expect("the echoing thread does not panic");
        echoed.and(batches)
    })?;
    Calibration::of(batches).context("the calibrator came to nothing")
}

/// The time of a round trip in each batch.
fn ask(ping: &Mailbox, pong: &Mailbox, stop: &AtomicBool, duration: Duration) -> Vec<f64> {
    let mut batches = Vec::new();
    let mut number = 0;
    let begun = Instant::now();
    let mut last = begun;
    while last - begun < duration {
        for _ in 0..BATCH {
            number += 1;
            ping.write(number);
            if !pong.read(number, stop) {
                return batches;
            }
        }
        let now = Instant::now();
        batches.push((now - last).as_nanos() as f64 / f64::from(BATCH));
        last = now;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibrations_within_a_factor_of_1_3_are_steady() {
        let of = |values: &[f64]| {
            let values = values.iter().copied();
            values.map(Calibration::undisturbed).collect::<Vec<_>>()
        };
        assert!(steady(&of(&[100.0, 129.0, 110.0])));
        assert!(!steady(&of(&[100.0, 110.0, 131.0])));
        assert!(!steady(&of(&[131.0, 100.0])), "in either order");
        assert!(!steady(&[]), "not calibrated at all");
    }

    /// As seen on a machine without scheduling groups: of 50 ms a program beside it took half, and the median did not move.
    #[test]
    fn a_calibration_of_which_others_took_a_part_is_not_steady() {
        let quiet = vec![118.0; 500];
        let shared = [vec![118.0; 493], vec![30_000.0; 7]].concat();
        let [quiet, shared] = [quiet, shared].map(|batches| Calibration::of(batches).unwrap());
        assert_eq!(quiet.median, shared.median);
        assert!(steady(&[quiet, quiet]));
        assert!(!steady(&[quiet, shared]));
        assert!(!steady(&[shared, shared]), "also if all are alike");
        assert_eq!(Calibration::of(Vec::new()), None);
    }

    #[test]
    fn a_ping_pong_of_half_a_microsecond_is_far() {
        assert_eq!(Calibration::undisturbed(120.0).distance(), Distance::Near);
        assert_eq!(Calibration::undisturbed(490.0).distance(), Distance::Far);
    }

    #[test]
    fn the_calibrator_measures_a_round_trip_between_two_processors() {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let [first, second, ..] = cores[..] else {
            println!("skipped: needs two processors");
            return;
        };
        let measured = calibrate([first.id, second.id], Duration::from_millis(20)).unwrap();
        // Nothing crosses between two caches within 10 ns.
        assert!(measured.median > 10.0, "{measured:?}");
    }
}
