//! Windows, acknowledgements, large messages, loss.

use super::{
    connection_traffic, exhaust_frames, pattern, read_bytes, settle, small_cluster, wire_up, wired,
    wired_within, words,
};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, SocketAddr};
use xtipc_protocol::connection::State;
use xtipc_protocol::engine::SendError;
use xtipc_protocol::host::Notice;
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::wire::{Capabilities, Importance, Msg, User, field};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::{Fate, Faults};

const KINDS: [SocketKind; 2] = [SocketKind::Seqpacket, SocketKind::Stream];

/// Writes messages until the socket has to wait; gives how many.
fn fill(c: &mut Cluster, station: usize, from: SocketAddr, payload: &[u8]) -> usize {
    let mut count = 0;
    loop {
        match c.write(station, from.port, payload) {
            Ok(len) => assert_eq!(len, payload.len()),
            Err(error) => {
                assert_eq!(error, SendError::Congested);
                return count;
            }
        }
        count += 1;
        settle(c);
    }
}

#[test]
fn a_sender_stops_at_the_peers_window_and_goes_on_when_a_quarter_was_read() {
    for (mut w, remote) in [
        (wired(20, SocketKind::Seqpacket), true),
        (wired_within(20, SocketKind::Seqpacket), false),
    ] {
        let (near, far, client, server) = (w.near, w.far, w.client, w.server);
        let c = &mut w.c;
        assert_eq!(fill(c, near, client, &[1; 1000]), 65);
        c.segment.record = true;
        for _ in 0..15 {
            c.recv(far, server.port).unwrap();
        }
        settle(c);
        assert_eq!(
            c.write(near, client.port, &b"x"[..]),
            Err(SendError::Congested)
        );
        assert!(
            connection_traffic(c).is_empty(),
            "nothing is acknowledged yet"
        );
        c.notices(near);
        c.recv(far, server.port).unwrap();
        settle(c);
        assert!(c.notices(near).contains(&Notice::Writable(client.port)));
        if remote {
            let acks = connection_traffic(c);
            assert_eq!(acks.len(), 1);
            assert_eq!(words(&acks[0].1), (0x5140_0028, 0x4000_0000));
            // 32 blocks consumed, and the window of a receive buffer of 2 MiB.
            assert_eq!(field::word(&acks[0].1, 9), 0x0020_0200);
            let msg = Msg::check(&acks[0].1).unwrap();
            let ends = [
                field::ORIG_PORT,
                field::DEST_PORT,
                field::ORIG_NODE,
                field::DEST_NODE,
            ];
            let expect = [server.port.0, client.port.0, server.node.0, client.node.0];
            assert_eq!(ends.map(|f| msg.get(f)), expect);
        }
        // 98 blocks are under way, and the window is now 512.
        assert_eq!(fill(c, near, client, &[2; 1000]), 208);
        w.c.finish();
    }
}

#[test]
fn the_receive_buffer_sets_the_window_from_the_first_acknowledgement_on() {
    let mut w = wired(21, SocketKind::Seqpacket);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    c.with(1, |n| n.engine.set_receive_buffer(server.port, 64 << 10))
        .unwrap();
    // A smaller buffer takes nothing back that was granted.
    assert_eq!(fill(c, 0, client, &[1; 1000]), 65);
    assert_eq!(c.recv_all(1, server.port).len(), 65);
    settle(c);
    // Of the 130 blocks the last 2 are not acknowledged; 16 blocks of 4 KiB each are the window.
    let sent = fill(c, 0, client, &[1; 1000]);
    assert_eq!(sent, 8);
    assert_eq!(c.node(1).engine.port(server.port).unwrap().overloads, 0);
    w.c.finish();
}

/// Lets each of two nodes take the other for one without these capabilities.
fn without(c: &mut Cluster, missing: u16) {
    c.segment.filter = Some(Box::new(move |flight| {
        let Ok(msg) = Msg::check(&flight.bytes) else {
            return Fate::Pass;
        };
        if msg.user() != User::LinkConfig {
            return Fate::Pass;
        }
        let mut bytes = flight.bytes.clone();
        let had = field::CAPABILITIES.get(&bytes);
        field::CAPABILITIES.set(&mut bytes, had & !u32::from(missing));
        Fate::Replace(bytes)
    }));
}

fn old_cluster(seed: u64, missing: Capabilities) -> Cluster {
    let mut c = Cluster::new(seed);
    without(&mut c, missing.0);
    c.start(0);
    c.start(1);
    c.until("links", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    let peer = c.peer_view(0, 1).unwrap();
    assert!(!peer.capabilities.has(missing));
    c
}

#[test]
fn with_a_peer_that_does_not_know_blocks_messages_are_counted() {
    let mut w = wire_up(
        old_cluster(22, Capabilities::BLOCK_FLOWCTL),
        SocketKind::Seqpacket,
        0,
        1,
    );
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    assert_eq!(fill(c, 0, client, &[1; 5000]), 513);
    c.segment.record = true;
    for _ in 0..128 {
        c.recv(1, server.port).unwrap();
    }
    settle(c);
    let acks = connection_traffic(c);
    assert_eq!(acks.len(), 1);
    assert_eq!(field::word(&acks[0].1, 9), 128 << 16);
    assert!(c.notices(0).contains(&Notice::Writable(client.port)));
    assert_eq!(fill(c, 0, client, &[1; 5000]), 128);
    let rest = c.recv_all(1, server.port).len();
    assert_eq!(rest, 513 + 128 - 128);
    w.c.finish();
}

#[test]
fn messages_of_every_size_arrive_whole_both_ways() {
    for kind in KINDS {
        for mut w in [wired(23, kind), wired_within(23, kind)] {
            let ends = [
                (w.near, w.client, w.far, w.server),
                (w.far, w.server, w.near, w.client),
            ];
            let c = &mut w.c;
            for len in [1, 2, 999, 1000, 1001, 1436, 1437, 5000, 65_999, 66_000] {
                for (from, sender, to, receiver) in ends {
                    let bytes = pattern(len, len);
                    assert_eq!(c.write(from, sender.port, &bytes[..]), Ok(len));
                    c.run_for(Duration::from_millis(20));
                    assert_eq!(read_bytes(c, to, receiver), bytes, "{kind:?} {len}");
                }
            }
            w.c.finish();
        }
    }
}

#[test]
fn a_stream_takes_any_length_as_far_as_the_window_goes() {
    let mut w = wired(24, SocketKind::Stream);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    let bytes = pattern(0, 1_000_000);
    let first = c.write(0, client.port, &bytes[..]).unwrap();
    assert_eq!(
        first,
        2 * 66_000,
        "two messages of 65 blocks in a window of 128"
    );
    let mut sent = first;
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        c.run_for(Duration::from_millis(5));
        got.extend(read_bytes(c, 1, server));
        if sent < bytes.len() {
            sent += c.write(0, client.port, &bytes[sent..]).unwrap_or(0);
        }
    }
    assert!(got == bytes);
    w.c.finish();
}

#[test]
fn nothing_is_lost_doubled_or_reordered_on_a_bad_network() {
    for (seed, kind) in [(25, KINDS[0]), (26, KINDS[1])] {
        let mut w = wired(seed, kind);
        let ends = [
            (w.near, w.client, w.far, w.server),
            (w.far, w.server, w.near, w.client),
        ];
        let c = &mut w.c;
        c.segment.faults = Faults {
            loss: 50,
            duplication: 50,
            reordering: 200,
            straggle_us: 2000,
            corruption: 0,
        };
        let (mut sent, mut got) = ([0; 2], [0; 2]);
        let total = 1_000_000;
        while got != [total; 2] {
            for (n, (from, sender, to, receiver)) in ends.into_iter().enumerate() {
                let len = c.rng.pick(&[1, 30, 1000, 1436, 1500, 20_000, 66_000]);
                let bytes = pattern(sent[n], len.min(total - sent[n]));
                if !bytes.is_empty() {
                    sent[n] += c.write(from, sender.port, &bytes[..]).unwrap_or(0);
                }
                if c.rng.chance(700) {
                    let bytes = read_bytes(c, to, receiver);
                    assert!(
                        bytes == pattern(got[n], bytes.len()),
                        "{kind:?} at {}",
                        got[n]
                    );
                    got[n] += bytes.len();
                }
            }
            c.run_for(Duration::from_micros(300));
        }
        c.segment.faults = Faults::default();
        w.c.finish();
    }
}

#[test]
fn a_sender_that_met_link_congestion_is_told_when_it_may_go_on() {
    let mut w = wired(27, SocketKind::Seqpacket);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    for _ in 0..10 {
        c.write(0, client.port, &[1; 10_000][..]).unwrap();
        settle(c);
        c.recv_all(1, server.port);
    }
    // Beyond the link's window of 50 packets and its backlog of 100, below the peer's of 512 blocks.
    settle(c);
    c.segment.cuts.insert((0, 1));
    while c.write(0, client.port, &[2; 10_000][..]).is_ok() {}
    let congested = c.node(0).engine.port(client.port).unwrap().is_congested();
    assert!(congested, "by the link, not by the window");
    c.notices(0);
    c.segment.heal();
    let writable = Notice::Writable(client.port);
    c.until("room", |c| c.node(0).host.notices.contains(&writable));
    c.write(0, client.port, &b"on"[..]).unwrap();
    w.c.finish();
}

#[test]
fn a_message_of_another_importance_does_not_overtake() {
    let mut w = wired(28, SocketKind::Seqpacket);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    let other = c.open(0);
    let to = Destination::Socket(SocketAddr {
        port: other.port,
        node: server.node,
    });
    let importance =
        |c: &mut Cluster, port, to| c.with(0, |n| n.engine.port_mut(port).unwrap().importance = to);
    importance(c, other.port, Importance::High);
    // The link is full, and a packet of high importance waits that has room.
    c.segment.cuts.insert((0, 1));
    for _ in 0..60 {
        c.send(0, other.port, to, &[0; 1400][..]).unwrap();
    }
    c.send(0, other.port, to, &b"joinable"[..]).unwrap();
    c.write(0, client.port, &b"first"[..]).unwrap();
    importance(c, client.port, Importance::High);
    c.write(0, client.port, &b"second"[..]).unwrap();
    importance(c, client.port, Importance::Low);
    c.write(0, client.port, &b"third"[..]).unwrap();
    c.shutdown(0, client.port);
    c.segment.heal();
    c.run_for(Duration::from_secs(2));
    let got = c.recv_all(1, server.port);
    let texts: Vec<_> = got.iter().map(|m| (m.text(), m.about.errcode)).collect();
    assert_eq!(texts, [("first", 0), ("second", 0), ("third", 0), ("", 5)]);
    w.c.finish();
}

#[test]
fn an_acknowledgement_that_finds_no_room_is_sent_later() {
    let mut w = wire_up(small_cluster(29), SocketKind::Seqpacket, 0, 1);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    assert_eq!(fill(c, 0, client, &[1; 1000]), 65);
    c.segment.cuts.insert((1, 0));
    exhaust_frames(c, 1, client.node);
    for _ in 0..65 {
        c.recv(1, server.port).unwrap();
    }
    assert_eq!(
        c.write(0, client.port, &b"x"[..]),
        Err(SendError::Congested)
    );
    c.segment.heal();
    let writable = Notice::Writable(client.port);
    c.until("an acknowledgement", |c| {
        c.node(0).host.notices.contains(&writable)
    });
    assert_eq!(c.state(0, client.port), Some(State::Established));
    w.c.finish();
}

#[test]
fn the_end_does_not_join_a_packet_ahead_of_its_data() {
    let mut w = wired(30, SocketKind::Seqpacket);
    let (client, server, listener) = (w.client, w.server, w.listener);
    let c = &mut w.c;
    let other = c.open_kind(0, SocketKind::Seqpacket);
    c.connect(0, other.port, Destination::Socket(listener))
        .unwrap();
    settle(c);
    let far = c.accept(1, listener.port).unwrap().port;
    settle(c);
    for _ in 0..16 {
        c.write(1, far, &[1; 1000][..]).unwrap();
    }
    settle(c);
    let noise = c.open(0).port;
    c.segment.cuts.insert((0, 1));
    for _ in 0..60 {
        c.send(0, noise, Destination::Socket(listener), &[0; 1400][..])
            .unwrap();
    }
    // An acknowledgement of the other connection waits in a packet with room for more.
    assert_eq!(c.recv_all(0, other.port).len(), 16);
    c.write(0, client.port, &b"last"[..]).unwrap();
    c.shutdown(0, client.port);
    c.segment.heal();
    c.run_for(Duration::from_secs(2));
    let got = c.recv_all(1, server.port);
    let texts: Vec<_> = got.iter().map(|m| (m.text(), m.about.errcode)).collect();
    assert_eq!(texts, [("last", 0), ("", 5)]);
    w.c.finish();
}

#[test]
fn what_found_no_frame_does_not_count_against_the_window() {
    let mut w = wire_up(small_cluster(31), SocketKind::Seqpacket, 0, 1);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    c.segment.cuts.insert((0, 1));
    exhaust_frames(c, 0, server.node);
    for _ in 0..10 {
        let sent = c.write(0, client.port, &[0; 66_000][..]);
        assert_eq!(sent, Err(SendError::Congested));
    }
    let flow = c.node(0).engine.port(client.port).unwrap();
    let flow = flow.connection().unwrap().flow;
    assert_eq!(flow.sent(), (0, 128));
    c.segment.heal();
    w.c.finish();
}
