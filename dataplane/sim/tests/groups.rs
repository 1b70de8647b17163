//! Runs that are mostly talk in a group, unoptimized and so with every overflow checked.

use xtipc_sim::scenario::{Plan, run};

const SEEDS: u64 = 12;

#[test]
fn members_hear_each_other_in_order_and_no_sender_waits_for_ever() {
    let plan = Plan {
        nodes: 2..6,
        events: 1500,
        connecting: 0,
        grouping: 700,
        ..Plan::default()
    };
    let mut told = 0;
    for seed in 0..SEEDS {
        let outcome = run(seed, &plan).unwrap_or_else(|violation| {
            panic!("xtipc-sim --seed {seed} --nodes 2..5 --events 1500 --connecting 0 --grouping 700: {violation}")
        });
        told += outcome.told;
    }
    assert!(told > SEEDS * 1000, "{told} messages say too little");
}
