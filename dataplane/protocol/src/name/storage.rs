//! Index-linked storage of the binding table: slots that are reused and doubly linked lists
//! threaded through them.
//!
//! Owned by the binding table. An index is 32 bits, so a binding with its three list memberships
//! stays below a cache line, and moving it from one end of a list to the other allocates nothing.

use super::Scope;
use std::ops::{Index, IndexMut};

/// "No such slot": ends lists and trees.
pub(super) const NIL: u32 = u32::MAX;

/// `Some(index)` unless it is [`NIL`].
pub(super) fn linked(index: u32) -> Option<u32> {
    (index != NIL).then_some(index)
}

/// Values at stable 32-bit indices; freed slots are reused, last freed first.
pub(super) struct Slab<T> {
    slots: Vec<T>,
    free: Vec<u32>,
}

impl<T: Copy> Slab<T> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = value;
            return index;
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(NIL);
        assert!(
            index != NIL,
            "the table's limits keep every slab far below 2^32 slots"
        );
        self.slots.push(value);
        index
    }

    /// Frees the slot. The caller has removed every link to it.
    pub(super) fn remove(&mut self, index: u32) -> T {
        self.free.push(index);
        self.slots[index as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.slots[index as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.slots[index as usize]
    }
}

/// Which of its lists a binding is meant to be linked in.
#[derive(Clone, Copy)]
pub(super) enum Chain {
    /// Every publication of the exact range.
    All,
    /// The own node's publications of the exact range.
    Local,
    /// Publications of one origin, in the order they were made or learned.
    Origin,
}

#[derive(Clone, Copy)]
pub(super) struct Links {
    prev: u32,
    next: u32,
}

impl Links {
    pub(super) const UNLINKED: Self = Self {
        prev: NIL,
        next: NIL,
    };
}

/// A publication as stored. Its bounds are those of `range`, its node is that of `origin`.
#[derive(Clone, Copy)]
pub(super) struct Binding {
    pub(super) id: u64,
    pub(super) port: u32,
    pub(super) key: u32,
    pub(super) origin: u32,
    pub(super) range: u32,
    pub(super) links: [Links; 3],
    pub(super) scope: Scope,
}

const _: () = assert!(
    size_of::<Binding>() <= 64,
    "a binding stays within one cache line"
);

/// Both ends of a list of bindings.
#[derive(Clone, Copy)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.head == NIL
    }

    pub(super) fn first(&self) -> Option<u32> {
        linked(self.head)
    }

    pub(super) fn push_front(&mut self, bindings: &mut Slab<Binding>, chain: Chain, index: u32) {
        bindings[index].links[chain as usize] = Links {
            prev: NIL,
            next: self.head,
        };
        match linked(self.head) {
            Some(head) => bindings[head].links[chain as usize].prev = index,
            None => self.tail = index,
        }
        self.head = index;
    }

    pub(super) fn push_back(&mut self, bindings: &mut Slab<Binding>, chain: Chain, index: u32) {
        bindings[index].links[chain as usize] = Links {
            prev: self.tail,
            next: NIL,
        };
        match linked(self.tail) {
            Some(tail) => bindings[tail].links[chain as usize].next = index,
            None => self.head = index,
        }
        self.tail = index;
    }

    /// Takes out a member of this list.
    pub(super) fn unlink(&mut self, bindings: &mut Slab<Binding>, chain: Chain, index: u32) {
        let Links { prev, next } = bindings[index].links[chain as usize];
        match linked(prev) {
            Some(prev) => bindings[prev].links[chain as usize].next = next,
            None => self.head = next,
        }
        match linked(next) {
            Some(next) => bindings[next].links[chain as usize].prev = prev,
            None => self.tail = prev,
        }
        bindings[index].links[chain as usize] = Links::UNLINKED;
    }

    /// Returns the first member after moving it to the end.
    pub(super) fn rotate(&mut self, bindings: &mut Slab<Binding>, chain: Chain) -> Option<u32> {
        let first = self.first()?;
        if self.head != self.tail {
            self.unlink(bindings, chain, first);
            self.push_back(bindings, chain, first);
        }
        Some(first)
    }

    pub(super) fn iter(
        self,
        bindings: &Slab<Binding>,
        chain: Chain,
    ) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(linked(self.head), move |&index| {
            linked(bindings[index].links[chain as usize].next)
        })
    }
}
