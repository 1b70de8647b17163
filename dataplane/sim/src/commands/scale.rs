//! `xtipc-sim scale`: how a full mesh grows, and what losses are like in it.

use super::Report;
use super::usage::{memory, processor_time, take_large_pages};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use xtipc_protocol::link::LinkParams;
use xtipc_protocol::monitor::Supervision;
use xtipc_sim::scale::{Large, Loss};

const MIB: u64 = 1 << 20;
/// Simulating a second of an idle cluster may take so much of a core for each node.
const SECOND_OF_A_NODE: Duration = Duration::from_millis(5);
/// So may their memory.
const MEMORY_OF_1000: u64 = 24 << 30;
/// How long a loss is watched.
const WATCH: Duration = Duration::from_secs(5);

/// A cluster of this size, and what happens to it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of nodes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=2000))]
    nodes: u64,
    /// Which links are watched.
    #[arg(long, default_value = "mesh")]
    supervision: Choice,
    /// Seed of the run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do not let nodes fail.
    #[arg(long)]
    idle: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Choice {
    Mesh,
    Ring,
}

/// What losses may cost.
struct Bounds {
    one: Duration,
    many: Duration,
    /// In a ring some hear of it with their next probe only, and look for themselves then.
    parted: Duration,
    /// In a second in which nothing happens.
    idle: u64,
    /// In the busiest second of the busiest node when nodes fail, or a switch does.
    failing: Option<u64>,
}

fn bounds(choice: Choice) -> Bounds {
    let tolerance = Duration::from_millis(LinkParams::default().tolerance_ms.into());
    let grace = Duration::from_millis(300);
    match choice {
        Choice::Mesh => Bounds {
            one: tolerance,
            many: tolerance,
            parted: tolerance,
            idle: 1800,
            failing: Some(1800),
        },
        Choice::Ring => Bounds {
            one: tolerance + grace,
            many: 2 * tolerance + grace,
            parted: 3 * tolerance,
            idle: 170,
            // Those that watched a lost node tell the others four times, and these look at many for themselves.
            failing: None,
        },
    }
}

/// Builds the cluster and reports.
pub(super) fn run(options: &Options, report: &mut Report) {
    let supervision = match options.supervision {
        Choice::Mesh => Supervision::Mesh,
        Choice::Ring => Supervision::Ring,
    };
    let nodes = options.nodes as usize;
    take_large_pages();
    let begun = Instant::now();
    let mut large = Large::start(nodes, supervision, options.seed);
    let settled = large.settle();
    let links = (nodes * (nodes - 1)) as u64;
    let up = settled.map_or("not all links, or tables differ".to_string(), |took| {
        let bindings = large.bindings();
        format!(
            "{took:.1?} after the last start, one table of {bindings} bindings; {:.1?}",
            begun.elapsed()
        )
    });
    report.judge(&format!("{} links up", links / 2), &up, settled.is_some());
    let (now, peak) = memory();
    let figures = format!(
        "{} MiB, {} MiB at most, {} bytes per link and end",
        now / MIB,
        peak / MIB,
        now / links
    );
    report.judge("memory", &figures, peak <= MEMORY_OF_1000);
    let before = processor_time();
    large.idle(Duration::from_secs(1));
    let took = processor_time() - before;
    let allowed = SECOND_OF_A_NODE * nodes as u32;
    report.judge(
        "a second",
        &format!("{took:.2?} of a core"),
        took <= allowed,
    );
    let bounds = bounds(options.supervision);
    let Loss { packets, mean, .. } = large.idle(Duration::from_secs(4));
    let figures = format!(
        "{mean} packets a second from the busiest node, {packets} in the busiest second of one"
    );
    report.judge("idle", &figures, mean <= bounds.idle);
    if !options.idle {
        lose(&mut large, &bounds, options.supervision, report);
    }
    report.say("in all", &format!("{:.0?}", begun.elapsed()));
}

/// Nodes fail, a switch does, and the cluster falls apart.
fn lose(large: &mut Large, bounds: &Bounds, choice: Choice, report: &mut Report) {
    let nodes = large.nodes();
    // In a ring these make up several domains.
    let many = match choice {
        Choice::Mesh => nodes / 10,
        Choice::Ring => (nodes / 10).max(3 * nodes.isqrt()),
    };
    for count in [1, nodes / 100, many] {
        let chosen = match choice {
            Choice::Mesh => large.scattered(count),
            Choice::Ring => large.neighbours(count),
        };
        if count > 0 {
            let loss = large.kill(&chosen, WATCH);
            let within = if count == 1 { bounds.one } else { bounds.many };
            judge(
                &format!("{count} fail"),
                loss,
                within,
                bounds.failing,
                report,
            );
        }
    }
    let behind = large.scattered(large.nodes() / 20);
    let loss = large.part(&behind, 2 * WATCH);
    judge(
        &format!("a switch of {} nodes fails", behind.len()),
        loss,
        bounds.parted,
        bounds.failing,
        report,
    );
    again(large, report);
    let half: BTreeSet<usize> = large.scattered(large.nodes() / 2);
    let loss = large.part(&half, 2 * WATCH);
    judge("two halves", loss, bounds.parted, None, report);
    again(large, report);
}

fn judge(what: &str, loss: Loss, within: Duration, most: Option<u64>, report: &mut Report) {
    let Loss {
        seen,
        missed,
        wrong,
        last,
        packets,
        mean,
    } = loss;
    let figures = format!(
        "seen by the last one after {last:.3?}; {seen} ends of links lost, {missed} missed, {wrong} wrong; {packets} packets in the busiest second of one node, {mean} a second of the busiest"
    );
    let is_seen = missed == 0 && wrong == 0 && last <= within;
    report.judge(
        what,
        &figures,
        is_seen && most.is_none_or(|most| packets <= most),
    );
}

fn again(large: &mut Large, report: &mut Report) {
    let begun = Instant::now();
    let settled = large.join();
    let figures = settled.map_or("not within the time".to_string(), |took| {
        format!(
            "all links up and one table {took:.1?} after the end of it; {:.1?}",
            begun.elapsed()
        )
    });
    report.judge("... joined", &figures, settled.is_some());
}
