//! Which events a subscriber gets, in which order.

use super::Said::{Down, Timeout, Up};
use super::*;

const PORTS: Filter = Filter::PORTS;
const SERVICE: Filter = Filter::SERVICE;

#[test]
fn with_ports_every_publication_and_withdrawal_that_overlaps_is_reported_with_its_full_range() {
    let mut lab = Lab::new();
    lab.subscribe(ANNA, wants(range(7, 10, 20), PORTS));
    let all = [
        bound(range(7, 0, 9), 1),
        bound(range(7, 0, 10), 2),
        bound(range(7, 0, 10), 3),
        bound(range(7, 15, 15), 4),
        bound(range(7, 20, u32::MAX), 5),
        bound(range(7, 21, 30), 6),
        bound(range(8, 10, 20), 7),
    ];
    lab.publish_all(all);
    assert_eq!(
        lab.said(ANNA),
        [
            Up(0, 10, 2),
            Up(0, 10, 3),
            Up(15, 15, 4),
            Up(20, u32::MAX, 5)
        ]
    );
    lab.withdraw_all(all);
    assert_eq!(
        lab.said(ANNA),
        [
            Down(0, 10, 2),
            Down(0, 10, 3),
            Down(15, 15, 4),
            Down(20, u32::MAX, 5)
        ]
    );
}

#[test]
fn without_ports_the_first_and_the_last_of_each_exact_range_are_reported() {
    for filter in [SERVICE, Filter::CLUSTER_SCOPE] {
        let mut lab = Lab::new();
        // A filter without SERVICE can only come from a subscriber of the other order.
        let subscription = match filter {
            SERVICE => wants(range(7, 0, 99), filter),
            _ => wants(range(7, 0, 99), filter).swapped(),
        };
        assert_eq!(subscription.filter().has_any(SERVICE), filter == SERVICE);
        lab.subscribe(ANNA, subscription);
        let (a, b) = (bound(range(7, 1, 1), 1), bound(range(7, 1, 1), 2));
        let other = bound(range(7, 0, 5), 3);
        lab.publish_all([a, b, other]);
        assert_eq!(lab.said(ANNA), [Up(1, 1, 1), Up(0, 5, 3)], "{filter:?}");
        lab.withdraw_all([a, other, b]);
        assert_eq!(
            lab.said(ANNA),
            [Down(0, 5, 3), Down(1, 1, 2)],
            "the address is that of the last one"
        );
    }
}

#[test]
fn a_duplicate_and_an_unknown_withdrawal_are_no_events() {
    let mut lab = Lab::new();
    lab.subscribe(ANNA, wants(range(7, 0, 99), PORTS));
    let p = bound(range(7, 1, 1), 1);
    lab.publish(p);
    lab.publish(p);
    lab.withdraw(bound(range(7, 1, 1), 2));
    assert_eq!(lab.said(ANNA), [Up(1, 1, 1)]);
}

#[test]
fn what_is_bound_already_is_reported_in_the_order_it_was_bound() {
    let mut lab = Lab::new();
    let first = bound(range(7, 50, 60), 1);
    lab.publish_all([
        first,
        bound(range(7, 1, 1), 2),
        bound(range(7, 50, 60), 3),
        bound(range(7, 1, 1), 4),
        bound(range(7, 0, 0), 5),
        bound(range(8, 0, 0), 6),
    ]);
    // Look-ups turn the lists round, which the order of events must not show.
    lab.table.anycast(7, 1, 0);
    lab.table.anycast(7, 50, 0);
    lab.subscribe(ANNA, wants(range(7, 1, 99), PORTS));
    assert_eq!(
        lab.said(ANNA),
        [Up(50, 60, 1), Up(1, 1, 2), Up(50, 60, 3), Up(1, 1, 4)]
    );
    lab.subscribe(ANNA, wants(range(7, 1, 99), SERVICE));
    assert_eq!(lab.said(ANNA), [Up(50, 60, 1), Up(1, 1, 2)]);
    lab.withdraw(first);
    lab.publish(first);
    lab.events(ANNA);
    lab.subscribe(BERT, wants(range(7, 50, 50), SERVICE));
    assert_eq!(lab.said(BERT), [Up(50, 60, 3)], "the oldest of its range");
}

#[test]
fn no_status_leaves_out_what_is_bound_already() {
    let mut lab = Lab::new();
    lab.publish(bound(range(7, 1, 1), 1));
    lab.subscribe(ANNA, wants(range(7, 0, 9), PORTS.with(Filter::NO_STATUS)));
    assert_eq!(lab.said(ANNA), []);
    lab.publish(bound(range(7, 2, 2), 2));
    assert_eq!(lab.said(ANNA), [Up(2, 2, 2)]);
}

#[test]
fn scope_filters_hide_publications_of_the_other_scope() {
    let mut lab = Lab::new();
    let node = node_scope(bound(range(7, 1, 1), 1));
    let cluster = bound(range(7, 2, 2), 2);
    lab.publish(node);
    lab.subscribe(
        ANNA,
        wants(range(7, 0, 9), PORTS.with(Filter::CLUSTER_SCOPE)),
    );
    lab.subscribe(BERT, wants(range(7, 0, 9), PORTS.with(Filter::NODE_SCOPE)));
    lab.publish(cluster);
    lab.withdraw(node);
    lab.withdraw(cluster);
    assert_eq!(lab.said(ANNA), [Up(2, 2, 2), Down(2, 2, 2)]);
    assert_eq!(lab.said(BERT), [Up(1, 1, 1), Down(1, 1, 1)]);
    let both = Filter::CLUSTER_SCOPE.with(Filter::NODE_SCOPE);
    lab.subscribe(ANNA, wants(range(7, 0, 9), PORTS.with(both)));
    lab.publish_all([node, cluster]);
    let of_both = |e: &Event| {
        e.subscription.filter().has_any(both) && e.subscription.filter().0 & both.0 == both.0
    };
    assert!(!lab.events(ANNA).iter().any(of_both));
}

#[test]
fn a_range_whose_oldest_publication_has_the_wrong_scope_is_not_reported_without_ports() {
    let mut lab = Lab::new();
    lab.publish(node_scope(bound(range(7, 1, 1), 1)));
    lab.publish(bound(range(7, 1, 1), 2));
    lab.subscribe(
        ANNA,
        wants(range(7, 0, 9), SERVICE.with(Filter::CLUSTER_SCOPE)),
    );
    assert_eq!(lab.said(ANNA), [], "as in Linux");
    lab.subscribe(
        ANNA,
        wants(range(7, 0, 9), PORTS.with(Filter::CLUSTER_SCOPE)),
    );
    assert_eq!(lab.said(ANNA), [Up(1, 1, 2)]);
}

#[test]
fn the_newest_of_several_subscriptions_hears_first_and_each_event_names_its_own() {
    let mut lab = Lab::new();
    let subscriptions = [
        wants(range(7, 0, 9), PORTS),
        wants(range(7, 0, u32::MAX), SERVICE),
        wants(range(7, 1, 1), PORTS),
    ];
    for s in subscriptions {
        lab.subscribe(ANNA, s);
    }
    lab.publish(bound(range(7, 1, 1), 1));
    let told: Vec<Subscription> = lab.events(ANNA).iter().map(|e| e.subscription).collect();
    let mut newest_first = subscriptions;
    newest_first.reverse();
    assert_eq!(told, newest_first);
}

#[test]
fn cancel_takes_the_newest_identical_subscription_back_and_only_an_identical_one() {
    let mut lab = Lab::new();
    let subscription = lasting(range(7, 0, 9), PORTS, 5000);
    lab.subscribe(ANNA, subscription);
    lab.pass(100);
    lab.subscribe(ANNA, subscription);
    let others = [
        lasting(range(7, 0, 9), PORTS, 5001),
        lasting(range(7, 0, 8), PORTS, 5000),
        lasting(range(7, 0, 9), SERVICE, 5000),
        Subscription::new(range(7, 0, 9), PORTS, Some(5000), *b"other   "),
        subscription.swapped(),
    ];
    for other in others {
        assert_eq!(lab.send(ANNA, &with_cancel(other)), Ok(()));
    }
    assert_eq!(lab.send(BERT, &with_cancel(subscription)), Ok(()));
    assert_eq!(lab.service.len(), 2, "none of these was the same");
    lab.send(ANNA, &with_cancel(subscription))
        .expect("a cancel");
    assert_eq!(lab.service.len(), 1);
    assert_eq!(lab.said(ANNA), [], "a cancel is not answered");
    lab.pass(4900);
    assert_eq!(lab.said(ANNA), [Timeout(0, 9)], "the older one lives on");
    lab.send(ANNA, &with_cancel(subscription)).expect("ignored");
}

#[test]
fn a_subscription_of_the_other_byte_order_can_be_cancelled() {
    let mut lab = Lab::new();
    for subscription in [
        wants(range(7, 0, 9), PORTS).swapped(),
        wants(range(7, 0, 9), Filter(0)),
    ] {
        lab.subscribe(ANNA, subscription);
        lab.send(ANNA, &with_cancel(subscription))
            .expect("a cancel");
        // Without a mark of its order the cancel reads as native; bytes are what counts.
        let mut native = *subscription.as_bytes();
        native[16..20].copy_from_slice(&Filter::CANCEL.0.to_ne_bytes());
        lab.send(ANNA, &native).expect("a cancel");
        assert!(lab.service.is_empty(), "{subscription:?}");
    }
}

#[test]
fn events_queued_before_a_cancel_still_come() {
    let mut lab = Lab::new();
    let subscription = wants(range(7, 0, 9), PORTS);
    lab.subscribe(ANNA, subscription);
    lab.publish(bound(range(7, 1, 1), 1));
    lab.send(ANNA, &with_cancel(subscription))
        .expect("a cancel");
    lab.publish(bound(range(7, 2, 2), 2));
    assert_eq!(lab.said(ANNA), [Up(1, 1, 1)]);
}

#[test]
fn a_timeout_comes_once_at_its_time_and_ends_the_subscription() {
    let mut lab = Lab::new();
    lab.subscribe(ANNA, lasting(range(7, 0, 9), PORTS, 300));
    assert_eq!(lab.service.next_timeout(), Some(Instant::from_millis(300)));
    lab.pass(299);
    assert_eq!(lab.said(ANNA), []);
    lab.publish(bound(range(7, 1, 1), 1));
    lab.pass(1);
    lab.publish(bound(range(7, 2, 2), 2));
    lab.pass(1000);
    assert_eq!(lab.said(ANNA), [Up(1, 1, 1), Timeout(0, 9)]);
    assert!(lab.service.is_empty());
    assert_eq!(lab.service.next_timeout(), None);
}

#[test]
fn timeout_zero_reports_what_is_bound_and_ends_at_once() {
    let mut lab = Lab::new();
    lab.publish(bound(range(7, 1, 1), 1));
    lab.subscribe(ANNA, lasting(range(7, 0, 9), PORTS, 0));
    assert_eq!(lab.said(ANNA), [Up(1, 1, 1), Timeout(0, 9)]);
    assert!(lab.service.is_empty());
}

#[test]
fn timeouts_come_in_the_order_of_their_deadlines() {
    let mut lab = Lab::new();
    for (lower, timeout) in [(1, 300), (2, 100), (3, 200), (4, 100)] {
        lab.subscribe(ANNA, lasting(range(7, lower, 9), PORTS, timeout));
    }
    lab.subscribe(ANNA, wants(range(7, 5, 9), PORTS));
    lab.pass(1000);
    assert_eq!(
        lab.said(ANNA),
        [Timeout(2, 9), Timeout(4, 9), Timeout(3, 9), Timeout(1, 9)]
    );
    assert_eq!(lab.service.len(), 1, "the one for ever stays");
}

#[test]
fn nodes_and_links_are_tracked_by_their_bindings() {
    let mut lab = Lab::new();
    lab.publish(Publication::node_state(OWN));
    lab.subscribe(ANNA, wants(range(0, 0, u32::MAX), SERVICE));
    lab.subscribe(ANNA, wants(range(2, PEER, PEER), PORTS));
    lab.publish(Publication::link_state(OWN, PEER, 1, 2));
    lab.publish(Publication::node_state(PEER));
    lab.publish(bound(range(7, 1, 1), 1));
    lab.lose(PEER);
    lab.withdraw(Publication::link_state(OWN, PEER, 1, 2));
    let told: Vec<_> = lab
        .events(ANNA)
        .into_iter()
        .map(|e| {
            (
                e.kind,
                e.subscription.range().type_,
                e.found_lower,
                e.port,
                e.node,
            )
        })
        .collect();
    use EventKind::{Published, Withdrawn};
    assert_eq!(
        told,
        [
            (Published, 0, OWN, 0, OWN),
            (Published, 2, PEER, 2 << 16 | 1, OWN),
            (Published, 0, PEER, 0, PEER),
            (Withdrawn, 0, PEER, 0, PEER),
            (Withdrawn, 2, PEER, 2 << 16 | 1, OWN),
        ]
    );
}

#[test]
fn two_links_to_a_peer_are_two_events_with_ports_and_one_without() {
    let mut lab = Lab::new();
    lab.subscribe(ANNA, wants(range(2, 0, u32::MAX), PORTS));
    lab.subscribe(BERT, wants(range(2, 0, u32::MAX), SERVICE));
    let links = [0, 1].map(|bearer| Publication::link_state(OWN, PEER, bearer, bearer));
    lab.publish_all(links);
    lab.withdraw_all(links);
    assert_eq!(lab.said(ANNA).len(), 4);
    assert_eq!(
        lab.said(BERT),
        [Up(PEER, PEER, 0), Down(PEER, PEER, 0x1_0001)]
    );
}

#[test]
fn a_lost_node_s_bindings_are_withdrawn_in_the_order_learned() {
    let mut lab = Lab::new();
    lab.subscribe(ANNA, wants(range(7, 0, u32::MAX), PORTS));
    for n in [5, 3, 9] {
        lab.publish(Publication {
            node: PEER,
            ..bound(range(7, n, n), n)
        });
    }
    lab.events(ANNA);
    lab.lose(PEER);
    assert_eq!(
        lab.said(ANNA),
        [Down(5, 5, 5), Down(3, 3, 3), Down(9, 9, 9)]
    );
}
