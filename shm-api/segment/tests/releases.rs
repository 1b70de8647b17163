//! What becomes of delivered messages: each leaves the receive buffer of its socket once, in whichever way its reader lets
//! go of it.

#![cfg(not(loom))]

use std::os::fd::OwnedFd;

use proptest::prelude::*;
use xtipc_segment::application::{ApplicationSide, DeliveryBuffer, SHORT_MAX};
use xtipc_segment::daemon::{Consumed, DaemonSide};
use xtipc_segment::layout::Sizes;
use xtipc_segment::{Meta, Violation};

const SIZES: Sizes = Sizes {
    submissions: 8,
    deliveries: 64,
    submission_arena: 128 << 10,
    delivery_arena: 128 << 10,
};
const RELEASE_TAIL: u64 = 1024 + 4 * 128;
const RELEASES: u64 = 4096 + 8 * 64;

fn pair() -> (DaemonSide, ApplicationSide, OwnedFd) {
    let (daemon, fds) = DaemonSide::create(&SIZES).expect("memory for a small segment");
    let area = fds.application.try_clone().expect("fd");
    let application = ApplicationSide::map(fds).expect("our own segment");
    (daemon, application, area)
}

fn deliver(daemon: &mut DaemonSide, cookie: u64, len: usize) -> bool {
    let meta = Meta {
        socket: 1,
        cookie,
        cost: 100,
        ..Meta::default()
    };
    let delivered = daemon.deliver(&meta, len, |room| room.fill(cookie as u8));
    delivered.is_ok()
}

/// Reads the next message where it is, if it is short.
fn use_up(app: &mut ApplicationSide) -> Option<u8> {
    let next = app.receiver.look_at_delivery().expect("honest")?;
    let first = next.short()?[0];
    next.use_up(&mut app.releaser).expect("room");
    Some(first)
}

fn drain(daemon: &mut DaemonSide) -> (usize, Vec<Consumed>) {
    let mut consumed = Vec::new();
    let returned = daemon.drain_releases(1000, |notice| {
        let one = Consumed { count: 1, ..notice };
        consumed.extend(std::iter::repeat_n(one, notice.count as usize));
    });
    (returned.expect("honest application"), consumed)
}

fn read(area: &OwnedFd, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::pread(area, &mut bytes, offset).expect("readable");
    u64::from_ne_bytes(bytes)
}

#[test]
fn messages_used_up_one_after_the_other_go_back_by_one_entry() {
    let (mut daemon, mut app, area) = pair();
    let mut entries = 0;
    for round in 0..40 {
        for cookie in 0..10 {
            assert!(deliver(&mut daemon, cookie, SHORT_MAX));
        }
        for cookie in 0..10 {
            assert_eq!(use_up(&mut app), Some(cookie));
        }
        assert_eq!(drain(&mut daemon).0, 0, "there is no entry yet");
        app.releaser.ring_doorbell().expect("room");
        entries += 1;
        assert_eq!(read(&area, RELEASE_TAIL) as u32, entries, "round {round}");
        let (returned, consumed) = drain(&mut daemon);
        assert_eq!((returned, consumed.len()), (10, 10));
        let cookies = consumed.iter().map(|c| (c.read, c.cookie));
        assert!(cookies.eq((0..10).map(|cookie| (true, cookie))));
    }
    assert_eq!(daemon.delivered(), 0);
}

#[test]
fn of_messages_alike_that_go_back_together_there_is_one_notice() {
    let (mut daemon, mut app, _) = pair();
    for cookie in [1, 1, 1, 2, 1] {
        deliver(&mut daemon, cookie, 10);
        use_up(&mut app);
    }
    app.releaser.ring_doorbell().expect("room");
    let mut notices = Vec::new();
    let drained = daemon.drain_releases(1, |notice| {
        assert_eq!((notice.socket, notice.cost, notice.read), (1, 100, true));
        notices.push((notice.cookie, notice.count));
    });
    assert_eq!(drained, Ok(5));
    assert_eq!(notices, [(1, 3), (2, 1), (1, 1)]);
}

#[test]
fn only_a_message_with_bytes_and_not_too_many_is_short() {
    let (mut daemon, mut app, _) = pair();
    for len in [0, 1, SHORT_MAX, SHORT_MAX + 1] {
        assert!(deliver(&mut daemon, 7, len));
        let next = app.receiver.look_at_delivery().expect("honest");
        let next = next.expect("one");
        let is_short = (1..=SHORT_MAX).contains(&len);
        assert_eq!((next.len(), next.short().is_some()), (len, is_short));
        let (_, buffer) = next.take();
        app.releaser.discarded(buffer).expect("room");
    }
    assert_eq!(drain(&mut daemon).0, 4);
}

#[test]
fn what_a_reader_used_up_before_its_end_is_not_unread() {
    let (mut daemon, mut app, _) = pair();
    for cookie in 0..4 {
        deliver(&mut daemon, cookie, 10);
    }
    assert_eq!((use_up(&mut app), use_up(&mut app)), (Some(0), Some(1)));
    app.releaser.ring_doorbell().expect("room");
    let (mut consumed, mut unread) = (Vec::new(), Vec::new());
    let taken = daemon.take_unread(
        Some(1),
        |notice| consumed.push((notice.cookie, notice.count)),
        |meta, bytes| unread.push((meta.cookie, bytes.to_vec())),
    );
    taken.expect("honest");
    assert_eq!(consumed, [(0, 1), (1, 1)]);
    assert_eq!(unread, [(2, vec![2; 10]), (3, vec![3; 10])]);
    // It may have been about to.
    assert_eq!((use_up(&mut app), use_up(&mut app)), (Some(2), Some(3)));
    app.releaser.ring_doorbell().expect("room");
    assert_eq!(drain(&mut daemon), (2, vec![]));
}

#[test]
fn an_entry_for_more_messages_than_were_delivered_is_a_violation() {
    let (mut daemon, mut app, area) = pair();
    for cookie in 0..3 {
        deliver(&mut daemon, cookie, 10);
        use_up(&mut app);
    }
    app.releaser.ring_doorbell().expect("room");
    let more = |entry: u64| entry >> 48 & 0xff;
    let entry = read(&area, RELEASES);
    assert_eq!(more(entry), 2);
    let entry = (entry | 0xff << 48).to_ne_bytes();
    rustix::io::pwrite(&area, &entry, RELEASES).expect("writable");
    let mut consumed = 0;
    let drained = daemon.drain_releases(10, |notice| consumed += notice.count);
    assert!(matches!(drained, Err(Violation::Buffer { .. })));
    assert_eq!((consumed, daemon.delivered()), (3, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn each_message_leaves_its_buffer_once_and_its_memory_comes_back(
        steps in proptest::collection::vec((0u8..8, 0usize..600), 1..300),
    ) {
        let (mut daemon, mut app, _) = pair();
        let mut held: Vec<DeliveryBuffer> = Vec::new();
        let mut unread: Vec<DeliveryBuffer> = Vec::new();
        let mut next = 0;
        let mut noticed = Vec::new();
        for (step, number) in steps {
            match step {
                0 | 1 => next += u64::from(deliver(&mut daemon, next, number)),
                2 => for _ in 0..number % 9 {
                    use_up(&mut app);
                },
                3 => if let Ok(Some((_, buffer))) = app.receiver.next_delivery() {
                    app.releaser.consumed(&buffer).expect("room");
                    held.push(buffer);
                },
                4 => if let Ok(Some((_, mut buffer))) = app.receiver.next_delivery() {
                    if number % 2 == 0 {
                        app.releaser.keep(&mut buffer).expect("room");
                    }
                    unread.push(buffer);
                },
                5 if !held.is_empty() => {
                    let buffer = held.swap_remove(number % held.len());
                    app.releaser.returned(buffer).expect("room");
                }
                6 if !unread.is_empty() => {
                    let buffer = unread.swap_remove(number % unread.len());
                    match number % 3 {
                        0 => app.releaser.returned(buffer).expect("room"),
                        _ => app.releaser.used_up(buffer).expect("room"),
                    }
                }
                _ => {
                    app.releaser.ring_doorbell().expect("room");
                    noticed.extend(drain(&mut daemon).1);
                }
            }
        }
        for buffer in held.into_iter().chain(unread) {
            app.releaser.returned(buffer).expect("room");
        }
        while let Ok(Some((_, buffer))) = app.receiver.next_delivery() {
            app.releaser.used_up(buffer).expect("room");
        }
        app.releaser.ring_doorbell().expect("room");
        noticed.extend(drain(&mut daemon).1);
        let mut cookies: Vec<_> = noticed.iter().map(|notice| notice.cookie).collect();
        cookies.sort_unstable();
        prop_assert!(cookies.into_iter().eq(0..next));
        prop_assert_eq!(daemon.delivered(), 0);
    }
}
