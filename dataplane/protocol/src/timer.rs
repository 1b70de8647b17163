//! A timer wheel in virtual time: one timer per id, armed, moved and cancelled in constant time.
//!
//! Slots are one millisecond apart and there are 1024 of them; a timer further away stays in its
//! slot until its round comes. Ids are small integers that the owner assigns.

use crate::time::Instant;
use std::cell::Cell;

const SLOTS: usize = 1024;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// [`NEVER`] if the timer is not armed.
    deadline_ms: u64,
    prev: u32,
    next: u32,
}

const NEVER: u64 = u64::MAX;

impl Entry {
    fn is_armed(&self) -> bool {
        self.deadline_ms != NEVER
    }
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    slots: Box<[u32; SLOTS]>,
    occupied: [u64; SLOTS / 64],
    entries: Vec<Entry>,
    /// Every timer before this millisecond has fired.
    cursor_ms: u64,
    /// The millisecond that [`Self::next_deadline`] found, while it holds: it is asked for after each input, and few inputs
    /// touch timers.
    next_ms: Cell<Option<u64>>,
}

impl Wheel {
    /// A wheel that starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            slots: Box::new([NONE; SLOTS]),
            occupied: [0; SLOTS / 64],
            entries: Vec::new(),
            cursor_ms: now.as_millis(),
            next_ms: Cell::new(None),
        }
    }

    /// Arms timer `id`, or moves it. It fires at the first call of [`Self::pop_expired`] that is not
    /// before `deadline`, rounded up to a millisecond.
    pub fn arm(&mut self, id: u32, deadline: Instant) {
        self.cancel(id);
        let blank = Entry {
            deadline_ms: NEVER,
            prev: NONE,
            next: NONE,
        };
        let needed = id as usize + 1;
        if self.entries.len() < needed {
            // Not by doubling: with a thousand peers half of it would be a lot.
            if self.entries.capacity() < needed {
                let missing = needed - self.entries.len();
                self.entries.reserve_exact(missing + needed / 32);
            }
            self.entries.resize(needed, blank);
        }
        let deadline_ms = deadline.0.div_ceil(1_000_000).max(self.cursor_ms);
        let slot = deadline_ms as usize % SLOTS;
        let next = self.slots[slot];
        self.entries[id as usize] = Entry {
            deadline_ms,
            prev: NONE,
            next,
        };
        if next != NONE {
            self.entries[next as usize].prev = id;
        }
        self.slots[slot] = id;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        if self.next_ms.get().is_some_and(|next| deadline_ms < next) {
            self.next_ms.set(Some(deadline_ms));
        }
    }

    /// Disarms timer `id` if it is armed.
    pub fn cancel(&mut self, id: u32) {
        let Some(&entry) = self.entries.get(id as usize).filter(|e| e.is_armed()) else {
            return;
        };
        let slot = entry.deadline_ms as usize % SLOTS;
        match entry.prev {
            NONE => self.slots[slot] = entry.next,
            prev => self.entries[prev as usize].next = entry.next,
        }
        if entry.next != NONE {
            self.entries[entry.next as usize].prev = entry.prev;
        }
        if self.slots[slot] == NONE {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
        self.entries[id as usize].deadline_ms = NEVER;
        let may_be_next = entry.deadline_ms.min(self.cursor_ms + SLOTS as u64);
        let next_ms = self.next_ms.get().filter(|next| *next < may_be_next);
        self.next_ms.set(next_ms);
    }

    /// Takes one timer whose time has come; `None` when all that were due have been taken.
    pub fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let now_ms = now.as_millis();
        if now_ms >= self.cursor_ms + SLOTS as u64 {
            return self.pop_overdue(now_ms);
        }
        while self.cursor_ms <= now_ms {
            let mut id = self.slots[self.cursor_ms as usize % SLOTS];
            while id != NONE {
                let entry = self.entries[id as usize];
                if entry.deadline_ms <= now_ms {
                    self.cancel(id);
                    return Some(id);
                }
                id = entry.next;
            }
            if self.cursor_ms == now_ms {
                return None;
            }
            self.turn_to(self.cursor_ms + 1);
        }
        None
    }

    /// A whole round was slept through: every slot is looked at once.
    #[inline(never)]
    fn pop_overdue(&mut self, now_ms: u64) -> Option<u32> {
        let overdue = self
            .iter_armed()
            .filter(|(_, at)| *at <= now_ms)
            .min_by_key(|(_, at)| *at);
        let Some((id, at)) = overdue else {
            self.turn_to(now_ms);
            return None;
        };
        self.turn_to(at.max(self.cursor_ms));
        self.cancel(id);
        Some(id)
    }

    fn turn_to(&mut self, ms: u64) {
        self.cursor_ms = ms;
        self.next_ms.set(None);
    }

    /// When to call [`Self::pop_expired`] next; at the latest after one round of the wheel.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.next_ms.get().is_none() {
            self.next_ms.set(self.find_next_ms());
        }
        self.next_ms.get().map(Instant::from_millis)
    }

    fn find_next_ms(&self) -> Option<u64> {
        let start = self.cursor_ms;
        if self.occupied.iter().all(|w| *w == 0) {
            return None;
        }
        let end = start + SLOTS as u64;
        let mut ms = start;
        while ms < end {
            let slot = ms as usize % SLOTS;
            let ahead = self.occupied[slot / 64] >> (slot % 64);
            if ahead & 1 == 0 {
                let rest_of_word = 64 - slot as u64 % 64;
                ms += rest_of_word.min(ahead.trailing_zeros().into());
                continue;
            }
            let mut id = self.slots[slot];
            while id != NONE {
                let entry = self.entries[id as usize];
                if entry.deadline_ms == ms {
                    return Some(ms);
                }
                id = entry.next;
            }
            ms += 1;
        }
        Some(end)
    }

    /// The timers that fire in the millisecond of `now`, if none before it is left.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = u32> + '_ {
        let now_ms = now.as_millis();
        let linked = |id: u32| (id != NONE).then_some(id);
        let first = linked(self.slots[now_ms as usize % SLOTS]);
        let slot = std::iter::successors(first, move |id| linked(self.entries[*id as usize].next));
        slot.filter(move |id| self.entries[*id as usize].deadline_ms <= now_ms)
    }

    fn iter_armed(&self) -> impl Iterator<Item = (u32, u64)> {
        self.entries
            .iter()
            .enumerate()
            .filter(|(_, e)| e.is_armed())
            .map(|(id, e)| (id as u32, e.deadline_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn far_timers_wait_for_their_round() {
        let mut wheel = Wheel::new(Instant(0));
        wheel.arm(3, Instant::from_millis(60_000));
        wheel.arm(1, Instant::from_millis(5));
        assert_eq!(wheel.next_deadline(), Some(Instant::from_millis(5)));
        assert_eq!(wheel.pop_expired(Instant::from_millis(4)), None);
        assert!(wheel.due(Instant::from_millis(4)).next().is_none());
        assert!(wheel.due(Instant::from_millis(5)).eq([1]));
        assert_eq!(wheel.pop_expired(Instant::from_millis(5)), Some(1));
        assert_eq!(wheel.pop_expired(Instant::from_millis(59_999)), None);
        assert_eq!(wheel.pop_expired(Instant::from_millis(60_000)), Some(3));
        assert_eq!(wheel.next_deadline(), None);
    }

    proptest! {
        #[test]
        fn every_timer_fires_once_and_not_early(
            ops in proptest::collection::vec((0u32..20, 0u64..5000, 0u64..1500, any::<bool>()), 1..200)
        ) {
            let mut wheel = Wheel::new(Instant(0));
            let mut oracle: std::collections::BTreeMap<u32, u64> = Default::default();
            let mut now = 0;
            for (id, delay, step, cancel) in ops {
                if cancel {
                    wheel.cancel(id);
                    oracle.remove(&id);
                } else {
                    wheel.arm(id, Instant::from_millis(now + delay));
                    oracle.insert(id, now + delay);
                }
                let next = wheel.next_deadline().map(Instant::as_millis);
                let first = oracle.values().min().map(|d| *d.max(&now));
                let seen = first.map(|d| d.min(wheel.cursor_ms + SLOTS as u64));
                prop_assert_eq!(next, seen);
                now += step;
                while let Some(id) = wheel.pop_expired(Instant::from_millis(now)) {
                    let due = oracle.remove(&id);
                    prop_assert!(due.is_some_and(|d| d <= now));
                }
                prop_assert!(oracle.values().all(|d| *d > now));
            }
        }
    }
}
