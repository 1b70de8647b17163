//! Members that break the rules harm themselves only.
//!
//! What an honest member sends is changed on its way.

use super::{each_message, members, settle};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr};
use xtipc_protocol::engine::SendError;
use xtipc_protocol::group::{DEFERRED_MAX, WINDOW_MAX};
use xtipc_protocol::stats::Drop;
use xtipc_protocol::wire::{DataType, Msg, User, field};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::Fate;

/// Changes what `which` says is to be changed, by `change`, on its way from node 1 to node 0.
fn change(
    c: &mut Cluster,
    which: impl Fn(Msg<'_>) -> bool + 'static,
    change: impl Fn(&mut [u8]) + 'static,
) {
    c.strict = false;
    c.segment.filter = Some(Box::new(move |flight| {
        let hits = flight.from == 1 && Msg::check(&flight.bytes).is_ok_and(&which);
        if !hits {
            return Fate::Pass;
        }
        let mut bytes = flight.bytes.clone();
        change(&mut bytes);
        Fate::Replace(bytes)
    }));
}

fn is_data(msg: Msg<'_>) -> bool {
    msg.user().is_data() && msg.data_type() == DataType::GroupUcast
}

fn is_adv(msg: Msg<'_>) -> bool {
    msg.user() == User::GroupProtocol && msg.kind() == 2
}

fn drops(c: &Cluster, reason: Drop) -> u64 {
    c.node(0).engine.drops().get(reason)
}

#[test]
fn h07_an_event_from_the_wire_is_dropped() {
    let (mut c, m) = members(80, 2);
    change(&mut c, is_data, |bytes| field::TYPE.set(bytes, 4));
    let to = Destination::Socket(m[0]);
    c.send(1, m[1].port, to, &[0; 48][..]).unwrap();
    settle(&mut c);
    assert_eq!(drops(&c, Drop::UnexpectedUser), 1);
    assert_eq!(c.news(0, m[0].port), [""; 0]);
}

#[test]
fn messages_of_a_foreign_member_are_dropped() {
    let (mut c, m) = members(81, 2);
    let port = m[1].port.0;
    change(&mut c, is_data, move |bytes| {
        field::ORIG_PORT.set(bytes, port + 1);
    });
    let to = Destination::Socket(m[0]);
    c.send(1, m[1].port, to, &b"x"[..]).unwrap();
    settle(&mut c);
    assert_eq!(drops(&c, Drop::NotMember), 1);
    assert_eq!(c.news(0, m[0].port), [""; 0]);
}

#[test]
fn a_node_cannot_speak_for_the_members_of_another() {
    let (mut c, m) = members(82, 3);
    let victim = m[2];
    change(&mut c, is_data, move |bytes| {
        field::ORIG_PORT.set(bytes, victim.port.0);
        field::ORIG_NODE.set(bytes, victim.node.0);
    });
    let to = Destination::Socket(m[0]);
    c.send(1, m[1].port, to, &b"x"[..]).unwrap();
    settle(&mut c);
    assert_eq!(drops(&c, Drop::NotPeer), 1);
    let is_protocol = |msg: Msg<'_>| msg.user() == User::GroupProtocol;
    change(&mut c, is_protocol, move |bytes| {
        field::ORIG_PORT.set(bytes, victim.port.0);
        field::ORIG_NODE.set(bytes, victim.node.0);
    });
    c.leave(1, m[1].port).unwrap();
    settle(&mut c);
    assert!(c.group(0, m[0].port).member(victim).is_some());
    assert_eq!(c.news(0, m[0].port), [""; 0]);
}

#[test]
fn h24_a_window_beyond_what_a_member_may_grant_is_cut_and_counted() {
    let (mut c, m) = members(83, 2);
    change(&mut c, is_adv, |bytes| field::ADV_WINDOW.set(bytes, 0xffff));
    for _ in 0..3 {
        c.send(0, m[0].port, Destination::Socket(m[1]), &b"x"[..])
            .unwrap();
        settle(&mut c);
        c.recv(1, m[1].port).unwrap();
        settle(&mut c);
    }
    let member = c.group(0, m[0].port).member(m[1]).unwrap();
    assert_eq!(member.window, WINDOW_MAX - 2);
    assert_eq!(drops(&c, Drop::GroupViolation), 1);
}

#[test]
fn h25_a_member_of_whom_more_waits_than_it_was_granted_is_expelled() {
    let (mut c, m) = members(84, 2);
    change(&mut c, is_data, |bytes| {
        field::GROUP_BC_SEQNO.set(bytes, 17);
    });
    let to = Destination::Socket(m[0]);
    let len = 1000;
    for n in 0.. {
        let sent = c.send(1, m[1].port, to, &vec![0; len][..]);
        settle(&mut c);
        assert!(c.group(0, m[0].port).deferred() <= usize::from(DEFERRED_MAX));
        match sent {
            // Its own window is as large as the attacker says.
            Err(SendError::Congested) => c.with(1, |node| {
                let group = node.engine.port_mut(m[1].port).unwrap().group.as_mut();
                let adv = xtipc_protocol::wire::GroupKind::Adv { window: 65 };
                let now = node.host.now;
                group.unwrap().on_protocol(now, m[0], adv, &mut Vec::new());
            }),
            Err(SendError::Unreachable) => break,
            _ => assert!(n < 1000, "still a member"),
        }
    }
    assert!(c.group(0, m[0].port).member(m[1]).is_none());
    assert_eq!(c.group(0, m[0].port).deferred(), 0);
    assert_eq!(c.news(0, m[0].port), ["-1"]);
    assert_eq!(c.news(1, m[1].port), ["-0"]);
}

#[test]
fn acknowledgements_nobody_asked_for_do_not_count() {
    let (mut c, m) = members(85, 3);
    let is_ack = |msg: Msg<'_>| msg.user() == User::GroupProtocol && msg.kind() == 3;
    change(&mut c, is_ack, |bytes| field::GROUP_COUNT.set(bytes, 4711));
    c.broadcast(0, m[0].port, &b"x"[..]).unwrap();
    settle(&mut c);
    let next = c.broadcast(0, m[0].port, &b"y"[..]);
    assert_eq!(next, Err(SendError::Congested));
    assert_eq!(drops(&c, Drop::GroupViolation), 1);
    let blocked = c.group(0, m[0].port).blocked().unwrap();
    assert_eq!(blocked.member, m[1]);
    // Whoever waits learns of its end.
    c.segment.filter = None;
    c.close(1, m[1].port);
    settle(&mut c);
    assert!(super::is_told_to_go_on(&mut c, 0, m[0].port));
    c.broadcast(0, m[0].port, &b"y"[..]).unwrap();
}

#[test]
fn protocol_messages_of_every_type_to_nobody_or_from_nobody_change_nothing() {
    let (mut c, m) = members(86, 2);
    let before = super::view(&c, 0, m[0], m[1]);
    for kind in 1..8 {
        let mut sent = 0;
        change(&mut c, is_data, move |bytes| {
            // The unicast becomes a protocol message of a socket that is no member.
            field::USER.set(bytes, User::GroupProtocol as u32);
            field::TYPE.set(bytes, kind);
            let port = field::ORIG_PORT.get(bytes);
            field::ORIG_PORT.set(bytes, port + 1 + kind);
        });
        while sent < 5 {
            let to = Destination::Socket(m[0]);
            if c.send(1, m[1].port, to, &b"x"[..]).is_err() {
                break;
            }
            sent += 1;
            settle(&mut c);
        }
    }
    assert_eq!(super::view(&c, 0, m[0], m[1]), before);
    assert_eq!(c.group(0, m[0].port).members().len(), 1);
}

#[test]
fn a_plain_datagram_to_a_member_is_dropped() {
    let (mut c, m) = members(87, 2);
    let outside = c.open_returning(1);
    for to in [
        Destination::Socket(m[0]),
        xtipc_sim::cluster::service(super::GROUP, 0),
        xtipc_sim::cluster::range(super::GROUP, 0, 0),
    ] {
        c.send(1, outside.port, to, &b"x"[..]).unwrap();
    }
    settle(&mut c);
    assert_eq!(drops(&c, Drop::NotMember), 3);
    assert_eq!(c.news(0, m[0].port), [""; 0]);
    assert_eq!(c.texts(1, outside.port), [""; 0]);
}

#[test]
fn group_traffic_for_sockets_outside_of_groups_is_dropped() {
    let (mut c, m) = members(88, 2);
    c.leave(0, m[0].port).unwrap();
    let mut seen = 0;
    for packet in &c.segment.seen {
        each_message(&packet.bytes, &mut |msg| {
            seen += usize::from(msg.user() == User::GroupProtocol);
        });
    }
    assert_eq!(seen, 1, "the LEAVE is under way");
    // The other does not know yet.
    let to = Destination::Socket(m[0]);
    c.send(1, m[1].port, to, &b"x"[..]).unwrap();
    c.run_for(Duration::from_millis(5));
    assert_eq!(drops(&c, Drop::NoPort), 1);
    assert_ne!(c.addr(0), NodeAddr::NONE);
}
