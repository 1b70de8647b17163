//! A few of the runs that `xtipc-sim --seeds` makes, unoptimized and so with every overflow checked, and that they
//! are what their seeds say.

use std::ops::Range;
use xtipc_sim::scenario::{Plan, run};

/// Runs them all and gives the number of messages that arrived.
fn run_all(seeds: Range<u64>, plan: &Plan) -> u64 {
    let outcome = |seed| match run(seed, plan) {
        Ok(outcome) => outcome.delivered,
        Err(violation) => panic!(
            "xtipc-sim --seed {seed} --nodes {}..{}: {violation}",
            plan.nodes.start,
            plan.nodes.end - 1
        ),
    };
    seeds.map(outcome).sum()
}

fn small() -> Plan {
    Plan {
        nodes: 2..7,
        ..Plan::default()
    }
}

#[test]
fn small_clusters_keep_their_promises() {
    let delivered = run_all(0..40, &small());
    assert!(delivered > 30_000, "{delivered} messages say too little");
}

#[test]
fn clusters_of_up_to_20_nodes_keep_their_promises() {
    let delivered = run_all(1000..1006, &Plan::default());
    assert!(delivered > 10_000, "{delivered} messages say too little");
}

#[test]
fn the_same_seed_gives_the_same_packets_and_another_seed_others() {
    let plan = Plan {
        events: 200,
        ..small()
    };
    for seed in [3, 1000, 1001] {
        assert_eq!(run(seed, &plan), run(seed, &plan), "seed {seed}");
    }
    let trace = |seed| run(seed, &plan).expect("a run without a violation").trace;
    assert_ne!(trace(1), trace(2));
}
