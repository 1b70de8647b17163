//! The sockets of an attachment by their numbers.
//!
//! A call looks its socket up several times, and mostly it is that of the call before: the one found last is found again
//! by a comparison.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::core::Queue;

/// Ids come from the daemon in small numbers: no need to defend against chosen ones.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    places: HashMap<u32, usize, BuildHasherDefault<IdHasher>>,
    /// Without gaps.
    queues: Vec<(u32, Queue)>,
    /// Place of the one found last.
    last: usize,
}

impl Queues {
    pub(crate) fn insert(&mut self, socket: u32, queue: Queue) {
        match self.places.insert(socket, self.queues.len()) {
            None => self.queues.push((socket, queue)),
            Some(place) => {
                self.places.insert(socket, place);
                self.queues[place].1 = queue;
            }
        }
    }

    pub(crate) fn get_mut(&mut self, socket: u32) -> Option<&mut Queue> {
        let is_last = |last: &(u32, Queue)| last.0 == socket;
        if !self.queues.get(self.last).is_some_and(is_last) {
            self.last = *self.places.get(&socket)?;
        }
        Some(&mut self.queues.get_mut(self.last)?.1)
    }

    pub(crate) fn remove(&mut self, socket: u32) -> Option<Queue> {
        let place = self.places.remove(&socket)?;
        let (_, queue) = self.queues.swap_remove(place);
        if let Some((moved, _)) = self.queues.get(place) {
            self.places.insert(*moved, place);
        }
        Some(queue)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Queue> {
        self.queues.iter().map(|(_, queue)| queue)
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.queues.iter_mut().map(|(_, queue)| queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each queue with a mark of its own.
    fn marked(mark: u32) -> Queue {
        let mut queue = Queue::default();
        queue.posts = mark;
        queue
    }

    fn found(queues: &mut Queues, socket: u32) -> Option<u32> {
        queues.get_mut(socket).map(|queue| queue.posts)
    }

    #[test]
    fn each_socket_is_found_whichever_was_found_or_removed_before() {
        let mut queues = Queues::default();
        for socket in [10, 20, 30] {
            queues.insert(socket, marked(socket));
        }
        for socket in [20, 20, 10, 30, 30] {
            assert_eq!(found(&mut queues, socket), Some(socket));
        }
        assert_eq!(found(&mut queues, 40), None);
        // The last one comes into the place of the one that was found last.
        assert_eq!(found(&mut queues, 10), Some(10));
        assert_eq!(queues.remove(10).map(|queue| queue.posts), Some(10));
        for (socket, mark) in [(10, None), (30, Some(30)), (20, Some(20))] {
            assert_eq!(found(&mut queues, socket), mark);
        }
        assert!(queues.remove(10).is_none());
        queues.insert(20, marked(21));
        assert_eq!(found(&mut queues, 20), Some(21));
        assert_eq!(queues.all().count(), 2);
    }
}
