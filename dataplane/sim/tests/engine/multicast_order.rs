//! Pairs of SYN messages of which a socket gets one half only.

use std::time::Duration;
use xtipc_protocol::addr::PortId;
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::wire::{Msg, User, field};
use xtipc_sim::cluster::{Cluster, range};
use xtipc_sim::segment::{Fate, Flight};

const SERVICE: u32 = 5000;

/// A sender on node 0, and a socket on node 1 that its node knows of.
fn sender_and_receiver(c: &mut Cluster) -> (PortId, PortId) {
    let (from, to) = (c.open(0).port, c.open(1).port);
    c.bind(1, to, (SERVICE, 0, 99));
    c.run_for(Duration::from_secs(1));
    (from, to)
}

fn multicast(c: &mut Cluster, from: PortId, method: McastMethod, text: &str) {
    c.with(0, |n| {
        n.engine.port_mut(from).unwrap().mcast_wanted = Some(method)
    });
    c.send(0, from, range(SERVICE, 3, 3), text.as_bytes())
        .unwrap();
}

fn lose(c: &mut Cluster, is_lost: impl Fn(&Flight, Msg<'_>) -> bool + 'static) {
    c.segment.filter = Some(Box::new(move |flight| {
        if is_lost(flight, Msg::check(&flight.bytes).unwrap()) {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
}

#[test]
fn halves_whose_twins_were_not_sent_to_a_new_socket_delay_its_messages_by_a_tolerance() {
    let mut c = Cluster::settled(1, 3);
    let (from, to) = sender_and_receiver(&mut c);
    // Node 0 hears of the second socket late: copies do not go to its node, broadcasts do.
    let late = c.open(2).port;
    lose(&mut c, |f, m| {
        f.from == 2 && f.to == 0 && m.user() == User::NameDistributor
    });
    c.bind(2, late, (SERVICE, 0, 99));
    multicast(&mut c, from, McastMethod::Replicast, "copies");
    multicast(&mut c, from, McastMethod::Broadcast, "broadcast");
    c.run_for(Duration::from_millis(10));
    c.segment.filter = None;
    c.run_for(Duration::from_secs(1));
    multicast(&mut c, from, McastMethod::Broadcast, "known");
    c.run_for(Duration::from_millis(1500 + 3 * 375));
    assert_eq!(c.texts(2, late), ["broadcast", "known"]);
    assert_eq!(c.texts(1, to), ["copies", "broadcast", "known"]);
    c.finish();
}

#[test]
fn a_half_waits_for_its_twin_as_long_as_something_is_missing_on_its_way() {
    let mut c = Cluster::settled(2, 3);
    let (from, to) = sender_and_receiver(&mut c);
    multicast(&mut c, from, McastMethod::Replicast, "copy");
    c.run_for(Duration::from_secs(1));
    // Copies do not get through for longer than the tolerance; the link lives by its STATEs.
    lose(&mut c, |f, m| {
        f.to == 1 && m.user().is_data() && !m.flag(field::NON_SEQ)
    });
    multicast(&mut c, from, McastMethod::Replicast, "late copy");
    multicast(&mut c, from, McastMethod::Broadcast, "broadcast");
    c.run_for(Duration::from_secs(5));
    assert_eq!(c.texts(1, to), ["copy"]);
    c.segment.filter = None;
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.texts(1, to), ["late copy", "broadcast"]);
    c.finish();
}

#[test]
fn what_waits_for_a_twin_is_delivered_when_the_socket_is_no_longer_bound_to_its_range() {
    let mut c = Cluster::settled(3, 2);
    let (from, to) = sender_and_receiver(&mut c);
    c.bind(1, to, (SERVICE, 50, 99));
    lose(&mut c, |_, m| m.user().is_data() && m.flag(field::NON_SEQ));
    multicast(&mut c, from, McastMethod::Replicast, "half");
    c.run_for(Duration::from_millis(100));
    c.unbind(1, to, (SERVICE, 50, 99));
    assert!(c.texts(1, to).is_empty(), "its twin may still come");
    c.unbind(1, to, (SERVICE, 0, 99));
    assert_eq!(c.texts(1, to), ["half"]);
    // A socket that closes takes no more.
    c.bind(1, to, (SERVICE, 0, 99));
    c.run_for(Duration::from_millis(100));
    multicast(&mut c, from, McastMethod::Broadcast, "broadcast");
    multicast(&mut c, from, McastMethod::Replicast, "another half");
    c.run_for(Duration::from_millis(100));
    c.close(1, to);
    assert!(c.texts(1, to).is_empty());
    c.segment.filter = None;
    c.run_for(Duration::from_secs(2));
    c.finish();
}

#[test]
fn a_switch_waits_until_its_marker_can_be_sent_at_once() {
    let mut c = Cluster::settled(4, 3);
    let (from, to) = sender_and_receiver(&mut c);
    // The broadcast window stays shut as long as node 2 stands still.
    c.suspend(2, Duration::from_secs(1), 2048);
    let mut sent = Vec::new();
    for n in 0..120 {
        multicast(
            &mut c,
            from,
            McastMethod::Broadcast,
            &format!("broadcast {n}"),
        );
        sent.push(format!("broadcast {n}"));
    }
    // Many more than wait anywhere, if copies were allowed to overtake.
    for n in 0..2000 {
        c.with(0, |n| {
            n.engine.port_mut(from).unwrap().mcast_wanted = Some(McastMethod::Replicast)
        });
        let text = format!("copy {n}");
        match c.send(0, from, range(SERVICE, 3, 3), text.as_bytes()) {
            Ok(()) => sent.push(text),
            Err(_) => c.run_for(Duration::from_millis(5)),
        }
    }
    c.run_for(Duration::from_secs(2));
    assert!(c.is_full_mesh());
    assert!(sent.len() > 1000, "{}", sent.len());
    assert_eq!(c.texts(1, to), sent);
    let method = c.node(0).engine.port(from).unwrap().mcast_method;
    assert_eq!(method, McastMethod::Replicast);
    c.finish();
}

#[test]
fn where_a_broadcast_is_many_copies_anyway_only_the_receivers_get_one() {
    for (broadcast, expected) in [
        (true, [None].as_slice()),
        (false, &[Some(3), Some(2), Some(1)]),
    ] {
        let mut c = Cluster::new(3);
        c.recipe.broadcast = broadcast;
        for node in 0..4 {
            c.start(node);
        }
        c.run_for(Duration::from_secs(3));
        let from = c.open(0).port;
        for node in 1..4 {
            let to = c.open(node).port;
            c.bind(node, to, (SERVICE, 0, 99));
        }
        c.run_for(Duration::from_secs(1));
        c.send(0, from, range(SERVICE, 3, 3), &b"first"[..])
            .unwrap();
        c.segment.record = true;
        c.send(0, from, range(SERVICE, 3, 3), &b"second"[..])
            .unwrap();
        let sent: Vec<_> = c.segment.seen.iter().map(|seen| seen.to).collect();
        assert_eq!(sent, expected, "broadcast {broadcast}");
        c.finish();
    }
}
