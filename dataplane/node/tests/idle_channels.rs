//! Direct channels that nothing goes by: left by both ends, with their memory, and made again.

mod host;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use xtipc::{Connection, ConnectionKind, ServiceAddress};

const SERVICE: ServiceAddress = ServiceAddress {
    type_: 6000,
    instance: 1,
};
const SEQPACKET: ConnectionKind = ConnectionKind::Seqpacket;
/// Of one application.
const CHANNELS_MAX: usize = 64;

/// Sends there and back until both ends send directly.
fn warm_up(one: &Connection, other: &Connection) {
    let are_direct = || one.is_direct().unwrap() && other.is_direct().unwrap();
    for _ in 0..200 {
        for (from, to) in [(one, other), (other, one)] {
            from.send(b"warm-up").unwrap();
            assert_eq!(&*to.recv().unwrap().unwrap(), b"warm-up");
        }
        if are_direct() {
            return;
        }
    }
    panic!("no channel was made");
}

/// Inodes of the channels that a process has mapped.
fn mapped(process: &str) -> HashSet<String> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let channels = maps.lines().filter(|line| line.contains("xtipc-channel"));
    channels
        .filter_map(|line| line.split_whitespace().nth(4))
        .map(str::to_string)
        .collect()
}

/// Calls until `is_so`, for a few seconds.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_idle_channel_is_left_its_memory_returns_and_another_one_is_made() {
    let host = Host::start_with(&["--direct-after=1", "--direct-idle=1"]);
    let (one, other, _) = host.connect(&host.attach(), SEQPACKET, SERVICE);
    let daemon = host.pid().to_string();
    for _ in 0..2 {
        warm_up(&one, &other);
        let channel = mapped(&daemon);
        assert_eq!(channel.len(), 1);
        assert!(channel.is_subset(&mapped("self")));
        thread::scope(|s| {
            // One end is asleep in a call, the other one comes back now and then.
            let asleep = s.spawn(|| one.recv().unwrap().unwrap());
            wait_until("the channel is left", || {
                assert!(other.try_recv().is_err());
                !other.is_direct().unwrap() && mapped(&daemon).is_empty()
            });
            assert!(!one.is_direct().unwrap());
            assert!(channel.is_disjoint(&mapped("self")), "memory is left");
            other.send(b"again").unwrap();
            assert_eq!(&*asleep.join().unwrap(), b"again");
        });
    }
}

#[test]
fn a_channel_with_unread_messages_is_kept_and_what_is_on_loan_outlives_it() {
    let host = Host::start_with(&["--direct-after=1", "--direct-idle=1"]);
    let (one, other, _) = host.connect(&host.attach(), SEQPACKET, SERVICE);
    warm_up(&one, &other);
    let mut loan = one.loan(1000).unwrap();
    loan.write(0, &[1; 1000]);
    one.send_loan(loan).unwrap();
    thread::sleep(Duration::from_secs(3));
    assert!(one.try_recv().is_err());
    assert!(one.is_direct().unwrap());
    let held = other.recv_shared().unwrap().unwrap();
    let mut late = one.loan(1000).unwrap();
    late.write(0, &[2; 1000]);
    wait_until("the channel is left", || {
        assert!(other.try_recv().is_err() && one.try_recv().is_err());
        mapped(&host.pid().to_string()).is_empty()
    });
    assert_eq!(held.to_vec(), [1; 1000]);
    warm_up(&one, &other);
    // Of a channel that was left, while there is another one.
    one.send_loan(late).unwrap();
    assert_eq!(*other.recv().unwrap().unwrap(), [2; 1000]);
    assert!(one.is_direct().unwrap());
    drop(held);
    warm_up(&one, &other);
}

#[test]
fn nothing_is_lost_or_reordered_where_traffic_and_leaving_meet() {
    const PAIRS: u32 = 12;
    const BURSTS: u32 = 6;
    const BURST: u32 = 60;
    let host = Host::start_with(&["--direct-after=1", "--direct-idle=1"]);
    let was_left = AtomicBool::new(false);
    thread::scope(|s| {
        for number in 0..PAIRS {
            let service = ServiceAddress {
                instance: number,
                ..SERVICE
            };
            let (one, other, _) = host.connect(&host.attach(), SEQPACKET, service);
            for (own, side) in [(one, 0), (other, 1)] {
                let was_left = &was_left;
                s.spawn(move || {
                    for burst in 0..BURSTS {
                        // Channels are looked at once a second: the bursts come then, before and after.
                        let pause = 950 + (number * 97 + burst * 61 + side * 3) % 1200;
                        thread::sleep(Duration::from_millis(pause.into()));
                        for n in burst * BURST..(burst + 1) * BURST {
                            own.send(&n.to_ne_bytes()).unwrap();
                        }
                        for n in burst * BURST..(burst + 1) * BURST {
                            assert_eq!(*own.recv().unwrap().unwrap(), n.to_ne_bytes());
                        }
                    }
                    // One that is being left while the last burst goes is not made again.
                    if own.is_direct().unwrap() {
                        wait_until("the channel is left", || {
                            assert!(own.try_recv().is_err());
                            !own.is_direct().unwrap()
                        });
                        was_left.store(true, Ordering::Relaxed);
                    }
                });
            }
        }
    });
    assert!(was_left.into_inner());
}

#[test]
fn who_has_too_many_channels_gives_up_the_one_that_was_idle_the_longest() {
    let host = Host::start_with(&["--direct-after=1", "--direct-idle=0"]);
    let node = host.attach();
    let connect = |number: usize| {
        let service = ServiceAddress {
            instance: number as u32,
            ..SERVICE
        };
        let (one, other, _) = host.connect(&node, SEQPACKET, service);
        (one, other)
    };
    let pairs: Vec<_> = (0..CHANNELS_MAX).map(connect).collect();
    for (one, other) in &pairs {
        warm_up(one, other);
    }
    // All but the fourth have something to do.
    let (idle, rest) = (3, Duration::from_millis(2500));
    let begun = Instant::now();
    while begun.elapsed() < rest {
        for (number, (one, other)) in pairs.iter().enumerate() {
            if number != idle {
                one.send(b"x").unwrap();
                other.recv().unwrap().unwrap();
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    let (one, other) = connect(CHANNELS_MAX);
    warm_up(&one, &other);
    let direct = |pair: &&(Connection, Connection)| pair.0.is_direct().unwrap();
    assert_eq!(pairs.iter().filter(direct).count(), CHANNELS_MAX - 1);
    assert!(!pairs[idle].0.is_direct().unwrap());
}
