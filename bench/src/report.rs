//! What a run says at its end: tables for people, everything for programs.

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::environment::Environment;
use crate::judge::{Figure, PAIRS_MIN, Round, Verdict};
use crate::plan::{Bound, COMPARISONS, Kind, Step};
use crate::rate::Flow;
use crate::statistics::{Percentiles, Spread};

/// All of a run. Times are nanoseconds, rates messages per second.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    environment: Environment,
    message_size: usize,
    verdicts: Vec<Verdict>,
    summaries: Vec<Summary>,
    rounds: Vec<Round>,
}

/// A step over all rounds, disturbed or not: by the median round trip, or the rate.
#[derive(Debug, Serialize)]
struct Summary {
    name: String,
    step: Step,
    spread: Spread,
}

impl Report {
    pub(crate) fn new(
        environment: Environment,
        message_size: usize,
        steps: Vec<Step>,
        rounds: Vec<Round>,
    ) -> Self {
        let verdicts = COMPARISONS
            .into_iter()
            .filter_map(|comparison| Verdict::of(comparison, &rounds));
        let summaries = steps.into_iter().filter_map(|step| {
            let figures = rounds.iter().filter_map(|round| round.figure(step));
            Some(Summary {
                name: step.to_string(),
                step,
                spread: Spread::of(figures.map(|figure| figure.value()))?,
            })
        });
        Self {
            environment,
            message_size,
            verdicts: verdicts.collect(),
            summaries: summaries.collect(),
            rounds,
        }
    }

    pub(crate) fn print(&self) {
        self.print_environment();
        self.print_round_trips();
        self.print_rates();
        self.print_ratios();
    }

    fn print_environment(&self) {
        let Environment {
            version,
            kernel,
            cpu,
            cpus: [first, second],
            ..
        } = &self.environment;
        println!("xtipc {version}, Linux {kernel}, {cpu}, processors {first} and {second}");
        if let Some(mode) = self.environment.bearer_mode {
            println!("xtipc over {mode:?}");
        }
        let befores = self.rounds.iter().map(|round| round.calibration_before_ns);
        let measured = self.rounds.iter().flat_map(|round| &round.measured);
        let afters = measured.map(|measured| measured.calibration_after_ns);
        if let Some(spread) = Spread::of(befores.chain(afters).map(|calibration| calibration.0)) {
            let Spread {
                median,
                least,
                most,
                count,
            } = spread;
            println!(
                "calibrator: {median:.0} ns ({least:.0} to {most:.0}, {count} times), {} rounds",
                self.rounds.len()
            );
        }
    }

    /// The steps of a kind, each with its figures.
    fn steps(&self, kind: Kind) -> Vec<(&Summary, Vec<Figure>)> {
        let steps = self.summaries.iter().filter(|s| s.step.kind == kind);
        let figures = |step| self.rounds.iter().filter_map(move |r| r.figure(step));
        steps.map(|s| (s, figures(s.step).collect())).collect()
    }

    fn print_round_trips(&self) {
        let steps = self.steps(Kind::RoundTrip);
        if steps.is_empty() {
            return;
        }
        println!(
            "\n{} bytes, microseconds: medians over rounds, p50 with its spread, max of all",
            self.message_size
        );
        println!(
            "{:<34}{:>8}{:>18}{:>9}{:>9}{:>9}{:>10}",
            "closed loop", "p50", "(least to most)", "p90", "p99", "p99.9", "max"
        );
        for (summary, figures) in steps {
            let times: Vec<Percentiles> = figures
                .iter()
                .filter_map(|figure| match figure {
                    Figure::Times(times) => Some(*times),
                    Figure::Flow(_) => None,
                })
                .collect();
            let of = |pick: fn(&Percentiles) -> u64| {
                let values = times.iter().map(|times| pick(times) as f64 / 1000.0);
                Spread::of(values).map_or((0.0, 0.0), |spread| (spread.median, spread.most))
            };
            let spread = summary.spread;
            println!(
                "{:<34}{:>8.2}{:>18}{:>9.2}{:>9.2}{:>9.2}{:>10.2}",
                summary.name,
                spread.median / 1000.0,
                format!(
                    "({:.2} to {:.2})",
                    spread.least / 1000.0,
                    spread.most / 1000.0
                ),
                of(|times| times.p90).0,
                of(|times| times.p99).0,
                of(|times| times.p999).0,
                of(|times| times.max).1,
            );
        }
    }

    fn print_rates(&self) {
        let steps = self.steps(Kind::Rate);
        if steps.is_empty() {
            return;
        }
        println!(
            "\n{} bytes, thousands of messages per second at the receiver; counts of all rounds",
            self.message_size
        );
        println!(
            "{:<34}{:>8}{:>18}{:>12}{:>12}{:>10}{:>10}{:>9}",
            "one way", "rate", "(least to most)", "sent", "received", "returned", "lost", "/packet"
        );
        for (summary, figures) in steps {
            let flows: Vec<Flow> = figures
                .iter()
                .filter_map(|figure| match figure {
                    Figure::Flow(flow) => Some(*flow),
                    Figure::Times(_) => None,
                })
                .collect();
            let sum = |pick: fn(&Flow) -> u64| flows.iter().map(pick).sum::<u64>();
            let packets: Option<u64> = flows.iter().map(|flow| flow.packets).sum();
            let per_packet = packets.map(|packets| sum(|flow| flow.sent) as f64 / packets as f64);
            let spread = summary.spread;
            println!(
                "{:<34}{:>8.0}{:>18}{:>12}{:>12}{:>10}{:>10}{:>9}",
                summary.name,
                spread.median / 1000.0,
                format!(
                    "({:.0} to {:.0})",
                    spread.least / 1000.0,
                    spread.most / 1000.0
                ),
                sum(|flow| flow.sent),
                sum(|flow| flow.received),
                sum(|flow| flow.returned),
                sum(|flow| flow.lost),
                per_packet.map_or(String::new(), |n| format!("{n:.2}")),
            );
        }
    }

    fn print_ratios(&self) {
        if self.verdicts.is_empty() {
            return;
        }
        println!(
            "\nratios: medians of pairs of one round; pairs around which the calibrator moved are discarded"
        );
        for verdict in &self.verdicts {
            let comparison = &verdict.comparison;
            let name = format!("{} / {}", comparison.step, comparison.against);
            let ratio = verdict.ratio.map_or("-".into(), |ratio| {
                format!(
                    "{:>6.2} ({:.2} to {:.2})",
                    ratio.median, ratio.least, ratio.most
                )
            });
            let goal = match (comparison.goal, verdict.passes()) {
                (None, _) => String::new(),
                (Some(goal), passes) => {
                    let goal = match goal {
                        Bound::AtMost(bound) => format!("at most {bound}"),
                        Bound::AtLeast(bound) => format!("at least {bound}"),
                    };
                    let verdict = match passes {
                        Some(true) => "reached",
                        Some(false) => "MISSED",
                        None => "cannot be judged",
                    };
                    format!("  goal {goal}: {verdict}")
                }
            };
            let calibrator = verdict
                .calibrations_ns
                .map_or("-".into(), |spread| format!("{:.0} ns", spread.median));
            println!(
                "{name:<66}{ratio:<24} calibrator {calibrator} (near {}, far {}), discarded {}{goal}",
                verdict.near, verdict.far, verdict.discarded
            );
        }
    }

    /// Fails if a goal is missed, or could not be judged.
    pub(crate) fn check(&self) -> Result<()> {
        let goals = self.verdicts.iter().filter(|v| v.comparison.goal.is_some());
        let goals: Vec<_> = goals.collect();
        ensure!(!goals.is_empty(), "nothing was measured that has a goal");
        for verdict in &goals {
            let (step, against) = (verdict.comparison.step, verdict.comparison.against);
            ensure!(
                verdict.is_sound(),
                "{step} / {against}: only {} undisturbed pairs, {PAIRS_MIN} are needed to judge",
                verdict.near + verdict.far
            );
        }
        for verdict in goals {
            let (step, against) = (verdict.comparison.step, verdict.comparison.against);
            let passes = verdict.passes().unwrap_or(false);
            ensure!(passes, "{step} / {against}: the goal is missed");
        }
        Ok(())
    }
}
