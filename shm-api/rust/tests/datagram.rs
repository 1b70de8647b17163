//! Datagram sockets against a daemon in a thread.

mod fake;

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use fake::{CONGESTED, FakeDaemon, MADDENING, NODE, OVERLOADED};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xtipc::{
    Datagram, DestinationName, Error, Importance, Kind, MESSAGE_LEN_MAX, Node, Rejection, Scope,
    ServiceAddress, ServiceRange, SocketAddress,
};
use xtipc_segment::attach::{self, Message};
use xtipc_segment::layout::{Sizes, VERSION};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 1000,
    instance: 1,
};
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

fn attach(daemon: &FakeDaemon) -> Node {
    Node::builder()
        .socket_path(&daemon.path)
        .attach()
        .expect("the fake daemon lets everybody in")
}

fn open(node: &Node) -> Datagram {
    let socket = Datagram::open(node, Kind::Rdm).expect("open");
    // Tests fail rather than hang.
    socket.set_read_timeout(Some(LONG));
    socket.set_write_timeout(Some(LONG));
    socket
}

fn bound(node: &Node, service: ServiceAddress) -> Datagram {
    let socket = open(node);
    socket.bind(service, Scope::Cluster).expect("bind");
    socket
}

fn readable(socket: &Datagram, timeout: Duration) -> bool {
    let fd = socket.as_fd().expect("pollable");
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec::try_from(timeout).expect("short");
    poll(&mut fds, Some(&timeout)).expect("poll") == 1
}

#[test]
fn everything_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Node>();
    shared::<Datagram>();
    shared::<xtipc::Message>();
    shared::<Error>();
}

#[test]
fn a_message_by_service_address_is_answered_by_socket_address() {
    let daemon = FakeDaemon::start();
    let (server_node, client_node) = (attach(&daemon), attach(&daemon));
    assert_eq!(client_node.address(), NODE);
    assert_eq!(&client_node.identity(), b"fake daemon node");
    let server = bound(&server_node, SERVICE);
    let client = open(&client_node);
    client.set_importance(Importance::High).expect("option");

    client.send_to(b"hello", SERVICE).expect("send");
    let request = server.recv().expect("recv");
    assert_eq!(&*request, b"hello");
    assert_eq!(request.destination(), DestinationName::Service(SERVICE));
    assert_eq!(request.importance(), Importance::High);
    assert_eq!(request.error(), None);
    assert_eq!(request.source(), client.local_addr().expect("name"));
    server.connect(request.source()).expect("connect");
    server.send(b"hello yourself").expect("send");
    let answer = client.recv().expect("recv");
    assert_eq!(&*answer, b"hello yourself");
    assert_eq!(answer.destination(), DestinationName::None);
}

#[test]
fn multicast_reaches_every_binding_in_the_range() {
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let sockets: Vec<_> = (0..4)
        .map(|instance| {
            bound(
                &node,
                ServiceAddress {
                    type_: 1000,
                    instance,
                },
            )
        })
        .collect();
    let range = ServiceRange {
        type_: 1000,
        lower: 1,
        upper: 2,
    };
    sockets[0].send_to(b"all", range).expect("send");
    for socket in &sockets[1..3] {
        let message = socket.recv().expect("in the range");
        assert_eq!(message.destination(), DestinationName::Multicast(range));
    }
    assert!(matches!(
        sockets[3].recv_timeout(SHORT),
        Err(Error::TimedOut)
    ));
}

#[test]
fn the_longest_message_arrives_whole_and_a_longer_one_is_refused() {
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let server = bound(&node, SERVICE);
    let payload: Vec<u8> = (0..=MESSAGE_LEN_MAX).map(|i| (i % 251) as u8).collect();
    server
        .send_to(&payload[..MESSAGE_LEN_MAX], SERVICE)
        .expect("send");
    assert_eq!(*server.recv().expect("recv"), payload[..MESSAGE_LEN_MAX]);
    let error = server.send_to(&payload, SERVICE).expect_err("too long");
    assert!(matches!(
        error,
        Error::MessageTooLong {
            len: 66_001,
            max: 66_000
        }
    ));
    assert_eq!(error.errno(), libc::EMSGSIZE);
}

#[test]
fn an_empty_message_is_thrown_away_by_its_receiver() {
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let server = bound(&node, SERVICE);
    server.send_to(b"", SERVICE).expect("legal to send");
    server.send_to(b"x", SERVICE).expect("send");
    assert_eq!(&*server.recv().expect("recv"), b"x");
}

#[test]
fn errors_name_what_was_wrong() {
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let socket = open(&node);
    let error = socket.send_to(b"x", SERVICE).expect_err("nobody is bound");
    assert!(error.to_string().contains("1000:1"), "{error}");
    assert_eq!(error.errno(), libc::EHOSTUNREACH);
    assert!(matches!(socket.send(b"x"), Err(Error::NoDestination)));
    let backwards = ServiceRange {
        type_: 1000,
        lower: 2,
        upper: 1,
    };
    assert!(matches!(
        socket.bind(backwards, Scope::Node),
        Err(Error::InvalidRange(_))
    ));
    assert!(matches!(
        socket.send_to(b"x", backwards),
        Err(Error::InvalidRange(_))
    ));
    let reserved = ServiceAddress {
        type_: 63,
        instance: 0,
    };
    let error = socket.bind(reserved, Scope::Node).expect_err("reserved");
    assert_eq!(error.errno(), libc::EACCES);

    socket.bind(SERVICE, Scope::Node).expect("bind");
    assert!(matches!(
        socket.unbind(SERVICE, Scope::Cluster),
        Err(Error::NotBound(_))
    ));
    socket.unbind(SERVICE, Scope::Node).expect("unbind");
    socket.bind(SERVICE, Scope::Node).expect("bind again");
    socket.unbind_all().expect("unbind");
    assert!(matches!(
        socket.send_to(b"x", SERVICE),
        Err(Error::Unreachable { .. })
    ));
    socket.connect(SERVICE).expect("no look-up");
    assert!(matches!(socket.send(b"x"), Err(Error::DefaultUnreachable)));
    socket.disconnect().expect("clear");
    assert!(matches!(socket.send(b"x"), Err(Error::NoDestination)));
}

#[test]
fn without_a_daemon_the_error_names_the_path() {
    let error = Node::builder()
        .instance("no-such-instance")
        .attach()
        .expect_err("nobody there");
    assert!(matches!(error, Error::NoDaemon { .. }));
    let text = error.to_string();
    assert!(
        text.contains("/run/xtipc/no-such-instance/attach.sock"),
        "{text}"
    );
}

/// A listener that gives one answer and closes, at times before it was asked.
fn refusing(answer: Message) -> Error {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("attach.sock");
    let listener = attach::listen(&path).expect("listen");
    rustix::io::ioctl_fionbio(&listener, false).expect("blocking");
    let thread = thread::spawn(move || {
        let socket = attach::accept(listener.as_fd()).expect("accept");
        attach::send_message(socket.as_fd(), &answer, &[]).expect("answer");
        let _ = attach::receive_message(socket.as_fd());
    });
    let error = Node::builder()
        .socket_path(&path)
        .attach()
        .expect_err("refused");
    thread.join().expect("no panic");
    error
}

#[test]
fn a_refusal_carries_the_reason_and_a_version_mismatch_both_versions() {
    let error = refusing(Message::Refused {
        version: VERSION,
        reason: "uid 7 may not attach".to_owned(),
    });
    assert_eq!(
        error.to_string(),
        "the daemon refused: uid 7 may not attach"
    );
    let error = refusing(Message::Refused {
        version: VERSION + 1,
        reason: String::new(),
    });
    assert!(matches!(
        error,
        Error::VersionMismatch {
            library: VERSION,
            daemon
        } if daemon == VERSION + 1
    ));
    let error = refusing(Message::Watch { socket: 1 });
    assert!(error.to_string().contains("unexpected"), "{error}");
}

#[test]
fn a_listener_of_another_kind_is_no_daemon() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("stream.sock");
    let _listener = UnixListener::bind(&path).expect("listen");
    let error = Node::builder()
        .socket_path(&path)
        .attach()
        .expect_err("a stream");
    assert!(matches!(error, Error::NoDaemon { .. }));
}

#[test]
fn a_receive_that_may_not_wait_says_so() {
    let daemon = FakeDaemon::start();
    let socket = open(&attach(&daemon));
    assert!(matches!(socket.try_recv(), Err(Error::WouldBlock)));
    let start = Instant::now();
    assert!(matches!(socket.recv_timeout(SHORT), Err(Error::TimedOut)));
    assert!(start.elapsed() >= SHORT);
    socket.set_read_timeout(Some(SHORT));
    assert!(matches!(socket.recv(), Err(Error::TimedOut)));
    socket.set_nonblocking(true);
    assert!(matches!(socket.recv(), Err(Error::WouldBlock)));
}

#[test]
fn a_receiver_that_sleeps_is_woken() {
    let daemon = FakeDaemon::start();
    let server = bound(&attach(&daemon), SERVICE);
    let client = open(&attach(&daemon));
    thread::scope(|scope| {
        let receiver = scope.spawn(|| server.recv().map(|message| message.to_vec()));
        thread::sleep(SHORT);
        client.send_to(b"wake up", SERVICE).expect("send");
        assert_eq!(
            receiver.join().expect("no panic").expect("recv"),
            b"wake up"
        );
    });
}

#[test]
fn a_congested_send_waits_gives_up_or_says_that_it_would_wait() {
    let daemon = FakeDaemon::start();
    let socket = open(&attach(&daemon));
    let congested = ServiceAddress {
        type_: CONGESTED,
        instance: 0,
    };
    thread::scope(|scope| {
        let sender = scope.spawn(|| socket.send_to(b"x", congested));
        while daemon.shared.held.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(SHORT);
        assert!(!sender.is_finished());
        daemon.relieve();
        sender.join().expect("no panic").expect("sent at last");
    });
    socket.set_write_timeout(Some(SHORT));
    assert!(matches!(
        socket.send_to(b"x", congested),
        Err(Error::TimedOut)
    ));
    socket.set_nonblocking(true);
    assert!(matches!(
        socket.send_to(b"x", congested),
        Err(Error::WouldBlock)
    ));
}

#[test]
fn a_rejected_message_comes_back_only_if_asked_for() {
    let daemon = FakeDaemon::start();
    let socket = open(&attach(&daemon));
    let overloaded = ServiceAddress {
        type_: OVERLOADED,
        instance: 0,
    };
    socket.send_to(b"dropped", overloaded).expect("send");
    socket.set_dest_droppable(false).expect("option");
    socket.set_src_droppable(true).expect("option");
    socket.set_receive_buffer(1 << 20).expect("option");
    socket.send_to(b"returned", overloaded).expect("send");
    let message = socket.recv().expect("it comes back");
    assert_eq!(message.error(), Some(Rejection::Overload));
    assert_eq!(&*message, b"returned");
    assert_eq!(message.destination(), DestinationName::Service(overloaded));
}

#[test]
fn posts_stay_in_order_and_flush_reports_the_first_failure() {
    let daemon = FakeDaemon::start();
    let server_node = attach(&daemon);
    let server = bound(&server_node, SERVICE);
    let client = open(&attach(&daemon));
    const COUNT: u32 = 20_000;
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..COUNT {
                client.post_to(&n.to_ne_bytes(), SERVICE).expect("post");
            }
            client.flush().expect("all taken");
        });
        for n in 0..COUNT {
            assert_eq!(*server.recv().expect("recv"), n.to_ne_bytes());
        }
    });
    let nobody = ServiceAddress {
        type_: 1001,
        instance: 7,
    };
    client.post_to(b"x", nobody).expect("post");
    client.post_to(b"x", SERVICE).expect("post");
    let error = client.flush().expect_err("nobody is bound");
    assert!(error.to_string().contains("1001:7"), "{error}");
    client.flush().expect("reported once");
}

#[test]
fn batches_stay_in_order_and_take_what_there_is_room_for() {
    let daemon = FakeDaemon::with_sizes(Sizes {
        submissions: 16,
        deliveries: 16,
        ..Sizes::default()
    });
    let server_node = attach(&daemon);
    let server = bound(&server_node, SERVICE);
    let client = open(&attach(&daemon));
    let numbers: Vec<_> = (0..5_000u32).map(u32::to_ne_bytes).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rest = &numbers[..];
            while !rest.is_empty() {
                let posted = client.post_many(rest, SERVICE).expect("post");
                assert!((1..=32).contains(&posted), "{posted}");
                rest = &rest[posted..];
            }
            client.flush().expect("all taken");
        });
        let mut messages = Vec::new();
        let mut received = 0;
        while received < numbers.len() {
            let count = server.recv_many(&mut messages, 7).expect("recv");
            assert_eq!(messages.len(), count);
            assert!((1..=7).contains(&count), "{count}");
            for message in messages.drain(..) {
                assert_eq!(*message, numbers[received]);
                received += 1;
            }
        }
    });
    assert_eq!(client.post_many::<&[u8]>(&[], SERVICE).expect("none"), 0);
    server.set_nonblocking(true);
    let nothing = server.recv_many(&mut Vec::new(), 7);
    assert!(matches!(nothing, Err(Error::WouldBlock)), "{nothing:?}");
    let long = vec![0; MESSAGE_LEN_MAX + 1];
    let refused = client.post_many(&[&b"short"[..], &long], SERVICE);
    assert!(matches!(refused, Err(Error::MessageTooLong { .. })));
    assert!(server.recv_many(&mut Vec::new(), 7).is_err(), "all or none");
}

#[test]
fn payloads_of_all_sizes_survive_a_small_segment() {
    let daemon = FakeDaemon::with_sizes(Sizes {
        submissions: 4,
        deliveries: 4,
        submission_arena: 128 << 10,
        delivery_arena: 128 << 10,
    });
    let server = bound(&attach(&daemon), SERVICE);
    let client_node = attach(&daemon);
    const COUNT: usize = 300;
    let len = |n: usize| 1 + n * 7919 % MESSAGE_LEN_MAX;
    thread::scope(|scope| {
        scope.spawn(|| {
            let client = open(&client_node);
            for n in 0..COUNT {
                client
                    .post_to(&vec![n as u8; len(n)], SERVICE)
                    .expect("post");
            }
            client.flush().expect("all taken");
        });
        for n in 0..COUNT {
            let message = server.recv().expect("recv");
            assert_eq!(message.len(), len(n));
            assert!(message.iter().all(|byte| *byte == n as u8));
        }
    });
}

#[test]
fn guards_go_in_any_order_and_held_memory_holds_messages_back() {
    let daemon = FakeDaemon::with_sizes(Sizes {
        deliveries: 16,
        ..Sizes::default()
    });
    let server = bound(&attach(&daemon), SERVICE);
    let client = open(&attach(&daemon));
    for n in 0..40u8 {
        client.send_to(&[n; 100], SERVICE).expect("send");
    }
    let mut held: Vec<_> = (0..16).map(|_| server.recv().expect("recv")).collect();
    assert!(daemon.shared.postponed.load(Ordering::SeqCst) >= 24);
    assert!(matches!(server.recv_timeout(SHORT), Err(Error::TimedOut)));
    let mut next = 16;
    while next < 40 {
        // From the middle, so that the order of return is neither first nor last first.
        drop(held.remove(held.len() / 2));
        let message = server.recv().expect("room was made");
        assert_eq!(*message, [next; 100]);
        held.push(message);
        next += 1;
    }
    for message in &held {
        assert!(
            message.iter().all(|byte| *byte == message[0]),
            "still intact"
        );
    }
    drop(held);
    client.send_to(b"last", SERVICE).expect("send");
    assert_eq!(&*server.recv().expect("recv"), b"last");
    // One notice for each: consumed by recv, not by the drop.
    while daemon.shared.consumed.load(Ordering::SeqCst) < 41 {
        client.local_addr().expect("a round of the daemon");
    }
}

#[test]
fn held_short_messages_hold_no_memory() {
    let daemon = FakeDaemon::with_sizes(Sizes {
        deliveries: 16,
        ..Sizes::default()
    });
    let server = bound(&attach(&daemon), SERVICE);
    let client = open(&attach(&daemon));
    let messages: Vec<[u8; 64]> = (0..60).map(|n| [n; 64]).collect();
    assert_eq!(client.post_many(&messages, SERVICE).expect("post"), 60);
    client.flush().expect("sent");
    let mut held: Vec<_> = (0..20).map(|_| server.recv().expect("recv")).collect();
    while held.len() < 60 {
        server.recv_many(&mut held, 7).expect("recv");
    }
    for (message, sent) in held.iter().zip(&messages) {
        assert_eq!(**message, *sent);
    }
    // One notice for each.
    while daemon.shared.consumed.load(Ordering::SeqCst) < 60 {
        client.local_addr().expect("a round of the daemon");
    }
}

#[test]
fn messages_of_several_sockets_come_in_order_however_they_are_received() {
    const COUNT: usize = 200;
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let other = ServiceAddress {
        instance: 2,
        ..SERVICE
    };
    let sockets = [bound(&node, SERVICE), bound(&node, other)];
    let client = open(&attach(&daemon));
    let mut expected = [Vec::new(), Vec::new()];
    for n in 0..COUNT {
        let message = vec![n as u8; [3, 64, 65, 0, 300, 1, 64, 2][n % 8]];
        let to = (n / 5) % 2;
        let sent = client.send_to(&message, [SERVICE, other][to]);
        sent.expect("send");
        if !message.is_empty() {
            expected[to].push(message);
        }
    }
    let mut received = [Vec::new(), Vec::new()];
    for step in 0.. {
        let at = step % 2;
        let (socket, received) = (&sockets[at], &mut received[at]);
        if received.len() < expected[at].len() {
            match step % 3 {
                0 => received.push(socket.recv().expect("recv")),
                1 => received.push(socket.try_recv().expect("it is there")),
                _ => drop(socket.recv_many(received, 4).expect("recv")),
            }
        } else if step > 2 * COUNT {
            break;
        }
    }
    for (received, expected) in received.iter().zip(&expected) {
        let bytes: Vec<_> = received.iter().map(|message| message.to_vec()).collect();
        assert_eq!(bytes, *expected);
    }
    // One notice for each, also for what nobody sees.
    while daemon.shared.consumed.load(Ordering::SeqCst) < COUNT {
        client.local_addr().expect("a round of the daemon");
    }
    assert_eq!(daemon.shared.consumed.load(Ordering::SeqCst), COUNT);
}

#[test]
fn a_closed_socket_leaves_its_messages_unread() {
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let server = bound(&node, SERVICE);
    let client = open(&node);
    for payload in [b"read", b"no 1", b"no 2"] {
        client.send_to(payload, SERVICE).expect("send");
    }
    let message = server.recv().expect("recv");
    drop(server);
    client.local_addr().expect("a round of the daemon");
    assert_eq!(&*message, b"read", "a guard outlives its socket");
    let unread = daemon.shared.unread.lock().expect("lock").clone();
    assert_eq!(unread, [b"no 1".to_vec(), b"no 2".to_vec()]);
    let error = client.send_to(b"x", SERVICE).expect_err("closed");
    assert_eq!(error.errno(), libc::EHOSTUNREACH);
}

#[test]
fn threads_use_sockets_of_one_attachment_at_once() {
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    const THREADS: u32 = 6;
    const ROUNDS: u32 = 500;
    thread::scope(|scope| {
        for instance in 0..THREADS {
            let node = &node;
            scope.spawn(move || {
                let address = ServiceAddress {
                    type_: 2000,
                    instance,
                };
                let socket = bound(node, address);
                for round in 0..ROUNDS {
                    let payload = [instance, round].map(u32::to_ne_bytes).concat();
                    socket.send_to(&payload, address).expect("send");
                    assert_eq!(*socket.recv().expect("own message"), payload[..]);
                    // Sleep now and then, so that the driver changes in every way.
                    if round % 97 == instance {
                        assert!(socket.recv_timeout(Duration::from_micros(300)).is_err());
                    }
                }
            });
        }
    });
}

#[test]
fn threads_that_share_a_socket_get_each_message_once() {
    let daemon = FakeDaemon::start();
    let server = bound(&attach(&daemon), SERVICE);
    let client = open(&attach(&daemon));
    const COUNT: u32 = 4000;
    let mut all: Vec<u32> = thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    loop {
                        let message = server.recv().expect("recv");
                        let Ok(number) = <[u8; 4]>::try_from(&*message) else {
                            return seen;
                        };
                        seen.push(u32::from_ne_bytes(number));
                    }
                })
            })
            .collect();
        for number in 0..COUNT {
            client
                .send_to(&number.to_ne_bytes(), SERVICE)
                .expect("send");
        }
        for _ in 0..4 {
            client.send_to(b"end", SERVICE).expect("send");
        }
        readers
            .into_iter()
            .flat_map(|reader| reader.join().expect("no panic"))
            .collect()
    });
    all.sort_unstable();
    assert_eq!(all, (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn the_descriptor_is_readable_while_messages_wait() {
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let server = bound(&node, SERVICE);
    let client = open(&node);
    client.send_to(b"before", SERVICE).expect("send");
    assert!(
        readable(&server, LONG),
        "messages queued before it was asked for"
    );
    assert_eq!(&*server.recv().expect("recv"), b"before");
    assert!(!readable(&server, SHORT));
    for _ in 0..3 {
        client.send_to(b"after", SERVICE).expect("send");
    }
    for _ in 0..3 {
        assert!(readable(&server, LONG));
        assert_eq!(&*server.try_recv().expect("it was readable"), b"after");
    }
    while readable(&server, SHORT) {
        assert!(matches!(server.try_recv(), Err(Error::WouldBlock)));
    }
}

#[test]
fn a_receiver_that_only_polls_misses_nothing() {
    let daemon = FakeDaemon::start();
    let server_node = attach(&daemon);
    let server = bound(&server_node, SERVICE);
    let client = open(&attach(&daemon));
    const COUNT: u32 = 3000;
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                client
                    .send_to(&number.to_ne_bytes(), SERVICE)
                    .expect("send");
                if number % 50 == 0 {
                    thread::sleep(Duration::from_micros(200));
                }
            }
        });
        // Another thread dispatches for the same attachment meanwhile.
        let other = open(&server_node);
        scope.spawn(move || {
            for _ in 0..200 {
                let _ = other.recv_timeout(Duration::from_millis(1));
            }
        });
        let mut expected = 0u32;
        while expected < COUNT {
            assert!(readable(&server, LONG), "nothing came after {expected}");
            // One per poll: the worst case for a descriptor that was cleared too early.
            if let Ok(message) = server.try_recv() {
                assert_eq!(*message, expected.to_ne_bytes());
                expected += 1;
            }
        }
    });
}

#[test]
fn the_death_of_the_daemon_is_seen_by_everybody() {
    let mut daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let sockets: Vec<_> = (0..3).map(|_| Arc::new(open(&node))).collect();
    let watched = open(&node);
    assert!(!readable(&watched, Duration::ZERO));
    let alone = open(&attach(&daemon));
    let waiting: Vec<_> = sockets
        .iter()
        .map(|socket| {
            let socket = Arc::clone(socket);
            thread::spawn(move || socket.recv().map(|_| ()))
        })
        .collect();
    thread::sleep(SHORT);
    daemon.kill();
    for thread in waiting {
        assert!(matches!(
            thread.join().expect("no panic"),
            Err(Error::NodeGone)
        ));
    }
    assert!(readable(&watched, LONG));
    assert!(matches!(watched.try_recv(), Err(Error::NodeGone)));
    assert!(matches!(
        sockets[0].send_to(b"x", SERVICE),
        Err(Error::NodeGone)
    ));
    let start = Instant::now();
    while !matches!(alone.try_recv(), Err(Error::NodeGone)) {
        assert!(start.elapsed() < LONG, "try_recv never noticed");
    }
}

#[test]
fn an_answer_to_nothing_ends_the_attachment_for_all_its_threads() {
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let (sender, receiver) = (open(&node), open(&node));
    let maddening = ServiceAddress {
        type_: MADDENING,
        instance: 0,
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| receiver.recv().map(|_| ()));
        thread::sleep(SHORT);
        let error = sender.send_to(b"x", maddening).expect_err("corrupted");
        assert!(matches!(error, Error::Corrupted(_)), "{error}");
        let error = waiting.join().expect("no panic").expect_err("corrupted");
        assert!(matches!(error, Error::Corrupted(_)), "{error}");
    });
    // The daemon saw it end, and serves others.
    let other = bound(&attach(&daemon), SERVICE);
    other.send_to(b"x", SERVICE).expect("send");
}

#[test]
fn a_forked_child_is_told_to_attach_itself() {
    let daemon = FakeDaemon::start();
    let node = attach(&daemon);
    let socket = bound(&node, SERVICE);
    socket.send_to(b"x", SERVICE).expect("send");
    let message = socket.recv().expect("recv");
    // SAFETY: the child uses no lock of the parent but the allocator's, which glibc keeps usable, and ends by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(socket.send_to(b"x", SERVICE), Err(Error::Forked))
            && matches!(socket.recv(), Err(Error::Forked))
            && matches!(Datagram::open(&node, Kind::Rdm), Err(Error::Forked));
        drop((message, socket, node));
        let own = Node::builder().socket_path(&daemon.path).attach();
        let sent = own
            .and_then(|own| Datagram::open(&own, Kind::Rdm))
            .and_then(|own| own.send_to(b"from the child", SERVICE));
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(i32::from(!(refused && sent.is_ok()))) };
    }
    assert!(child > 0, "fork");
    let from_child = socket.recv().expect("the child attached itself");
    assert_eq!(&*from_child, b"from the child");
    let mut status = 0;
    // SAFETY: waits for the child made above.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    assert_eq!(&*message, b"x", "the parent's guard is intact");
    drop(message);
    let nobody = SocketAddress {
        port: 1,
        node: NODE,
    };
    socket.send_to(b"x", nobody).expect("the parent goes on");
}
