//! Direct channels of datagrams: what programs see is what they see without.

mod host;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use host::Host;
use xtipc::{
    Datagram, Destination, DestinationName, Error, Importance, Kind, Message, Node, Rejection,
    Scope, ServiceAddress, ServiceRange, SocketAddress,
};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 6100,
    instance: 1,
};
const SOON: Duration = Duration::from_secs(20);

fn direct_host() -> Host {
    Host::start_with(&["--direct-after=1"])
}

fn open(node: &Node) -> Datagram {
    let socket = Datagram::open(node, Kind::Rdm).unwrap();
    socket.set_read_timeout(Some(SOON));
    socket
}

fn socket_on(host: &Host) -> Datagram {
    open(&host.attach())
}

fn server(host: &Host) -> Datagram {
    let socket = socket_on(host);
    socket.bind(SERVICE, Scope::Cluster).unwrap();
    socket
}

fn number(message: &Message) -> u32 {
    u32::from_ne_bytes(message[..4].try_into().unwrap())
}

/// Messages that a socket has sent and received by channels.
fn direct(host: &Host, socket: &Datagram) -> (u64, u64) {
    let port = socket.local_addr().unwrap().port;
    let sockets = host.tool().sockets(true).unwrap();
    let about = sockets.into_iter().find(|s| s.port == port).unwrap();
    let channel = about.details.and_then(|details| details.channel);
    channel.map_or((0, 0), |channel| (channel.sent, channel.received))
}

/// Asks until question and answer go by the channel.
fn warm_up(host: &Host, client: &Datagram, server: &Datagram, to: impl Into<Destination>) {
    let to = to.into();
    let before = (direct(host, client).0, direct(host, server).0);
    for _ in 0..200 {
        client.send_to(b"warm-up", to).unwrap();
        let question = server.recv().unwrap();
        server.send_to(&question, question.source()).unwrap();
        assert_eq!(&*client.recv().unwrap(), b"warm-up");
        // A switch back counts as a message.
        if direct(host, client).0 > before.0 + 1 && direct(host, server).0 > before.1 + 1 {
            return;
        }
    }
    panic!("no channel was made");
}

#[test]
fn question_and_answer_go_past_the_daemon_and_tell_what_they_told_before() {
    const COUNT: u64 = 100;
    let host = direct_host();
    let server = server(&host);
    let client = socket_on(&host);
    let address = server.local_addr().unwrap();
    let own = client.local_addr().unwrap();
    client.set_importance(Importance::High).unwrap();
    for (to, name) in [
        (Destination::from(address), DestinationName::None),
        (SERVICE.into(), DestinationName::Service(SERVICE)),
    ] {
        warm_up(&host, &client, &server, to);
        let before = (direct(&host, &client), direct(&host, &server));
        for len in 0..COUNT as usize {
            let sent = vec![len as u8; 1 + len * 600];
            client.send_to(&sent, to).unwrap();
            let question = server.recv().unwrap();
            assert_eq!(*question, sent);
            assert_eq!((question.source(), question.destination()), (own, name));
            assert_eq!(question.importance(), Importance::High);
            assert!(question.error().is_none());
            server.post_to(&question, question.source()).unwrap();
            let answer = client.recv().unwrap();
            assert_eq!(*answer, sent);
            assert_eq!(
                (answer.source(), answer.destination()),
                (address, DestinationName::None)
            );
        }
        let after = (direct(&host, &client), direct(&host, &server));
        assert_eq!(after.0.0 - before.0.0, COUNT);
        assert_eq!(after.1.0 - before.1.0, COUNT);
        assert_eq!(after.1.1 - before.1.1, COUNT);
    }
    let status = host.tool().status().unwrap();
    let sum = |of: fn(&xtipc_management::AttachmentInfo) -> u64| {
        status.attachments.iter().map(of).sum::<u64>()
    };
    let (sent, all) = (sum(|a| a.sent_directly), sum(|a| a.may_go_directly));
    assert!(
        sent >= 4 * COUNT && all > sent && all < sent + 100,
        "{sent} of {all}"
    );
}

#[test]
fn of_several_messages_that_are_posted_at_once_each_counts_towards_a_channel() {
    let host = Host::start_with(&["--direct-after=100"]);
    let (server, client) = (server(&host), socket_on(&host));
    let server_address = server.local_addr().unwrap();
    for to in [
        Destination::from(server_address),
        Destination::from(SERVICE),
    ] {
        let before = direct(&host, &client).0;
        // The last ones ask for the channel, map it, and switch.
        for _ in 0..6 {
            assert_eq!(client.post_many(&[b"many"; 50], to).unwrap(), 50);
            for _ in 0..50 {
                assert_eq!(&*server.recv().unwrap(), b"many");
            }
            client.flush().unwrap();
        }
        assert!(direct(&host, &client).0 > before);
    }
}

#[test]
fn who_sleeps_is_woken_and_a_default_destination_goes_directly_too() {
    let host = direct_host();
    let server = server(&host);
    let client = socket_on(&host);
    client.connect(SERVICE).unwrap();
    warm_up(&host, &client, &server, SERVICE);
    let before = direct(&host, &client).0;
    thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..20 {
                let question = server.recv().unwrap();
                server.send_to(b"again", question.source()).unwrap();
            }
        });
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(3));
            client.send(b"hello").unwrap();
            assert_eq!(&*client.recv().unwrap(), b"again");
        }
    });
    assert_eq!(direct(&host, &client).0 - before, 20);
}

/// Two receivers, of which the second is bound now and then: all arrives once, at each of them in order.
#[test]
fn order_is_kept_while_bindings_come_and_go() {
    const MESSAGES: u32 = 20_000;
    let host = direct_host();
    let (steady, fickle) = (server(&host), socket_on(&host));
    let client = socket_on(&host);
    let done = AtomicBool::new(false);
    let take = |socket: &Datagram| {
        socket.set_read_timeout(Some(Duration::from_millis(100)));
        let mut taken = Vec::new();
        loop {
            let is_over = done.load(Ordering::Acquire);
            match socket.recv() {
                Ok(message) => taken.push(number(&message)),
                Err(Error::TimedOut) if is_over => return taken,
                Err(Error::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let (one, other, went_directly) = thread::scope(|s| {
        let one = s.spawn(|| take(&steady));
        let other = s.spawn(|| take(&fickle));
        let sending = s.spawn(|| {
            client.set_dest_droppable(false).unwrap();
            for n in 0..MESSAGES {
                client.send_to(&n.to_ne_bytes(), SERVICE).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !sending.is_finished() {
            fickle.bind(SERVICE, Scope::Cluster).unwrap();
            thread::sleep(Duration::from_millis(1));
            fickle.unbind(SERVICE, Scope::Cluster).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        (
            one.join().unwrap(),
            other.join().unwrap(),
            direct(&host, &client).0,
        )
    });
    assert!(one.is_sorted() && other.is_sorted());
    let mut all: Vec<u32> = one.into_iter().chain(other).collect();
    while let Ok(returned) = client.try_recv() {
        assert_eq!(returned.error(), Some(Rejection::Overload));
        all.push(number(&returned));
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..MESSAGES), "each once");
    assert!(went_directly > 100, "{went_directly}");
}

#[test]
fn once_a_second_socket_is_bound_the_next_message_may_go_there() {
    let host = direct_host();
    let (one, other) = (server(&host), socket_on(&host));
    let client = socket_on(&host);
    for _ in 0..20 {
        warm_up(&host, &client, &one, SERVICE);
        other.bind(SERVICE, Scope::Cluster).unwrap();
        for _ in 0..4 {
            client.send_to(b"either", SERVICE).unwrap();
        }
        for socket in [&one, &other, &one, &other] {
            assert_eq!(&*socket.recv().unwrap(), b"either");
        }
        other.unbind(SERVICE, Scope::Cluster).unwrap();
        one.unbind(SERVICE, Scope::Cluster).unwrap();
        let refused = client.send_to(b"nobody", SERVICE);
        assert!(matches!(refused, Err(Error::Unreachable { .. })));
        one.bind(SERVICE, Scope::Cluster).unwrap();
    }
}

/// Of so many messages of each importance to a socket that reads nothing, how many are refused, and first.
fn refused(option: &str) -> Vec<(u32, u32)> {
    let host = Host::start_with(&[option]);
    let (server, client) = (server(&host), socket_on(&host));
    server.set_receive_buffer(100_000).unwrap();
    client.set_dest_droppable(false).unwrap();
    let address = server.local_addr().unwrap();
    // It is let go of by the time.
    for _ in 0..70 {
        client.send_to(b"before", address).unwrap();
        server.recv().unwrap();
    }
    if option != "--direct-after=0" {
        assert!(direct(&host, &client).0 > 0);
    }
    let mut number = 0u32;
    for importance in [Importance::Low, Importance::High, Importance::Critical] {
        client.set_importance(importance).unwrap();
        for _ in 0..900 {
            client
                .send_to(&number.to_ne_bytes().repeat(25), address)
                .unwrap();
            number += 1;
        }
    }
    let returned = std::iter::from_fn(|| client.try_recv().ok());
    let returned: Vec<u32> = returned
        .inspect(|message| {
            assert_eq!(message.source(), address);
            assert_eq!(
                (message.len(), message.error()),
                (100, Some(Rejection::Overload))
            );
        })
        .map(|message| self::number(&message))
        .collect();
    let received = std::iter::from_fn(|| server.try_recv().ok());
    let received: Vec<u32> = received.map(|message| self::number(&message)).collect();
    assert!(received.is_sorted());
    let mut all: Vec<u32> = returned.iter().copied().chain(received).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..number), "each once");
    let of_one = |from: u32| {
        returned
            .iter()
            .filter(move |n| (from..from + 900).contains(*n))
    };
    (0..3)
        .map(|class| class * 900)
        .map(|from| (of_one(from).count() as u32, *of_one(from).next().unwrap()))
        .collect()
}

#[test]
fn a_full_receive_buffer_refuses_the_same_messages_as_without_channels() {
    let without = refused("--direct-after=0");
    let with = refused("--direct-after=1");
    // The switch back counts as a message until it is read.
    for (with, without) in with.into_iter().zip(without) {
        assert!(with.0.abs_diff(without.0) <= 1, "{with:?} {without:?}");
        assert!(with.1.abs_diff(without.1) <= 1, "{with:?} {without:?}");
    }
}

#[test]
fn what_a_closed_socket_has_not_read_comes_back_unless_it_may_be_dropped() {
    let host = direct_host();
    for by_name in [false, true] {
        for droppable in [false, true] {
            let (server, client) = (server(&host), socket_on(&host));
            let address = server.local_addr().unwrap();
            let to = match by_name {
                true => SERVICE.into(),
                false => Destination::from(address),
            };
            warm_up(&host, &client, &server, to);
            client.set_dest_droppable(droppable).unwrap();
            for n in 0..10u32 {
                client.send_to(&n.to_ne_bytes().repeat(500), to).unwrap();
            }
            for n in 0..4 {
                assert_eq!(number(&server.recv().unwrap()), n);
            }
            server
                .send_to(b"last", client.local_addr().unwrap())
                .unwrap();
            drop(server);
            assert_eq!(&*client.recv().unwrap(), b"last");
            if droppable {
                client.set_read_timeout(Some(Duration::from_millis(50)));
                assert!(matches!(client.recv(), Err(Error::TimedOut)));
                continue;
            }
            for n in 4..10 {
                let returned = client.recv().unwrap();
                assert_eq!(returned.error(), Some(Rejection::NoPort));
                assert_eq!((number(&returned), returned.len()), (n, 1024));
                assert_eq!(returned.source(), address);
                let name = match by_name {
                    true => DestinationName::Service(SERVICE),
                    false => DestinationName::None,
                };
                assert_eq!(returned.destination(), name);
            }
            client.send_to(b"nobody", address).unwrap();
            let returned = client.recv().unwrap();
            assert_eq!(
                (&*returned, returned.error()),
                (&b"nobody"[..], Some(Rejection::NoPort))
            );
        }
    }
}

/// Set for the process that is killed: the attach socket.
const VICTIM: &str = "XTIPC_TEST_ATTACH_SOCKET";

#[test]
fn what_a_killed_program_has_not_read_comes_back() {
    if let Some(attach_socket) = std::env::var_os(VICTIM) {
        return answer_all_but_the_silent(&attach_socket);
    }
    let host = direct_host();
    let client = socket_on(&host);
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_a_killed_program_has_not_read_comes_back"])
        .env(VICTIM, host.attach_socket())
        .spawn()
        .unwrap();
    while client.send_to(b"hello", SERVICE).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    let address = client.recv().unwrap().source();
    client.set_dest_droppable(false).unwrap();
    for _ in 0..10 {
        client.send_to(b"hello", address).unwrap();
        assert_eq!(&*client.recv().unwrap(), b"hello");
    }
    client.send_to(b"silent", address).unwrap();
    host.await_socket(address.port, |socket| socket.receive_queue_messages == 0);
    let before = direct(&host, &client).0;
    for n in 0..10u32 {
        client.send_to(&n.to_ne_bytes(), address).unwrap();
    }
    assert_eq!(direct(&host, &client).0 - before, 10);
    victim.kill().unwrap();
    for n in 0..10 {
        let returned = client.recv().unwrap();
        assert_eq!(
            (number(&returned), returned.error()),
            (n, Some(Rejection::NoPort))
        );
    }
    victim.wait().unwrap();
}

fn answer_all_but_the_silent(attach_socket: &OsStr) {
    let node = Node::builder().socket_path(attach_socket).attach().unwrap();
    let socket = open(&node);
    socket.bind(SERVICE, Scope::Cluster).unwrap();
    loop {
        let message = socket.recv().unwrap();
        if *message == *b"silent" {
            thread::sleep(SOON);
        }
        socket.send_to(&message, message.source()).unwrap();
    }
}

#[test]
fn fifty_senders_to_one_and_one_to_fifty_keep_their_orders() {
    const MANY: usize = 50;
    const EACH: u32 = 200;
    let host = direct_host();
    let server = server(&host);
    let nodes = [host.attach(), host.attach()];
    let clients: Vec<Datagram> = (0..MANY).map(|n| open(&nodes[n % 2])).collect();
    let addresses: Vec<SocketAddress> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
    thread::scope(|s| {
        for half in 0..2 {
            let clients = &clients;
            s.spawn(move || {
                for n in 0..EACH {
                    for client in clients.iter().skip(half).step_by(2) {
                        client.send_to(&n.to_ne_bytes(), SERVICE).unwrap();
                    }
                    for client in clients.iter().skip(half).step_by(2) {
                        assert_eq!(number(&client.recv().unwrap()), n);
                    }
                }
            });
        }
        let mut next: HashMap<SocketAddress, u32> = HashMap::new();
        for _ in 0..MANY as u32 * EACH {
            let message = server.recv().unwrap();
            let next = next.entry(message.source()).or_default();
            assert_eq!(number(&message), *next);
            *next += 1;
            server.send_to(&message, message.source()).unwrap();
        }
    });
    let (sent, received) = direct(&host, &server);
    let all = u64::from(EACH) * MANY as u64;
    assert!(
        sent > all / 2 && received > all / 2,
        "{sent} {received} of {all}"
    );
    for address in addresses {
        server.send_to(b"end", address).unwrap();
    }
    for client in clients {
        assert_eq!(&*client.recv().unwrap(), b"end");
    }
}

#[test]
fn multicasts_among_direct_messages_stay_in_order() {
    let host = direct_host();
    let (server, client) = (server(&host), socket_on(&host));
    let address = server.local_addr().unwrap();
    let all = ServiceRange::from(SERVICE);
    let mut next = 0u32;
    for _ in 0..20 {
        for to in [
            address.into(),
            SERVICE.into(),
            all.into(),
            Destination::from(address),
        ] {
            for _ in 0..100 {
                client.send_to(&next.to_ne_bytes(), to).unwrap();
                next += 1;
            }
        }
        for n in next - 400..next {
            assert_eq!(number(&server.recv().unwrap()), n);
        }
    }
    assert!(direct(&host, &client).0 > 100);
}

#[test]
fn a_socket_that_is_shared_keeps_what_it_has_not_read() {
    let host = direct_host();
    let (server, client) = (server(&host), socket_on(&host));
    let address = server.local_addr().unwrap();
    warm_up(&host, &client, &server, address);
    client.set_dest_droppable(false).unwrap();
    for n in 0..10u32 {
        client.send_to(&n.to_ne_bytes(), address).unwrap();
    }
    let handle = server.share().unwrap();
    for n in 10..20u32 {
        client.send_to(&n.to_ne_bytes(), address).unwrap();
    }
    let heir = Datagram::adopt(&host.attach(), &handle).unwrap();
    for (n, socket) in (0..14).zip([&heir, &server].into_iter().cycle()) {
        let message = socket.recv().unwrap();
        assert_eq!(number(&message), n);
        assert_eq!(message.source(), client.local_addr().unwrap());
    }
    drop((handle, server, heir));
    for n in 14..20 {
        let returned = client.recv().unwrap();
        assert_eq!(
            (number(&returned), returned.error()),
            (n, Some(Rejection::NoPort))
        );
    }
}

#[test]
fn who_polls_a_descriptor_hears_of_direct_messages() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let host = direct_host();
    let (server, client) = (server(&host), socket_on(&host));
    let address = server.local_addr().unwrap();
    warm_up(&host, &client, &server, address);
    let fd = server.as_fd().unwrap();
    let is_readable = |ms: i64| {
        let time = Timespec {
            tv_sec: 0,
            tv_nsec: ms * 1_000_000,
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut fds, Some(&time)).unwrap() == 1
    };
    for n in 0..20u32 {
        while is_readable(0) {
            assert!(matches!(server.try_recv(), Err(Error::WouldBlock)));
        }
        client.send_to(&n.to_ne_bytes(), address).unwrap();
        assert!(is_readable(500));
        assert_eq!(number(&server.try_recv().unwrap()), n);
    }
}

#[test]
fn idle_channels_are_given_back_and_made_again() {
    let host = Host::start_with(&["--direct-after=1", "--direct-idle=1"]);
    let (server, client) = (server(&host), socket_on(&host));
    let mapped = || {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", host.pid())).unwrap();
        maps.matches("xtipc-channel").count()
    };
    for _ in 0..2 {
        warm_up(&host, &client, &server, SERVICE);
        assert_eq!(mapped(), 1);
        let begun = std::time::Instant::now();
        while mapped() > 0 {
            assert!(begun.elapsed() < SOON, "the channel is left");
            thread::sleep(Duration::from_millis(20));
            for socket in [&server, &client] {
                assert!(matches!(socket.try_recv(), Err(Error::WouldBlock)));
            }
        }
        // By the daemon, as before there was one.
        client.send_to(b"again", SERVICE).unwrap();
        assert_eq!(&*server.recv().unwrap(), b"again");
    }
}
