//! Ratios of what was measured in the same round, and whether they are good enough.
//!
//! A ratio is taken of two steps of one round, and only if every calibration from before the first of them to after
//! the second agrees: otherwise the machine changed between the two, and the pair is discarded.

use serde::{Deserialize, Serialize};

use crate::calibrator::{Calibration, Distance, steady};
use crate::goals::{By, Comparison};
use crate::rate::Flow;
use crate::statistics::{Percentiles, Spread, Times};
use crate::step::Step;

/// Pairs that a judgement needs where times are measured. Counted instructions do not vary.
pub(crate) const PAIRS_MIN: usize = 5;

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    /// Nanoseconds.
    Times(Times),
    Flow(Flow),
    /// A flow, and the times of urgent round trips beside it.
    Load {
        flow: Flow,
        urgent: Times,
        frames: Frames,
    },
    Cost(Cost),
    /// Of a processor, that one node's engine takes.
    Share(f64),
}

/// The frame pools of both daemons under load, the sender's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frames {
    pub(crate) total: [u32; 2],
    /// In nobody's hands, when that was least.
    pub(crate) free_least: [u32; 2],
    /// Some time after the load.
    pub(crate) free_after: [u32; 2],
}

/// Of a daemon that has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Of one processor, while its link is up.
    pub(crate) processor_share: f64,
    pub(crate) private_bytes: u64,
    pub(crate) resident_bytes: u64,
    /// What the step's sockets, or its peers, add to the private ones beyond what the daemon has set aside.
    pub(crate) added_bytes: u64,
}

impl Figure {
    /// What is compared: the median time, bytes per second, or the share of a processor.
    pub(crate) fn value(&self, size: usize) -> f64 {
        match self {
            Self::Times(times) => times.percentiles.p50 as f64,
            Self::Flow(flow) | Self::Load { flow, .. } => flow.messages_per_second * size as f64,
            Self::Cost(cost) => cost.processor_share,
            Self::Share(share) => *share,
        }
    }

    /// Percentiles, of what is urgent if there is load.
    pub(crate) const fn percentiles(&self) -> Option<&Percentiles> {
        match self {
            Self::Times(times) | Self::Load { urgent: times, .. } => Some(&times.percentiles),
            Self::Flow(_) | Self::Cost(_) | Self::Share(_) => None,
        }
    }

    pub(crate) const fn cost(&self) -> Option<&Cost> {
        match self {
            Self::Cost(cost) => Some(cost),
            _ => None,
        }
    }

    pub(crate) const fn frames(&self) -> Option<&Frames> {
        match self {
            Self::Load { frames, .. } => Some(frames),
            _ => None,
        }
    }

    pub(crate) const fn flow(&self) -> Option<&Flow> {
        match self {
            Self::Flow(flow) | Self::Load { flow, .. } => Some(flow),
            Self::Times(_) | Self::Cost(_) | Self::Share(_) => None,
        }
    }
}

/// A step, and the calibration after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) step: Step,
    pub(crate) figure: Figure,
    pub(crate) calibration_after: Calibration,
}

impl Measured {
    pub(crate) fn value(&self) -> f64 {
        self.figure.value(self.step.size)
    }

    fn tail(&self) -> Option<f64> {
        Some(self.figure.percentiles()?.p99 as f64)
    }
}

/// One round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) calibration_before: Calibration,
    pub(crate) measured: Vec<Measured>,
}

impl Round {
    /// What a step gave.
    pub(crate) fn measured(&self, step: Step) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.step == step)
    }

    /// The calibrations from before one place to after another.
    fn around(&self, first: usize, last: usize) -> Vec<Calibration> {
        let before = match first {
            0 => self.calibration_before,
            _ => self.measured[first - 1].calibration_after,
        };
        let between = self.measured[first..=last].iter();
        let between = between.map(|m| m.calibration_after);
        std::iter::once(before).chain(between).collect()
    }

    /// The value of a step, if the calibrator stood still around it.
    pub(crate) fn undisturbed(&self, step: Step) -> Option<f64> {
        let place = self.measured.iter().position(|m| m.step == step)?;
        let value = self.measured[place].value();
        steady(&self.around(place, place)).then_some(value)
    }

    /// The ratio of two steps, where both were measured.
    fn pair(&self, comparison: &Comparison) -> Option<Pair> {
        let place = |step| self.measured.iter().position(|m| m.step == step);
        let (one, other) = (place(comparison.step)?, place(comparison.against)?);
        let around = self.around(one.min(other), one.max(other));
        let (one, other) = (&self.measured[one], &self.measured[other]);
        let ratio = match comparison.by {
            By::Value => one.value() / other.value(),
            By::Itself => one.value(),
            By::Direct => one.figure.flow()?.direct?,
            By::Tail => one.tail()? / one.value(),
            By::UrgentTail => one.tail()? / other.tail()?,
        };
        Some(Pair {
            ratio,
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
    pub(crate) name: String,
    /// Of the pairs that were not disturbed.
    pub(crate) ratio: Option<Spread>,
    /// What the calibrator said before each of these.
    pub(crate) calibrations_ns: Option<Spread>,
    /// How many of these were measured with the processors near, and far.
    pub(crate) near: usize,
    pub(crate) far: usize,
    pub(crate) discarded: usize,
    /// Pairs that a judgement needs.
    pub(crate) needed: usize,
}

impl Verdict {
    /// `None` where a step was not measured at all.
    pub(crate) fn of(comparison: Comparison, rounds: &[Round], needed: usize) -> Option<Self> {
        let pairs = rounds.iter().filter_map(|round| round.pair(&comparison));
        let (steady, disturbed): (Vec<_>, Vec<_>) = pairs.partition(|pair| pair.steady);
        let is_near = |pair: &&Pair| pair.calibration.distance() == Distance::Near;
        let near = steady.iter().filter(is_near).count();
        (steady.len() + disturbed.len() > 0).then(|| Self {
            name: comparison.name(),
            comparison,
            needed,
            ratio: Spread::of(steady.iter().map(|pair| pair.ratio)),
            calibrations_ns: Spread::of(steady.iter().map(|pair| pair.calibration.median)),
            near,
            far: steady.len() - near,
            discarded: disturbed.len(),
        })
    }

    /// Enough undisturbed pairs to judge by.
    pub(crate) fn is_sound(&self) -> bool {
        self.near + self.far >= self.needed
    }

    /// Whether the median reaches the goal. `None`: there is no goal, or there were too few pairs.
    pub(crate) fn passes(&self) -> Option<bool> {
        let goal = self.comparison.goal?;
        let ratio = self.ratio.filter(|_| self.is_sound())?;
        Some(goal.bound.holds(ratio.median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{SLEEPING_TCP, SLEEPING_XTIPC};
    use hdrhistogram::Histogram;

    fn times(p50: u64) -> Figure {
        let mut nanoseconds = Histogram::new(3).unwrap();
        nanoseconds.record(p50).unwrap();
        Figure::Times(Times::of(&nanoseconds))
    }

    /// At most 0.5.
    fn comparison() -> Comparison {
        let mut all = crate::goals::COMPARISONS.into_iter();
        all.find(|c| (c.step, c.against) == (SLEEPING_XTIPC, SLEEPING_TCP))
            .unwrap()
    }

    /// A round of the comparison: calibration, the step it is against, calibration, the step, calibration.
    fn round(calibrations: [f64; 3], against: u64, step: u64) -> Round {
        let comparison = comparison();
        let [before, between, after] = calibrations.map(Calibration::undisturbed);
        let measured = |step, figure, calibration_after| Measured {
            step,
            figure,
            calibration_after,
        };
        Round {
            calibration_before: before,
            measured: vec![
                measured(comparison.against, times(against), between),
                measured(comparison.step, times(step), after),
            ],
        }
    }

    fn verdict(rounds: &[Round]) -> Verdict {
        Verdict::of(comparison(), rounds, PAIRS_MIN).unwrap()
    }

    const QUIET: [f64; 3] = [120.0, 121.0, 122.0];

    #[test]
    fn the_ratio_is_the_median_over_rounds() {
        let rounds: Vec<_> = [45, 90, 50, 40, 60]
            .map(|step| round(QUIET, 100, step))
            .into();
        let verdict = verdict(&rounds);
        let ratio = verdict.ratio.unwrap();
        assert_eq!((ratio.least, ratio.median, ratio.most), (0.4, 0.5, 0.9));
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
        let other = crate::goals::COMPARISONS[0];
        assert_eq!(Verdict::of(other, &[round(QUIET, 1, 1)], 1), None);
        assert_eq!(Verdict::of(comparison(), &[], 1), None);
    }
}
