//! Rings on memory of the process: no kernel needed.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

pub(crate) use between::starting_at as pair;

#[derive(Clone, Copy, Debug)]
enum Op {
    Push(u8),
    PublishPushed,
    Pop(u8),
    PublishPopped,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (1..9u8).prop_map(Op::Push),
        Just(Op::PublishPushed),
        (1..9u8).prop_map(Op::Pop),
        Just(Op::PublishPopped),
    ]
}

proptest! {
    #[test]
    fn a_ring_behaves_like_a_bounded_queue_across_index_wrap(
        log_entries in 0..5u32,
        before_wrap in 0..40u32,
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let entries = 1 << log_entries;
        let (mut producer, mut consumer) = pair::<u64>(entries, 0u32.wrapping_sub(before_wrap));
        // Slots are: pushed but unpublished, visible, popped but unpublished, free.
        let (mut pushed, mut visible) = (VecDeque::new(), VecDeque::new());
        let (mut popped, mut counter) = (0, 0u64);
        for op in ops {
            match op {
                Op::Push(count) => for _ in 0..count {
                    let free = entries as usize - pushed.len() - visible.len() - popped;
                    prop_assert_eq!(producer.has_room(1), free >= 1);
                    prop_assert_eq!(producer.has_room(free as u32), true);
                    prop_assert_eq!(producer.has_room(free as u32 + 1), false);
                    if free == 0 { break }
                    producer.push(counter);
                    pushed.push_back(counter);
                    counter += 1;
                },
                Op::PublishPushed => {
                    producer.publish();
                    visible.append(&mut pushed);
                }
                Op::Pop(count) => for _ in 0..count {
                    prop_assert_eq!(consumer.is_ready(), !visible.is_empty());
                    let expected = visible.pop_front();
                    prop_assert_eq!(consumer.pop(), expected);
                    popped += usize::from(expected.is_some());
                },
                Op::PublishPopped => {
                    consumer.publish();
                    popped = 0;
                }
            }
            prop_assert_eq!(producer.waiting() as usize, pushed.len() + visible.len() + popped);
        }
    }
}

#[test]
fn two_threads_pass_every_slot_once_and_in_order() {
    const COUNT: u64 = 200_000;
    let (mut producer, mut consumer) = pair::<u64>(64, u32::MAX - 1000);
    let feeding = std::thread::spawn(move || {
        let mut next = 0;
        while next < COUNT {
            while next < COUNT && producer.has_room(1) {
                producer.push(next);
                next += 1;
            }
            producer.publish();
            std::thread::yield_now();
        }
    });
    let mut expected = 0;
    while expected < COUNT {
        while let Some(value) = consumer.pop() {
            assert_eq!(value, expected);
            expected += 1;
        }
        consumer.publish();
        std::thread::yield_now();
    }
    feeding.join().unwrap();
}

#[test]
#[should_panic(expected = "push into a full ring")]
fn pushing_into_a_full_ring_is_our_bug() {
    let (mut producer, _consumer) = pair::<u64>(2, 0);
    for value in 0..3 {
        producer.push(value);
    }
}

#[test]
fn wakeup_is_asked_for_by_the_flags_word() {
    let (producer, consumer) = pair::<u64>(2, 0);
    assert!(!producer.needs_wakeup());
    consumer.0.flags().store(NEED_WAKEUP, Ordering::Relaxed);
    assert!(producer.needs_wakeup());
}

#[test]
fn who_announced_its_sleep_is_woken_once() {
    let (mut producer, mut consumer) = pair::<u64>(2, 0);
    producer.push(1);
    producer.publish();
    assert!(!producer.must_wake());
    consumer.pop();
    consumer.announce_sleep();
    assert!(!consumer.is_ready());
    producer.push(2);
    producer.publish();
    assert!(producer.must_wake());
    assert!(!producer.must_wake());
    consumer.announce_sleep();
    consumer.awake();
    assert!(!producer.must_wake());
}

#[test]
fn a_ring_looks_empty_from_outside_once_what_was_taken_is_published() {
    let (mut producer, mut consumer) = pair::<u64>(2, u32::MAX);
    let level = consumer.level();
    assert!(level.is_empty());
    producer.push(1);
    producer.publish();
    assert!(!level.is_empty());
    consumer.pop();
    assert!(!level.is_empty());
    consumer.publish();
    assert!(level.is_empty());
}

#[test]
fn who_sleeps_is_left_alone_when_nothing_is_published() {
    let (mut producer, mut consumer) = pair::<u64>(2, 0);
    consumer.announce_sleep();
    producer.publish();
    assert!(!producer.must_wake());
}
