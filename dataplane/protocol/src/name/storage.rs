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

/// A list of bindings: a ring through them, and where it begins.
#[derive(Clone, Copy)]
pub(super) struct List {
    head: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NIL };

    pub(super) fn is_empty(&self) -> bool {
        self.head == NIL
    }

    pub(super) fn first(&self) -> Option<u32> {
        linked(self.head)
    }

    pub(super) fn push_front(&mut self, bindings: &mut Slab<Binding>, chain: Chain, index: u32) {
        self.push_back(bindings, chain, index);
        self.head = index;
    }

    pub(super) fn push_back(&mut self, bindings: &mut Slab<Binding>, chain: Chain, index: u32) {
        let next = linked(self.head).unwrap_or(index);
        let prev = match linked(self.head) {
            Some(head) => bindings[head].links[chain as usize].prev,
            None => index,
        };
        bindings[index].links[chain as usize] = Links { prev, next };
        bindings[prev].links[chain as usize].next = index;
        bindings[next].links[chain as usize].prev = index;
        if self.is_empty() {
            self.head = index;
        }
    }

    /// Takes out a member of this list.
    pub(super) fn unlink(&mut self, bindings: &mut Slab<Binding>, chain: Chain, index: u32) {
        let Links { prev, next } = bindings[index].links[chain as usize];
        bindings[prev].links[chain as usize].next = next;
        bindings[next].links[chain as usize].prev = prev;
        bindings[index].links[chain as usize] = Links::UNLINKED;
        if next == index {
            self.head = NIL;
        } else if self.head == index {
            self.head = next;
        }
    }

    /// Returns the first member after moving it to the end.
    #[inline]
    pub(super) fn rotate(&mut self, bindings: &Slab<Binding>, chain: Chain) -> Option<u32> {
        let first = self.first()?;
        self.head = bindings[first].links[chain as usize].next;
        Some(first)
    }

    /// Whether it has one member.
    pub(super) fn is_single(self, bindings: &Slab<Binding>, chain: Chain) -> bool {
        self.first()
            .is_some_and(|first| bindings[first].links[chain as usize].next == first)
    }

    pub(super) fn iter(
        self,
        bindings: &Slab<Binding>,
        chain: Chain,
    ) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.first(), move |&index| {
            let next = bindings[index].links[chain as usize].next;
            (next != self.head).then_some(next)
        })
    }
}
