//! Messages that no peer of a connection would send.

use super::{NO_PORT, OVERLOAD, Wired, settle, wired};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId};
use xtipc_protocol::connection::State;
use xtipc_protocol::engine::SendError;
use xtipc_protocol::host::{Disconnect, Notice};
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::stats::Drop;
use xtipc_protocol::wire::{ConnKind, Header, User, field, size};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::mac_of;

/// A message of node 1 for node 0, with the next number of their link.
fn strike(c: &mut Cluster, header: &Header, payload: &[u8]) {
    let mut header = *header;
    let next = c.link_view(1, 0).stats.tx_packets + 1;
    header
        .set(field::SEQNO, next)
        .set_payload_len(payload.len());
    c.strict = false;
    c.receive(0, mac_of(1), &[header.as_bytes(), payload].concat());
}

fn data_header(c: &Cluster, from: PortId, to: PortId, code: u32) -> Header {
    let mut header = Header::new(User::Low, 0, size::SHORT);
    header
        .set(field::PREV_NODE, c.addr(1).0)
        .set(field::ORIG_PORT, from.0)
        .set(field::DEST_PORT, to.0)
        .set(field::ERRCODE, code);
    header
}

fn drops(c: &Cluster, reason: Drop) -> u64 {
    c.node(0).engine.drops().get(reason)
}

fn alive(w: &mut Wired) {
    let (client, server) = (w.client, w.server);
    assert_eq!(w.c.state(0, client.port), Some(State::Established));
    assert!(w.c.recv(0, client.port).is_none());
    assert!(w.c.node(0).engine.port(client.port).unwrap().used == 0);
    assert_eq!(w.c.node(1).engine.port(server.port).unwrap().used, 0);
}

#[test]
fn data_and_ends_from_others_than_the_peer_change_nothing() {
    for (port, code) in [(99, 0), (99, 2), (99, 5), (0, 0), (0, 5)] {
        let mut w = wired(80, SocketKind::Stream);
        let client = w.client;
        let header = data_header(&w.c, PortId(port), client.port, code);
        strike(&mut w.c, &header, b"forged");
        alive(&mut w);
    }
}

#[test]
fn acknowledgements_of_more_than_was_sent_are_ignored() {
    for (acked, sent) in [(1, 0), (u16::MAX, 0), (66, 65), (u16::MAX, 65)] {
        let mut w = wired(81, SocketKind::Seqpacket);
        let (client, server) = (w.client, w.server);
        let c = &mut w.c;
        for _ in 0..sent {
            c.write(0, client.port, &[1; 100][..]).unwrap();
        }
        settle(c);
        let kind = ConnKind::Ack {
            nagle_ack: false,
            acked,
            window: 7,
        };
        let before = c
            .node(0)
            .engine
            .port(client.port)
            .unwrap()
            .connection()
            .unwrap()
            .flow;
        let header = kind.header(c.addr(1), server.port, client);
        strike(c, &header, &[]);
        let after = c
            .node(0)
            .engine
            .port(client.port)
            .unwrap()
            .connection()
            .unwrap()
            .flow;
        assert_eq!(before, after);
        assert_eq!(drops(c, Drop::ImpossibleAck), 1);
    }
}

#[test]
fn connection_messages_of_strangers_are_dropped_and_counted() {
    let kinds = [
        ConnKind::Probe,
        ConnKind::ProbeReply,
        ConnKind::Ack {
            nagle_ack: true,
            acked: 0,
            window: 0,
        },
    ];
    for kind in kinds {
        for target in 0..3 {
            let mut w = wired(82, SocketKind::Stream);
            let to = match target {
                0 => w.client,
                1 => w.c.open(0),
                _ => w.c.open_kind(0, SocketKind::Stream),
            };
            let header = kind.header(w.c.addr(1), PortId(99), to);
            strike(&mut w.c, &header, &[]);
            assert_eq!(drops(&w.c, Drop::NotPeer), 1);
            alive(&mut w);
        }
    }
}

#[test]
fn an_unknown_type_of_connection_message_is_dropped() {
    let mut w = wired(83, SocketKind::Stream);
    let (client, server) = (w.client, w.server);
    let mut header = ConnKind::Probe.header(w.c.addr(1), server.port, client);
    header.set(field::TYPE, 5);
    strike(&mut w.c, &header, &[]);
    assert_eq!(drops(&w.c, Drop::MalformedControl), 1);
    alive(&mut w);
}

#[test]
fn a_sender_that_ignores_the_window_ends_its_own_connection_only() {
    let mut w = wired(84, SocketKind::Seqpacket);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    // The server's node believes in an endless window.
    let mut sent = 0;
    while c.state(1, server.port) == Some(State::Established) {
        c.with(1, |n| {
            let port = n.engine.port_mut(server.port).unwrap();
            let flow = &mut port.connection_mut().unwrap().flow;
            let (unacked, _) = flow.sent();
            flow.on_ack(unacked as u16, 512);
        });
        c.write(1, server.port, &[0; 60_000][..]).unwrap();
        c.run_for(Duration::from_millis(30));
        sent += 1;
        assert!(sent < 100, "the receiver takes it all");
    }
    let end = Notice::Disconnected(server.port, Disconnect::Errcode(OVERLOAD));
    assert!(c.notices(1).contains(&end));
    assert_eq!(c.state(0, client.port), Some(State::Established));
    assert!(c.node(0).engine.port(client.port).unwrap().used <= 3 << 20);
    assert_eq!(c.recv_all(0, client.port).len(), sent - 1);
    // The receiver's own end hears at its next word.
    c.write(0, client.port, &b"well?"[..]).unwrap();
    settle(c);
    assert_eq!(
        c.notices(0).last(),
        Some(&Notice::Disconnected(
            client.port,
            Disconnect::Errcode(NO_PORT)
        ))
    );
}

#[test]
fn a_flood_of_requests_is_bounded_by_the_receive_buffer() {
    let mut c = Cluster::settled(85, 2);
    let listener = c.listener(0, SocketKind::Stream);
    let sockets = c.node(0).engine.sockets().count();
    let payload = vec![0; 66_000];
    for _ in 0..100 {
        let client = c.open_kind(1, SocketKind::Stream);
        c.send(1, client.port, Destination::Socket(listener), &payload[..])
            .unwrap();
        c.run_for(Duration::from_millis(5));
    }
    let port = c.node(0).engine.port(listener.port).unwrap();
    assert!(
        port.used <= 2 << 20 && port.waiting == 31,
        "{} {}",
        port.used,
        port.waiting
    );
    assert!(port.overloads >= 69, "those refused, some more than once");
    assert_eq!(
        c.node(0).engine.sockets().count(),
        sockets,
        "no socket before it is accepted"
    );
}

#[test]
fn messages_that_fit_no_state_are_refused() {
    let mut c = Cluster::settled(86, 2);
    let listener = c.listener(0, SocketKind::Seqpacket);
    let fresh = c.open_kind(0, SocketKind::Seqpacket);
    let stranger = c.open_returning(1);
    let waiting = c.open_kind(0, SocketKind::Seqpacket);
    c.bind(0, listener.port, (5000, 0, 9));
    c.run_for(Duration::from_secs(1));
    c.connect(0, waiting.port, Destination::Socket(listener))
        .unwrap();
    for to in [listener, fresh, waiting] {
        // Datagrams: no request among them.
        c.send(1, stranger.port, Destination::Socket(to), &b"hello"[..])
            .unwrap();
        settle(&mut c);
        let back = c.recv(1, stranger.port).unwrap();
        assert_eq!((back.about.errcode, back.text()), (NO_PORT, "hello"));
    }
    let range = Destination::Range {
        kind: 5000,
        lower: 0,
        upper: 3,
    };
    c.send(1, stranger.port, range, &b"to all"[..]).unwrap();
    settle(&mut c);
    assert_eq!(c.recv(1, stranger.port).unwrap().about.errcode, NO_PORT);
    assert_eq!(c.state(0, waiting.port), Some(State::Connecting));
    assert_eq!(c.accept(0, listener.port).unwrap().peer, waiting);
    c.finish();
}

#[test]
fn a_closed_window_lets_one_message_through_at_a_time() {
    let mut w = wired(87, SocketKind::Seqpacket);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    c.with(0, |n| {
        let port = n.engine.port_mut(client.port).unwrap();
        port.connection_mut().unwrap().flow.on_ack(0, 0);
    });
    c.write(0, client.port, &b"one"[..]).unwrap();
    let second = c.write(0, client.port, &b"two"[..]);
    assert_eq!(second, Err(SendError::Congested));
    settle(c);
    assert_eq!(c.texts(1, server.port), ["one"]);
    w.c.finish();
}
