//! Nodes that stand still for longer than their peers have patience, and come back.

use crate::link::{down_reasons, link_protocol, unicast_from};
use std::time::Duration;
use xtipc_protocol::host::DownReason;
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
    let mut c = Cluster::settled(33, 2);
    let nodes = [0, 1].map(|station| c.freeze(station));
    c.run_for(STALL);
    for (station, node) in (0..).zip(nodes) {
        c.thaw(station, node);
    }
    c.notices(0);
    c.notices(1);
    c.run_for(STALL);
    assert!(c.is_full_mesh());
    assert!(down_reasons(&mut c, 0).is_empty() && down_reasons(&mut c, 1).is_empty());
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
