//! Credit: nobody sends more than it was granted, and nobody waits for ever.

use super::{GROUP, group_protocol, is_told_to_go_on, members, settle, view};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, SocketAddr};
use xtipc_protocol::engine::{Obstacle, SendError};
use xtipc_protocol::group::{BlockedOn, MemberState};
use xtipc_protocol::wire::GroupKind;
use xtipc_sim::cluster::Cluster;
use xtipc_sim::groups::membership;

#[test]
fn the_worked_example_of_two_members() {
    let (mut c, m) = members(60, 2);
    let to = Destination::Socket(m[1]);
    let message = [0; 10_000];
    let send = |c: &mut Cluster| c.send(0, m[0].port, to, &message[..]);
    for _ in 0..6 {
        send(&mut c).unwrap();
    }
    settle(&mut c);
    assert_eq!(send(&mut c), Err(SendError::Congested));
    assert_eq!(view(&c, 0, m[0], m[1]).1, 5);
    let blocked = c.group(0, m[0].port).blocked().unwrap();
    let (window, needed) = (5, 10);
    assert_eq!(blocked.on, BlockedOn::Credit { window, needed });
    assert_eq!(blocked.member, m[1]);
    let waiting = c.node(0).engine.waiting(m[0].port).unwrap();
    assert_eq!(waiting.obstacle, Some(Obstacle::Member(blocked)));
    assert_eq!(waiting.since, c.now);
    c.segment.record = true;
    c.segment.seen.clear();
    c.recv(1, m[1].port).unwrap();
    assert_eq!(view(&c, 1, m[1], m[0]), (MemberState::Active, 65, 780));
    settle(&mut c);
    assert_eq!(group_protocol(&c), [(1, GroupKind::Adv { window: 725 })]);
    assert!(is_told_to_go_on(&mut c, 0, m[0].port));
    assert_eq!(view(&c, 0, m[0], m[1]).1, 730);
    for _ in 0..73 {
        while send(&mut c).is_err() {
            settle(&mut c);
        }
    }
    settle(&mut c);
    assert!(c.group(0, m[0].port).blocked().is_none());
    assert_eq!(view(&c, 0, m[0], m[1]).1, 0);
    c.segment.record = true;
    c.segment.seen.clear();
    for _ in 0..19 {
        c.recv(1, m[1].port).unwrap();
    }
    assert_eq!(view(&c, 1, m[1], m[0]).2, 590);
    c.recv(1, m[1].port).unwrap();
    settle(&mut c);
    assert_eq!(group_protocol(&c), [(1, GroupKind::Adv { window: 200 })]);
}

#[test]
fn a_broadcast_waits_for_the_slowest_member_and_says_which_it_is() {
    let (mut c, m) = members(61, 3);
    let message = [0; 1000];
    let mut sent = 0;
    while c.broadcast(0, m[0].port, &message[..]).is_ok() {
        sent += 1;
        settle(&mut c);
        c.recv_all(1, m[1].port);
    }
    assert_eq!(sent, 32, "two blocks each of the small window");
    let blocked = c.group(0, m[0].port).blocked().unwrap();
    assert_eq!(blocked.member, m[2]);
    let since = c.now;
    c.run_for(Duration::from_secs(1));
    assert!(!is_told_to_go_on(&mut c, 0, m[0].port));
    let again = c.broadcast(0, m[0].port, &message[..]);
    assert_eq!(again, Err(SendError::Congested));
    let waiting = c.node(0).engine.waiting(m[0].port).unwrap();
    assert_eq!(waiting.since, since, "it is still the same message");
    c.recv(2, m[2].port).unwrap();
    settle(&mut c);
    assert!(is_told_to_go_on(&mut c, 0, m[0].port));
    c.broadcast(0, m[0].port, &message[..]).unwrap();
}

#[test]
fn a_sender_that_waits_tops_up_whom_it_waits_for() {
    let (mut c, m) = members(62, 2);
    let message = [0; 1000];
    for _ in 0..10 {
        c.send(1, m[1].port, Destination::Socket(m[0]), &message[..])
            .unwrap();
    }
    settle(&mut c);
    for _ in 0..32 {
        c.send(0, m[0].port, Destination::Socket(m[1]), &message[..])
            .unwrap();
    }
    settle(&mut c);
    // Ten messages of the other are unread here: it was granted nothing for them.
    assert_eq!(view(&c, 1, m[1], m[0]).1, 45);
    assert!(c.recv(0, m[0].port).is_some());
    settle(&mut c);
    assert_eq!(view(&c, 1, m[1], m[0]).1, 45 + 717);
    let refused = c.send(0, m[0].port, Destination::Socket(m[1]), &message[..]);
    assert_eq!(refused, Err(SendError::Congested));
    settle(&mut c);
    assert_eq!(view(&c, 1, m[1], m[0]).1, 45 + 717);
}

#[test]
fn many_senders_to_one_slow_member_all_get_through() {
    let senders = 40;
    let mut c = Cluster::settled(63, 3);
    let slow = c.join(0, membership(GROUP, 0));
    let all: Vec<(usize, SocketAddr)> = (0..senders)
        .map(|n| {
            (
                1 + n % 2,
                c.join(1 + n % 2, membership(GROUP, n as u32 + 1)),
            )
        })
        .collect();
    c.run_for(Duration::from_millis(50));
    let joined = c.news(0, slow.port);
    assert_eq!(joined.len(), senders);
    c.segment.record = true;
    c.segment.seen.clear();
    let (each, message) = (60, [0; 8000]);
    let mut left = vec![each; senders];
    let mut got = vec![0; senders];
    let mut rounds = 0;
    while got.iter().sum::<usize>() < each * senders {
        for (n, (node, sender)) in all.iter().enumerate() {
            let to = Destination::Socket(slow);
            while left[n] > 0 && c.send(*node, sender.port, to, &message[..]).is_ok() {
                left[n] -= 1;
            }
            c.recv_all(*node, sender.port);
        }
        c.run_for(Duration::from_millis(1));
        for _ in 0..8 {
            let Some(message) = c.recv(0, slow.port) else {
                break;
            };
            let from = message.about.group.unwrap();
            if !message.bytes.is_empty() {
                got[from.instance as usize - 1] += 1;
            }
        }
        rounds += 1;
        assert!(rounds < 20_000, "{left:?} {got:?}");
    }
    assert!(got.iter().all(|count| *count == each), "{got:?}");
    let said = group_protocol(&c);
    let has = |wanted: fn(&GroupKind) -> bool| said.iter().any(|(_, kind)| wanted(kind));
    assert!(has(|kind| *kind == GroupKind::Reclaim));
    assert!(has(|kind| matches!(kind, GroupKind::Remit { .. })));
    assert_eq!(c.node(0).engine.port(slow.port).unwrap().overloads, 0);
    c.finish();
}

#[test]
fn senders_behind_members_that_never_give_their_window_back_get_through() {
    let mut c = Cluster::settled(64, 2);
    let reader = c.join(0, membership(GROUP, 0));
    let all: Vec<SocketAddr> = (0..30)
        .map(|n| c.join(1, membership(GROUP, n + 1)))
        .collect();
    c.run_for(Duration::from_millis(50));
    // Nobody hears that windows are to be given back.
    c.segment.filter = Some(Box::new(|flight| {
        let mut reclaim = false;
        super::each_message(&flight.bytes, &mut |msg| {
            reclaim |= msg.user() == super::User::GroupProtocol && msg.kind() == 4;
        });
        if !reclaim {
            return xtipc_sim::segment::Fate::Pass;
        }
        let mut bytes = flight.bytes.clone();
        // An unknown type in its place.
        xtipc_protocol::wire::field::TYPE.set(&mut bytes, 7);
        xtipc_sim::segment::Fate::Replace(bytes)
    }));
    let message = [0; 8000];
    let mut left = [40; 30];
    for _ in 0..3000 {
        for (sender, left) in all.iter().zip(&mut left) {
            let to = Destination::Socket(reader);
            while *left > 0 && c.send(1, sender.port, to, &message[..]).is_ok() {
                *left -= 1;
            }
        }
        c.run_for(Duration::from_millis(1));
        c.recv_all(0, reader.port);
        if left.iter().all(|left| *left == 0) {
            return;
        }
    }
    panic!("somebody waits for ever: {left:?}");
}

#[test]
fn a_message_without_bytes_costs_no_credit_for_ever() {
    let (mut c, m) = members(65, 2);
    for _ in 0..1000 {
        while c
            .send(0, m[0].port, Destination::Socket(m[1]), &[][..])
            .is_err()
        {
            settle(&mut c);
        }
    }
    settle(&mut c);
    c.send(0, m[0].port, Destination::Socket(m[1]), "bytes".as_bytes())
        .unwrap();
    settle(&mut c);
    assert_eq!(c.news(1, m[1].port), ["0:bytes"]);
}

#[test]
fn multicasts_for_other_instances_are_credited_back_at_once() {
    let mut c = Cluster::settled(66, 3);
    let from = c.join(0, membership(GROUP, 0));
    let others: Vec<(usize, SocketAddr)> = [(1, 1), (2, 1), (1, 2)]
        .map(|(node, instance)| (node, c.join(node, membership(GROUP, instance))))
        .into();
    c.run_for(Duration::from_millis(20));
    let to = xtipc_sim::groups::all_at(1);
    for _ in 0..500 {
        while c.send(0, from.port, to, &[0; 1000][..]).is_err() {
            settle(&mut c);
            for (node, member) in &others[..2] {
                c.recv_all(*node, member.port);
            }
        }
    }
    let stranger = others[2];
    assert_eq!(
        c.news(stranger.0, stranger.1.port).last().map(|s| s.len()),
        Some(2)
    );
}
