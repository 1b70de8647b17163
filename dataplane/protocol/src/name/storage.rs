//! Index-linked storage of the binding table: bindings and the doubly linked lists threaded through
//! them.
//!
//! Owned by the binding table. A binding with its three list memberships stays below a cache line,
//! and moving it from one end of a list to the other allocates nothing.

use super::Scope;
use crate::slab::{NIL, Slab, linked};

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
