//! What waiting senders are said to wait for (`docs/protocol/sockets.md`, congestion).

use super::{exhaust_frames, settle, small_cluster, wired};
use std::time::Duration;
use xtipc_protocol::addr::{BearerId, Destination, PortId, SocketAddr};
use xtipc_protocol::engine::{Obstacle, SendError};
use xtipc_protocol::port::{McastMethod, SocketKind};
use xtipc_sim::cluster::{Cluster, range};
use xtipc_sim::segment::Fate;

/// What a socket waits for, and for how long.
fn waits(c: &Cluster, station: usize, port: PortId) -> Option<(Option<Obstacle>, Duration)> {
    let waiting = c.node(station).engine.waiting(port)?;
    Some((waiting.obstacle, c.now.since(waiting.since)))
}

/// Lets nothing through that station 1 sends.
fn mute(c: &mut Cluster) {
    c.segment.filter = Some(Box::new(|flight| {
        if flight.from == 1 {
            Fate::Lose
        } else {
            Fate::Pass
        }
    }));
}

#[test]
fn a_used_up_window_is_waited_for_since_the_first_refusal() {
    let mut w = wired(70, SocketKind::Seqpacket);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    while c.write(0, client.port, &[1; 1000][..]).is_ok() {
        assert_eq!(waits(c, 0, client.port), None);
    }
    let reader = Some(Obstacle::Window(server));
    assert_eq!(waits(c, 0, client.port), Some((reader, Duration::ZERO)));
    for _ in 0..3 {
        c.run_for(Duration::from_millis(20));
        let refused = c.write(0, client.port, &[1; 1000][..]);
        assert_eq!(refused, Err(SendError::Congested));
    }
    let long = Duration::from_millis(60);
    assert_eq!(waits(c, 0, client.port), Some((reader, long)));
    c.recv_all(1, server.port);
    settle(c);
    let (obstacle, _) = waits(c, 0, client.port).expect("it has not tried again");
    assert_eq!(obstacle, None);
    c.write(0, client.port, &[1; 1000][..]).unwrap();
    assert_eq!(waits(c, 0, client.port), None);
    w.c.finish();
}

#[test]
fn a_congested_link_is_named_by_the_node_at_its_other_end() {
    let mut c = Cluster::settled(71, 2);
    let to = c.open(1);
    let from = c.open(0).port;
    mute(&mut c);
    while c
        .send(0, from, Destination::Socket(to), &[1; 1300][..])
        .is_ok()
    {}
    c.run_for(Duration::from_millis(30));
    let link = Some(Obstacle::Link(to.node, BearerId(0)));
    let for_so_long = Duration::from_millis(30);
    assert_eq!(waits(&c, 0, from), Some((link, for_so_long)));
    c.segment.filter = None;
    c.run_for(Duration::from_secs(2));
    c.send(0, from, Destination::Socket(to), &b"on"[..])
        .unwrap();
    assert_eq!(waits(&c, 0, from), None);
    c.finish();
}

#[test]
fn a_congested_broadcast_link_is_shown_with_the_peer_that_is_behind() {
    let mut c = Cluster::settled(72, 3);
    for station in [1, 2] {
        let port = c.open(station).port;
        c.bind(station, port, (700, 0, 0));
    }
    c.run_for(Duration::from_millis(100));
    let from = c.open(0).port;
    c.with(0, |n| {
        n.engine.port_mut(from).unwrap().mcast_wanted = Some(McastMethod::Broadcast)
    });
    mute(&mut c);
    let behind = c.addr(1);
    let everyone = range(700, 0, 0);
    while c.send(0, from, everyone, &[1; 1300][..]).is_ok() {
        c.run_for(Duration::from_micros(100));
    }
    c.run_for(Duration::from_millis(20));
    let (obstacle, _) = waits(&c, 0, from).expect("it waits");
    assert_eq!(obstacle, Some(Obstacle::BroadcastLink(Some(behind))));
    c.segment.filter = None;
    c.run_for(Duration::from_secs(2));
    c.finish();
}

#[test]
fn a_sender_whose_bindings_the_cluster_has_not_been_told_is_shown_to_wait_for_that() {
    let mut c = Cluster::settled(74, 3);
    let (behind, to) = (c.addr(1), c.open(2));
    let from = c.open(0).port;
    mute(&mut c);
    // They go by broadcast; the first that finds no room in the backlog waits, and with it what is sent behind it.
    let told = |c: &mut Cluster| c.send(0, from, Destination::Socket(to), &b"on"[..]);
    let mut service = 1000;
    while told(&mut c).is_ok() {
        for _ in 0..500 {
            c.bind(0, from, (service, 0, 0));
            service += 1;
        }
        c.run_for(Duration::from_micros(200));
        assert!(service < 50_000, "nothing is held back");
    }
    c.run_for(Duration::from_millis(20));
    let telling = Some(Obstacle::Telling(Some(behind)));
    assert_eq!(
        waits(&c, 0, from),
        Some((telling, Duration::from_millis(20)))
    );
    c.segment.filter = None;
    c.run_for(Duration::from_secs(2));
    told(&mut c).unwrap();
    assert_eq!(waits(&c, 0, from), None);
    c.finish();
}

#[test]
fn a_sender_without_frames_is_shown_to_wait_for_frames() {
    let mut c = small_cluster(73);
    let to = c.addr(1);
    mute(&mut c);
    exhaust_frames(&mut c, 0, to);
    let from = c.open(0).port;
    let nobody = SocketAddr {
        port: PortId(1),
        node: to,
    };
    let refused = c.send(0, from, Destination::Socket(nobody), &b"x"[..]);
    assert_eq!(refused, Err(SendError::Congested));
    assert_eq!(
        waits(&c, 0, from),
        Some((Some(Obstacle::Frames), Duration::ZERO))
    );
    assert!(c.node(0).engine.awaits_frames());
    c.segment.filter = None;
    c.run_for(Duration::from_secs(2));
    assert!(!c.node(0).engine.awaits_frames());
    c.finish();
}
