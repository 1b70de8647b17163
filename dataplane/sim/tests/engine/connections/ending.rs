//! How connections end.

use super::{
    NO_NODE, NO_PORT, SHUTDOWN, Wired, connection_traffic, exhaust_frames, pattern, settle,
    small_cluster, wire_up, wired, wired_within, words,
};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, PortId};
use xtipc_protocol::connection::{PROBE_INTERVAL, State};
use xtipc_protocol::engine::{AcceptError, SendError, ShutdownError};
use xtipc_protocol::host::{ConnectFailure, Disconnect, Notice};
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::wire::{ConnKind, Msg, Packet, User, field};
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::Fate;

fn ended(port: PortId, code: u8) -> Notice {
    Notice::Disconnected(port, Disconnect::Errcode(code))
}

/// Both ends here and there.
fn pairs(seed: u64) -> [Wired; 4] {
    let kinds = [SocketKind::Seqpacket, SocketKind::Stream];
    let [a, b] = kinds.map(|kind| wired(seed, kind));
    let [d, e] = kinds.map(|kind| wired_within(seed, kind));
    [a, b, d, e]
}

#[test]
fn data_sent_before_the_end_arrives_and_then_the_reason() {
    for (n, mut w) in pairs(50).into_iter().chain(pairs(50)).enumerate() {
        let closes = n < 4;
        let (near, far, client, server) = (w.near, w.far, w.client, w.server);
        let c = &mut w.c;
        c.write(near, client.port, &b"bye"[..]).unwrap();
        if closes {
            c.close(near, client.port);
        } else {
            c.shutdown(near, client.port);
            let sent = c.write(near, client.port, &b"x"[..]);
            assert_eq!(sent, Err(SendError::Disconnected));
        }
        settle(c);
        let code = if closes { NO_PORT } else { SHUTDOWN };
        assert_eq!(c.notices(far), [ended(server.port, code)]);
        assert_eq!(c.state(far, server.port), Some(State::Disconnecting));
        let got = c.recv_all(far, server.port);
        let told: Vec<_> = got.iter().map(|m| (m.text(), m.about.errcode)).collect();
        assert_eq!(told, [("bye", 0), ("", code)]);
        assert_eq!(got[1].about.source, client);
        let sent = c.write(far, server.port, &b"x"[..]);
        assert_eq!(sent, Err(SendError::Disconnected));
        // Nothing more is said by the other end.
        c.segment.record = true;
        c.close(far, server.port);
        settle(c);
        assert!(connection_traffic(c).is_empty());
        w.c.finish();
    }
}

#[test]
fn the_oldest_unread_message_goes_back_in_place_of_the_end() {
    for (n, mut w) in pairs(51).into_iter().chain(pairs(51)).enumerate() {
        let closes = n < 4;
        let (near, far, client, server) = (w.near, w.far, w.client, w.server);
        let c = &mut w.c;
        let first = pattern(0, 3000);
        c.write(near, client.port, &first[..]).unwrap();
        c.write(near, client.port, &b"second"[..]).unwrap();
        settle(c);
        c.segment.record = true;
        if closes {
            c.close_unread(far, server.port);
        } else {
            c.shutdown(far, server.port);
        }
        settle(c);
        let code = if closes { NO_PORT } else { SHUTDOWN };
        let got = c.recv_all(near, client.port);
        assert_eq!(got.len(), 1);
        assert_eq!(
            (got[0].about.errcode, &got[0].bytes[..]),
            (code, &first[..1024])
        );
        assert_eq!(c.notices(near).last(), Some(&ended(client.port, code)));
        if near != far {
            let sent = connection_traffic(c);
            assert_eq!(sent.len(), 1, "one message ends it");
            // The header grew from 24 to 32 bytes; the importance is that of the message.
            let word1 = u32::from(code) << 25;
            assert_eq!(words(&sent[0].1), (0x4100_0000 + 32 + 1024, word1));
        }
        w.c.finish();
    }
}

#[test]
fn a_peer_that_wants_nothing_back_is_told_of_the_end_all_the_same() {
    let mut w = wired(52, SocketKind::Seqpacket);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    c.with(0, |n| {
        n.engine.port_mut(client.port).unwrap().dest_droppable = true
    });
    c.write(0, client.port, &b"droppable"[..]).unwrap();
    settle(c);
    c.close_unread(1, server.port);
    settle(c);
    assert_eq!(c.notices(0), [ended(client.port, NO_PORT)]);
    w.c.finish();
}

#[test]
fn unread_data_that_came_with_the_request_does_not_hide_the_end() {
    let mut c = Cluster::settled(53, 2);
    let listener = c.listener(1, SocketKind::Seqpacket);
    let client = c.open_kind(0, SocketKind::Seqpacket);
    c.send(
        0,
        client.port,
        Destination::Socket(listener),
        &b"never read"[..],
    )
    .unwrap();
    settle(&mut c);
    let server = c.accept(1, listener.port).unwrap().port;
    c.close_unread(1, server);
    settle(&mut c);
    assert!(c.notices(0).contains(&ended(client.port, NO_PORT)));
    c.finish();
}

#[test]
fn closing_a_listener_or_shutting_it_down_refuses_who_waits() {
    for closes in [true, false] {
        let mut c = Cluster::settled(54, 2);
        let listener = c.listener(1, SocketKind::Stream);
        let clients = [0, 1].map(|_| c.open_kind(0, SocketKind::Stream));
        for client in clients {
            c.send(0, client.port, Destination::Socket(listener), &b"hello"[..])
                .unwrap();
        }
        settle(&mut c);
        c.notices(0);
        let code = if closes {
            c.close(1, listener.port);
            NO_PORT
        } else {
            let now = c.now;
            let done = c.with(1, |n| n.engine.shutdown(now, listener.port, &mut n.host));
            assert_eq!(done, Err(ShutdownError::NotConnected));
            SHUTDOWN
        };
        settle(&mut c);
        let refused = |port| Notice::ConnectFailed(port, ConnectFailure::Refused(code));
        assert_eq!(c.notices(0), clients.map(|client| refused(client.port)));
        let back = c.recv(0, clients[0].port).unwrap();
        assert_eq!((back.text(), back.about.errcode), ("hello", code));
        c.finish();
    }
}

#[test]
fn a_client_that_left_before_it_was_accepted_ends_the_new_connection() {
    for far in [0, 1] {
        let mut c = Cluster::settled(55, 2);
        let listener = c.listener(far, SocketKind::Seqpacket);
        let client = c.open_kind(0, SocketKind::Seqpacket);
        c.connect(0, client.port, Destination::Socket(listener))
            .unwrap();
        settle(&mut c);
        c.close(0, client.port);
        settle(&mut c);
        let server = c.accept(far, listener.port).unwrap().port;
        settle(&mut c);
        assert_eq!(c.state(far, server), Some(State::Disconnecting));
        assert!(c.notices(far).contains(&ended(server, NO_PORT)));
        c.finish();
    }
}

#[test]
fn data_for_a_socket_that_vanished_ends_the_connection_of_its_sender() {
    let mut w = wired(56, SocketKind::Seqpacket);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    // The end is lost with the node, which is back before its link is missed.
    c.segment.filter = Some(Box::new(|_| Fate::Lose));
    c.close(1, server.port);
    c.segment.filter = None;
    c.write(0, client.port, &b"hello?"[..]).unwrap();
    c.run_for(Duration::from_secs(2));
    assert_eq!(c.notices(0), [ended(client.port, NO_PORT)]);
    w.c.finish();
}

#[test]
fn the_end_does_not_overtake_data_and_is_not_lost_when_there_is_no_room() {
    for kind in [SocketKind::Seqpacket, SocketKind::Stream] {
        let mut w = wire_up(small_cluster(57), kind, 0, 1);
        let (client, server) = (w.client, w.server);
        let c = &mut w.c;
        c.segment.cuts.insert((0, 1));
        c.write(0, client.port, &pattern(0, 30_000)[..]).unwrap();
        for n in 0..20 {
            c.write(0, client.port, &pattern(30_000 + n, 1)[..])
                .unwrap();
        }
        exhaust_frames(c, 0, server.node);
        c.close(0, client.port);
        c.segment.heal();
        let end = ended(server.port, NO_PORT);
        c.until("the end", |c| c.node(1).host.notices.contains(&end));
        let mut got = c.recv_all(1, server.port);
        assert_eq!(got.pop().unwrap().about.errcode, NO_PORT);
        let bytes: Vec<u8> = got.into_iter().flat_map(|m| m.bytes).collect();
        assert_eq!(bytes, pattern(0, 30_020), "{kind:?}");
        w.c.finish();
    }
}

#[test]
fn a_lost_node_ends_all_connections_to_it_at_once_and_no_other() {
    let mut c = Cluster::settled(58, 3);
    let mut sockets = Vec::new();
    for far in [0, 1, 2] {
        let listener = c.listener(far, SocketKind::Stream);
        for _ in 0..3 {
            let client = c.open_kind(0, SocketKind::Stream);
            c.connect(0, client.port, Destination::Socket(listener))
                .unwrap();
            settle(&mut c);
            let server = c.accept(far, listener.port).unwrap().port;
            settle(&mut c);
            sockets.push((far, client.port, server));
        }
        if far == 1 {
            // One that is still to be accepted, and one that waits here.
            let client = c.open_kind(0, SocketKind::Stream);
            c.connect(0, client.port, Destination::Socket(listener))
                .unwrap();
            sockets.push((far, client.port, client.port));
        }
    }
    let here = c.listener(0, SocketKind::Stream);
    let far = c.open_kind(1, SocketKind::Stream);
    c.connect(1, far.port, Destination::Socket(here)).unwrap();
    settle(&mut c);
    c.notices(0);
    c.kill(1);
    let began = c.now;
    let lost = |c: &Cluster| {
        c.node(0)
            .host
            .notices
            .iter()
            .any(|n| matches!(n, Notice::LinkDown(..)))
    };
    c.until("the loss", lost);
    // Link tolerance 1.5 s.
    assert!(c.now.since(began) < Duration::from_millis(2500));
    let notices = c.notices(0);
    for (n, (far, client, _)) in sockets.into_iter().enumerate() {
        let told = notices.iter().any(|notice| match notice {
            Notice::Disconnected(port, Disconnect::Errcode(NO_NODE)) => *port == client,
            Notice::ConnectFailed(port, ConnectFailure::Refused(NO_NODE)) => *port == client,
            _ => false,
        });
        assert_eq!(told, far == 1, "socket {n}");
        let got = c.recv(0, client);
        assert_eq!(got.map(|m| m.about.errcode), told.then_some(NO_NODE));
    }
    assert_eq!(c.accept(0, here.port), Err(AcceptError::Nothing));
    assert_eq!(c.node(0).engine.port(here.port).unwrap().used, 0);
    c.finish();
}

/// Lets most of the time up to the next probe pass in one step: what happens in it is not at issue.
fn sleep_most_of(c: &mut Cluster, span: Duration) {
    c.now = c.now + (span - Duration::from_secs(60));
    c.run_for(Duration::from_secs(5));
}

/// CONN_MANAGER messages seen in three minutes from now on: sender, ports and kind.
fn probes(c: &mut Cluster) -> Vec<(usize, PortId, PortId, ConnKind)> {
    c.segment.record = true;
    for _ in 0..180 {
        c.run_for(Duration::from_secs(1));
        c.segment
            .seen
            .retain(|s| Msg::check(&s.bytes).is_ok_and(|m| m.user() == User::ConnManager));
    }
    c.segment.record = false;
    let seen = std::mem::take(&mut c.segment.seen);
    let decode = |s: &xtipc_sim::segment::Seen| match Packet::decode(&s.bytes) {
        Ok(Packet::ConnManager(m)) => (s.from, m.orig_port, m.dest_port, m.kind),
        other => panic!("{other:?}"),
    };
    let expect = [(0x5140_0028, 0), (0x5140_0028, 0x2000_0000)];
    assert!(seen.iter().all(|s| expect.contains(&words(&s.bytes))));
    seen.iter().map(decode).collect()
}

#[test]
fn peers_are_probed_every_hour_and_given_up_when_one_was_not_answered() {
    let mut w = wired(59, SocketKind::Seqpacket);
    let (client, server) = (w.client.port, w.server.port);
    let c = &mut w.c;
    for early in [0, 180] {
        sleep_most_of(c, PROBE_INTERVAL - Duration::from_secs(early));
        assert_eq!(c.state(0, client), Some(State::Established));
        let sent = probes(c);
        let mut kinds = [0; 4];
        for (from, origin, dest, kind) in sent {
            let ports = [(client, server), (server, client)][from];
            assert_eq!((origin, dest), ports);
            kinds[from * 2 + usize::from(kind == ConnKind::ProbeReply)] += 1;
        }
        assert_eq!(kinds, [1; 4], "each end asks and answers");
    }
    // From now on the server's answers do not come from it.
    c.segment.filter = Some(Box::new(|flight| match Msg::check(&flight.bytes) {
        Ok(msg) if msg.user() == User::ConnManager && flight.from == 1 => {
            let mut bytes = flight.bytes.clone();
            field::ORIG_PORT.set(&mut bytes, 1);
            Fate::Replace(bytes)
        }
        _ => Fate::Pass,
    }));
    c.notices(0);
    sleep_most_of(c, PROBE_INTERVAL - Duration::from_secs(180));
    c.run_for(Duration::from_secs(200));
    assert_eq!(c.state(0, client), Some(State::Established));
    sleep_most_of(c, PROBE_INTERVAL - Duration::from_secs(180));
    c.run_for(Duration::from_secs(300));
    let silent = Notice::Disconnected(client, Disconnect::Silent);
    assert_eq!(c.notices(0), [silent]);
    w.c.finish();
}

#[test]
fn of_thousands_of_connections_that_came_and_went_only_those_that_live_are_probed() {
    let mut w = wired(67, SocketKind::Seqpacket);
    let (client, server, listener) = (w.client.port, w.server.port, w.listener);
    let c = &mut w.c;
    for _ in 0..3000 {
        let short = c.open_kind(0, SocketKind::Seqpacket);
        c.connect(0, short.port, Destination::Socket(listener))
            .unwrap();
        settle(c);
        let accepted = c.accept(1, listener.port).unwrap();
        settle(c);
        assert_eq!(c.state(0, short.port), Some(State::Established));
        c.close(0, short.port);
        c.close(1, accepted.port);
        settle(c);
    }
    // The first one's hour began before all of theirs.
    sleep_most_of(c, PROBE_INTERVAL - Duration::from_secs(120));
    let sent = probes(c);
    assert_eq!(sent.len(), 4, "each end asks and answers: {sent:?}");
    let own = |(_, origin, dest, _): &(_, PortId, PortId, ConnKind)| {
        [(client, server), (server, client)].contains(&(*origin, *dest))
    };
    assert!(sent.iter().all(own));
    w.c.finish();
}

#[test]
fn a_probe_that_meets_no_socket_ends_the_connection() {
    let mut w = wired(60, SocketKind::Seqpacket);
    let (client, server) = (w.client, w.server);
    let c = &mut w.c;
    c.segment.filter = Some(Box::new(|flight| match Msg::check(&flight.bytes) {
        // The end of the connection goes astray.
        Ok(msg) if msg.user() == User::Critical => {
            let mut bytes = flight.bytes.clone();
            field::DEST_PORT.set(&mut bytes, 1);
            Fate::Replace(bytes)
        }
        _ => Fate::Pass,
    }));
    c.close(1, server.port);
    sleep_most_of(c, PROBE_INTERVAL - Duration::from_secs(60));
    assert_eq!(c.state(0, client.port), Some(State::Established));
    c.run_for(Duration::from_secs(180));
    assert_eq!(c.notices(0), [ended(client.port, NO_PORT)]);
    assert_eq!(c.recv(0, client.port).unwrap().about.errcode, NO_PORT);
    w.c.finish();
}

#[test]
fn both_ends_may_part_at_once() {
    for mut w in pairs(61) {
        let (near, far, client, server) = (w.near, w.far, w.client, w.server);
        let c = &mut w.c;
        c.close(near, client.port);
        c.close(far, server.port);
        settle(c);
        assert!(c.node(near).engine.port(client.port).is_none());
        assert!(c.node(far).engine.port(server.port).is_none());
        w.c.finish();
    }
}

#[test]
fn connections_that_end_together_in_greater_number_than_there_are_frames_are_all_told() {
    const COUNT: usize = 900;
    let mut c = small_cluster(75);
    let listener = c.listener(1, SocketKind::Stream);
    let mut servers = Vec::new();
    for _ in 0..COUNT {
        let client = c.open_kind(0, SocketKind::Stream);
        c.connect(0, client.port, Destination::Socket(listener))
            .unwrap();
        settle(&mut c);
        servers.push(c.accept(1, listener.port).unwrap());
        settle(&mut c);
    }
    c.notices(0);
    // As when their program is killed.
    for server in servers {
        c.close(1, server.port);
    }
    let over = |notice: &Notice| matches!(notice, Notice::Disconnected(..));
    let mut ended = 0;
    let began = c.now;
    while ended < COUNT {
        c.run_for(Duration::from_millis(1));
        ended += c.notices(0).iter().filter(|notice| over(notice)).count();
        let late = c.now.since(began) > Duration::from_millis(50);
        assert!(!late, "only {ended} of {COUNT} were told");
    }
    c.finish();
}
