//! `xtipc-bench compare A.json B.json`: what changed between two runs, and whether that is more than chance.
//!
//! For each step the medians of its undisturbed rounds are divided. The interval is a bootstrap: 4000 times as many rounds
//! as there were are drawn of each run, with repetition, and the ratio of their medians taken; 95 % of these ratios lie
//! in it. It tells how much rounds differ inside of the runs, not what else was different between them: so runs whose
//! calibrators differ are not compared.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;

use crate::calibrator::{Calibration, steady};
use crate::environment::Environment;
use crate::judge::Round;
use crate::statistics::Spread;
use crate::step::{Kind, Step};

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// What `run --json` wrote
    before: PathBuf,
    /// What a later one wrote
    after: PathBuf,
}

/// What is needed of a report.
#[derive(Debug, Deserialize)]
struct Run {
    environment: Environment,
    counted: bool,
    rounds: Vec<Round>,
}

const DRAWS: usize = 4000;
/// Fewer rounds say nothing about how much rounds differ.
const ROUNDS_MIN: usize = 3;

/// Prints the comparison.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (before, after) = (read(&options.before)?, read(&options.after)?);
    ensure!(
        before.counted == after.counted,
        "one of the runs counted instructions, the other one measured time"
    );
    for (name, a, b) in differences(&before.environment, &after.environment) {
        println!("different {name}: {a} / {b}");
    }
    let calibrators = [&before, &after].map(Run::calibrator);
    if let [Some(a), Some(b)] = calibrators {
        ensure!(
            before.counted || steady(&[Calibration(a), Calibration(b)]),
            "the calibrators differ ({a:.0} and {b:.0} ns): these runs do not compare"
        );
        println!("calibrators: {a:.0} and {b:.0} ns");
    }
    println!(
        "{:<46}{:>14}{:>14}{:>9}  95 % of ratios",
        "medians of undisturbed rounds", "before", "after", "ratio"
    );
    for step in before.steps() {
        let [a, b] = [&before, &after].map(|run| run.values(step));
        let (Some(old), Some(new)) = (median(&a), median(&b)) else {
            continue;
        };
        let unit = match step.kind {
            Kind::RoundTrip | Kind::Paced => "ns",
            Kind::Rate | Kind::Load => "B/s",
            Kind::Idle | Kind::Cluster => "",
        };
        let verdict = match interval(&a, &b) {
            None => format!("too few rounds: {} and {}", a.len(), b.len()),
            Some((low, high)) => {
                let differs = low > 1.0 || high < 1.0;
                let mark = if differs { "  differs" } else { "" };
                format!("{low:.3} to {high:.3}{mark}")
            }
        };
        println!(
            "{:<46}{:>14}{:>14}{:>9.3}  {verdict}",
            step.to_string(),
            format!("{old:.4} {unit}"),
            format!("{new:.4} {unit}"),
            new / old
        );
    }
    Ok(())
}

fn read(file: &Path) -> Result<Run> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of this version", file.display()))
}

fn differences<'a>(a: &'a Environment, b: &'a Environment) -> Vec<(&'static str, String, String)> {
    let of = |e: &Environment| {
        let mode = e
            .bearer_mode
            .map_or("none".into(), |mode| format!("{mode:?}"));
        [
            ("version", e.version.clone()),
            ("kernel", e.kernel.clone()),
            ("processor", e.cpu.clone()),
            ("mode", mode),
        ]
    };
    let both = of(a).into_iter().zip(of(b));
    both.filter(|(a, b)| a.1 != b.1)
        .map(|((name, a), (_, b))| (name, a, b))
        .collect()
}

impl Run {
    fn steps(&self) -> impl Iterator<Item = Step> {
        let first = self.rounds.first().into_iter();
        first.flat_map(|round| round.measured.iter().map(|measured| measured.step))
    }

    fn values(&self, step: Step) -> Vec<f64> {
        let rounds = self.rounds.iter();
        rounds.filter_map(|round| round.undisturbed(step)).collect()
    }

    fn calibrator(&self) -> Option<f64> {
        let calibrations = self
            .rounds
            .iter()
            .map(|round| round.calibration_before_ns.0);
        Some(Spread::of(calibrations)?.median)
    }
}

fn median(values: &[f64]) -> Option<f64> {
    Some(Spread::of(values.iter().copied())?.median)
}

/// Where 95 % of the ratios of drawn medians lie. The draws are the same in every call.
fn interval(before: &[f64], after: &[f64]) -> Option<(f64, f64)> {
    if before.len().min(after.len()) < ROUNDS_MIN {
        return None;
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |values: &[f64]| {
        let drawn = (0..values.len()).map(|_| {
            // Numbers of an xorshift generator.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            values[(state % values.len() as u64) as usize]
        });
        median(&drawn.collect::<Vec<_>>())
    };
    let mut ratios = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        ratios.push(draw(after)? / draw(before)?);
    }
    ratios.sort_by(f64::total_cmp);
    Some((ratios[DRAWS / 40], ratios[DRAWS - 1 - DRAWS / 40]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rounds_do_not_differ_and_slower_ones_do() {
        let before = [10.0, 10.2, 9.9, 10.1, 10.0];
        let (low, high) = interval(&before, &before).unwrap();
        assert!(low < 1.0 && high > 1.0, "{low} to {high}");
        let after = before.map(|value| 1.2 * value);
        let (low, high) = interval(&before, &after).unwrap();
        assert!(low > 1.1 && high < 1.3, "{low} to {high}");
    }

    #[test]
    fn rounds_that_scatter_hide_a_small_difference() {
        let before = [8.0, 10.0, 12.0, 9.0, 11.0];
        let after = before.map(|value| 1.05 * value);
        let (low, high) = interval(&before, &after).unwrap();
        assert!(low < 1.0 && high > 1.0, "{low} to {high}");
    }

    #[test]
    fn two_rounds_are_too_few() {
        assert_eq!(interval(&[1.0, 2.0], &[1.0, 2.0, 3.0]), None);
    }
}
