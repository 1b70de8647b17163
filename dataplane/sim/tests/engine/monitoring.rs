//! Supervision of a cluster that is large enough for domain records: what it costs, and how soon losses are seen.

use std::collections::BTreeMap;
use std::time::Duration;
use xtipc_protocol::addr::BearerId;
use xtipc_protocol::host::{DownReason, Notice};
use xtipc_protocol::monitor::{Role, Supervision};
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{LinkProtocol, Msg, User};
use xtipc_sim::cluster::{Cluster, Recipe};

const TOLERANCE: Duration = Duration::from_millis(1500);

fn settled(seed: u64, nodes: usize, supervision: Supervision) -> Cluster {
    let mut c = Cluster::new(seed);
    c.recipe = Recipe {
        // The first two packets of each link wait for their acknowledgements.
        frames: 512 + 4 * nodes,
        ..Recipe::default()
    };
    for station in 0..nodes {
        c.start(station);
        c.with(station, |node| node.engine.set_supervision(supervision));
    }
    c.until("all links are up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(3));
    for station in 0..nodes {
        c.notices(station);
    }
    c
}

/// Packets that each node sends in a second, of those that `counts`.
fn rate(c: &mut Cluster, counts: impl Fn(&[u8]) -> bool) -> BTreeMap<usize, usize> {
    c.segment.record = true;
    c.segment.seen.clear();
    c.run_for(Duration::from_secs(3));
    let mut rates = BTreeMap::new();
    for seen in c.segment.seen.iter().filter(|seen| counts(&seen.bytes)) {
        *rates.entry(seen.from).or_default() += 1;
    }
    c.segment.record = false;
    rates.values_mut().for_each(|count: &mut usize| *count /= 3);
    rates
}

fn is_state(bytes: &[u8]) -> bool {
    Msg::check(bytes).is_ok_and(|msg| msg.user() == User::LinkProtocol)
}

/// When each of the others lost its link to a node, after that node died.
fn losses(c: &mut Cluster, died: Instant) -> Vec<(Duration, DownReason)> {
    let mut losses = Vec::new();
    let end = c.now + Duration::from_millis(3500);
    while c.step(end) {
        for station in c.stations() {
            for notice in c.notices(station) {
                if let Notice::LinkDown(_, reason, _) = notice {
                    losses.push((c.now.since(died), reason));
                }
            }
        }
    }
    losses
}

#[test]
fn records_are_told_and_acknowledged_by_all() {
    let mut c = settled(1, 40, Supervision::Mesh);
    for station in [0, 17, 39] {
        let monitor = c.node(station).engine.monitor(BearerId(0)).unwrap();
        assert_eq!((monitor.nodes(), monitor.is_ring()), (40, false));
        let others: Vec<_> = monitor.list().skip(1).collect();
        assert!(
            others
                .iter()
                .all(|node| !monitor.is_untold(node.addr) && node.up)
        );
        assert!(others.iter().all(|node| {
            node.record
                .as_ref()
                .is_some_and(|(all, applied)| *applied == all.len())
        }));
        assert_eq!(
            others
                .iter()
                .filter(|node| node.role == Role::Local)
                .count(),
            6
        );
    }
    // Once they are known, STATEs carry no members.
    c.segment.record = true;
    c.run_for(Duration::from_secs(1));
    let states = c.segment.seen.iter().filter(|seen| is_state(&seen.bytes));
    let record = |bytes| LinkProtocol::domain(Msg::check(bytes).unwrap(), true).unwrap();
    assert!(states.clone().count() > 1000);
    assert!(
        states
            .into_iter()
            .all(|seen| record(&seen.bytes).unwrap().members.is_empty())
    );
}

#[test]
fn below_the_threshold_no_records_are_sent() {
    let mut c = settled(2, 5, Supervision::Ring);
    c.segment.record = true;
    c.run_for(Duration::from_secs(1));
    let states = c.segment.seen.iter().filter(|seen| is_state(&seen.bytes));
    let has_record = |bytes| {
        LinkProtocol::domain(Msg::check(bytes).unwrap(), true)
            .unwrap()
            .is_some()
    };
    assert!(!states.into_iter().any(|seen| has_record(&seen.bytes)));
}

#[test]
fn where_every_link_is_watched_a_loss_is_seen_by_all_within_the_tolerance_and_50_ms() {
    let mut c = settled(3, 40, Supervision::Mesh);
    c.kill(7);
    let died = c.now;
    let seen = losses(&mut c, died);
    assert_eq!(seen.len(), 39);
    let last = seen.iter().map(|(after, _)| *after).max().unwrap();
    assert!(last <= TOLERANCE + Duration::from_millis(51), "{last:?}");
}

#[test]
fn a_ring_costs_little_and_its_losses_are_seen_within_the_tolerance_and_300_ms() {
    let mut c = settled(4, 40, Supervision::Ring);
    let rates = rate(&mut c, is_state);
    let most = rates.values().max().unwrap();
    assert!(*most <= 170, "{rates:?}");
    for station in [11, 12] {
        c.kill(station);
        let died = c.now;
        let nodes = c.stations().len();
        let seen = losses(&mut c, died);
        assert_eq!(seen.len(), nodes, "each once, and no other");
        let last = seen.iter().map(|(after, _)| *after).max().unwrap();
        assert!(last <= TOLERANCE + Duration::from_millis(300), "{last:?}");
    }
}

#[test]
fn neighbours_of_a_ring_that_make_up_several_domains_are_seen_lost_within_twice_the_tolerance() {
    let mut c = settled(7, 100, Supervision::Ring);
    let ring: BTreeMap<_, _> = (0..100).map(|station| (c.addr(station), station)).collect();
    for station in ring.values().skip(30).take(32) {
        c.kill(*station);
    }
    let died = c.now;
    let seen = losses(&mut c, died);
    assert_eq!(seen.len(), 68 * 32, "each once, and no other");
    let last = seen.iter().map(|(after, _)| *after).max().unwrap();
    assert!(
        last <= 2 * TOLERANCE + Duration::from_millis(300),
        "{last:?}"
    );
}

#[test]
fn a_node_of_a_ring_that_stands_still_for_nine_tenths_of_the_tolerance_is_not_lost() {
    let mut c = settled(5, 40, Supervision::Ring);
    c.suspend(9, TOLERANCE * 9 / 10, 4096);
    c.run_for(Duration::from_secs(6));
    for station in c.stations() {
        let notices = c.notices(station);
        let lost = |n: &Notice| matches!(n, Notice::LinkDown(..));
        assert!(!notices.iter().any(lost), "node {station}: {notices:?}");
    }
}

#[test]
fn a_ring_that_was_cut_in_two_halves_is_whole_again() {
    let mut c = settled(6, 40, Supervision::Ring);
    let pairs = (0..20).flat_map(|a| (20..40).flat_map(move |b| [(a, b), (b, a)]));
    c.segment.cuts.extend(pairs);
    c.run_for(Duration::from_secs(8));
    assert!(!c.is_up(0, 20) && c.is_up(0, 19));
    c.segment.cuts.clear();
    let healed = c.reaches(Duration::from_secs(70), |c| c.is_full_mesh());
    assert!(healed);
    c.run_for(Duration::from_secs(5));
    let monitor = c.node(3).engine.monitor(BearerId(0)).unwrap();
    assert!(monitor.is_ring() && monitor.list().all(|node| node.up));
    assert!(
        monitor
            .list()
            .skip(1)
            .all(|node| !monitor.is_untold(node.addr))
    );
}
