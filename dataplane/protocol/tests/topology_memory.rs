//! What 10,000 subscriptions cost: memory, counted by the allocator, and the time a change takes, which is printed,
//! not asserted.

mod counting;

use counting::bytes_and_allocations;
use xtipc_protocol::name::{BindingTable, Publication, Scope, ServiceRange};
use xtipc_protocol::time::Instant;
use xtipc_protocol::topology::{Filter, Subscriber, Subscription, TopologyService};

const NODE: u32 = 0x0100_1001;
const SUBSCRIPTIONS: u32 = 10_000;

fn bound(instance: u32) -> Publication {
    Publication {
        range: ServiceRange::instance(1000, instance),
        scope: Scope::Cluster,
        port: instance + 1,
        node: NODE,
        key: instance + 2,
    }
}

/// 10,000 subscriptions to one instance each of one type, and one to all of it.
fn subscribe_all(
    service: &mut TopologyService,
    table: &BindingTable,
    subscriber_of: impl Fn(u32) -> Subscriber,
) {
    for n in 0..=SUBSCRIPTIONS {
        let subscriber = subscriber_of(n);
        if !service.is_open(subscriber) {
            service.open(subscriber, None);
        }
        let range = match n {
            SUBSCRIPTIONS => ServiceRange {
                type_: 1000,
                lower: 0,
                upper: u32::MAX,
            },
            n => ServiceRange::instance(1000, n),
        };
        let request = Subscription::new(range, Filter::PORTS, Some(60_000), [0; 8]);
        let done = service.on_request(Instant(0), subscriber, request.as_bytes(), table);
        done.expect("room for all of them");
    }
}

/// Makes and withdraws a binding to each instance; the events are taken at once.
fn change_all(service: &mut TopologyService, table: &mut BindingTable) -> usize {
    let mut events = 0;
    let mut take = |service: &mut TopologyService| {
        while let Some(subscriber) = service.take_ready() {
            while service.next_event(subscriber).is_some() {
                service.taken(subscriber);
                events += 1;
            }
        }
    };
    for n in 0..SUBSCRIPTIONS {
        let p = bound(n);
        service.on_published(&table.publish(p).expect("a new publication"));
        take(service);
        let gone = table.withdraw(p.range, p.port, p.node, p.key);
        service.on_withdrawn(&gone.expect("it was there"));
        take(service);
    }
    events
}

#[test]
fn ten_thousand_subscriptions_are_cheap_and_changes_allocate_nothing() {
    for (subscribers, limit, subscriber_of) in [
        (
            "one subscriber",
            200,
            (|_| Subscriber(0)) as fn(u32) -> Subscriber,
        ),
        ("a subscriber each", 300, Subscriber),
    ] {
        let mut table = BindingTable::new(NODE, 1);
        let mut service = TopologyService::default();
        let before = bytes_and_allocations().0;
        subscribe_all(&mut service, &table, subscriber_of);
        let bytes = (bytes_and_allocations().0 - before) / SUBSCRIPTIONS as usize;
        println!("{subscribers}: {bytes} bytes per subscription");
        assert!(
            bytes < limit,
            "{subscribers}: {bytes} bytes per subscription"
        );

        change_all(&mut service, &mut table);
        let allocations = bytes_and_allocations().1;
        let start = std::time::Instant::now();
        let events = change_all(&mut service, &mut table);
        let each = start.elapsed().as_nanos() / u128::from(2 * SUBSCRIPTIONS);
        assert_eq!(events, 4 * SUBSCRIPTIONS as usize);
        // The binding table makes and frees a range each time; its slots are used again.
        assert_eq!(bytes_and_allocations().1, allocations);
        println!("{subscribers}: {each} ns per change of the table, with its two events");
    }
}
