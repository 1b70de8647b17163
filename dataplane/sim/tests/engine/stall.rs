//! Nodes that stand still for longer than their peers have patience, and come back.

use crate::link::{down_reasons, link_protocol, unicast_from};
use std::time::Duration;
use xtipc_protocol::addr::Destination;
use xtipc_protocol::host::DownReason;
use xtipc_protocol::link::TRANSIT_MAX;
use xtipc_protocol::wire::{Body, Header, User, field};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::mac_of;

const STALL: Duration = Duration::from_secs(10);

fn seconds_until_mesh(c: &mut Cluster) -> f64 {
    let resumed = c.now;
    c.until("the links are back", |c| c.is_full_mesh());
    c.now.since(resumed).as_secs_f64()
}

#[test]
fn a_node_that_stood_still_and_missed_all_resets_is_back_within_a_second() {
    for tolerance_ms in [300, 1500] {
        let mut c = Cluster::new(31);
        c.recipe.params.tolerance_ms = tolerance_ms;
        c.start(0);
        c.start(1);
        c.until("up", |c| c.is_full_mesh());
        c.run_for(Duration::from_secs(1));
        let node = c.freeze(1);
        c.run_for(STALL);
        assert_eq!(down_reasons(&mut c, 0), [DownReason::Silence]);
        c.thaw(1, node);
        // Its peer stays silent: Linux does not answer what comes from an earlier session.
        c.segment.cut(0, 1);
        c.segment.cuts.remove(&(1, 0));
        let resumed = c.now;
        c.until("the node knows by itself", |c| !c.is_up(1, 0));
        c.segment.heal();
        c.until("the link is back", |c| c.is_full_mesh());
        let took = c.now.since(resumed);
        assert!(took < Duration::from_secs(1), "{tolerance_ms}: {took:?}");
        c.finish();
    }
}

#[test]
fn a_peer_that_does_not_know_it_was_given_up_is_told_at_the_next_tick() {
    let mut c = Cluster::new(32);
    c.start(0);
    // It has no reason to notice that it is cut off.
    c.recipe.params.tolerance_ms = 30_000;
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    c.segment.cut(0, 1);
    c.run_for(STALL);
    assert!(!c.is_up(0, 1) && c.is_up(1, 0));
    c.segment.heal();
    let took = seconds_until_mesh(&mut c);
    assert!(took < 1.0, "took {took} s");
    assert_eq!(down_reasons(&mut c, 1), [DownReason::PeerReset]);
    c.run_for(Duration::from_secs(5));
    assert!(c.is_full_mesh());
    c.finish();
}

#[test]
fn nodes_that_stood_still_together_do_not_blame_each_other() {
    for ms in [1000, 1400, 1500, 1600, 2000, 10_000] {
        let mut c = Cluster::settled(33, 2);
        let nodes = [0, 1].map(|station| c.freeze(station));
        c.run_for(Duration::from_millis(ms));
        for (station, node) in (0..).zip(nodes) {
            c.thaw(station, node);
        }
        c.notices(0);
        c.notices(1);
        c.run_for(STALL);
        assert!(c.is_full_mesh());
        let reasons = [0, 1].map(|station| down_reasons(&mut c, station));
        assert!(reasons.concat().is_empty(), "{ms} ms: {reasons:?}");
        c.finish();
    }
}

/// Whatever it was about to say when it stopped, and which end probes.
#[test]
fn a_peer_that_stands_still_for_nine_tenths_of_the_tolerance_is_never_lost() {
    for tolerance_ms in [50, 300, 1500, 10_000] {
        let mut c = Cluster::new(35);
        c.recipe.params.tolerance_ms = tolerance_ms;
        c.start(0);
        c.start(1);
        c.until("up", |c| c.is_full_mesh());
        let share = |percent: u32| Duration::from_micros(u64::from(tolerance_ms * percent * 10));
        for phase in 0..40 {
            c.run_for(share(31 + phase % 7));
            c.suspend(phase as usize % 2, share(90), 2048);
            c.run_for(share(150));
            assert!(c.is_full_mesh(), "tolerance {tolerance_ms} phase {phase}");
        }
        let reasons = [0, 1].map(|station| down_reasons(&mut c, station));
        assert!(reasons.concat().is_empty(), "{tolerance_ms}: {reasons:?}");
        c.finish();
    }
}

/// A packet with a number says nothing of its session.
#[test]
fn no_packet_of_an_earlier_session_is_under_way_when_the_next_one_begins() {
    for seed in 0..10 {
        let mut c = Cluster::settled(seed, 2);
        let (from, to) = (c.open(1).port, c.open(0));
        let to = Destination::Socket(to);
        // Its ring has no room for the RESETs.
        c.suspend(1, STALL, 4);
        c.until("given up", |c| !c.is_up(0, 1));
        c.until("resumed", |c| !c.is_suspended(1));
        // It does not know yet, and sends.
        c.segment.record = true;
        for _ in 0..20 {
            c.send(1, from, to, &[7; 1000][..]).expect("its link is up");
        }
        let sent = c.now;
        c.until("the next session", |c| c.is_up(0, 1));
        assert_eq!(down_reasons(&mut c, 1), [DownReason::PeerReset]);
        let old = unicast_from(&c.segment.seen, 1);
        let old = old.iter().filter(|s| link_protocol(&s.bytes).is_none());
        let last = old.map(|s| s.at).max().expect("it sent");
        assert!(last >= sent);
        let quiet = c.now.since(last);
        assert!(quiet >= TRANSIT_MAX, "{quiet:?} after the last packet");
        assert!(c.now.since(sent) < 2 * TRANSIT_MAX, "in a hurry");
        c.finish();
    }
}

#[test]
fn a_link_without_traffic_is_back_at_once() {
    let mut c = Cluster::settled(36, 2);
    c.suspend(1, STALL, 2048);
    c.until("given up", |c| !c.is_up(0, 1));
    c.until("resumed", |c| !c.is_suspended(1));
    let took = seconds_until_mesh(&mut c);
    assert!(took < 0.01, "took {took} s");
    c.finish();
}

/// What Linux 6.1 did when a RESET took its link down (captured): it forgot the session that came with it.
#[test]
fn an_answer_to_the_session_before_gets_a_reset_at_once() {
    let mut c = Cluster::new(34);
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    c.segment.record = true;
    let now = c.now;
    c.segment.cut(0, 1);
    c.with(0, |node| node.engine.stop(now, &mut node.host));
    c.run_for(Duration::from_millis(4500)); // 12 ticks: the next RESET is four away
    let resets = |c: &Cluster| {
        let seen = unicast_from(&c.segment.seen, 0).into_iter();
        let messages = seen.filter_map(|s| link_protocol(&s.bytes));
        let resets = messages.filter(|m| matches!(m.body, Body::Reset(_)));
        resets.map(|m| m.session).collect::<Vec<_>>()
    };
    let before = resets(&c);
    let session = *before.last().expect("it went down with a RESET");
    let mut header = Header::internal(User::LinkProtocol, 2, c.addr(1).0, c.addr(0).0);
    header
        .set(field::SESSION, 7)
        .set(field::DEST_SESSION_VALID, 1)
        .set(field::DEST_SESSION, u32::from(session.wrapping_sub(1)))
        .set(field::MAX_PKT, 375)
        .set_payload_len(16);
    c.receive(0, mac_of(1), &[header.as_bytes(), &[0; 16]].concat());
    assert_eq!(resets(&c)[before.len()..], [session]);
    c.segment.heal();
    c.until("the link is back", |c| c.is_full_mesh());
    c.finish();
}
