//! The ring against a `VecDeque`, and against a neighbour that writes rubbish.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

struct Memory {
    head: AtomicU32,
    tail: AtomicU32,
    entries: Vec<[AtomicU64; 2]>,
}

impl Memory {
    fn new(capacity: usize) -> Self {
        Self {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            entries: (0..capacity).map(|_| Default::default()).collect(),
        }
    }

    fn view(&self) -> RingMemory<'_, 2> {
        RingMemory {
            name: "test",
            head: &self.head,
            tail: &self.tail,
            entries: &self.entries,
        }
    }
}

proptest! {
    #[test]
    fn a_ring_behaves_like_a_bounded_queue(
        order in 0u32..4,
        start in prop_oneof![Just(0u32), Just(u32::MAX - 3)],
        steps in proptest::collection::vec(any::<bool>(), 0..200),
    ) {
        let capacity = 1 << order;
        let memory = Memory::new(capacity);
        memory.head.store(start, Ordering::Relaxed);
        memory.tail.store(start, Ordering::Relaxed);
        let mut producer = Producer { tail: start, head_seen: start };
        let mut consumer = Consumer { head: start, tail_seen: start };
        let mut oracle = VecDeque::new();
        for (number, push) in steps.into_iter().enumerate() {
            let entry = [number as u64, !(number as u64)];
            if push {
                let fits = oracle.len() < capacity;
                prop_assert_eq!(producer.push(&memory.view(), &entry), Ok(fits));
                if fits {
                    oracle.push_back(entry);
                }
            } else {
                prop_assert_eq!(consumer.pop(&memory.view()), Ok(oracle.pop_front()));
            }
            prop_assert_eq!(consumer.available(&memory.view()), Ok(oracle.len() as u32));
        }
    }

    #[test]
    fn any_tail_yields_at_most_one_ring_of_entries_or_a_violation(
        tails in proptest::collection::vec(any::<u32>(), 1..20)
    ) {
        let memory = Memory::new(8);
        let mut consumer = Consumer::default();
        for tail in tails {
            memory.tail.store(tail, Ordering::Relaxed);
            let mut taken = 0;
            while let Ok(Some(_)) = consumer.pop(&memory.view()) {
                taken += 1;
                prop_assert!(taken <= 16);
            }
        }
    }

    #[test]
    fn any_head_leaves_the_producer_with_a_full_ring_or_a_violation(
        heads in proptest::collection::vec(any::<u32>(), 1..20)
    ) {
        let memory = Memory::new(8);
        let mut producer = Producer::default();
        for head in heads {
            memory.head.store(head, Ordering::Relaxed);
            let mut given = 0;
            while let Ok(true) = producer.push(&memory.view(), &[1, 2]) {
                given += 1;
                prop_assert!(given <= 16);
            }
        }
    }
}

#[test]
fn a_cursor_too_far_ahead_is_named_in_the_violation() {
    let memory = Memory::new(8);
    memory.tail.store(9, Ordering::Relaxed);
    assert_eq!(
        Consumer::default().pop(&memory.view()),
        Err(Violation::Cursor {
            ring: "test",
            distance: 9,
            capacity: 8
        })
    );
}
