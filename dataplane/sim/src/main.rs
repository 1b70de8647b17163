//! Runs scenarios by their seeds and says which failed.
#![forbid(unsafe_code)]

mod commands;

use clap::Parser;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use xtipc_sim::scenario::{Outcome, Plan, run};

/// Simulates whole clusters with faults, each from one seed. A failure prints its seed, and `--seed`
/// with it (and the same `--nodes`, `--events` and so on) shows the same failure again. Builds that abort on a panic end at the first one.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<commands::Command>,
    /// One seed.
    #[arg(long, conflicts_with = "seeds", default_value_t = 0)]
    seed: u64,
    /// Seeds from A to before B.
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<Range<u64>>,
    /// Number of nodes: one, or the smallest and the largest.
    #[arg(long, value_name = "LEAST..MOST", value_parser = nodes, default_value = "2..20")]
    nodes: Range<u64>,
    /// Events in each run.
    #[arg(long, default_value_t = Plan::default().events)]
    events: usize,
    /// Events that concern connections, in per mille.
    #[arg(long, default_value_t = Plan::default().connecting)]
    connecting: u32,
    /// Those that concern a group, in per mille.
    #[arg(long, default_value_t = Plan::default().grouping)]
    grouping: u32,
    /// Segments that each node is on, 1 to 3 [default: two in every fourth run, else one]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    nets: Option<u8>,
    /// Runs side by side.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Print each run, with the hash of all its packets.
    #[arg(long)]
    trace: bool,
    /// Print each packet and event.
    #[arg(long)]
    log: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parse = |(a, b): (&str, &str)| Some(a.parse().ok()?..b.parse().ok()?);
    let range = text.split_once("..").and_then(parse);
    range
        .filter(|r: &Range<u64>| !r.is_empty())
        .ok_or_else(|| format!("{text} is no range of seeds: A..B with A below B accepted"))
}

fn nodes(text: &str) -> Result<Range<u64>, String> {
    let (a, b) = text.split_once("..").unwrap_or((text, text));
    match (a.parse(), b.trim_start_matches('=').parse()) {
        (Ok(least), Ok(most)) if (2..=most).contains(&least) && most <= 200 => Ok(least..most + 1),
        _ => Err(format!(
            "{text} is no number of nodes: 2 to 200, or 2..20 accepted"
        )),
    }
}

#[derive(Default)]
struct Totals {
    runs: u64,
    failed: u64,
    packets: u64,
    delivered: u64,
    carried: u64,
    told: u64,
    heard: u64,
    virtual_time: Duration,
    disagreed: Duration,
}

/// One run; a panic is a failure like others.
fn guarded(seed: u64, plan: &Plan) -> Result<Outcome, String> {
    match panic::catch_unwind(AssertUnwindSafe(|| run(seed, plan))) {
        Ok(result) => result.map_err(|violation| violation.to_string()),
        Err(_) => Err("panicked, see above".to_string()),
    }
}

fn work(next: &AtomicU64, end: u64, plan: &Plan, trace: bool, totals: &Mutex<Totals>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        SEED.set(seed);
        let result = guarded(seed, plan);
        let mut totals = totals.lock().expect("no run holds it when it panics");
        totals.runs += 1;
        match result {
            Ok(outcome) => {
                totals.packets += outcome.packets;
                totals.delivered += outcome.delivered;
                totals.carried += outcome.carried;
                totals.told += outcome.told;
                totals.heard += outcome.heard;
                totals.virtual_time += outcome.lasted;
                totals.disagreed = totals.disagreed.max(outcome.disagreed);
                if trace {
                    println!("seed {seed}: {outcome:?}");
                }
            }
            Err(reason) => {
                totals.failed += 1;
                println!("seed {seed}: {reason}");
                println!(
                    "  again: xtipc-sim --seed {seed} --nodes {}..{} --events {} --connecting {} --grouping {} --log",
                    plan.nodes.start,
                    plan.nodes.end - 1,
                    plan.events,
                    plan.connecting,
                    plan.grouping
                );
            }
        }
    }
}

thread_local! {
    /// The seed this thread is at.
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(command) = options.command {
        return command.run();
    }
    let seeds = options.seeds.unwrap_or(options.seed..options.seed + 1);
    let plan = Plan {
        nodes: options.nodes,
        events: options.events,
        connecting: options.connecting,
        grouping: options.grouping,
        nets: options.nets.map(usize::from),
        cuts: None,
        log: options.log,
        sabotage: None,
    };
    // The seed comes first, in builds too that end with the first panic.
    panic::set_hook(Box::new(|what| eprintln!("seed {}: {what}", SEED.get())));
    let (next, totals) = (AtomicU64::new(seeds.start), Mutex::new(Totals::default()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| work(&next, seeds.end, &plan, options.trace, &totals));
        }
    });
    let totals = totals.into_inner().expect("no run holds it when it panics");
    println!(
        "{} runs, {} failed, {} packets, {} messages, {} bytes by connections, {} messages in groups, {} events heard, {:.0?} virtual time, {:.1?} wall time, longest disagreement {:?}",
        totals.runs,
        totals.failed,
        totals.packets,
        totals.delivered,
        totals.carried,
        totals.told,
        totals.heard,
        totals.virtual_time,
        begun.elapsed(),
        totals.disagreed,
    );
    ExitCode::from(u8::from(totals.failed > 0))
}
