//! No sender waits without a reason that the operator can see: `xtipc socket list --details`
//! (`docs/protocol/management.md`).

mod host;

use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::{
    Connection, ConnectionKind, Datagram, Error, Group, GroupEvent, Joining, Kind, Listener, Scope,
    ServiceAddress, ServiceRange, Subscriber, Subscription,
};
use xtipc_management::{
    Call, MemberLacks, Obstacle, SocketInfo, SocketKind, SocketState, WaitingCalls, WindowUnit,
};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 5000,
    instance: 1,
};

fn sockets(host: &Host) -> Vec<SocketInfo> {
    host.tool().sockets(true).unwrap()
}

fn socket(host: &Host, port: u32) -> SocketInfo {
    let all = sockets(host);
    let found = all.iter().find(|socket| socket.port == port);
    found.unwrap_or_else(|| panic!("{port}: {all:?}")).clone()
}

/// Looks until a socket is as it should be.
fn until(host: &Host, port: u32, is: impl Fn(&SocketInfo) -> bool) -> SocketInfo {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let socket = socket(host, port);
        if is(&socket) {
            return socket;
        }
        assert!(Instant::now() < end, "{socket:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_message_that_had_to_wait_counts_once() {
    let host = Host::start();
    let (client, server, peer) = host.connect(&host.attach(), ConnectionKind::Seqpacket, SERVICE);
    let submitted = || -> u64 {
        let attachments = host.tool().status().unwrap().attachments;
        attachments.iter().map(|attached| attached.submitted).sum()
    };
    let before = submitted();
    thread::scope(|s| {
        let sender = s.spawn(|| (0..4).try_for_each(|_| client.send(&[1; 60_000]).map(|_| ())));
        let waits = |socket: &SocketInfo| {
            let details = socket.details.as_ref();
            details.is_some_and(|d| d.waiting.is_some())
        };
        until(&host, peer.port, waits);
        for _ in 0..4 {
            server.recv().unwrap().unwrap();
        }
        sender.join().unwrap().unwrap();
    });
    assert_eq!(submitted() - before, 4);
}

#[test]
fn a_sender_whose_reader_does_not_read_is_shown_with_the_peer_the_window_and_the_time() {
    let host = Host::start();
    let (client, server, peer) = host.connect(&host.attach(), ConnectionKind::Seqpacket, SERVICE);
    let idle = socket(&host, peer.port).details.unwrap();
    assert_eq!(idle.state, SocketState::Connected);
    assert_eq!(idle.waiting, None, "nobody waits yet");
    thread::scope(|s| {
        // The fourth finds the window of 128 blocks used up by three of 59 blocks each.
        let sender = s.spawn(|| (0..4).try_for_each(|_| client.send(&[1; 60_000]).map(|_| ())));
        let waits = |socket: &SocketInfo| {
            let details = socket.details.as_ref();
            details.is_some_and(|d| !d.calls.is_empty() && d.waiting.is_some())
        };
        until(&host, peer.port, waits);
        thread::sleep(Duration::from_millis(300));
        let blocked = socket(&host, peer.port);
        assert_eq!(blocked.pid, Some(std::process::id()));
        let details = blocked.details.unwrap();
        let window = details.window.unwrap();
        assert_eq!(
            (window.unit, window.under_way, window.limit),
            (WindowUnit::Blocks, 177, 128)
        );
        let wait = details.waiting.unwrap();
        let at = server.local_addr().unwrap();
        let reader = Obstacle::Peer {
            address: at.node,
            port: at.port,
        };
        assert_eq!(wait.obstacle, Some(reader));
        assert!((300..60_000).contains(&wait.for_ms), "{} ms", wait.for_ms);
        let [calls] = details.calls[..] else {
            panic!("{:?}", details.calls);
        };
        assert_eq!((calls.call, calls.count), (Call::Send, 1));
        assert!((300..60_000).contains(&calls.for_ms), "{} ms", calls.for_ms);
        let unread = socket(&host, at.port);
        assert_eq!(unread.receive_queue_messages, 3);
        assert!(unread.receive_queue_bytes >= 180_000);

        for _ in 0..4 {
            server.recv().unwrap().unwrap();
        }
        sender.join().unwrap().unwrap();
    });
    let after = socket(&host, peer.port).details.unwrap();
    assert_eq!((after.waiting, after.calls), (None, vec![]));
    let plain = host.tool().sockets(false).unwrap();
    assert!(plain.iter().all(|socket| socket.details.is_none()));
}

/// Both ends of a connection whose messages go past the daemon, and the port of the first.
fn direct_pair(host: &Host) -> (Connection, Connection, u32) {
    let (one, other, at) = host.connect(&host.attach(), ConnectionKind::Seqpacket, SERVICE);
    for _ in 0..4 {
        for (from, to) in [(&one, &other), (&other, &one)] {
            from.send(b"warm-up").unwrap();
            to.recv().unwrap().unwrap();
        }
    }
    assert!(one.is_direct().unwrap() && other.is_direct().unwrap());
    (one, other, at.port)
}

#[test]
fn a_sender_in_a_direct_channel_is_shown_as_any_other() {
    let host = Host::start_with(&["--direct-after=1"]);
    let (one, other, port) = direct_pair(&host);
    let at = other.local_addr().unwrap();
    let reader = Some(Obstacle::Peer {
        address: at.node,
        port: at.port,
    });
    let details = || socket(&host, port).details.unwrap();
    let fill = || {
        one.set_write_timeout(Some(Duration::from_millis(50)));
        let sent = (0..).take_while(|_| one.send(&[1; 60_000]).is_ok()).count();
        one.set_write_timeout(None);
        sent
    };
    let read = |count| {
        for _ in 0..count {
            other.recv().unwrap().unwrap();
        }
    };
    assert_eq!((details().waiting, details().calls), (None, vec![]));
    let sent = fill();
    assert_eq!(details().calls, vec![], "the send was taken back");
    assert_eq!(details().waiting.unwrap().obstacle, reader);
    thread::scope(|s| {
        let senders = [0; 2].map(|_| s.spawn(|| one.send(&[1; 60_000]).map(|_| ())));
        let both = |socket: &SocketInfo| {
            let calls = &socket.details.as_ref().unwrap().calls;
            calls.iter().map(|calls| calls.count).sum::<u32>() == 2
        };
        until(&host, port, both);
        thread::sleep(Duration::from_millis(200));
        let details = details();
        let wait = details.waiting.unwrap();
        assert_eq!(wait.obstacle, reader);
        assert!((200..60_000).contains(&wait.for_ms), "{} ms", wait.for_ms);
        let [calls] = details.calls[..] else {
            panic!("{:?}", details.calls);
        };
        assert_eq!((calls.call, calls.count), (Call::Send, 2));
        assert!((200..60_000).contains(&calls.for_ms), "{} ms", calls.for_ms);
        read(sent + 2);
        for sender in senders {
            sender.join().unwrap().unwrap();
        }
    });
    assert_eq!((details().waiting, details().calls), (None, vec![]));
    read(fill());
    let waiting = details().waiting.unwrap();
    assert_eq!(
        waiting.obstacle, None,
        "there is room, and it has not tried"
    );
    one.send(b"x").unwrap();
    assert_eq!(details().waiting, None);
}

#[test]
fn a_sender_without_room_in_the_memory_of_its_channel_sleeps_until_there_is_some() {
    const LEN: usize = 60_000;
    let host = Host::start_with(&["--direct-after=1"]);
    let (one, other, port) = direct_pair(&host);
    other.set_receive_buffer(16 << 20).unwrap();
    // The window is told with acknowledgements, and is then larger than the memory.
    for _ in 0..64 {
        one.send(&[1; 1000]).unwrap();
        other.recv().unwrap().unwrap();
    }
    let mut loans = Vec::new();
    while let Ok(loan) = one.loan(LEN)
        && loans.len() < 10
    {
        loans.push(loan);
    }
    thread::scope(|s| {
        let sender = s.spawn(|| {
            for _ in 0..20 {
                one.send(&[2; LEN]).unwrap();
            }
            let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::try_from(used).unwrap()
        });
        until(&host, port, |socket| {
            !socket.details.as_ref().unwrap().calls.is_empty()
        });
        thread::sleep(Duration::from_millis(500));
        assert!(!sender.is_finished());
        // Of what it waits for some was lent to this program and is not sent after all.
        drop(loans);
        thread::sleep(Duration::from_millis(100));
        for _ in 0..20 {
            assert_eq!(other.recv().unwrap().unwrap().len(), LEN);
        }
        let used = sender.join().unwrap();
        assert!(used < Duration::from_millis(250), "it spun: {used:?}");
    });
}

/// A member that is told of one other.
fn members(host: &Host) -> [Group; 2] {
    let group = ServiceAddress {
        type_: 6000,
        instance: 1,
    };
    let join = || Group::join(&host.attach(), group, Joining::default()).unwrap();
    let members = [join(), join()];
    for member in &members {
        let event = member.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(matches!(event, GroupEvent::Joined(_)));
    }
    members
}

#[test]
fn a_sender_to_a_member_that_does_not_read_is_shown_with_the_member_what_it_lacks_and_the_time() {
    let host = Host::start();
    let ways: [fn(&Group, &Group); 2] = [
        |from, to| {
            from.send_to(&[1; 10_000], to.local_addr().unwrap())
                .unwrap()
        },
        |from, _| from.broadcast(&[1; 10_000]).unwrap(),
    ];
    for send in ways {
        let [sender, reader] = members(&host);
        let at = reader.local_addr().unwrap();
        let from = sender.local_addr().unwrap().port;
        thread::scope(|s| {
            // 65 blocks are granted at first, and a message takes ten.
            let sending = s.spawn(|| (0..7).for_each(|_| send(&sender, &reader)));
            until(&host, from, |socket| {
                let details = socket.details.as_ref().unwrap();
                !details.calls.is_empty() && details.waiting.is_some()
            });
            thread::sleep(Duration::from_millis(200));
            let details = socket(&host, from).details.unwrap();
            let wait = details.waiting.unwrap();
            let obstacle = Obstacle::Member {
                address: at.node,
                port: at.port,
                lacks: MemberLacks::Credit {
                    window: 5,
                    needed: 10,
                },
            };
            assert_eq!(wait.obstacle, Some(obstacle));
            assert!((200..60_000).contains(&wait.for_ms), "{} ms", wait.for_ms);
            let calls = details.calls.first().expect("it waits in a call");
            assert_eq!((calls.call, calls.count), (Call::Send, 1));
            for _ in 0..7 {
                reader.recv_timeout(Duration::from_secs(5)).unwrap();
            }
            sending.join().unwrap();
        });
        let after = socket(&host, from).details.unwrap();
        assert_eq!((after.waiting, after.calls), (None, vec![]));
    }
}

#[test]
fn a_sender_that_does_not_wait_is_shown_until_its_message_is_taken() {
    let host = Host::start();
    let (client, server, peer) = host.connect(&host.attach(), ConnectionKind::Stream, SERVICE);
    client.set_write_timeout(Some(Duration::from_millis(50)));
    let refused = loop {
        if let Err(error) = client.send(&[1; 60_000]) {
            break error;
        }
    };
    assert!(matches!(refused, Error::TimedOut), "{refused}");
    let details = socket(&host, peer.port).details.unwrap();
    assert_eq!(details.calls, vec![], "the send was taken back");
    assert!(matches!(
        details.waiting.unwrap().obstacle,
        Some(Obstacle::Peer { .. })
    ));
    drop(server);
}

#[test]
fn listeners_and_who_waits_for_them_are_shown() {
    let host = Host::start();
    let node = host.attach();
    let listener = Listener::bind(&node, ConnectionKind::Stream, SERVICE, Scope::Cluster).unwrap();
    let port = listener.local_addr().unwrap().port;
    let client = host.attach();
    thread::scope(|s| {
        let connect = s.spawn(|| Connection::connect(&client, ConnectionKind::Stream, SERVICE));
        let requested = |socket: &SocketInfo| {
            let details = socket.details.as_ref().unwrap();
            details.backlog == Some(1)
        };
        let listening = until(&host, port, requested).details.unwrap();
        assert_eq!(listening.state, SocketState::Listening);
        let is_connecting = |socket: &&SocketInfo| {
            let details = socket.details.as_ref().unwrap();
            details.state == SocketState::Connecting
        };
        let all = sockets(&host);
        let connecting = all.iter().find(is_connecting).expect("the client");
        let calls = &connecting.details.as_ref().unwrap().calls;
        assert!(
            matches!(
                calls[..],
                [WaitingCalls {
                    call: Call::Connect,
                    count: 1,
                    ..
                }]
            ),
            "{calls:?}"
        );
        listener.accept().unwrap();
        connect.join().unwrap().unwrap();

        s.spawn(|| listener.accept().unwrap());
        let accepting = until(&host, port, |socket| {
            !socket.details.as_ref().unwrap().calls.is_empty()
        });
        let calls = accepting.details.unwrap().calls;
        assert_eq!(calls[0].call, Call::Accept);
        Connection::connect(&client, ConnectionKind::Stream, SERVICE).unwrap();
    });
}

#[test]
fn subscribers_are_listed_with_what_they_asked_and_have_not_read() {
    let host = Host::start();
    let subscriber = Subscriber::open(&host.attach()).unwrap();
    for type_ in [600, 601, 602] {
        let range = ServiceRange {
            type_,
            lower: 0,
            upper: 99,
        };
        subscriber
            .subscribe(&Subscription::bindings(range))
            .unwrap();
    }
    let server = Datagram::open(&host.attach(), Kind::Rdm).unwrap();
    for instance in 0..10 {
        let at = ServiceAddress {
            type_: 600,
            instance,
        };
        server.bind(at, Scope::Cluster).unwrap();
    }
    let shown = |subscriptions: u32, unread: u32| {
        let all = sockets(&host);
        let of_kind: Vec<_> = all
            .into_iter()
            .filter(|socket| socket.kind == SocketKind::Subscriber)
            .collect();
        let [subscriber] = &of_kind[..] else {
            panic!("{of_kind:?}");
        };
        let info = subscriber.details.as_ref().unwrap().subscriber.unwrap();
        assert_eq!(subscriber.pid, Some(std::process::id()));
        assert_eq!(
            (info.subscriptions, info.events_unread),
            (subscriptions, unread)
        );
    };
    shown(3, 10);
    for _ in 0..4 {
        subscriber.recv().unwrap();
    }
    shown(3, 6);
    let plain = host.tool().sockets(false).unwrap();
    assert!(plain.iter().all(|s| s.kind != SocketKind::Subscriber));
}
