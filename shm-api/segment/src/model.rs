//! Model checks with loom: `RUSTFLAGS="--cfg loom" cargo test -p xtipc-segment --release --lib`.
//!
//! They fail if a fence of the wake protocol is taken out, if the epoch stands still, or if the tail is published
//! without release order. They cannot see a missing release order of the head: loom does not let a load take effect
//! after a later store of the same thread.
//!
//! The wake fd is modelled by a mutex and a condition variable: like the fd it remembers that it was rung.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::generation;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::ring::{Consumer, Producer, RingMemory};
use crate::stamped::{StampedConsumer, StampedProducer};
use crate::wake::{Progress, REVOKED, Sleeper, Waker, revoke};

struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().expect("not poisoned") = true;
        self.changed.notify_one();
    }

    fn sleep_and_drain(&self) {
        let mut rung = self.rung.lock().expect("not poisoned");
        while !*rung {
            rung = self.changed.wait(rung).expect("not poisoned");
        }
        *rung = false;
    }
}

struct Shared {
    head: AtomicU32,
    tail: AtomicU32,
    entries: Vec<[AtomicU64; 1]>,
    consumer_sleep: AtomicU32,
    consumer_bell: Bell,
    producer_sleep: AtomicU32,
    producer_bell: Bell,
}

impl Shared {
    fn new(capacity: usize) -> Arc<Self> {
        let bell = || Bell {
            rung: Mutex::new(false),
            changed: Condvar::new(),
        };
        Arc::new(Self {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            entries: (0..capacity).map(|_| [AtomicU64::new(0)]).collect(),
            consumer_sleep: AtomicU32::new(0),
            consumer_bell: bell(),
            producer_sleep: AtomicU32::new(0),
            producer_bell: bell(),
        })
    }

    fn ring(&self) -> RingMemory<'_, 1> {
        RingMemory {
            name: "model",
            head: &self.head,
            tail: &self.tail,
            entries: &self.entries,
        }
    }
}

/// Takes `count` entries, sleeping when there is none, and wakes a producer that waits for room.
fn consume(shared: &Shared, count: u64) {
    let (mut consumer, mut sleeper, mut waker) =
        (Consumer::default(), Sleeper::default(), Waker::default());
    for expected in 1..=count {
        loop {
            if let Some([value]) = consumer.pop(&shared.ring()).expect("honest producer") {
                assert_eq!(value, expected, "entries arrive whole and in order");
                break;
            }
            sleeper.announce(&shared.consumer_sleep, false);
            if consumer.available(&shared.ring()).expect("honest producer") == 0 {
                shared.consumer_bell.sleep_and_drain();
            }
            sleeper.awake(&shared.consumer_sleep);
        }
        if waker.must_ring(&shared.producer_sleep, Progress::Room) {
            shared.producer_bell.ring();
        }
    }
}

/// Puts `count` entries, sleeping when there is no room, and wakes a consumer that waits.
fn produce(shared: &Shared, count: u64) {
    let (mut producer, mut sleeper, mut waker) =
        (Producer::default(), Sleeper::default(), Waker::default());
    for value in 1..=count {
        while !producer
            .push(&shared.ring(), &[value])
            .expect("honest consumer")
        {
            sleeper.announce(&shared.producer_sleep, true);
            if producer.free(&shared.ring()).expect("honest consumer") == 0 {
                shared.producer_bell.sleep_and_drain();
            }
            sleeper.awake(&shared.producer_sleep);
        }
        if waker.must_ring(&shared.consumer_sleep, Progress::Work) {
            shared.consumer_bell.ring();
        }
    }
}

fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[test]
fn no_wake_up_is_lost_while_the_ring_has_room() {
    check(4, || {
        let shared = Shared::new(4);
        let other = Arc::clone(&shared);
        let consumer = thread::spawn(move || consume(&other, 2));
        produce(&shared, 2);
        consumer.join().expect("the consumer got everything");
    });
}

#[test]
fn no_wake_up_is_lost_when_the_producer_waits_for_room_too() {
    check(3, || {
        let shared = Shared::new(1);
        let other = Arc::clone(&shared);
        let consumer = thread::spawn(move || consume(&other, 3));
        produce(&shared, 3);
        consumer.join().expect("the consumer got everything");
    });
}

/// A direct channel, one way: entries with stamps, and how many were consumed.
struct Channel {
    entries: Vec<[AtomicU64; 2]>,
    consumed: AtomicU32,
    consumer_sleep: AtomicU32,
    consumer_bell: Bell,
    producer_sleep: AtomicU32,
    producer_bell: Bell,
}

impl Channel {
    fn new(capacity: usize) -> Arc<Self> {
        let bell = || Bell {
            rung: Mutex::new(false),
            changed: Condvar::new(),
        };
        Arc::new(Self {
            entries: (0..capacity)
                .map(|_| [AtomicU64::new(0), AtomicU64::new(0)])
                .collect(),
            consumed: AtomicU32::new(0),
            consumer_sleep: AtomicU32::new(0),
            consumer_bell: bell(),
            producer_sleep: AtomicU32::new(0),
            producer_bell: bell(),
        })
    }

    fn receive(&self, count: u64) {
        let (mut consumer, mut sleeper, mut waker) = (
            StampedConsumer::default(),
            Sleeper::default(),
            Waker::default(),
        );
        for expected in 1..=count {
            while consumer.peek(&self.entries).is_none() {
                sleeper.announce(&self.consumer_sleep, false);
                if consumer.peek(&self.entries).is_none() {
                    self.consumer_bell.sleep_and_drain();
                }
                sleeper.awake(&self.consumer_sleep);
            }
            if let Some((head, entry)) = consumer.peek(&self.entries) {
                let value = entry[1].load(Ordering::Relaxed);
                assert_eq!((u64::from(head), value), (expected, expected), "whole");
            }
            consumer.advance();
            self.consumed.store(expected as u32, Ordering::Release);
            if waker.must_ring(&self.producer_sleep, Progress::Room) {
                self.producer_bell.ring();
            }
        }
    }

    /// Calls the consumer once for `at_once` messages.
    fn send(&self, count: u64, at_once: u64) {
        let (mut producer, mut sleeper, mut waker) = (
            StampedProducer::default(),
            Sleeper::default(),
            Waker::default(),
        );
        let is_full = |producer: &StampedProducer| {
            producer.next() - self.consumed.load(Ordering::Acquire) == self.entries.len() as u32
        };
        for value in 1..=count {
            while is_full(&producer) {
                sleeper.announce(&self.producer_sleep, true);
                if is_full(&producer) {
                    self.producer_bell.sleep_and_drain();
                }
                sleeper.awake(&self.producer_sleep);
            }
            producer.push(&self.entries, value as u32, |words| {
                words[0].store(value, Ordering::Relaxed);
            });
            let is_due = value % at_once == 0 || value == count;
            if is_due && waker.must_ring(&self.consumer_sleep, Progress::Work) {
                self.consumer_bell.ring();
            }
        }
    }
}

#[test]
fn on_a_channel_no_wake_up_is_lost_and_no_entry_is_torn() {
    check(4, || {
        let channel = Channel::new(4);
        let other = Arc::clone(&channel);
        let receiver = thread::spawn(move || other.receive(2));
        channel.send(2, 1);
        receiver.join().expect("the receiver got everything");
    });
}

#[test]
fn one_call_is_enough_for_several_messages() {
    check(3, || {
        let channel = Channel::new(4);
        let other = Arc::clone(&channel);
        let receiver = thread::spawn(move || other.receive(3));
        channel.send(3, 2);
        receiver.join().expect("the receiver got everything");
    });
}

#[test]
fn what_was_published_when_a_receiver_revokes_is_seen_by_it_or_known_to_be_late() {
    check(4, || {
        let channel = Channel::new(4);
        let other = Arc::clone(&channel);
        let sender = thread::spawn(move || {
            let mut producer = StampedProducer::default();
            for value in 1..=2 {
                producer.push(&other.entries, value, |words| {
                    words[0].store(1, Ordering::Relaxed);
                });
            }
            Waker::default().must_ring(&other.consumer_sleep, Progress::Work);
            other.consumer_sleep.load(Ordering::Relaxed) == REVOKED
        });
        revoke(&channel.consumer_sleep);
        let mut consumer = StampedConsumer::default();
        while consumer.peek(&channel.entries).is_some() {
            consumer.advance();
        }
        let may_be_late = sender.join().expect("no panic");
        assert!(consumer.next() == 2 || may_be_late);
    });
}

#[test]
fn on_a_full_channel_no_wake_up_is_lost_either() {
    check(3, || {
        let channel = Channel::new(1);
        let other = Arc::clone(&channel);
        let receiver = thread::spawn(move || other.receive(3));
        channel.send(3, 1);
        receiver.join().expect("the receiver got everything");
    });
}

#[test]
fn who_knows_of_a_binding_sees_that_the_board_has_changed_and_who_sees_that_sees_the_binding() {
    struct Daemon {
        bound: AtomicU32,
        word: AtomicU32,
        told: AtomicU32,
    }
    check(4, || {
        let daemon = Arc::new(Daemon {
            bound: AtomicU32::new(0),
            word: AtomicU32::new(0),
            told: AtomicU32::new(0),
        });
        let passed_on = Arc::new(AtomicU32::new(0));
        let binds = Arc::clone(&daemon);
        let binder = thread::spawn(move || {
            binds.bound.store(1, Ordering::Relaxed);
            generation::change(&binds.word);
            binds.told.store(1, Ordering::Release);
        });
        // Who was told tells the one that sends.
        let (hears, passes_on) = (Arc::clone(&daemon), Arc::clone(&passed_on));
        let other = thread::spawn(move || {
            let told = hears.told.load(Ordering::Acquire);
            passes_on.store(told, Ordering::Release);
        });
        let knows = passed_on.load(Ordering::Acquire) == 1;
        let has_changed = generation::read(&daemon.word) != 0;
        assert!(has_changed || !knows);
        assert!(!has_changed || daemon.bound.load(Ordering::Relaxed) == 1);
        binder.join().expect("no panic");
        other.join().expect("no panic");
    });
}

/// One ring in each direction between the daemon and a program, and a word of the daemon.
struct Pair {
    to_program: Arc<Shared>,
    to_daemon: Arc<Shared>,
    crowded: AtomicU32,
}

impl Pair {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            to_program: Shared::new(2),
            to_daemon: Shared::new(2),
            crowded: AtomicU32::new(0),
        })
    }
}

/// Waits for a notice of the program, as a daemon that wants room.
fn await_release(shared: &Shared, releases: &mut Consumer, sleeper: &mut Sleeper) {
    while releases.pop(&shared.ring()).expect("honest").is_none() {
        sleeper.announce(&shared.consumer_sleep, true);
        if releases.available(&shared.ring()).expect("honest") == 0 {
            shared.consumer_bell.sleep_and_drain();
        }
        sleeper.awake(&shared.consumer_sleep);
    }
}

#[test]
fn who_waits_for_a_message_behind_one_it_does_not_read_is_not_left_asleep() {
    check(3, || {
        let pair = Pair::new();
        let other = Arc::clone(&pair);
        // There is memory for one message: the second finds none until the first is kept.
        let daemon = thread::spawn(move || {
            let (messages, releases) = (&other.to_program, &other.to_daemon);
            let (mut producer, mut waker) = (Producer::default(), Waker::default());
            let mut publish = |value: Option<u64>| {
                if let Some(value) = value {
                    assert!(producer.push(&messages.ring(), &[value]).expect("honest"));
                }
                if waker.must_ring(&messages.consumer_sleep, Progress::Work) {
                    messages.consumer_bell.ring();
                }
            };
            publish(Some(1));
            other.crowded.store(1, Ordering::Relaxed);
            publish(None);
            await_release(releases, &mut Consumer::default(), &mut Sleeper::default());
            other.crowded.store(0, Ordering::Relaxed);
            publish(Some(2));
        });
        let (messages, releases) = (&pair.to_program, &pair.to_daemon);
        let (mut deliveries, mut sleeper) = (Consumer::default(), Sleeper::default());
        let (mut producer, mut waker) = (Producer::default(), Waker::default());
        let mut unread = 0;
        let mut look = || {
            while let Some([value]) = deliveries.pop(&messages.ring()).expect("honest") {
                if value == 2 {
                    return true;
                }
                unread += 1;
            }
            if unread > 0 && pair.crowded.load(Ordering::Relaxed) == 1 {
                unread = 0;
                assert!(producer.push(&releases.ring(), &[0]).expect("honest"));
                if waker.must_ring(&releases.consumer_sleep, Progress::Room) {
                    releases.consumer_bell.ring();
                }
            }
            false
        };
        while !look() {
            sleeper.announce(&messages.consumer_sleep, false);
            let found = look();
            if !found {
                messages.consumer_bell.sleep_and_drain();
            }
            sleeper.awake(&messages.consumer_sleep);
            if found {
                break;
            }
        }
        daemon.join().expect("the daemon delivered everything");
    });
}

#[test]
fn a_read_wakes_the_daemon_and_the_daemon_the_blocked_sender() {
    check(3, || {
        let (reader, sender) = (Shared::new(1), Shared::new(1));
        let (releases, answers) = (Arc::clone(&reader), Arc::clone(&sender));
        let daemon = thread::spawn(move || {
            await_release(&releases, &mut Consumer::default(), &mut Sleeper::default());
            produce(&answers, 1);
        });
        let waits = thread::spawn(move || consume(&sender, 1));
        let (mut producer, mut waker) = (Producer::default(), Waker::default());
        assert!(producer.push(&reader.ring(), &[0]).expect("honest"));
        if waker.must_ring(&reader.consumer_sleep, Progress::Room) {
            reader.consumer_bell.ring();
        }
        daemon.join().expect("it heard of the read");
        waits.join().expect("it was answered");
    });
}
