//! Encryption: who is let in, keys that change under traffic, frames that come twice.

use std::collections::HashSet;
use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId};
use xtipc_protocol::crypto::{ClearText, KeyError, KeyMaterial, KeyMode, KeyUse};
use xtipc_protocol::engine::Rekeying;
use xtipc_protocol::host::Notice;
use xtipc_protocol::stats::Drop;
use xtipc_protocol::wire::{Encrypted, User};
use xtipc_sim::cluster::{Cluster, MTU, service};
use xtipc_sim::segment::{Fate, mac_of};

const SERVICE: u32 = 5000;
const CLUSTER_KEY: &[u8] = b"the cluster's key 20";
const MASTER_KEY: &[u8] = b"a long-lived master key, 28 ";

fn material(bytes: &[u8]) -> KeyMaterial {
    KeyMaterial::new(bytes).expect("a key of the test")
}

/// A node with an epoch of its own start, and no key.
fn start(c: &mut Cluster, station: usize, epoch: u32) {
    c.start(station);
    c.with(station, |node| node.engine.begin_epoch(epoch));
}

fn set_key(c: &mut Cluster, station: usize, key: &[u8], purpose: KeyUse) -> Result<(), KeyError> {
    let now = c.now;
    let key = material(key);
    c.with(station, |node| {
        node.engine.set_key(now, key, purpose, &mut node.host)
    })
}

fn start_with(c: &mut Cluster, station: usize, keys: &[(&[u8], KeyUse)]) {
    start(c, station, 7);
    for (key, purpose) in keys {
        set_key(c, station, key, *purpose).expect("a first key is taken");
    }
}

/// Nodes with the same cluster key that have found each other.
fn keyed(seed: u64, count: usize) -> Cluster {
    let mut c = Cluster::new(seed);
    for station in 0..count {
        start_with(&mut c, station, &[(CLUSTER_KEY, KeyUse::Cluster)]);
    }
    c.until("all links are up", |c| c.is_full_mesh());
    c
}

fn drops(c: &Cluster, station: usize, reason: Drop) -> u64 {
    c.node(station).engine.drops().get(reason)
}

fn rekey(c: &mut Cluster, station: usize, byte: u8) {
    let now = c.now;
    let key = material(&[byte; 20]);
    c.with(station, |node| {
        node.engine.rekey(now, key, &mut node.host);
    });
}

fn active(c: &Cluster, station: usize) -> Option<(u8, KeyMode, usize)> {
    c.node(station).engine.crypto().active
}

/// A sender on node 0, and a receiver on node 1.
fn pair(c: &mut Cluster) -> (PortId, Destination, PortId) {
    let (from, to) = (c.open_returning(0).port, c.open(1));
    c.bind(1, to.port, (SERVICE, 0, 99));
    c.run_for(Duration::from_millis(100));
    (from, Destination::Socket(to), to.port)
}

/// Sends a numbered message every 5 ms, alternately to a socket and as a multicast, and takes them at the receiver.
fn traffic(c: &mut Cluster, ends: (PortId, Destination, PortId), numbers: std::ops::Range<u32>) {
    let (from, to, receiver) = ends;
    let mut got = Vec::new();
    let range = xtipc_sim::cluster::range(SERVICE, 0, 9);
    for number in numbers.clone() {
        let to = if number % 2 == 0 { to } else { range };
        let sent = c.send(0, from, to, &number.to_be_bytes()[..]);
        assert_eq!(sent, Ok(()), "message {number}");
        c.run_for(Duration::from_millis(5));
        got.extend(c.recv_all(1, receiver));
    }
    c.run_for(Duration::from_millis(500));
    got.extend(c.recv_all(1, receiver));
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    let mut got: Vec<u32> = got.iter().map(|m| number(&m.bytes)).collect();
    got.sort_unstable();
    assert!(got.into_iter().eq(numbers), "each message exactly once");
}

fn no_link_was_lost(c: &mut Cluster) {
    for station in c.stations() {
        let notices = c.notices(station);
        let lost = |n: &Notice| matches!(n, Notice::LinkDown(..));
        assert!(!notices.iter().any(lost), "node {station}: {notices:?}");
    }
}

#[test]
fn with_a_cluster_key_nothing_is_in_clear_and_all_arrives() {
    let mut c = keyed(1, 3);
    c.segment.record = true;
    let ends = pair(&mut c);
    traffic(&mut c, ends, 0..50);
    let large = vec![7; 66_000];
    c.send(0, ends.0, ends.1, &large[..]).unwrap();
    c.run_for(Duration::from_secs(1));
    assert_eq!(c.recv(1, ends.2).unwrap().bytes, large);
    let mut counters = HashSet::new();
    for seen in &c.segment.seen {
        let packet = Encrypted::parse(&seen.bytes).expect("encrypted");
        assert!(seen.bytes.len() <= MTU, "{} bytes", seen.bytes.len());
        assert_eq!(
            packet.destined,
            seen.to.is_some() && packet.user != User::LinkConfig
        );
        assert_eq!(packet.seqno >> 40, 7, "the epoch of this start");
        assert!(
            counters.insert((seen.from, packet.seqno)),
            "a counter came twice"
        );
        assert!(!seen.bytes.windows(8).any(|bytes| bytes == [7; 8]));
    }
    for station in 0..3 {
        assert_eq!(drops(&c, station, Drop::NoKey), 0);
        assert_eq!(drops(&c, station, Drop::Undecryptable), 0);
    }
    c.finish();
}

#[test]
fn all_three_key_lengths_work_and_the_key_becomes_the_active_one() {
    for len in [20, 28, 36] {
        let mut c = Cluster::new(2);
        for station in 0..2 {
            start_with(
                &mut c,
                station,
                &[(&vec![len; len.into()], KeyUse::Cluster)],
            );
        }
        c.until("the link is up", |c| c.is_full_mesh());
        assert_eq!(active(&c, 0), None, "introduced");
        c.run_for(Duration::from_secs(12));
        assert_eq!(active(&c, 0), Some((1, KeyMode::Cluster, len.into())));
        let ends = pair(&mut c);
        traffic(&mut c, ends, 0..20);
        c.finish();
    }
}

#[test]
fn a_node_with_another_key_is_not_let_in_and_is_counted() {
    let mut c = keyed(3, 2);
    start_with(&mut c, 2, &[(b"quite another key 20", KeyUse::Cluster)]);
    c.run_for(Duration::from_secs(20));
    assert!(c.is_up(0, 1) && c.peer_view(0, 2).is_none() && c.peer_view(2, 0).is_none());
    assert!(drops(&c, 0, Drop::NoKey) > 0 && drops(&c, 2, Drop::NoKey) > 0);
    no_link_was_lost(&mut c);
    c.finish();
}

#[test]
fn a_node_in_clear_is_let_in_only_where_clear_text_is_taken() {
    let mut c = keyed(4, 2);
    start(&mut c, 2, 1);
    c.run_for(Duration::from_secs(10));
    assert!(c.peer_view(0, 2).is_none());
    assert!(drops(&c, 0, Drop::ClearText) > 0 && drops(&c, 2, Drop::Encrypted) > 0);
    // What a Linux node with keys does: it takes clear text, and cannot be understood.
    c.with(0, |node| node.engine.set_clear_text(ClearText::Taken));
    c.run_for(Duration::from_secs(70));
    assert!(c.peer_view(0, 2).is_some() && c.peer_view(1, 2).is_none());
    c.finish();
}

#[test]
fn where_clear_text_is_refused_a_node_without_a_key_says_nothing() {
    let mut c = Cluster::new(5);
    c.start(0);
    start(&mut c, 1, 1);
    c.with(1, |node| node.engine.set_clear_text(ClearText::Refused));
    c.run_for(Duration::from_secs(2));
    c.segment.record = true;
    c.run_for(Duration::from_secs(10));
    assert!(c.segment.seen.iter().all(|seen| seen.from == 0));
    assert!(drops(&c, 1, Drop::ClearText) > 0 && drops(&c, 1, Drop::NoKey) > 0);
    c.finish();
}

#[test]
fn without_an_epoch_there_is_no_key() {
    let mut c = Cluster::new(6);
    c.start(0);
    let refused = set_key(&mut c, 0, CLUSTER_KEY, KeyUse::Cluster);
    assert_eq!(refused, Err(KeyError::NoEpoch));
    assert!(refused.unwrap_err().to_string().contains("epoch"));
}

#[test]
fn keys_are_replaced_under_traffic_and_no_message_is_lost() {
    for seed in 0..4 {
        let mut c = keyed(seed, 3);
        c.segment.faults.loss = if seed % 2 == 0 { 0 } else { 20 };
        let ends = pair(&mut c);
        c.run_for(Duration::from_secs(12));
        let mut sent = 0;
        for change in 1..4 {
            rekey(&mut c, 0, change);
            rekey(&mut c, 1, 0x40 + change);
            traffic(&mut c, ends, sent..sent + 2800);
            sent += 2800;
            for station in 0..2 {
                let expected = Some((1 + change % 3, KeyMode::PerNode, 20));
                assert_eq!(active(&c, station), expected, "change {change}");
            }
            // Receivers keep the key before for late frames, and have room for three.
            c.run_for(Duration::from_secs(14));
        }
        no_link_was_lost(&mut c);
        c.finish();
    }
}

#[test]
fn while_a_key_is_introduced_another_one_is_refused() {
    let mut c = keyed(8, 2);
    c.run_for(Duration::from_secs(1));
    let busy = set_key(&mut c, 0, b"a second cluster key", KeyUse::Cluster);
    assert_eq!(busy, Err(KeyError::Busy));
    c.run_for(Duration::from_secs(12));
    assert_eq!(
        set_key(&mut c, 0, b"a second cluster key", KeyUse::Cluster),
        Ok(())
    );
    c.finish();
}

#[test]
fn a_node_joins_with_the_master_key_while_keys_change() {
    for joined_after_ms in [0, 300, 2_000, 9_900, 11_000, 20_000] {
        let both: [(&[u8], KeyUse); 2] =
            [(MASTER_KEY, KeyUse::Master), (CLUSTER_KEY, KeyUse::Cluster)];
        let mut c = Cluster::new(9);
        start_with(&mut c, 0, &both);
        start_with(&mut c, 1, &both);
        c.until("up", |c| c.is_full_mesh());
        c.run_for(Duration::from_secs(12));
        let ends = pair(&mut c);
        rekey(&mut c, 0, 0x11);
        rekey(&mut c, 1, 0x22);
        c.run_for(Duration::from_millis(joined_after_ms));
        start_with(&mut c, 2, &both[..1]);
        let joined = c.reaches(Duration::from_secs(8), |c| c.is_full_mesh());
        assert!(joined, "{joined_after_ms} ms after the change");
        traffic(&mut c, ends, 0..3000);
        // The newcomer is told the key, and takes what is encrypted with it.
        let newcomer = c.open(2);
        c.bind(2, newcomer.port, (SERVICE + 1, 0, 0));
        c.run_for(Duration::from_secs(1));
        c.send(0, ends.0, Destination::Socket(newcomer), &b"welcome"[..])
            .unwrap();
        c.run_for(Duration::from_secs(1));
        assert_eq!(c.texts(2, newcomer.port), ["welcome"]);
        no_link_was_lost(&mut c);
        c.finish();
    }
}

#[test]
fn keys_of_single_nodes_are_set_by_identity_also_before_the_node_is_known() {
    let mut c = Cluster::new(10);
    start(&mut c, 0, 1);
    start(&mut c, 1, 1);
    let ids = [0, 1].map(|station| c.node(station).engine.config().id);
    for station in [0, 1] {
        for (n, id) in ids.iter().enumerate() {
            set_key(&mut c, station, &[n as u8 + 1; 36], KeyUse::Node(*id)).unwrap();
        }
    }
    c.until("up", |c| c.is_full_mesh());
    let ends = pair(&mut c);
    c.run_for(Duration::from_secs(12));
    assert_eq!(active(&c, 0), Some((1, KeyMode::PerNode, 36)));
    traffic(&mut c, ends, 0..100);
    c.finish();
}

#[test]
fn flushed_keys_are_gone_and_traffic_is_in_clear_again() {
    let mut c = keyed(11, 2);
    let ends = pair(&mut c);
    for station in 0..2 {
        c.with(station, |node| node.engine.flush_keys());
    }
    c.segment.record = true;
    traffic(&mut c, ends, 0..20);
    assert!(
        !c.segment
            .seen
            .iter()
            .any(|seen| Encrypted::is_at(&seen.bytes))
    );
    no_link_was_lost(&mut c);
    c.finish();
}

#[test]
fn frames_that_come_again_are_dropped_and_counted() {
    let mut c = keyed(12, 2);
    c.segment.record = true;
    let ends = pair(&mut c);
    traffic(&mut c, ends, 0..50);
    let seen = std::mem::take(&mut c.segment.seen);
    let replayed = drops(&c, 1, Drop::Replayed);
    let to_one: Vec<_> = seen.iter().filter(|seen| seen.from == 0).collect();
    for seen in &to_one {
        c.receive(1, mac_of(0), &seen.bytes);
    }
    assert_eq!(drops(&c, 1, Drop::Replayed) - replayed, to_one.len() as u64);
    traffic(&mut c, ends, 50..60);
    no_link_was_lost(&mut c);
    c.finish();
}

/// A Linux node counts from 1 again after a restart, with the same key.
#[test]
fn a_peer_that_counts_from_the_beginning_again_gets_its_link_back() {
    let mut c = keyed(13, 2);
    let ends = pair(&mut c);
    traffic(&mut c, ends, 0..50);
    c.kill(0);
    c.run_for(Duration::from_millis(300));
    start(&mut c, 0, 0);
    set_key(&mut c, 0, CLUSTER_KEY, KeyUse::Cluster).unwrap();
    let back = c.reaches(Duration::from_secs(4), |c| c.is_full_mesh());
    assert!(back && drops(&c, 1, Drop::Replayed) == 0);
    let from = c.open_returning(0).port;
    c.run_for(Duration::from_millis(100));
    traffic(&mut c, (from, ends.1, ends.2), 0..50);
    c.finish();
}

#[test]
fn forged_frames_with_a_known_sender_change_no_key() {
    let mut c = keyed(14, 2);
    c.segment.record = true;
    let ends = pair(&mut c);
    traffic(&mut c, ends, 0..10);
    c.run_for(Duration::from_secs(12));
    let genuine = c.segment.seen.iter().rfind(|seen| seen.from == 0).unwrap();
    let mut forged = genuine.bytes.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    c.segment.record = false;
    for _ in 0..200 {
        for slot in 0..4 {
            forged[1] = forged[1] & 0x3f | slot << 6;
            c.receive(1, mac_of(0), &forged);
        }
        c.run_for(Duration::from_millis(50));
    }
    assert!(drops(&c, 1, Drop::Undecryptable) >= 200);
    traffic(&mut c, ends, 10..100);
    no_link_was_lost(&mut c);
    assert_eq!(c.node(1).engine.crypto().peers, 1);
    c.finish();
}

#[test]
fn a_key_given_in_clear_is_not_taken() {
    let mut c = keyed(15, 2);
    for station in 0..2 {
        c.with(station, |node| node.engine.set_clear_text(ClearText::Taken));
    }
    let (a, b) = (c.addr(0), c.addr(1));
    let mut message = vec![0; 96];
    message[..8].copy_from_slice(&[0x5d, 0x40, 0, 96, 0, 0, 0, 0]);
    message[12..16].copy_from_slice(&a.0.to_be_bytes());
    message[24..28].copy_from_slice(&a.0.to_be_bytes());
    message[28..32].copy_from_slice(&b.0.to_be_bytes());
    let before = drops(&c, 1, Drop::ClearText);
    c.receive(1, mac_of(0), &message);
    assert_eq!(drops(&c, 1, Drop::ClearText), before + 1);
    c.finish();
}

#[test]
fn the_session_key_is_replaced_when_its_time_has_come() {
    let mut c = keyed(16, 2);
    c.run_for(Duration::from_secs(12));
    let now = c.now;
    let every = Rekeying::Every(Duration::from_secs(60));
    c.with(0, |node| {
        node.engine.set_rekeying(now, every, &mut node.host)
    });
    let asked = |c: &mut Cluster| {
        let notices = c.notices(0);
        notices
            .iter()
            .filter(|n| **n == Notice::RekeyDue(20))
            .count()
    };
    c.run_for(Duration::from_secs(59));
    assert_eq!(asked(&mut c), 0);
    c.run_for(Duration::from_secs(2));
    assert_eq!(asked(&mut c), 1);
    rekey(&mut c, 0, 5);
    c.run_for(Duration::from_secs(60));
    assert_eq!(asked(&mut c), 1);
    assert_eq!(active(&c, 0), Some((2, KeyMode::PerNode, 20)));
    for rekeying in [Rekeying::Now, Rekeying::Off] {
        let now = c.now;
        c.with(0, |node| {
            node.engine.set_rekeying(now, rekeying, &mut node.host)
        });
    }
    assert_eq!(asked(&mut c), 1, "at once");
    c.run_for(Duration::from_secs(200));
    assert_eq!(asked(&mut c), 0, "never");
    c.finish();
}

#[test]
fn a_distributed_key_that_is_lost_is_asked_for() {
    let mut c = keyed(17, 2);
    c.run_for(Duration::from_secs(12));
    let ends = pair(&mut c);
    rekey(&mut c, 0, 9);
    c.run_for(Duration::from_secs(15));
    let now = c.now;
    c.with(1, |node| {
        node.engine.flush_keys();
        node.engine.set_clear_text(ClearText::Refused);
        let key = material(CLUSTER_KEY);
        node.engine
            .set_key(now, key, KeyUse::Cluster, &mut node.host)
    })
    .unwrap();
    // Node 1 says that it lacks a key; it can be given it only in frames that it can open: by a master key.
    for station in 0..2 {
        set_key(&mut c, station, MASTER_KEY, KeyUse::Master).unwrap();
    }
    let healed = c.reaches(Duration::from_secs(20), |c| {
        c.node(1).engine.crypto().peers == 1 && c.is_full_mesh()
    });
    assert!(healed);
    let _ = c.notices(0);
    let _ = c.notices(1);
    traffic(&mut c, ends, 0..50);
    c.finish();
}

#[test]
fn a_node_without_key_exchange_gives_no_session_key_and_takes_none() {
    let mut c = keyed(18, 2);
    c.run_for(Duration::from_secs(12));
    c.with(0, |node| node.engine.set_key_exchange(false));
    for (station, byte) in [(0, 9), (1, 8)] {
        let own = KeyUse::Node(c.node(station).engine.config().id);
        set_key(&mut c, station, &[byte; 20], own).expect("a second key is taken");
    }
    let ends = pair(&mut c);
    traffic(&mut c, ends, 0..20);
    c.run_for(Duration::from_secs(30));
    assert!(drops(&c, 0, Drop::UnwantedKey) > 0, "it was told one");
    for station in 0..2 {
        let keys = c.node(station).engine.crypto();
        assert_eq!(keys.active, Some((1, KeyMode::Cluster, 20)), "{station}");
        assert!(keys.pending.is_some(), "nobody uses the key of {station}");
    }
    assert_eq!(drops(&c, 1, Drop::UnwantedKey), 0);
    c.finish();
}

#[test]
fn a_node_without_key_exchange_keeps_its_session_key() {
    let mut c = keyed(19, 2);
    c.with(0, |node| node.engine.set_key_exchange(false));
    c.run_for(Duration::from_secs(12));
    let _ = c.notices(0);
    let now = c.now;
    c.with(0, |node| {
        node.engine.set_rekeying(now, Rekeying::Now, &mut node.host)
    });
    assert!(
        !c.notices(0)
            .iter()
            .any(|n| matches!(n, Notice::RekeyDue(_)))
    );
    rekey(&mut c, 0, 5);
    assert_eq!(c.node(0).engine.crypto().pending, None);
    c.finish();
}

#[test]
fn a_broadcast_is_sent_again_to_one_peer_under_a_key_of_the_sender() {
    let mut c = Cluster::new(20);
    for station in 0..3 {
        start_with(&mut c, station, &[(MASTER_KEY, KeyUse::Master)]);
        let own = KeyUse::Node(c.node(station).engine.config().id);
        set_key(&mut c, station, &[station as u8; 20], own).expect("a first key is taken");
    }
    c.until("all links are up", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(40));
    assert_eq!(active(&c, 0), Some((1, KeyMode::PerNode, 20)));
    c.with(0, |node| node.engine.set_broadcast_repair(true));
    let to = c.open(1).port;
    let before = [0, 1, 2].map(|station| drops(&c, station, Drop::NoKey));
    // Of the broadcasts, 1 in 4 is lost.
    let mut count = 0;
    c.segment.filter = Some(Box::new(move |flight| {
        let is_one = !Encrypted::parse(&flight.bytes).expect("encrypted").destined;
        count += u32::from(is_one && flight.to == 1);
        match is_one && flight.to == 1 && count.is_multiple_of(4) {
            true => Fate::Lose,
            false => Fate::Pass,
        }
    }));
    let binder = c.open(0).port;
    for lower in 0..40 {
        c.bind(0, binder, (6000, lower, lower));
        c.run_for(Duration::from_millis(20));
    }
    c.run_for(Duration::from_secs(5));
    let again = c.node(0).engine.broadcast_link().stats.retransmitted;
    assert!(again > 0, "nothing was sent again");
    c.segment.filter = None;
    for lower in 0..40 {
        c.send(1, to, service(6000, lower), &b"x"[..])
            .expect("the binding arrived");
    }
    for (station, before) in before.into_iter().enumerate() {
        assert_eq!(drops(&c, station, Drop::Undecryptable), 0);
        assert_eq!(drops(&c, station, Drop::NoKey), before);
    }
    c.finish();
}
