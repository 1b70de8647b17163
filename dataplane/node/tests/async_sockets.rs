//! The sockets for programs of tokio.

mod host;

use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use host::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xtipc::tokio::{Connection, Datagram, Group, Listener, Subscriber};
use xtipc::{
    ConnectionKind, Error, EventKind, GroupEvent, Joining, Kind, Node, Scope, ServiceAddress,
    ServiceRange, Subscription,
};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 5000,
    instance: 1,
};

fn datagram(node: &Node) -> Datagram {
    Datagram::new(xtipc::Datagram::open(node, Kind::Rdm).unwrap()).unwrap()
}

async fn connected(host: &Host, kind: ConnectionKind) -> (Connection, Connection) {
    let listener = xtipc::Listener::bind(&host.attach(), kind, SERVICE, Scope::Cluster).unwrap();
    let listener = Listener::new(listener).unwrap();
    let node = host.attach();
    let (client, server) =
        tokio::join!(Connection::connect(&node, kind, SERVICE), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// All of it on one thread: no call may wait for what another task does.
#[tokio::test]
async fn many_tasks_exchange_datagrams_on_one_thread() {
    let host = Host::start();
    let server = datagram(&host.attach());
    server.bind(SERVICE, Scope::Cluster).unwrap();
    let echo = tokio::spawn(async move {
        for _ in 0..10 * 50 {
            let message = server.recv().await.unwrap();
            server.send_to(&message, message.source()).await.unwrap();
        }
    });
    let node = host.attach();
    let clients: Vec<_> = (0..10)
        .map(|n: u8| {
            let socket = datagram(&node);
            tokio::spawn(async move {
                for round in 0..50 {
                    socket.send_to(&[n, round], SERVICE).await.unwrap();
                    assert_eq!(*socket.recv().await.unwrap(), [n, round]);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    echo.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_carries_megabytes_both_ways_though_both_ends_have_to_wait() {
    let host = Host::start();
    let (near, far) = connected(&host, ConnectionKind::Stream).await;
    let bytes: Vec<u8> = (0..4_000_000usize).map(|n| (n % 251) as u8).collect();
    let ends = [near, far].map(|end| {
        let bytes = bytes.clone();
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(end);
            let expect = bytes.clone();
            let write = tokio::spawn(async move {
                writer.write_all(&bytes).await.unwrap();
                writer
            });
            let mut got = vec![0; expect.len()];
            reader.read_exact(&mut got).await.unwrap();
            assert!(got == expect);
            // Neither end goes before the other has all.
            (reader, write.await.unwrap())
        })
    });
    let mut open = Vec::new();
    for end in ends {
        open.push(end.await.unwrap());
    }
    let (mut reader, _) = open.remove(0);
    let (_, mut writer) = open.remove(0);
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_sender_waits_for_the_window_without_holding_others_up() {
    let host = Host::start();
    let (near, far) = connected(&host, ConnectionKind::Seqpacket).await;
    let sender = tokio::spawn(async move {
        for n in 0..40u8 {
            near.send(&[n; 60_000]).await.unwrap();
        }
        near
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!sender.is_finished(), "the window takes three of them");
    for n in 0..40u8 {
        let message = far.recv().await.unwrap().unwrap();
        assert_eq!((message[0], message.len()), (n, 60_000));
    }
    let near = sender.await.unwrap();
    drop(far);
    assert!(near.recv().await.is_err(), "it was reset");
}

#[tokio::test]
async fn events_are_a_stream_that_ends_with_the_node() {
    let mut host = Some(Host::start());
    let running = host.as_ref().unwrap();
    let subscriber = xtipc::Subscriber::open(&running.attach()).unwrap();
    let range = ServiceRange {
        type_: 700,
        lower: 0,
        upper: 9,
    };
    subscriber
        .subscribe(&Subscription::bindings(range))
        .unwrap();
    let mut events = Subscriber::new(subscriber).unwrap();
    let mut next = async || std::future::poll_fn(|cx| Pin::new(&mut events).poll_next(cx)).await;
    let server = datagram(&running.attach());
    for (kind, bind) in [(EventKind::Published, true), (EventKind::Withdrawn, false)] {
        if bind {
            server.bind(range, Scope::Cluster).unwrap();
        } else {
            server.unbind(range, Scope::Cluster).unwrap();
        }
        assert_eq!(next().await.unwrap().unwrap().kind, kind);
    }
    host.take();
    assert!(next().await.unwrap().is_err());
    assert!(next().await.is_none());
}

fn member(host: &Host, instance: u32) -> Group {
    let address = ServiceAddress {
        type_: 6000,
        instance,
    };
    Group::join(&host.attach(), address, Joining::default()).unwrap()
}

/// The next message of a member; events are passed over.
async fn next_message(group: &Group) -> Vec<u8> {
    loop {
        if let GroupEvent::Message { message, .. } = group.recv().await.unwrap() {
            return message.to_vec();
        }
    }
}

#[tokio::test]
async fn members_of_a_group_are_told_of_each_other_and_reached_in_every_way() {
    let host = Host::start();
    let (one, two) = (member(&host, 1), member(&host, 2));
    let joined = one.recv().await.unwrap();
    assert!(matches!(joined, GroupEvent::Joined(member) if member.address.instance == 2));
    let to = two.local_addr().unwrap();
    one.broadcast(b"all").await.unwrap();
    one.multicast(b"instance", 2).await.unwrap();
    one.anycast(b"any", 2).await.unwrap();
    one.send_to(b"member", to).await.unwrap();
    for text in ["all", "instance", "any", "member"] {
        assert_eq!(next_message(&two).await, text.as_bytes());
    }
    let nobody = one.anycast(b"nobody", 3).await;
    assert!(matches!(nobody, Err(Error::NoMember { group: 6000 })));
    two.leave().unwrap();
    let left = one.recv().await.unwrap();
    assert!(matches!(left, GroupEvent::Left(member) if member.socket == to));
}

/// On one thread: the waiting sender must give way to the reader it waits for.
#[tokio::test]
async fn a_sender_to_a_group_waits_for_the_slowest_member() {
    let host = Host::start();
    let (sender, slow, quick) = (member(&host, 1), member(&host, 2), member(&host, 3));
    for _ in 0..2 {
        assert!(matches!(sender.recv().await, Ok(GroupEvent::Joined(_))));
    }
    let sending = tokio::spawn(async move {
        for n in 0..40u8 {
            sender.broadcast(&[n; 10_000]).await.unwrap();
        }
    });
    let reading = tokio::spawn(async move {
        for n in 0..40u8 {
            assert_eq!(next_message(&quick).await, [n; 10_000]);
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!sending.is_finished(), "a member has room for six of them");
    for n in 0..40u8 {
        assert_eq!(next_message(&slow).await, [n; 10_000]);
    }
    sending.await.unwrap();
    reading.await.unwrap();
}

#[tokio::test]
async fn a_cancelled_send_has_not_sent_and_holds_up_no_other() {
    let host = Host::start();
    let (sender, full, free) = (member(&host, 1), member(&host, 2), member(&host, 3));
    for _ in 0..2 {
        assert!(matches!(sender.recv().await, Ok(GroupEvent::Joined(_))));
    }
    let (to_full, to_free) = (full.local_addr().unwrap(), free.local_addr().unwrap());
    let patience = Duration::from_millis(50);
    let mut sent = 0;
    while let Ok(result) =
        tokio::time::timeout(patience, sender.send_to(&[1; 10_000], to_full)).await
    {
        result.unwrap();
        sent += 1;
    }
    sender.send_to(b"free", to_free).await.unwrap();
    assert_eq!(next_message(&free).await, b"free");
    for _ in 0..sent {
        assert_eq!(next_message(&full).await, [1; 10_000]);
    }
    sender.send_to(b"last", to_full).await.unwrap();
    assert_eq!(next_message(&full).await, b"last");
}
