//! Groups from program to program: the API, shared memory, the daemon. The node has no bearer, so it needs no
//! privileges; groups of several nodes are the business of the simulator and of `tests/interop`.

mod host;

use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::{
    Datagram, Error, EventKind, Group, GroupEvent, Joining, Kind, Scope, ServiceAddress,
    ServiceRange, Subscriber, Subscription,
};

const GROUP: u32 = 5000;

fn address(instance: u32) -> ServiceAddress {
    ServiceAddress {
        type_: GROUP,
        instance,
    }
}

fn join(host: &Host, instance: u32) -> Group {
    Group::join(&host.attach(), address(instance), Joining::default()).unwrap()
}

/// What a member receives next, in words.
fn next(group: &Group) -> String {
    match group.recv_timeout(Duration::from_secs(10)).unwrap() {
        GroupEvent::Message { from, message } => {
            let text = str::from_utf8(&message).unwrap();
            format!("{}:{text}", from.address.instance)
        }
        GroupEvent::Joined(member) => format!("+{}", member.address.instance),
        GroupEvent::Left(member) => format!("-{}", member.address.instance),
    }
}

#[test]
fn members_hear_of_each_other_and_exchange_messages_in_every_mode() {
    let host = Host::start();
    let (a, b, c) = (join(&host, 1), join(&host, 2), join(&host, 2));
    assert_eq!([next(&a), next(&a)], ["+2", "+2"]);
    for other in [&b, &c] {
        let mut seen = [next(other), next(other)];
        seen.sort();
        assert_eq!(seen, ["+1", "+2"]);
    }
    a.broadcast(b"all").unwrap();
    a.multicast(b"both", 2).unwrap();
    a.send_to(b"one", b.local_addr().unwrap()).unwrap();
    a.anycast(b"any", 2).unwrap();
    a.anycast(b"any", 2).unwrap();
    assert_eq!(
        [next(&b), next(&b), next(&b), next(&b)],
        ["1:all", "1:both", "1:one", "1:any"]
    );
    assert_eq!([next(&c), next(&c), next(&c)], ["1:all", "1:both", "1:any"]);
    assert!(matches!(a.try_recv(), Err(Error::WouldBlock)));
    let far = a.multicast(b"nobody", 9);
    assert!(matches!(far, Err(Error::NoMember { group: GROUP })));
    c.leave().unwrap();
    drop(b);
    assert_eq!([next(&a), next(&a)], ["-2", "-2"]);
    assert!(matches!(a.broadcast(b"alone"), Err(Error::NoMember { .. })));
}

#[test]
fn a_member_and_a_subscriber_can_spin_for_what_comes() {
    let host = Host::start();
    let subscriber = Subscriber::open(&host.attach()).unwrap();
    let group = ServiceRange::from(address(1));
    subscriber
        .subscribe(&Subscription::bindings(group))
        .unwrap();
    let soon = || Instant::now() + Duration::from_millis(20);
    let later = || Instant::now() + Duration::from_secs(10);
    assert!(matches!(subscriber.recv_spin(soon()), Err(Error::TimedOut)));
    let (a, b) = (join(&host, 1), join(&host, 2));
    let event = subscriber.recv_spin(later()).unwrap();
    assert_eq!((event.kind, event.range), (EventKind::Published, group));
    let joined = a.recv_spin(later()).unwrap();
    assert!(matches!(joined, GroupEvent::Joined(member) if member.address == address(2)));
    b.broadcast(b"hello").unwrap();
    let heard = a.recv_spin(later()).unwrap();
    assert!(matches!(heard, GroupEvent::Message { message, .. } if *message == *b"hello"));
    assert!(matches!(a.recv_spin(soon()), Err(Error::TimedOut)));
}

#[test]
fn a_member_with_loopback_and_without_events_gets_its_own_messages_only() {
    let host = Host::start();
    let joining = Joining {
        loopback: true,
        events: false,
        scope: Scope::Node,
        kind: Kind::Dgram,
    };
    let alone = Group::join(&host.attach(), address(1), joining).unwrap();
    alone.broadcast(b"to myself").unwrap();
    assert_eq!(next(&alone), "1:to myself");
}

#[test]
fn senders_wait_for_a_member_that_does_not_read_and_get_through_when_it_does() {
    let host = Host::start();
    let slow = join(&host, 0);
    let to = slow.local_addr().unwrap();
    let senders = 8;
    let each = 100u32;
    let threads: Vec<_> = (1..=senders)
        .map(|n| {
            let node = host.attach();
            thread::spawn(move || {
                let group = Group::join(&node, address(n), Joining::default()).unwrap();
                while next(&group) != "+0" {}
                for number in 0..each {
                    let mut bytes = vec![0; 10_000];
                    bytes[..4].copy_from_slice(&number.to_be_bytes());
                    group.send_to(&bytes, to).unwrap();
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(100));
    let mut expected = vec![0u32; senders as usize + 1];
    let mut left = 0;
    while left < senders {
        match slow.recv_timeout(Duration::from_secs(10)).unwrap() {
            GroupEvent::Message { from, message } => {
                let sender = from.address.instance as usize;
                assert_eq!(message[..4], expected[sender].to_be_bytes());
                expected[sender] += 1;
            }
            GroupEvent::Joined(_) => {}
            GroupEvent::Left(member) => {
                assert_eq!(expected[member.address.instance as usize], each);
                left += 1;
            }
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_full_window_is_no_error_for_who_does_not_wait() {
    let host = Host::start();
    let (a, b) = (join(&host, 1), join(&host, 2));
    a.socket().set_nonblocking(true);
    let mut sent = 0;
    while a.broadcast(&[7; 1000]).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 32);
    assert!(matches!(a.broadcast(&[7; 1000]), Err(Error::WouldBlock)));
    assert_eq!(next(&b), "+1");
    a.socket().set_nonblocking(false);
    a.socket()
        .set_write_timeout(Some(Duration::from_millis(50)));
    assert!(matches!(a.broadcast(&[7; 1000]), Err(Error::TimedOut)));
    a.socket().set_write_timeout(None);
    b.recv().unwrap();
    a.broadcast(&[7; 1000]).unwrap();
}

#[test]
fn what_a_member_may_not_is_refused_as_by_linux() {
    let host = Host::start();
    let node = host.attach();
    let reserved = ServiceAddress {
        type_: 63,
        instance: 1,
    };
    let refused = Group::join(&node, reserved, Joining::default()).unwrap_err();
    assert!(matches!(refused, Error::ReservedType { type_: 63 }));
    let group = Group::join(&node, address(1), Joining::default()).unwrap();
    let socket: &Datagram = group.socket();
    let other = ServiceAddress {
        type_: 7000,
        instance: 1,
    };
    assert_eq!(
        socket.bind(other, Scope::Cluster).unwrap_err().errno(),
        libc::EACCES
    );
    assert_eq!(socket.connect(other).unwrap_err().errno(), libc::EINVAL);
}

#[test]
fn a_send_behind_one_that_is_taken_back_goes_out() {
    let host = Host::start();
    let (sender, full, free) = (join(&host, 1), join(&host, 2), join(&host, 3));
    assert_eq!([next(&sender), next(&sender)], ["+2", "+3"]);
    let (to_full, to_free) = (full.local_addr().unwrap(), free.local_addr().unwrap());
    let socket = sender.socket();
    socket.set_nonblocking(true);
    while sender.send_to(&[1; 10_000], to_full).is_ok() {}
    socket.set_nonblocking(false);
    socket.set_write_timeout(Some(Duration::from_millis(300)));
    thread::scope(|s| {
        let first = s.spawn(|| sender.send_to(&[1; 10_000], to_full));
        thread::sleep(Duration::from_millis(100));
        socket.set_write_timeout(Some(Duration::from_secs(10)));
        sender.send_to(b"behind", to_free).unwrap();
        assert!(matches!(first.join().unwrap(), Err(Error::TimedOut)));
    });
}
