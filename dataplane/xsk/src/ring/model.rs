//! Model checks with loom: `RUSTFLAGS="--cfg loom" cargo test -p xtipc-xsk --release --lib model`.
//!
//! They fail if a slot can be touched by both sides at once, or if a sleeper is not woken: without the release or acquire
//! order of an index, and without one of the fences of the announcement.

use super::*;
use loom::sync::{Condvar, Mutex};
use loom::thread;

/// An eventfd: rung, it ends one sleep, now or later.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// What a worker does that sleeps whenever it finds nothing.
fn take(consumer: &mut Consumer<u64>, bell: &Bell, count: u64) {
    let mut expected = 0;
    while expected < count {
        while let Some(value) = consumer.pop() {
            assert_eq!(value, expected);
            expected += 1;
        }
        consumer.publish();
        if expected == count {
            break;
        }
        consumer.announce_sleep();
        if !consumer.is_ready() {
            bell.sleep();
        }
        consumer.awake();
    }
}

#[test]
fn model_of_a_worker_that_hands_over_to_one_that_sleeps() {
    check(|| {
        let (mut producer, mut consumer) = pair::<u64>(4);
        let bell = loom::sync::Arc::new(Bell::default());
        let its = bell.clone();
        let consumer = thread::spawn(move || take(&mut consumer, &its, 2));
        for value in 0..2 {
            producer.push(value);
            producer.publish();
            if producer.must_wake() {
                bell.ring();
            }
        }
        consumer.join().unwrap();
    });
}

/// A slot is written anew only after it was read: neither waits in any other way for the other.
#[test]
fn model_of_a_slot_that_is_used_again() {
    check(|| {
        let (mut producer, mut consumer) = pair::<u64>(1);
        let consuming = thread::spawn(move || {
            for expected in 0..2 {
                let value = loop {
                    match consumer.pop() {
                        Some(value) => break value,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(value, expected);
                consumer.publish();
            }
        });
        for value in 0..2 {
            while !producer.has_room(1) {
                thread::yield_now();
            }
            producer.push(value);
            producer.publish();
        }
        consuming.join().unwrap();
    });
}
