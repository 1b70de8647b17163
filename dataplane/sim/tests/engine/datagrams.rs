//! Datagrams: three kinds of address, limits, rejection.

use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr, PortId, SocketAddr};
use xtipc_protocol::engine::{Ending, SendError};
use xtipc_protocol::host::DestName;
use xtipc_protocol::port::MESSAGE_OVERHEAD;
use xtipc_protocol::stats::Drop;
use xtipc_protocol::wire::{Header, Importance, Msg, User, field, size};
use xtipc_sim::cluster::{Cluster, range, service};

const NO_NAME: u8 = 1;
const NO_PORT: u8 = 2;
const OVERLOAD: u8 = 4;

#[test]
fn each_kind_of_address_reaches_its_socket_here_and_there() {
    let mut c = Cluster::settled(1, 2);
    for server_at in [0, 1] {
        let client = c.open(0);
        let server = c.open(server_at);
        let kind = 5000 + server_at as u32;
        c.bind(server_at, server.port, (kind, 10, 19));
        c.run_for(Duration::from_secs(1));
        let expect = [
            (Destination::Socket(server), None),
            (
                service(kind, 12),
                Some(DestName {
                    kind,
                    lower: 12,
                    upper: 12,
                }),
            ),
            (
                range(kind, 15, 40),
                Some(DestName {
                    kind,
                    lower: 15,
                    upper: 40,
                }),
            ),
        ];
        for (to, dest_name) in expect {
            c.send(0, client.port, to, &b"hello"[..]).unwrap();
            c.run_for(Duration::from_millis(1));
            let got = c.recv_all(server_at, server.port);
            assert_eq!(got.len(), 1, "{to:?}");
            assert_eq!(got[0].bytes, b"hello");
            let about = got[0].about;
            assert_eq!(
                (about.source, about.dest_name, about.errcode),
                (client, dest_name, 0)
            );
            assert_eq!(about.importance, Importance::Low);
        }
    }
    // Node 0 is this node.
    let here = c.open(0);
    let to = Destination::Socket(SocketAddr {
        node: NodeAddr::NONE,
        ..here
    });
    c.send(0, here.port, to, &b"me"[..]).unwrap();
    assert_eq!(c.texts(0, here.port), ["me"]);
    c.finish();
}

#[test]
fn headers_on_the_wire_are_those_of_linux() {
    let mut c = Cluster::settled(2, 2);
    let client = c.open(0);
    let server = c.open(1);
    c.bind(1, server.port, (5000, 10, 19));
    c.run_for(Duration::from_secs(1));
    c.with(0, |n| {
        n.engine.port_mut(client.port).unwrap().importance = Importance::High
    });
    c.segment.record = true;
    c.send(0, client.port, Destination::Socket(server), &b"abc"[..])
        .unwrap();
    c.send(0, client.port, service(5000, 12), &b"abc"[..])
        .unwrap();
    let sent: Vec<_> = c.segment.seen.iter().map(|s| s.bytes.clone()).collect();
    let all = |bytes: &[u8], fields: &[field::Field]| -> Vec<u32> {
        let msg = Msg::check(bytes).unwrap();
        fields.iter().map(|f| msg.get(*f)).collect()
    };
    let common = [
        field::USER,
        field::TYPE,
        field::SIZE,
        field::DEST_DROPPABLE,
        field::SRC_DROPPABLE,
        field::ERRCODE,
        field::REROUTE_COUNT,
        field::LOOKUP_SCOPE,
        field::PREV_NODE,
        field::ORIG_PORT,
        field::DEST_PORT,
        field::ORIG_NODE,
        field::DEST_NODE,
    ];
    let (a, b) = (client.node.0, server.node.0);
    let (p, q) = (client.port.0, server.port.0);
    assert_eq!(
        all(&sent[0], &common),
        [2, 3, 35, 1, 0, 0, 0, 0, a, p, q, a, b]
    );
    assert_eq!(
        all(&sent[1], &common),
        [2, 2, 43, 1, 0, 0, 0, 2, a, p, q, a, b]
    );
    assert_eq!(
        all(&sent[1], &[field::NAME_TYPE, field::NAME_LOWER]),
        [5000, 12]
    );
    c.finish();
}

#[test]
fn what_nobody_takes_comes_back_with_its_reason_cut_to_1024_bytes() {
    let mut c = Cluster::settled(3, 2);
    for at in [0, 1] {
        let client = c.open_returning(0);
        let nobody = SocketAddr {
            port: PortId(99),
            node: c.addr(at),
        };
        let payload: Vec<u8> = (0..3000).map(|n| n as u8).collect();
        for (len, kept) in [(1, 1), (1024, 1024), (3000, 1024)] {
            c.send(0, client.port, Destination::Socket(nobody), &payload[..len])
                .unwrap();
            c.run_for(Duration::from_millis(2));
            let back = c.recv(0, client.port).unwrap();
            assert_eq!((back.about.errcode, back.about.source), (NO_PORT, nobody));
            assert_eq!(back.bytes, payload[..kept]);
            assert!(!back.about.returnable);
        }
        // Look-up at a node that has no such service.
        let domain = c.addr(at);
        let to = Destination::Service {
            kind: 5000,
            instance: 1,
            domain,
        };
        let sent = c.send(0, client.port, to, &b"x"[..]);
        if at == 1 {
            sent.unwrap();
            c.run_for(Duration::from_millis(2));
            let back = c.recv(0, client.port).unwrap();
            let name = DestName {
                kind: 5000,
                lower: 1,
                upper: 1,
            };
            assert_eq!(
                (back.about.errcode, back.about.dest_name),
                (NO_NAME, Some(name))
            );
        } else {
            assert_eq!(sent, Err(SendError::Unreachable));
        }
    }
    let unknown = SocketAddr {
        port: PortId(1),
        node: NodeAddr(12345),
    };
    let client = c.open_returning(0).port;
    assert_eq!(
        c.send(0, client, Destination::Socket(unknown), &b"x"[..]),
        Err(SendError::Unreachable)
    );
    c.finish();
}

#[test]
fn droppable_messages_are_dropped_and_counted_instead() {
    let mut c = Cluster::settled(4, 2);
    let client = c.open(0);
    let nobody = SocketAddr {
        port: PortId(99),
        node: c.addr(1),
    };
    c.send(0, client.port, Destination::Socket(nobody), &b"x"[..])
        .unwrap();
    c.run_for(Duration::from_secs(1));
    assert!(c.recv(0, client.port).is_none());
    assert_eq!(c.node(1).engine.drops().get(Drop::NoPort), 1);
    c.finish();
}

#[test]
fn each_importance_doubles_the_receive_limit() {
    let levels = [
        Importance::Low,
        Importance::Medium,
        Importance::High,
        Importance::Critical,
    ];
    for at in [0, 1] {
        let mut counts = Vec::new();
        for importance in levels {
            let mut c = Cluster::settled(5, 2);
            let client = c.open_returning(0);
            c.with(0, |n| {
                n.engine.port_mut(client.port).unwrap().importance = importance
            });
            let server = c.open(at);
            let cost = 1000 + MESSAGE_OVERHEAD;
            c.with(at, |n| n.engine.set_receive_buffer(server.port, 10 * cost))
                .unwrap();
            for _ in 0..100 {
                c.send(0, client.port, Destination::Socket(server), &[1; 1000][..])
                    .unwrap();
                c.run_for(Duration::from_millis(1));
            }
            let back = c.recv_all(0, client.port);
            assert!(
                back.iter()
                    .all(|m| m.about.errcode == OVERLOAD && m.about.source == server)
            );
            let taken = c.recv_all(at, server.port);
            assert_eq!(taken.len() + back.len(), 100);
            assert!(taken.iter().all(|m| m.about.cost == cost));
            counts.push(taken.len());
            // Taken messages make room.
            c.send(0, client.port, Destination::Socket(server), &[1; 1000][..])
                .unwrap();
            c.run_for(Duration::from_millis(1));
            assert_eq!(c.recv_all(at, server.port).len(), 1);
            c.finish();
        }
        // The limit itself is refused.
        assert_eq!(counts, [9, 19, 39, 79]);
    }
}

#[test]
fn a_returned_message_is_never_returned_again() {
    let mut c = Cluster::settled(6, 2);
    let client = c.open_returning(0);
    let nobody = SocketAddr {
        port: PortId(99),
        node: c.addr(1),
    };
    c.segment.delay_us = 1000;
    c.segment.record = true;
    c.send(0, client.port, Destination::Socket(nobody), &b"x"[..])
        .unwrap();
    c.close(0, client.port);
    c.run_for(Duration::from_millis(50));
    let data = c
        .segment
        .seen
        .iter()
        .filter(|s| Msg::check(&s.bytes).unwrap().user().is_data());
    assert_eq!(data.count(), 2, "one there, one back");
    assert_eq!(c.node(0).engine.drops().get(Drop::ReturnedNowhere), 1);
    c.segment.delay_us = 20;
    c.finish();
}

#[test]
fn messages_that_were_never_read_go_back_when_their_socket_closes() {
    let mut c = Cluster::settled(7, 2);
    let client = c.open_returning(0);
    let server = c.open(1);
    c.bind(1, server.port, (5000, 0, 9));
    c.run_for(Duration::from_secs(1));
    for to in [Destination::Socket(server), service(5000, 1)] {
        c.send(0, client.port, to, &b"unread"[..]).unwrap();
    }
    c.run_for(Duration::from_millis(1));
    let unread = c.recv_all(1, server.port);
    assert!(unread.iter().all(|m| m.about.returnable));
    let now = c.now;
    for m in &unread {
        let about = m.about;
        c.with(1, |n| {
            n.engine.return_unread(
                now,
                server.port,
                Ending::Close,
                (&about, &m.bytes[..]),
                &mut n.host,
            )
        });
    }
    c.close(1, server.port);
    c.run_for(Duration::from_millis(1));
    let back = c.recv_all(0, client.port);
    assert_eq!(
        back.iter()
            .map(|m| (m.about.errcode, m.text()))
            .collect::<Vec<_>>(),
        [(NO_PORT, "unread"); 2]
    );
    assert_eq!(
        back[1].about.dest_name,
        Some(DestName {
            kind: 5000,
            lower: 1,
            upper: 1
        })
    );
    c.finish();
}

#[test]
fn an_empty_message_is_sent_and_not_received() {
    let mut c = Cluster::settled(8, 2);
    let client = c.open_returning(0);
    for at in [0, 1] {
        let server = c.open(at);
        c.send(0, client.port, Destination::Socket(server), &[][..])
            .unwrap();
        c.run_for(Duration::from_millis(1));
        assert!(c.recv(at, server.port).is_none());
        assert_eq!(c.node(at).engine.drops().get(Drop::Empty), 1);
    }
    assert!(c.recv(0, client.port).is_none());
    c.finish();
}

#[test]
fn a_connection_message_to_a_datagram_socket_goes_back_in_a_longer_header() {
    let mut c = Cluster::settled(9, 2);
    let server = c.open(0);
    c.segment.record = true;
    let mut header = Header::new(User::Low, 0, size::SHORT);
    let next = c.link_view(1, 0).stats.tx_packets + 1;
    header
        .set(field::PREV_NODE, c.addr(1).0)
        .set(field::ORIG_PORT, 77)
        .set(field::DEST_PORT, server.port.0)
        .set(field::SEQNO, next)
        .set_payload_len(5);
    c.receive(
        0,
        xtipc_sim::segment::mac_of(1),
        &[header.as_bytes(), b"hello"].concat(),
    );
    let back = &c.segment.seen.last().unwrap().bytes;
    let msg = Msg::check(back).unwrap();
    assert_eq!(
        (msg.header_size(), msg.get(field::ERRCODE), msg.payload()),
        (32, 2, &b"hello"[..])
    );
    let ends = (msg.get(field::ORIG_PORT), msg.get(field::DEST_PORT));
    assert_eq!(ends, (server.port.0, 77));
    assert_eq!(
        (msg.get(field::ORIG_NODE), msg.get(field::DEST_NODE)),
        (c.addr(0).0, c.addr(1).0)
    );
}
