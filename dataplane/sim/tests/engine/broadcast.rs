//! The broadcast link: counting, repair, joining and leaving, multicast by both methods.

use super::link::link_protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId};
use xtipc_protocol::engine::SendError;
use xtipc_protocol::host::Notice;
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::stats::Drop;
use xtipc_protocol::wire::{Body, Msg, User, field};
use xtipc_sim::cluster::{Cluster, range, service};
use xtipc_sim::segment::{Fate, Faults};

const SERVICE: u32 = 5000;

/// Numbered broadcast packets of a station: (ms, number) in the order sent.
fn broadcasts(c: &Cluster, from: usize) -> Vec<(u64, u16)> {
    let seen = c
        .segment
        .seen
        .iter()
        .filter(|s| s.from == from && s.to.is_none());
    seen.filter_map(|s| {
        let msg = Msg::check(&s.bytes).unwrap();
        (msg.user() != User::LinkConfig).then(|| (s.at.as_millis(), msg.get16(field::SEQNO)))
    })
    .collect()
}

/// A sender on node 0 whose multicasts go by broadcast, and a receiver on every other node.
fn multicast(c: &mut Cluster) -> (PortId, Vec<(usize, PortId)>) {
    let from = c.open(0).port;
    c.with(0, |n| {
        n.engine.port_mut(from).unwrap().mcast_wanted = Some(McastMethod::Broadcast)
    });
    let receivers = c.stations().into_iter().filter(|s| *s != 0);
    let receivers: Vec<_> = receivers.map(|s| (s, ())).collect();
    let receivers: Vec<_> = receivers
        .into_iter()
        .map(|(station, ())| {
            let port = c.open(station).port;
            c.bind(station, port, (SERVICE, 0, 99));
            (station, port)
        })
        .collect();
    c.run_for(Duration::from_secs(1));
    (from, receivers)
}

/// Twenty multicasts, a millisecond apart, all of which every receiver has in order three seconds later.
fn twenty_arrive(c: &mut Cluster, from: PortId, receivers: Vec<(usize, PortId)>) {
    for n in 0..20 {
        c.send(0, from, range(SERVICE, 3, 3), n.to_string().as_bytes())
            .unwrap();
        c.run_for(Duration::from_millis(1));
    }
    c.run_for(Duration::from_secs(3));
    let wanted: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    for (station, port) in receivers {
        assert_eq!(c.texts(station, port), wanted);
    }
}

/// Number of the last broadcast of a station, as it told the first one that it met.
fn start_point(c: &Cluster, from: usize) -> u16 {
    let mut starts = c.segment.seen.iter().filter(|s| s.from == from);
    let start = starts.find_map(|s| {
        let msg = Msg::check(&s.bytes).unwrap();
        (msg.user() == User::BcastProtocol).then(|| msg.get16(field::LAST_BCAST))
    });
    start.expect("it met one")
}

/// Loses the first, the second and so on of the broadcasts from now on.
fn lose_broadcast(c: &mut Cluster, numbers: &'static [u16], at: &'static [usize], times: u32) {
    let mut lost = BTreeMap::new();
    let mut before = None;
    c.segment.filter = Some(Box::new(move |flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        let is_one = msg.flag(field::NON_SEQ) && msg.user() != User::LinkConfig;
        if !is_one {
            return Fate::Pass;
        }
        let number = msg.get16(field::SEQNO);
        let number = number - *before.get_or_insert(number - 1);
        if !numbers.contains(&number) || !at.contains(&flight.to) {
            return Fate::Pass;
        }
        let count = lost.entry((number, flight.to)).or_insert(0);
        *count += 1;
        if *count <= times {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
}

#[test]
fn fifty_broadcasts_are_in_flight_at_most_and_all_arrive_in_order() {
    let mut c = Cluster::settled(1, 4);
    let (from, receivers) = multicast(&mut c);
    c.segment.record = true;
    let mut sent = 0;
    let mut highest_in_flight = 0;
    while sent < 1000 {
        match c.send(0, from, range(SERVICE, 3, 3), sent.to_string().as_bytes()) {
            Ok(()) => sent += 1,
            Err(SendError::Congested) => c.run_for(Duration::from_micros(50)),
            Err(error) => panic!("{error}"),
        }
        highest_in_flight = highest_in_flight.max(c.node(0).engine.broadcast_link().queue_len);
    }
    c.run_for(Duration::from_secs(2));
    for (station, port) in receivers {
        assert_eq!(
            c.texts(station, port),
            (0..1000).map(|n| n.to_string()).collect::<Vec<_>>()
        );
    }
    // 100 may wait behind the window before a sender has to.
    assert!(
        highest_in_flight > 50 && highest_in_flight <= 50 + 100 + 1,
        "{highest_in_flight}"
    );
    let mut acked = BTreeMap::new();
    let mut last_sent = 0u16;
    for seen in &c.segment.seen {
        let msg = Msg::check(&seen.bytes).unwrap();
        if seen.from == 0 && seen.to.is_none() && msg.user() != User::LinkConfig {
            last_sent = last_sent.max(msg.get16(field::SEQNO));
            let slowest = acked.values().min().copied().unwrap_or(last_sent);
            assert!(acked.len() < 3 || last_sent - slowest <= 50);
        } else if let Some(state) = link_protocol(&seen.bytes)
            && seen.to == Some(0)
        {
            acked.insert(seen.from, state.bcast_ack);
        }
    }
    c.finish();
}

#[test]
fn a_lost_broadcast_is_sent_again_once_for_all_and_counted_once_per_peer() {
    let mut c = Cluster::settled(2, 4);
    let (from, receivers) = multicast(&mut c);
    lose_broadcast(&mut c, &[4], &[1, 2], 1);
    c.segment.record = true;
    twenty_arrive(&mut c, from, receivers);
    let sent = broadcasts(&c, 0);
    let fourth = sent[0].1 + 3;
    let again: Vec<_> = sent.iter().filter(|(_, n)| *n == fourth).collect();
    assert!(again.len() >= 2);
    for pair in again.windows(2) {
        assert!(
            pair[1].0 - pair[0].0 >= 10,
            "sent again within 10 ms: {again:?}"
        );
    }
    assert_eq!(c.node(0).engine.broadcast_link().queue_len, 0);
    c.finish();
}

#[test]
fn a_lost_broadcast_is_sent_again_to_those_alone_who_miss_it_where_that_is_wanted() {
    let mut c = Cluster::settled(2, 4);
    let (from, receivers) = multicast(&mut c);
    c.with(0, |n| n.engine.set_broadcast_repair(true));
    lose_broadcast(&mut c, &[4], &[1, 2], 1);
    c.segment.record = true;
    twenty_arrive(&mut c, from, receivers);
    let sent = broadcasts(&c, 0);
    let numbers: BTreeSet<_> = sent.iter().map(|(_, number)| number).collect();
    assert_eq!(sent.len(), numbers.len(), "each broadcast once: {sent:?}");
    let fourth = sent[0].1 + 3;
    let again = c.segment.seen.iter().filter(|s| {
        let msg = Msg::check(&s.bytes).unwrap();
        let is_broadcast = msg.flag(field::NON_SEQ) && msg.user() != User::LinkConfig;
        s.from == 0 && is_broadcast && s.to.is_some() && msg.get16(field::SEQNO) == fourth
    });
    let to: BTreeSet<_> = again.map(|s| s.to).collect();
    assert_eq!(to, BTreeSet::from([Some(1), Some(2)]));
    assert_eq!(c.node(0).engine.broadcast_link().queue_len, 0);
    c.finish();
}

#[test]
fn while_packets_come_a_lost_broadcast_is_there_within_20_ms() {
    let mut c = Cluster::settled(2, 4);
    let (from, receivers) = multicast(&mut c);
    lose_broadcast(&mut c, &[4], &[1, 2, 3], 1);
    let (talker, listener) = (c.open(0).port, c.open(1));
    for n in 0..6 {
        c.send(0, from, range(SERVICE, 3, 3), n.to_string().as_bytes())
            .unwrap();
    }
    // Too few broadcasts for a turn to report the gap, and too few messages for an acknowledgement to do it.
    c.segment.record = true;
    for _ in 0..4 {
        c.send(0, talker, Destination::Socket(listener), &b"x"[..])
            .unwrap();
        c.run_for(Duration::from_millis(5));
    }
    let states = c.segment.seen.iter().filter(|s| s.from == 1);
    let states = states.filter_map(|s| link_protocol(&s.bytes));
    let reports = states.filter(|state| match &state.body {
        Body::State(state) => state.bc_gap > 0,
        _ => false,
    });
    assert!(reports.count() <= 2, "once is enough if nothing is lost");
    for (station, port) in receivers {
        assert_eq!(c.texts(station, port).len(), 6, "node {station}");
    }
    c.finish();
}

#[test]
fn the_end_of_a_burst_that_is_lost_is_found_by_the_next_state() {
    let mut c = Cluster::settled(3, 3);
    let (from, receivers) = multicast(&mut c);
    lose_broadcast(&mut c, &[1, 2, 3, 4, 5, 6], &[1, 2], 1);
    for n in 0..4 {
        c.send(0, from, range(SERVICE, 3, 3), n.to_string().as_bytes())
            .unwrap();
    }
    c.run_for(Duration::from_millis(2 * 375 + 50));
    for (station, port) in receivers {
        assert_eq!(c.texts(station, port), ["0", "1", "2", "3"]);
    }
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.node(0).engine.broadcast_link().queue_len, 0);
    c.finish();
}

#[test]
fn a_node_that_joins_late_starts_where_the_broadcasts_are() {
    let mut c = Cluster::settled(4, 2);
    let (from, receivers) = multicast(&mut c);
    for n in 0..300 {
        c.send(0, from, range(SERVICE, 3, 3), format!("old {n}").as_bytes())
            .unwrap();
        c.run_for(Duration::from_millis(1));
    }
    c.start(2);
    c.until("three", |c| c.is_full_mesh());
    let late = c.open(2).port;
    c.bind(2, late, (SERVICE, 0, 99));
    c.run_for(Duration::from_secs(1));
    for n in 0..30 {
        c.send(0, from, range(SERVICE, 3, 3), format!("new {n}").as_bytes())
            .unwrap();
    }
    c.run_for(Duration::from_secs(1));
    let new: Vec<_> = (0..30).map(|n| format!("new {n}")).collect();
    assert_eq!(c.texts(2, late), new);
    assert_eq!(c.texts(receivers[0].0, receivers[0].1)[300..], new);
    assert_eq!(c.node(0).engine.broadcast_link().queue_len, 0);
    c.finish();
}

#[test]
fn a_receiver_that_dies_releases_what_only_it_had_not_acknowledged() {
    let mut c = Cluster::settled(5, 3);
    let (from, receivers) = multicast(&mut c);
    c.kill(2);
    let mut sent = 0;
    while c
        .send(0, from, range(SERVICE, 3, 3), sent.to_string().as_bytes())
        .is_ok()
    {
        sent += 1;
    }
    assert_eq!(sent, 50 + 100 + 1);
    c.run_for(Duration::from_millis(500));
    assert!(c.node(0).engine.broadcast_link().queue_len >= 100);
    c.notices(0);
    c.run_for(Duration::from_secs(3));
    assert!(c.notices(0).contains(&Notice::Writable(from)));
    assert_eq!(
        c.texts(1, receivers[0].1),
        (0..sent).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(c.node(0).engine.broadcast_link().queue_len, 0);
    c.finish();
}

#[test]
fn the_numbers_go_on_when_the_last_peer_has_gone() {
    let mut c = Cluster::settled(6, 2);
    let (from, _) = multicast(&mut c);
    c.segment.record = true;
    for n in 0..10 {
        c.send(0, from, range(SERVICE, 3, 3), n.to_string().as_bytes())
            .unwrap();
    }
    c.run_for(Duration::from_millis(500));
    let last = broadcasts(&c, 0).last().map(|(_, number)| *number);
    c.stop(1);
    c.run_for(Duration::from_secs(1));
    c.segment.seen.clear();
    c.start(1);
    c.until("up again", |c| c.is_full_mesh());
    assert_eq!(
        Some(start_point(&c, 0)),
        last,
        "a late packet of before would pass for a future one"
    );
    c.finish();
}

#[test]
fn who_missed_a_restart_does_not_take_the_broadcasts_of_after_for_those_of_before() {
    let mut c = Cluster::new(31);
    c.recipe.params.tolerance_ms = 10_000;
    (0..3).for_each(|station| c.start(station));
    c.until("up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    let (_, receivers) = multicast(&mut c);
    // All that node 1 hears of the new one is what it broadcasts.
    c.segment.filter = Some(Box::new(|flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        let is_broadcast = msg.flag(field::NON_SEQ) && msg.user() != User::LinkConfig;
        if (flight.from, flight.to) == (0, 1) && !is_broadcast {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
    c.kill(0);
    c.start(0);
    c.until("back", |c| c.is_up(0, 2) && c.is_up(2, 0));
    c.run_for(Duration::from_secs(1));
    let from = c.open(0).port;
    c.with(0, |n| {
        n.engine.port_mut(from).unwrap().mcast_wanted = Some(McastMethod::Broadcast)
    });
    for n in 0..10 {
        c.send(0, from, range(SERVICE, 3, 3), n.to_string().as_bytes())
            .unwrap();
    }
    c.run_for(Duration::from_millis(100));
    assert!(c.is_up(1, 0), "node 1 believes in the old one");
    assert!(c.texts(1, receivers[0].1).is_empty());
    assert_eq!(c.texts(2, receivers[1].1).len(), 10);
    c.segment.filter = None;
    c.until("all again", |c| c.is_full_mesh());
    c.finish();
}

#[test]
fn a_broadcast_that_never_gets_through_resets_the_link_to_that_peer_only() {
    let mut c = Cluster::settled(7, 3);
    let (from, receivers) = multicast(&mut c);
    c.segment.filter = Some(Box::new(|flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        let lost =
            flight.to == 2 && flight.from == 0 && msg.flag(field::NON_SEQ) && msg.user().is_data();
        if lost { Fate::Lose } else { Fate::Pass }
    }));
    c.notices(0);
    c.send(0, from, range(SERVICE, 3, 3), &b"x"[..]).unwrap();
    c.run_for(Duration::from_secs(14));
    assert!(c.is_full_mesh());
    c.run_for(Duration::from_secs(6));
    let notices = c.notices(0);
    assert!(
        notices
            .iter()
            .any(|n| matches!(n, Notice::LinkDown(node, ..) if *node == c.addr(2)))
    );
    assert!(
        !notices
            .iter()
            .any(|n| matches!(n, Notice::LinkDown(node, ..) if *node == c.addr(1)))
    );
    assert_eq!(c.texts(1, receivers[0].1), ["x"]);
    c.finish();
}

#[test]
fn broadcast_gaps_are_reported_in_states_and_16_packets_acknowledged_in_turns() {
    let mut c = Cluster::settled(8, 4);
    let (from, _) = multicast(&mut c);
    c.segment.record = true;
    let start = c.now;
    for n in 0..48 {
        c.send(0, from, range(SERVICE, 3, 3), n.to_string().as_bytes())
            .unwrap();
    }
    c.run_for(Duration::from_millis(1));
    let states = c
        .segment
        .seen
        .iter()
        .filter(|s| s.to == Some(0) && s.at > start);
    let mut by_node: BTreeMap<usize, Vec<u16>> = BTreeMap::new();
    for seen in states {
        if let Some(state) = link_protocol(&seen.bytes) {
            assert!(matches!(state.body, Body::State(_)));
            by_node.entry(seen.from).or_default().push(state.bcast_ack);
        }
    }
    for (node, acks) in by_node {
        let phase = c.addr(node).0 & 0xf;
        assert!(acks.len() >= 2, "{acks:?}");
        assert!(
            acks.iter()
                .all(|a| (u32::from(a.wrapping_add(1)) ^ phase) & 0xf == 0xf),
            "{node}: {acks:?}"
        );
    }
    c.finish();
}

#[test]
fn broadcast_numbers_wrap_under_loss() {
    let mut c = Cluster::settled(9, 3);
    c.strict = false;
    let (from, receivers) = multicast(&mut c);
    c.segment.faults = Faults {
        loss: 10,
        duplication: 10,
        reordering: 10,
        straggle_us: 100,
        corruption: 0,
    };
    let mut sent = 0u32;
    let mut next = vec![0u32; receivers.len()];
    while next.iter().any(|n| *n < 67_000) {
        for _ in 0..4 {
            if sent < 67_000
                && c.send(0, from, range(SERVICE, 3, 3), &sent.to_be_bytes()[..])
                    .is_ok()
            {
                sent += 1;
            }
        }
        c.run_for(Duration::from_micros(500));
        for (i, (station, port)) in receivers.iter().enumerate() {
            for m in c.recv_all(*station, *port) {
                assert_eq!(u32::from_be_bytes(m.bytes[..].try_into().unwrap()), next[i]);
                next[i] += 1;
            }
        }
    }
    assert!(c.node(0).engine.broadcast_link().stats.tx_packets > 66_000);
    c.segment.faults = Faults::default();
    c.run_for(Duration::from_secs(2));
    assert!(c.is_full_mesh());
    assert_eq!(c.node(0).engine.broadcast_link().queue_len, 0);
    c.finish();
}

#[test]
fn a_large_multicast_is_cut_and_put_together_on_both_ways() {
    for method in [McastMethod::Broadcast, McastMethod::Replicast] {
        let mut c = Cluster::settled(10, 3);
        let (from, receivers) = multicast(&mut c);
        c.with(0, |n| {
            n.engine.port_mut(from).unwrap().mcast_wanted = Some(method)
        });
        c.segment.faults.loss = 50;
        let payload: Vec<u8> = (0..66_000u32).map(|n| (n * 31) as u8).collect();
        for _ in 0..3 {
            while c.send(0, from, range(SERVICE, 3, 3), &payload[..]) == Err(SendError::Congested) {
                c.run_for(Duration::from_millis(1));
            }
        }
        c.run_for(Duration::from_secs(10));
        for (station, port) in &receivers {
            let got = c.recv_all(*station, *port);
            assert_eq!(got.len(), 3);
            assert!(got.iter().all(|m| m.bytes == payload));
        }
        c.segment.faults.loss = 0;
        c.run_for(Duration::from_secs(1));
        c.finish();
    }
}

#[test]
fn a_multicast_that_changes_its_method_stays_in_order_and_arrives_once() {
    for seed in 0..20 {
        let mut c = Cluster::settled(seed, 4);
        let (from, receivers) = multicast(&mut c);
        c.segment.faults = Faults {
            loss: 100,
            duplication: 50,
            reordering: 200,
            straggle_us: 2000,
            corruption: 0,
        };
        let mut sent = 0u32;
        while sent < 300 {
            let method = c
                .rng
                .pick(&[McastMethod::Broadcast, McastMethod::Replicast]);
            if c.rng.chance(100) {
                c.with(0, |n| {
                    n.engine.port_mut(from).unwrap().mcast_wanted = Some(method)
                });
            }
            if c.send(0, from, range(SERVICE, 3, 3), sent.to_string().as_bytes())
                .is_ok()
            {
                sent += 1;
            }
            let pause = c.rng.below(3000);
            c.run_for(Duration::from_micros(pause));
        }
        c.segment.faults = Faults::default();
        c.run_for(Duration::from_secs(3));
        assert!(c.is_full_mesh(), "seed {seed}");
        for (station, port) in receivers {
            let want: Vec<_> = (0..300).map(|n| n.to_string()).collect();
            assert_eq!(c.texts(station, port), want, "seed {seed}, node {station}");
        }
        c.finish();
    }
}

/// The threshold of Linux: 1 + peers / 10.
#[test]
fn multicasts_go_as_copies_to_few_nodes_and_by_broadcast_to_more_than_a_tenth_and_one() {
    for nodes in [2, 5, 10, 11, 20, 21] {
        let peers = nodes - 1;
        let most = 1 + peers / 10;
        let mut c = Cluster::settled(12, nodes);
        let from = c.open(0).port;
        for members in 1..=peers.min(most + 2) {
            let to = c.open(members).port;
            c.bind(members, to, (SERVICE, 0, 99));
            // A second member on a node makes no further copy.
            let beside = c.open(members).port;
            c.bind(members, beside, (SERVICE, 3, 3));
            c.run_for(Duration::from_millis(100));
            c.segment.record = true;
            c.send(0, from, range(SERVICE, 3, 3), &b"x"[..]).unwrap();
            let seen = std::mem::take(&mut c.segment.seen).into_iter();
            let sent = seen.filter(|s| {
                let msg = Msg::check(&s.bytes).unwrap();
                s.from == 0 && msg.user().is_data() && !msg.payload().is_empty()
            });
            let (broadcast, copies): (Vec<_>, Vec<_>) = sent.partition(|s| s.to.is_none());
            let expected = if members <= most {
                (0, members)
            } else {
                (1, 0)
            };
            let found = (broadcast.len(), copies.len());
            assert_eq!(found, expected, "{members} of {peers} peers");
            c.run_for(Duration::from_millis(100));
            assert_eq!(c.texts(members, beside), ["x"]);
        }
        c.finish();
    }
}

#[test]
fn the_first_multicast_to_one_node_is_a_pair_with_the_empty_half_by_broadcast() {
    let mut c = Cluster::settled(11, 2);
    let from = c.open(0).port;
    let to = c.open(1).port;
    c.bind(1, to, (SERVICE, 0, 99));
    c.run_for(Duration::from_secs(1));
    c.segment.record = true;
    for text in ["first", "second"] {
        c.send(0, from, range(SERVICE, 3, 3), text.as_bytes())
            .unwrap();
    }
    let sent: Vec<_> = c
        .segment
        .seen
        .iter()
        .map(|s| (s.to, s.bytes.clone()))
        .collect();
    let fields = |bytes: &[u8]| {
        let m = Msg::check(bytes).unwrap();
        let flags = (
            m.flag(field::SYN),
            m.flag(field::IS_RCAST),
            m.flag(field::NON_SEQ),
        );
        (
            m.size(),
            m.get(field::ERRCODE),
            flags,
            m.get(field::LOOKUP_SCOPE),
        )
    };
    assert_eq!(
        sent.iter().map(|s| s.0).collect::<Vec<_>>(),
        [None, Some(1), Some(1)]
    );
    assert_eq!(fields(&sent[0].1), (44, 2, (true, false, true), 2));
    assert_eq!(fields(&sent[1].1), (44 + 5, 0, (true, true, false), 2));
    assert_eq!(fields(&sent[2].1), (44 + 6, 0, (false, true, false), 2));
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.texts(1, to), ["first", "second"]);
    c.finish();
}

#[test]
fn messages_held_for_a_twin_do_not_wait_for_a_peer_that_was_lost() {
    let mut c = Cluster::settled(12, 2);
    let from = c.open(0).port;
    let to = c.open(1).port;
    c.bind(1, to, (SERVICE, 0, 99));
    c.run_for(Duration::from_secs(1));
    // The empty half never arrives, and then the link goes down.
    c.segment.filter = Some(Box::new(|flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        let twin = msg.flag(field::NON_SEQ) && msg.user().is_data();
        if twin { Fate::Lose } else { Fate::Pass }
    }));
    for text in ["a", "b"] {
        c.send(0, from, range(SERVICE, 3, 3), text.as_bytes())
            .unwrap();
    }
    c.run_for(Duration::from_millis(100));
    assert!(c.texts(1, to).is_empty());
    c.segment.filter = None;
    c.segment.cut(0, 1);
    c.run_for(Duration::from_secs(4));
    c.segment.heal();
    c.until("up again", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    c.send(0, from, range(SERVICE, 3, 3), &b"c"[..]).unwrap();
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.texts(1, to), ["a", "b", "c"]);
    c.finish();
}

#[test]
fn a_returned_multicast_of_a_switch_comes_back_to_its_sender() {
    let mut c = Cluster::settled(13, 2);
    let from = c.open_returning(0);
    c.bind(0, from.port, (SERVICE, 0, 99));
    let to = c.open(1);
    c.bind(1, to.port, (SERVICE, 200, 299));
    c.with(1, |n| n.engine.set_receive_buffer(to.port, 1))
        .unwrap();
    c.run_for(Duration::from_secs(1));
    // Larger than the smallest receive buffer.
    c.send(0, from.port, range(SERVICE, 200, 299), &[7; 5000][..])
        .unwrap();
    c.run_for(Duration::from_secs(1));
    let back = c.recv_all(0, from.port);
    assert_eq!(back.len(), 1, "{back:?}");
    assert_eq!(
        (back[0].about.errcode, back[0].about.source.port),
        (4, to.port)
    );
    c.finish();
}

#[test]
fn one_copy_reaches_each_socket_however_many_bindings_match() {
    let mut c = Cluster::settled(14, 3);
    let (from, receivers) = multicast(&mut c);
    for (station, port) in &receivers {
        c.bind(*station, *port, (SERVICE, 50, 150));
        c.bind(*station, *port, (SERVICE, 0, 99));
    }
    let own = c.open(0).port;
    c.bind_scoped(0, own, (SERVICE, 0, 500), xtipc_protocol::name::Scope::Node);
    c.run_for(Duration::from_secs(1));
    c.send(0, from, range(SERVICE, 0, 1000), &b"all"[..])
        .unwrap();
    c.run_for(Duration::from_secs(1));
    for (station, port) in receivers.into_iter().chain([(0, own)]) {
        assert_eq!(c.texts(station, port), ["all"], "node {station}");
    }
    // From another node a binding of node scope is not reached.
    let far = c.open(1).port;
    c.send(1, far, range(SERVICE, 200, 300), &b"far"[..])
        .unwrap_err();
    c.send(1, far, range(SERVICE, 0, 1000), &b"far"[..])
        .unwrap();
    c.run_for(Duration::from_secs(1));
    assert!(c.texts(0, own).is_empty());
    let missing = c.send(0, from, service(SERVICE + 1, 3), &b"?"[..]);
    assert_eq!(missing, Err(SendError::Unreachable));
    c.finish();
}

#[test]
fn broadcasts_of_another_cluster_or_before_the_start_point_are_not_taken() {
    let mut c = Cluster::settled(15, 2);
    let to = c.open(0).port;
    c.bind(0, to, (SERVICE, 0, 99));
    c.run_for(Duration::from_secs(1));
    let from = c.open(1).port;
    c.with(1, |n| {
        n.engine.port_mut(from).unwrap().mcast_wanted = Some(McastMethod::Broadcast)
    });
    c.segment.record = true;
    c.send(1, from, range(SERVICE, 3, 3), &b"one"[..]).unwrap();
    let packet = c.segment.seen.last().unwrap().bytes.clone();
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.texts(0, to), ["one"]);
    let mut foreign = packet.clone();
    field::BROADCAST_NET_ID.set(&mut foreign, 99);
    let number = field::SEQNO.get(&foreign) + 1;
    field::SEQNO.set(&mut foreign, number);
    c.receive(0, xtipc_sim::segment::mac_of(1), &foreign);
    assert_eq!(c.node(0).engine.drops().get(Drop::BroadcastOtherCluster), 1);
    assert!(c.texts(0, to).is_empty());
    c.finish();
}

#[test]
fn links_are_idle_again_when_a_broadcast_has_been_acknowledged() {
    let mut c = Cluster::settled(30, 3);
    let states = |c: &mut Cluster| {
        let before = c.segment.packets;
        c.run_for(Duration::from_secs(3));
        c.segment.packets - before
    };
    c.run_for(Duration::from_secs(3));
    let idle = states(&mut c);
    let socket = c.open(0);
    c.bind(0, socket.port, (5000, 0, 0));
    c.run_for(Duration::from_secs(3));
    let after = states(&mut c);
    assert!(
        after.abs_diff(idle) <= 6,
        "{idle} packets before, {after} after"
    );
    c.finish();
}
