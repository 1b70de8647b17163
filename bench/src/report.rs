//! What a run says at its end: tables for people, everything for programs.

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::calibrator::{Calibration, NEAR_NS_MAX};
use crate::environment::Environment;
use crate::goals::{Bound, Comparison};
use crate::judge::{Cost, Figure, Frames, Round, Verdict};
use crate::method::Method;
use crate::rate::Flow;
use crate::statistics::{Percentiles, Spread};
use crate::step::{Kind, Step};

/// All of a run. Times are nanoseconds, rates messages per second.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) environment: Environment,
    /// Of a run between two hosts.
    pub(crate) other_host: Option<Environment>,
    /// With operations to count, nanoseconds are instructions.
    pub(crate) method: Method,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) summaries: Vec<Summary>,
    /// Steps that cannot be measured here, and why.
    pub(crate) left_out: Vec<(String, String)>,
    pub(crate) rounds: Vec<Round>,
}

/// A step over all rounds, disturbed or not: the median time, bytes per second, or the share of a processor.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) name: String,
    pub(crate) step: Step,
    pub(crate) spread: Spread,
}

impl Report {
    pub(crate) fn new(
        environment: Environment,
        method: Method,
        steps: Vec<Step>,
        rounds: Vec<Round>,
        comparisons: &[Comparison],
        needed: usize,
    ) -> Self {
        let verdicts = comparisons
            .iter()
            .filter_map(|comparison| Verdict::of(*comparison, &rounds, needed));
        let summaries = steps.into_iter().filter_map(|step| {
            let measured = rounds.iter().filter_map(|round| round.measured(step));
            Some(Summary {
                name: step.to_string(),
                step,
                spread: Spread::of(measured.map(|measured| measured.value()))?,
            })
        });
        Self {
            environment,
            other_host: None,
            method,
            verdicts: verdicts.collect(),
            summaries: summaries.collect(),
            left_out: Vec::new(),
            rounds,
        }
    }

    /// Whether nanoseconds are instructions.
    pub(crate) const fn is_counted(&self) -> bool {
        self.method.operations.is_some()
    }

    /// The figures of a step, one of each round.
    pub(crate) fn figures(&self, step: Step) -> impl Iterator<Item = &Figure> {
        let measured = self.rounds.iter().filter_map(move |r| r.measured(step));
        measured.map(|measured| &measured.figure)
    }

    /// The calibrations of the run.
    fn all_calibrations(&self) -> impl Iterator<Item = Calibration> {
        let befores = self.rounds.iter().map(|round| round.calibration_before);
        let measured = self.rounds.iter().flat_map(|round| &round.measured);
        let afters = measured.map(|measured| measured.calibration_after);
        befores.chain(afters)
    }

    /// Their medians.
    pub(crate) fn calibrations(&self) -> Option<Spread> {
        Spread::of(
            self.all_calibrations()
                .map(|calibration| calibration.median),
        )
    }

    /// What part of their time others had.
    pub(crate) fn taken(&self) -> f64 {
        let of = |pick: fn(Calibration) -> f64| self.all_calibrations().map(pick).sum::<f64>();
        (1.0 - of(|c| c.median) / of(|c| c.mean)).max(0.0)
    }

    pub(crate) fn print(&self) {
        self.print_environment();
        self.print_times();
        self.print_rates();
        self.print_frames();
        self.print_costs();
        self.print_clusters();
        self.print_ratios();
    }

    /// One line of what was measured where.
    pub(crate) fn headline(&self) -> String {
        let Environment {
            version,
            kernel,
            cpu,
            cpus: [first, second],
            ..
        } = &self.environment;
        format!("xtipc {version}, Linux {kernel}, {cpu}, processors {first} and {second}")
    }

    fn print_environment(&self) {
        println!("{}", self.headline());
        let facts = self.method.facts();
        let facts = facts.map(|(name, value)| format!("{name} {value}"));
        println!("{}", facts.join(", "));
        if let Some(mode) = self.environment.bearer_mode {
            println!("xtipc over {mode:?}");
        }
        if let Some(other) = &self.other_host {
            println!("the other host: Linux {}, {}", other.kernel, other.cpu);
        }
        if self.is_counted() {
            println!("instructions are counted: one of the clock's nanoseconds is one");
            return;
        }
        if let Some(spread) = self.calibrations() {
            let Spread {
                median,
                least,
                most,
                count,
            } = spread;
            println!(
                "calibrator: {median:.0} ns ({least:.0} to {most:.0}, {count} times; others took {:.1} % of its time), {} rounds",
                100.0 * self.taken(),
                self.rounds.len()
            );
        }
    }

    fn steps(&self, kinds: &[Kind]) -> Vec<&Summary> {
        let steps = self.summaries.iter();
        steps.filter(|s| kinds.contains(&s.step.kind)).collect()
    }

    fn print_times(&self) {
        let steps = self.steps(&[Kind::RoundTrip, Kind::Paced, Kind::Load]);
        if steps.is_empty() {
            return;
        }
        let (unit, scale) = self.unit_of_times();
        println!(
            "\ntimes, {unit}: medians over rounds, p50 with its spread, max of all; a load's are of urgent messages"
        );
        println!(
            "{:<46}{:>9}{:>20}{:>10}{:>10}{:>10}{:>10}",
            "", "p50", "(least to most)", "p90", "p99", "p99.9", "max"
        );
        for summary in steps {
            let times: Vec<Percentiles> = self
                .figures(summary.step)
                .filter_map(|figure| figure.percentiles().copied())
                .collect();
            let of = |pick: fn(&Percentiles) -> u64| {
                Spread::of(times.iter().map(|times| pick(times) as f64 / scale))
            };
            let median = |pick| of(pick).map_or(0.0, |spread| spread.median);
            let Some(p50) = of(|times| times.p50) else {
                continue;
            };
            println!(
                "{:<46}{:>9.2}{:>20}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
                summary.name,
                p50.median,
                format!("({:.2} to {:.2})", p50.least, p50.most),
                median(|times| times.p90),
                median(|times| times.p99),
                median(|times| times.p999),
                of(|times| times.max).map_or(0.0, |spread| spread.most),
            );
        }
    }

    /// Of tables and plots, and how many nanoseconds one is.
    pub(crate) const fn unit_of_times(&self) -> (&'static str, f64) {
        if self.is_counted() {
            ("thousands of instructions", 1000.0)
        } else {
            ("microseconds", 1000.0)
        }
    }

    fn print_rates(&self) {
        let steps = self.steps(&[Kind::Rate, Kind::Load]);
        if steps.is_empty() {
            return;
        }
        println!(
            "\nthousands of messages per second at all receivers; counts of all rounds{}",
            if self.is_counted() {
                "; instructions of each message, both sides together"
            } else {
                ""
            }
        );
        println!(
            "{:<46}{:>9}{:>20}{:>9}{:>12}{:>12}{:>9}{:>9}{:>9}{}",
            "one way",
            "rate",
            "(least to most)",
            "Gbit/s",
            "sent",
            "received",
            "returned",
            "lost",
            "/packet",
            if self.is_counted() {
                "  instructions"
            } else {
                ""
            },
        );
        for summary in steps {
            let figures = self.figures(summary.step);
            let flows: Vec<Flow> = figures.filter_map(|f| f.flow().copied()).collect();
            let rates = flows.iter().map(|flow| flow.messages_per_second);
            let Some(rate) = Spread::of(rates) else {
                continue;
            };
            let sum = |pick: fn(&Flow) -> u64| flows.iter().map(pick).sum::<u64>();
            let packets: Option<u64> = flows.iter().map(|flow| flow.packets).sum();
            let packets = packets.filter(|&packets| packets > 0);
            let per_packet = packets.map(|packets| sum(|flow| flow.sent) as f64 / packets as f64);
            println!(
                "{:<46}{:>9.1}{:>20}{:>9.2}{:>12}{:>12}{:>9}{:>9}{:>9}{}",
                summary.name,
                rate.median / 1000.0,
                format!("({:.1} to {:.1})", rate.least / 1000.0, rate.most / 1000.0),
                rate.median * summary.step.size as f64 * 8e-9,
                sum(|flow| flow.sent),
                sum(|flow| flow.received),
                sum(|flow| flow.returned),
                sum(|flow| flow.lost),
                per_packet.map_or(String::new(), |n| format!("{n:.2}")),
                if self.is_counted() {
                    format!("{:>14.0}", 1e9 / rate.median)
                } else {
                    String::new()
                }
            );
        }
    }

    fn print_costs(&self) {
        let steps = self.steps(&[Kind::Idle, Kind::Peers]);
        if steps.is_empty() {
            return;
        }
        println!(
            "\nan idle daemon: its processor time, memory of its own at first and with what it shares at last, and what sockets or \
             peers with their links add to its own"
        );
        println!(
            "{:<46}{:>14}{:>12}{:>14}{:>12}{:>12}",
            "", "% of a core", "own MB", "resident MB", "added KB", "KB each"
        );
        for summary in steps {
            let figures = self.figures(summary.step);
            let costs: Vec<Cost> = figures.filter_map(|f| f.cost().copied()).collect();
            let of = |pick: fn(&Cost) -> f64| {
                Spread::of(costs.iter().map(pick)).map_or(0.0, |spread| spread.median)
            };
            let added = of(|cost| cost.added_bytes as f64) / 1e3;
            println!(
                "{:<46}{:>14.2}{:>12.1}{:>14.1}{:>12.0}{:>12.3}",
                summary.name,
                100.0 * of(|cost| cost.processor_share),
                of(|cost| cost.private_bytes as f64) / 1e6,
                of(|cost| cost.resident_bytes as f64) / 1e6,
                added,
                added / summary.step.copies as f64,
            );
        }
    }

    /// Of the loads.
    fn print_frames(&self) {
        for summary in self.steps(&[Kind::Load]) {
            let figures = self.figures(summary.step);
            let pools: Vec<Frames> = figures.filter_map(|f| f.frames().copied()).collect();
            let least = |side: usize, of: fn(&Frames) -> [u32; 2]| {
                pools.iter().map(|pool| of(pool)[side]).min().unwrap_or(0)
            };
            let side = |side| {
                format!(
                    "{} of {} free at least, {} afterwards",
                    least(side, |pool| pool.free_least),
                    least(side, |pool| pool.total),
                    least(side, |pool| pool.free_after)
                )
            };
            println!(
                "frames beside {}: the sender's {}; the receiver's {}",
                summary.name,
                side(0),
                side(1)
            );
        }
    }

    fn print_clusters(&self) {
        for summary in self.steps(&[Kind::Cluster]) {
            println!(
                "an idle engine among {} nodes (simulated): {:.1} us of processor time per second",
                summary.step.copies,
                1e6 * summary.spread.median
            );
        }
    }

    fn print_ratios(&self) {
        if !self.verdicts.is_empty() {
            println!(
                "\nratios: medians of pairs of one round; near: the calibrator said less than {NEAR_NS_MAX:.0} ns before the pair, else far; \
                 pairs around which it moved are discarded"
            );
        }
        for verdict in &self.verdicts {
            let ratio = verdict.ratio.map_or("-".into(), |ratio| {
                format!(
                    "{:>7.3} ({:.3} to {:.3})",
                    ratio.median, ratio.least, ratio.most
                )
            });
            let Verdict {
                name,
                near,
                far,
                discarded,
                ..
            } = verdict;
            println!(
                "{name:<74}{ratio:<27} near {near}, far {far}, discarded {discarded}{}",
                goal_text(verdict).map_or(String::new(), |goal| format!("  {goal}"))
            );
        }
        for (name, why) in &self.left_out {
            println!("not measured: {name}: {why}");
        }
    }

    /// Fails if a goal is missed, or could not be judged.
    pub(crate) fn check(&self) -> Result<()> {
        let goals = self.verdicts.iter().filter(|v| v.comparison.goal.is_some());
        let goals: Vec<_> = goals.collect();
        ensure!(!goals.is_empty(), "nothing was measured that has a goal");
        for verdict in &goals {
            ensure!(
                verdict.is_sound(),
                "{}: only {} undisturbed pairs, {} are needed to judge",
                verdict.name,
                verdict.near + verdict.far,
                verdict.needed
            );
        }
        for verdict in goals {
            let passes = verdict.passes().unwrap_or(false);
            ensure!(passes, "{}: the goal is missed", verdict.name);
        }
        Ok(())
    }
}

/// The goal of a comparison, and whether it was reached.
pub(crate) fn goal_text(verdict: &Verdict) -> Option<String> {
    let goal = verdict.comparison.goal?;
    let bound = match goal.bound {
        Bound::AtMost(bound) => format!("at most {bound:.3}"),
        Bound::AtLeast(bound) => format!("at least {bound:.3}"),
    };
    let outcome = match verdict.passes() {
        Some(true) => "reached",
        Some(false) => "MISSED",
        None => "cannot be judged",
    };
    Some(format!("goal {}, {bound}: {outcome}", goal.number))
}
