//! The table at the size it is made for. Times are printed, not asserted: they are those of
//! whatever build and machine runs the test.

use super::super::{BindingTable, Lookup, Publication, ScopeFilter};
use super::{OWN, bound, range};
use std::time::Instant;

const TYPES: u32 = 10;
const INSTANCES: u32 = 2500;
/// The own node and three peers each bind every instance of every type.
const NODES: [u32; 4] = [OWN, OWN + 1, OWN + 2, OWN + 3];
const BINDINGS: usize = (TYPES * INSTANCES) as usize * NODES.len();

fn every_publication() -> impl Iterator<Item = Publication> {
    NODES.into_iter().flat_map(|node| {
        (0..TYPES * INSTANCES).map(move |n| {
            bound(
                range(1000 + n / INSTANCES, n % INSTANCES, n % INSTANCES),
                node,
                n + 1,
            )
        })
    })
}

fn measure<T>(what: &str, operations: usize, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!(
        "{what}: {} ns each",
        start.elapsed().as_nanos() / operations as u128
    );
    result
}

#[test]
fn table_of_100_000_bindings_with_four_publishers_each_answers_every_lookup() {
    let mut table = BindingTable::new(OWN, 3);
    measure("publish", BINDINGS, || {
        for p in every_publication() {
            table.publish(p).unwrap();
        }
    });
    assert_eq!(table.len(), BINDINGS);
    let bytes_per_binding = table.allocated_bytes() / BINDINGS;
    println!("{bytes_per_binding} bytes per binding, 4 bindings in a range");
    assert!(bytes_per_binding < 200);

    measure("anycast", BINDINGS, || {
        for n in 0..BINDINGS as u32 {
            // All instances once, then again: the four publishers take turns, newest first.
            let (instance, node) = (n % INSTANCES, NODES[3 - (n / (TYPES * INSTANCES)) as usize]);
            let type_ = 1000 + n / INSTANCES % TYPES;
            let port = (type_ - 1000) * INSTANCES + instance + 1;
            assert_eq!(
                table.anycast(type_, instance, 0),
                Lookup::Found { port, node }
            );
        }
    });
    measure("multicast to 10 instances", INSTANCES as usize, || {
        for lower in 0..INSTANCES {
            let wanted = range(1004, lower, lower + 9);
            assert_eq!(table.multicast_nodes(wanted).len(), NODES.len());
            let ports = table.multicast_ports(wanted, ScopeFilter::Any).len() as u32;
            assert_eq!(ports, 10.min(INSTANCES - lower));
        }
    });
    let lost = BINDINGS / NODES.len();
    measure("purge", lost, || {
        let mut withdrawn = 0;
        table.purge_node(NODES[1], |_| withdrawn += 1);
        assert_eq!(withdrawn, lost);
    });
    measure("withdraw", BINDINGS, || {
        every_publication().for_each(|p| {
            let found = table.withdraw(p.range, p.port, p.node, p.key);
            assert_eq!(found.is_some(), p.node != NODES[1]);
        });
    });
    assert!(table.is_empty());
}

#[test]
fn a_range_with_as_many_publishers_as_a_peer_may_have_is_handled_without_walking_it() {
    let (mut table, peer) = (BindingTable::new(OWN, 3), NODES[1]);
    let crowded = |port| bound(range(1000, 0, u32::MAX), peer, port);
    // Were duplicates or withdrawals found by walking the list, this would take 4 * 10^9 steps.
    measure("publish into one range", 65_535, || {
        for port in 0..65_535 {
            table.publish(crowded(port)).unwrap();
        }
    });
    assert!(table.publish(crowded(70_000)).is_err());
    measure("withdraw, oldest first", 65_535, || {
        (0..65_535).for_each(|port| {
            let p = crowded(port);
            assert!(table.withdraw(p.range, p.port, p.node, p.key).is_some());
        });
    });
}

#[test]
fn foreign_ranges_around_it_do_not_slow_down_the_search_for_a_local_binding() {
    let (mut table, peer) = (BindingTable::new(OWN, 3), NODES[1]);
    for n in 0..50_000 {
        table
            .publish(bound(range(1000, n, u32::MAX - n), peer, 1))
            .unwrap();
    }
    table
        .publish(bound(range(1000, 60_000, 60_000), OWN, 2))
        .unwrap();
    let bytes_per_binding = table.allocated_bytes() / table.len();
    println!("{bytes_per_binding} bytes per binding, each with its own range");
    assert!(bytes_per_binding < 250);
    // Were the foreign ranges walked, this would take 2 * 10^9 steps.
    measure("local lookup within 50,000 foreign ranges", 40_000, || {
        for _ in 0..40_000 {
            let found = table.anycast(1000, 60_000, OWN);
            assert_eq!(found, Lookup::Found { port: 2, node: OWN });
            let ports = table.multicast_ports(range(1000, 0, u32::MAX), ScopeFilter::Any);
            assert_eq!(ports, [2]);
        }
    });
}
