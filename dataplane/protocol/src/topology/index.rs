//! Which subscriptions overlap a range, without a look at the others.
//!
//! Subscriptions of a service type are filed by the size of their range, in classes of powers of two, and within a
//! class by their lower bound. What overlaps `lower..=upper` then begins, in the class of ranges of at most `size`
//! instances, between `lower - size + 1` and `upper`; of those, all that begin in the upper half of this span and
//! most of the others do overlap. One subscription among 10,000 to single instances of a type is found in a few steps,
//! where Linux walks all of the type.

use crate::name::ServiceRange;
use std::collections::{BTreeMap, BTreeSet};

/// Class of ranges with more than 2^(class-1) and at most 2^class instances.
fn class_of(range: ServiceRange) -> u8 {
    let beyond_first = range.upper - range.lower;
    (u32::BITS - beyond_first.leading_zeros()) as u8
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    type_: u32,
    class: u8,
    lower: u32,
    slot: u32,
}

impl Key {
    fn new(range: ServiceRange, slot: u32) -> Self {
        Self {
            type_: range.type_,
            class: class_of(range),
            lower: range.lower,
            slot,
        }
    }
}

/// See the [module](self). Names subscriptions by their slots.
#[derive(Default)]
pub(super) struct Index {
    keys: BTreeSet<Key>,
    /// For each type that has subscriptions: a bit for each class that has.
    classes: BTreeMap<u32, u64>,
}

impl Index {
    pub(super) fn insert(&mut self, range: ServiceRange, slot: u32) {
        self.keys.insert(Key::new(range, slot));
        *self.classes.entry(range.type_).or_default() |= 1 << class_of(range);
    }

    pub(super) fn remove(&mut self, range: ServiceRange, slot: u32) {
        let key = Key::new(range, slot);
        self.keys.remove(&key);
        let least = Key {
            lower: 0,
            slot: 0,
            ..key
        };
        let most = Key {
            lower: u32::MAX,
            slot: u32::MAX,
            ..key
        };
        if self.keys.range(least..=most).next().is_none()
            && let Some(classes) = self.classes.get_mut(&range.type_)
        {
            *classes &= !(1 << key.class);
            if *classes == 0 {
                self.classes.remove(&range.type_);
            }
        }
    }

    /// Slots of the subscriptions that may overlap `range`, and all that do.
    pub(super) fn candidates(&self, range: ServiceRange) -> impl Iterator<Item = u32> + '_ {
        let classes = self.classes.get(&range.type_).copied().unwrap_or(0);
        (0..=u32::BITS as u8)
            .filter(move |class| classes & 1 << class != 0)
            .flat_map(move |class| {
                let reach = ((1u64 << class) - 1) as u32;
                let key = |lower, slot| Key {
                    type_: range.type_,
                    class,
                    lower,
                    slot,
                };
                let least = key(range.lower.saturating_sub(reach), 0);
                self.keys.range(least..=key(range.upper, u32::MAX))
            })
            .map(|key| key.slot)
    }

    /// Slots of the subscriptions to ranges of the same size class that begin where `range` does: those to exactly
    /// this range are among them.
    pub(super) fn beginning_as(&self, range: ServiceRange) -> impl Iterator<Item = u32> + '_ {
        let least = range.is_valid().then(|| Key::new(range, 0));
        let found = least.map(|least| {
            let most = Key {
                slot: u32::MAX,
                ..least
            };
            self.keys.range(least..=most)
        });
        found.into_iter().flatten().map(|key| key.slot)
    }
}
