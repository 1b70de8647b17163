//! Ratios of what was measured in the same round, and whether they are good enough.
//!
//! A ratio is taken of two steps of one round, and only if every calibration from before the first of them to after
//! the second agrees: otherwise the machine changed between the two, and the pair is discarded.

use serde::Serialize;

use crate::calibrator::{Calibration, Distance, steady};
use crate::plan::{Comparison, Step};
use crate::rate::Flow;
use crate::statistics::{Percentiles, Spread};

/// Pairs that a judgement needs.
pub(crate) const PAIRS_MIN: usize = 5;

/// What a step gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    /// Nanoseconds.
    Times(Percentiles),
    Flow(Flow),
}

impl Figure {
    /// What is compared: the median round trip, or the messages per second.
    pub(crate) fn value(&self) -> f64 {
        match self {
            Self::Times(times) => times.p50 as f64,
            Self::Flow(flow) => flow.messages_per_second,
        }
    }
}

/// A step, and the calibration after it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Measured {
    pub(crate) step: Step,
    pub(crate) figure: Figure,
    pub(crate) calibration_after_ns: Calibration,
}

/// One round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Round {
    pub(crate) calibration_before_ns: Calibration,
    pub(crate) measured: Vec<Measured>,
}

impl Round {
    /// What a step gave.
    pub(crate) fn figure(&self, step: Step) -> Option<Figure> {
        let found = self.measured.iter().find(|measured| measured.step == step);
        found.map(|measured| measured.figure)
    }

    /// The ratio of two steps, where both were measured.
    fn pair(&self, comparison: &Comparison) -> Option<Pair> {
        let place = |step| self.measured.iter().position(|m| m.step == step);
        let (one, other) = (place(comparison.step)?, place(comparison.against)?);
        let (first, last) = (one.min(other), one.max(other));
        let mut around = vec![match first {
            0 => self.calibration_before_ns,
            _ => self.measured[first - 1].calibration_after_ns,
        }];
        let between = &self.measured[first..=last];
        around.extend(between.iter().map(|m| m.calibration_after_ns));
        let value = |place: usize| self.measured[place].figure.value();
        Some(Pair {
            ratio: value(one) / value(other),
            steady: steady(&around),
            calibration: around[0],
        })
    }
}

struct Pair {
    ratio: f64,
    steady: bool,
    calibration: Calibration,
}

/// A comparison over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) comparison: Comparison,
    /// Of the pairs that were not disturbed.
    pub(crate) ratio: Option<Spread>,
    /// What the calibrator said before each of these.
    pub(crate) calibrations_ns: Option<Spread>,
    /// How many of these were measured with the processors near, and far.
    pub(crate) near: usize,
    pub(crate) far: usize,
    pub(crate) discarded: usize,
}

impl Verdict {
    /// `None` where a step was not measured at all.
    pub(crate) fn of(comparison: Comparison, rounds: &[Round]) -> Option<Self> {
        let pairs = rounds.iter().filter_map(|round| round.pair(&comparison));
        let (steady, disturbed): (Vec<_>, Vec<_>) = pairs.partition(|pair| pair.steady);
        let is_near = |pair: &&Pair| pair.calibration.distance() == Distance::Near;
        let near = steady.iter().filter(is_near).count();
        (steady.len() + disturbed.len() > 0).then(|| Self {
            comparison,
            ratio: Spread::of(steady.iter().map(|pair| pair.ratio)),
            calibrations_ns: Spread::of(steady.iter().map(|pair| pair.calibration.0)),
            near,
            far: steady.len() - near,
            discarded: disturbed.len(),
        })
    }

    /// Enough undisturbed pairs to judge by.
    pub(crate) fn is_sound(&self) -> bool {
        self.near + self.far >= PAIRS_MIN
    }

    /// Whether the median reaches the goal. `None`: there is no goal, or there were too few pairs.
    pub(crate) fn passes(&self) -> Option<bool> {
        let goal = self.comparison.goal?;
        let ratio = self.ratio.filter(|_| self.is_sound())?;
        Some(goal.holds(ratio.median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Bound, COMPARISONS};

    fn times(p50: u64) -> Figure {
        Figure::Times(Percentiles {
            count: 1,
            p50,
            p90: p50,
            p99: p50,
            p999: p50,
            max: p50,
        })
    }

    /// A round of the first comparison: calibration, the step it is against, calibration, the step, calibration.
    fn round(calibrations: [f64; 3], against: u64, step: u64) -> Round {
        let comparison = COMPARISONS[0];
        let [before, between, after] = calibrations.map(Calibration);
        let measured = |step, figure, calibration_after_ns| Measured {
            step,
            figure,
            calibration_after_ns,
        };
        Round {
            calibration_before_ns: before,
            measured: vec![
                measured(comparison.against, times(against), between),
                measured(comparison.step, times(step), after),
            ],
        }
    }

    fn verdict(rounds: &[Round]) -> Verdict {
        Verdict::of(COMPARISONS[0], rounds).unwrap()
    }

    const QUIET: [f64; 3] = [120.0, 121.0, 122.0];

    #[test]
    fn the_ratio_is_the_median_over_rounds() {
        let rounds: Vec<_> = [50, 90, 55, 40, 60]
            .map(|step| round(QUIET, 100, step))
            .into();
        let verdict = verdict(&rounds);
        let ratio = verdict.ratio.unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (0.4, 0.55, 0.9));
        assert_eq!(verdict.comparison.goal, Some(Bound::AtMost(0.6)));
        assert_eq!(verdict.passes(), Some(true));
        assert_eq!((verdict.near, verdict.far, verdict.discarded), (5, 0, 0));
    }

    #[test]
    fn pairs_around_which_the_machine_changed_are_discarded() {
        let mut rounds = vec![round(QUIET, 100, 90); 5];
        // Flipped before, between and after the two; the last one back again.
        rounds.push(round([500.0, 120.0, 120.0], 100, 10));
        rounds.push(round([120.0, 120.0, 500.0], 100, 10));
        rounds.push(round([120.0, 500.0, 120.0], 100, 10));
        let verdict = verdict(&rounds);
        assert_eq!((verdict.near, verdict.discarded), (5, 3));
        assert_eq!(verdict.ratio.unwrap().median, 0.9);
        assert_eq!(verdict.passes(), Some(false));
    }

    #[test]
    fn too_few_undisturbed_pairs_are_no_verdict() {
        let mut rounds = vec![round(QUIET, 100, 10); 4];
        rounds.push(round([120.0, 500.0, 120.0], 100, 10));
        let verdict = verdict(&rounds);
        assert!(!verdict.is_sound());
        assert_eq!(verdict.passes(), None);
    }

    #[test]
    fn near_and_far_pairs_are_told_apart() {
        let rounds = [
            round(QUIET, 100, 50),
            round([500.0, 510.0, 520.0], 100, 50),
            round([500.0, 510.0, 520.0], 100, 50),
        ];
        let verdict = verdict(&rounds);
        assert_eq!((verdict.near, verdict.far, verdict.discarded), (1, 2, 0));
    }

    #[test]
    fn what_was_not_measured_is_not_compared() {
        assert_eq!(Verdict::of(COMPARISONS[1], &[round(QUIET, 1, 1)]), None);
        assert_eq!(Verdict::of(COMPARISONS[0], &[]), None);
    }
}
