//! Rings of nodes with the addresses 1, 2, 3 …, seen from one of them.

use super::super::pace::TELLING;
use super::super::{Pace, REPORTS, Supervision};
use super::*;

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

/// Node `own` of `nodes`, which have told each other everything.
fn settled_at(own: u32, nodes: u32) -> Monitor {
    let mut monitor = Monitor::default();
    let peers = (1..=nodes).filter(|peer| *peer != own);
    peers
        .clone()
        .for_each(|peer| monitor.peer_up(NodeAddr(own), NodeAddr(peer)));
    for peer in peers {
        told(
            &mut monitor,
            peer,
            &record(5, u64::MAX, &domain(peer, nodes)),
        );
    }
    monitor
}

fn settled(nodes: u32) -> Monitor {
    settled_at(1, nodes)
}

/// The same in a ring.
fn ring(nodes: u32) -> Monitor {
    let mut monitor = settled(nodes);
    monitor.set_supervision(Supervision::Ring);
    monitor.set_threshold(8);
    monitor
}

/// A record came from a node, later than all that is told of losses below.
fn told(monitor: &mut Monitor, peer: u32, record: &DomainRecord<'_>) {
    monitor.on_record(NOW + Duration::from_secs(1), NodeAddr(peer), record, false);
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

/// Those of a ring that this node watches.
fn watched(monitor: &Monitor) -> Vec<u32> {
    let all = monitor.entries.iter().map(|entry| entry.addr);
    let asked = |addr: &NodeAddr| monitor.pace(NOW, *addr, TOLERANCE).interval.is_some();
    all.filter(|addr| addr.0 != 1 && asked(addr))
        .map(|addr| addr.0)
        .collect()
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
    let own = DomainRecord::parse(&out[..len]).unwrap();
    assert_eq!(
        (own.members, own.up_map, own.ack_generation),
        (&domain(1, 16)[..], 7, 5)
    );
    let mut answer = record(5, 0, &[]);
    answer.ack_generation = own.generation;
    told(&mut monitor, 5, &answer);
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
        told(&mut monitor, reporter, &lost);
        assert_eq!(suspects(&mut monitor), [(16, n == 3)]);
        assert!(
            monitor
                .index_of(NodeAddr(16))
                .is_some_and(|i| monitor.entries[i].is_suspected())
        );
    }
    told(&mut monitor, 16, &record(5, 0, &[]));
    assert!(
        monitor
            .index_of(NodeAddr(16))
            .is_some_and(|i| !monitor.entries[i].is_suspected())
    );
}

#[test]
fn when_a_head_is_lost_those_it_spoke_for_are_looked_at() {
    let mut monitor = ring(16);
    monitor.peer_down(NOW, NodeAddr(9));
    let mut looked_at = suspects(&mut monitor);
    looked_at.sort_unstable();
    assert_eq!(looked_at, [(10, false), (11, false), (12, false)]);
    assert_eq!(watched(&monitor), [2, 3, 4, 5, 10, 11, 12, 13]);
    // The first that is heard becomes head in its place, and the others after it.
    told(&mut monitor, 10, &record(5, 0, &[]));
    assert_eq!(roles(&monitor), "oLLLH....H...H..");
    assert_eq!(watched(&monitor), [2, 3, 4, 5, 10, 11, 12, 14]);
}

#[test]
fn who_is_not_heard_speaks_for_nobody_and_who_may_be_lost_is_not_relieved() {
    let mut monitor = ring(36);
    assert_eq!(roles(&monitor), "oLLLLLH.....H.....H.....H.....H.....");
    let later = NOW + Duration::from_secs(5);
    // Of 7 to 18, lost together, 7 is noticed first. 13 would belong to 8, could that be believed.
    monitor.peer_down(later, NodeAddr(7));
    assert_eq!(roles(&monitor), "oLLLLL......H.....H.....H.....H.....");
    monitor.peer_down(later, NodeAddr(13));
    let mut looked_at = suspects(&mut monitor);
    looked_at.sort_unstable();
    let members = (8..19).filter(|node| *node != 13);
    assert!(looked_at.iter().map(|(node, _)| *node).eq(members));
    // 19 lives, but that is not known yet: who comes before it does not take its place.
    let heard = later + Duration::from_millis(1);
    monitor.on_record(heard, NodeAddr(18), &record(5, 0, &[]), false);
    assert_eq!(roles(&monitor), "oLLLLL...........HH.....H.....H.....");
    monitor.on_record(heard, NodeAddr(19), &record(5, 0, &[]), false);
    assert_eq!(roles(&monitor), "oLLLLL...........H.....HH.....H.....");
}

#[test]
fn a_member_that_its_head_has_no_link_to_is_watched() {
    let mut monitor = ring(16);
    told(&mut monitor, 9, &record(6, 0b101, &domain(9, 16)));
    assert_eq!(suspects(&mut monitor), [(11, false)]);
    told(&mut monitor, 11, &record(5, 0, &[]));
    assert_eq!(watched(&monitor), [2, 3, 4, 5, 9, 11, 13]);
    assert_eq!(roles(&monitor), "oLLLH...H...H...");
    told(&mut monitor, 9, &record(7, 0b111, &domain(9, 16)));
    assert_eq!(watched(&monitor), [2, 3, 4, 5, 9, 13]);
}

#[test]
fn behind_nodes_that_were_all_lost_is_one_that_nobody_else_watches() {
    let mut monitor = settled(40);
    let lose = |monitor: &mut Monitor, node| {
        monitor.peer_down(NOW, NodeAddr(node));
        suspects(monitor)
    };
    for node in [15, 16, 20, 19, 17] {
        assert_eq!(lose(&mut monitor, node), []);
    }
    assert_eq!(lose(&mut monitor, 18), [(21, false)], "the sixth");
    assert_eq!(lose(&mut monitor, 21), [(22, false)]);
    assert_eq!(lose(&mut monitor, 14), [], "22 is known to be in doubt");
    // This node watches those that follow it.
    for node in 36..=40 {
        assert_eq!(lose(&mut monitor, node), []);
    }
    assert_eq!(lose(&mut monitor, 35), []);
}

#[test]
fn a_node_that_goes_and_comes_leaves_the_ring_as_it_was() {
    let mut monitor = settled(16);
    let before = roles(&monitor);
    for node in [2, 7, 13, 16] {
        monitor.peer_down(NOW, NodeAddr(node));
        monitor.peer_up(NodeAddr(1), NodeAddr(node));
        told(&mut monitor, node, &record(9, u64::MAX, &domain(node, 16)));
        told(&mut monitor, node, &record(10, u64::MAX, &domain(node, 16)));
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
    let near = large.pace(NOW, NodeAddr(30), TOLERANCE);
    assert_eq!(near.limit, close.limit, "in its own domain");
    let far = large.pace(NOW, NodeAddr(500), TOLERANCE);
    let per_second = |pace: Pace| 1.0 / pace.interval.unwrap().as_secs_f64();
    let sent = 62.0 * per_second(near) + 937.0 * per_second(far);
    assert!((1350.0..1400.0).contains(&sent), "{sent} packets a second");
    // Of a living node something is heard long before it counts as lost if one report says so, even if a probe is lost.
    assert!(far.interval.unwrap() * 9 / 8 < close.limit);
    let ring = ring(1000);
    assert!(ring.is_ring());
    assert_eq!(
        ring.pace(NOW, NodeAddr(50), TOLERANCE),
        Pace::default(),
        "others watch it"
    );
    let watched = ring.pace(NOW, NodeAddr(33), TOLERANCE);
    assert!(124.0 * per_second(watched) < 155.0);
    assert!(watched.limit <= TOLERANCE + Duration::from_millis(300));
    assert!(watched.interval.unwrap() * 2 < watched.limit, "asked twice");
}

#[test]
fn many_suspects_at_once_are_asked_less_often() {
    let mut monitor = ring(1000);
    let close = settled(40).pace(NOW, NodeAddr(2), TOLERANCE);
    let table = [
        (1, close.interval.unwrap()),
        (20, Duration::from_millis(200)),
        (100, TOLERANCE / 3),
    ];
    for (lost, interval) in table {
        for node in 981 - lost..=980 {
            let index = monitor.index_of(NodeAddr(node)).unwrap();
            monitor.suspect(index, 1);
        }
        let pace = monitor.pace(NOW, NodeAddr(980), TOLERANCE);
        assert_eq!((pace.interval, pace.limit), (Some(interval), close.limit));
    }
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
    let later = NOW + Duration::from_secs(4);
    assert_eq!(
        monitor.pace(later, NodeAddr(500), TOLERANCE).limit,
        far.limit
    );
}

#[test]
fn a_node_of_a_ring_is_cut_off_if_it_loses_most_of_those_that_speak_for_others_too() {
    let mut monitor = ring(100);
    for node in 2..=10 {
        monitor.peer_down(NOW, NodeAddr(node));
    }
    assert!(!monitor.is_cut_off(NOW), "only its neighbours are lost");
    // 11, behind them, is in doubt already.
    for node in [11, 21, 31, 41, 51] {
        monitor.peer_down(NOW, NodeAddr(node));
    }
    assert!(!monitor.is_cut_off(NOW));
    monitor.peer_down(NOW, NodeAddr(61));
    assert!(monitor.is_cut_off(NOW));
    assert!(watched(&monitor).len() > 80);
}

/// How many of those that watch a node of 400, up to 20 of which are `lost`, tell each of those that are not.
fn tellers(supervision: Supervision, lost: &[u32]) -> Vec<usize> {
    const NODES: u32 = 400;
    let is_alive = |node: &u32| !lost.contains(node);
    let watchers: Vec<Monitor> = (1..20)
        .filter(is_alive)
        .map(|own| {
            let mut monitor = settled_at(own, NODES);
            monitor.set_supervision(supervision);
            let members = lost.iter().filter(|node| **node > own);
            members.for_each(|node| {
                monitor.peer_down(NOW, NodeAddr(*node));
            });
            monitor
        })
        .collect();
    let tell = |other: u32| {
        let tells = |monitor: &&Monitor| monitor.tells_at_once(NOW, NodeAddr(other));
        watchers.iter().filter(tells).count()
    };
    (21..=NODES).map(tell).collect()
}

#[test]
fn in_a_large_mesh_those_that_watched_a_lost_node_share_the_others_among_them() {
    for told_by in tellers(Supervision::Mesh, &[20]) {
        assert!((2..=4).contains(&told_by), "{told_by}");
    }
    // Who lives speaks for those behind it that do not.
    for told_by in tellers(Supervision::Mesh, &[3, 8, 9, 10, 11, 12, 13, 19, 20]) {
        assert!((2..=4).contains(&told_by), "{told_by}");
    }
    let all_but_one: Vec<u32> = (2..=20).collect();
    let told = tellers(Supervision::Mesh, &all_but_one);
    assert!(told.iter().all(|told_by| *told_by == 1));
}

#[test]
fn in_a_large_ring_enough_of_those_that_watched_a_lost_node_tell_each_of_the_others() {
    for told_by in tellers(Supervision::Ring, &[20]) {
        assert!((REPORTS.into()..=8).contains(&told_by), "{told_by}");
    }
    // Where few are left, those that go by what one says are told by it.
    let mut one = settled_at(1, 400);
    one.set_supervision(Supervision::Ring);
    let all = || (21..=400).map(NodeAddr);
    let mut others = all().filter(|peer| !one.tells_at_once(NOW, *peer));
    let other = others.next().unwrap();
    one.on_record(NOW, other, &record(6, 0, &[]), true);
    (16..=20).for_each(|node| {
        one.peer_down(NOW, NodeAddr(node));
    });
    assert!(one.tells_at_once(NOW, other));
    assert!(!one.tells_at_once(NOW + Duration::from_secs(5), other));
    assert!(!all().all(|peer| one.tells_at_once(NOW, peer)));
}

#[test]
fn those_that_nothing_else_is_said_to_are_told_one_after_the_other() {
    let mut monitor = ring(400);
    monitor.peer_down(NOW, NodeAddr(2));
    let mut told = 0;
    for ms in 0..1000 {
        let now = NOW + Duration::from_millis(ms);
        for peer in (21..=400).map(NodeAddr) {
            let is_told = monitor.may_tell(now, peer);
            told += usize::from(is_told && !monitor.tells_at_once(now, peer));
        }
    }
    assert_eq!(told, 20);
}
