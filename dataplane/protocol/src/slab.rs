//! Slots that are reused, for structures that link their members by index.
//!
//! An index is 32 bits, so a member with several list memberships stays small, and moving it from one list to
//! another allocates nothing.

use std::ops::{Index, IndexMut};

/// "No such slot": ends lists and trees.
pub(crate) const NIL: u32 = u32::MAX;

/// `Some(index)` unless it is [`NIL`].
#[inline]
pub(crate) fn linked(index: u32) -> Option<u32> {
    (index != NIL).then_some(index)
}

/// Values at stable 32-bit indices; freed slots are reused, last freed first.
pub(crate) struct Slab<T> {
    slots: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// What is, or was last, in a slot.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)
    }
}

impl<T: Copy> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = value;
            return index;
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(NIL);
        assert!(
            index != NIL,
            "the owner's limits keep every slab far below 2^32 slots"
        );
        self.slots.push(value);
        index
    }

    /// Frees the slot. The caller has removed every link to it.
    pub(crate) fn remove(&mut self, index: u32) -> T {
        self.free.push(index);
        self.slots[index as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn allocated_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        &self.slots[index as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.slots[index as usize]
    }
}
