//! Member events: joined before the first message, left after the last.

use super::{GROUP, members, settle};
use std::time::Duration;
use xtipc_protocol::addr::Destination;
use xtipc_protocol::group::{LEAVE_PATIENCE, Membership};
use xtipc_protocol::host::MemberNews;
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::wire::{Msg, User, field};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::groups::membership;
use xtipc_sim::segment::Fate;

#[test]
fn an_event_tells_the_member_by_both_addresses() {
    let mut c = Cluster::settled(40, 2);
    let a = c.join(0, membership(GROUP, 1));
    let b = c.join(1, membership(GROUP, 2));
    settle(&mut c);
    let event = c.recv(0, a.port).unwrap();
    let from = event.about.group.unwrap();
    assert_eq!(
        (event.about.source, from.group, from.instance),
        (b, GROUP, 2)
    );
    assert_eq!((from.news, event.bytes.len()), (MemberNews::Joined, 0));
    assert_eq!(c.node(0).engine.port(a.port).unwrap().used, 0);
}

#[test]
fn who_did_not_ask_for_events_gets_none() {
    let mut c = Cluster::settled(41, 2);
    let quiet = Membership {
        events: false,
        ..membership(GROUP, 1)
    };
    let a = c.join(0, quiet);
    let b = c.join(1, membership(GROUP, 2));
    settle(&mut c);
    c.broadcast(1, b.port, "hello".as_bytes()).unwrap();
    c.close(1, b.port);
    settle(&mut c);
    assert_eq!(c.news(0, a.port), ["2:hello"]);
}

#[test]
fn a_member_s_first_message_comes_behind_its_joining_and_its_last_before_its_leaving() {
    for seed in 42..62 {
        let mut c = Cluster::settled(seed, 3);
        let old = c.join(0, membership(GROUP, 0));
        settle(&mut c);
        c.segment.faults.loss = 100;
        c.segment.faults.reordering = 200;
        c.segment.faults.straggle_us = 500;
        let new = c.join(1, membership(GROUP, 1));
        c.until("it may send", |c| {
            c.group(1, new.port)
                .member(old)
                .is_some_and(|m| m.window > 0)
        });
        c.with(1, |node| {
            let port = node.engine.port_mut(new.port).expect("a member");
            port.mcast_wanted = Some(McastMethod::Broadcast);
        });
        super::broadcast_patiently(&mut c, 1, new.port, "first");
        super::broadcast_patiently(&mut c, 1, new.port, "second");
        super::send_patiently(&mut c, 1, new.port, Destination::Socket(old), "third");
        super::broadcast_patiently(&mut c, 1, new.port, "last");
        c.close(1, new.port);
        c.run_for(Duration::from_secs(2));
        assert_eq!(
            c.news(0, old.port),
            ["+1", "1:first", "1:second", "1:third", "1:last", "-1"],
            "seed {seed}"
        );
    }
}

#[test]
fn what_a_lost_node_s_member_sent_comes_before_its_leaving() {
    let (mut c, m) = members(63, 2);
    c.broadcast(1, m[1].port, "last words".as_bytes()).unwrap();
    settle(&mut c);
    c.kill(1);
    c.run_for(Duration::from_secs(2));
    assert_eq!(c.news(0, m[0].port), ["1:last words", "-1"]);
    assert_eq!(c.group(0, m[0].port).nodes().count(), 0);
}

#[test]
fn a_member_whose_binding_goes_without_its_leave_is_gone_after_five_seconds() {
    let (mut c, m) = members(64, 2);
    c.strict = false;
    c.segment.filter = Some(Box::new(|flight| {
        let is_leave = |msg: Msg<'_>| msg.user() == User::GroupProtocol && msg.kind() == 1;
        if !Msg::check(&flight.bytes).is_ok_and(is_leave) {
            return Fate::Pass;
        }
        let mut bytes = flight.bytes.clone();
        // An unknown type in its place.
        field::TYPE.set(&mut bytes, 7);
        Fate::Replace(bytes)
    }));
    c.broadcast(1, m[1].port, "last words".as_bytes()).unwrap();
    c.close(1, m[1].port);
    c.run_for(LEAVE_PATIENCE - Duration::from_millis(50));
    assert_eq!(c.news(0, m[0].port), ["1:last words"]);
    c.run_for(Duration::from_millis(100));
    assert_eq!(c.news(0, m[0].port), ["-1"]);
    assert_eq!(c.group(0, m[0].port).members().len(), 0);
    c.finish();
}
