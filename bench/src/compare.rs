//! `xtipc-bench compare A.json B.json`: what changed between two runs, and whether that is more than chance.
//!
//! For each step the medians of its undisturbed rounds are divided. The interval is a bootstrap: 4000 times as many rounds
//! as there were are drawn of each run, with repetition, and the ratio of their medians taken; 95 % of these ratios lie
//! in it (with 5 rounds and more; a test simulates that). It tells how much rounds differ inside of the runs, not what else was different between them: so runs whose
//! calibrators differ are not compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;

use crate::calibrator::{Calibration, steady};
use crate::environment::Environment;
use crate::judge::Round;
use crate::method::Method;
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
    other_host: Option<Environment>,
    method: Method,
    rounds: Vec<Round>,
}

const DRAWS: usize = 4000;
/// With fewer rounds the interval has the ratio less often than it says: with 3 in 90 of 100 cases.
const ROUNDS_MIN: usize = 5;

/// Prints the comparison.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (before, after) = (read(&options.before)?, read(&options.after)?);
    let counted = before.method.operations.is_some();
    ensure!(
        counted == after.method.operations.is_some(),
        "one of the runs counted instructions, the other one measured time"
    );
    for (name, a, b) in differences(&before, &after) {
        println!("different {name}: {a} / {b}");
    }
    let calibrators = [&before, &after].map(Run::calibrator);
    if let ([Some(a), Some(b)], false) = (calibrators, counted) {
        let both = [a, b].map(Calibration::undisturbed);
        ensure!(
            steady(&both),
            "the calibrators differ ({a:.0} and {b:.0} ns): these runs do not compare"
        );
        println!("calibrators: {a:.0} and {b:.0} ns");
    }
    let (steps, missing) = common(&before, &after);
    ensure!(
        !steps.is_empty(),
        "no step was measured in both runs: {}",
        missing.join("; ")
    );
    println!(
        "{:<46}{:>16}{:>16}{:>9}  95 % of ratios",
        "medians of undisturbed rounds", "before", "after", "ratio"
    );
    let (mut judged, mut differing) = (0, 0);
    for step in steps {
        let [a, b] = [&before, &after].map(|run| run.values(step));
        let (Some(old), Some(new)) = (median(&a), median(&b)) else {
            let of = |run: &Run, values: &[f64]| format!("{} of {}", values.len(), run.times(step));
            println!(
                "{:<46}{:>16}{:>16}{:>9}  undisturbed rounds: {} and {}",
                step.to_string(),
                "-",
                "-",
                "-",
                of(&before, &a),
                of(&after, &b)
            );
            continue;
        };
        let verdict = match interval(&a, &b) {
            None => format!(
                "too few undisturbed rounds, {ROUNDS_MIN} are needed: {} and {}",
                a.len(),
                b.len()
            ),
            Some((low, high)) => {
                let differs = low > 1.0 || high < 1.0;
                judged += 1;
                differing += usize::from(differs);
                let mark = if differs { "  differs" } else { "" };
                format!("{low:.3} to {high:.3}{mark}")
            }
        };
        let unit = unit(step.kind, counted);
        println!(
            "{:<46}{:>16}{:>16}{:>9.3}  {verdict}",
            step.to_string(),
            format!("{old:.4} {unit}"),
            format!("{new:.4} {unit}"),
            new / old
        );
    }
    for missing in missing {
        println!("not compared: {missing}");
    }
    println!("{differing} of {judged} differ; of equal runs one in twenty or fewer would");
    Ok(())
}

/// Times and shares are the better the less, rates the better the more.
const fn unit(kind: Kind, counted: bool) -> &'static str {
    match (kind, counted) {
        (Kind::RoundTrip | Kind::Paced, false) => "ns",
        (Kind::RoundTrip | Kind::Paced, true) => "instr.",
        (Kind::Rate | Kind::Load, false) => "B/s",
        (Kind::Rate | Kind::Load, true) => "B/1e9 instr.",
        (Kind::Idle | Kind::Peers | Kind::Cluster, _) => "of a CPU",
    }
}

/// The steps of both, and of those of one alone why they are not compared.
fn common(before: &Run, after: &Run) -> (Vec<Step>, Vec<String>) {
    let (old, new) = (before.steps(), after.steps());
    let only = |steps: &[Step], others: &[Step], which: &str| -> Vec<String> {
        let alone = steps.iter().filter(|step| !others.contains(step));
        alone.map(|step| format!("{step}: only {which}")).collect()
    };
    let missing = [only(&old, &new, "before"), only(&new, &old, "after")].concat();
    let both = old.into_iter().filter(|step| new.contains(step)).collect();
    (both, missing)
}

fn read(file: &Path) -> Result<Run> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of this version", file.display()))
}

fn differences(before: &Run, after: &Run) -> Vec<(String, String, String)> {
    let hosts = [
        ("", Some(&before.environment), Some(&after.environment)),
        (
            "other host's ",
            before.other_host.as_ref(),
            after.other_host.as_ref(),
        ),
    ];
    let mut all = Vec::new();
    for (whose, a, b) in hosts {
        let (a, b) = (a.map(Environment::facts), b.map(Environment::facts));
        let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
        let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
        for name in names {
            let of =
                |facts: &BTreeMap<&str, String>| facts.get(name).map_or("none", |f| f).to_owned();
            all.push((format!("{whose}{name}"), of(&a), of(&b)));
        }
    }
    let of = |run: &Run| run.method.facts();
    let methods = of(before).into_iter().zip(of(after));
    all.extend(methods.map(|((name, a), (_, b))| (name.to_owned(), a, b)));
    all.retain(|(_, a, b)| a != b);
    all
}

impl Run {
    /// Of all rounds, none twice.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for measured in self.rounds.iter().flat_map(|round| &round.measured) {
            if !steps.contains(&measured.step) {
                steps.push(measured.step);
            }
        }
        steps
    }

    /// Rounds in which a step was measured.
    fn times(&self, step: Step) -> usize {
        let rounds = self.rounds.iter();
        rounds.filter(|r| r.measured(step).is_some()).count()
    }

    fn values(&self, step: Step) -> Vec<f64> {
        let rounds = self.rounds.iter();
        rounds.filter_map(|round| round.undisturbed(step)).collect()
    }

    fn calibrator(&self) -> Option<f64> {
        let rounds = self.rounds.iter();
        let calibrations = rounds.map(|round| round.calibration_before.median);
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
    fn few_rounds_are_no_interval() {
        assert_eq!(interval(&[1.0; 4], &[1.0; 7]), None);
        assert!(interval(&[1.0; 5], &[1.0; 7]).is_some());
    }

    /// Runs whose rounds scatter by 5 %, and where one in ten takes three times as long; the second run is 1.1 times the first.
    #[test]
    fn nineteen_of_twenty_intervals_have_the_ratio_in_them() {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for rounds in [ROUNDS_MIN, 7, 10] {
            let mut round = |scale: f64| {
                // The sum of twelve is nearly normal, with a deviation of 1 around 6.
                let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
                let stalled = if uniform() < 0.1 { 3.0 } else { 1.0 };
                scale * stalled * (1.0 + 0.05 * normal)
            };
            let (mut contain, cases) = (0, 300);
            for _ in 0..cases {
                let before: Vec<_> = (0..rounds).map(|_| round(100.0)).collect();
                let after: Vec<_> = (0..rounds).map(|_| round(110.0)).collect();
                let (low, high) = interval(&before, &after).unwrap();
                contain += usize::from((low..=high).contains(&1.1));
            }
            // 95 % of 300 within three deviations, and above.
            assert!(contain >= 273, "{rounds} rounds: {contain} of {cases}");
        }
    }
}
