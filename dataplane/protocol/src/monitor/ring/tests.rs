//! Rings of nodes with the addresses 1, 2, 3 …, seen from one of them.

use super::super::{Pace, Supervision, TELLING};
use super::*;
use std::time::Duration;

const TOLERANCE: Duration = Duration::from_millis(1500);
const NOW: Instant = Instant(7_000_000_000);

/// The members of a node's domain, of `nodes` nodes.
fn domain(node: u32, nodes: u32) -> Vec<[u8; 4]> {
    let size = domain_size(nodes as usize) as u32;
    let member = |i| (node + i) % nodes + 1;
    (0..size - 1).map(|i| member(i).to_be_bytes()).collect()
}

fn record(generation: u16, up_map: u64, members: &[[u8; 4]]) -> DomainRecord<'_> {
    DomainRecord {
        generation,
        ack_generation: 0,
        up_map,
        members,
    }
}

/// Node 1 of `nodes`, which have told each other everything.
fn settled(nodes: u32) -> Monitor {
    let mut monitor = Monitor::default();
    (2..=nodes).for_each(|peer| monitor.peer_up(NodeAddr(1), NodeAddr(peer)));
    for peer in 2..=nodes {
        monitor.on_record(NodeAddr(peer), &record(5, u64::MAX, &domain(peer, nodes)));
    }
    monitor
}

fn roles(monitor: &Monitor) -> String {
    let letter = |node: MonitoredNode| match node.role {
        Role::Own => 'o',
        Role::Local => 'L',
        Role::Head => 'H',
        Role::Indirect => '.',
    };
    monitor.list().map(letter).collect()
}

fn suspects(monitor: &mut Monitor) -> Vec<(u32, bool)> {
    std::iter::from_fn(|| monitor.pop_suspect())
        .map(|(addr, believed)| (addr.0, believed))
        .collect()
}

#[test]
fn a_node_lists_itself_with_what_it_tells_others() {
    let mut monitor = settled(5);
    monitor.peer_down(NOW, NodeAddr(3));
    let own = monitor.list().next().unwrap();
    assert_eq!(own.role, Role::Own);
    assert_eq!(own.generation, monitor.generation);
    let domain = vec![(NodeAddr(2), true), (NodeAddr(3), false)];
    assert_eq!(own.record, Some((domain, 2)));
}

#[test]
fn domains_have_the_size_of_the_square_root() {
    let table = [
        (2, 2),
        (4, 2),
        (5, 3),
        (9, 3),
        (10, 4),
        (17, 5),
        (100, 10),
        (1000, 32),
        (5000, 64),
    ];
    for (nodes, size) in table {
        assert_eq!(domain_size(nodes), size, "{nodes} nodes");
    }
}

#[test]
fn sixteen_nodes_have_three_locals_and_three_heads() {
    let monitor = settled(16);
    assert_eq!(roles(&monitor), "oLLLH...H...H...");
    assert_eq!(monitor.nodes(), 16);
}

#[test]
fn before_records_have_come_every_node_is_watched() {
    let mut monitor = Monitor::default();
    (2..=16).for_each(|peer| monitor.peer_up(NodeAddr(1), NodeAddr(peer)));
    assert_eq!(roles(&monitor), "oLLLHHHHHHHHHHHH");
}

#[test]
fn the_record_is_told_until_it_is_acknowledged() {
    let mut monitor = settled(16);
    monitor.set_threshold(16);
    let mut out = [0; 272];
    assert_eq!(
        monitor.emit(NodeAddr(5), &mut out),
        0,
        "below the threshold"
    );
    monitor.set_threshold(8);
    assert!(monitor.is_untold(NodeAddr(5)));
    let len = monitor.emit(NodeAddr(5), &mut out);
    let told = DomainRecord::parse(&out[..len]).unwrap();
    assert_eq!(
        (told.members, told.up_map, told.ack_generation),
        (&domain(1, 16)[..], 7, 5)
    );
    let mut answer = record(5, 0, &[]);
    answer.ack_generation = told.generation;
    monitor.on_record(NodeAddr(5), &answer);
    assert!(!monitor.is_untold(NodeAddr(5)) && monitor.is_untold(NodeAddr(6)));
    assert_eq!(monitor.emit(NodeAddr(5), &mut out), 16, "without members");
    assert!(
        monitor.peer_down(NOW, NodeAddr(3)),
        "its own domain: others are to be told"
    );
    assert!(monitor.is_untold(NodeAddr(5)) && !monitor.peer_down(NOW, NodeAddr(9)));
}

#[test]
fn reports_are_counted_until_the_node_is_heard() {
    let mut monitor = settled(25);
    // 12 to 15 are the four that watch 16.
    for (n, reporter) in (12..16).enumerate() {
        let members = domain(reporter, 25);
        let bit = 15 - reporter;
        let lost = record(6, !(1 << bit), &members);
        monitor.on_record(NodeAddr(reporter), &lost);
        assert_eq!(suspects(&mut monitor), [(16, n == 3)]);
        assert!(
            monitor
                .index_of(NodeAddr(16))
                .is_some_and(|i| monitor.entries[i].is_suspected())
        );
    }
    monitor.on_record(NodeAddr(16), &record(5, 0, &[]));
    assert!(
        monitor
            .index_of(NodeAddr(16))
            .is_some_and(|i| !monitor.entries[i].is_suspected())
    );
}

#[test]
fn when_a_head_is_lost_those_it_spoke_for_are_looked_at() {
    let mut monitor = settled(16);
    monitor.peer_down(NOW, NodeAddr(9));
    let mut looked_at = suspects(&mut monitor);
    looked_at.sort_unstable();
    assert_eq!(looked_at, [(10, false), (11, false), (12, false)]);
    // The next ones become heads in its place.
    assert_eq!(roles(&monitor), "oLLLH....H...H..");
}

#[test]
fn a_node_that_goes_and_comes_leaves_the_ring_as_it_was() {
    let mut monitor = settled(16);
    let before = roles(&monitor);
    for node in [2, 7, 13, 16] {
        monitor.peer_down(NOW, NodeAddr(node));
        monitor.peer_up(NodeAddr(1), NodeAddr(node));
        monitor.on_record(NodeAddr(node), &record(9, u64::MAX, &domain(node, 16)));
        monitor.on_record(NodeAddr(node), &record(10, u64::MAX, &domain(node, 16)));
        assert_eq!(roles(&monitor), before, "node {node}");
    }
    monitor.remove(NodeAddr(16));
    assert_eq!(monitor.nodes(), 15);
}

#[test]
fn all_links_are_watched_closely_up_to_the_budget_and_those_of_the_ring_if_told_so() {
    let close = settled(40).pace(NOW, NodeAddr(30), TOLERANCE);
    assert_eq!(close.interval, Some(TOLERANCE / 16));
    let large = settled(1000);
    assert_eq!(
        large.pace(NOW, NodeAddr(30), TOLERANCE),
        close,
        "in its own domain"
    );
    let far = large.pace(NOW, NodeAddr(500), TOLERANCE);
    let per_second = |pace: Pace| 1.0 / pace.interval.unwrap().as_secs_f64();
    let sent = 62.0 * per_second(close) + 937.0 * per_second(far);
    assert!((1400.0..1600.0).contains(&sent), "{sent} packets a second");
    let mut ring = settled(1000);
    ring.set_supervision(Supervision::Ring);
    assert!(ring.is_ring());
    assert_eq!(
        ring.pace(NOW, NodeAddr(50), TOLERANCE),
        Pace::default(),
        "others watch it"
    );
    let watched = ring.pace(NOW, NodeAddr(33), TOLERANCE);
    assert!(124.0 * per_second(watched) < 170.0);
    assert!(watched.limit <= TOLERANCE + Duration::from_millis(300));
}

#[test]
fn a_loss_that_is_watched_closely_is_told_within_the_tolerance_and_stalls_of_nine_tenths_are_none()
{
    let monitor = settled(2);
    for tolerance_ms in [50, 100, 500, 1500, 10_000, 30_000] {
        let tolerance = Duration::from_millis(tolerance_ms);
        let pace = monitor.pace(NOW, NodeAddr(2), tolerance);
        let interval = pace.interval.unwrap();
        assert!(
            pace.limit > tolerance * 9 / 10 + interval * 9 / 8,
            "{tolerance_ms}"
        );
        let late = if tolerance_ms < 1000 { 50 } else { 0 };
        assert!(
            pace.limit <= tolerance + Duration::from_millis(late) - TELLING / 2,
            "{tolerance_ms}"
        );
        assert!(pace.limit + interval < tolerance * 2 + Duration::from_millis(10));
    }
}

#[test]
fn a_node_that_loses_most_of_its_domain_at_once_waits_for_no_reports() {
    let mut monitor = settled(1000);
    let far = monitor.pace(NOW, NodeAddr(500), TOLERANCE);
    let close = monitor.pace(NOW, NodeAddr(30), TOLERANCE);
    for node in 2..=16 {
        monitor.peer_down(NOW, NodeAddr(node));
    }
    assert_eq!(monitor.pace(NOW, NodeAddr(500), TOLERANCE).limit, far.limit);
    monitor.peer_down(NOW, NodeAddr(17));
    let sure = monitor.pace(NOW, NodeAddr(500), TOLERANCE);
    assert_eq!((sure.limit, sure.founded), (close.limit, true));
    let later = NOW + ONE_CAUSE * 4;
    assert_eq!(
        monitor.pace(later, NodeAddr(500), TOLERANCE).limit,
        far.limit
    );
}

#[test]
fn in_a_large_mesh_those_that_watched_a_lost_node_share_the_others_among_them() {
    const NODES: u32 = 400;
    let lost = NodeAddr(20);
    let seen_by = |own: u32| {
        let mut monitor = Monitor::default();
        let peers = (1..=NODES).filter(|peer| *peer != own);
        peers.for_each(|peer| monitor.peer_up(NodeAddr(own), NodeAddr(peer)));
        monitor
    };
    let watchers: Vec<Monitor> = (1..20).map(seen_by).collect();
    let others: Vec<NodeAddr> = (21..=NODES).map(NodeAddr).collect();
    for other in &others {
        let tell = |monitor: &&Monitor| monitor.tells_at_once(lost, *other);
        let tellers = watchers.iter().filter(tell).count();
        assert!((6..=7).contains(&tellers), "{other} is told by {tellers}");
    }
    for monitor in &watchers {
        let told = others.iter().filter(|o| monitor.tells_at_once(lost, **o));
        let told = told.count();
        assert!(told < others.len() / 2, "{} tells {told}", monitor.own);
    }
    // Of many losses all are told.
    let mut one = seen_by(10);
    let told = |monitor: &Monitor| {
        let tells = |other: &&NodeAddr| monitor.tells_at_once(lost, **other);
        others.iter().filter(tells).count()
    };
    let mut counts = Vec::new();
    for node in 11..=20 {
        one.peer_down(NOW, NodeAddr(node));
        counts.push(told(&one));
    }
    let (few, all) = (told(&seen_by(10)), others.len());
    assert_eq!(counts[..4], [few; 4]);
    assert_eq!(counts[4..], [all; 6]);
    let mut ring = seen_by(1);
    ring.set_supervision(Supervision::Ring);
    assert!(others.iter().all(|other| ring.tells_at_once(lost, *other)));
    let small = settled(100);
    assert!((12..100).all(|other| small.tells_at_once(NodeAddr(5), NodeAddr(other))));
}
