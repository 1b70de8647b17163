//! Finding each other, and an address for oneself.

use std::time::Duration;
use xtipc_protocol::addr::{Media, MediaAddr, NodeAddr, NodeId};
use xtipc_protocol::host::Notice;
use xtipc_protocol::stats::Drop;
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{Capabilities, DISCOVERY_SIZE, DiscoveryKind, LinkConfig, Msg, User};
use xtipc_sim::cluster::{Cluster, NET_ID, Recipe};
use xtipc_sim::segment::{Fate, Seen, mac_of};

/// Two identities with the same hash.
const TWINS: [&str; 2] = ["AAAABBBB", "BBBBAAAA"];

fn discovery_of(seen: &Seen) -> Option<LinkConfig> {
    let msg = Msg::check(&seen.bytes).ok()?;
    (msg.user() == User::LinkConfig).then(|| LinkConfig::parse(msg).expect("sent by an engine"))
}

/// When `station` sent discovery messages of this kind, in ms since `start`.
fn times(cluster: &Cluster, station: usize, kind: DiscoveryKind, start: Instant) -> Vec<u64> {
    let seen = cluster.segment.seen.iter().filter(|s| s.from == station);
    seen.filter(|s| discovery_of(s).is_some_and(|d| d.kind == kind))
        .map(|s| s.at.since(start).as_millis() as u64)
        .collect()
}

fn search(from: usize, addr: u32, id: &str) -> LinkConfig {
    LinkConfig {
        kind: DiscoveryKind::Request,
        capabilities: Capabilities::OWN,
        signature: 77,
        dest_domain: 0,
        prev_node: NodeAddr(addr),
        net_id: NET_ID,
        media_addr: MediaAddr::ethernet(mac_of(from)),
        net_hash: 0,
        suggested: NodeAddr::NONE,
        node_id: Some(NodeId::from_text(id).unwrap()),
    }
}

fn packet(message: &LinkConfig) -> Vec<u8> {
    let mut bytes = vec![0; DISCOVERY_SIZE];
    let len = message.emit(&mut bytes);
    bytes.truncate(len);
    bytes
}

#[test]
fn a_fresh_node_asks_for_its_address_for_a_second_and_then_searches() {
    let mut c = Cluster::new(1);
    c.segment.record = true;
    let start = c.now;
    c.start(0);
    c.run_for(Duration::from_secs(7));
    let trials = times(&c, 0, DiscoveryKind::Trial, start);
    assert_eq!(trials, [0, 125, 250, 375, 500, 625, 750, 875]);
    assert_eq!(
        times(&c, 0, DiscoveryKind::Request, start),
        [1125, 1375, 1875, 2875, 3875, 4875, 5875, 6875]
    );
    assert_eq!(c.addr(0), NodeId::from_text("node0").unwrap().hash());
    assert_eq!(c.notices(0), [Notice::AddressFinal(c.addr(0))]);
    c.finish();
}

#[test]
fn a_node_with_an_address_searches_at_0_125_375_875_1875_ms() {
    let mut c = Cluster::new(1);
    c.start(0);
    c.run_for(Duration::from_secs(2));
    // A second bearer of a node that has its address.
    c.segment.record = true;
    let start = c.now;
    let now = c.now;
    c.with(0, |node| {
        let setup = xtipc_protocol::engine::BearerSetup {
            interface: *b"eth1\0\0\0\0\0\0\0\0\0\0\0\0",
            media: Media::Ethernet,
            broadcast: true,
            media_addr: MediaAddr::ethernet(mac_of(0)),
            mtu: 1500,
            params: xtipc_protocol::link::LinkParams::default(),
        };
        let before = node.host.sent.len();
        node.engine.add_bearer(now, setup, &mut node.host).unwrap();
        assert_eq!(node.host.sent.len(), before + 1);
    });
    let mut at = vec![0];
    while c.now.since(start) < Duration::from_secs(4) {
        let next = c.node(0).engine.next_timeout().unwrap();
        let now = next;
        c.now = next;
        c.with(0, |node| {
            node.engine.on_time(now, &mut node.host);
            let second = node.host.sent.iter().filter(|s| s.bearer.0 == 1).count();
            at.extend(std::iter::repeat_n(
                now.since(start).as_millis() as u64,
                second,
            ));
        });
    }
    assert_eq!(at[..7], [0, 125, 375, 875, 1875, 2875, 3875]);
}

#[test]
fn a_node_whose_address_is_taken_gets_another_one_from_its_holder() {
    let mut c = Cluster::new(2);
    c.start_as(0, TWINS[0]);
    c.run_for(Duration::from_secs(2));
    let taken = c.addr(0);
    c.segment.record = true;
    c.start_as(1, TWINS[1]);
    assert_eq!(c.node(1).engine.trial_addr(), taken);
    c.until("the link is up", |c| c.is_full_mesh());
    assert_ne!(c.addr(1), taken);
    let veto = c
        .segment
        .seen
        .iter()
        .filter(|s| s.from == 0)
        .filter_map(discovery_of);
    let veto = veto
        .into_iter()
        .find(|d| d.kind == DiscoveryKind::TrialFail)
        .unwrap();
    assert_eq!((veto.dest_domain, veto.suggested), (taken.0, c.addr(1)));
    assert_eq!(veto.suggested.0, taken.0 ^ veto.net_hash);
    c.finish();
}

#[test]
fn two_nodes_that_want_the_same_address_at_the_same_time_end_up_with_two() {
    for seed in 0..20 {
        let mut c = Cluster::new(seed);
        c.start_as(0, TWINS[0]);
        c.start_as(1, TWINS[1]);
        c.until("the link is up", |c| c.is_full_mesh());
        assert_ne!(c.addr(0), c.addr(1));
        c.finish();
    }
}

#[test]
fn a_node_that_returns_gets_its_old_address_even_if_that_was_not_its_hash() {
    let mut c = Cluster::new(3);
    c.start_as(0, TWINS[0]);
    c.run_for(Duration::from_secs(2));
    c.start_as(1, TWINS[1]);
    c.until("the link is up", |c| c.is_full_mesh());
    let old = c.addr(1);
    c.stop(1);
    c.run_for(Duration::from_secs(5));
    c.start_as(1, TWINS[1]);
    c.until("the link is up again", |c| c.is_full_mesh());
    assert_eq!(c.addr(1), old);
    c.finish();
}

#[test]
fn a_node_that_returns_gets_its_old_address_also_from_who_knows_the_holder_of_its_hash() {
    let mut c = Cluster::new(3);
    c.start_as(0, TWINS[0]);
    c.start(2);
    c.run_for(Duration::from_secs(2));
    c.start_as(1, TWINS[1]);
    c.until("all links are up", |c| c.is_full_mesh());
    let old = c.addr(1);
    c.stop(1);
    c.run_for(Duration::from_secs(5));
    // Node 0, which has the address itself, is not heard.
    c.segment.cut(0, 1);
    c.start_as(1, TWINS[1]);
    c.until("the link is up again", |c| c.is_up(1, 2) && c.is_up(2, 1));
    assert_eq!(c.addr(1), old);
    c.finish();
}

#[test]
fn three_nodes_find_each_other_whenever_they_start() {
    let mut c = Cluster::new(4);
    c.start(0);
    c.run_for(Duration::from_millis(3300));
    c.start(1);
    c.until("two are up", |c| c.is_full_mesh());
    // The first two search once a minute now; the third finds them by its own search.
    c.run_for(Duration::from_secs(200));
    c.start(2);
    let start = c.now;
    c.until("three are up", |c| c.is_full_mesh());
    assert!(c.now.since(start) < Duration::from_secs(3));
    c.finish();
}

#[test]
fn a_cluster_forms_although_discovery_is_lost_doubled_and_reordered() {
    for seed in 0..10 {
        let mut c = Cluster::new(seed);
        c.segment.faults = xtipc_sim::segment::Faults {
            loss: 300,
            duplication: 300,
            reordering: 300,
            straggle_us: 5000,
            ..Default::default()
        };
        (0..4).for_each(|station| c.start(station));
        c.until("all links are up", |c| c.is_full_mesh());
        c.finish();
    }
}

#[test]
fn nodes_of_another_cluster_are_ignored() {
    let mut c = Cluster::new(5);
    c.start(0);
    c.recipe = Recipe {
        net_id: NET_ID + 1,
        ..c.recipe
    };
    c.start(1);
    c.run_for(Duration::from_secs(10));
    for station in 0..2 {
        assert_eq!(c.node(station).engine.peers().count(), 0);
        assert!(c.node(station).engine.drops().get(Drop::OtherCluster) > 0);
    }
    c.finish();
}

#[test]
fn an_own_broadcast_that_comes_back_is_not_another_node() {
    let mut c = Cluster::settled(6, 2);
    c.segment.record = true;
    c.run_for(Duration::from_secs(70));
    let own: Vec<_> = c
        .segment
        .seen
        .iter()
        .filter(|s| s.from == 0 && s.to.is_none())
        .cloned()
        .collect();
    assert!(!own.is_empty());
    c.notices(0);
    for seen in own {
        c.receive(0, mac_of(0), &seen.bytes);
    }
    assert!(c.notices(0).is_empty());
    assert_eq!(c.node(0).engine.peers().count(), 1);
    assert!(c.node(0).engine.drops().get(Drop::OwnPacket) > 0);
    c.finish();
}

#[test]
fn doubled_discovery_makes_one_node_and_one_link() {
    let mut c = Cluster::new(7);
    c.segment.faults.duplication = 1000;
    c.start(0);
    c.start(1);
    c.until("the link is up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(5));
    assert_eq!(c.node(0).engine.peers().count(), 1);
    assert_eq!(
        c.notices(0)
            .iter()
            .filter(|n| matches!(n, Notice::LinkUp(..)))
            .count(),
        1
    );
    c.finish();
}

#[test]
fn a_flood_of_invented_nodes_is_bounded_and_does_not_touch_real_ones() {
    let mut c = Cluster::settled(8, 2);
    c.notices(0);
    for n in 0..20_000u32 {
        let fake = search(50, 0x0900_0000 + n, &format!("fake{n}"));
        c.receive(0, mac_of(50), &packet(&fake));
    }
    assert!(c.node(0).engine.peers().count() <= xtipc_protocol::node::UNESTABLISHED_MAX + 1);
    c.run_for(Duration::from_secs(5));
    assert!(c.is_up(0, 1) && c.is_up(1, 0));
    assert!(c.notices(0).is_empty());
    // Nothing of it stays.
    c.run_for(Duration::from_secs(310));
    assert_eq!(c.node(0).engine.peers().count(), 1);
    c.finish();
}

#[test]
fn discovery_that_names_a_third_station_is_not_answered() {
    let mut c = Cluster::settled(9, 1);
    c.segment.record = true;
    for kind in [DiscoveryKind::Request, DiscoveryKind::Trial] {
        let addr = if kind == DiscoveryKind::Trial {
            c.addr(0).0
        } else {
            0x0900_0001
        };
        let victim = LinkConfig {
            kind,
            media_addr: MediaAddr::ethernet(mac_of(9)),
            ..search(8, addr, "x")
        };
        c.receive(0, mac_of(8), &packet(&victim));
    }
    assert!(c.segment.seen.is_empty());
    assert_eq!(c.node(0).engine.drops().get(Drop::SpoofedMediaAddress), 2);
    c.finish();
}

#[test]
fn somebody_who_vetoes_every_address_does_not_keep_a_node_out() {
    let mut c = Cluster::new(10);
    c.start(0);
    let start = c.now;
    while c.node(0).engine.own_addr() == NodeAddr::NONE {
        assert!(c.now.since(start) < Duration::from_secs(60));
        c.run_for(Duration::from_millis(900));
        let trial = c.node(0).engine.trial_addr();
        let veto = LinkConfig {
            kind: DiscoveryKind::TrialFail,
            dest_domain: trial.0,
            suggested: NodeAddr(trial.0 + 1),
            ..search(9, 0x0900_0001, "liar")
        };
        c.receive(0, mac_of(9), &packet(&veto));
    }
    c.finish();
}

#[test]
fn another_node_with_our_address_is_told_and_does_no_harm() {
    let mut c = Cluster::settled(11, 2);
    let own = c.addr(0);
    c.notices(0);
    for _ in 0..1000 {
        c.receive(0, mac_of(9), &packet(&search(9, own.0, "impostor")));
        // One that claims to be the peer, at another station.
        let peer = c.addr(1);
        c.receive(0, mac_of(9), &packet(&search(9, peer.0, "node1")));
    }
    assert!(
        c.notices(0)
            .iter()
            .all(|n| matches!(n, Notice::DuplicateAddress(_)))
    );
    c.run_for(Duration::from_secs(5));
    assert!(c.is_up(0, 1) && c.is_up(1, 0));
    c.finish();
}

#[test]
fn only_the_peer_itself_tells_what_a_running_link_can_do() {
    let mut c = Cluster::settled(18, 2);
    let (peer, before) = (
        c.addr(1),
        c.node(0).engine.drops().get(Drop::DuplicateAddress),
    );
    let nothing = |from, addr| LinkConfig {
        capabilities: Capabilities(Capabilities::NODE_ID128.0),
        ..search(from, addr, "node1")
    };
    // Another station under the peer's address, or under an address of its own with the peer's identity.
    c.receive(0, mac_of(9), &packet(&nothing(9, peer.0)));
    c.receive(0, mac_of(9), &packet(&nothing(9, peer.0 + 1)));
    let known = |c: &Cluster| c.peer_view(0, 1).unwrap().capabilities;
    assert_eq!(known(&c), Capabilities::OWN);
    assert_eq!(
        c.node(0).engine.drops().get(Drop::DuplicateAddress),
        before + 2
    );
    c.receive(0, mac_of(1), &packet(&nothing(1, peer.0)));
    assert_ne!(known(&c), Capabilities::OWN);
    c.finish();
}

#[test]
fn a_lost_neighbour_is_searched_at_short_intervals_only_on_a_bearer_without_links() {
    let mut c = Cluster::settled(12, 3);
    c.run_for(Duration::from_secs(130));
    c.segment.record = true;
    let start = c.now;
    c.kill(2);
    c.run_for(Duration::from_secs(20));
    assert!(
        times(&c, 0, DiscoveryKind::Request, start).len() <= 1,
        "a link to node 1 is still up"
    );
    c.kill(1);
    c.run_for(Duration::from_secs(20));
    assert!(times(&c, 0, DiscoveryKind::Request, start).len() >= 10);
    c.finish();
}

#[test]
fn the_search_goes_on_until_a_response_gets_through() {
    let mut c = Cluster::new(13);
    c.start(0);
    c.start(1);
    let end = c.now + Duration::from_secs(20);
    let mut dropped = 0;
    c.segment.filter = Some(Box::new(move |flight| {
        let discovery = Msg::check(&flight.bytes).is_ok_and(|m| m.user() == User::LinkConfig);
        dropped += u32::from(discovery && dropped < 30);
        if discovery && dropped < 30 {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
    c.until("the link is up", |c| c.is_full_mesh());
    assert!(c.now < end);
    c.finish();
}

#[test]
fn an_address_that_leads_to_no_link_does_not_keep_the_node_with_this_identity_out() {
    let mut c = Cluster::new(31);
    c.start(0);
    c.run_for(Duration::from_secs(2));
    let wrong = search(1, 0x0bad, "node1");
    c.receive(0, mac_of(1), &packet(&wrong));
    c.start(1);
    assert!(c.reaches(Duration::from_secs(5), |c| c.is_full_mesh()));
    assert_eq!(c.node(0).engine.peers().count(), 1);
    c.finish();
}

#[test]
fn an_identity_that_leads_to_no_link_does_not_stay_with_the_address() {
    let mut c = Cluster::settled(33, 2);
    let addr = c.addr(1).0;
    c.segment.filter = Some(Box::new(|_| Fate::Lose));
    c.run_for(Duration::from_secs(4));
    assert!(!c.is_up(0, 1));
    // A third station claims the node, then its address.
    for wrong in [search(2, 0x0bad, "node1"), search(2, addr, "wrong")] {
        c.receive(0, mac_of(2), &packet(&wrong));
    }
    c.segment.filter = None;
    assert!(c.reaches(Duration::from_secs(5), |c| c.is_full_mesh()));
    c.finish();
}

#[test]
fn a_node_that_returns_under_another_address_is_found() {
    let mut c = Cluster::settled(32, 2);
    c.kill(1);
    c.run_for(Duration::from_secs(4));
    // It does not hear that its peer would give it the old address back, but a forged veto.
    c.segment.filter = Some(Box::new(|flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        let vetoes = |m: LinkConfig| m.kind == DiscoveryKind::TrialFail;
        if msg.user() == User::LinkConfig && LinkConfig::parse(msg).is_ok_and(vetoes) {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
    c.start(1);
    let veto = LinkConfig {
        kind: DiscoveryKind::TrialFail,
        dest_domain: c.node(1).engine.trial_addr().0,
        suggested: NodeAddr(0x0bad),
        ..search(0, 0x0dad, "forged")
    };
    c.receive(1, mac_of(0), &packet(&veto));
    assert!(c.reaches(Duration::from_secs(5), |c| c.is_full_mesh()));
    assert_eq!(c.addr(1), NodeAddr(0x0bad));
    c.finish();
}

#[test]
fn over_infiniband_nodes_meet_by_the_address_that_is_announced_though_no_packet_tells_its_sender() {
    let mut c = Cluster::new(35);
    c.recipe = Recipe {
        media: Media::InfiniBand,
        mtu: 2044,
        ..Recipe::default()
    };
    c.segment.record = true;
    (0..3).for_each(|station| c.start(station));
    c.until("all links are up", |c| c.is_full_mesh());
    // Words 5 to 12: queue pair and GID from the first byte on, without a media type, and zeros.
    let announced = |seen: &Seen| seen.bytes[20..52].to_vec();
    let of_0 = c.segment.seen.iter().filter(|seen| seen.from == 0);
    let searches: Vec<_> = of_0.filter(|seen| discovery_of(seen).is_some()).collect();
    assert!(!searches.is_empty());
    let mut expected = vec![0, 0, 0, 0, 2, 0, 0, 0, 0, 1];
    expected.resize(32, 0);
    assert!(searches.into_iter().all(|seen| announced(seen) == expected));
    c.finish();
}
