//! Links: coming up, going down, order, loss, windows, limits.

use super::cluster::{Cluster, Recipe};
use super::segment::{Fate, Faults, Seen, mac_of};
use crate::addr::{Destination, PortId, SocketAddr};
use crate::engine::SendError;
use crate::host::{DownReason, Notice};
use crate::link::LinkParams;
use crate::stats::{Drop, LinkStats};
use crate::time::Instant;
use crate::wire::{Body, Bundle, Header, Importance, LinkProtocol, Msg, Reset, State, User, aligned, field, size};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

pub(super) fn link_protocol(bytes: &[u8]) -> Option<LinkProtocol> {
    let msg = Msg::check(bytes).ok()?;
    let is_one = msg.user() == User::LinkProtocol && !msg.flag(field::NON_SEQ);
    is_one.then(|| LinkProtocol::parse(msg, true).expect("sent by an engine"))
}

fn state(message: &LinkProtocol) -> Option<&State> {
    match &message.body {
        Body::State(state) => Some(state),
        _ => None,
    }
}

/// Unicast packets from `from` without discovery.
fn unicast_from(seen: &[Seen], from: usize) -> Vec<Seen> {
    let of_link = |s: &&Seen| {
        let msg = Msg::check(&s.bytes).unwrap();
        s.from == from && s.to.is_some() && msg.user() != User::LinkConfig
    };
    seen.iter().filter(of_link).cloned().collect()
}

fn states_from(c: &Cluster, from: usize) -> Vec<(Instant, LinkProtocol)> {
    let seen = unicast_from(&c.segment.seen, from).into_iter();
    seen.filter_map(|s| Some((s.at, link_protocol(&s.bytes)?))).filter(|(_, m)| state(m).is_some()).collect()
}

/// Numbered packets from `from` in the order sent.
fn numbered_from(c: &Cluster, from: usize) -> Vec<Seen> {
    let seen = unicast_from(&c.segment.seen, from).into_iter();
    seen.filter(|s| Msg::check(&s.bytes).unwrap().user() != User::LinkProtocol).collect()
}

fn stats(c: &Cluster, of: usize, peer: usize) -> LinkStats {
    c.peer_view(of, peer).and_then(|p| p.link).expect("they know each other").stats
}

fn down_reasons(c: &mut Cluster, station: usize) -> Vec<DownReason> {
    let down = |n| if let Notice::LinkDown(_, reason) = n { Some(reason) } else { None };
    c.notices(station).into_iter().filter_map(down).collect()
}

/// Two nodes with a socket each; the second's address.
fn pair(c: &mut Cluster) -> (PortId, SocketAddr) {
    (c.open(0).port, c.open(1))
}

/// A filter that drops each packet for which `wanted` says so, the first time only.
fn lose_once(c: &mut Cluster, mut wanted: impl FnMut(Msg<'_>) -> bool + 'static) {
    let mut lost = std::collections::HashSet::new();
    c.segment.filter = Some(Box::new(move |flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        let key = (flight.from, flight.to, msg.flag(field::NON_SEQ), msg.get16(field::SEQNO));
        if wanted(msg) && lost.insert(key) { Fate::Lose } else { Fate::Pass }
    }));
}

fn is_data(msg: Msg<'_>) -> bool {
    msg.user().is_data() || matches!(msg.user(), User::MsgFragmenter | User::MsgBundler)
}

#[test]
fn the_handshake_is_the_one_that_linux_nodes_do() {
    let mut c = Cluster::new(1);
    c.segment.record = true;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(2));
    for (own, peer) in [(0, 1), (1, 0)] {
        let seen = unicast_from(&c.segment.seen, own);
        let parsed: Vec<_> = seen.iter().map(|s| link_protocol(&s.bytes)).collect();
        let reset = parsed[0].as_ref().unwrap();
        let session = reset.session;
        let mut interface = [0; 16];
        interface[..4].copy_from_slice(b"eth0");
        let body = Reset { peer_stopping: false, max_packet: 1500, interface };
        let expected = LinkProtocol {
            own: c.addr(own).0,
            peer: c.addr(peer).0,
            session,
            bearer_id: 0,
            net_plane: 0,
            tolerance_ms: 0,
            priority: 0,
            redundant_link: false,
            bc_ack_invalid: true,
            bcast_ack: 0,
            last_bcast: 0,
            next_sent: 1,
            ack: 0,
            seqno: 32768,
            body: Body::Reset(body.clone()),
        };
        assert_eq!(*reset, expected);
        assert_eq!(seen[0].bytes.len(), 56);
        let peer_reset = unicast_from(&c.segment.seen, peer)[0].bytes.clone();
        let peer_session = link_protocol(&peer_reset).unwrap().session;
        let at = parsed.iter().position(|m| m.as_ref().is_none_or(|m| state(m).is_some())).unwrap();
        for activate in &parsed[1..at] {
            let activate = activate.as_ref().unwrap();
            let dest_session = Some(peer_session);
            let body = Body::Activate { reset: body.clone(), dest_session };
            assert_eq!(*activate, LinkProtocol { body, ..expected.clone() });
        }
        // Up: STATE, the start point of the broadcasts, the bindings.
        let opening = parsed[at].as_ref().unwrap();
        let gaps = Some(crate::wire::GapAckRecord::default());
        let body = Body::State(State { gaps, ..State::default() });
        assert_eq!(*opening, LinkProtocol { seqno: 1, body, ..expected.clone() });
        assert_eq!(seen[at].bytes[40..], [0, 4, 0, 0]);
        let first = Msg::check(&seen[at + 1].bytes).unwrap();
        assert_eq!((first.user(), first.get16(field::SEQNO)), (User::BcastProtocol, 1));
        assert_eq!((first.get(field::LAST_BCAST), first.get(field::BC_ACK_INVALID)), (0, 1));
        assert_eq!(first.bytes().len(), 40);
        let second = Msg::check(&seen[at + 2].bytes).unwrap();
        assert_eq!((second.user(), second.get16(field::SEQNO)), (User::NameDistributor, 2));
        let flags = [field::BULK, field::LAST_BULK, field::NON_LEGACY, field::BC_ACK_INVALID];
        assert!(flags.into_iter().all(|f| second.flag(f)));
        assert_eq!(second.get(field::NAMED_SEQNO), 1, "NODE_STATE itself took number 0");
        assert_eq!(second.bytes().len(), 60);
        // The next tick acknowledges; idle links probe at every tick and answer every probe.
        let next = parsed[at + 3].as_ref().unwrap();
        assert_eq!((next.seqno, next.ack, next.next_sent), (2, 2, 3));
        assert_eq!((next.bc_ack_invalid, next.redundant_link), (false, true));
        assert!(!state(next).unwrap().probe);
        let rest: Vec<_> = parsed[at + 4..].iter().map(|m| m.clone().unwrap()).collect();
        assert!(rest.iter().all(|m| state(m).unwrap().keepalive));
        let probes = rest.iter().filter(|m| state(m).unwrap().probe).count();
        assert!(probes >= 3 && rest.len() - probes >= 3);
        let seqnos: Vec<_> = rest.iter().map(|m| m.seqno).collect();
        assert!(seqnos.iter().enumerate().all(|(i, s)| *s == 3 + i as u16), "{seqnos:?}");
    }
    c.finish();
}

#[test]
fn five_resets_are_sent_at_ticks_and_then_one_in_sixteen() {
    let mut c = Cluster::new(2);
    c.start(0);
    c.start(1);
    c.segment.record = true;
    // Node 0 hears discovery only.
    c.segment.filter = Some(Box::new(|flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        if msg.user() == User::LinkProtocol { Fate::Lose } else { Fate::Pass }
    }));
    c.run_for(Duration::from_secs(20));
    let at: Vec<_> = unicast_from(&c.segment.seen, 0).iter().map(|s| s.at.as_millis()).collect();
    let ticks: Vec<_> = at.iter().map(|t| (t - at[0]) / 375 + 1).collect();
    assert_eq!(ticks, [1, 2, 3, 4, 5, 16, 32, 48]);
    c.finish();
}

#[test]
fn a_peer_that_falls_silent_is_given_up_after_its_tolerance() {
    for (tolerance_ms, earliest, latest) in [(1500, 1500, 2260), (50, 50, 100), (10_000, 10_000, 11_010)] {
        let mut c = Cluster::new(3);
        c.recipe.params.tolerance_ms = tolerance_ms;
        c.start(0);
        c.start(1);
        c.until("up", |c| c.is_full_mesh());
        c.run_for(Duration::from_secs(1));
        c.notices(0);
        let start = c.now;
        c.kill(1);
        let gone = |c: &Cluster| c.node(0).engine.peers().all(|p| !p.up);
        c.until("the link is down", gone);
        assert_eq!(down_reasons(&mut c, 0), [DownReason::Silence]);
        let took = c.now.since(start).as_millis();
        assert!((earliest..=latest).contains(&took), "tolerance {tolerance_ms} took {took}");
        c.finish();
    }
}

#[test]
fn an_orderly_stop_is_seen_at_once() {
    let mut c = Cluster::settled(4, 2);
    c.segment.record = true;
    let sessions: Vec<_> = states_from(&c, 1).iter().map(|(_, m)| m.session).collect();
    c.notices(0);
    c.stop(1);
    c.run_for(Duration::from_millis(1));
    assert_eq!(down_reasons(&mut c, 0), [DownReason::PeerStopping]);
    let farewell = link_protocol(&c.segment.seen[0].bytes).unwrap();
    let Body::Reset(reset) = &farewell.body else { panic!("{farewell:?}") };
    assert!(reset.peer_stopping);
    assert!(sessions.iter().all(|s| *s != farewell.session));
    c.finish();
}

#[test]
fn a_node_that_crashed_and_restarts_is_back_long_before_the_tolerance() {
    // The sessions of a long life are no nearer than those of a short one.
    for uptime_s in [10, 400, 700] {
        let mut c = Cluster::new(5);
        c.recipe.params.tolerance_ms = 20_000;
        c.start(0);
        c.start(1);
        c.until("up", |c| c.is_full_mesh());
        c.run_for(Duration::from_secs(uptime_s));
        c.notices(0);
        let start = c.now;
        c.kill(1);
        c.start(1);
        c.until("up again", |c| c.is_up(1, 0) && c.is_up(0, 1));
        let took = c.now.since(start);
        assert!(took < Duration::from_secs(4), "after {uptime_s} s of life it took {took:?}");
        assert_eq!(down_reasons(&mut c, 0), [DownReason::PeerReset]);
        let (port, to) = pair(&mut c);
        c.send(0, port, Destination::Socket(to), &b"still there?"[..]).unwrap();
        c.run_for(Duration::from_millis(1));
        assert_eq!(c.texts(1, to.port), ["still there?"]);
        c.run_for(Duration::from_secs(90));
        assert!(down_reasons(&mut c, 0).is_empty());
        c.finish();
    }
}

#[test]
fn session_numbers_wrap_while_a_link_goes_down_and_up() {
    let mut c = Cluster::new(6);
    c.now = Instant::from_millis(655_300);
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    for _ in 0..12 {
        let before = c.now;
        c.notices(1);
        let now = c.now;
        c.with(0, |node| node.engine.stop(now, &mut node.host));
        c.run_for(Duration::from_millis(1));
        assert_eq!(down_reasons(&mut c, 1), [DownReason::PeerStopping]);
        c.until("up again", |c| c.is_full_mesh());
        assert!(c.now.since(before) < Duration::from_secs(2));
    }
    c.finish();
}

#[test]
fn packets_of_earlier_sessions_change_nothing() {
    let mut c = Cluster::new(7);
    c.segment.record = true;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    let now = c.now;
    c.with(0, |node| node.engine.stop(now, &mut node.host));
    c.until("up again", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(2));
    let old: Vec<_> = c.segment.seen.iter().filter(|s| link_protocol(&s.bytes).is_some()).cloned().collect();
    c.notices(0);
    c.notices(1);
    for seen in old {
        let to = seen.to.unwrap();
        c.receive(to, mac_of(seen.from), &seen.bytes);
    }
    c.run_for(Duration::from_secs(5));
    assert!(c.is_full_mesh());
    assert!(c.notices(0).is_empty() && c.notices(1).is_empty());
    for station in 0..2 {
        assert!(c.node(station).engine.drops().get(Drop::StaleSession) > 10);
    }
    c.finish();
}

#[test]
fn a_single_loss_is_asked_for_at_the_third_packet_behind_it_and_sent_again_once() {
    let mut c = Cluster::settled(8, 2);
    let (port, to) = pair(&mut c);
    c.segment.record = true;
    let before = numbered_from(&c, 0).len();
    assert_eq!(before, 0);
    let base = c.peer_view(0, 1).unwrap().link.unwrap();
    assert_eq!(base.queue_len, 0);
    let mut first = None;
    lose_once(&mut c, move |msg| {
        let seqno = msg.get16(field::SEQNO);
        is_data(msg) && [2, 3, 8].contains(&(seqno - *first.get_or_insert(seqno)))
    });
    for n in 0..12 {
        c.send(0, port, Destination::Socket(to), n.to_string().as_bytes()).unwrap();
        c.run_for(Duration::from_millis(2));
    }
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.texts(1, to.port), (0..12).map(|n| n.to_string()).collect::<Vec<_>>());
    let first = Msg::check(&numbered_from(&c, 0)[0].bytes).unwrap().get16(field::SEQNO);
    let states = states_from(&c, 1);
    let nack = states.iter().find(|(_, m)| state(m).unwrap().seq_gap > 0).unwrap();
    // 0 and 1 arrived, 2 and 3 are missing, 4 5 6 are behind them.
    assert_eq!(nack.1.ack, first + 1);
    assert_eq!(state(&nack.1).unwrap().seq_gap, 2);
    let blocks = &state(&nack.1).unwrap().gaps.as_ref().unwrap().unicast;
    assert_eq!(blocks.iter().map(|b| (b.ack, b.gap)).collect::<Vec<_>>(), [(first + 6, 0)]);
    assert_eq!(stats(&c, 0, 1).retransmitted, 3);
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
        c.send(0, port, Destination::Socket(to), text.as_bytes()).unwrap();
    }
    c.run_for(Duration::from_millis(2 * 375 + 5));
    assert_eq!(c.texts(1, to.port), ["one", "two"]);
    let states = states_from(&c, 1);
    let nack = states.iter().find(|(at, m)| *at > start && state(m).unwrap().seq_gap > 0).unwrap();
    assert_eq!(state(&nack.1).unwrap().seq_gap, 2);
    assert!(state(&nack.1).unwrap().gaps.as_ref().unwrap().unicast.is_empty());
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
    let acks: Vec<_> = states_from(&c, 1).into_iter().filter(|(at, _)| *at > start).collect();
    let first = Msg::check(&numbered_from(&c, 0)[0].bytes).unwrap().get16(field::SEQNO);
    assert_eq!(acks.iter().map(|(_, m)| m.ack).collect::<Vec<_>>(), [first + 15, first + 31]);
    assert!(acks.iter().all(|(_, m)| !state(m).unwrap().keepalive));
    c.finish();
}

#[test]
fn the_window_grows_under_load_shrinks_by_loss_and_restarts_when_idle() {
    let mut c = Cluster::settled(11, 2);
    let (port, to) = pair(&mut c);
    let window = |c: &Cluster| c.peer_view(0, 1).unwrap().link.unwrap().window;
    assert_eq!(window(&c), 50);
    let payload = [0; 1300];
    let pump = |c: &mut Cluster, rounds: usize| {
        for _ in 0..rounds {
            while c.send(0, port, Destination::Socket(to), &payload[..]).is_ok() {}
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
    let levels =
        [(Importance::Low, 100), (Importance::Medium, 200), (Importance::High, 300), (Importance::Critical, 400)];
    for (importance, limit) in levels {
        for tolerated in [true, false] {
            let mut c = Cluster::settled(12, 2);
            let (port, to) = pair(&mut c);
            c.with(0, |n| n.engine.port_mut(port).unwrap().importance = importance);
            c.segment.cut(0, 1);
            let payload = [0; 1000];
            let mut sent = 0;
            while c.send(0, port, Destination::Socket(to), &payload[..]).is_ok() {
                sent += 1;
            }
            assert_eq!(sent, 50 + limit + 1);
            assert_eq!(c.send(0, port, Destination::Socket(to), &payload[..]), Err(SendError::Congested));
            assert!(!c.notices(0).contains(&Notice::Writable(port)));
            // Another socket is not held up before its own message met the congestion.
            let other = c.open(0).port;
            c.with(0, |n| n.engine.port_mut(other).unwrap().importance = importance);
            assert!(c.send(0, other, Destination::Socket(to), &payload[..]).is_ok());
            assert!(c.send(0, other, Destination::Socket(to), &payload[..]).is_err());
            if tolerated {
                c.segment.heal();
            }
            c.run_for(Duration::from_secs(4));
            let notices = c.notices(0);
            assert!(notices.contains(&Notice::Writable(port)) && notices.contains(&Notice::Writable(other)));
            if tolerated {
                assert_eq!(c.recv_all(1, to.port).len(), sent + 1);
                assert!(c.send(0, port, Destination::Socket(to), &payload[..]).is_ok());
            } else {
                assert_eq!(c.send(0, port, Destination::Socket(to), &payload[..]), Err(SendError::Unreachable));
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
    let texts: Vec<_> = (0..120usize).map(|n| format!("{n}{}", "x".repeat(n % 7))).collect();
    for text in &texts {
        c.send(0, port, Destination::Socket(to), text.as_bytes()).unwrap();
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
        assert_eq!((msg.prev_node(), msg.orig_node()), (c.addr(0).0, c.addr(0).0));
        assert_eq!(msg.get(field::DEST_NODE), c.addr(1).0);
        let mut at = 0;
        let mut count = 0;
        for inner in Bundle::new(msg) {
            at = aligned(at) + inner.size();
            count += 1;
        }
        assert_eq!(at, msg.payload().len(), "the bundle ends with its last message");
        assert_eq!(msg.get(field::MSG_COUNT), count);
        inside += count;
    }
    assert_eq!(inside, 70, "fifty went out alone, the others shared packets");
    // 39 or 38 messages of 32 bytes of header and 1 to 10 of text fit into 1460 bytes.
    assert_eq!(bundles.len(), 2);
    assert_eq!((stats(&c, 0, 1).tx_bundles, stats(&c, 0, 1).tx_bundled), (2, 70));
    assert_eq!((stats(&c, 1, 0).rx_bundles, stats(&c, 1, 0).rx_bundled), (2, 70));
    c.finish();
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_their_fragments_are_never_mixed() {
    for (mtu, tx_hold_us) in [(1500, 0), (1500, 300), (576, 0), (2000, 100)] {
        let mut c = Cluster::new(14);
        c.recipe = Recipe { mtu, tx_hold_us, ..c.recipe };
        c.start(0);
        c.start(1);
        c.until("up", |c| c.is_full_mesh());
        c.segment.faults = Faults { loss: 20, duplication: 20, reordering: 50, straggle_us: 300, corruption: 0 };
        let (port, to) = pair(&mut c);
        let others = [port, c.open(0).port, c.open(0).port];
        let mss = mtu - size::INT;
        let edge = mss - size::BASIC;
        let lengths = [edge - 1, edge, edge + 1, 2 * mss, 3 * mss - 1, 10_000, 65_999, 66_000, 1, 40_000];
        c.segment.record = true;
        let mut expected = Vec::new();
        for len in lengths {
            for (tag, from) in others.iter().enumerate() {
                let payload: Vec<_> = (0..len).map(|i| (i * 7 + tag) as u8).collect();
                while c.send(0, *from, Destination::Socket(to), &payload[..]) == Err(SendError::Congested) {
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
            let want: Vec<_> = expected.iter().filter(|(p, _)| of(p)).map(|(_, b)| b.len()).collect();
            let have = got.iter().filter(|m| of(&m.about.source.port));
            assert_eq!(have.clone().map(|m| m.bytes.len()).collect::<Vec<_>>(), want);
            let want = expected.iter().filter(|(p, _)| of(p)).map(|(_, b)| b);
            assert!(have.map(|m| &m.bytes).eq(want), "contents of {from:?}, MTU {mtu}");
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
            if c.send(0, *from, Destination::Socket(to), &payload[..]).is_ok() {
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
        let n = senders.iter().position(|s| *s == m.about.source.port).unwrap();
        assert_eq!(u32::from_be_bytes(m.bytes[..4].try_into().unwrap()), next[n]);
        next[n] += 1;
    }
    assert_eq!(next, sent);
    assert!(sent.iter().all(|n| *n > 20), "every sender gets its turn: {sent:?}");
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
    assert!(c.send(0, other, Destination::Socket(to), &big[..40_000]).is_ok());
    c.notices(0);
    let third = c.open(0).port;
    assert_eq!(c.send(0, third, Destination::Socket(to), &big[..]), Err(SendError::Congested));
    c.run_for(Duration::from_millis(300));
    assert!(!c.notices(0).contains(&Notice::Writable(third)), "there is no room yet");
    c.segment.heal();
    c.until("writable", |c| c.node(0).host.notices.contains(&Notice::Writable(third)));
    assert!(c.send(0, third, Destination::Socket(to), &big[..]).is_ok());
    c.run_for(Duration::from_secs(2));
    assert_eq!(c.recv_all(1, to.port).len(), 3);
    c.finish();
}

#[test]
fn packet_numbers_wrap_under_loss_and_nothing_is_lost_doubled_or_reordered() {
    let mut c = Cluster::settled(17, 2);
    c.strict = false;
    c.segment.faults = Faults { loss: 20, duplication: 10, reordering: 20, straggle_us: 200, corruption: 0 };
    let (port, to) = pair(&mut c);
    let mut next = 0u32;
    let mut expected = 0u32;
    // Messages too large to share a packet.
    let mut payload = [0; 800];
    while expected < 71_000 {
        payload[..4].copy_from_slice(&next.to_be_bytes());
        if next < 71_000 && c.send(0, port, Destination::Socket(to), &payload[..]).is_ok() {
            next += 1;
            continue;
        }
        c.run_for(Duration::from_micros(400));
        for m in c.recv_all(1, to.port) {
            assert_eq!(u32::from_be_bytes(m.bytes[..4].try_into().unwrap()), expected);
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
fn state_numbers_wrap_under_loss_and_the_link_stays_up() {
    let mut c = Cluster::new(18);
    c.strict = false;
    c.recipe.params.tolerance_ms = 50;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    c.notices(0);
    // One loss in a hundred never makes six in a row here.
    c.segment.faults = Faults { loss: 10, duplication: 10, ..Faults::default() };
    let (port, to) = pair(&mut c);
    let mut n = 0;
    while stats(&c, 0, 1).tx_states < 67_000 {
        c.run_for(Duration::from_secs(10));
        c.send(0, port, Destination::Socket(to), format!("{n}").as_bytes()).unwrap();
        n += 1;
    }
    c.run_for(Duration::from_secs(1));
    assert!(down_reasons(&mut c, 0).is_empty());
    assert_eq!(c.texts(1, to.port), (0..n).map(|n| n.to_string()).collect::<Vec<_>>());
    c.finish();
}

#[test]
fn a_packet_that_never_gets_through_fails_the_link_after_ten_tolerances() {
    let mut c = Cluster::settled(19, 2);
    let (port, to) = pair(&mut c);
    c.segment.filter = Some(Box::new(|flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        if is_data(msg) && flight.from == 0 { Fate::Lose } else { Fate::Pass }
    }));
    c.notices(0);
    let start = c.now;
    c.send(0, port, Destination::Socket(to), &b"never"[..]).unwrap();
    c.until("down", |c| !c.is_up(0, 1));
    assert_eq!(down_reasons(&mut c, 0), [DownReason::RetransmitFailure]);
    let took = c.now.since(start);
    assert!(took > Duration::from_secs(15) && took < Duration::from_secs(17), "{took:?}");
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
        match c.send(0, port, Destination::Socket(to), sent.to_string().as_bytes()) {
            Ok(()) => sent += 1,
            Err(_) => c.run_for(Duration::from_millis(1)),
        }
    }
    c.segment.faults.loss = 0;
    c.run_for(Duration::from_secs(20));
    assert_eq!(c.texts(1, to.port), (0..2000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(c.node(0).engine.drops().get(Drop::RetransmitInFlight) > 0);
    c.segment.faults.loss = 0;
    c.run_for(Duration::from_secs(2));
    c.finish();
}

#[test]
fn ends_with_different_mtu_agree_on_the_smaller_one() {
    let mut c = Cluster::new(21);
    c.start(0);
    c.recipe.mtu = 600;
    c.start(1);
    let largest = Rc::new(RefCell::new(0));
    let seen = largest.clone();
    c.segment.filter = Some(Box::new(move |flight| {
        let mut seen = seen.borrow_mut();
        *seen = flight.bytes.len().max(*seen);
        Fate::Pass
    }));
    c.until("up", |c| c.is_full_mesh());
    let (port, to) = pair(&mut c);
    c.send(0, port, Destination::Socket(to), &[7; 5000][..]).unwrap();
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.recv(1, to.port).unwrap().bytes, [7; 5000]);
    assert!(*largest.borrow() <= 600);
    c.finish();
}

#[test]
fn a_lost_opening_state_or_start_point_delays_the_link_and_no_more() {
    for lost in 0..12u32 {
        let mut c = Cluster::new(22);
        c.start(0);
        c.start(1);
        let mut n = 0;
        c.segment.filter = Some(Box::new(move |flight| {
            let msg = Msg::check(&flight.bytes).unwrap();
            if msg.user() == User::LinkConfig {
                return Fate::Pass;
            }
            n += 1;
            if n == lost + 1 { Fate::Lose } else { Fate::Pass }
        }));
        c.until("up", |c| c.is_full_mesh());
        c.run_for(Duration::from_secs(3));
        assert!(c.is_full_mesh(), "packet {lost} lost");
        let server = c.open(1);
        c.bind(1, server.port, (5000, 0, 9));
        c.run_for(Duration::from_secs(1));
        let client = c.open(0);
        c.send(0, client.port, super::cluster::service(5000, 4), &b"hello"[..]).unwrap();
        c.run_for(Duration::from_secs(1));
        assert_eq!(c.texts(1, server.port), ["hello"], "packet {lost} lost");
        c.finish();
    }
}

#[test]
fn a_bundle_of_returned_messages_has_system_importance() {
    let mut c = Cluster::settled(23, 2);
    let from = c.open_returning(0);
    c.segment.record = true;
    // Nobody has this port: each message comes back, and the later ones of them in bundles.
    let nobody = SocketAddr { port: PortId(7), node: c.addr(1) };
    let others: Vec<_> = (0..120).map(|_| c.open_returning(0).port).collect();
    for port in others.iter().chain([&from.port]) {
        c.send(0, *port, Destination::Socket(nobody), &b"back"[..]).unwrap();
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
fn an_established_link_keeps_its_session_whatever_an_activate_says() {
    let mut c = Cluster::settled(24, 2);
    c.segment.record = true;
    c.run_for(Duration::from_secs(1));
    let (_, last) = states_from(&c, 1).pop().unwrap();
    let mut header = Header::internal(User::LinkProtocol, 2, c.addr(1).0, c.addr(0).0);
    header
        .set(field::SESSION, last.session.into())
        .set(field::DEST_SESSION_VALID, 1)
        .set(field::DEST_SESSION, u32::from(states_from(&c, 0)[0].1.session.wrapping_add(100)))
        .set(field::BEARER_ID, 5)
        .set(field::MAX_PKT, 375)
        .set_payload_len(16);
    let packet = [header.as_bytes(), &[0; 16]].concat();
    c.receive(0, mac_of(1), &packet);
    header.set(field::DEST_SESSION, u32::from(states_from(&c, 0)[0].1.session));
    c.receive(0, mac_of(1), &[header.as_bytes(), &[0; 16]].concat());
    c.run_for(Duration::from_secs(5));
    assert!(c.is_full_mesh());
    assert!(down_reasons(&mut c, 0).is_empty() && down_reasons(&mut c, 1).is_empty());
    c.stop(1);
    c.run_for(Duration::from_secs(1));
    let left: Vec<_> = c.node(0).engine.publications().filter(|p| p.range.type_ == 2).collect();
    assert!(left.is_empty(), "the link is down, its binding is not: {left:?}");
    c.finish();
}

#[test]
fn default_parameters_are_those_of_linux() {
    let LinkParams { priority, tolerance_ms, min_window, max_window } = LinkParams::default();
    assert_eq!((priority, tolerance_ms, min_window, max_window), (10, 1500, 50, 8191));
}
