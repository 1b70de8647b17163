//! Links coming up and going down: handshake, sessions, supervision.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId, SocketAddr};
use xtipc_protocol::host::{DownReason, Notice};
use xtipc_protocol::link::LinkParams;
use xtipc_protocol::stats::{Drop, LinkStats};
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{Body, Header, LinkProtocol, Msg, Reset, State, User, field};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::{Fate, Faults, Seen, mac_of};

/// The message in a packet. What it borrows of that is never freed: tests keep messages while the cluster goes on.
pub(crate) fn link_protocol(bytes: &[u8]) -> Option<LinkProtocol<'static>> {
    let msg = Msg::check(bytes).ok()?;
    if msg.user() != User::LinkProtocol || msg.flag(field::NON_SEQ) {
        return None;
    }
    let msg = Msg::check(bytes.to_vec().leak()).ok()?;
    Some(LinkProtocol::parse(msg, true).expect("sent by an engine"))
}

pub(crate) fn state<'a>(message: &'a LinkProtocol<'static>) -> Option<&'a State<'static>> {
    match &message.body {
        Body::State(state) => Some(state),
        _ => None,
    }
}

/// Unicast packets from `from` without discovery.
pub(crate) fn unicast_from(seen: &[Seen], from: usize) -> Vec<Seen> {
    let of_link = |s: &&Seen| {
        let msg = Msg::check(&s.bytes).unwrap();
        s.from == from && s.to.is_some() && msg.user() != User::LinkConfig
    };
    seen.iter().filter(of_link).cloned().collect()
}

pub(crate) fn states_from(c: &Cluster, from: usize) -> Vec<(Instant, LinkProtocol<'static>)> {
    let seen = unicast_from(&c.segment.seen, from).into_iter();
    seen.filter_map(|s| Some((s.at, link_protocol(&s.bytes)?)))
        .filter(|(_, m)| state(m).is_some())
        .collect()
}

/// Numbered packets from `from` in the order sent.
pub(crate) fn numbered_from(c: &Cluster, from: usize) -> Vec<Seen> {
    let seen = unicast_from(&c.segment.seen, from).into_iter();
    seen.filter(|s| Msg::check(&s.bytes).unwrap().user() != User::LinkProtocol)
        .collect()
}

pub(crate) fn stats(c: &Cluster, of: usize, peer: usize) -> LinkStats {
    c.link_view(of, peer).stats
}

pub(crate) fn down_reasons(c: &mut Cluster, station: usize) -> Vec<DownReason> {
    let down = |n| {
        if let Notice::LinkDown(_, reason, _) = n {
            Some(reason)
        } else {
            None
        }
    };
    c.notices(station).into_iter().filter_map(down).collect()
}

/// Two nodes with a socket each; the second's address.
pub(crate) fn pair(c: &mut Cluster) -> (PortId, SocketAddr) {
    (c.open(0).port, c.open(1))
}

/// A filter that drops each packet for which `wanted` says so, the first time only.
pub(crate) fn lose_once(c: &mut Cluster, mut wanted: impl FnMut(Msg<'_>) -> bool + 'static) {
    let mut lost = std::collections::HashSet::new();
    c.segment.filter = Some(Box::new(move |flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        let key = (
            flight.from,
            flight.to,
            msg.flag(field::NON_SEQ),
            msg.get16(field::SEQNO),
        );
        if wanted(msg) && lost.insert(key) {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
}

pub(crate) fn is_data(msg: Msg<'_>) -> bool {
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
        let (session, last_bcast) = (reset.session, reset.last_bcast);
        let mut interface = [0; 16];
        interface[..4].copy_from_slice(b"eth0");
        let body = Reset {
            peer_stopping: false,
            max_packet: 1500,
            interface,
        };
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
            last_bcast,
            next_sent: 1,
            ack: 0,
            seqno: 32768,
            body: Body::Reset(body.clone()),
        };
        assert_eq!(*reset, expected);
        assert_eq!(seen[0].bytes.len(), 56);
        let peer_reset = unicast_from(&c.segment.seen, peer)[0].bytes.clone();
        let peer_session = link_protocol(&peer_reset).unwrap().session;
        let at = parsed
            .iter()
            .position(|m| m.as_ref().is_none_or(|m| state(m).is_some()))
            .unwrap();
        for activate in &parsed[1..at] {
            let activate = activate.as_ref().unwrap();
            let dest_session = Some(peer_session);
            let body = Body::Activate {
                reset: body.clone(),
                dest_session,
            };
            assert_eq!(
                *activate,
                LinkProtocol {
                    body,
                    ..expected.clone()
                }
            );
        }
        // Up: STATE, the start point of the broadcasts, the bindings.
        let opening = parsed[at].as_ref().unwrap();
        let gaps = Some(xtipc_protocol::wire::GapAckRecord::default());
        let body = Body::State(State {
            gaps,
            ..State::default()
        });
        assert_eq!(
            *opening,
            LinkProtocol {
                seqno: 1,
                body,
                ..expected.clone()
            }
        );
        assert_eq!(seen[at].bytes[40..], [0, 4, 0, 0]);
        let first = Msg::check(&seen[at + 1].bytes).unwrap();
        assert_eq!(
            (first.user(), first.get16(field::SEQNO)),
            (User::BcastProtocol, 1)
        );
        assert_eq!(
            (
                first.get(field::LAST_BCAST),
                first.get(field::BC_ACK_INVALID)
            ),
            (last_bcast.into(), 1)
        );
        assert_eq!(first.bytes().len(), 40);
        let second = Msg::check(&seen[at + 2].bytes).unwrap();
        assert_eq!(
            (second.user(), second.get16(field::SEQNO)),
            (User::NameDistributor, 2)
        );
        let flags = [
            field::BULK,
            field::LAST_BULK,
            field::NON_LEGACY,
            field::BC_ACK_INVALID,
        ];
        assert!(flags.into_iter().all(|f| second.flag(f)));
        assert_eq!(
            second.get(field::NAMED_SEQNO),
            1,
            "NODE_STATE itself took number 0"
        );
        assert_eq!(second.bytes().len(), 60);
        // The next one acknowledges. An idle link is probed by the lower address and answered by the other.
        let next = parsed[at + 3].as_ref().unwrap();
        assert_eq!((next.seqno, next.ack, next.next_sent), (2, 2, 3));
        assert_eq!((next.bc_ack_invalid, next.redundant_link), (false, true));
        let rest: Vec<_> = parsed[at + 3..]
            .iter()
            .map(|m| m.clone().unwrap())
            .collect();
        let probes = rest.iter().filter(|m| state(m).unwrap().probe).count();
        let answers = rest.iter().filter(|m| state(m).unwrap().keepalive).count() - probes;
        let (some, none) = if c.addr(own) < c.addr(peer) {
            (probes, answers)
        } else {
            (answers, probes)
        };
        assert!(some >= 5 && none == 0, "{probes} probes, {answers} answers");
        let seqnos: Vec<_> = rest.iter().map(|m| m.seqno).collect();
        assert!(
            seqnos.iter().enumerate().all(|(i, s)| *s == 2 + i as u16),
            "{seqnos:?}"
        );
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
        if msg.user() == User::LinkProtocol {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
    c.run_for(Duration::from_secs(20));
    let at: Vec<_> = unicast_from(&c.segment.seen, 0)
        .iter()
        .map(|s| s.at.as_millis())
        .collect();
    let ticks: Vec<_> = at.iter().map(|t| (t - at[0]) / 375 + 1).collect();
    assert_eq!(ticks, [1, 2, 3, 4, 5, 16, 32, 48]);
    c.finish();
}

#[test]
fn a_peer_that_falls_silent_is_given_up_after_its_tolerance() {
    for (tolerance_ms, earliest, latest) in [(1500, 1379, 1488), (50, 74, 89), (10_000, 9420, 9988)]
    {
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
        assert!(
            (earliest..=latest).contains(&took),
            "tolerance {tolerance_ms} took {took}"
        );
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
    let Body::Reset(reset) = &farewell.body else {
        panic!("{farewell:?}")
    };
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
        assert!(
            took < Duration::from_secs(4),
            "after {uptime_s} s of life it took {took:?}"
        );
        assert_eq!(down_reasons(&mut c, 0), [DownReason::PeerReset]);
        let (port, to) = pair(&mut c);
        c.send(0, port, Destination::Socket(to), &b"still there?"[..])
            .unwrap();
        c.run_for(Duration::from_millis(1));
        assert_eq!(c.texts(1, to.port), ["still there?"]);
        c.run_for(Duration::from_secs(90));
        assert!(down_reasons(&mut c, 0).is_empty());
        c.finish();
    }
}

#[test]
fn a_restarted_node_is_answered_again_if_the_first_response_was_lost() {
    let mut c = Cluster::new(25);
    c.recipe.params.tolerance_ms = 20_000;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    // Node 0 itself searches once a minute only.
    c.run_for(Duration::from_secs(130));
    let mut lost = 0;
    c.segment.filter = Some(Box::new(move |flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        let response = flight.from == 0 && msg.user() == User::LinkConfig && msg.kind() == 1;
        lost += u32::from(response);
        if response && lost <= 2 {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
    let start = c.now;
    c.kill(1);
    c.start(1);
    c.until("up again", |c| c.is_up(1, 0) && c.is_up(0, 1));
    assert!(c.now.since(start) < Duration::from_secs(5));
    c.finish();
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
    let old: Vec<_> = c
        .segment
        .seen
        .iter()
        .filter(|s| link_protocol(&s.bytes).is_some())
        .cloned()
        .collect();
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
    c.segment.faults = Faults {
        loss: 10,
        duplication: 10,
        ..Faults::default()
    };
    let (port, to) = pair(&mut c);
    let mut n = 0;
    while stats(&c, 0, 1).tx_states < 67_000 {
        c.run_for(Duration::from_secs(10));
        c.send(0, port, Destination::Socket(to), format!("{n}").as_bytes())
            .unwrap();
        n += 1;
    }
    c.run_for(Duration::from_secs(1));
    assert!(down_reasons(&mut c, 0).is_empty());
    assert_eq!(
        c.texts(1, to.port),
        (0..n).map(|n| n.to_string()).collect::<Vec<_>>()
    );
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
    c.send(0, port, Destination::Socket(to), &[7; 5000][..])
        .unwrap();
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
            if n == lost + 1 {
                Fate::Lose
            } else {
                Fate::Pass
            }
        }));
        c.until("up", |c| c.is_full_mesh());
        c.run_for(Duration::from_secs(3));
        assert!(c.is_full_mesh(), "packet {lost} lost");
        let server = c.open(1);
        c.bind(1, server.port, (5000, 0, 9));
        c.run_for(Duration::from_secs(1));
        let client = c.open(0);
        c.send(
            0,
            client.port,
            xtipc_sim::cluster::service(5000, 4),
            &b"hello"[..],
        )
        .unwrap();
        c.run_for(Duration::from_secs(1));
        assert_eq!(c.texts(1, server.port), ["hello"], "packet {lost} lost");
        c.finish();
    }
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
        .set(
            field::DEST_SESSION,
            u32::from(states_from(&c, 0)[0].1.session.wrapping_add(100)),
        )
        .set(field::BEARER_ID, 5)
        .set(field::MAX_PKT, 375)
        .set_payload_len(16);
    let packet = [header.as_bytes(), &[0; 16]].concat();
    c.receive(0, mac_of(1), &packet);
    header.set(
        field::DEST_SESSION,
        u32::from(states_from(&c, 0)[0].1.session),
    );
    c.receive(0, mac_of(1), &[header.as_bytes(), &[0; 16]].concat());
    c.run_for(Duration::from_secs(5));
    assert!(c.is_full_mesh());
    assert!(down_reasons(&mut c, 0).is_empty() && down_reasons(&mut c, 1).is_empty());
    c.stop(1);
    c.run_for(Duration::from_secs(1));
    let left: Vec<_> = c
        .node(0)
        .engine
        .publications()
        .filter(|p| p.range.type_ == 2)
        .collect();
    assert!(
        left.is_empty(),
        "the link is down, its binding is not: {left:?}"
    );
    c.finish();
}

#[test]
fn default_parameters_are_those_of_linux() {
    let LinkParams {
        priority,
        tolerance_ms,
        min_window,
        max_window,
    } = LinkParams::default();
    assert_eq!(
        (priority, tolerance_ms, min_window, max_window),
        (10, 1500, 50, 8191)
    );
}

#[test]
fn an_idle_link_is_only_looked_at_to_probe_its_peer() {
    let mut c = Cluster::settled(9, 2);
    let (before, end) = (c.segment.packets, c.now + Duration::from_secs(10));
    let mut steps = 0;
    while c.step(end) {
        steps += 1;
    }
    // Each probe and each answer arrives, and at each end one timer leads to the next probe, or finds that none is needed.
    let packets = c.segment.packets - before;
    assert!(
        packets > 200 && steps <= 2 * packets + 4,
        "{steps} for {packets}"
    );
}
