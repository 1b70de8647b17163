//! The sockets for programs of tokio.

mod host;

use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use host::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xtipc::tokio::{Connection, Datagram, Listener, Subscriber};
use xtipc::{
    ConnectionKind, EventKind, Kind, Node, Scope, ServiceAddress, ServiceRange, Subscription,
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
