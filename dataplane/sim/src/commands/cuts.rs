//! `xtipc-sim cuts`: whether two links hide the loss of one.

use super::Report;
use std::time::Instant;
use xtipc_sim::scenario::{Plan, run as live};

/// Clusters, and what happens to their nets.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Cuts and restores.
    #[arg(long, default_value_t = 500)]
    cuts: usize,
    /// Number of nodes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=50))]
    nodes: u64,
    /// Seed of the run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print each packet and event.
    #[arg(long)]
    log: bool,
}

pub(super) fn run(options: &Options, report: &mut Report) {
    let plan = Plan {
        nodes: options.nodes..options.nodes + 1,
        cuts: Some(options.cuts),
        log: options.log,
        ..Plan::default()
    };
    let begun = Instant::now();
    let what = format!("{} cuts", options.cuts);
    match live(options.seed, &plan) {
        Ok(outcome) => {
            let figures = format!(
                "{} messages, {} bytes by connections, {} messages and events in groups; the slowest message to a socket took {:.3?}",
                outcome.delivered, outcome.carried, outcome.told, outcome.slowest
            );
            report.judge(&what, &figures, true);
            let lasted = format!(
                "{} packets, {:.0?} in {:.0?}",
                outcome.packets,
                outcome.lasted,
                begun.elapsed()
            );
            report.say("in all", &lasted);
        }
        Err(violation) => report.judge(&what, &violation.to_string(), false),
    }
}
