//! Both sides of a segment in one process.

#![cfg(not(loom))]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xtipc_segment::application::{ApplicationSide, DeliveryBuffer, Place, drain_wake};
use xtipc_segment::batch::{BATCH_LEN_MAX, BATCH_MESSAGES_MAX};
use xtipc_segment::daemon::{
    Consumed, DaemonSide, DeliverError, MessageRef, PayloadRef, SegmentFds,
};
use xtipc_segment::layout::Sizes;
use xtipc_segment::{
    Completion, Destination, Meta, PayloadPlace, Request, SendFlags, ServiceAddress, SocketAddress,
    SocketKind, Submission, Violation,
};

const SMALL: Sizes = Sizes {
    submissions: 8,
    deliveries: 8,
    submission_arena: 128 << 10,
    delivery_arena: 128 << 10,
};

fn pair() -> (DaemonSide, ApplicationSide) {
    let (daemon, fds) = DaemonSide::create(&SMALL).expect("memory for a small segment");
    (daemon, ApplicationSide::map(fds).expect("our own segment"))
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).expect("poll") == 1
}

fn meta(socket: u32, cookie: u64) -> Meta {
    Meta {
        socket,
        cookie,
        cost: 100,
        source: SocketAddress { port: 5, node: 6 },
        ..Meta::default()
    }
}

fn deliver(daemon: &mut DaemonSide, meta: &Meta, payload: &[u8]) -> Result<(), DeliverError> {
    daemon.deliver(meta, payload.len(), |room| room.copy_from_slice(payload))
}

fn drain(daemon: &mut DaemonSide) -> (usize, Vec<Consumed>) {
    let mut consumed = Vec::new();
    let returned = daemon
        .drain_releases(100, |notice| consumed.push(notice))
        .expect("honest application");
    (returned, consumed)
}

fn send(side: &mut ApplicationSide, tag: u64, payload: &[u8]) {
    let staged = side.submitter.stage(payload).expect("room");
    let address = ServiceAddress {
        type_: 1000,
        instance: 1,
    };
    let submission = Submission {
        tag,
        socket: 7,
        request: Request::Send {
            flags: SendFlags::empty(),
            destination: Some(Destination::from(address)),
            payload: staged.place(),
        },
    };
    assert_eq!(side.submitter.push(&submission), Ok(true));
}

#[test]
fn a_request_arrives_with_its_payload_and_is_answered() {
    let (mut daemon, mut app) = pair();
    send(&mut app, 42, b"hello");
    let submission = daemon.pop().expect("honest").expect("one request");
    assert_eq!((submission.tag, submission.socket), (42, 7));
    let payload = daemon.payload(&submission);
    let mut tail = [0; 4];
    payload.copy_to(1, &mut tail);
    assert_eq!((payload.len(), &tail), (5, b"ello"));
    assert_eq!(daemon.pop(), Ok(None));

    daemon.complete(42, -11, [1, 2]).expect("room");
    let answer = Completion {
        tag: 42,
        result: -11,
        values: [1, 2],
    };
    assert_eq!(app.receiver.next_completion(), Ok(Some(answer)));
    assert_eq!(app.receiver.next_completion(), Ok(None));
}

fn batch_of(daemon: &DaemonSide, place: PayloadPlace) -> PayloadRef {
    daemon.payload(&Submission {
        tag: 1,
        socket: 7,
        request: Request::Send {
            flags: SendFlags::POSTED | SendFlags::SEVERAL,
            destination: None,
            payload: place,
        },
    })
}

fn bytes_of(message: MessageRef<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.len()];
    message.copy_to(0, &mut bytes);
    bytes
}

#[test]
fn a_batch_is_taken_message_by_message_and_what_is_left_is_a_batch() {
    let (daemon, mut app) = pair();
    let messages: Vec<Vec<u8>> = (0..9u8).map(|n| vec![n; 7 * usize::from(n)]).collect();
    let (staged, count) = app.submitter.stage_several(&messages).expect("room");
    assert_eq!(count, messages.len());

    let batch = batch_of(&daemon, staged.place());
    let mut taken = batch.messages();
    assert_eq!(
        taken.by_ref().nth(3).map(bytes_of),
        Some(messages[3].clone())
    );
    let rest = taken.from_last().expect("honest");
    assert_eq!(taken.map(bytes_of).collect::<Vec<_>>(), messages[4..]);
    let again: Vec<_> = batch_of(&daemon, rest).messages().map(bytes_of).collect();
    assert_eq!(again, messages[3..]);
}

#[test]
fn a_batch_is_limited_by_number_and_bytes_and_of_one_message_there_is_none() {
    let (_daemon, mut app) = pair();
    let mut count = |len: usize, of: usize| {
        let staged = app.submitter.stage_several(&vec![vec![1; len]; of]);
        staged.map(|(staged, count)| {
            assert!(staged.place().len as usize <= BATCH_LEN_MAX);
            count
        })
    };
    assert_eq!(count(1, 1000), Some(BATCH_MESSAGES_MAX));
    assert_eq!(count(1020, 1000), Some(8));
    assert_eq!(count(5000, 1000), None);
    assert_eq!(count(100, 1), None);
}

#[test]
fn lengths_beyond_a_batch_are_a_violation() {
    let (daemon, mut app) = pair();
    for len in [9, 1000, u32::MAX - 1, u32::MAX] {
        let mut bytes = [4, 0, 0, 0, 5, 5, 5, 5, 0, 0, 0, 0, 6, 6, 6, 6, 6, 6, 6, 6];
        bytes[8..12].copy_from_slice(&len.to_ne_bytes());
        let staged = app.submitter.stage(&bytes).expect("room");
        let batch = batch_of(&daemon, staged.place());
        let mut taken = batch.messages();
        assert_eq!(taken.by_ref().map(bytes_of).collect::<Vec<_>>(), [[5; 4]]);
        assert!(
            matches!(taken.from_last(), Err(Violation::Payload { len: said, .. }) if said == len)
        );
    }
    // More messages than a batch has, and more bytes.
    let empty = [0; 4 * (BATCH_MESSAGES_MAX + 1)];
    for (bytes, good) in [
        (&empty[..], BATCH_MESSAGES_MAX),
        (&[0; BATCH_LEN_MAX + 4], 0),
    ] {
        let staged = app.submitter.stage(bytes).expect("room");
        let batch = batch_of(&daemon, staged.place());
        let mut taken = batch.messages();
        assert_eq!(taken.by_ref().count(), good);
        assert!(taken.from_last().is_err());
    }
    // No room for the length itself.
    let staged = app.submitter.stage(&[0; 3]).expect("room");
    let batch = batch_of(&daemon, staged.place());
    let mut taken = batch.messages();
    assert!(taken.next().is_none() && taken.from_last().is_err());
}

#[test]
fn messages_are_read_in_place_and_their_memory_returned_in_any_order() {
    let (mut daemon, mut app) = pair();
    for n in 0..3u8 {
        deliver(&mut daemon, &meta(u32::from(n), n.into()), &[n; 1000]).expect("room");
    }
    let mut buffers = Vec::new();
    while let Some((meta, buffer)) = app.receiver.next_delivery().expect("honest daemon") {
        assert_eq!(*buffer, [meta.socket as u8; 1000]);
        assert_eq!(meta.source, SocketAddress { port: 5, node: 6 });
        app.releaser.consumed(&buffer).expect("room");
        buffers.push(buffer);
    }
    let (returned, consumed) = drain(&mut daemon);
    assert_eq!((returned, consumed.len()), (0, 3));
    assert!(consumed.iter().all(|c| c.read && c.cost == 100));
    for which in [1, 1, 0] {
        app.releaser.returned(buffers.remove(which)).expect("room");
    }
    assert_eq!(drain(&mut daemon), (3, vec![]));
    assert_eq!(daemon.delivered(), 0);
}

#[test]
fn a_delivery_without_room_succeeds_after_a_return() {
    let (mut daemon, mut app) = pair();
    deliver(&mut daemon, &meta(1, 0), &[1; 66_000]).expect("room");
    let no_room = Err(DeliverError::NoRoom);
    assert_eq!(deliver(&mut daemon, &meta(1, 1), &[2; 66_000]), no_room);
    let (_, buffer) = app.receiver.next_delivery().expect("honest").expect("one");
    app.releaser.discarded(buffer).expect("room");
    assert_eq!(drain(&mut daemon).0, 1);
    deliver(&mut daemon, &meta(1, 1), &[2; 66_000]).expect("room again");
}

#[test]
fn the_number_of_messages_out_is_limited_by_the_delivery_ring() {
    let (mut daemon, mut app) = pair();
    let mut held = Vec::new();
    for _ in 0..8 {
        deliver(&mut daemon, &meta(1, 0), b"x").expect("room");
        held.push(app.receiver.next_delivery().expect("honest").expect("one"));
    }
    let no_room = Err(DeliverError::NoRoom);
    assert_eq!(deliver(&mut daemon, &meta(1, 0), b"x"), no_room);
    for (_, buffer) in held {
        app.releaser.consumed(&buffer).expect("room");
        app.releaser
            .returned(buffer)
            .expect("room for two notices each");
    }
    assert_eq!(drain(&mut daemon).0, 8);
    deliver(&mut daemon, &meta(1, 0), b"x").expect("room again");
}

#[test]
fn unread_messages_come_out_oldest_first_and_are_not_reported_again() {
    let (mut daemon, mut app) = pair();
    for cookie in 0..4 {
        deliver(
            &mut daemon,
            &meta(1 + cookie as u32 % 2, cookie),
            &[cookie as u8],
        )
        .expect("room");
    }
    let (_, first) = app.receiver.next_delivery().expect("honest").expect("one");
    app.releaser.consumed(&first).expect("room");
    let (mut consumed, mut unread) = (0, Vec::new());
    daemon
        .take_unread(
            None,
            |_| consumed += 1,
            |meta, bytes| unread.push((meta.cookie, bytes.to_vec())),
        )
        .expect("honest");
    assert_eq!(consumed, 1);
    assert_eq!(unread, [(1, vec![1]), (2, vec![2]), (3, vec![3])]);
    let (_, second) = app.receiver.next_delivery().expect("honest").expect("one");
    app.releaser.returned(second).expect("room");
    assert_eq!(drain(&mut daemon), (1, vec![]));
}

/// A message taken out of the delivery ring and kept.
fn kept(app: &mut ApplicationSide) -> DeliveryBuffer {
    let (_, mut buffer) = app.receiver.next_delivery().expect("honest").expect("one");
    let bytes = buffer.to_vec();
    app.releaser.keep(&mut buffer).expect("room");
    assert_eq!(*buffer, bytes);
    buffer
}

#[test]
fn a_kept_message_gives_its_memory_back_and_counts_as_unread_until_it_is_consumed() {
    let (mut daemon, mut app) = pair();
    deliver(&mut daemon, &meta(1, 7), &[1; 66_000]).expect("room");
    assert!(!app.receiver.is_crowded());
    let no_room = Err(DeliverError::NoRoom);
    assert_eq!(deliver(&mut daemon, &meta(2, 8), &[2; 66_000]), no_room);
    assert!(app.receiver.is_crowded());
    let first = kept(&mut app);
    assert_eq!(drain(&mut daemon), (1, vec![]));
    assert!(!app.receiver.is_crowded());
    deliver(&mut daemon, &meta(2, 8), &[2; 66_000]).expect("room again");
    assert_eq!(*first, [1; 66_000]);
    app.releaser.consumed(&first).expect("room");
    app.releaser.returned(first).expect("room");
    let second = kept(&mut app);
    app.releaser.returned(second).expect("room");
    let (returned, consumed) = drain(&mut daemon);
    assert_eq!((returned, consumed.len()), (1, 2));
    assert_eq!((consumed[0].cookie, consumed[0].read), (7, true));
    assert_eq!((consumed[1].cookie, consumed[1].read), (8, false));
}

#[test]
fn of_a_kept_message_the_daemon_has_what_it_asked_for_or_was_told_again() {
    let (mut daemon, mut app) = pair();
    for cookie in 0..4 {
        let meta = Meta {
            retained: 2,
            original_len: 3,
            ..meta(1 + cookie as u32 % 2, cookie)
        };
        deliver(&mut daemon, &meta, &[cookie as u8; 3]).expect("room");
    }
    let buffers: Vec<_> = (0..3).map(|_| kept(&mut app)).collect();
    let id = buffers[2].kept_id().expect("it is kept");
    drain(&mut daemon);
    let staged = app.submitter.stage(&[9; 3]).expect("room");
    let payload = staged.place();
    let request = Request::Restore { id, payload };
    let (tag, socket) = (1, 1);
    let submission = Submission {
        tag,
        socket,
        request,
    };
    assert_eq!(app.submitter.push(&submission), Ok(true));
    let submission = daemon.pop().expect("honest").expect("one");
    let payload = daemon.payload(&submission);
    daemon.restore(id, &payload).expect("it is kept");
    let mut unread = Vec::new();
    for socket in [Some(1), None] {
        let note = |meta: &Meta, bytes: &[u8]| unread.push((meta.cookie, bytes.to_vec()));
        daemon.take_unread(socket, |_| (), note).expect("honest");
    }
    let expected = [
        (0, vec![0; 2]),
        (2, vec![9; 3]),
        (1, vec![1; 2]),
        (3, vec![3; 3]),
    ];
    assert_eq!(unread, expected);
    for buffer in buffers {
        app.releaser.returned(buffer).expect("room");
    }
    assert_eq!(drain(&mut daemon), (0, vec![]), "they were taken before");
    assert!(daemon.restore(id + 1, &payload).is_err(), "never kept");
}

#[test]
fn more_notices_than_the_ring_takes_wait_for_the_daemon() {
    let (mut daemon, mut app) = pair();
    let mut held = Vec::new();
    for _ in 0..40 {
        deliver(&mut daemon, &meta(1, 0), b"x").expect("room");
        held.push(kept(&mut app));
        drain(&mut daemon);
    }
    let held = std::thread::scope(|s| {
        let releaser = &mut app.releaser;
        let reader = s.spawn(move || {
            for buffer in &held {
                releaser.consumed(buffer).expect("room in time");
            }
            while !releaser.flush().expect("honest daemon") {
                std::thread::yield_now();
            }
            held
        });
        let mut consumed = 0;
        while consumed < 40 {
            consumed += drain(&mut daemon).1.len();
        }
        reader.join().expect("it ends")
    });
    let overflowed = app.releaser.overflowed();
    assert!(!overflowed.load(Ordering::Relaxed));
    for buffer in held {
        app.releaser.returned(buffer).expect("kept here");
    }
    assert!(overflowed.load(Ordering::Relaxed));
    drain(&mut daemon);
    assert_eq!(app.releaser.flush(), Ok(false), "40 are more than twice 16");
}

#[test]
fn a_buffer_returned_unread_is_reported_as_such() {
    let (mut daemon, mut app) = pair();
    deliver(&mut daemon, &meta(1, 9), b"x").expect("room");
    let (_, buffer) = app.receiver.next_delivery().expect("honest").expect("one");
    app.releaser.returned(buffer).expect("room");
    let (returned, consumed) = drain(&mut daemon);
    assert_eq!(returned, 1);
    assert_eq!((consumed[0].cookie, consumed[0].read), (9, false));
}

#[test]
fn the_application_is_woken_once_per_sleep_and_only_then() {
    let (mut daemon, mut app) = pair();
    deliver(&mut daemon, &meta(1, 0), b"x").expect("room");
    daemon.notify();
    assert!(!is_readable(app.wake.as_fd()), "it does not sleep");

    app.receiver.announce_sleep(false);
    for _ in 0..3 {
        deliver(&mut daemon, &meta(1, 0), b"x").expect("room");
        daemon.notify();
    }
    let mut bytes = [0; 8];
    assert_eq!(rustix::io::read(&app.wake, &mut bytes), Ok(1), "rung once");
    app.receiver.awake();
    deliver(&mut daemon, &meta(1, 0), b"x").expect("room");
    daemon.notify();
    assert!(!is_readable(app.wake.as_fd()), "it is awake");
}

#[test]
fn room_alone_wakes_only_those_who_asked_for_it() {
    let (mut daemon, mut app) = pair();
    for (wants_room, tag) in [(false, 1), (true, 2)] {
        send(&mut app, tag, b"x");
        app.receiver.announce_sleep(wants_room);
        daemon.pop().expect("honest").expect("one");
        daemon.notify();
        assert_eq!(is_readable(app.wake.as_fd()), wants_room);
    }
    drain_wake(app.wake.as_fd());
    assert!(!is_readable(app.wake.as_fd()));
}

#[test]
fn the_answer_to_a_posted_send_wakes_only_those_who_wait_for_room() {
    let (mut daemon, mut app) = pair();
    for (wants_room, tag) in [(false, 1), (true, 2)] {
        send(&mut app, tag, b"x");
        daemon.pop().expect("honest").expect("one");
        daemon.notify();
        app.receiver.announce_sleep(wants_room);
        daemon.complete_posted(tag, -11).expect("room");
        daemon.notify();
        assert_eq!(is_readable(app.wake.as_fd()), wants_room);
        let completion = app.receiver.next_completion().expect("honest");
        assert_eq!(completion.map(|c| (c.tag, c.result)), Some((tag, -11)));
    }
}

#[test]
fn an_application_that_stands_by_is_to_have_the_processor_and_no_bell() {
    let (mut daemon, mut app) = pair();
    assert!(!daemon.stands_by_for_news());
    app.receiver.stand_by(false);
    assert!(daemon.stands_by_for_news());
    assert!(!daemon.notify(), "there is nothing for it");
    send(&mut app, 1, b"x");
    daemon.pop().expect("honest").expect("one");
    assert!(!daemon.notify(), "it did not ask for room");
    for _ in 0..2 {
        deliver(&mut daemon, &meta(1, 0), b"x").expect("room");
        assert!(daemon.notify());
        assert!(!daemon.stands_by_for_news(), "it has not seen it yet");
    }
    while app.receiver.next_delivery().expect("honest").is_some() {}
    daemon.complete_posted(1, 0).expect("room");
    assert!(!daemon.notify(), "nobody waits for that");
    assert!(daemon.stands_by_for_news());
    daemon.complete(2, 0, [0; 2]).expect("room");
    daemon.complete_posted(3, 0).expect("room");
    assert!(daemon.notify());
    assert!(!daemon.stands_by_for_news(), "it has not seen the answer");
    while app.receiver.next_completion().expect("honest").is_some() {}
    assert!(daemon.stands_by_for_news());
    assert!(!is_readable(app.wake.as_fd()));

    app.receiver.announce_sleep(false);
    while app.receiver.next_delivery().expect("honest").is_some() {}
    assert!(!daemon.stands_by_for_news(), "it sleeps");
    deliver(&mut daemon, &meta(1, 0), b"x").expect("room");
    assert!(!daemon.notify());
    assert!(is_readable(app.wake.as_fd()), "asleep, it needs the bell");
}

#[test]
fn an_application_sees_where_its_daemon_is_and_whether_it_can_get_on() {
    let (mut daemon, app) = pair();
    assert_eq!(app.receiver.place_of_daemon(), Place::Elsewhere);
    // The test's thread may move between the two looks, but hardly each time.
    let here = |daemon: &mut DaemonSide, idle_class, place| {
        let shown = (0..1000).any(|_| {
            daemon.run_on(rustix::thread::sched_getcpu() as u32, idle_class);
            app.receiver.place_of_daemon() == place
        });
        assert!(shown, "{place:?}");
    };
    here(&mut daemon, false, Place::Here);
    here(&mut daemon, true, Place::Behind);
    assert_eq!(daemon.before_sleep(false), Ok(true));
    here(&mut daemon, false, Place::Behind);
    daemon.awake();
    here(&mut daemon, false, Place::Here);
    daemon.run_on(u32::MAX - 1, true);
    assert_eq!(app.receiver.place_of_daemon(), Place::Elsewhere);
}

#[test]
fn a_daemon_that_something_else_has_woken_needs_no_doorbell() {
    let (mut daemon, mut app) = pair();
    assert_eq!(daemon.before_sleep(false), Ok(true));
    daemon.awake();
    send(&mut app, 1, b"x");
    app.submitter.ring_doorbell();
    assert!(!is_readable(daemon.doorbell()));
}

#[test]
fn the_daemon_sleeps_only_when_nothing_waits_and_is_woken_by_the_doorbell() {
    let (mut daemon, mut app) = pair();
    send(&mut app, 1, b"x");
    assert_eq!(daemon.before_sleep(false), Ok(false), "a request waits");
    app.submitter.ring_doorbell();
    assert!(!is_readable(daemon.doorbell()), "the daemon stayed awake");
    daemon.pop().expect("honest").expect("one");
    assert_eq!(daemon.before_sleep(false), Ok(true));
    send(&mut app, 2, b"x");
    app.submitter.ring_doorbell();
    assert!(is_readable(daemon.doorbell()));
    daemon.after_sleep();
    assert!(!is_readable(daemon.doorbell()));
}

#[test]
fn an_application_that_makes_the_doorbell_blocking_does_not_block_the_daemon() {
    let (mut daemon, fds) = DaemonSide::create(&SMALL).expect("segment");
    rustix::io::ioctl_fionbio(&fds.doorbell, false).expect("it is the application's fd too");
    assert_eq!(daemon.before_sleep(false), Ok(true));
    daemon.after_sleep();
    daemon.after_sleep();
}

#[test]
fn a_watched_socket_has_a_readable_fd_after_a_delivery() {
    let (mut daemon, _app) = pair();
    let fd = daemon.watch(3).expect("fds");
    deliver(&mut daemon, &meta(4, 0), b"x").expect("room");
    daemon.notify();
    assert!(!is_readable(fd.as_fd()));
    deliver(&mut daemon, &meta(3, 0), b"x").expect("room");
    daemon.notify();
    assert!(is_readable(fd.as_fd()));
    daemon.unwatch(3);
    drain_wake(fd.as_fd());
    deliver(&mut daemon, &meta(3, 0), b"x").expect("room");
    daemon.notify();
}

#[test]
fn the_daemon_area_cannot_be_written_and_no_area_resized() {
    let (_daemon, fds) = DaemonSide::create(&SMALL).expect("segment");
    assert!(rustix::io::pwrite(&fds.daemon, b"x", 0).is_err());
    assert!(rustix::fs::ftruncate(&fds.daemon, 0).is_err());
    assert!(rustix::fs::ftruncate(&fds.application, 0).is_err());
    assert!(rustix::fs::ftruncate(&fds.application, 1 << 30).is_err());
}

#[test]
fn a_segment_whose_size_is_not_sealed_is_not_mapped() {
    let (_daemon, mut fds) = DaemonSide::create(&SMALL).expect("segment");
    fds.daemon = rustix::fs::memfd_create("other", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    let error = ApplicationSide::map(fds).expect_err("not sealed");
    assert!(error.to_string().contains("not sealed"), "{error}");
}

#[test]
fn a_buffer_given_back_twice_or_never_out_is_a_violation() {
    let (mut daemon, fds) = DaemonSide::create(&SMALL).expect("segment");
    let hostile = Hostile::new(&fds);
    let mut app = ApplicationSide::map(fds).expect("segment");
    deliver(&mut daemon, &meta(1, 0), b"x").expect("room");
    let (_, buffer) = app.receiver.next_delivery().expect("honest").expect("one");
    app.releaser.returned(buffer).expect("room");
    assert_eq!(drain(&mut daemon).0, 1);
    // The same release entry once more: moving the tail on replays what stands in the next place.
    let releases = 4096 + 8 * 64;
    let first = hostile.read(releases);
    hostile.write(releases + 8, first);
    hostile.write(1024 + 4 * 128, 2);
    let result = daemon.drain_releases(10, |_| ());
    assert_eq!(
        result,
        Err(Violation::Buffer {
            handle: first & !(0xff << 56)
        })
    );
}

/// Writes where a hostile application could.
struct Hostile(OwnedFd);

impl Hostile {
    fn new(fds: &SegmentFds) -> Self {
        Self(fds.application.try_clone().expect("fd"))
    }

    fn write(&self, offset: u64, word: u64) {
        rustix::io::pwrite(&self.0, &word.to_ne_bytes(), offset).expect("writable");
    }

    fn read(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::pread(&self.0, &mut bytes, offset).expect("readable");
        u64::from_ne_bytes(bytes)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_word_an_application_can_write_makes_the_daemon_panic_or_stay(
        steps in proptest::collection::vec((0u8..6, 0u64..800, prop_oneof![
            any::<u64>(), 0u64..20, (0u64..4).prop_map(|kind| kind << 32), (0u64..16).prop_map(|op| op | 7 << 32),
        ]), 1..60),
    ) {
        let (mut daemon, fds) = DaemonSide::create(&SMALL).expect("segment");
        let hostile = Hostile::new(&fds);
        let mut requests = 0;
        for (step, word, value) in steps {
            match step {
                // Cursors and sleep word; everything from the header to the end of the rings.
                0 => hostile.write(1024 + word % 5 * 128, value),
                1 => hostile.write(word * 8, value),
                2 => while let Ok(Some(submission)) = daemon.pop() {
                    let payload = daemon.payload(&submission);
                    payload.copy_to(0, &mut vec![0; payload.len()]);
                    let _ = daemon.complete(submission.tag, 0, [0, 0]);
                    requests += 1;
                    prop_assert!(requests <= 16 * 60);
                },
                3 => { let _ = daemon.drain_releases(64, |_| ()); }
                4 => { let _ = deliver(&mut daemon, &meta(1, 0), &[0; 300]); }
                _ => {
                    let _ = daemon.take_unread(Some(1), |_| (), |_, _| ());
                    daemon.notify();
                    let _ = daemon.before_sleep(true);
                    daemon.after_sleep();
                }
            }
        }
    }
}

#[test]
fn the_handshake_passes_a_segment_and_names_the_peer() -> io::Result<()> {
    use xtipc_segment::attach::{self, Message, Welcome};
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let (mut daemon, fds) = DaemonSide::create(&SMALL).expect("segment");
    let welcome = Message::Welcome(Welcome {
        version: 1,
        node: 7,
        identity: [3; 16],
        direct_after: 0,
    });
    attach::send_message(ours.as_fd(), &welcome, &fds.as_fds())?;
    drop(fds);
    let received = attach::receive_message(theirs.as_fd()).expect("a message");
    let (message, fds) = received.expect("not closed");
    assert_eq!(message, welcome);
    let fds = SegmentFds::from_fds(fds).expect("four fds");
    let mut app = ApplicationSide::map(fds).expect("segment");
    let open = Submission {
        tag: 1,
        socket: 0,
        request: Request::OpenSocket {
            kind: SocketKind::Rdm,
        },
    };
    assert_eq!(app.submitter.push(&open), Ok(true));
    assert_eq!(daemon.pop(), Ok(Some(open)));

    let peer = attach::peer_process(ours.as_fd())?;
    assert_eq!(peer.pid, std::process::id());
    assert!(!is_readable(peer.pidfd.as_fd()), "it lives");
    drop(ours);
    let end = attach::receive_message(theirs.as_fd()).expect("end of the connection");
    assert!(end.is_none());
    Ok(())
}
