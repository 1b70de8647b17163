//! Sockets that several programs use. The node has no bearer, so it needs no privileges.

mod host;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::{
    Connection, ConnectionKind, Datagram, Error, Group, GroupEvent, Joining, Kind, Listener, Node,
    ServiceAddress, SharedHandle,
};

const KINDS: [ConnectionKind; 2] = [ConnectionKind::Seqpacket, ConnectionKind::Stream];

fn connected(host: &Host, kind: ConnectionKind) -> (Connection, Connection) {
    let listener = Listener::open(&host.attach(), kind).unwrap();
    let (node, to) = (host.attach(), listener.local_addr().unwrap());
    let client = thread::spawn(move || Connection::connect(&node, kind, to).unwrap());
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5)));
    (client.join().unwrap(), server)
}

fn number(connection: &Connection) -> u32 {
    let message = connection.recv().unwrap().expect("no end");
    u32::from_be_bytes(message[..4].try_into().unwrap())
}

/// Numbered messages.
fn send(connection: &Connection, numbers: impl Iterator<Item = u32>, size: usize) {
    for number in numbers {
        let mut message = number.to_be_bytes().to_vec();
        message.resize(size, 7);
        connection.send(&message).unwrap();
    }
}

/// As another process gets it: a descriptor of its own.
fn passed(handle: SharedHandle) -> SharedHandle {
    let fd = OwnedFd::from(handle);
    SharedHandle::from(fd.try_clone().unwrap())
}

#[test]
fn a_connection_moves_to_another_program_with_what_was_not_read() {
    let host = Host::start();
    for kind in KINDS {
        let (client, server) = connected(&host, kind);
        send(&client, 0..50, 1000);
        assert_eq!(number(&server), 0);
        let handle = passed(server.share().unwrap());
        // Between the two it is in nobody's use.
        drop(server);
        send(&client, 50..55, 1000);
        let server = Connection::adopt(&host.attach(), &handle).unwrap();
        drop(handle);
        for n in 1..55 {
            assert_eq!(number(&server), n, "{kind:?}");
        }
        send(&server, 0..5, 100);
        (0..5).for_each(|n| assert_eq!(number(&client), n));
        assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
        client.shutdown().unwrap();
        assert!(server.recv().unwrap().is_none());
    }
}

#[test]
fn a_stream_goes_on_in_the_middle_of_a_chunk() {
    let host = Host::start();
    let (client, mut server) = connected(&host, ConnectionKind::Stream);
    let bytes: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
    client.send(&bytes[..10_000]).unwrap();
    client.send(&bytes[10_000..]).unwrap();
    let mut got = vec![0; 20_000];
    let (first, rest) = got.split_at_mut(300);
    server.read_exact(first).unwrap();
    let mut other = Connection::adopt(&host.attach(), &server.share().unwrap()).unwrap();
    // In turns, in pieces that end within messages.
    for (turn, piece) in rest.chunks_mut(700).enumerate() {
        let reader = if turn % 2 == 0 {
            &mut other
        } else {
            &mut server
        };
        reader.read_exact(piece).unwrap();
    }
    assert!(got == bytes);
}

#[test]
fn each_message_goes_to_one_of_the_holders_and_the_end_to_all() {
    let host = Host::start();
    let (client, server) = connected(&host, ConnectionKind::Seqpacket);
    let handle = server.share().unwrap();
    let mut holders = vec![server];
    holders.extend((0..3).map(|_| Connection::adopt(&host.attach(), &handle).unwrap()));
    let got: Vec<Vec<u32>> = thread::scope(|s| {
        let readers: Vec<_> = holders
            .iter()
            .map(|holder| {
                s.spawn(|| {
                    let mut got = Vec::new();
                    while let Some(message) = holder.recv().unwrap() {
                        got.push(u32::from_be_bytes(message[..4].try_into().unwrap()));
                    }
                    got
                })
            })
            .collect();
        // More than the window: the sender waits for readers.
        send(&client, 0..2000, 2000);
        client.shutdown().unwrap();
        readers.into_iter().map(|r| r.join().unwrap()).collect()
    });
    for numbers in &got {
        assert!(numbers.is_sorted(), "each holder's in order");
    }
    let all: BTreeSet<u32> = got.iter().flatten().copied().collect();
    assert_eq!(got.iter().map(Vec::len).sum::<usize>(), 2000);
    assert_eq!(all.len(), 2000);
}

#[test]
fn a_sender_stops_at_the_window_of_a_shared_socket_and_goes_on_when_it_is_read() {
    let host = Host::start();
    let (client, server) = connected(&host, ConnectionKind::Seqpacket);
    let other = Connection::adopt(&host.attach(), &server.share().unwrap()).unwrap();
    client.set_write_timeout(Some(Duration::from_millis(200)));
    let mut sent = 0;
    while client.send(&[1; 60_000]).is_ok() {
        sent += 1;
    }
    // 128 blocks, of which a message takes 59.
    assert_eq!(sent, 3);
    client.set_write_timeout(None);
    thread::scope(|s| {
        s.spawn(|| client.send(&[2; 10]).unwrap());
        for reader in [&server, &other, &server] {
            assert_eq!(reader.recv().unwrap().unwrap().len(), 60_000);
        }
        assert_eq!(*other.recv().unwrap().unwrap(), [2; 10]);
    });
}

#[test]
fn what_a_holder_did_not_read_is_the_next_message_of_the_others_when_it_is_gone() {
    let host = Host::start();
    let (client, server) = connected(&host, ConnectionKind::Seqpacket);
    let other = Connection::adopt(&host.attach(), &server.share().unwrap()).unwrap();
    thread::scope(|s| {
        // It asks for the first message, and gives up its patience before that comes.
        server.set_read_timeout(Some(Duration::from_millis(50)));
        s.spawn(|| assert!(matches!(server.recv(), Err(Error::TimedOut))));
        thread::sleep(Duration::from_millis(100));
    });
    send(&client, 0..10, 500);
    assert_eq!(number(&server), 0);
    drop(server);
    (1..10).for_each(|n| assert_eq!(number(&other), n));
    send(&other, 0..3, 10);
    (0..3).for_each(|n| assert_eq!(number(&client), n));
    drop(other);
    let end = client.recv().unwrap_err();
    assert_eq!(end.errno(), libc::ECONNRESET, "now nobody holds it");
}

#[test]
fn the_last_copy_of_a_handle_keeps_a_socket_and_its_end_closes_it() {
    let host = Host::start();
    let (client, server) = connected(&host, ConnectionKind::Stream);
    let handle = server.share().unwrap();
    let copy = passed(handle);
    drop(server);
    client.set_read_timeout(Some(Duration::from_millis(100)));
    assert!(matches!(client.recv(), Err(Error::TimedOut)));
    drop(copy);
    client.set_read_timeout(Some(Duration::from_secs(5)));
    assert_eq!(client.recv().unwrap_err().errno(), libc::ECONNRESET);
}

#[test]
fn requests_of_a_shared_listener_go_to_one_program_each() {
    let host = Host::start();
    let kind = ConnectionKind::Stream;
    let listener = Listener::open(&host.attach(), kind).unwrap();
    let (to, handle) = (listener.local_addr().unwrap(), listener.share().unwrap());
    let listeners: Vec<_> = (0..3)
        .map(|_| Listener::adopt(&host.attach(), &handle).unwrap())
        .collect();
    drop((listener, handle));
    thread::scope(|s| {
        for listener in &listeners {
            s.spawn(|| {
                for _ in 0..10 {
                    let (mut server, _) = listener.accept().unwrap();
                    server.write_all(b"hello").unwrap();
                    server.shutdown().unwrap();
                }
            });
        }
        let node = host.attach();
        for _ in 0..30 {
            let mut client = Connection::connect(&node, kind, to).unwrap();
            let mut greeting = String::new();
            client.read_to_string(&mut greeting).unwrap();
            assert_eq!(greeting, "hello");
        }
    });
}

#[test]
fn what_is_no_handle_of_this_kind_of_socket_is_refused() {
    let host = Host::start();
    let node: Node = host.attach();
    let (client, server) = connected(&host, ConnectionKind::Stream);
    let handle = server.share().unwrap();
    let wrong = Listener::adopt(&node, &handle).unwrap_err();
    assert_eq!(wrong.errno(), libc::EPROTOTYPE);
    let first = Connection::adopt(&node, &handle).unwrap();
    let twice = Connection::adopt(&node, &handle).unwrap_err();
    assert_eq!(twice.errno(), libc::EEXIST);
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let forged = Connection::adopt(&node, &SharedHandle::from(OwnedFd::from(ours))).unwrap_err();
    assert_eq!(forged.errno(), libc::EINVAL);
    let file = SharedHandle::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let forged = Connection::adopt(&node, &file).unwrap_err();
    assert_eq!(forged.errno(), libc::EINVAL);
    // Nobody was disturbed.
    client.send(b"x").unwrap();
    assert_eq!(*first.recv().unwrap().unwrap(), *b"x");
}

#[test]
fn sharing_while_another_thread_waits_for_a_message_wakes_it_and_it_receives() {
    let host = Host::start();
    let (client, server) = connected(&host, ConnectionKind::Seqpacket);
    thread::scope(|s| {
        let reader = s.spawn(|| number(&server));
        thread::sleep(Duration::from_millis(100));
        let other = Connection::adopt(&host.attach(), &server.share().unwrap()).unwrap();
        thread::sleep(Duration::from_millis(100));
        send(&client, 5..7, 100);
        assert_eq!(reader.join().unwrap(), 5, "it asked first");
        assert_eq!(number(&other), 6);
    });
}

#[test]
fn a_shared_datagram_socket_serves_two_programs() {
    let host = Host::start();
    let sender = Datagram::open(&host.attach(), Kind::Rdm).unwrap();
    let one = Datagram::open(&host.attach(), Kind::Rdm).unwrap();
    let to = one.local_addr().unwrap();
    sender.send_to(b"0", to).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let other = Datagram::adopt(&host.attach(), &one.share().unwrap()).unwrap();
    assert_eq!(other.local_addr().unwrap(), to);
    sender.send_to(b"1", to).unwrap();
    assert_eq!(*other.recv().unwrap(), *b"0");
    assert_eq!(*one.recv().unwrap(), *b"1");
    assert!(matches!(one.try_recv(), Err(Error::WouldBlock)));
    assert!(Instant::now() < deadline);
    let kinds =
        io::Error::from(Connection::adopt(&host.attach(), &one.share().unwrap()).unwrap_err());
    assert_eq!(kinds.raw_os_error(), Some(libc::EPROTOTYPE));
}

#[test]
fn a_member_of_a_group_and_a_polled_socket_are_not_shared_and_say_why() {
    let host = Host::start();
    let node = host.attach();
    let address = ServiceAddress {
        type_: 7000,
        instance: 1,
    };
    let group = Group::join(&node, address, Joining::default()).unwrap();
    let refused = group.socket().share().unwrap_err();
    assert!(matches!(refused, Error::MemberNotShared), "{refused}");
    assert_eq!(refused.errno(), libc::EOPNOTSUPP);
    // It is a member as before.
    let other = Group::join(&host.attach(), address, Joining::default()).unwrap();
    let joined = group.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(matches!(joined, GroupEvent::Joined(_)));
    other.broadcast(b"still").unwrap();
    let message = group.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(matches!(message, GroupEvent::Message { .. }));

    let polled = Datagram::open(&node, Kind::Rdm).unwrap();
    polled.as_fd().unwrap();
    let refused = polled.share().unwrap_err();
    assert!(matches!(refused, Error::PolledNotShared), "{refused}");
    assert_eq!(refused.errno(), libc::EBUSY);
}
