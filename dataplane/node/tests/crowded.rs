//! Programs with more unread messages than their delivery memory takes: whatever they do not read, what they read comes.

mod host;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::{
    Connection, ConnectionKind, Datagram, Kind, Listener, Node, PollEvent, Poller, Readiness,
    Rejection, Scope, ServiceAddress,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// So many messages of the largest size fit a receive buffer, and of three sockets not the delivery memory.
const BACKLOG: usize = 30;
const LONGEST: usize = 66_000;

fn service(instance: u32) -> ServiceAddress {
    ServiceAddress {
        type_: 6000,
        instance,
    }
}

/// What message `number` for `socket` consists of.
fn pattern(socket: usize, number: usize, len: usize) -> Vec<u8> {
    let seed = (socket * 7 + number) as u8;
    (0..len).map(|at| seed.wrapping_add(at as u8)).collect()
}

/// Sockets of a program that does not read them, with more unread messages than its memory takes; and who sent them.
struct Backlog {
    sockets: Vec<Datagram>,
    sender: Datagram,
}

impl Backlog {
    fn of(host: &Host, node: &Node) -> Self {
        let sockets: Vec<_> = (0..3)
            .map(|_| Datagram::open(node, Kind::Rdm).unwrap())
            .collect();
        let sender = Datagram::open(&host.attach(), Kind::Rdm).unwrap();
        sender.set_dest_droppable(false).unwrap();
        for number in 0..BACKLOG {
            for (n, socket) in sockets.iter().enumerate() {
                let message = pattern(n, number, LONGEST);
                let to = socket.local_addr().unwrap();
                sender.send_to(&message, to).unwrap();
            }
        }
        Self { sockets, sender }
    }

    /// Each message is there, in its order.
    fn read(&self) {
        for (n, socket) in self.sockets.iter().enumerate().rev() {
            for number in 0..BACKLOG {
                let message = socket.recv_timeout(PATIENCE).unwrap();
                assert!(*message == pattern(n, number, LONGEST), "{n} {number}");
            }
        }
    }
}

/// A thread waits for what does not come, so what is unread is kept.
fn have_kept(node: &Node) {
    let wanted = Datagram::open(node, Kind::Rdm).unwrap();
    assert!(wanted.recv_timeout(Duration::from_millis(50)).is_err());
}

fn connections(
    host: &Host,
    server: &Node,
    count: usize,
    kind: ConnectionKind,
) -> (Vec<Connection>, Vec<Connection>) {
    let listener = Listener::bind(server, kind, service(1), Scope::Cluster).unwrap();
    let node = host.attach();
    thread::scope(|s| {
        let clients = s.spawn(move || {
            let connect = |_| Connection::connect(&node, kind, service(1)).unwrap();
            (0..count).map(connect).collect()
        });
        let servers = (0..count).map(|_| listener.accept().unwrap().0).collect();
        (clients.join().unwrap(), servers)
    })
}

#[test]
fn ten_thousand_connections_are_read_in_any_order() {
    const COUNT: usize = 10_000;
    const EACH: usize = 2;
    let host = Host::start();
    let (clients, servers) = connections(&host, &host.attach(), COUNT, ConnectionKind::Seqpacket);
    for number in 0..EACH {
        for (n, client) in clients.iter().enumerate() {
            client.send(&pattern(n, number, 100)).unwrap();
        }
    }
    let read = |n: usize, number: usize| {
        servers[n].set_read_timeout(Some(PATIENCE));
        let message = servers[n].recv().unwrap().expect("no end");
        assert!(*message == pattern(n, number, 100), "{n} {number}");
    };
    (0..COUNT).for_each(|n| read(n, 0));
    // And the other way, while nobody reads the rest.
    servers
        .iter()
        .for_each(|s| assert_eq!(s.send(b"answer").unwrap(), 6));
    for client in clients.iter().rev() {
        client.set_read_timeout(Some(PATIENCE));
        assert_eq!(*client.recv().unwrap().expect("no end"), *b"answer");
    }
    (0..COUNT).rev().for_each(|n| read(n, 1));
}

#[test]
fn what_is_not_read_does_not_hold_up_other_sockets() {
    let host = Host::start();
    let node = host.attach();
    let wanted = Datagram::open(&node, Kind::Rdm).unwrap();
    let address = wanted.local_addr().unwrap();
    let backlog = Backlog::of(&host, &node);
    let send = |text: &[u8]| backlog.sender.send_to(text, address).unwrap();

    send(b"waiting");
    assert_eq!(*wanted.recv_timeout(PATIENCE).unwrap(), *b"waiting");
    let again = Backlog::of(&host, &node);
    send(b"spinning");
    let until = Instant::now() + PATIENCE;
    assert_eq!(*wanted.recv_spin(until).unwrap(), *b"spinning");
    backlog.read();
    again.read();
}

#[test]
fn a_thread_that_sleeps_already_is_not_held_up() {
    let host = Host::start();
    let node = host.attach();
    let wanted = Datagram::open(&node, Kind::Rdm).unwrap();
    let address = wanted.local_addr().unwrap();
    thread::scope(|s| {
        let reader = s.spawn(|| wanted.recv_timeout(PATIENCE).unwrap().to_vec());
        thread::sleep(Duration::from_millis(50));
        let backlog = Backlog::of(&host, &node);
        backlog.sender.send_to(b"at last", address).unwrap();
        assert_eq!(reader.join().unwrap(), b"at last");
        backlog.read();
    });
}

#[test]
fn a_poller_hears_of_a_socket_behind_ready_ones_that_are_passed_over() {
    let host = Host::start();
    let node = host.attach();
    let wanted = Datagram::open(&node, Kind::Rdm).unwrap();
    let backlog = Backlog::of(&host, &node);
    let address = wanted.local_addr().unwrap();
    backlog.sender.send_to(b"polled", address).unwrap();
    let poller = Poller::new(&node);
    poller.add(&wanted, 9, Readiness::READABLE).unwrap();
    for (n, socket) in backlog.sockets.iter().enumerate() {
        poller.add(socket, n, Readiness::READABLE).unwrap();
    }
    let (mut events, end) = (Vec::new(), Instant::now() + PATIENCE);
    while !events.iter().any(|event: &PollEvent| event.token == 9) {
        assert!(Instant::now() < end, "not in time");
        poller.wait(&mut events, Some(PATIENCE)).unwrap();
    }
    assert_eq!(*wanted.try_recv().unwrap(), *b"polled");
    backlog.read();
}

#[test]
fn a_descriptor_becomes_readable_behind_what_is_not_read() {
    let host = Host::start();
    let node = host.attach();
    let wanted = Datagram::open(&node, Kind::Rdm).unwrap();
    let fd = wanted.as_fd().unwrap().as_raw_fd();
    let backlog = Backlog::of(&host, &node);
    let address = wanted.local_addr().unwrap();
    backlog.sender.send_to(b"polled", address).unwrap();
    let end = Instant::now() + PATIENCE;
    let message = loop {
        assert!(Instant::now() < end, "not in time");
        // SAFETY: one structure, which lives through the call.
        unsafe {
            let mut poll = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            libc::poll(&raw mut poll, 1, PATIENCE.as_millis() as i32);
        }
        if let Ok(message) = wanted.try_recv() {
            break message;
        }
    };
    assert_eq!(*message, *b"polled");
}

#[test]
fn kept_messages_go_back_to_their_sender_when_the_program_ends() {
    let host = Host::start();
    let node = host.attach();
    let backlog = Backlog::of(&host, &node);
    have_kept(&node);
    drop(node);
    let Backlog { sockets, sender } = backlog;
    let addresses: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
    drop(sockets);
    let mut next = [0; 3];
    for _ in 0..3 * BACKLOG {
        let message = sender.recv_timeout(PATIENCE).unwrap();
        assert_eq!(message.error(), Some(Rejection::NoPort));
        let from = addresses.iter().position(|a| *a == message.source());
        let n = from.expect("one of them");
        assert!(*message == pattern(n, next[n], LONGEST)[..1024]);
        next[n] += 1;
    }
    assert_eq!(next, [BACKLOG; 3]);
}

#[test]
fn a_stream_that_was_read_in_part_can_be_shared_while_its_rest_is_kept() {
    let host = Host::start();
    let node = host.attach();
    let (clients, servers) = connections(&host, &node, 80, ConnectionKind::Stream);
    let bytes = pattern(0, 0, LONGEST);
    for client in &clients {
        assert_eq!(client.send(&bytes).unwrap(), LONGEST);
    }
    let mut start = [0; 1000];
    for server in &servers {
        (&mut &*server).read_exact(&mut start).unwrap();
        assert!(start == bytes[..1000]);
    }
    have_kept(&node);

    let node = host.attach();
    for server in servers {
        let handle = server.share().unwrap();
        drop(server);
        let heir = Connection::adopt(&node, &handle).unwrap();
        heir.set_read_timeout(Some(PATIENCE));
        let mut rest = vec![0; LONGEST - 1000];
        (&mut &heir).read_exact(&mut rest).unwrap();
        assert!(rest == bytes[1000..]);
    }
}
