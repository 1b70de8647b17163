//! Direct channels from program to program: the API, the channel, the daemon that makes it. That all else of connections is
//! the same over them is shown by the tests of connections and by the situations, which run over them too.

mod host;

use std::ffi::OsStr;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::{
    Connection, ConnectionKind, Datagram, Error, Kind, Listener, Node, Scope, ServiceAddress,
    SharedMessage,
};
use xtipc_management::{AttachmentInfo, SocketInfo};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 6000,
    instance: 1,
};
const SEQPACKET: ConnectionKind = ConnectionKind::Seqpacket;

fn direct_host() -> Host {
    Host::start_with(&["--direct-after=1"])
}

/// Sends there and back until both ends send directly.
fn warm_up(one: &Connection, other: &Connection) {
    for _ in 0..4 {
        for (from, to) in [(one, other), (other, one)] {
            from.send(b"warm-up").unwrap();
            assert_eq!(&*to.recv().unwrap().unwrap(), b"warm-up");
        }
    }
    assert!(one.is_direct().unwrap() && other.is_direct().unwrap());
}

fn direct_pair(host: &Host, kind: ConnectionKind) -> (Connection, Connection) {
    let (one, other, _) = host.connect(&host.attach(), kind, SERVICE);
    warm_up(&one, &other);
    (one, other)
}

#[test]
fn nothing_is_lost_or_reordered_while_both_ends_switch() {
    const MESSAGES: u32 = 5000;
    let host = Host::start_with(&["--direct-after=100"]);
    for kind in [SEQPACKET, ConnectionKind::Stream] {
        let (one, other, _) = host.connect(&host.attach(), kind, SERVICE);
        let exchange = |own: &Connection| {
            thread::scope(|s| {
                s.spawn(|| {
                    for n in 0..MESSAGES {
                        own.send(&n.to_ne_bytes().repeat(1 + n as usize % 100))
                            .unwrap();
                    }
                });
                let mut stream = Vec::new();
                for n in 0..MESSAGES {
                    let expected = n.to_ne_bytes().repeat(1 + n as usize % 100);
                    while stream.len() < expected.len() {
                        stream.extend_from_slice(&own.recv().unwrap().unwrap());
                    }
                    assert_eq!(
                        stream.drain(..expected.len()).collect::<Vec<u8>>(),
                        expected
                    );
                }
            });
            own.is_direct().unwrap()
        };
        thread::scope(|s| {
            let far = s.spawn(|| exchange(&other));
            assert!(exchange(&one));
            assert!(far.join().unwrap());
        });
    }
}

#[test]
fn who_sleeps_is_woken_by_the_peer_alone_and_a_time_limit_holds() {
    let host = direct_host();
    let (one, other) = direct_pair(&host, SEQPACKET);
    other.set_read_timeout(Some(Duration::from_millis(30)));
    assert!(matches!(other.recv(), Err(Error::TimedOut)));
    other.set_read_timeout(None);
    thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..20 {
                assert_eq!(&*other.recv().unwrap().unwrap(), b"hello");
                other.send(b"again").unwrap();
            }
        });
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(3));
            one.send(b"hello").unwrap();
            assert_eq!(&*one.recv().unwrap().unwrap(), b"again");
        }
    });
}

#[test]
fn a_sender_waits_for_a_slow_reader_and_hears_of_its_end() {
    let host = direct_host();
    let (one, other) = direct_pair(&host, SEQPACKET);
    thread::scope(|s| {
        let sender = s.spawn(|| {
            let mut sent = 0;
            while one.send(&[7; 3000]).is_ok() {
                sent += 1;
            }
            sent
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!sender.is_finished());
        for _ in 0..200 {
            assert_eq!(other.recv().unwrap().unwrap().len(), 3000);
        }
        drop(other);
        assert!(sender.join().unwrap() >= 200);
    });
    assert!(matches!(one.recv(), Err(Error::Io(_))), "it was reset");
}

#[test]
fn the_daemon_counts_what_goes_past_it_and_what_of_it_is_unread() {
    const UNREAD: u32 = 3;
    let host = direct_host();
    let node = host.attach();
    let (one, other, _) = host.connect(&node, SEQPACKET, SERVICE);
    warm_up(&one, &other);
    let port = other.local_addr().unwrap().port;
    let counted = || {
        let sockets = host.tool().sockets(true).unwrap();
        sockets
            .into_iter()
            .find(|socket| socket.port == port)
            .unwrap()
    };
    let direct = |socket: &SocketInfo| socket.details.as_ref().and_then(|d| d.channel).unwrap();
    let before = direct(&counted());
    for _ in 0..10 + UNREAD {
        one.send(&[7; 300]).unwrap();
    }
    for _ in 0..10 {
        other.recv().unwrap().unwrap();
    }
    let socket = counted();
    assert_eq!(socket.receive_queue_messages, u64::from(UNREAD));
    assert_eq!(socket.receive_queue_bytes, u64::from(UNREAD) * (300 + 512));
    let channel = direct(&socket);
    assert_eq!(channel.received - before.received, u64::from(10 + UNREAD));
    assert_eq!((channel.sent, channel.unread), (before.sent, UNREAD));

    let sum = |of: fn(&AttachmentInfo) -> u64| {
        let status = host.tool().status().unwrap();
        status.attachments.iter().map(of).sum::<u64>()
    };
    let sent_directly = || sum(|attachment| attachment.sent_directly);
    let all = sum(|attachment| attachment.may_go_directly);
    assert_eq!(sent_directly(), channel.sent + channel.received);
    // Of the warm-up, and what was sent since.
    assert_eq!(all, 8 + u64::from(10 + UNREAD));
    drop(one);
    drop(other);
    // What is asked for behind the close is answered behind it.
    Datagram::open(&node, Kind::Rdm).unwrap();
    let by_node = channel.received;
    assert!(
        sent_directly() >= by_node,
        "also of a socket that is no more"
    );
}

#[test]
fn what_was_sent_before_the_end_is_read_before_the_end() {
    let host = direct_host();
    let (one, other) = direct_pair(&host, SEQPACKET);
    for n in 0..100u8 {
        one.send(&[n; 500]).unwrap();
    }
    one.shutdown().unwrap();
    for n in 0..100u8 {
        assert_eq!(*other.recv().unwrap().unwrap(), [n; 500]);
    }
    assert!(other.recv().unwrap().is_none());
    assert!(other.send(b"x").is_err());
}

#[test]
fn sharing_leaves_the_channel_and_nothing_is_lost_or_reordered() {
    const MESSAGES: u32 = 3000;
    let host = direct_host();
    for kind in [SEQPACKET, ConnectionKind::Stream] {
        let (one, other) = direct_pair(&host, kind);
        let adopter = host.attach();
        thread::scope(|s| {
            s.spawn(|| {
                for n in 0..MESSAGES {
                    one.send(&n.to_be_bytes()).unwrap();
                }
            });
            let mut all = Vec::new();
            let mut part = [0; 4];
            for _ in 0..100 {
                (&other).read_exact(&mut part).unwrap();
                all.extend_from_slice(&part);
            }
            if kind == ConnectionKind::Stream {
                all.push(0);
                (&other).read_exact(&mut part[..1]).unwrap();
            }
            thread::sleep(Duration::from_millis(5));
            let handle = other.share().unwrap();
            assert!(!other.is_direct().unwrap());
            let adopted = Connection::adopt(&adopter, &handle).unwrap();
            drop(other);
            while all.len() < MESSAGES as usize * 4 {
                all.extend_from_slice(&adopted.recv().unwrap().unwrap());
            }
            let expected: Vec<u8> = (0..MESSAGES).flat_map(u32::to_be_bytes).collect();
            assert_eq!(all, expected);
            adopted.send(b"back").unwrap();
            assert_eq!(&*one.recv().unwrap().unwrap(), b"back");
        });
    }
}

#[test]
fn loans_arrive_whole_by_the_channel_and_without_one() {
    for (direct, option) in [(false, "--direct-after=0"), (true, "--direct-after=1")] {
        let host = Host::start_with(&[option]);
        let (one, other, _) = host.connect(&host.attach(), SEQPACKET, SERVICE);
        if direct {
            warm_up(&one, &other);
        }
        let mut held = Vec::new();
        for fill in 1..=5u8 {
            let mut loan = one.loan(66_000).unwrap();
            assert_eq!(loan.len(), 66_000);
            loan.write(0, &[fill; 66_000]);
            loan.write(65_999, b"!");
            drop(one.loan(66_000).unwrap());
            assert_eq!(one.send_loan(loan).unwrap(), 66_000);
            let message = other.recv_shared().unwrap().unwrap();
            assert_eq!(matches!(message, SharedMessage::Shared(_)), direct);
            held.push((fill, message));
        }
        held.swap(0, 3);
        for (fill, message) in held {
            let bytes = message.to_vec();
            assert_eq!((bytes[0], bytes[65_998], bytes[65_999]), (fill, fill, b'!'));
            let mut last = [0; 2];
            message.copy_to(65_998, &mut last);
            assert_eq!(last, [fill, b'!']);
        }
        // Who does not ask for it as a loan gets a message like any other.
        let mut loan = one.loan(1000).unwrap();
        loan.write(0, &[9; 1000]);
        one.send_loan(loan).unwrap();
        assert_eq!(*other.recv().unwrap().unwrap(), [9; 1000]);
    }
}

/// Set for the process that is killed: the attach socket.
const VICTIM: &str = "XTIPC_TEST_ATTACH_SOCKET";

#[test]
fn a_program_that_is_killed_is_seen_at_once_behind_what_it_sent() {
    if let Some(attach_socket) = std::env::var_os(VICTIM) {
        return answer_all(&attach_socket);
    }
    let host = direct_host();
    let listener = Listener::bind(&host.attach(), SEQPACKET, SERVICE, Scope::Cluster).unwrap();
    let name = "a_program_that_is_killed_is_seen_at_once_behind_what_it_sent";
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(VICTIM, host.attach_socket())
        .spawn()
        .unwrap();
    let (own, _) = listener.accept().unwrap();
    for n in 0..10u8 {
        own.send(&[n]).unwrap();
        assert_eq!(*own.recv().unwrap().unwrap(), [n]);
    }
    assert!(own.is_direct().unwrap());
    let port = own.local_addr().unwrap().port;
    own.send(b"last").unwrap();
    // Its echo has come, and is not read yet.
    host.await_socket(port, |socket| socket.receive_queue_messages > 0);
    victim.kill().unwrap();
    let killed = Instant::now();
    assert_eq!(&*own.recv().unwrap().unwrap(), b"last");
    assert!(matches!(own.recv(), Err(Error::Io(_))), "it was reset");
    assert!(killed.elapsed() < Duration::from_secs(1));
    victim.wait().unwrap();
}

fn answer_all(attach_socket: &OsStr) {
    let node = Node::builder().socket_path(attach_socket).attach().unwrap();
    let own = Connection::connect(&node, SEQPACKET, SERVICE).unwrap();
    while let Ok(Some(message)) = own.recv() {
        own.send(&message).unwrap();
    }
}

#[test]
fn many_at_once_arrive_like_one_by_one_and_the_end_behind_them() {
    const MESSAGES: u32 = 3000;
    for option in ["--direct-after=0", "--direct-after=20"] {
        let host = Host::start_with(&[option]);
        let (one, other, _) = host.connect(&host.attach(), SEQPACKET, SERVICE);
        let all: Vec<_> = (0..MESSAGES)
            .map(|n| n.to_ne_bytes().repeat(1 + n as usize % 100))
            .collect();
        let mut received = Vec::new();
        thread::scope(|s| {
            s.spawn(|| {
                let mut sent = 0;
                while sent < all.len() {
                    let count = one.send_many(&all[sent..(sent + 70).min(all.len())]);
                    sent += count.unwrap();
                }
                one.shutdown().unwrap();
            });
            loop {
                let before = received.len();
                let count = other.recv_many(&mut received, 40).unwrap();
                assert_eq!(received.len() - before, count);
                assert!(count <= 40);
                if count == 0 {
                    break;
                }
            }
        });
        assert!(received.iter().map(|message| &message[..]).eq(all));
    }
}

#[test]
fn many_at_once_are_not_lost_when_the_peer_leaves_the_channel() {
    const MESSAGES: u32 = 3000;
    let host = direct_host();
    let (one, other) = direct_pair(&host, SEQPACKET);
    let adopter = host.attach();
    thread::scope(|s| {
        s.spawn(|| {
            let all: Vec<_> = (0..MESSAGES).map(u32::to_be_bytes).collect();
            let mut sent = 0;
            while sent < all.len() {
                sent += one.send_many(&all[sent..]).unwrap();
            }
        });
        let mut received = Vec::new();
        while received.len() < 100 {
            other.recv_many(&mut received, 100).unwrap();
        }
        let handle = other.share().unwrap();
        let adopted = Connection::adopt(&adopter, &handle).unwrap();
        while received.len() < MESSAGES as usize {
            adopted.recv_many(&mut received, 100).unwrap();
        }
        for (n, message) in (0..MESSAGES).zip(&received) {
            assert_eq!(**message, n.to_be_bytes());
        }
    });
}
