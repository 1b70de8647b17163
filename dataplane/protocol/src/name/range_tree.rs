//! The distinct ranges of each service, as one interval tree for each service.
//!
//! A treap over slab indices: in *table order* (ascending `lower`; among equals the range created
//! last comes first), heap-ordered by a random priority, each node knowing the largest `upper`
//! below it - once over all ranges and once over those with a local publication. The second bound
//! keeps local lookups (every received multicast is one) from walking ranges that only peers hold.
//! First match and next match cost O(log n) whatever the ranges look like.
//!
//! Owned by the binding table. Reference: `docs/protocol/names.md`

use super::storage::List;
use crate::slab::{NIL, Slab, linked};

/// A range object and its place in the tree of its service.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) service: u32,
    pub(super) lower: u32,
    pub(super) upper: u32,
    /// Every publication of exactly this range.
    pub(super) all: List,
    /// Those of the own node.
    pub(super) local: List,
    priority: u32,
    parent: u32,
    left: u32,
    right: u32,
    max_upper: u32,
    max_local_upper: Option<u32>,
}

/// Which ranges a search may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    /// Only ranges with a publication of the own node.
    Local,
}

/// A search for the ranges that have an instance in `lower..=upper`.
#[derive(Clone, Copy)]
pub(super) struct Overlap {
    pub(super) lower: u32,
    pub(super) upper: u32,
    pub(super) reach: Reach,
}

impl Overlap {
    pub(super) const EVERYTHING: Self = Self {
        lower: 0,
        upper: u32::MAX,
        reach: Reach::All,
    };
}

/// All range objects of the table. The roots are kept by the services.
pub(super) struct Ranges {
    slab: Slab<Range>,
    random: u64,
}

impl Ranges {
    /// `seed` only shapes the trees, it never shows in an answer; unknown to peers, it keeps them
    /// from choosing ranges that degrade a tree to a list.
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            slab: Slab::new(),
            random: seed,
        }
    }

    pub(super) fn get(&self, index: u32) -> &Range {
        &self.slab[index]
    }

    /// For the lists; after a change of whether `local` is empty call [`Self::local_changed`].
    pub(super) fn get_mut(&mut self, index: u32) -> &mut Range {
        &mut self.slab[index]
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.slab.allocated_bytes()
    }

    /// Creates a range object without publications, ahead of the others with this `lower`.
    pub(super) fn insert(&mut self, root: &mut u32, service: u32, lower: u32, upper: u32) -> u32 {
        let index = self.slab.insert(Range {
            service,
            lower,
            upper,
            all: List::EMPTY,
            local: List::EMPTY,
            priority: next_random(&mut self.random),
            parent: NIL,
            left: NIL,
            right: NIL,
            max_upper: upper,
            max_local_upper: None,
        });
        let Some(mut parent) = linked(*root) else {
            *root = index;
            return index;
        };
        loop {
            let goes_left = lower <= self.slab[parent].lower;
            let node = &mut self.slab[parent];
            let child = if goes_left {
                &mut node.left
            } else {
                &mut node.right
            };
            match linked(*child) {
                Some(next) => parent = next,
                None => break *child = index,
            }
        }
        self.slab[index].parent = parent;
        self.refresh_from(parent);
        while let Some(parent) = linked(self.slab[index].parent)
            && self.slab[index].priority > self.slab[parent].priority
        {
            self.rotate_up(root, index);
        }
        index
    }

    /// Removes a range object; its lists are empty.
    pub(super) fn remove(&mut self, root: &mut u32, index: u32) {
        loop {
            let Range { left, right, .. } = self.slab[index];
            let child = match (linked(left), linked(right)) {
                (None, None) => break,
                (Some(only), None) | (None, Some(only)) => only,
                (Some(l), Some(r)) if self.slab[l].priority > self.slab[r].priority => l,
                (Some(_), Some(r)) => r,
            };
            self.rotate_up(root, child);
        }
        let parent = self.slab[index].parent;
        self.replace_child(root, parent, index, NIL);
        if let Some(parent) = linked(parent) {
            self.refresh_from(parent);
        }
        self.slab.remove(index);
    }

    /// Tells the tree that the local list of this range became empty or non-empty.
    pub(super) fn local_changed(&mut self, index: u32) {
        self.refresh_from(index);
    }

    /// First match in table order.
    pub(super) fn first(&self, root: u32, overlap: Overlap) -> Option<u32> {
        let mut index = self.reaching(root, overlap)?;
        loop {
            let node = &self.slab[index];
            if let Some(left) = self.reaching(node.left, overlap) {
                // Something in there ends at or after `overlap.lower`. Should it start beyond
                // `overlap.upper`, then so does everything to its right: no match at all.
                index = left;
                continue;
            }
            if node.lower > overlap.upper {
                return None;
            }
            if node.matches(overlap) {
                return Some(index);
            }
            index = self.reaching(node.right, overlap)?;
        }
    }

    /// The match that follows `index` in table order.
    pub(super) fn next(&self, mut index: u32, overlap: Overlap) -> Option<u32> {
        if let Some(right) = self.reaching(self.slab[index].right, overlap) {
            return self.first(right, overlap);
        }
        while let Some(parent) = linked(self.slab[index].parent) {
            let node = &self.slab[parent];
            if node.left == index {
                if node.lower > overlap.upper {
                    return None;
                }
                if node.matches(overlap) {
                    return Some(parent);
                }
                if let Some(right) = self.reaching(node.right, overlap) {
                    return self.first(right, overlap);
                }
            }
            index = parent;
        }
        None
    }

    /// All matches in table order.
    pub(super) fn matches(&self, root: u32, overlap: Overlap) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.first(root, overlap), move |&index| {
            self.next(index, overlap)
        })
    }

    /// The subtree, if a range in it ends at or after the lower bound of the search.
    fn reaching(&self, index: u32, overlap: Overlap) -> Option<u32> {
        let index = linked(index)?;
        let node = &self.slab[index];
        let end = match overlap.reach {
            Reach::All => Some(node.max_upper),
            Reach::Local => node.max_local_upper,
        };
        end.is_some_and(|end| end >= overlap.lower).then_some(index)
    }

    /// Recomputes the bounds from here to the root, as far as they change.
    fn refresh_from(&mut self, index: u32) {
        let mut next = Some(index);
        while let Some(index) = next
            && self.refresh(index)
        {
            next = linked(self.slab[index].parent);
        }
    }

    fn refresh(&mut self, index: u32) -> bool {
        let node = &self.slab[index];
        let mut max_upper = node.upper;
        let mut max_local_upper = (!node.local.is_empty()).then_some(node.upper);
        for child in [node.left, node.right].into_iter().filter_map(linked) {
            max_upper = max_upper.max(self.slab[child].max_upper);
            max_local_upper = max_local_upper.max(self.slab[child].max_local_upper);
        }
        let node = &mut self.slab[index];
        let changed = (node.max_upper, node.max_local_upper) != (max_upper, max_local_upper);
        (node.max_upper, node.max_local_upper) = (max_upper, max_local_upper);
        changed
    }

    /// Exchanges a node with its parent; the order of the ranges stays.
    fn rotate_up(&mut self, root: &mut u32, index: u32) {
        let parent = self.slab[index].parent;
        let grandparent = self.slab[parent].parent;
        let moved = if self.slab[parent].left == index {
            let moved = std::mem::replace(&mut self.slab[index].right, parent);
            self.slab[parent].left = moved;
            moved
        } else {
            let moved = std::mem::replace(&mut self.slab[index].left, parent);
            self.slab[parent].right = moved;
            moved
        };
        if let Some(moved) = linked(moved) {
            self.slab[moved].parent = parent;
        }
        self.slab[parent].parent = index;
        self.slab[index].parent = grandparent;
        self.replace_child(root, grandparent, parent, index);
        self.refresh(parent);
        self.refresh(index);
    }

    fn replace_child(&mut self, root: &mut u32, parent: u32, old: u32, new: u32) {
        match linked(parent) {
            None => *root = new,
            Some(parent) if self.slab[parent].left == old => self.slab[parent].left = new,
            Some(parent) => self.slab[parent].right = new,
        }
    }
}

impl Range {
    fn matches(&self, overlap: Overlap) -> bool {
        let reachable = overlap.reach == Reach::All || !self.local.is_empty();
        reachable && self.lower <= overlap.upper && self.upper >= overlap.lower
    }
}

/// SplitMix64, upper half.
fn next_random(state: &mut u64) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Ranges {
        fn depth(&self, root: u32) -> u32 {
            match linked(root) {
                None => 0,
                Some(i) => {
                    1 + self
                        .depth(self.slab[i].left)
                        .max(self.depth(self.slab[i].right))
                }
            }
        }
    }

    #[test]
    fn tree_of_100_000_ranges_inserted_in_ascending_order_stays_shallow() {
        let (mut ranges, mut root) = (Ranges::new(7), NIL);
        let indices: Vec<u32> = (0..100_000)
            .map(|i| ranges.insert(&mut root, 0, i, i))
            .collect();
        let depth = ranges.depth(root);
        // A perfect tree has 17 levels; a treap of this size stays below 50 or so.
        assert!(depth < 60, "depth {depth}");
        let everything: Vec<u32> = ranges.matches(root, Overlap::EVERYTHING).collect();
        assert_eq!(everything, indices);
        for index in indices {
            ranges.remove(&mut root, index);
        }
        assert_eq!((root, ranges.slab.len()), (NIL, 0));
    }

    #[test]
    fn among_equal_lower_bounds_the_range_created_last_comes_first() {
        let (mut ranges, mut root) = (Ranges::new(7), NIL);
        for upper in [5, 3, 9, 4] {
            ranges.insert(&mut root, 0, 2, upper);
        }
        let uppers: Vec<u32> = ranges
            .matches(root, Overlap::EVERYTHING)
            .map(|i| ranges.get(i).upper)
            .collect();
        assert_eq!(uppers, [4, 9, 3, 5]);
    }
}
