//! Asking, listening, accepting.

use super::{NO_PORT, connection_traffic, settle, wired, words};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr, PortId, SocketAddr};
use xtipc_protocol::connection::State;
use xtipc_protocol::engine::{AcceptError, BindError, ConnectError, ListenError, SendError};
use xtipc_protocol::host::{ConnectFailure, DestName, Notice};
use xtipc_protocol::name::Scope;
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::wire::{Importance, Msg, field};
use xtipc_sim::cluster::{Cluster, range, service, service_range};

const SERVICE: u32 = 5000;
const KINDS: [SocketKind; 2] = [SocketKind::Seqpacket, SocketKind::Stream];

fn failed(port: PortId, code: u8) -> Notice {
    Notice::ConnectFailed(port, ConnectFailure::Refused(code))
}

#[test]
fn headers_of_set_up_data_and_end_are_those_of_linux() {
    let mut c = Cluster::settled(1, 2);
    let listener = c.listener(1, SocketKind::Seqpacket);
    c.bind(1, listener.port, (SERVICE, 0, 9));
    c.run_for(Duration::from_secs(1));
    c.segment.record = true;
    let client = c.open_kind(0, SocketKind::Seqpacket);
    c.connect(0, client.port, service(SERVICE, 7)).unwrap();
    settle(&mut c);
    let server = c.accept(1, listener.port).unwrap().port;
    settle(&mut c);
    c.write(0, client.port, &[7; 100][..]).unwrap();
    c.shutdown(0, client.port);
    settle(&mut c);
    let other = c.open_kind(0, SocketKind::Seqpacket);
    c.connect(0, other.port, Destination::Socket(listener))
        .unwrap();
    settle(&mut c);
    let second = c.accept(1, listener.port).unwrap().port;
    settle(&mut c);
    c.close(1, second);
    settle(&mut c);
    let sent = connection_traffic(&c);
    let expect = [
        (0, (0x4142_0028, 0x4010_0000)), // request to a service address
        (1, (0x40c0_0018, 0)),           // accepted
        (0, (0x40c0_007c, 0)),           // 100 bytes
        (0, (0x46c0_0018, 0x0a00_0000)), // shut down
        (0, (0x4102_0020, 0x6000_0000)), // request to a socket
        (1, (0x40c0_0018, 0)),
        (1, (0x46c0_0018, 0x0400_0000)), // closed
    ];
    let got: Vec<_> = sent.iter().map(|(from, b)| (*from, words(b))).collect();
    assert_eq!(got, expect);
    // The ports: the request goes to the listener, everything else between the two ends.
    let ends = |n: usize| {
        let msg = Msg::check(&sent[n].1).unwrap();
        (msg.get(field::ORIG_PORT), msg.get(field::DEST_PORT))
    };
    assert_eq!(ends(0), (client.port.0, listener.port.0));
    assert_eq!(ends(1), (server.0, client.port.0));
    assert_eq!(ends(2), (client.port.0, server.0));
    assert_eq!(ends(3), (client.port.0, server.0));
    let syn = Msg::check(&sent[0].1).unwrap();
    assert_eq!(
        (syn.get(field::NAME_TYPE), syn.get(field::NAME_LOWER)),
        (SERVICE, 7)
    );
    c.finish();
}

#[test]
fn both_kinds_of_address_connect_here_and_there_and_both_ends_know_the_name() {
    for kind in KINDS {
        for server_at in [0, 1] {
            let mut c = Cluster::settled(2, 2);
            let listener = c.listener(server_at, kind);
            c.bind(server_at, listener.port, (SERVICE, 0, 9));
            c.run_for(Duration::from_secs(1));
            let name = DestName {
                kind: SERVICE,
                lower: 4,
                upper: 4,
            };
            let addresses = [
                (Destination::Socket(listener), None),
                (service(SERVICE, 4), Some(name)),
            ];
            for (to, name) in addresses {
                let client = c.open_kind(0, kind);
                c.connect(0, client.port, to).unwrap();
                settle(&mut c);
                assert!(
                    c.notices(server_at)
                        .contains(&Notice::Acceptable(listener.port))
                );
                assert_eq!(c.state(0, client.port), Some(State::Connecting));
                let accepted = c.accept(server_at, listener.port).unwrap();
                settle(&mut c);
                assert_eq!((accepted.peer, accepted.name), (client, name));
                assert!(c.notices(0).contains(&Notice::Connected(client.port)));
                c.write(0, client.port, &b"ping"[..]).unwrap();
                settle(&mut c);
                c.write(server_at, accepted.port, &b"pong"[..]).unwrap();
                settle(&mut c);
                let ping = c.recv(server_at, accepted.port).unwrap();
                let pong = c.recv(0, client.port).unwrap();
                assert_eq!((ping.text(), pong.text()), ("ping", "pong"));
                assert_eq!((ping.about.dest_name, pong.about.dest_name), (name, name));
                assert_eq!(ping.about.source, client);
                assert_eq!(pong.about.source.port, accepted.port);
            }
            c.finish();
        }
    }
}

#[test]
fn a_connection_takes_the_importance_of_its_request() {
    let mut c = Cluster::settled(3, 2);
    let listener = c.listener(1, SocketKind::Seqpacket);
    let client = c.open_kind(0, SocketKind::Seqpacket);
    c.with(0, |n| {
        n.engine.port_mut(client.port).unwrap().importance = Importance::High
    });
    c.connect(0, client.port, Destination::Socket(listener))
        .unwrap();
    settle(&mut c);
    let server = c.accept(1, listener.port).unwrap().port;
    settle(&mut c);
    for (station, port) in [(0, client.port), (1, server)] {
        let engine = &c.node(station).engine;
        assert_eq!(engine.port(port).unwrap().importance, Importance::High);
    }
    c.finish();
}

#[test]
fn what_cannot_be_connected_is_refused() {
    for server_at in [0, 1] {
        let mut c = Cluster::settled(4, 2);
        let node = c.addr(server_at);
        let bound = c.open_kind(server_at, SocketKind::Stream);
        let datagram = c.open(server_at);
        let nobody = SocketAddr {
            port: PortId(99),
            node,
        };
        c.notices(0);
        for target in [bound, datagram, nobody] {
            let client = c.open_kind(0, SocketKind::Stream);
            c.connect(0, client.port, Destination::Socket(target))
                .unwrap();
            settle(&mut c);
            if target == datagram {
                // It takes the request for a datagram, as in Linux, and no answer comes.
                assert_eq!(c.state(0, client.port), Some(State::Connecting));
                continue;
            }
            assert_eq!(c.notices(0), [failed(client.port, NO_PORT)], "{target:?}");
            assert_eq!(c.state(0, client.port), Some(State::Disconnecting));
            let end = c.recv(0, client.port).unwrap();
            assert_eq!(end.about.errcode, NO_PORT);
            let again = c.connect(0, client.port, Destination::Socket(target));
            assert_eq!(again, Err(ConnectError::State));
            let sent = c.write(0, client.port, &b"x"[..]);
            assert_eq!(sent, Err(SendError::Disconnected));
        }
        // A look-up that the other node makes, in vain.
        let client = c.open_kind(0, SocketKind::Stream);
        let to = Destination::Service {
            kind: SERVICE,
            instance: 1,
            domain: c.addr(1),
        };
        c.connect(0, client.port, to).unwrap();
        settle(&mut c);
        assert_eq!(c.notices(0), [failed(client.port, 1)]);
        c.finish();
    }
}

#[test]
fn calls_in_the_wrong_state_say_so() {
    let mut w = wired(5, SocketKind::Seqpacket);
    let c = &mut w.c;
    let (client, listener) = (w.client, w.listener);
    let to = Destination::Socket(listener);
    let fresh = c.open_kind(0, SocketKind::Seqpacket);
    let datagram = c.open(0);
    let unknown = SocketAddr {
        port: PortId(5),
        node: NodeAddr(0x0a0b_0c0d),
    };
    let text = &b"x"[..];
    assert_eq!(c.connect(0, client.port, to), Err(ConnectError::Connected));
    assert_eq!(c.connect(1, listener.port, to), Err(ConnectError::State));
    assert_eq!(
        c.connect(0, datagram.port, to),
        Err(ConnectError::NotSupported)
    );
    assert_eq!(c.connect(0, PortId(1), to), Err(ConnectError::NoSuchSocket));
    let to = |error| Err(ConnectError::Send(error));
    let wide = range(SERVICE, 0, 9);
    assert_eq!(c.connect(0, fresh.port, wide), to(SendError::Range));
    let nobody = service(SERVICE, 1);
    assert_eq!(c.connect(0, fresh.port, nobody), to(SendError::Unreachable));
    let far = Destination::Socket(unknown);
    assert_eq!(c.connect(0, fresh.port, far), to(SendError::Unreachable));
    assert_eq!(c.state(0, fresh.port), None, "it may still connect");
    assert_eq!(c.write(0, fresh.port, text), Err(SendError::NotConnected));
    assert_eq!(
        c.write(1, listener.port, text),
        Err(SendError::NotConnected)
    );
    c.bind(0, fresh.port, (SERVICE, 1, 1));
    let back = Destination::Socket(listener);
    assert_eq!(c.connect(0, fresh.port, back), to(SendError::Bound));
    assert_eq!(c.send(0, fresh.port, back, text), Err(SendError::Bound));
    let now = c.now;
    let bound = c.with(0, |n| {
        let (range, host) = (service_range((SERVICE, 1, 1)), &mut n.host);
        n.engine.bind(now, client.port, range, Scope::Cluster, host)
    });
    assert_eq!(bound, Err(BindError::Connected));
    let listen = |c: &mut Cluster, station, port| c.with(station, |n| n.engine.listen(port, None));
    assert_eq!(listen(c, 0, client.port), Err(ListenError::State));
    assert_eq!(listen(c, 1, listener.port), Err(ListenError::State));
    assert_eq!(listen(c, 0, datagram.port), Err(ListenError::NotSupported));
    assert_eq!(c.accept(0, client.port), Err(AcceptError::NotListening));
    assert_eq!(c.accept(0, datagram.port), Err(AcceptError::NotSupported));
    assert_eq!(c.accept(1, listener.port), Err(AcceptError::Nothing));
    let long = vec![0; 66_001];
    assert_eq!(
        c.write(0, client.port, &long[..]),
        Err(SendError::TooLong(66_001))
    );
    w.c.finish();
}

#[test]
fn a_connect_gives_up_after_its_timeout_and_a_late_answer_still_connects() {
    let mut c = Cluster::settled(6, 2);
    let listener = c.listener(1, SocketKind::Stream);
    let client = c.open_kind(0, SocketKind::Stream);
    let began = c.now;
    c.connect(0, client.port, Destination::Socket(listener))
        .unwrap();
    let timed_out = Notice::ConnectFailed(client.port, ConnectFailure::TimedOut);
    c.until("a timeout", |c| c.node(0).host.notices.contains(&timed_out));
    let waited = c.now.since(began).as_millis();
    assert!((8000..8005).contains(&waited), "{waited} ms");
    assert_eq!(c.state(0, client.port), Some(State::Connecting));
    // It may be waited for once more.
    c.connect(0, client.port, Destination::Socket(listener))
        .unwrap();
    c.run_for(Duration::from_secs(7));
    c.notices(0);
    let server = c.accept(1, listener.port).unwrap().port;
    settle(&mut c);
    assert_eq!(c.notices(0), [Notice::Connected(client.port)]);
    c.write(1, server, &b"late"[..]).unwrap();
    c.run_for(Duration::from_secs(2));
    assert_eq!(c.texts(0, client.port), ["late"]);
    assert_eq!(c.accept(1, listener.port), Err(AcceptError::Nothing));
    c.finish();
}

#[test]
fn a_full_listener_makes_clients_try_again_after_100_ms_to_2100_ms() {
    let mut c = Cluster::settled(7, 2);
    let listener = c.open_kind(1, SocketKind::Seqpacket);
    c.with(1, |n| n.engine.listen(listener.port, Some(1)))
        .unwrap();
    c.segment.record = true;
    let to = Destination::Socket(listener);
    let payload = vec![3; 5000];
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let client = c.open_kind(0, SocketKind::Seqpacket);
            c.send(0, client.port, to, &payload[..]).unwrap();
            client
        })
        .collect();
    settle(&mut c);
    let mut served = Vec::new();
    for _ in 0..60 {
        c.run_for(Duration::from_millis(500));
        if let Ok(accepted) = c.accept(1, listener.port) {
            settle(&mut c);
            let first = c
                .recv(1, accepted.port)
                .expect("what came with the request");
            assert_eq!(first.bytes, payload);
            served.push(accepted.peer);
        }
    }
    served.sort_by_key(|peer| peer.port);
    assert_eq!(served, clients, "each once");
    // The refusals carry no data, and the clients wait long enough.
    let from = |station: usize| {
        let seen = c.segment.seen.iter().filter(move |s| s.from == station);
        seen.filter_map(|s| Some((s.at, Msg::check(&s.bytes).ok()?)))
    };
    let refused: Vec<_> = from(1)
        .filter(|(_, m)| m.user().is_data() && m.get(field::ERRCODE) == u32::from(super::OVERLOAD))
        .collect();
    assert!(refused.len() >= 2);
    assert!(
        refused
            .iter()
            .all(|(_, m)| m.payload().is_empty() && m.flag(field::SYN))
    );
    c.finish();
}

#[test]
fn a_request_that_finds_no_frame_is_sent_when_there_are_some() {
    let mut c = Cluster::new(8);
    c.recipe.frames = 100;
    c.start(0);
    c.recipe.frames = 4096;
    c.start(1);
    c.until("links", |c| c.is_full_mesh());
    c.run_for(Duration::from_secs(1));
    let listener = c.listener(1, SocketKind::Seqpacket);
    let (client, noise) = (c.open_kind(0, SocketKind::Seqpacket), c.open(0));
    // The other node does not hear what it could acknowledge, so that frames run out.
    c.segment.cuts.insert((0, 1));
    while c
        .send(
            0,
            noise.port,
            Destination::Socket(noise_target(&c)),
            &[1; 1400][..],
        )
        .is_ok()
    {}
    c.connect(0, client.port, Destination::Socket(listener))
        .unwrap();
    c.segment.heal();
    c.until("a request", |c| {
        c.node(1)
            .host
            .notices
            .contains(&Notice::Acceptable(listener.port))
    });
    c.accept(1, listener.port).unwrap();
    settle(&mut c);
    assert_eq!(c.state(0, client.port), Some(State::Established));
    c.finish();
}

fn noise_target(c: &Cluster) -> SocketAddr {
    SocketAddr {
        port: PortId(77),
        node: c.addr(1),
    }
}

#[test]
fn data_that_comes_with_the_request_is_the_first_message_of_the_connection() {
    for kind in KINDS {
        for server_at in [0, 1] {
            for len in [1, 1400, 20_000, 66_000] {
                let mut c = Cluster::settled(9, 2);
                let listener = c.listener(server_at, kind);
                c.bind(server_at, listener.port, (SERVICE, 0, 9));
                c.run_for(Duration::from_secs(1));
                let client = c.open_kind(0, kind);
                let first = super::pattern(0, len);
                c.send(0, client.port, service(SERVICE, 2), &first[..])
                    .unwrap();
                let early = c.write(0, client.port, &b"too early"[..]);
                assert_eq!(early, Err(SendError::NotConnected));
                settle(&mut c);
                let server = c.accept(server_at, listener.port).unwrap().port;
                settle(&mut c);
                assert_eq!(c.state(0, client.port), Some(State::Established));
                // What was asked for by name may be written to with or without an address.
                c.send(0, client.port, service(SERVICE, 2), &b"second"[..])
                    .unwrap();
                settle(&mut c);
                let got = c.recv(server_at, server).unwrap();
                assert_eq!((got.bytes.len(), got.about.source), (len, client));
                assert_eq!(got.bytes, first);
                assert_eq!(c.texts(server_at, server), ["second"]);
                c.finish();
            }
        }
    }
}

#[test]
fn a_socket_that_connects_to_itself_is_refused() {
    for kind in KINDS {
        let mut c = Cluster::settled(10, 2);
        let own = c.open_kind(0, kind);
        c.notices(0);
        c.connect(0, own.port, Destination::Socket(own)).unwrap();
        assert_eq!(c.notices(0), [failed(own.port, NO_PORT)]);
        // A listener cannot ask itself either, but others of its node can, by node 0.
        let listener = c.listener(0, kind);
        let here = SocketAddr {
            node: NodeAddr::NONE,
            ..listener
        };
        let client = c.open_kind(0, kind);
        c.connect(0, client.port, Destination::Socket(here))
            .unwrap();
        c.accept(0, listener.port).unwrap();
        assert_eq!(c.state(0, client.port), Some(State::Established));
        c.finish();
    }
}

#[test]
fn a_server_that_looked_up_for_another_node_is_the_peer_all_the_same() {
    let mut c = Cluster::settled(11, 3);
    let listener = c.listener(1, SocketKind::Seqpacket);
    c.bind_scoped(1, listener.port, (SERVICE, 0, 9), Scope::Node);
    let client = c.open_kind(0, SocketKind::Seqpacket);
    let to = Destination::Service {
        kind: SERVICE,
        instance: 3,
        domain: c.addr(1),
    };
    c.connect(0, client.port, to).unwrap();
    settle(&mut c);
    c.accept(1, listener.port).unwrap();
    settle(&mut c);
    assert_eq!(c.state(0, client.port), Some(State::Established));
    c.finish();
}
