//! A node inside the process of its application (`xtipc::EmbeddedNode`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use xtipc::{
    Datagram, EmbeddedNode, Error, EventKind, Kind, Node, Poller, Readiness, Scope, ServiceAddress,
    ServiceRange, Subscriber, Subscription,
};
use xtipc_management::{Client, LinkFilter};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 5000,
    instance: 1,
};
const PATIENCE: Duration = Duration::from_secs(10);

/// A node without bearers and the directory of its control socket.
struct Own {
    node: EmbeddedNode,
    directory: tempfile::TempDir,
}

impl Own {
    fn start(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = EmbeddedNode::start(&settings(&directory, policy)).unwrap();
        Self { node, directory }
    }

    fn attach(&self) -> Node {
        self.node.attach().unwrap()
    }

    fn tool(&self) -> Client {
        Client::connect(&self.directory.path().join("control.sock")).unwrap()
    }
}

/// Two nodes that share memory, and its directory.
fn two_nodes() -> (tempfile::TempDir, [Own; 2]) {
    let wire = tempfile::tempdir().unwrap();
    let nodes = ["here", "there"].map(|name| {
        let directory = tempfile::tempdir().unwrap();
        let settings = format!(
            "identity = \"{name}\"\nrun_dir = \"{}\"\nbearer = [\"shm:wire,dir={}\"]\n",
            directory.path().display(),
            wire.path().display()
        );
        let node = EmbeddedNode::start(&settings).unwrap();
        Own { node, directory }
    });
    (wire, nodes)
}

/// Returns once a socket is bound to the service.
fn await_service(node: &Node) {
    let subscriber = Subscriber::open(node).unwrap();
    let wanted = Subscription::bindings(SERVICE);
    subscriber.subscribe(&wanted).unwrap();
    subscriber.recv().unwrap();
}

fn settings(directory: &tempfile::TempDir, policy: &str) -> String {
    let run_dir = directory.path().display();
    format!("identity = \"own\"\nrun_dir = \"{run_dir}\"\npolicy = \"{policy}\"\n")
}

fn server(node: &Node) -> Datagram {
    let socket = Datagram::open(node, Kind::Rdm).unwrap();
    socket.bind(SERVICE, Scope::Cluster).unwrap();
    socket
}

#[test]
fn one_thread_sends_and_receives_with_every_policy() {
    for policy in ["adaptive", "sleep", "busy"] {
        let own = Own::start(policy);
        let node = own.attach();
        let (server, client) = (server(&node), Datagram::open(&node, Kind::Rdm).unwrap());
        for number in 0..1000_u32 {
            client.post_to(&number.to_ne_bytes(), SERVICE).unwrap();
            let request = server.recv().unwrap();
            assert_eq!(*request, number.to_ne_bytes());
            server.send_to(b"done", request.source()).unwrap();
            assert_eq!(*client.recv().unwrap(), *b"done");
        }
        assert!(matches!(client.try_recv(), Err(Error::WouldBlock)));
        assert!(matches!(
            client.recv_timeout(Duration::from_millis(20)),
            Err(Error::TimedOut)
        ));
    }
}

#[test]
fn a_call_that_does_not_wait_takes_in_what_has_come() {
    let own = Own::start("adaptive");
    let node = own.attach();
    let (server, client) = (server(&node), Datagram::open(&node, Kind::Rdm).unwrap());
    for number in 0..1000_u32 {
        client.post_to(&number.to_ne_bytes(), SERVICE).unwrap();
        assert_eq!(*server.try_recv().unwrap(), number.to_ne_bytes());
    }
    client.post_to(b"x", SERVICE).unwrap();
    let until = Instant::now() + PATIENCE;
    assert_eq!(*server.recv_spin(until).unwrap(), *b"x");
}

#[test]
fn threads_that_do_not_make_the_rounds_get_what_is_theirs() {
    const MESSAGES: u32 = 2000;
    let own = Own::start("adaptive");
    let received = AtomicU32::new(0);
    thread::scope(|scope| {
        // Each with an attachment of its own; the last two share one.
        let shared = own.attach();
        for (instance, node) in (0..).zip([own.attach(), own.attach(), shared.clone(), shared]) {
            let received = &received;
            let here = ServiceAddress {
                type_: 5001,
                instance,
            };
            let socket = Datagram::open(&node, Kind::Rdm).unwrap();
            socket.bind(here, Scope::Cluster).unwrap();
            scope.spawn(move || {
                for _ in 0..MESSAGES {
                    let message = socket.recv_timeout(PATIENCE).unwrap();
                    received.fetch_add(1, Ordering::Relaxed);
                    socket.post_to(&message, message.source()).unwrap();
                }
            });
        }
        let node = own.attach();
        let client = Datagram::open(&node, Kind::Rdm).unwrap();
        for _ in 0..MESSAGES {
            for instance in 0..4 {
                client
                    .post_to(
                        b"hello",
                        ServiceAddress {
                            type_: 5001,
                            instance,
                        },
                    )
                    .unwrap();
            }
            for _ in 0..4 {
                client.recv_timeout(PATIENCE).unwrap();
            }
        }
    });
    assert_eq!(received.into_inner(), 4 * MESSAGES);
}

/// The server finds the worker with a thread on its own processor, so it does not spin. While it asks for the worker it has let go of
/// the lock of the attachment that it shares with the client, which dispatches for both.
#[test]
fn what_a_thread_dispatches_for_another_of_its_attachment_is_heard_of() {
    const MESSAGES: u32 = 10_000;
    let own = Own::start("sleep");
    let shared = own.attach();
    let (server, client) = (server(&shared), Datagram::open(&shared, Kind::Rdm).unwrap());
    let end = ServiceAddress {
        type_: 5003,
        instance: 1,
    };
    let maker = Datagram::open(&own.attach(), Kind::Rdm).unwrap();
    maker.bind(end, Scope::Cluster).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(0);
            maker.recv_timeout(60 * PATIENCE).unwrap();
        });
        scope.spawn(|| {
            stay_on(0);
            for _ in 0..MESSAGES {
                let message = server.recv_timeout(2 * PATIENCE).unwrap();
                server.post_to(b"done", message.source()).unwrap();
            }
        });
        stay_on(1);
        for _ in 0..MESSAGES {
            client.post_to(b"hello", SERVICE).unwrap();
            let until = Instant::now() + PATIENCE;
            while let Err(error) = client.try_recv() {
                assert!(matches!(error, Error::WouldBlock), "{error}");
                assert!(Instant::now() < until, "the server sleeps");
            }
        }
        client.post_to(b"end", end).unwrap();
    });
}

/// Keeps the calling thread on one of the processors it may use: the first, or the next where there is one.
fn stay_on(number: usize) {
    let allowed = sched_getaffinity(None).unwrap();
    let processors: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|&processor| allowed.is_set(processor))
        .collect();
    let mut one = CpuSet::new();
    one.set(processors[number % processors.len()]);
    sched_setaffinity(None, &one).unwrap();
}

fn number_of(message: &[u8]) -> u32 {
    u32::from_ne_bytes(*message.first_chunk().unwrap())
}

/// More at once than the link takes before it hears from the other node: posts then go by the ring, and by turns with the direct
/// way once there is room.
#[test]
fn what_is_posted_over_a_full_link_arrives_in_order_and_complete() {
    const MESSAGES: u32 = 3000;
    const SOME: u32 = 1000;
    let (_wire, [here, there]) = two_nodes();
    let (own, other) = (here.attach(), there.attach());
    let server = server(&other);
    server.set_receive_buffer(16 << 20).unwrap();
    await_service(&own);
    let client = Datagram::open(&own, Kind::Rdm).unwrap();

    let mut payload = [7; 1000];
    let mut posted = 0;
    while posted < MESSAGES {
        let several: Vec<_> = (posted..MESSAGES.min(posted + SOME))
            .map(|number| {
                payload[..4].copy_from_slice(&number.to_ne_bytes());
                payload
            })
            .collect();
        posted += client.post_many(&several, SERVICE).unwrap() as u32;
        if posted < MESSAGES {
            payload[..4].copy_from_slice(&posted.to_ne_bytes());
            client.post_to(&payload, SERVICE).unwrap();
            posted += 1;
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| client.flush().unwrap());
        for number in 0..MESSAGES {
            let message = server.recv_timeout(PATIENCE).unwrap();
            assert_eq!((number_of(&message), message.len()), (number, 1000));
        }
    });
    let links = here.tool().link_statistics(LinkFilter::Usual).unwrap();
    let congested = links.iter().map(|link| link.statistics.link_congestions);
    assert!(congested.sum::<u32>() > 0, "the link was never full");
}

#[test]
fn flush_tells_the_first_failure_of_what_was_posted() {
    let own = Own::start("adaptive");
    let node = own.attach();
    let (server, client) = (server(&node), Datagram::open(&node, Kind::Rdm).unwrap());
    let nobody = |instance| ServiceAddress {
        type_: 5002,
        instance,
    };
    client.post_to(b"x", nobody(1)).unwrap();
    assert_eq!(client.post_many(&[b"x"; 100], nobody(2)).unwrap(), 100);
    client.post_to(b"y", SERVICE).unwrap();
    let said = client.flush().unwrap_err();
    let destination = nobody(1).into();
    assert!(
        matches!(said, Error::Unreachable { destination: to } if to == destination),
        "{said}"
    );
    client.flush().unwrap();
    assert_eq!(*server.recv().unwrap(), *b"y");
}

/// Short ones are caught by who waits, what is long or behind another one goes through the segment. All leave the receive buffer,
/// which they would fill twice.
#[test]
fn messages_of_all_sizes_arrive_in_order_however_they_are_received() {
    const BATCHES: u32 = 1500;
    let (_wire, [here, there]) = two_nodes();
    let (own, other) = (here.attach(), there.attach());
    let server = server(&other);
    await_service(&own);
    let client = Datagram::open(&own, Kind::Rdm).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..BATCHES {
                let mut left = batch_of(number);
                let mut source = None;
                while !left.is_empty() {
                    let mut received = Vec::new();
                    match number % 4 {
                        0 => received.push(server.recv_timeout(PATIENCE).unwrap()),
                        1 => received.push(server.recv_spin(Instant::now() + PATIENCE).unwrap()),
                        2 => _ = server.recv_many(&mut received, 3).unwrap(),
                        _ => received.extend(server.try_recv()),
                    }
                    for (message, wanted) in received.iter().zip(left.drain(..received.len())) {
                        assert_eq!(**message, wanted, "of batch {number}");
                        source = Some(message.source());
                    }
                }
                server.post_to(b"more", source.unwrap()).unwrap();
            }
        });
        for number in 0..BATCHES {
            let batch = batch_of(number);
            assert_eq!(client.post_many(&batch, SERVICE).unwrap(), batch.len());
            assert_eq!(*client.recv_timeout(PATIENCE).unwrap(), *b"more");
        }
    });
}

/// One to seven messages, most of them short.
fn batch_of(number: u32) -> Vec<Vec<u8>> {
    let message = |place: u32| {
        let mixed = (number * 7 + place).wrapping_mul(0x9e37_79b9);
        let len = match mixed >> 28 {
            0..10 => 1 + mixed % 64,
            10..15 => 65 + mixed % 500,
            _ => 3000,
        };
        vec![mixed as u8; len as usize]
    };
    (0..=number % 7).map(message).collect()
}

/// Who waits for messages of a socket goes on to get what is its own when others come to use it.
#[test]
fn a_socket_that_is_shared_while_a_thread_waits_loses_nothing() {
    const MESSAGES: u32 = 3000;
    let own = Own::start("adaptive");
    let (node, others) = (own.attach(), own.attach());
    let server = server(&node);
    let client = Datagram::open(&others, Kind::Rdm).unwrap();
    let numbers = Mutex::new(Vec::new());
    let receive = |socket: &Datagram| {
        while let Ok(message) = socket.recv_timeout(PATIENCE)
            && message.len() == 4
        {
            numbers.lock().unwrap().push(number_of(&message));
            socket.post_to(b"had it", message.source()).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| receive(&server));
        for number in 0..MESSAGES {
            if number == MESSAGES / 3 {
                let handle = server.share().unwrap();
                let adopted = Datagram::adopt(&others, &handle).unwrap();
                scope.spawn(move || receive(&adopted));
            }
            client.post_to(&number.to_ne_bytes(), SERVICE).unwrap();
            client.recv_timeout(PATIENCE).unwrap();
        }
        for _ in 0..2 {
            client.send_to(b"end", SERVICE).unwrap();
        }
    });
    let mut numbers = numbers.into_inner().unwrap();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..MESSAGES));
}

/// Of threads that post at once one makes a round, and what the others post goes by the ring. Two share a socket.
#[test]
fn each_of_the_threads_that_post_at_once_is_received_in_its_order() {
    const MESSAGES: u32 = 3000;
    let own = Own::start("adaptive");
    let node = own.attach();
    let server = server(&node);
    server.set_receive_buffer(16 << 20).unwrap();
    let sockets = [(); 2].map(|()| Datagram::open(&node, Kind::Rdm).unwrap());
    thread::scope(|scope| {
        for (thread, socket) in (0..).zip([&sockets[0], &sockets[1], &sockets[1]]) {
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let message = [thread, number].map(u32::to_ne_bytes).concat();
                    socket.post_to(&message, SERVICE).unwrap();
                }
                socket.flush().unwrap();
            });
        }
        let mut next = [0; 3];
        for _ in 0..3 * MESSAGES {
            let message = server.recv_timeout(PATIENCE).unwrap();
            let thread = number_of(&message) as usize;
            assert_eq!(number_of(&message[4..]), next[thread]);
            next[thread] += 1;
        }
    });
}

/// Once a descriptor is looked at the helper makes the rounds, but for moments in which nobody does.
#[test]
fn posts_beside_the_helper_keep_their_order() {
    const MESSAGES: u32 = 2000;
    let own = Own::start("adaptive");
    let node = own.attach();
    let (server, client) = (server(&node), Datagram::open(&node, Kind::Rdm).unwrap());
    server.as_fd().unwrap();
    for number in 0..MESSAGES {
        client.post_to(&number.to_ne_bytes(), SERVICE).unwrap();
        if number % 50 == 49 {
            for number in number - 49..=number {
                assert_eq!(number_of(&server.recv_timeout(PATIENCE).unwrap()), number);
            }
        }
    }
    client.flush().unwrap();
}

#[test]
fn tools_are_answered_while_the_application_does_something_else() {
    let own = Own::start("adaptive");
    let node = own.attach();
    let _server = server(&node);
    let table = own.tool().name_table().unwrap();
    assert!(table.iter().any(|p| p.service_type == SERVICE.type_));
}

#[test]
fn a_descriptor_and_a_poller_see_what_comes() {
    let own = Own::start("sleep");
    let node = own.attach();
    let (server, client) = (server(&node), Datagram::open(&node, Kind::Rdm).unwrap());
    let poller = Poller::new(&node);
    poller.add(&server, 7, Readiness::READABLE).unwrap();
    let mut events = Vec::new();
    client.post_to(b"one", SERVICE).unwrap();
    poller.wait(&mut events, Some(PATIENCE)).unwrap();
    assert_eq!(events[0].token, 7);
    server.recv().unwrap();

    let mut descriptor = [PollFd::from_borrowed_fd(
        server.as_fd().unwrap(),
        PollFlags::IN,
    )];
    let limit = Timespec::try_from(PATIENCE).unwrap();
    for _ in 0..100 {
        client.post_to(b"two", SERVICE).unwrap();
        assert_eq!(poll(&mut descriptor, Some(&limit)), Ok(1));
        server.try_recv().unwrap();
    }
}

#[test]
fn events_of_the_topology_service_come_to_a_thread_that_sleeps() {
    let own = Own::start("sleep");
    let (node, other) = (own.attach(), own.attach());
    let subscriber = Subscriber::open(&node).unwrap();
    let range = ServiceRange {
        type_: SERVICE.type_,
        lower: 0,
        upper: 9,
    };
    subscriber
        .subscribe(&Subscription::bindings(range))
        .unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| subscriber.recv().unwrap());
        thread::sleep(Duration::from_millis(50));
        let _server = server(&other);
        assert_eq!(waiting.join().unwrap().range.type_, SERVICE.type_);
    });
}

/// Nothing comes from outside then: the look that finds the timer due is what a thread waits for.
#[test]
fn what_a_timer_brings_comes_to_who_waits_with_every_policy() {
    for policy in ["adaptive", "sleep", "busy"] {
        let own = Own::start(policy);
        let node = own.attach();
        let subscriber = Subscriber::open(&node).unwrap();
        subscriber.set_read_timeout(Some(PATIENCE));
        let subscription = Subscription {
            timeout_ms: 30,
            ..Subscription::bindings(SERVICE)
        };
        subscriber.subscribe(&subscription).unwrap();
        let event = subscriber.recv().unwrap();
        assert_eq!(event.kind, EventKind::Timeout, "{policy}");
    }
}

#[test]
fn it_ends_with_the_last_that_holds_it_and_leaves_nothing() {
    let own = Own::start("adaptive");
    let run_dir = own.directory.path().to_owned();
    let node = own.attach();
    let socket = Datagram::open(&node, Kind::Rdm).unwrap();
    let Own {
        node: embedded,
        directory,
    } = own;
    drop((embedded, node));
    assert!(
        run_dir.join("control.sock").exists(),
        "a socket still holds it"
    );
    drop(socket);
    assert!(!run_dir.join("control.sock").exists());
    drop(directory);
}

#[test]
fn what_is_wrong_with_the_settings_is_said() {
    let said = |settings: &str| EmbeddedNode::start(settings).unwrap_err().to_string();
    let text = said("polcy = \"busy\"");
    assert!(text.contains("polcy") && text.contains("policy"), "{text}");
    let text = said("identity = \"own\"\npolicy = \"lazy\"");
    assert!(text.contains("lazy") && text.contains("adaptive"), "{text}");

    let own = Own::start("adaptive");
    let text = said(&settings(&own.directory, "adaptive"));
    assert!(text.contains("is in use by xtipcd with pid"), "{text}");
}
