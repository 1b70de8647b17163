//! Streams that gather small pieces.

use super::{connection_traffic, pattern, read_bytes, settle, wired, wired_within, words};
use std::time::Duration;
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::wire::{Msg, User, field};
use xtipc_sim::segment::Fate;

#[test]
fn a_stream_that_gets_no_answer_gathers_until_its_last_message_is_acknowledged() {
    let mut w = wired(40, SocketKind::Stream);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    c.segment.record = true;
    for n in 0..25 {
        c.write(0, client.port, &pattern(10 * n, 10)[..]).unwrap();
    }
    // Four as they are, the fifth asks, and the others wait for the answer.
    let sent = connection_traffic(c);
    let first: Vec<u32> = sent.iter().map(|(_, b)| words(b).0).collect();
    assert_eq!(
        first,
        [
            0x40c0_0022,
            0x40c0_0022,
            0x40c0_0022,
            0x40c0_0022,
            0x40c4_0022
        ]
    );
    settle(c);
    let sent = connection_traffic(c);
    let (from, answer) = &sent[5];
    assert_eq!((*from, words(answer)), (1, (0x5144_0028, 0x4000_0000)));
    // It came at once, before anything was read, and the 20 pieces went in one message that asks.
    assert_eq!(field::word(answer, 9), 512);
    assert_eq!(words(&sent[6].1).0, 0x40c4_0000 + 24 + 200);
    assert_eq!(read_bytes(c, 1, server), pattern(0, 250));
    w.c.finish();
}

#[test]
fn an_answer_on_the_connection_releases_what_is_held() {
    let mut w = wired(41, SocketKind::Stream);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    c.segment.filter = Some(Box::new(|flight| match Msg::check(&flight.bytes) {
        // The acknowledgement that would release it is late.
        Ok(msg) if msg.user() == User::ConnManager => Fate::Lose,
        _ => Fate::Pass,
    }));
    for n in 0..10 {
        c.write(0, client.port, &pattern(n, 1)[..]).unwrap();
    }
    settle(c);
    assert_eq!(read_bytes(c, 1, server), pattern(0, 5));
    c.segment.filter = None;
    c.write(1, server.port, &b"answer"[..]).unwrap();
    c.run_for(Duration::from_secs(1));
    assert_eq!(read_bytes(c, 1, server), pattern(5, 5));
    w.c.finish();
}

#[test]
fn with_nodelay_every_piece_goes_out_at_once_and_messages_are_never_gathered() {
    for (kind, nodelay) in [(SocketKind::Stream, true), (SocketKind::Seqpacket, false)] {
        for mut w in [wired(42, kind), wired_within(42, kind)] {
            let (near, far, client, server) = (w.near, w.far, w.client, w.server);
            let c = &mut w.c;
            c.with(near, |n| n.engine.set_nodelay(client.port, nodelay))
                .unwrap();
            for n in 0..40 {
                c.write(near, client.port, &pattern(n, 1)[..]).unwrap();
            }
            settle(c);
            assert_eq!(c.recv_all(far, server.port).len(), 40);
            w.c.finish();
        }
    }
}

#[test]
fn setting_nodelay_sends_what_is_held() {
    let mut w = wired(43, SocketKind::Stream);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    for n in 0..10 {
        c.write(0, client.port, &pattern(n, 1)[..]).unwrap();
    }
    let now = c.now;
    c.with(0, |n| n.engine.set_nodelay(client.port, true))
        .unwrap();
    c.with(0, |n| {
        n.engine
            .send_connected(now, client.port, &pattern(10, 1)[..], &mut n.host)
    })
    .unwrap();
    settle(c);
    assert_eq!(read_bytes(c, 1, server), pattern(0, 11));
    w.c.finish();
}

#[test]
fn streams_of_one_node_gather_messages_of_1500_bytes() {
    let mut w = wired_within(44, SocketKind::Stream);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    // Every acknowledgement comes at once here, so nothing is ever held for long.
    let mut got = Vec::new();
    for n in 0..1000 {
        c.write(0, client.port, &pattern(n, 1)[..]).unwrap();
        if n % 100 == 99 {
            got.extend(read_bytes(c, 0, server));
        }
    }
    assert_eq!(got, pattern(0, 1000));
    w.c.finish();
}

#[test]
fn a_large_write_goes_out_behind_what_is_held() {
    let mut w = wired(45, SocketKind::Stream);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    let mut at = 0;
    for len in [1, 1, 1, 1, 1, 3, 4, 5000, 7, 7, 7, 66_000, 2] {
        c.write(0, client.port, &pattern(at, len)[..]).unwrap();
        at += len;
    }
    c.run_for(Duration::from_millis(50));
    assert_eq!(read_bytes(c, 1, server), pattern(0, at));
    w.c.finish();
}

#[test]
fn closing_sends_what_is_held_before_the_end() {
    for closes in [true, false] {
        let mut w = wired(46, SocketKind::Stream);
        let (client, server) = (w.client, w.server);
        let c = &mut w.c;
        for n in 0..30 {
            c.write(0, client.port, &pattern(n, 1)[..]).unwrap();
        }
        if closes {
            c.close(0, client.port);
        } else {
            c.shutdown(0, client.port);
        }
        settle(c);
        let mut got = c.recv_all(1, server.port);
        let end = got.pop().unwrap();
        assert_eq!(
            end.about.errcode,
            if closes {
                super::NO_PORT
            } else {
                super::SHUTDOWN
            }
        );
        let bytes: Vec<u8> = got.into_iter().flat_map(|m| m.bytes).collect();
        assert_eq!(bytes, pattern(0, 30));
        w.c.finish();
    }
}
