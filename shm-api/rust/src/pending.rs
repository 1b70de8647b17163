//! Requests under way: what to do with their completions.

use xtipc_segment::application::Staged;
use xtipc_segment::{Completion, Destination, Violation};

/// Who cares about a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A thread waits for it.
    Call,
    /// A thread waits for it, and on success a socket of this attachment exists.
    Open,
    /// A thread waits for it, and on success this socket sends nothing more. Another one that waits to send may be the one
    /// that dispatches this, and has to find it.
    Shutdown(u32),
    /// Messages were posted; failures are kept for flush.
    Post {
        /// The sending socket.
        socket: u32,
        /// How many.
        messages: u32,
        /// Where it was to go.
        destination: Destination,
    },
    /// Tells what a socket can do.
    Await(u32),
    /// This socket is to have a direct channel.
    MakeChannel {
        /// The socket.
        socket: u32,
        /// Where its datagrams go.
        destination: Option<Destination>,
    },
    /// This socket is to send by its direct channel.
    SwitchToChannel {
        /// The socket.
        socket: u32,
        /// Port of the other end of one of datagrams, else 0.
        peer: u32,
    },
    /// This socket is gone once it arrives.
    Close(u32),
    /// Nobody.
    Forget,
}

#[derive(Debug)]
enum State {
    Free,
    UnderWay {
        purpose: Purpose,
        staged: Option<Staged>,
    },
    Done(Completion),
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: State,
}

/// Slots are used again, so that nothing is allocated once the table has its size. A tag is a slot and its generation.
#[derive(Debug)]
pub(crate) struct Pending {
    slots: Vec<Slot>,
    free: Vec<u32>,
    limit: usize,
}

impl Pending {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            limit,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() == self.limit
    }

    /// Enters a request. The caller made sure that the table is not full.
    pub(crate) fn enter(&mut self, purpose: Purpose, staged: Option<Staged>) -> u64 {
        let state = State::UnderWay { purpose, staged };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize].state = state;
                index
            }
            None => {
                self.slots.push(Slot {
                    generation: 1,
                    state,
                });
                self.slots.len() as u32 - 1
            }
        };
        u64::from(self.slots[index as usize].generation) << 32 | u64::from(index)
    }

    fn slot(&mut self, tag: u64) -> Option<&mut Slot> {
        self.slots
            .get_mut(tag as u32 as usize)
            .filter(|slot| u64::from(slot.generation) == tag >> 32)
    }

    /// Takes note of a completion. Without a waiting thread its slot is free again.
    pub(crate) fn complete(
        &mut self,
        completion: Completion,
    ) -> Result<(Purpose, Option<Staged>), Violation> {
        let tag = completion.tag;
        let unknown = Violation::Tag { tag };
        let slot = self.slot(tag).ok_or(unknown)?;
        let State::UnderWay { purpose, staged } = &mut slot.state else {
            return Err(unknown);
        };
        let (purpose, staged) = (*purpose, staged.take());
        match purpose {
            Purpose::Call | Purpose::Open | Purpose::Shutdown(_) => {
                slot.state = State::Done(completion)
            }
            Purpose::Post { .. }
            | Purpose::Await(_)
            | Purpose::MakeChannel { .. }
            | Purpose::SwitchToChannel { .. }
            | Purpose::Close(_)
            | Purpose::Forget => {
                self.release(tag);
            }
        }
        Ok((purpose, staged))
    }

    /// The completion a thread waits for, once it is there.
    pub(crate) fn take_done(&mut self, tag: u64) -> Option<Completion> {
        let State::Done(completion) = self.slot(tag)?.state else {
            return None;
        };
        self.release(tag);
        Some(completion)
    }

    /// Frees a slot, and makes its tag one that was never given out.
    fn release(&mut self, tag: u64) {
        if let Some(slot) = self.slot(tag) {
            slot.state = State::Free;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(tag as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(tag: u64) -> Completion {
        Completion {
            tag,
            result: 0,
            values: [0, 0],
        }
    }

    #[test]
    fn a_tag_is_answered_once() {
        let mut pending = Pending::new(2);
        let call = pending.enter(Purpose::Call, None);
        let post = pending.enter(Purpose::Close(3), None);
        assert!(pending.is_full());
        assert!(pending.take_done(call).is_none());
        assert!(pending.complete(completion(call)).is_ok());
        assert!(pending.complete(completion(call)).is_err(), "done already");
        assert!(pending.complete(completion(post)).is_ok());
        assert!(pending.complete(completion(post)).is_err(), "free");
        assert_eq!(pending.take_done(call), Some(completion(call)));
        assert_eq!(pending.take_done(call), None);
        let again = pending.enter(Purpose::Forget, None);
        assert_ne!(again, call);
        assert!(pending.complete(completion(99 << 32)).is_err());
    }
}
