//! Two and three links to one peer: load sharing, standby, links that are lost and come back under traffic.

use crate::link::{down_reasons, unicast_from};
use std::time::Duration;
use xtipc_protocol::addr::{BearerId, Destination, PortId, SocketAddr};
use xtipc_protocol::engine::LinkView;
use xtipc_protocol::host::{DownReason, Notice};
use xtipc_protocol::link::Setting;
use xtipc_protocol::link::fsm::LinkState;
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::{Msg, TunnelKind, TunnelProtocol, User, field};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::{Fate, Faults, Flight, Seen};

const MS: Duration = Duration::from_millis(1);

/// Two nodes on as many segments, all links up.
fn settled(seed: u64, nets: usize) -> Cluster {
    let mut c = Cluster::new(seed);
    c.recipe.nets = nets;
    c.start(0);
    c.start(1);
    c.until("all links are up", |c| up(c, 0) == nets && up(c, 1) == nets);
    c.run_for(Duration::from_secs(1));
    c
}

fn links(c: &Cluster, of: usize) -> Vec<LinkView> {
    c.peer_view(of, 1 - of)
        .map_or(Vec::new(), |peer| peer.links)
}

fn up(c: &Cluster, of: usize) -> usize {
    links(c, of).iter().filter(|link| link.up).count()
}

fn active(c: &Cluster, of: usize) -> Vec<u8> {
    let links = links(c, of).into_iter();
    links
        .filter(|link| link.active)
        .map(|link| link.bearer.0)
        .collect()
}

/// A socket whose number has this last bit.
fn open(c: &mut Cluster, station: usize, odd: bool) -> SocketAddr {
    loop {
        let addr = c.open(station);
        if (addr.port.0 & 1 == 1) == odd {
            return addr;
        }
        c.close(station, addr.port);
    }
}

/// Streams of numbered messages between sockets, checked as they come.
struct Streams {
    pairs: Vec<Pair>,
}

struct Pair {
    from: (usize, PortId),
    to: SocketAddr,
    sent: u32,
    got: u32,
}

impl Streams {
    /// Two in each direction, one by each link.
    fn new(c: &mut Cluster) -> Self {
        let mut pairs = Vec::new();
        for (from, odd) in [(0, false), (0, true), (1, false), (1, true)] {
            let sender = open(c, from, odd);
            let to = c.open(1 - from);
            pairs.push(Pair {
                from: (from, sender.port),
                to,
                sent: 0,
                got: 0,
            });
        }
        Self { pairs }
    }

    /// One message each, as far as there is room.
    fn send(&mut self, c: &mut Cluster) {
        for pair in &mut self.pairs {
            let len = c.rng.pick(&[8, 100, 1400, 5000]);
            let mut message = vec![0; len];
            message[..4].copy_from_slice(&pair.sent.to_be_bytes());
            let to = Destination::Socket(pair.to);
            if c.send(pair.from.0, pair.from.1, to, &message[..]).is_ok() {
                pair.sent += 1;
            }
        }
    }

    /// What has come is the next of each stream.
    fn take(&mut self, c: &mut Cluster) {
        for pair in &mut self.pairs {
            for message in c.recv_all(1 - pair.from.0, pair.to.port) {
                let number = message.bytes.first_chunk().map(|n| u32::from_be_bytes(*n));
                assert_eq!(number, Some(pair.got), "from {:?}", pair.from);
                pair.got += 1;
            }
        }
    }

    fn flow(&mut self, c: &mut Cluster, span: Duration) {
        let end = c.now + span;
        while c.now < end {
            self.send(c);
            c.run_for(4 * MS);
            self.take(c);
        }
    }

    fn finish(mut self, c: &mut Cluster) -> u32 {
        for _ in 0..20 {
            c.run_for(Duration::from_millis(500));
            self.take(c);
        }
        for pair in &self.pairs {
            assert_eq!(pair.got, pair.sent, "lost, from {:?}", pair.from);
        }
        self.pairs.iter().map(|pair| pair.got).sum()
    }
}

fn contact_lost(c: &mut Cluster) -> bool {
    (0..2).any(|station| {
        let notices = c.notices(station);
        notices
            .iter()
            .any(|n| matches!(n, Notice::Contact { up: false, .. }))
    })
}

fn tunnels(seen: &[Seen], from: usize) -> Vec<(u16, TunnelKind, usize)> {
    let packets = unicast_from(seen, from);
    let tunnel = |seen: &Seen| {
        let msg = Msg::check(&seen.bytes).ok()?;
        if msg.user() != User::TunnelProtocol {
            return None;
        }
        let tunnel = TunnelProtocol::parse(msg).ok()?;
        Some((msg.get16(field::SEQNO), tunnel.kind, tunnel.payload.len()))
    };
    packets.iter().filter_map(tunnel).collect()
}

#[test]
fn the_last_bit_of_the_sending_socket_chooses_between_links_of_one_priority() {
    let mut c = settled(1, 2);
    assert_eq!((active(&c, 0), active(&c, 1)), (vec![0, 1], vec![0, 1]));
    let before: Vec<u32> = links(&c, 0).iter().map(|l| l.stats.tx_packets).collect();
    let (even, odd) = (open(&mut c, 0, false), open(&mut c, 0, true));
    let to = c.open(1);
    for _ in 0..3 {
        c.send(0, even.port, Destination::Socket(to), &[1; 10][..])
            .unwrap();
    }
    for _ in 0..5 {
        c.send(0, odd.port, Destination::Socket(to), &[2; 10][..])
            .unwrap();
    }
    c.run_for(MS);
    assert_eq!(c.recv_all(1, to.port).len(), 8);
    let after: Vec<u32> = links(&c, 0).iter().map(|l| l.stats.tx_packets).collect();
    let first = active(&c, 0)[0] as usize;
    assert_eq!(after[first] - before[first], 3);
    assert_eq!(after[1 - first] - before[1 - first], 5);
    c.finish();
}

#[test]
fn the_link_with_the_higher_priority_carries_all_and_the_other_stands_by() {
    let mut c = settled(2, 2);
    let (now, peer) = (c.now, c.addr(1));
    c.with(0, |n| {
        let set = Setting::Priority(12);
        n.engine.set_link(now, peer, BearerId(1), set, &mut n.host)
    });
    c.run_for(Duration::from_secs(3));
    assert_eq!((up(&c, 0), up(&c, 1)), (2, 2));
    assert_eq!((active(&c, 0), active(&c, 1)), (vec![1], vec![1]));
    assert!(!contact_lost(&mut c));
    // It takes over, and gives back.
    c.net(1).cut(0, 1);
    c.until("the standby carries all", |c| {
        active(c, 0) == [0] && active(c, 1) == [0]
    });
    c.net(1).heal();
    c.until("the better one is back", |c| {
        active(c, 0) == [1] && active(c, 1) == [1]
    });
    assert!(!contact_lost(&mut c));
    c.finish();
}

#[test]
fn the_second_link_begins_with_a_synch_whose_point_is_the_last_packet_of_the_first() {
    let mut c = Cluster::settled(3, 2);
    c.others[0].record = true;
    let sent: Vec<u32> = (0..2).map(|n| links(&c, n)[0].stats.tx_packets).collect();
    c.add_bearer(0);
    c.add_bearer(1);
    c.until("both links are up", |c| up(c, 0) == 2 && up(c, 1) == 2);
    c.run_for(Duration::from_secs(1));
    for (station, sent) in sent.into_iter().enumerate() {
        let tunnels = tunnels(&c.others[0].seen, station);
        let sync_point = sent as u16;
        assert_eq!(tunnels, [(1, TunnelKind::Synch { sync_point }, 0)]);
        let states: Vec<_> = links(&c, station).iter().map(|l| l.state).collect();
        assert_eq!(states, [LinkState::Established; 2]);
    }
    c.finish();
}

#[test]
fn a_lost_link_disturbs_nothing_whichever_it_is_and_comes_back() {
    for (seed, net) in [(4, 0), (5, 1)] {
        let mut c = settled(seed, 2);
        let mut streams = Streams::new(&mut c);
        streams.flow(&mut c, 200 * MS);
        for _ in 0..2 {
            c.net(net).cut(0, 1);
            streams.flow(&mut c, 2500 * MS);
            assert_eq!((up(&c, 0), up(&c, 1)), (1, 1));
            c.net(net).heal();
            streams.flow(&mut c, 2500 * MS);
            assert_eq!((up(&c, 0), up(&c, 1)), (2, 2));
        }
        assert!(streams.finish(&mut c) > 5_000);
        assert!(!contact_lost(&mut c));
        c.finish();
    }
}

/// What the node does for each of its bearers whose interface is down.
fn without_interface(c: &mut Cluster, station: usize, since: Instant) -> bool {
    let now = c.now;
    c.with(station, |n| {
        n.engine
            .without_interface(now, BearerId(0), since, &mut n.host)
    })
}

#[test]
fn a_link_whose_interface_is_down_is_given_up_after_a_quarter_of_its_tolerance() {
    let mut c = settled(6, 2);
    let (now, peer) = (c.now, c.addr(1));
    let setting = Setting::Tolerance(30_000);
    c.with(0, |n| {
        n.engine
            .set_link(now, peer, BearerId(0), setting, &mut n.host)
    });
    let mut streams = Streams::new(&mut c);
    streams.flow(&mut c, 1000 * MS);
    c.net(0).cut(0, 1);
    let down = c.now;
    while without_interface(&mut c, 0, down) {
        streams.flow(&mut c, 100 * MS);
        assert!(c.now.since(down) < 7700 * MS, "a quarter of 30 s");
    }
    assert!(c.now.since(down) >= 7500 * MS);
    assert_eq!(down_reasons(&mut c, 0), [DownReason::Interface]);
    streams.flow(&mut c, 1000 * MS);
    assert_eq!((up(&c, 0), up(&c, 1)), (1, 1), "the peer hears of it");
    c.net(0).heal();
    streams.flow(&mut c, 3000 * MS);
    assert_eq!((up(&c, 0), up(&c, 1)), (2, 2));
    streams.finish(&mut c);
    assert!(!contact_lost(&mut c));
    c.finish();
}

#[test]
fn a_carrier_lost_for_less_than_that_or_one_over_which_the_peer_is_heard_resets_nothing() {
    let mut c = settled(7, 2);
    c.net(0).cut(0, 1);
    let down = c.now;
    while c.now.since(down) < 370 * MS {
        assert!(without_interface(&mut c, 0, down));
        c.run_for(10 * MS);
    }
    c.net(0).heal();
    c.run_for(1000 * MS);
    let down = c.now;
    while c.now.since(down) < 5000 * MS {
        assert!(without_interface(&mut c, 0, down));
        // More often than the tick, which alone is heard of an idle peer.
        let (from, to) = (c.open(1), c.open(0));
        c.send(1, from.port, Destination::Socket(to), &[0; 8][..])
            .unwrap();
        c.send(1, from.port, Destination::Socket(to), &[0; 8][..])
            .unwrap();
        c.run_for(50 * MS);
    }
    assert_eq!((up(&c, 0), up(&c, 1)), (2, 2));
    assert!(down_reasons(&mut c, 0).is_empty());
    c.finish();
}

#[test]
fn what_the_lost_link_held_comes_by_the_other_one_in_one_batch_that_is_never_empty() {
    let mut c = settled(6, 2);
    let sender = open(&mut c, 0, false);
    let to = c.open(1);
    let first = active(&c, 0)[0] as usize;
    c.net(first).cut(0, 1);
    for n in 0..3u8 {
        c.send(0, sender.port, Destination::Socket(to), &[n; 30][..])
            .unwrap();
    }
    c.net(1 - first).record = true;
    c.until("given up", |c| up(c, 0) == 1 && up(c, 1) == 1);
    c.run_for(10 * MS);
    let batch = tunnels(&c.net(1 - first).seen.clone(), 0);
    let numbers: Vec<u16> = batch.iter().map(|(seqno, ..)| *seqno).collect();
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
    let kind = TunnelKind::Failover {
        count: 4,
        fragment_no: 0,
        fragment_count: 0,
    };
    assert!(batch.iter().all(|(_, k, _)| *k == kind), "{batch:?}");
    let sizes: Vec<usize> = batch.iter().map(|(.., size)| *size).collect();
    assert_eq!(
        sizes,
        [62, 62, 62, 32],
        "three messages and the last, empty one"
    );
    // The other end had nothing to give.
    assert_eq!(tunnels(&c.net(1 - first).seen.clone(), 1).len(), 1);
    let got: Vec<u8> = c.recv_all(1, to.port).iter().map(|m| m.bytes[0]).collect();
    assert_eq!(got, [0, 1, 2]);
    assert!(!contact_lost(&mut c));
    c.finish();
}

#[test]
fn packets_of_a_larger_mtu_are_tunnelled_in_pieces() {
    let mut c = Cluster::new(7);
    c.recipe.mtu = 2000;
    c.start(0);
    c.start(1);
    c.until("up", |c| c.is_full_mesh());
    c.recipe.mtu = 600;
    c.add_bearer(0);
    c.add_bearer(1);
    c.until("both", |c| up(c, 0) == 2 && up(c, 1) == 2);
    c.run_for(Duration::from_secs(1));
    let sender = open(&mut c, 0, false);
    let to = c.open(1);
    // Packets were cut to the smaller one as long as both carried messages: lose it, send, lose the other.
    c.net(1).cut(0, 1);
    c.until("given up", |c| up(c, 0) == 1 && up(c, 1) == 1);
    c.net(1).heal();
    c.net(0).filter = Some(Box::new(lose_messages));
    let piece = xtipc_protocol::link::mss(600);
    let sizes = [1900, 3 * piece, piece, piece + 1, 2 * piece];
    for len in sizes {
        c.send(
            0,
            sender.port,
            Destination::Socket(to),
            &vec![7; len - 32][..],
        )
        .unwrap();
    }
    c.until("both again", |c| up(c, 0) == 2 && up(c, 1) == 2);
    c.net(1).record = true;
    c.net(0).cut(0, 1);
    c.until("given up", |c| up(c, 0) == 1 && up(c, 1) == 1);
    c.run_for(100 * MS);
    let batch = tunnels(&c.net(1).seen.clone(), 0);
    assert!(
        batch.iter().any(|(_, kind, _)| matches!(
            kind,
            TunnelKind::Failover {
                fragment_count: 4,
                ..
            }
        )),
        "{batch:?}"
    );
    let got: Vec<usize> = c
        .recv_all(1, to.port)
        .iter()
        .map(|m| m.bytes.len() + 32)
        .collect();
    assert_eq!(got, sizes);
    assert!(!contact_lost(&mut c));
    c.finish();
}

#[test]
fn a_link_that_is_added_under_load_reorders_nothing() {
    for seed in 8..10 {
        let mut c = Cluster::settled(seed, 2);
        c.recipe.tx_hold_us = 200;
        let mut streams = Streams::new(&mut c);
        c.segment.slow.insert(0, 3_000);
        streams.flow(&mut c, 300 * MS);
        c.add_bearer(0);
        c.add_bearer(1);
        streams.flow(&mut c, 1500 * MS);
        assert_eq!((up(&c, 0), up(&c, 1)), (2, 2));
        streams.finish(&mut c);
        assert_eq!(down_reasons(&mut c, 0), []);
        c.finish();
    }
}

#[test]
fn cuts_at_any_moment_on_a_wire_that_loses_reorder_nothing_while_contact_lasts() {
    for seed in 20..24 {
        let mut c = settled(seed, 2);
        let faults = Faults {
            loss: 30,
            duplication: 20,
            reordering: 50,
            straggle_us: 2_000,
            corruption: 0,
        };
        (c.segment.faults, c.others[0].faults) = (faults, faults);
        let mut streams = Streams::new(&mut c);
        for _ in 0..5 {
            let net = c.rng.below(2) as usize;
            c.net(net).cut(0, 1);
            let span = c.rng.within(1..2500) as u32;
            streams.flow(&mut c, span * MS);
            c.net(net).heal();
            let span = c.rng.pick(&[1000, 1500, 3000]);
            // The other must not be cut before this one is up.
            streams.flow(&mut c, span * MS);
            c.until("both", |c| up(c, 0) == 2 && up(c, 1) == 2);
        }
        (c.segment.faults, c.others[0].faults) = Default::default();
        streams.finish(&mut c);
        assert!(!contact_lost(&mut c), "seed {seed}");
        c.finish();
    }
}

#[test]
fn a_link_that_fails_while_what_was_sent_before_is_awaited_reorders_nothing() {
    // The second link comes up while the first is cut and not yet given up: what moves to the second has to wait.
    for seed in 30..33 {
        let mut c = Cluster::settled(seed, 2);
        let mut streams = Streams::new(&mut c);
        streams.flow(&mut c, 100 * MS);
        c.add_bearer(0);
        c.add_bearer(1);
        c.until("nearly up", |c| up(c, 0) + up(c, 1) > 2);
        c.net(0).cut(0, 1);
        streams.flow(&mut c, 3000 * MS);
        assert_eq!((active(&c, 0), active(&c, 1)), (vec![1], vec![1]));
        c.net(0).heal();
        streams.flow(&mut c, 2000 * MS);
        streams.finish(&mut c);
        assert!(!contact_lost(&mut c), "seed {seed}");
        c.finish();
    }
}

fn lose_messages(flight: &Flight) -> Fate {
    let msg = Msg::check(&flight.bytes).unwrap();
    if msg.user().is_data() {
        Fate::Lose
    } else {
        Fate::Pass
    }
}

#[test]
fn a_failover_that_was_held_back_belongs_to_the_one_that_ends_the_wait() {
    let mut c = Cluster::settled(34, 2);
    let (sender, to) = (c.open(0), c.open(1));
    c.net(0).filter = Some(Box::new(lose_messages));
    for n in 0..3u8 {
        let to = Destination::Socket(to);
        c.send(0, sender.port, to, &[n; 30][..]).unwrap();
    }
    c.add_bearer(0);
    c.add_bearer(1);
    c.until("the second waits for the first", |c| {
        links(c, 1)
            .iter()
            .any(|link| link.state == LinkState::Synching)
    });
    // The sender gives the first up, and says so by the second.
    c.net(0).cuts.insert((1, 0));
    c.until("given up there", |c| up(c, 0) == 1);
    assert_eq!(up(&c, 1), 2);
    c.until("and here", |c| up(c, 1) == 1);
    c.run_for(10 * MS);
    let got: Vec<u8> = c.recv_all(1, to.port).iter().map(|m| m.bytes[0]).collect();
    assert_eq!(got, [0, 1, 2]);
    (c.net(0).filter, c.net(0).cuts) = Default::default();
    c.until("both again", |c| up(c, 0) == 2 && up(c, 1) == 2);
    assert!(!contact_lost(&mut c));
    c.finish();
}

#[test]
fn a_bearer_that_is_removed_hands_over_what_it_holds() {
    let mut c = settled(40, 2);
    let mut streams = Streams::new(&mut c);
    streams.flow(&mut c, 100 * MS);
    let now = c.now;
    c.with(0, |n| n.engine.remove_bearer(now, BearerId(0), &mut n.host));
    c.run_for(MS);
    assert_eq!(
        (up(&c, 0), up(&c, 1)),
        (1, 1),
        "the peer hears of it at once"
    );
    streams.flow(&mut c, 500 * MS);
    c.add_bearer(0);
    streams.flow(&mut c, 3000 * MS);
    assert_eq!((up(&c, 0), up(&c, 1)), (2, 2));
    streams.finish(&mut c);
    assert!(!contact_lost(&mut c));
    c.finish();
}

#[test]
fn an_orderly_stop_ends_all_links_at_once() {
    let mut c = settled(41, 2);
    c.notices(0);
    c.stop(1);
    c.run_for(MS);
    assert_eq!(down_reasons(&mut c, 0), [DownReason::PeerStopping; 2]);
    assert!(c.node(0).engine.peers().all(|peer| !peer.up));
}

#[test]
fn with_both_links_gone_contact_is_lost_and_comes_back_with_both() {
    let mut c = settled(42, 2);
    let mut streams = Streams::new(&mut c);
    streams.flow(&mut c, 100 * MS);
    c.net(0).cut(0, 1);
    c.net(1).cut(0, 1);
    c.until("lost", |c| !c.is_up(0, 1) && !c.is_up(1, 0));
    assert!(contact_lost(&mut c));
    c.net(0).heal();
    c.net(1).heal();
    c.until("back", |c| up(c, 0) == 2 && up(c, 1) == 2);
    assert_eq!((active(&c, 0), active(&c, 1)), (vec![0, 1], vec![0, 1]));
    c.finish();
}

#[test]
fn a_third_link_stands_by_and_takes_the_place_of_one_that_is_lost() {
    let mut c = settled(43, 3);
    let before = active(&c, 0);
    assert_eq!((before.len(), active(&c, 1).len()), (2, 2));
    let mut streams = Streams::new(&mut c);
    for round in 0..6 {
        streams.flow(&mut c, 300 * MS);
        let net = round % 3;
        c.net(net).cut(0, 1);
        streams.flow(&mut c, 2500 * MS);
        assert_eq!((up(&c, 0), up(&c, 1)), (2, 2), "round {round}");
        assert_eq!((active(&c, 0).len(), active(&c, 1).len()), (2, 2));
        c.net(net).heal();
        streams.flow(&mut c, 2500 * MS);
        assert_eq!((up(&c, 0), up(&c, 1)), (3, 3));
    }
    streams.finish(&mut c);
    assert!(!contact_lost(&mut c));
    c.finish();
}

#[test]
fn broadcasts_go_on_while_a_link_is_lost_and_are_sent_once() {
    let mut c = settled(44, 2);
    let receiver = c.open(1);
    c.bind(1, receiver.port, (4000, 0, 9));
    c.run_for(100 * MS);
    let sender = c.open(0);
    c.with(0, |n| {
        let port = n.engine.port_mut(sender.port).unwrap();
        port.mcast_wanted = Some(xtipc_protocol::port::McastMethod::Broadcast);
    });
    let mut sent = 0u32;
    for round in 0..40 {
        if round == 10 {
            c.net(0).cut(0, 1);
        }
        for _ in 0..3 {
            let to = xtipc_sim::cluster::range(4000, 0, 9);
            if c.send(0, sender.port, to, &sent.to_be_bytes()[..]).is_ok() {
                sent += 1;
            }
        }
        c.run_for(100 * MS);
    }
    c.run_for(Duration::from_secs(2));
    let got = c.recv_all(1, receiver.port);
    let got: Vec<u32> = got
        .iter()
        .map(|m| u32::from_be_bytes(*m.bytes.first_chunk().unwrap()))
        .collect();
    assert_eq!(got, (0..sent).collect::<Vec<_>>());
    assert_eq!(up(&c, 0), 1);
    assert!(!contact_lost(&mut c));
    let duplicates = c.peer_view(1, 0).unwrap().broadcast.rx_duplicates;
    assert!(duplicates <= 3, "{duplicates} came twice");
    c.finish();
}
