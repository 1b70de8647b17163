//! Sockets of the engine itself.

use super::{connection_traffic, settle};
use std::time::Duration;
use xtipc_protocol::engine::InnerEvent;
use xtipc_protocol::host::{Disconnect, Notice};
use xtipc_protocol::port::SocketKind;
use xtipc_sim::cluster::{Cluster, service};

const SERVICE: u32 = 5000;

/// Lets a service of a node that sends everything back have its turn.
fn echo(c: &mut Cluster, station: usize, pending: &mut Vec<InnerEvent>) -> Vec<InnerEvent> {
    let mut seen = Vec::new();
    let now = c.now;
    c.with(station, |n| {
        while let Some(event) = n.engine.pop_inner() {
            if let InnerEvent::Message(..) = event {
                pending.push(event);
            } else {
                if let InnerEvent::Ended(port, _) = event {
                    n.engine.close(now, port, &mut n.host);
                }
                seen.push(event);
            }
        }
        while let Some(InnerEvent::Message(port, bytes)) = pending.first() {
            let sent = n.engine.send_connected(now, *port, &bytes[..], &mut n.host);
            if sent.is_err() {
                break;
            }
            pending.remove(0);
        }
    });
    seen
}

#[test]
fn a_service_of_the_engine_answers_local_and_remote_clients_and_the_host_hears_nothing() {
    for client_at in [0, 1] {
        let mut c = Cluster::settled(70, 2);
        let listener = c.with(0, |n| n.engine.open_inner(SocketKind::Seqpacket));
        c.bind(0, listener, (SERVICE, 1, 1));
        c.run_for(Duration::from_secs(1));
        c.notices(0);
        let client = c.open_kind(client_at, SocketKind::Seqpacket);
        // With the first message in the request.
        c.send(client_at, client.port, service(SERVICE, 1), &b"first"[..])
            .unwrap();
        settle(&mut c);
        let (mut pending, mut seen) = (Vec::new(), Vec::new());
        seen.extend(echo(&mut c, 0, &mut pending));
        let Some(InnerEvent::Accepted {
            listener: at,
            port,
            peer,
        }) = seen.first().cloned()
        else {
            panic!("{seen:?}");
        };
        assert_eq!((at, peer), (listener, client));
        settle(&mut c);
        assert_eq!(c.texts(client_at, client.port), ["first"]);
        // The client sends on without reading until both windows are full, then reads all.
        let mut sent = 0;
        while sent < 1000
            && c.write(client_at, client.port, &[sent as u8; 1000][..])
                .is_ok()
        {
            sent += 1;
            settle(&mut c);
            seen.extend(echo(&mut c, 0, &mut pending));
        }
        assert!(!pending.is_empty(), "the service met the client's window");
        let mut got = Vec::new();
        for _ in 0..2000 {
            got.extend(c.recv_all(client_at, client.port));
            settle(&mut c);
            seen.extend(echo(&mut c, 0, &mut pending));
        }
        assert_eq!(got.len(), sent);
        assert!(
            got.iter()
                .enumerate()
                .all(|(n, m)| m.bytes == [n as u8; 1000])
        );
        assert!(seen.contains(&InnerEvent::Writable(port)));
        c.shutdown(client_at, client.port);
        settle(&mut c);
        let seen = echo(&mut c, 0, &mut pending);
        assert_eq!(seen, [InnerEvent::Ended(port, Disconnect::Errcode(5))]);
        assert!(c.node(0).engine.port(port).is_none());
        let told = c.notices(0);
        let own = |n: &Notice| matches!(n, Notice::Writable(p) | Notice::Disconnected(p, _) if *p == port);
        assert!(!told.iter().any(own), "{told:?}");
        c.finish();
    }
}

#[test]
fn a_service_ends_a_connection_in_order() {
    let mut c = Cluster::settled(71, 2);
    let listener = c.with(0, |n| n.engine.open_inner(SocketKind::Seqpacket));
    c.bind(0, listener, (SERVICE, 1, 1));
    c.run_for(Duration::from_secs(1));
    let client = c.open_kind(1, SocketKind::Seqpacket);
    c.connect(1, client.port, service(SERVICE, 1)).unwrap();
    settle(&mut c);
    let event = c.with(0, |n| n.engine.pop_inner()).unwrap();
    c.segment.record = true;
    c.shutdown(0, event.port());
    c.close(0, event.port());
    settle(&mut c);
    assert_eq!(connection_traffic(&c).len(), 1, "one message ends it");
    assert_eq!(
        c.recv(1, client.port).unwrap().about.errcode,
        super::SHUTDOWN
    );
    assert_eq!(c.with(0, |n| n.engine.pop_inner()), None);
    c.finish();
}
