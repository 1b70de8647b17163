//! What flows over a link: loss and repair, windows, backlogs, bundles, fragments.

use super::link::{
    down_reasons, is_data, lose_once, numbered_from, pair, state, states_from, stats,
};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId, SocketAddr};
use xtipc_protocol::engine::SendError;
use xtipc_protocol::host::{DownReason, Notice};
use xtipc_protocol::stats::Drop;
use xtipc_protocol::wire::{Bundle, Importance, Msg, User, aligned, field, size};
use xtipc_sim::cluster::{Cluster, Recipe};
use xtipc_sim::segment::{Fate, Faults, mac_of};

#[test]
fn a_single_loss_is_asked_for_at_the_third_packet_behind_it_and_sent_again_once() {
    let mut c = Cluster::settled(8, 2);
    let (port, to) = pair(&mut c);
    c.segment.record = true;
    let before = numbered_from(&c, 0).len();
    assert_eq!(before, 0);
    let base = c.link_view(0, 1);
    assert_eq!(base.queue_len, 0);
    let mut first = None;
    lose_once(&mut c, move |msg| {
        let seqno = msg.get16(field::SEQNO);
        is_data(msg) && [2, 3, 8].contains(&(seqno - *first.get_or_insert(seqno)))
    });
    for n in 0..12 {
        c.send(0, port, Destination::Socket(to), n.to_string().as_bytes())
            .unwrap();
        c.run_for(Duration::from_millis(2));
    }
    c.run_for(Duration::from_secs(1));
    assert_eq!(
        c.texts(1, to.port),
        (0..12).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    let first = Msg::check(&numbered_from(&c, 0)[0].bytes)
        .unwrap()
        .get16(field::SEQNO);
    let states = states_from(&c, 1);
    let nack = states
        .iter()
        .find(|(_, m)| state(m).unwrap().seq_gap > 0)
        .unwrap();
    // 0 and 1 arrived, 2 and 3 are missing, 4 5 6 are behind them.
    assert_eq!(nack.1.ack, first + 1);
    assert_eq!(state(&nack.1).unwrap().seq_gap, 2);
    let blocks = &state(&nack.1).unwrap().gaps.as_ref().unwrap().unicast;
    assert_eq!(
        blocks.iter().map(|b| (b.ack, b.gap)).collect::<Vec<_>>(),
        [(first + 6, 0)]
    );
    assert_eq!(stats(&c, 0, 1).retransmitted, 3);
    c.finish();
}

#[test]
fn what_is_missing_is_sent_again_at_once_however_new_it_is_and_once_however_often_it_is_asked_for()
{
    let mut c = Cluster::settled(8, 2);
    let (port, to) = pair(&mut c);
    let mut first = None;
    lose_once(&mut c, move |msg| {
        let seqno = msg.get16(field::SEQNO);
        is_data(msg) && seqno == *first.get_or_insert(seqno) + 1
    });
    // In one go: asked for at the third and at the nineteenth packet behind it, within a round trip.
    let texts: Vec<_> = (0..24).map(|n| n.to_string()).collect();
    for text in &texts {
        c.send(0, port, Destination::Socket(to), text.as_bytes())
            .unwrap();
    }
    c.run_for(Duration::from_millis(1));
    assert_eq!(c.texts(1, to.port), texts);
    assert_eq!(stats(&c, 0, 1).retransmitted, 1);
    assert_eq!(stats(&c, 0, 1).rx_naks, 2);
    c.finish();
}

#[test]
fn a_loss_at_the_end_is_found_within_two_ticks() {
    let mut c = Cluster::settled(9, 2);
    let (port, to) = pair(&mut c);
    c.segment.record = true;
    lose_once(&mut c, is_data);
    let start = c.now;
    for text in ["one", "two"] {
        c.send(0, port, Destination::Socket(to), text.as_bytes())
            .unwrap();
    }
    c.run_for(Duration::from_millis(2 * 375 + 5));
    assert_eq!(c.texts(1, to.port), ["one", "two"]);
    let states = states_from(&c, 1);
    let nack = states
        .iter()
        .find(|(at, m)| *at > start && state(m).unwrap().seq_gap > 0)
        .unwrap();
    assert_eq!(state(&nack.1).unwrap().seq_gap, 2);
    assert!(
        state(&nack.1)
            .unwrap()
            .gaps
            .as_ref()
            .unwrap()
            .unicast
            .is_empty()
    );
    c.finish();
}

#[test]
fn sixteen_packets_without_traffic_back_are_acknowledged_explicitly() {
    let mut c = Cluster::settled(10, 2);
    let (port, to) = pair(&mut c);
    c.segment.record = true;
    let start = c.now;
    for _ in 0..33 {
        c.send(0, port, Destination::Socket(to), &b"x"[..]).unwrap();
    }
    c.run_for(Duration::from_millis(1));
    let acks: Vec<_> = states_from(&c, 1)
        .into_iter()
        .filter(|(at, _)| *at > start)
        .collect();
    let first = Msg::check(&numbered_from(&c, 0)[0].bytes)
        .unwrap()
        .get16(field::SEQNO);
    assert_eq!(
        acks.iter().map(|(_, m)| m.ack).collect::<Vec<_>>(),
        [first + 15, first + 31]
    );
    assert!(acks.iter().all(|(_, m)| !state(m).unwrap().keepalive));
    c.finish();
}

#[test]
fn the_window_grows_under_load_shrinks_by_loss_and_restarts_when_idle() {
    let mut c = Cluster::settled(11, 2);
    let (port, to) = pair(&mut c);
    let window = |c: &Cluster| c.link_view(0, 1).window;
    assert_eq!(window(&c), 50);
    let payload = [0; 1300];
    let pump = |c: &mut Cluster, rounds: usize| {
        for _ in 0..rounds {
            while c
                .send(0, port, Destination::Socket(to), &payload[..])
                .is_ok()
            {}
            c.run_for(Duration::from_micros(50));
            c.recv_all(1, to.port);
        }
    };
    // One sender cannot fill a window beyond the backlog's limit; several can.
    let others: Vec<_> = (0..200).map(|_| c.open(0).port).collect();
    for round in 0..40 {
        for other in &others {
            let _ = c.send(0, *other, Destination::Socket(to), &payload[..]);
        }
        pump(&mut c, 1);
        assert!(round < 5 || window(&c) > 100, "{}", window(&c));
    }
    let grown = window(&c);
    assert!(grown > 200, "{grown}");
    let quiet = c.segment.faults;
    c.segment.faults = Faults { loss: 30, ..quiet };
    for _ in 0..200 {
        for other in &others {
            let _ = c.send(0, *other, Destination::Socket(to), &payload[..]);
        }
        pump(&mut c, 1);
    }
    assert!(window(&c) <= grown.max(400));
    c.segment.faults = quiet;
    c.run_for(Duration::from_secs(3));
    c.recv_all(1, to.port);
    assert_eq!(window(&c), 50);
    c.finish();
}

#[test]
fn the_backlog_takes_100_200_300_400_packets_by_importance_and_one_more_per_sender() {
    let levels = [
        (Importance::Low, 100),
        (Importance::Medium, 200),
        (Importance::High, 300),
        (Importance::Critical, 400),
    ];
    for (importance, limit) in levels {
        for tolerated in [true, false] {
            let mut c = Cluster::settled(12, 2);
            let (port, to) = pair(&mut c);
            c.with(0, |n| {
                n.engine.port_mut(port).unwrap().importance = importance
            });
            c.segment.cut(0, 1);
            let payload = [0; 1000];
            let mut sent = 0;
            while c
                .send(0, port, Destination::Socket(to), &payload[..])
                .is_ok()
            {
                sent += 1;
            }
            assert_eq!(sent, 50 + limit + 1);
            assert_eq!(
                c.send(0, port, Destination::Socket(to), &payload[..]),
                Err(SendError::Congested)
            );
            assert!(!c.notices(0).contains(&Notice::Writable(port)));
            // Another socket is not held up before its own message met the congestion.
            let other = c.open(0).port;
            c.with(0, |n| {
                n.engine.port_mut(other).unwrap().importance = importance
            });
            assert!(
                c.send(0, other, Destination::Socket(to), &payload[..])
                    .is_ok()
            );
            assert!(
                c.send(0, other, Destination::Socket(to), &payload[..])
                    .is_err()
            );
            if tolerated {
                c.segment.heal();
            }
            c.run_for(Duration::from_secs(4));
            let notices = c.notices(0);
            assert!(
                notices.contains(&Notice::Writable(port))
                    && notices.contains(&Notice::Writable(other))
            );
            if tolerated {
                assert_eq!(c.recv_all(1, to.port).len(), sent + 1);
                assert!(
                    c.send(0, port, Destination::Socket(to), &payload[..])
                        .is_ok()
                );
            } else {
                assert_eq!(
                    c.send(0, port, Destination::Socket(to), &payload[..]),
                    Err(SendError::Unreachable)
                );
                c.segment.heal();
            }
            c.finish();
        }
    }
}

#[test]
fn what_waits_for_the_window_is_bundled_as_linux_does() {
    let mut c = Cluster::settled(13, 2);
    let (port, to) = pair(&mut c);
    c.segment.record = true;
    let texts: Vec<_> = (0..120usize)
        .map(|n| format!("{n}{}", "x".repeat(n % 7)))
        .collect();
    for text in &texts {
        c.send(0, port, Destination::Socket(to), text.as_bytes())
            .unwrap();
    }
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.texts(1, to.port), texts);
    let bundles: Vec<_> = numbered_from(&c, 0)
        .into_iter()
        .filter(|s| Msg::check(&s.bytes).unwrap().user() == User::MsgBundler)
        .collect();
    let mut inside = 0;
    for seen in &bundles {
        let msg = Msg::check(&seen.bytes).unwrap();
        assert!(msg.size() <= 1500 - size::INT);
        assert_eq!((msg.header_size(), msg.kind()), (size::INT, 0));
        assert_eq!(msg.get(field::INNER_IMPORTANCE), 0);
        assert_eq!(
            (msg.prev_node(), msg.orig_node()),
            (c.addr(0).0, c.addr(0).0)
        );
        assert_eq!(msg.get(field::DEST_NODE), c.addr(1).0);
        let mut at = 0;
        let mut count = 0;
        for inner in Bundle::new(msg) {
            at = aligned(at) + inner.size();
            count += 1;
        }
        assert_eq!(
            at,
            msg.payload().len(),
            "the bundle ends with its last message"
        );
        assert_eq!(msg.get(field::MSG_COUNT), count);
        inside += count;
    }
    assert_eq!(
        inside, 70,
        "fifty went out alone, the others shared packets"
    );
    // 39 or 38 messages of 32 bytes of header and 1 to 10 of text fit into 1460 bytes.
    assert_eq!(bundles.len(), 2);
    assert_eq!(
        (stats(&c, 0, 1).tx_bundles, stats(&c, 0, 1).tx_bundled),
        (2, 70)
    );
    assert_eq!(
        (stats(&c, 1, 0).rx_bundles, stats(&c, 1, 0).rx_bundled),
        (2, 70)
    );
    c.finish();
}

#[test]
fn messages_gathered_by_the_host_share_packets_and_keep_their_order() {
    let mut c = Cluster::settled(13, 3);
    let (port, to) = pair(&mut c);
    let other = c.open(2);
    c.segment.record = true;
    let texts: Vec<_> = (0..100usize)
        .map(|n| format!("{n}{}", "x".repeat(if n == 50 { 3_000 } else { 0 })))
        .collect();
    c.gathering(0, |c| {
        for text in &texts {
            for dest in [to, other] {
                c.send(0, port, Destination::Socket(dest), text.as_bytes())
                    .unwrap();
            }
        }
        assert_eq!(
            numbered_from(c, 0).len(),
            2 * (2 + 3 + 1),
            "the last of each is open"
        );
    });
    // 38 messages fit a packet: two before the three fragments of the long one, two behind; to each.
    assert_eq!(numbered_from(&c, 0).len(), 2 * (2 + 3 + 2));
    assert_eq!(c.link_view(0, 1).window, 50);
    c.run_for(Duration::from_millis(10));
    assert_eq!(c.texts(1, to.port), texts);
    assert_eq!(c.texts(2, other.port), texts);
    c.finish();
}

#[test]
fn a_gathered_message_waits_no_longer_than_the_gathering() {
    let mut c = Cluster::settled(13, 2);
    let (port, to) = pair(&mut c);
    c.segment.record = true;
    c.gathering(0, |c| {
        c.send(0, port, Destination::Socket(to), &b"alone"[..])
            .unwrap();
        assert!(numbered_from(c, 0).is_empty());
    });
    let sent = numbered_from(&c, 0);
    assert_eq!(sent.len(), 1);
    let message = Msg::check(&sent[0].bytes).unwrap();
    assert!(is_data(message), "no bundle of one");
    c.send(0, port, Destination::Socket(to), &b"later"[..])
        .unwrap();
    assert_eq!(numbered_from(&c, 0).len(), 2, "nothing is gathered now");
    // A node may stop, and a link end, while messages wait.
    c.gathering(0, |c| {
        c.send(0, port, Destination::Socket(to), &b"lost"[..])
            .unwrap();
        c.kill(1);
        c.run_for(Duration::from_secs(4));
    });
    c.finish();
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_their_fragments_are_never_mixed() {
    for (mtu, tx_hold_us) in [(1500, 0), (1500, 300), (576, 0), (2000, 100), (100, 0)] {
        let mut c = Cluster::new(14);
        c.recipe = Recipe {
            mtu,
            tx_hold_us,
            ..c.recipe
        };
        c.start(0);
        c.start(1);
        c.until("up", |c| c.is_full_mesh());
        c.segment.faults = Faults {
            loss: 20,
            duplication: 20,
            reordering: 50,
            straggle_us: 300,
            corruption: 0,
        };
        let (port, to) = pair(&mut c);
        let others = [port, c.open(0).port, c.open(0).port];
        let mss = mtu - size::INT;
        let edge = mss - size::BASIC;
        let lengths = [
            edge - 1,
            edge,
            edge + 1,
            2 * mss,
            3 * mss - 1,
            10_000,
            65_999,
            66_000,
            1,
            40_000,
        ];
        c.segment.record = true;
        let mut expected = Vec::new();
        for len in lengths {
            for (tag, from) in others.iter().enumerate() {
                let payload: Vec<_> = (0..len).map(|i| (i * 7 + tag) as u8).collect();
                while c.send(0, *from, Destination::Socket(to), &payload[..])
                    == Err(SendError::Congested)
                {
                    c.run_for(Duration::from_millis(1));
                }
                expected.push((*from, payload));
            }
        }
        let big = c.send(0, port, Destination::Socket(to), &vec![0; 66_001][..]);
        assert_eq!(big, Err(SendError::TooLong(66_001)));
        c.run_for(Duration::from_secs(5));
        let got = c.recv_all(1, to.port);
        for from in others {
            let of = |p: &PortId| *p == from;
            let want: Vec<_> = expected
                .iter()
                .filter(|(p, _)| of(p))
                .map(|(_, b)| b.len())
                .collect();
            let have = got.iter().filter(|m| of(&m.about.source.port));
            assert_eq!(
                have.clone().map(|m| m.bytes.len()).collect::<Vec<_>>(),
                want
            );
            let want = expected.iter().filter(|(p, _)| of(p)).map(|(_, b)| b);
            assert!(
                have.map(|m| &m.bytes).eq(want),
                "contents of {from:?}, MTU {mtu}"
            );
        }
        check_fragment_order(&c);
        c.finish();
    }
}

/// In the order of their numbers: FIRST, then FRAGMENTs numbered from 2, then LAST, nothing between.
fn check_fragment_order(c: &Cluster) {
    let mut by_seqno = std::collections::BTreeMap::new();
    for seen in numbered_from(c, 0) {
        let seqno = Msg::check(&seen.bytes).unwrap().get16(field::SEQNO);
        by_seqno.entry(seqno).or_insert(seen.bytes);
    }
    let mut number = 0;
    for bytes in by_seqno.values() {
        let msg = Msg::check(bytes).unwrap();
        if msg.user() != User::MsgFragmenter {
            assert_eq!(number, 0, "a message between fragments");
            continue;
        }
        assert_eq!(msg.kind() == 0, number == 0);
        number += 1;
        assert_eq!(msg.get(field::FRAGMENT_NO), number);
        if msg.kind() == 2 {
            number = 0;
        }
    }
    assert_eq!(number, 0);
}

#[test]
fn no_fragment_chain_is_cut_short_when_frames_run_out() {
    let mut c = Cluster::new(15);
    c.recipe.frames = 200;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    let (_, to) = pair(&mut c);
    let senders: Vec<_> = (0..5).map(|_| c.open(0).port).collect();
    let mut sent = vec![0u32; senders.len()];
    let mut got = Vec::new();
    for _ in 0..400 {
        for (n, from) in senders.iter().enumerate() {
            let len = 4 + (c.rng.below(60_000) as usize);
            let mut payload = vec![n as u8; len];
            payload[..4].copy_from_slice(&sent[n].to_be_bytes());
            if c.send(0, *from, Destination::Socket(to), &payload[..])
                .is_ok()
            {
                sent[n] += 1;
            }
        }
        c.run_for(Duration::from_millis(1));
        got.extend(c.recv_all(1, to.port));
    }
    c.run_for(Duration::from_secs(3));
    got.extend(c.recv_all(1, to.port));
    let mut next = vec![0u32; senders.len()];
    for m in got {
        let n = senders
            .iter()
            .position(|s| *s == m.about.source.port)
            .unwrap();
        assert_eq!(
            u32::from_be_bytes(m.bytes[..4].try_into().unwrap()),
            next[n]
        );
        next[n] += 1;
    }
    assert_eq!(next, sent);
    assert!(
        sent.iter().all(|n| *n > 20),
        "every sender gets its turn: {sent:?}"
    );
    assert!(down_reasons(&mut c, 0).is_empty());
    c.finish();
}

#[test]
fn a_sender_that_found_no_frame_is_told_when_there_are_enough_for_its_message() {
    let mut c = Cluster::new(16);
    c.recipe.frames = 160;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    let (port, to) = pair(&mut c);
    c.segment.cut(0, 1);
    let big = vec![0; 66_000];
    assert!(c.send(0, port, Destination::Socket(to), &big[..]).is_ok());
    let other = c.open(0).port;
    assert!(
        c.send(0, other, Destination::Socket(to), &big[..40_000])
            .is_ok()
    );
    c.notices(0);
    let third = c.open(0).port;
    assert_eq!(
        c.send(0, third, Destination::Socket(to), &big[..]),
        Err(SendError::Congested)
    );
    c.run_for(Duration::from_millis(300));
    assert!(
        !c.notices(0).contains(&Notice::Writable(third)),
        "there is no room yet"
    );
    c.segment.heal();
    c.until("writable", |c| {
        c.node(0).host.notices.contains(&Notice::Writable(third))
    });
    assert!(c.send(0, third, Destination::Socket(to), &big[..]).is_ok());
    c.run_for(Duration::from_secs(2));
    assert_eq!(c.recv_all(1, to.port).len(), 3);
    c.finish();
}

#[test]
fn packet_numbers_wrap_under_loss_and_nothing_is_lost_doubled_or_reordered() {
    let mut c = Cluster::settled(17, 2);
    c.strict = false;
    c.segment.faults = Faults {
        loss: 20,
        duplication: 10,
        reordering: 20,
        straggle_us: 200,
        corruption: 0,
    };
    let (port, to) = pair(&mut c);
    let mut next = 0u32;
    let mut expected = 0u32;
    // Messages too large to share a packet.
    let mut payload = [0; 800];
    while expected < 71_000 {
        payload[..4].copy_from_slice(&next.to_be_bytes());
        if next < 71_000
            && c.send(0, port, Destination::Socket(to), &payload[..])
                .is_ok()
        {
            next += 1;
            continue;
        }
        c.run_for(Duration::from_micros(400));
        for m in c.recv_all(1, to.port) {
            assert_eq!(
                u32::from_be_bytes(m.bytes[..4].try_into().unwrap()),
                expected
            );
            expected += 1;
        }
    }
    assert!(stats(&c, 0, 1).tx_packets > 70_000);
    assert!(stats(&c, 0, 1).retransmitted > 500);
    c.segment.faults = Faults::default();
    c.run_for(Duration::from_secs(1));
    assert!(c.is_full_mesh());
    c.finish();
}

#[test]
fn a_packet_that_never_gets_through_fails_the_link_after_ten_tolerances() {
    let mut c = Cluster::settled(19, 2);
    let (port, to) = pair(&mut c);
    c.segment.filter = Some(Box::new(|flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        if is_data(msg) && flight.from == 0 {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
    c.notices(0);
    let start = c.now;
    c.send(0, port, Destination::Socket(to), &b"never"[..])
        .unwrap();
    c.until("down", |c| !c.is_up(0, 1));
    assert_eq!(down_reasons(&mut c, 0), [DownReason::RetransmitFailure]);
    let took = c.now.since(start);
    assert!(
        took > Duration::from_secs(15) && took < Duration::from_secs(17),
        "{took:?}"
    );
    c.finish();
}

#[test]
fn a_peer_that_is_ahead_of_what_was_sent_is_given_up_after_the_tolerance() {
    let mut c = Cluster::settled(26, 2);
    let (port, to) = pair(&mut c);
    c.segment.record = true;
    c.send(0, port, Destination::Socket(to), &b"one"[..])
        .unwrap();
    c.run_for(Duration::from_secs(1));
    let mut forged = numbered_from(&c, 0).pop().expect("the message").bytes;
    for _ in 0..5 {
        let next = field::SEQNO.get(&forged) + 1;
        field::SEQNO.set(&mut forged, next);
        c.receive(1, mac_of(0), &forged);
    }
    c.notices(0);
    let start = c.now;
    c.until("the disagreement has an end", |c| !c.is_up(0, 1));
    assert_eq!(down_reasons(&mut c, 0), [DownReason::Silence]);
    let took = c.now.since(start);
    assert!(took < Duration::from_secs(3), "{took:?}");
    c.until("up again", |c| c.is_full_mesh());
    c.texts(1, to.port);
    c.send(0, port, Destination::Socket(to), &b"two"[..])
        .unwrap();
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.texts(1, to.port), ["two"]);
    c.finish();
}

#[test]
fn a_retransmission_waits_while_the_frame_is_still_being_sent() {
    let mut c = Cluster::new(20);
    c.recipe.tx_hold_us = 500_000;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    c.segment.faults.loss = 100;
    let (port, to) = pair(&mut c);
    let mut sent = 0;
    while sent < 2000 {
        c.run_for(Duration::from_micros(100));
        match c.send(
            0,
            port,
            Destination::Socket(to),
            sent.to_string().as_bytes(),
        ) {
            Ok(()) => sent += 1,
            Err(_) => c.run_for(Duration::from_millis(1)),
        }
    }
    c.segment.faults.loss = 0;
    c.run_for(Duration::from_secs(20));
    assert_eq!(
        c.texts(1, to.port),
        (0..2000).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    assert!(c.node(0).engine.drops().get(Drop::RetransmitInFlight) > 0);
    c.segment.faults.loss = 0;
    c.run_for(Duration::from_secs(2));
    c.finish();
}

#[test]
fn a_bundle_of_returned_messages_has_system_importance() {
    let mut c = Cluster::settled(23, 2);
    let from = c.open_returning(0);
    c.segment.record = true;
    // Nobody has this port: each message comes back, and the later ones of them in bundles.
    let nobody = SocketAddr {
        port: PortId(7),
        node: c.addr(1),
    };
    let others: Vec<_> = (0..120).map(|_| c.open_returning(0).port).collect();
    for port in others.iter().chain([&from.port]) {
        c.send(0, *port, Destination::Socket(nobody), &b"back"[..])
            .unwrap();
    }
    c.run_for(Duration::from_secs(1));
    let bundles: Vec<_> = numbered_from(&c, 1)
        .into_iter()
        .filter(|s| Msg::check(&s.bytes).unwrap().user() == User::MsgBundler)
        .collect();
    assert!(!bundles.is_empty());
    for seen in bundles {
        let msg = Msg::check(&seen.bytes).unwrap();
        assert_eq!(msg.get(field::INNER_IMPORTANCE), Importance::System as u32);
    }
    c.finish();
}

#[test]
fn who_asks_for_one_frame_does_not_keep_who_asks_for_many_waiting_for_ever() {
    let mut c = Cluster::new(25);
    c.recipe.frames = 160;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    let (large, to) = pair(&mut c);
    let small: Vec<_> = (0..200).map(|_| c.open(0).port).collect();
    let big = vec![1; 60_000];
    let mut large_sent = 0;
    for _ in 0..400 {
        // The many come first, every time, and take all there is.
        for port in &small {
            let _ = c.send(0, *port, Destination::Socket(to), &big[..1400]);
        }
        if c.send(0, large, Destination::Socket(to), &big[..]).is_ok() {
            large_sent += 1;
        }
        c.run_for(Duration::from_micros(100));
        c.recv_all(1, to.port);
    }
    assert!(
        large_sent >= 10,
        "the large message went {large_sent} times"
    );
    c.run_for(Duration::from_secs(2));
    c.finish();
}
