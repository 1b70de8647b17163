//! Runs that are mostly connections, unoptimized and so with every overflow checked.

use xtipc_sim::scenario::{Plan, run};

const SEEDS: u64 = 12;

#[test]
fn connections_keep_every_byte_in_order_and_no_sender_waits_for_ever() {
    let plan = Plan {
        nodes: 2..5,
        connecting: 900,
        ..Plan::default()
    };
    let (mut bytes, mut ended) = (0, 0);
    for seed in 0..SEEDS {
        let outcome = run(seed, &plan).unwrap_or_else(|violation| {
            panic!("xtipc-sim --seed {seed} --nodes 2..4 --connecting 900: {violation}")
        });
        bytes += outcome.carried;
        ended += outcome.ended;
    }
    assert!(bytes > SEEDS * 500_000, "{bytes} bytes say too little");
    assert!(ended > 30, "{ended} ends say too little");
}
