//! Frames as the engine sees them: handles, a table of what it knows of each, lists through it.
//!
//! A frame holds one packet. [`Frame`] owns it and cannot be cloned: whoever has it queues it, frees
//! it or hands it on. [`FrameRef`] names a frame that some list owns. The lists are threaded through
//! one table with an entry per frame, so a queue has no capacity of its own and never allocates.

use crate::host::Host;
use crate::seqno::SeqNo;
use crate::time::Instant;
use crate::wire::Importance;

/// A frame this holder owns.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is neither queued nor freed is lost"]
pub struct Frame(u32);

/// The name of a frame that somebody else owns: good for reading and sending it, not for freeing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef(u32);

impl Frame {
    /// For a [`crate::host::Host`] that hands out the frame with this index.
    pub fn new(index: u32) -> Self {
        Self(index)
    }

    /// The frame's index in its pool.
    #[inline]
    pub fn index(&self) -> u32 {
        self.0
    }

    /// Its name.
    #[inline]
    pub fn by_ref(&self) -> FrameRef {
        FrameRef(self.0)
    }
}

impl FrameRef {
    /// The frame's index in its pool.
    #[inline]
    pub fn index(self) -> u32 {
        self.0
    }
}

/// What the engine knows of the packet in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    next: u32,
    /// Packet size in bytes.
    pub len: u32,
    /// Its number on the link, once it has one.
    pub seqno: SeqNo,
    /// Which backlog it counts against.
    pub importance: Importance,
    /// Broadcast link: peers that have not acknowledged it.
    pub acks_left: u16,
    /// Last transmission.
    pub sent_at: Instant,
    /// First retransmission.
    pub resent_at: Option<Instant>,
}

/// One entry per frame of the pool.
#[derive(Debug)]
pub struct FrameTable {
    entries: Vec<Meta>,
}

const NONE: u32 = u32::MAX;

impl FrameTable {
    /// A table for a pool of `frame_count` frames.
    pub fn new(frame_count: u32) -> Self {
        let blank = Meta {
            next: NONE,
            len: 0,
            seqno: SeqNo(0),
            importance: Importance::Low,
            acks_left: 0,
            sent_at: Instant(0),
            resent_at: None,
        };
        Self {
            entries: vec![blank; frame_count as usize],
        }
    }

    /// Number of frames in the pool.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if the pool has no frames.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of a frame.
    #[inline]
    pub fn meta(&self, frame: FrameRef) -> &Meta {
        &self.entries[frame.0 as usize]
    }

    /// The same, to be changed.
    #[inline]
    pub fn meta_mut(&mut self, frame: FrameRef) -> &mut Meta {
        &mut self.entries[frame.0 as usize]
    }
}

/// What to do with a frame that [`FrameList::walk`] visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Leave it and go on.
    Keep,
    /// Take it out and go on.
    Remove,
    /// Leave it and those behind it.
    Stop,
}

/// What became of a frame that was to be inserted by its number.
#[derive(Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The list holds it.
    Yes,
    /// The list holds its number already; here it is back.
    Duplicate(Frame),
}

/// A queue of frames, threaded through the table.
#[derive(Debug)]
pub struct FrameList {
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for FrameList {
    fn default() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            len: 0,
        }
    }
}

impl FrameList {
    /// Number of frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True if there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first frame.
    #[inline]
    pub fn front(&self) -> Option<FrameRef> {
        (self.head != NONE).then_some(FrameRef(self.head))
    }

    /// The last frame.
    #[inline]
    pub fn back(&self) -> Option<FrameRef> {
        (self.tail != NONE).then_some(FrameRef(self.tail))
    }

    /// The frames in order.
    pub fn iter<'a>(&self, table: &'a FrameTable) -> impl Iterator<Item = FrameRef> + use<'a> {
        let mut at = self.head;
        std::iter::from_fn(move || {
            let frame = (at != NONE).then_some(FrameRef(at))?;
            at = table.meta(frame).next;
            Some(frame)
        })
    }

    /// The frame behind one that this list holds.
    pub fn after(&self, table: &FrameTable, frame: FrameRef) -> Option<FrameRef> {
        let next = table.meta(frame).next;
        (next != NONE).then_some(FrameRef(next))
    }

    /// Appends a frame.
    #[inline]
    pub fn push_back(&mut self, table: &mut FrameTable, frame: Frame) {
        let index = frame.0;
        table.entries[index as usize].next = NONE;
        match self.tail {
            NONE => self.head = index,
            tail => table.entries[tail as usize].next = index,
        }
        self.tail = index;
        self.len += 1;
    }

    /// Takes the first frame out.
    #[inline]
    pub fn pop_front(&mut self, table: &FrameTable) -> Option<Frame> {
        let frame = self.front()?;
        self.head = table.meta(frame).next;
        if self.head == NONE {
            self.tail = NONE;
        }
        self.len -= 1;
        Some(Frame(frame.0))
    }

    /// Appends all frames of another list.
    pub fn append(&mut self, table: &mut FrameTable, mut other: Self) {
        while let Some(frame) = other.pop_front(table) {
            self.push_back(table, frame);
        }
    }

    /// Gives all frames back.
    pub fn free_all<H: Host>(&mut self, table: &FrameTable, host: &mut H) {
        while let Some(frame) = self.pop_front(table) {
            host.free(frame);
        }
    }

    /// Inserts a frame in the order of the numbers in the table, all of which lie within 2^15.
    pub fn insert_by_seqno(&mut self, table: &mut FrameTable, frame: Frame) -> Inserted {
        let seqno = table.meta(frame.by_ref()).seqno;
        let mut before = NONE;
        let mut at = self.head;
        // Packets mostly arrive in order: try the end first.
        if self.tail != NONE && table.entries[self.tail as usize].seqno.before(seqno) {
            before = self.tail;
            at = NONE;
        }
        while at != NONE {
            let there = table.entries[at as usize].seqno;
            if there == seqno {
                return Inserted::Duplicate(frame);
            }
            if seqno.before(there) {
                break;
            }
            before = at;
            at = table.entries[at as usize].next;
        }
        table.entries[frame.0 as usize].next = at;
        match before {
            NONE => self.head = frame.0,
            before => table.entries[before as usize].next = frame.0,
        }
        if at == NONE {
            self.tail = frame.0;
        }
        self.len += 1;
        Inserted::Yes
    }

    /// Visits the frames in order and gives those that the visitor took out.
    pub fn walk(
        &mut self,
        table: &mut FrameTable,
        mut visit: impl FnMut(FrameRef, &mut Meta) -> Walk,
    ) -> Self {
        let mut removed = Self::default();
        let mut before = NONE;
        let mut at = self.head;
        while at != NONE {
            let next = table.entries[at as usize].next;
            match visit(FrameRef(at), &mut table.entries[at as usize]) {
                Walk::Stop => break,
                Walk::Keep => before = at,
                Walk::Remove => {
                    match before {
                        NONE => self.head = next,
                        before => table.entries[before as usize].next = next,
                    }
                    if next == NONE {
                        self.tail = before;
                    }
                    self.len -= 1;
                    removed.push_back(table, Frame(at));
                }
            }
            at = next;
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbered(table: &mut FrameTable, index: u32, seqno: u16) -> Frame {
        let frame = Frame::new(index);
        table.meta_mut(frame.by_ref()).seqno = SeqNo(seqno);
        frame
    }

    fn numbers(list: &FrameList, table: &FrameTable) -> Vec<u16> {
        list.iter(table).map(|f| table.meta(f).seqno.0).collect()
    }

    #[test]
    fn insertion_sorts_across_the_wrap_and_gives_duplicates_back() {
        let mut table = FrameTable::new(8);
        let mut list = FrameList::default();
        for (index, seqno) in [(0, 2), (1, 65_534), (2, 0), (3, 65_535), (4, 5)] {
            let frame = numbered(&mut table, index, seqno);
            assert_eq!(list.insert_by_seqno(&mut table, frame), Inserted::Yes);
        }
        let again = numbered(&mut table, 5, 0);
        assert_eq!(
            list.insert_by_seqno(&mut table, again),
            Inserted::Duplicate(Frame::new(5))
        );
        assert_eq!(numbers(&list, &table), [65_534, 65_535, 0, 2, 5]);
    }

    proptest! {
        #[test]
        fn list_behaves_like_a_deque(ops in proptest::collection::vec(0u8..4, 1..200)) {
            let mut table = FrameTable::new(256);
            let mut list = FrameList::default();
            let mut oracle = std::collections::VecDeque::new();
            for (index, op) in ops.into_iter().enumerate() {
                let index = index as u32;
                match op {
                    0 | 1 => {
                        let frame = numbered(&mut table, index, index as u16);
                        list.push_back(&mut table, frame);
                        oracle.push_back(index);
                    }
                    2 => prop_assert_eq!(list.pop_front(&table).map(|f| f.index()), oracle.pop_front()),
                    _ => {
                        let removed = list.walk(&mut table, |f, _| match f.index() % 3 {
                            0 => Walk::Remove,
                            _ => Walk::Keep,
                        });
                        let gone = oracle.iter().filter(|i| **i % 3 == 0).count();
                        prop_assert_eq!(removed.len(), gone);
                        oracle.retain(|i| i % 3 != 0);
                    }
                }
                prop_assert_eq!(list.len(), oracle.len());
                let order: Vec<u32> = list.iter(&table).map(FrameRef::index).collect();
                prop_assert_eq!(order, oracle.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
