//! Packets that come late but are not lost: when the receiver asks for them, and when it does not.

use super::link::{is_data, pair, states_from, stats};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId, SocketAddr};
use xtipc_protocol::wire::{Msg, User, field};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::{Fate, Faults};

const GAP: Duration = Duration::from_micros(100);

/// Sends `count` packets at a steady pace and checks that all arrive, in order.
fn stream(c: &mut Cluster, (port, to): (PortId, SocketAddr), count: u32) {
    // Too large to share a packet.
    let mut payload = [0; 800];
    let mut got = 0;
    for n in 0..count {
        payload[..4].copy_from_slice(&n.to_be_bytes());
        while c
            .send(0, port, Destination::Socket(to), &payload[..])
            .is_err()
        {
            c.run_for(GAP);
        }
        c.run_for(GAP);
        got = check(c, to, got);
    }
    c.run_for(Duration::from_secs(1));
    assert_eq!(check(c, to, got), count);
}

fn check(c: &mut Cluster, to: SocketAddr, mut next: u32) -> u32 {
    for message in c.recv_all(1, to.port) {
        assert_eq!(message.bytes[..4], next.to_be_bytes());
        next += 1;
    }
    next
}

/// Two nodes, of which the first has misordered packets and the second learned to wait for them.
fn patient_pair(seed: u64) -> (Cluster, (PortId, SocketAddr)) {
    let mut c = Cluster::settled(seed, 2);
    let way = pair(&mut c);
    c.segment.faults = Faults {
        reordering: 20,
        straggle_us: 8_000,
        ..Faults::default()
    };
    stream(&mut c, way, 5_000);
    (c, way)
}

/// Loses the next packet with data from the first node.
fn lose_first(c: &mut Cluster) {
    let mut first = true;
    c.segment.filter = Some(Box::new(move |flight| {
        let is_data = flight.from == 0 && is_data(Msg::check(&flight.bytes).unwrap());
        if is_data && std::mem::take(&mut first) {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
}

#[test]
fn what_is_only_late_is_hardly_ever_sent_again() {
    let (mut c, way) = patient_pair(60);
    let before = stats(&c, 0, 1);
    stream(&mut c, way, 40_000);
    let after = stats(&c, 0, 1);
    assert!(stats(&c, 1, 0).rx_deferred > 10_000);
    let again = after.retransmitted - before.retransmitted;
    assert!(
        again * 1000 < after.tx_packets - before.tx_packets,
        "{again}"
    );
    c.segment.faults = Faults::default();
    c.finish();
}

#[test]
fn a_patient_receiver_asks_for_a_real_loss_in_time_even_if_nothing_follows() {
    let (mut c, (port, to)) = patient_pair(61);
    c.segment.faults = Faults::default();
    lose_first(&mut c);
    for _ in 0..2 {
        c.send(0, port, Destination::Socket(to), &[0; 800][..])
            .unwrap();
    }
    c.run_for(Duration::from_millis(1));
    assert_eq!(c.recv_all(1, to.port).len(), 0);
    c.run_for(Duration::from_millis(21));
    assert_eq!(c.recv_all(1, to.port).len(), 2);
    c.finish();
}

#[test]
fn real_losses_make_a_patient_receiver_prompt_again() {
    let (mut c, (port, to)) = patient_pair(62);
    c.segment.faults = Faults {
        loss: 20,
        ..Faults::default()
    };
    stream(&mut c, (port, to), 25_000);
    c.segment.faults = Faults::default();
    lose_first(&mut c);
    for _ in 0..5 {
        c.send(0, port, Destination::Socket(to), &[0; 800][..])
            .unwrap();
        c.run_for(Duration::from_micros(500));
    }
    // Asked for with the third packet behind it.
    assert_eq!(c.recv_all(1, to.port).len(), 5);
    c.finish();
}

#[test]
fn nodes_that_both_miss_broadcasts_do_not_answer_each_other_without_end() {
    let mut c = Cluster::settled(63, 2);
    c.segment.record = true;
    c.segment.filter = Some(Box::new(|flight| {
        let msg = Msg::check(&flight.bytes).unwrap();
        let is_broadcast = msg.flag(field::NON_SEQ) && msg.user() != User::LinkConfig;
        if is_broadcast { Fate::Lose } else { Fate::Pass }
    }));
    // What binds is told by broadcast.
    for station in [0, 1] {
        let port = c.open(station).port;
        c.bind(station, port, (6000, 1, 1));
    }
    c.run_for(Duration::from_secs(1));
    let states = states_from(&c, 0).len();
    assert!((2..1100).contains(&states), "{states}");
    c.segment.filter = None;
    c.run_for(Duration::from_secs(2));
    assert_eq!(
        c.node(0).engine.publications().count(),
        c.node(1).engine.publications().count()
    );
    c.finish();
}
