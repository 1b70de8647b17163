//! Events that wait for their subscribers: one queue for each, all in one pool of slots.
//!
//! The pool keeps the size it once needed, shared by all, instead of each queue its own.

use super::event::Event;
use crate::slab::{NIL, Slab, linked};

#[derive(Clone, Copy)]
struct Waiting {
    event: [u8; Event::SIZE],
    next: u32,
}

/// One subscriber's events, oldest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    head: u32,
    tail: u32,
    len: u32,
}

impl Queue {
    pub(super) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
        len: 0,
    };

    pub(super) const fn len(&self) -> u32 {
        self.len
    }
}

/// The events of all queues.
pub(super) struct Pool(Slab<Waiting>);

impl Pool {
    pub(super) const fn new() -> Self {
        Self(Slab::new())
    }

    pub(super) fn push(&mut self, queue: &mut Queue, event: &Event) {
        let slot = self.0.insert(Waiting {
            event: event.encode(),
            next: NIL,
        });
        match linked(queue.tail) {
            Some(tail) => self.0[tail].next = slot,
            None => queue.head = slot,
        }
        queue.tail = slot;
        queue.len += 1;
    }

    pub(super) fn front(&self, queue: &Queue) -> Option<&[u8; Event::SIZE]> {
        linked(queue.head).map(|head| &self.0[head].event)
    }

    pub(super) fn pop(&mut self, queue: &mut Queue) -> bool {
        let Some(head) = linked(queue.head) else {
            return false;
        };
        queue.head = self.0.remove(head).next;
        if queue.head == NIL {
            queue.tail = NIL;
        }
        queue.len -= 1;
        true
    }
}
