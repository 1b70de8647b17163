//! Connections from program to program: the API, shared memory, the daemon. The node has no bearer, so it needs no
//! privileges; connections between nodes are the business of the simulator and of `tests/interop`.

mod host;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::socket::{ReceiveRoom, Socket};
use xtipc::{Connection, ConnectionKind, Error, Listener, Scope, ServiceAddress, SocketAddress};

const KINDS: [ConnectionKind; 2] = [ConnectionKind::Seqpacket, ConnectionKind::Stream];
const SERVICE: ServiceAddress = ServiceAddress {
    type_: 5000,
    instance: 1,
};

/// A client and a server of two programs.
fn connected(host: &Host, kind: ConnectionKind) -> (Connection, Connection) {
    let listener = Listener::bind(&host.attach(), kind, SERVICE, Scope::Cluster).unwrap();
    let node = host.attach();
    let client = thread::spawn(move || Connection::connect(&node, kind, SERVICE).unwrap());
    let (server, peer) = listener.accept().unwrap();
    let client = client.join().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    (client, server)
}

fn kind_of(result: Result<Option<xtipc::Message>, Error>) -> io::ErrorKind {
    io::Error::from(result.expect_err("an error")).kind()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn messages_of_every_size_go_both_ways() {
    let host = Host::start();
    for kind in KINDS {
        let (client, server) = connected(&host, kind);
        assert_eq!(client.peer_addr().unwrap(), server.local_addr().unwrap());
        assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
        for len in [1, 2, 1000, 1436, 1500, 20_000, 66_000] {
            for (from, to) in [(&client, &server), (&server, &client)] {
                assert_eq!(from.send(&pattern(len)).unwrap(), len);
                let message = to.recv().unwrap().expect("no end");
                assert_eq!(*message, pattern(len), "{kind:?} {len}");
            }
        }
        let long = client.send(&pattern(66_001));
        match kind {
            ConnectionKind::Stream => assert_eq!(long.unwrap(), 66_000),
            ConnectionKind::Seqpacket => assert!(matches!(long, Err(Error::MessageTooLong { .. }))),
        }
    }
}

#[test]
fn several_messages_go_at_once_in_order_as_far_as_there_is_room_and_the_end_behind_them() {
    let host = Host::start();
    let (client, server) = connected(&host, ConnectionKind::Seqpacket);
    let mut messages = Vec::new();
    for round in 0..10 {
        let payloads: Vec<Vec<u8>> = (1..=20).map(|len| pattern(round * 20 + len)).collect();
        assert_eq!(client.send_many(&payloads).unwrap(), 20);
        for max in [1, 5, 100] {
            let (before, mut got) = (messages.len(), 0);
            while got < max.min(20 - before % 20) {
                got += server.recv_many(&mut messages, max - got).unwrap();
            }
        }
    }
    let lens: Vec<usize> = messages.iter().map(|message| message.len()).collect();
    assert_eq!(lens, (1..=200).collect::<Vec<usize>>());
    assert!(
        messages
            .iter()
            .all(|message| **message == pattern(message.len()))
    );
    assert_eq!(server.recv_many(&mut messages, 0).unwrap(), 0);
    server.set_nonblocking(true);
    let none = server.recv_many(&mut messages, 9);
    assert!(matches!(none, Err(Error::WouldBlock)));

    let (client, server) = connected(&host, ConnectionKind::Seqpacket);
    // The window of 128 blocks is open until 59 more than that are under way.
    assert_eq!(client.send_many(&vec![pattern(60_000); 5]).unwrap(), 3);
    let long = client.send_many(&[&pattern(1)[..], &pattern(66_001)]);
    assert!(matches!(
        long,
        Err(Error::MessageTooLong { len: 66_001, .. })
    ));
    assert_eq!(client.send_many::<&[u8]>(&[]).unwrap(), 0);
    client.shutdown().unwrap();
    messages.clear();
    while server.recv_many(&mut messages, 2).unwrap() > 0 {}
    assert_eq!(messages.len(), 3, "and then the end, each time");
    assert_eq!(server.recv_many(&mut messages, 2).unwrap(), 0);
}

#[test]
fn a_stream_carries_megabytes_both_ways_at_once() {
    let host = Host::start();
    let (client, server) = connected(&host, ConnectionKind::Stream);
    let bytes = pattern(8_000_000);
    thread::scope(|s| {
        for (from, to) in [(&client, &server), (&server, &client)] {
            let bytes = &bytes;
            s.spawn(move || (&mut &*from).write_all(bytes).unwrap());
            s.spawn(move || {
                let mut got = vec![0; bytes.len()];
                (&mut &*to).read_exact(&mut got).unwrap();
                assert!(got == *bytes);
            });
        }
    });
}

#[test]
fn many_small_writes_arrive_though_they_are_gathered() {
    let host = Host::start();
    let (mut client, mut server) = connected(&host, ConnectionKind::Stream);
    let bytes = pattern(20_000);
    let expect = bytes.clone();
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        assert_eq!(got, expect);
    });
    for piece in bytes.chunks(3) {
        client.write_all(piece).unwrap();
    }
    client.shutdown().unwrap();
    reader.join().unwrap();
}

#[test]
fn a_sender_waits_for_a_reader_that_does_not_read_and_goes_on_when_it_does() {
    let host = Host::start();
    let (client, server) = connected(&host, ConnectionKind::Seqpacket);
    client.set_write_timeout(Some(Duration::from_millis(200)));
    let mut sent = 0;
    let stopped = loop {
        match client.send(&[1; 60_000]) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(stopped, Error::TimedOut), "{stopped}");
    // 128 blocks, of which a message takes 59.
    assert_eq!(sent, 3);
    client.set_write_timeout(None);
    thread::scope(|s| {
        s.spawn(|| client.send(&[2; 10]).unwrap());
        for _ in 0..sent {
            assert_eq!(server.recv().unwrap().unwrap().len(), 60_000);
        }
        assert_eq!(*server.recv().unwrap().unwrap(), [2; 10]);
    });
}

#[test]
fn a_sender_goes_on_soon_after_its_messages_were_read_though_the_daemon_sleeps() {
    let host = Host::start();
    for kind in KINDS {
        let (client, mut server) = connected(&host, kind);
        let mut times = Vec::new();
        for _ in 0..5 {
            client.set_nonblocking(true);
            let mut sent = 0;
            while let Ok(len) = client.send(&[1; 60_000]) {
                sent += len;
            }
            client.set_nonblocking(false);
            thread::scope(|s| {
                let sender = s.spawn(|| client.send(&[2; 10]).unwrap());
                thread::sleep(Duration::from_millis(20));
                let began = Instant::now();
                while sent > 0 {
                    sent -= server.read(&mut [0; 60_000]).unwrap();
                }
                sender.join().unwrap();
                times.push(began.elapsed());
            });
            assert_eq!(server.read(&mut [0; 60_000]).unwrap(), 10);
        }
        // A daemon that was not woken would look once in a second.
        times.sort();
        assert!(times[2] < Duration::from_millis(400), "{kind:?}: {times:?}");
    }
}

#[test]
fn a_first_message_may_make_the_connection() {
    let host = Host::start();
    for kind in KINDS {
        let listener = Listener::bind(&host.attach(), kind, SERVICE, Scope::Cluster).unwrap();
        let first = pattern(30_000);
        let client = Connection::connect_with(&host.attach(), kind, SERVICE, &first).unwrap();
        let (server, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(*server.recv().unwrap().unwrap(), first);
        server.send(b"answer").unwrap();
        assert_eq!(*client.recv().unwrap().unwrap(), *b"answer");
    }
}

#[test]
fn an_orderly_end_follows_the_data_and_a_close_resets() {
    let host = Host::start();
    for kind in KINDS {
        let (client, server) = connected(&host, kind);
        client.send(b"bye").unwrap();
        client.shutdown().unwrap();
        assert_eq!(*server.recv().unwrap().unwrap(), *b"bye");
        assert!(server.recv().unwrap().is_none());
        assert!(server.recv().unwrap().is_none(), "again");
        assert!(client.recv().unwrap().is_none());
        let sent = io::Error::from(server.send(b"x").unwrap_err()).kind();
        assert_eq!(sent, io::ErrorKind::BrokenPipe);
        let (client, server) = connected(&host, kind);
        client.send(b"bye").unwrap();
        drop(client);
        assert_eq!(*server.recv().unwrap().unwrap(), *b"bye");
        for _ in 0..2 {
            assert_eq!(kind_of(server.recv()), io::ErrorKind::ConnectionReset);
        }
        assert!(server.peer_addr().is_err());
    }
}

#[test]
fn a_program_that_ends_takes_its_connections_with_it_and_wakes_who_waits() {
    let host = Host::start();
    let (client, server) = connected(&host, ConnectionKind::Seqpacket);
    client.set_write_timeout(Some(Duration::from_millis(100)));
    while client.send(&[1; 60_000]).is_ok() {}
    client.set_write_timeout(None);
    thread::scope(|s| {
        let writer = s.spawn(|| client.send(b"waits").unwrap_err());
        let reader = s.spawn(|| kind_of(client.recv()));
        thread::sleep(Duration::from_millis(100));
        drop(server);
        let error = io::Error::from(writer.join().unwrap()).kind();
        assert_eq!(error, io::ErrorKind::BrokenPipe);
        assert_eq!(reader.join().unwrap(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn connects_that_fail_say_why() {
    let host = Host::start();
    let node = host.attach();
    let unbound = Connection::connect(&node, ConnectionKind::Stream, SERVICE).unwrap_err();
    assert_eq!(unbound.errno(), libc::EHOSTUNREACH);
    let nobody = SocketAddress { port: 1, node: 0 };
    let refused = Connection::connect(&node, ConnectionKind::Stream, nobody).unwrap_err();
    assert_eq!(refused.errno(), libc::ECONNREFUSED);
    let listener = Listener::open(&node, ConnectionKind::Stream).unwrap();
    let to = listener.local_addr().unwrap();
    let began = Instant::now();
    let late = Connection::connect_timeout(&node, ConnectionKind::Stream, to, 300).unwrap_err();
    assert_eq!(late.errno(), libc::ETIMEDOUT);
    assert!(began.elapsed() >= Duration::from_millis(300));
    // The request of the one that gave up still waits; its socket is closed.
    let (dead, _) = listener.try_accept().unwrap();
    assert_eq!(kind_of(dead.recv()), io::ErrorKind::ConnectionReset);
    assert!(matches!(listener.try_accept(), Err(Error::WouldBlock)));
    let short = Duration::from_millis(100);
    assert!(matches!(
        listener.accept_timeout(short),
        Err(Error::TimedOut)
    ));
    let refused = Connection::connect_with(&node, ConnectionKind::Stream, nobody, b"hi").unwrap();
    assert_eq!(kind_of(refused.recv()), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_connection_that_shall_not_wait_says_that_it_would() {
    let host = Host::start();
    for kind in KINDS {
        let (mut client, mut server) = connected(&host, kind);
        for end in [&client, &server] {
            end.set_nonblocking(true);
        }
        let would = |result: io::Result<usize>| result.unwrap_err().kind();
        assert_eq!(would(server.read(&mut [0; 10])), io::ErrorKind::WouldBlock);
        assert!(matches!(server.recv(), Err(Error::WouldBlock)));
        let mut sent = 0;
        let full = loop {
            match client.write(&[1; 60_000]) {
                Ok(len) => sent += len,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!((full, sent), (io::ErrorKind::WouldBlock, 180_000));
        server.set_nonblocking(false);
        let mut got = 0;
        while got < sent {
            got += server.read(&mut [0; 60_000]).unwrap();
        }
        let began = Instant::now();
        while client.write(&[1; 10]).is_err() {
            assert!(began.elapsed() < Duration::from_secs(5), "never writable");
        }
        assert_eq!(server.read(&mut [0; 100]).unwrap(), 10);
    }
}

#[test]
fn connections_dropped_in_the_middle_of_a_chunk_give_its_memory_back() {
    let host = Host::start();
    let (node, peer) = (host.attach(), host.attach());
    let kind = ConnectionKind::Stream;
    let listener = Listener::open(&node, kind).unwrap();
    let to = listener.local_addr().unwrap();
    // More than the delivery memory of a program takes at once.
    for _ in 0..400 {
        let client = Connection::connect_with(&peer, kind, to, &[1; 60_000]).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5)));
        server.read_exact(&mut [0; 100]).unwrap();
        drop(server);
        assert_eq!(kind_of(client.recv()), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn closing_sockets_loses_no_acknowledgement_of_other_sockets() {
    let host = Host::start();
    let (node, peer) = (host.attach(), host.attach());
    let kind = ConnectionKind::Seqpacket;
    let listener = Listener::open(&node, kind).unwrap();
    let to = listener.local_addr().unwrap();
    let client = thread::spawn(move || Connection::connect(&peer, kind, to).unwrap());
    let (server, _) = listener.accept().unwrap();
    let client = client.join().unwrap();
    // A window of one block: an acknowledgement that is lost holds the sender for good.
    server.set_receive_buffer(4096).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(5)));
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(Listener::open(&node, kind).unwrap());
            }
        });
        s.spawn(|| (0..5000).for_each(|_| drop(client.send(&[3; 500]))));
        server.set_read_timeout(Some(Duration::from_secs(5)));
        let failure = (0..5000).find_map(|n| Some((n, server.recv().err()?)));
        done.store(true, Ordering::Relaxed);
        if failure.is_some() {
            client.shutdown().unwrap();
        }
        assert!(failure.is_none(), "{failure:?}");
    });
}

#[test]
fn a_receive_that_waits_for_more_than_the_window_lets_its_peer_go_on() {
    let host = Host::start();
    let (one, other) = Socket::pair(&host.attach(), libc::SOCK_STREAM, 0).unwrap();
    let bytes = pattern(3_000_000);
    thread::scope(|s| {
        let bytes = &bytes;
        s.spawn(move || {
            let mut sent = 0;
            while sent < bytes.len() {
                sent += one.send(&bytes[sent..], 0, None).unwrap();
            }
        });
        let mut got = vec![0; bytes.len()];
        let room = ReceiveRoom {
            data: &mut got,
            control: None,
        };
        let received = other.receive(room, libc::MSG_WAITALL).unwrap();
        assert_eq!(received.len, bytes.len());
        assert!(got == *bytes);
    });
}
