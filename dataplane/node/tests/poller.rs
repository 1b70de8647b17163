//! Waiting for many sockets at once (`docs/architecture.md`, the application boundary).

mod host;

use std::collections::BTreeMap;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::socket::{ReceiveRoom, Socket};
use xtipc::{
    Connection, ConnectionKind, Datagram, Error, Kind, Listener, PollEvent, Poller, Readiness,
    Scope, ServiceAddress, ServiceRange, Subscriber, Subscription,
};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 5000,
    instance: 1,
};
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(10);

/// Waits, and gives what is ready for what, by token.
fn ready(poller: &Poller, timeout: Duration) -> BTreeMap<usize, Readiness> {
    let mut events = vec![PollEvent {
        token: 99,
        readiness: Readiness::READABLE,
    }];
    poller.wait(&mut events, Some(timeout)).unwrap();
    events.iter().map(|e| (e.token, e.readiness)).collect()
}

fn only(token: usize, readiness: Readiness) -> BTreeMap<usize, Readiness> {
    BTreeMap::from([(token, readiness)])
}

#[test]
fn sockets_of_all_kinds_are_reported_as_long_as_they_are_ready() {
    let host = Host::start();
    let (node, other) = (host.attach(), host.attach());
    let datagram = Datagram::open(&node, Kind::Rdm).unwrap();
    let subscriber = Subscriber::open(&node).unwrap();
    let range = ServiceRange {
        type_: 700,
        lower: 0,
        upper: 9,
    };
    subscriber
        .subscribe(&Subscription::bindings(range))
        .unwrap();
    let listener = Listener::open(&node, ConnectionKind::Stream).unwrap();
    let (mut near, far, _) = host.connect(&node, ConnectionKind::Stream, SERVICE);
    let poller = Poller::new(&node);
    poller.add(&datagram, 1, Readiness::READABLE).unwrap();
    poller.add(&subscriber, 2, Readiness::READABLE).unwrap();
    poller.add(&listener, 3, Readiness::READABLE).unwrap();
    poller.add(&near, 4, Readiness::READABLE).unwrap();
    assert_eq!(ready(&poller, SHORT), BTreeMap::new());

    let sender = Datagram::open(&other, Kind::Rdm).unwrap();
    sender
        .send_to(b"one", datagram.local_addr().unwrap())
        .unwrap();
    for _ in 0..2 {
        assert_eq!(ready(&poller, LONG), only(1, Readiness::READABLE));
    }
    datagram.recv().unwrap();
    assert_eq!(ready(&poller, SHORT), BTreeMap::new());

    sender.bind(range, Scope::Cluster).unwrap();
    assert_eq!(ready(&poller, LONG), only(2, Readiness::READABLE));
    subscriber.recv().unwrap();

    far.send(b"four").unwrap();
    assert_eq!(ready(&poller, LONG), only(4, Readiness::READABLE));
    near.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(
        ready(&poller, LONG),
        only(4, Readiness::READABLE),
        "the rest"
    );
    near.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(ready(&poller, SHORT), BTreeMap::new());

    let at = listener.local_addr().unwrap();
    let client =
        thread::spawn(move || Connection::connect(&other, ConnectionKind::Stream, at).unwrap());
    assert_eq!(ready(&poller, LONG), only(3, Readiness::READABLE));
    listener.try_accept().unwrap();
    client.join().unwrap();
    assert!(matches!(listener.try_accept(), Err(Error::WouldBlock)));
    assert_eq!(ready(&poller, SHORT), BTreeMap::new());

    far.shutdown().unwrap();
    for _ in 0..2 {
        assert_eq!(ready(&poller, LONG), only(4, Readiness::READABLE));
        assert!(near.recv().unwrap().is_none(), "the end");
    }
    drop(near);
    assert_eq!(ready(&poller, SHORT), BTreeMap::new());
    let foreign = Datagram::open(&host.attach(), Kind::Rdm).unwrap();
    let refused = poller.add(&foreign, 5, Readiness::READABLE);
    assert!(matches!(refused, Err(Error::ForeignSocket)));
}

#[test]
fn a_connection_is_writable_again_when_its_peer_has_read() {
    let host = Host::start();
    let node = host.attach();
    let (near, far, _) = host.connect(&node, ConnectionKind::Seqpacket, SERVICE);
    let poller = Poller::new(&node);
    poller.add(&near, 7, Readiness::WRITABLE).unwrap();
    assert_eq!(ready(&poller, LONG), only(7, Readiness::WRITABLE));
    while near.try_send(&[1; 60_000]).is_ok() {}
    assert_eq!(ready(&poller, SHORT), BTreeMap::new());
    thread::scope(|s| {
        let reader = s.spawn(|| {
            thread::sleep(SHORT);
            for _ in 0..3 {
                far.recv().unwrap().unwrap();
            }
            Instant::now()
        });
        assert_eq!(ready(&poller, LONG), only(7, Readiness::WRITABLE));
        // Nothing else wakes the daemon before it looks after its bearers, once in a second.
        let woken = Instant::now();
        let took = woken.saturating_duration_since(reader.join().unwrap());
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
    near.try_send(b"again").unwrap();
    // Room that is owed for what was read is there before the end.
    far.recv().unwrap().unwrap();
    while near.try_send(&[1; 60_000]).is_ok() {}
    drop(far);
    assert_eq!(ready(&poller, LONG), only(7, Readiness::WRITABLE));
    assert!(near.try_send(b"in vain").is_err());
}

#[test]
fn a_poller_and_a_receiver_that_spin_find_what_comes() {
    let host = Host::start();
    let node = host.attach();
    let socket = Datagram::open(&node, Kind::Rdm).unwrap();
    let to = socket.local_addr().unwrap();
    let poller = Poller::new(&node);
    poller.add(&socket, 1, Readiness::READABLE).unwrap();
    let other = host.attach();
    thread::scope(|s| {
        s.spawn(move || {
            let sender = Datagram::open(&other, Kind::Rdm).unwrap();
            for _ in 0..20 {
                thread::sleep(Duration::from_millis(5));
                sender.send_to(b"x", to).unwrap();
            }
        });
        for spin in [LONG, Duration::MAX].repeat(5) {
            poller.set_spin(spin);
            assert_eq!(ready(&poller, LONG), only(1, Readiness::READABLE));
            socket.try_recv().unwrap();
            socket.recv_spin(Instant::now() + LONG).unwrap();
        }
    });
    let began = Instant::now();
    let nothing = socket.recv_spin(began + SHORT);
    assert!(matches!(nothing, Err(Error::TimedOut)));
    assert!(began.elapsed() >= SHORT);
}

#[test]
fn sockets_of_the_c_interface_are_waited_for_too() {
    let host = Host::start();
    let (node, other) = (host.attach(), host.attach());
    let poller = Poller::new(&node);
    let listener = Socket::open(&node, libc::SOCK_SEQPACKET, 0).unwrap();
    listener.set_nonblocking(true);
    listener.listen(0).unwrap();
    poller.add(&listener, 1, Readiness::READABLE).unwrap();
    assert!(ready(&poller, SHORT).is_empty());
    let client = Socket::open(&other, libc::SOCK_SEQPACKET, 0).unwrap();
    client.set_nonblocking(true);
    let address = listener.local_address().unwrap().to_bytes();
    assert_eq!(client.connect(&address).unwrap_err().0, libc::EINPROGRESS);
    assert_eq!(ready(&poller, LONG), only(1, Readiness::READABLE));
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true);
    assert_eq!(listener.accept().unwrap_err().0, libc::EAGAIN);
    assert!(ready(&poller, SHORT).is_empty());
    let both = Readiness::READABLE | Readiness::WRITABLE;
    poller.add(&server, 2, both).unwrap();
    assert_eq!(ready(&poller, LONG), only(2, Readiness::WRITABLE));
    while server.send(&[1; 1000], 0, None).is_ok() {}
    assert_eq!(server.poll(), Ok(0));
    assert!(ready(&poller, SHORT).is_empty());
    let mut data = [0; 1000];
    for _ in 0..40 {
        let control = None;
        let room = ReceiveRoom {
            data: &mut data,
            control,
        };
        client.receive(room, 0).unwrap();
    }
    assert_eq!(ready(&poller, LONG), only(2, Readiness::WRITABLE));
    drop(client);
    poller.add(&server, 2, Readiness::READABLE).unwrap();
    assert_eq!(ready(&poller, LONG), only(2, Readiness::READABLE));
    let over = libc::POLLIN | libc::POLLRDNORM | libc::POLLHUP;
    assert_eq!(server.poll(), Ok(over));
}
