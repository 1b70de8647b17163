//! `xtipc-sim alarms`: whether a short tolerance is kept.

use super::Report;
use std::time::{Duration, Instant};
use xtipc_sim::alarms::run as live;

/// A cluster and its tolerance.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=100))]
    nodes: u64,
    /// Tolerance of the links in milliseconds.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(50..=30_000))]
    tolerance: u64,
    /// Simulated time in minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Seed of the run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(options: &Options, report: &mut Report) {
    let tolerance = Duration::from_millis(options.tolerance);
    let span = Duration::from_secs(60 * options.minutes);
    let begun = Instant::now();
    let outcome = live(options.seed, options.nodes as usize, tolerance, span);
    let stalls = format!(
        "{} of up to 0.9 tolerances, {} false alarms",
        outcome.stalls, outcome.false_alarms
    );
    report.judge(
        "nodes stood still",
        &stalls,
        outcome.false_alarms == 0 && outcome.stalls > 0,
    );
    let (first, last) = outcome.seen;
    let deaths = format!(
        "{}, seen by the others after {first:?} to {last:?}, {} missed",
        outcome.deaths, outcome.missed
    );
    let in_time = first >= tolerance && last <= tolerance * 2;
    report.judge(
        "nodes died",
        &deaths,
        outcome.missed == 0 && outcome.deaths > 0 && in_time,
    );
    report.say(
        "in all",
        &format!(
            "{} packets, {span:?} in {:.0?}",
            outcome.packets,
            begun.elapsed()
        ),
    );
}
