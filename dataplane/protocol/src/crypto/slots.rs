//! The places for keys of one context: the master's and three of session keys (`docs/protocol/crypto.md`, slots).

use super::key::{Key, KeyMode};
use std::sync::Arc;

/// A place for a key: 0 for the master key, 1 to 3 for session keys; among indices 0 means none.
pub(super) type Slot = u8;
pub(super) const MASTER: Slot = 0;

/// A key and how many use it: at the sender, nodes that say they receive with it; at the receiver, whether frames were
/// encrypted with it, or (negative) how many claimed to be and were not.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) key: Arc<Key>,
    pub(super) users: i32,
}

/// Keys by slot, and what each is for.
#[derive(Debug, Default)]
pub(super) struct Slots {
    held: [Option<Held>; 4],
    /// A new key: announced by the sender; not yet seen at the receiver.
    pub(super) pending: Slot,
    /// The key in use.
    pub(super) active: Slot,
    /// At the receiver: the key before, for late frames.
    pub(super) passive: Slot,
}

/// There is no room for another key now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

pub(super) fn next(slot: Slot) -> Slot {
    slot % 3 + 1
}

impl Slots {
    pub(super) fn get(&self, slot: Slot) -> Option<&Held> {
        self.held[usize::from(slot)].as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Held> {
        self.held[usize::from(slot)].as_mut()
    }

    /// Users of a slot; 0 if it is empty.
    pub(super) fn users(&self, slot: Slot) -> i32 {
        self.get(slot).map_or(0, |held| held.users)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.held.iter().all(Option::is_none)
    }

    pub(super) fn has_session_key(&self) -> bool {
        self.held[1..].iter().any(Option::is_some)
    }

    /// True if this slot has one of the three roles.
    pub(super) fn is_in_use(&self, slot: Slot) -> bool {
        slot != 0 && [self.active, self.pending, self.passive].contains(&slot)
    }

    pub(super) fn set_master(&mut self, key: Arc<Key>) {
        self.held[usize::from(MASTER)] = Some(Held { key, users: 0 });
    }

    /// Takes a key, into slot `wanted` if that may be.
    pub(super) fn attach(&mut self, key: Arc<Key>, wanted: Option<Slot>) -> Result<Slot, Busy> {
        let slot = if self.active != 0 && self.passive != 0 {
            return Err(Busy);
        } else if self.pending != 0 {
            if self.users(self.pending) > 0 {
                return Err(Busy);
            }
            self.pending
        } else {
            match wanted {
                Some(slot) if self.active != 0 && slot != next(self.active) => {
                    self.passive = slot;
                    slot
                }
                Some(slot) if self.active == 0 && self.passive == 0 => {
                    self.pending = slot;
                    slot
                }
                _ => {
                    let last = if self.active != 0 {
                        self.active
                    } else {
                        self.passive
                    };
                    self.pending = next(last);
                    self.pending
                }
            }
        };
        self.held[usize::from(slot)] = Some(Held { key, users: 0 });
        Ok(slot)
    }

    /// The sender numbers its keys differently: moves the unused pending key to the sender's slot. False if there
    /// is none to move.
    pub(super) fn align(&mut self, to: Slot) -> bool {
        let from = self.pending;
        if self.active != 0 || from == 0 || self.users(from) > 0 {
            return false;
        }
        let moved = self.held[usize::from(from)].take();
        if self.passive != 0 {
            let place = (i32::from(self.passive) - i32::from(from) + i32::from(to)).rem_euclid(3);
            let place = if place == 0 { 3 } else { place as Slot };
            let late = self.held[usize::from(self.passive)].take();
            self.held[usize::from(place)] = late;
            self.passive = place;
        }
        self.held[usize::from(to)] = moved;
        self.pending = to;
        true
    }

    /// Empties a slot.
    pub(super) fn free(&mut self, slot: Slot) {
        self.held[usize::from(slot)] = None;
        for role in [&mut self.pending, &mut self.active, &mut self.passive] {
            if *role == slot {
                *role = 0;
            }
        }
    }

    /// The session keys of the whole cluster that may have encrypted what another node sent: at most two.
    pub(super) fn cluster_keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        [self.pending, self.active, self.passive]
            .into_iter()
            .filter(|slot| *slot != 0)
            .filter_map(|slot| self.get(slot))
            .map(|held| &held.key)
            .filter(|key| key.mode == KeyMode::Cluster)
            .take(2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::KeyMaterial;
    use super::*;

    fn key() -> Arc<Key> {
        Arc::new(Key::new(
            KeyMaterial::new(&[1; 20]).unwrap(),
            KeyMode::Cluster,
        ))
    }

    fn roles(slots: &Slots) -> (Slot, Slot, Slot) {
        (slots.pending, slots.active, slots.passive)
    }

    fn with(pending: Slot, active: Slot, passive: Slot) -> Slots {
        let mut slots = Slots {
            pending,
            active,
            passive,
            ..Slots::default()
        };
        for slot in [pending, active, passive].into_iter().filter(|s| *s != 0) {
            slots.held[usize::from(slot)] = Some(Held {
                key: key(),
                users: 0,
            });
        }
        slots
    }

    #[test]
    fn a_key_goes_behind_the_last_one_or_where_the_sender_has_it() {
        let table = [
            ((0, 0, 0), None, Ok(1), (1, 0, 0)),
            ((0, 0, 0), Some(3), Ok(3), (3, 0, 0)),
            ((0, 2, 0), None, Ok(3), (3, 2, 0)),
            ((0, 3, 0), None, Ok(1), (1, 3, 0)),
            ((0, 2, 0), Some(3), Ok(3), (3, 2, 0)),
            ((0, 2, 0), Some(1), Ok(1), (0, 2, 1)),
            ((0, 0, 2), None, Ok(3), (3, 0, 2)),
            ((0, 0, 2), Some(1), Ok(3), (3, 0, 2)),
            ((1, 0, 0), None, Ok(1), (1, 0, 0)),
            ((0, 1, 3), None, Err(Busy), (0, 1, 3)),
        ];
        for ((pending, active, passive), wanted, expected, after) in table {
            let mut slots = with(pending, active, passive);
            assert_eq!(slots.attach(key(), wanted), expected, "{after:?}");
            assert_eq!(roles(&slots), after);
        }
    }

    #[test]
    fn a_pending_key_in_use_keeps_its_place() {
        let mut slots = with(1, 0, 0);
        slots.get_mut(1).unwrap().users = 1;
        assert_eq!(slots.attach(key(), None), Err(Busy));
    }

    #[test]
    fn pending_and_passive_keys_move_together() {
        for (passive, to, expected) in [(0, 3, (3, 0, 0)), (3, 2, (2, 0, 1)), (2, 1, (1, 0, 3))] {
            let pending = if passive == 0 { 1 } else { next(passive) };
            let mut slots = with(pending, 0, passive);
            assert!(slots.align(to));
            assert_eq!(roles(&slots), expected);
            let held = [slots.pending, slots.passive];
            assert!(
                held.iter()
                    .all(|slot| *slot == 0 || slots.get(*slot).is_some())
            );
        }
        assert!(!with(1, 2, 0).align(3), "there is an active key");
        assert!(!with(0, 0, 2).align(3), "nothing is pending");
    }
}
