//! One test for each rule of `docs/protocol/names.md` (and of §3.6 where it
//! depends on the table).

use super::super::{
    BindingTable, Change, Limits, Lookup, Publication, PublishError, Scope, ScopeFilter,
    ServiceRange,
};
use super::{OTHER_PEER, OWN, PEER, bound, node_scope, range};

const SEED: u64 = 42;

fn table(publications: &[Publication]) -> BindingTable {
    let mut table = BindingTable::new(OWN, SEED);
    for &publication in publications {
        table.publish(publication).unwrap();
    }
    table
}

fn remove(table: &mut BindingTable, p: Publication) -> Option<Change> {
    table.withdraw(p.range, p.port, p.node, p.key)
}

/// Ports chosen by so many lookups in a row.
fn chosen(table: &mut BindingTable, instance: u32, domain: u32, times: usize) -> Vec<u32> {
    let port = |found| match found {
        Lookup::Found { port, .. } => port,
        other => panic!("{other:?}"),
    };
    (0..times)
        .map(|_| port(table.anycast(100, instance, domain)))
        .collect()
}

#[test]
fn a_duplicate_is_refused_and_changes_nothing() {
    let p = bound(range(100, 0, 9), OWN, 1);
    let mut table = table(&[p]);
    assert_eq!(table.publish(p), Err(PublishError::Duplicate));
    assert_eq!(table.publish(node_scope(p)), Err(PublishError::Duplicate));
    assert_eq!(table.iter().collect::<Vec<_>>(), [p]);
    assert!(remove(&mut table, p).unwrap().range_edge);
    assert!(table.is_empty());
}

#[test]
fn one_socket_may_bind_a_range_several_times_and_others_may_bind_it_too() {
    let p = bound(range(100, 0, 9), OWN, 1);
    let again = Publication { key: 77, ..p };
    let other_range = bound(range(100, 0, 8), OWN, 1);
    let other_node = Publication { node: PEER, ..p };
    assert_eq!(table(&[p, again, other_range, other_node]).len(), 4);
}

#[test]
fn a_socket_is_the_sole_one_of_an_instance_as_long_as_no_other_is_bound_to_a_range_with_it() {
    let p = bound(range(100, 0, 9), OWN, 1);
    let again = Publication { key: 77, ..p };
    let beside = bound(range(100, 10, 19), OWN, 2);
    let mut table = table(&[p, again, beside]);
    assert_eq!(table.sole(100, 9), Some((1, OWN)));
    assert_eq!(table.sole(100, 10), Some((2, OWN)));
    assert_eq!((table.sole(100, 20), table.sole(101, 9)), (None, None));
    for other in [
        bound(range(100, 9, 9), OWN, 3),
        bound(range(100, 5, 15), PEER, 1),
    ] {
        table.publish(other).unwrap();
        assert_eq!(table.sole(100, 9), None);
        assert!(remove(&mut table, other).is_some());
        assert_eq!(table.sole(100, 9), Some((1, OWN)));
    }
}

#[test]
fn each_type_is_told_of_which_a_binding_came_or_went() {
    let (p, learned) = (
        bound(range(100, 0, 9), OWN, 1),
        bound(range(200, 0, 9), PEER, 1),
    );
    let mut table = table(&[p, learned]);
    let changed = |table: &mut BindingTable| {
        let mut types: Vec<u32> = std::iter::from_fn(|| table.take_changed()).collect();
        types.sort_unstable();
        types
    };
    assert_eq!(changed(&mut table), [100, 200]);
    assert!(!table.has_changed());
    table.purge_node(PEER, |_| {});
    assert_eq!(changed(&mut table), [200]);
    assert!(remove(&mut table, p).is_some());
    assert!(table.publish(p).is_ok() && table.publish(p).is_err());
    assert_eq!(changed(&mut table), [100]);
}

#[test]
fn withdrawal_needs_exact_range_port_key_and_node_but_not_scope() {
    let p = node_scope(bound(range(100, 0, 9), OWN, 1));
    let mut table = table(&[p]);
    for wrong in [
        Publication {
            range: range(100, 0, 8),
            ..p
        },
        Publication {
            range: range(101, 0, 9),
            ..p
        },
        Publication { port: 2, ..p },
        Publication { key: 9, ..p },
        Publication { node: PEER, ..p },
    ] {
        assert_eq!(remove(&mut table, wrong), None);
    }
    assert_eq!(remove(&mut table, p).map(|c| c.publication), Some(p));
}

#[test]
fn withdrawal_with_node_0_takes_the_first_match_in_the_list_of_the_range() {
    let (own, peer) = (
        bound(range(100, 5, 5), OWN, 1),
        bound(range(100, 5, 5), PEER, 1),
    );
    let mut table = table(&[own, peer]);
    // The newest is at the head; a lookup moves it to the tail.
    table.anycast(100, 5, 0);
    let any_node = Publication { node: 0, ..own };
    assert_eq!(
        remove(&mut table, any_node).map(|c| c.publication),
        Some(own)
    );
    assert_eq!(
        remove(&mut table, any_node).map(|c| c.publication),
        Some(peer)
    );
    assert_eq!(remove(&mut table, any_node), None);
}

#[test]
fn an_empty_range_is_refused() {
    let mut table = table(&[]);
    let empty = bound(range(1000, 10, 5), PEER, 1);
    assert_eq!(table.publish(empty), Err(PublishError::EmptyRange(10, 5)));
    assert!(table.is_empty());
}

#[test]
fn an_empty_range_reaches_nobody() {
    let mut table = table(&[bound(range(100, 0, 9), OWN, 1)]);
    assert!(table.multicast_nodes(range(100, 5, 3)).is_empty());
    assert!(
        table
            .multicast_ports(range(100, 5, 3), ScopeFilter::Any)
            .is_empty()
    );
}

#[test]
fn anycast_takes_the_newest_binding_first_and_then_goes_round() {
    let ranges = [1, 2, 3].map(|port| bound(range(100, 5, 5), OWN, port));
    let mut table = table(&ranges);
    assert_eq!(chosen(&mut table, 5, 0, 6), [3, 2, 1, 3, 2, 1]);
    table.publish(bound(range(100, 5, 5), OWN, 4)).unwrap();
    assert_eq!(chosen(&mut table, 5, 0, 5), [4, 3, 2, 1, 4]);
}

#[test]
fn an_instance_is_found_the_same_beside_wider_ranges_and_after_they_are_gone() {
    let wide = bound(range(100, 0, 9), PEER, 3);
    let of_one = |instance, port| bound(range(100, instance, instance), PEER, port);
    let mut table = table(&[of_one(5, 1), of_one(7, 2)]);
    for _ in 0..2 {
        assert_eq!(chosen(&mut table, 5, 0, 2), [1, 1]);
        assert_eq!(chosen(&mut table, 7, 0, 1), [2]);
        assert_eq!(table.anycast(100, 6, 0), Lookup::None);
        assert_eq!(table.anycast(100, 5, OWN), Lookup::None);
        table.publish(wide).unwrap();
        assert_eq!(chosen(&mut table, 5, 0, 2), [3, 3]);
        assert_eq!(chosen(&mut table, 6, 0, 1), [3]);
        remove(&mut table, wide).unwrap();
    }
}

#[test]
fn anycast_uses_only_the_first_matching_range_in_table_order() {
    let wide = bound(range(100, 0, 9), OWN, 1);
    let narrow = bound(range(100, 5, 5), OWN, 2);
    let mut table = table(&[narrow, wide]);
    assert_eq!(chosen(&mut table, 5, 0, 3), [1, 1, 1]);
    remove(&mut table, wide).unwrap();
    assert_eq!(chosen(&mut table, 5, 0, 2), [2, 2]);
}

#[test]
fn among_ranges_with_equal_lower_the_one_created_last_is_used() {
    let (long, short) = (
        bound(range(100, 0, 9), OWN, 1),
        bound(range(100, 0, 7), OWN, 2),
    );
    let mut table = table(&[long, short]);
    assert_eq!(chosen(&mut table, 5, 0, 2), [2, 2]);
    // A further binding does not make the range newer, a new range object does.
    table.publish(bound(range(100, 0, 9), OWN, 3)).unwrap();
    assert_eq!(chosen(&mut table, 5, 0, 1), [2]);
    remove(&mut table, short).unwrap();
    table.publish(bound(range(100, 0, 6), OWN, 4)).unwrap();
    assert_eq!(chosen(&mut table, 5, 0, 1), [4]);
    assert_eq!(chosen(&mut table, 8, 0, 2), [3, 1]);
}

#[test]
fn with_the_own_node_as_domain_only_local_bindings_of_any_matching_range_are_used() {
    let mut table = table(&[
        bound(range(100, 0, 9), PEER, 1),
        bound(range(100, 5, 5), OWN, 2),
        node_scope(bound(range(100, 5, 5), OWN, 3)),
    ]);
    assert_eq!(chosen(&mut table, 5, OWN, 3), [3, 2, 3]);
    assert_eq!(table.anycast(100, 4, OWN), Lookup::None);
    assert_eq!(
        table.anycast(100, 4, 0),
        Lookup::Found {
            port: 1,
            node: PEER
        }
    );
}

#[test]
fn local_and_cluster_lookups_rotate_independently() {
    let binds = [1, 2, 3].map(|port| bound(range(100, 5, 5), OWN, port));
    let mut table = table(&binds);
    assert_eq!(chosen(&mut table, 5, OWN, 2), [3, 2]);
    assert_eq!(chosen(&mut table, 5, 0, 2), [3, 2]);
    assert_eq!(chosen(&mut table, 5, OWN, 2), [1, 3]);
}

#[test]
fn local_sockets_have_no_preference_in_a_cluster_lookup() {
    let mut table = table(&[
        bound(range(100, 5, 5), OWN, 1),
        bound(range(100, 5, 5), PEER, 2),
    ]);
    assert_eq!(chosen(&mut table, 5, 0, 4), [2, 1, 2, 1]);
}

#[test]
fn another_node_as_domain_delegates_without_a_look_at_the_table() {
    let mut table = table(&[]);
    assert_eq!(table.anycast(100, 5, PEER), Lookup::Delegate { node: PEER });
}

#[test]
fn without_service_or_matching_range_the_lookup_fails() {
    let mut table = table(&[bound(range(100, 5, 6), OWN, 1)]);
    for instance in [4, 7] {
        assert_eq!(table.anycast(100, instance, 0), Lookup::None);
    }
    assert_eq!(table.anycast(101, 5, 0), Lookup::None);
}

#[test]
fn a_standalone_node_uses_its_local_lists_and_keeps_its_bindings_when_it_gets_a_number() {
    let mut table = BindingTable::new(0, SEED);
    let p = bound(range(100, 5, 5), 0, 1);
    table.publish(p).unwrap();
    assert_eq!(table.anycast(100, 5, 0), Lookup::Found { port: 1, node: 0 });
    table.set_own_node(OWN);
    let moved = Publication { node: OWN, ..p };
    assert_eq!(table.iter().collect::<Vec<_>>(), [moved]);
    assert_eq!(
        table.anycast(100, 5, 0),
        Lookup::Found { port: 1, node: OWN }
    );
    assert_eq!(
        table.anycast(100, 5, OWN),
        Lookup::Found { port: 1, node: OWN }
    );
    assert_eq!(table.publish(moved), Err(PublishError::Duplicate));
    assert_eq!(table.publish(p), Err(PublishError::NoNode));
    assert!(remove(&mut table, moved).is_some());
}

#[test]
#[should_panic(expected = "known peer")]
fn the_own_address_cannot_become_that_of_a_known_peer() {
    table(&[bound(range(100, 5, 5), PEER, 1)]).set_own_node(PEER);
}

#[test]
fn multicast_finds_each_node_once_whatever_the_scope() {
    let mut table = table(&[
        bound(range(100, 0, 4), PEER, 1),
        bound(range(100, 3, 9), PEER, 1),
        bound(range(100, 9, 9), OTHER_PEER, 1),
        node_scope(bound(range(100, 2, 2), OWN, 1)),
        bound(range(101, 2, 2), 0x0100_1004, 1),
    ]);
    assert_eq!(table.multicast_nodes(range(100, 1, 8)), [PEER, OWN]);
    assert_eq!(table.multicast_nodes(range(100, 9, 20)), [PEER, OTHER_PEER]);
    assert!(table.multicast_nodes(range(100, 10, 20)).is_empty());
}

#[test]
fn multicast_gives_each_local_port_one_copy_however_many_of_its_bindings_match() {
    let mut table = table(&[
        bound(range(100, 0, 4), OWN, 7),
        bound(range(100, 3, 9), OWN, 7),
        bound(range(100, 3, 9), OWN, 3),
        bound(range(100, 3, 9), PEER, 9),
    ]);
    assert_eq!(
        table.multicast_ports(range(100, 0, 100), ScopeFilter::Any),
        [3, 7]
    );
    assert_eq!(
        table.multicast_ports(range(100, 0, 2), ScopeFilter::Any),
        [7]
    );
}

#[test]
fn multicast_from_another_node_does_not_reach_node_scope_bindings() {
    let mut table = table(&[
        bound(range(100, 0, 4), OWN, 1),
        node_scope(bound(range(100, 0, 4), OWN, 2)),
    ]);
    let all = range(100, 0, u32::MAX);
    assert_eq!(table.multicast_ports(all, ScopeFilter::Any), [1, 2]);
    assert_eq!(
        table.multicast_ports(all, ScopeFilter::Only(Scope::Cluster)),
        [1]
    );
    assert_eq!(
        table.multicast_ports(all, ScopeFilter::Only(Scope::Node)),
        [2]
    );
}

#[test]
fn the_own_limit_does_not_count_the_types_of_the_system() {
    let limits = Limits {
        own: 2,
        ..Limits::default()
    };
    let mut table = BindingTable::with_limits(OWN, SEED, limits);
    table.publish(Publication::node_state(OWN)).unwrap();
    table.publish(bound(range(100, 0, 0), OWN, 1)).unwrap();
    table.publish(bound(range(100, 0, 0), OWN, 2)).unwrap();
    let third = bound(range(100, 0, 0), OWN, 3);
    assert_eq!(table.publish(third), Err(PublishError::OwnLimit(2)));
    table
        .publish(Publication::link_state(OWN, PEER, 0, 1))
        .unwrap();
    table.withdraw(range(100, 0, 0), 1, OWN, 2).unwrap();
    table.publish(third).unwrap();
}

#[test]
fn a_flooding_peer_is_cut_off_at_its_limit_and_all_together_at_the_total_one() {
    let limits = Limits {
        per_peer: 2,
        learned: 3,
        own: 10,
    };
    let mut table = BindingTable::with_limits(OWN, SEED, limits);
    let learn = |table: &mut BindingTable, peer, port| {
        table
            .publish(bound(range(100, port, port), peer, port))
            .map(|_| ())
    };
    assert_eq!(learn(&mut table, PEER, 1), Ok(()));
    assert_eq!(learn(&mut table, PEER, 2), Ok(()));
    assert_eq!(
        learn(&mut table, PEER, 3),
        Err(PublishError::PeerLimit(PEER, 2))
    );
    assert_eq!(learn(&mut table, OTHER_PEER, 1), Ok(()));
    assert_eq!(
        learn(&mut table, OTHER_PEER, 2),
        Err(PublishError::LearnedLimit(3))
    );
    table.publish(bound(range(100, 0, 0), OWN, 1)).unwrap();
    table.purge_node(PEER, |_| ());
    assert_eq!(
        (table.learned_from(PEER), table.learned_from(OTHER_PEER)),
        (0, 1)
    );
    assert_eq!(learn(&mut table, OTHER_PEER, 2), Ok(()));
}

#[test]
fn the_default_limits_are_those_of_linux() {
    assert_eq!(
        Limits::default(),
        Limits {
            own: 65_534,
            per_peer: 65_535,
            learned: 1 << 20
        }
    );
}

#[test]
fn a_peer_may_publish_its_own_node_state_and_no_other_type_of_the_system() {
    let mut table = table(&[Publication::node_state(PEER)]);
    for (type_, lower, upper) in [
        (0, OWN, OWN),
        (0, PEER, PEER + 1),
        (0, 0, u32::MAX),
        (1, 1, 1),
        (2, PEER, PEER),
    ] {
        let refused = bound(range(type_, lower, upper), PEER, 1);
        assert_eq!(
            table.publish(refused),
            Err(PublishError::ReservedType(PEER, type_))
        );
    }
    table.publish(bound(range(3, 0, 0), PEER, 1)).unwrap();
}

#[test]
fn node_scope_bindings_are_never_learned() {
    let refused = node_scope(bound(range(100, 0, 0), PEER, 1));
    assert_eq!(
        table(&[]).publish(refused),
        Err(PublishError::ForeignNodeScope(PEER))
    );
}

#[test]
fn range_edge_marks_the_first_and_the_last_publication_of_an_exact_range() {
    let mut table = BindingTable::new(OWN, SEED);
    let [a, b, c] = [(0, 9, 1), (0, 9, 2), (0, 8, 3)]
        .map(|(lower, upper, port)| bound(range(100, lower, upper), OWN, port));
    let edges = [a, b, c].map(|p| table.publish(p).unwrap().range_edge);
    assert_eq!(edges, [true, false, true]);
    let edges = [a, c, b].map(|p| remove(&mut table, p).unwrap().range_edge);
    assert_eq!(edges, [false, true, true]);
}

#[test]
fn losing_a_node_withdraws_what_was_learned_from_it_in_the_order_learned() {
    let learned = [
        bound(range(200, 1, 1), PEER, 5),
        Publication::node_state(PEER),
        bound(range(100, 0, 9), PEER, 2),
        bound(range(100, 0, 9), PEER, 1),
    ];
    let mut table = table(&learned);
    let kept = [
        bound(range(100, 0, 9), OWN, 2),
        bound(range(200, 1, 1), OTHER_PEER, 5),
    ];
    for p in kept {
        table.publish(p).unwrap();
    }
    table.anycast(100, 5, 0);
    let mut withdrawn = Vec::new();
    table.purge_node(PEER, |change| {
        withdrawn.push((change.publication, change.range_edge))
    });
    assert_eq!(
        withdrawn,
        learned.map(|p| (p, p == Publication::node_state(PEER)))
    );
    assert_eq!(table.iter().collect::<Vec<_>>(), kept);
    table.purge_node(OWN, |change| {
        panic!("own bindings are never purged: {change:?}")
    });
    table.purge_node(PEER, |change| panic!("nothing was left: {change:?}"));
}

#[test]
fn the_bulk_holds_own_cluster_bindings_in_creation_order() {
    let own = [
        Publication::node_state(OWN),
        bound(range(200, 1, 1), OWN, 3),
    ];
    let last = bound(range(100, 1, 1), OWN, 2);
    let mut table = table(&[own[0], own[1], node_scope(bound(range(150, 1, 1), OWN, 4))]);
    table.publish(bound(range(100, 1, 1), PEER, 2)).unwrap();
    table.publish(last).unwrap();
    table.anycast(100, 1, 0);
    assert_eq!(
        table.own_cluster_publications().collect::<Vec<_>>(),
        [own[0], own[1], last]
    );
    remove(&mut table, own[1]).unwrap();
    assert_eq!(
        table.own_cluster_publications().collect::<Vec<_>>(),
        [own[0], last]
    );
}

#[test]
fn a_subscription_can_sort_what_overlaps_by_creation() {
    let publications = [(5, 9, 1), (0, 9, 2), (5, 9, 3), (20, 30, 4)]
        .map(|(lower, upper, port)| bound(range(100, lower, upper), OWN, port));
    let table = table(&publications);
    let mut found: Vec<_> = table.overlapping(range(100, 4, 15)).collect();
    assert_eq!(
        found.iter().map(|(p, _)| p.port).collect::<Vec<_>>(),
        [2, 3, 1]
    );
    found.sort_by_key(|&(_, id)| id);
    assert_eq!(
        found.iter().map(|(p, _)| p.port).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(table.overlapping(range(99, 0, 100)).count(), 0);
}

#[test]
fn the_dump_has_services_by_the_low_ten_bits_of_their_type_newest_first() {
    let types = [1024 + 70, 70, 69, 2048 + 70];
    let table = table(&types.map(|type_| bound(ServiceRange::instance(type_, 1), OWN, 1)));
    let shown: Vec<u32> = table.iter().map(|p| p.range.type_).collect();
    assert_eq!(shown, [69, 2048 + 70, 70, 1024 + 70]);
}
