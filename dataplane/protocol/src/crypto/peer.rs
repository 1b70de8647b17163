//! What is known of one peer's keys, and which of ours it has (`docs/protocol/crypto.md`, receiving).

use super::key::Key;
use super::replay::Window;
use super::slots::{MASTER, Slot, Slots, next};
use crate::time::Instant;
use std::sync::Arc;
use std::time::Duration;

/// A key that brought nothing for so long is not the one in use.
const ACTIVE_LIMIT: Duration = Duration::from_secs(3);
/// How long late frames of the key before are taken.
const PASSIVE_LIMIT: Duration = Duration::from_secs(15);
/// A key with as many frames that it did not open is a wrong one.
const FAILURES_MAX: i32 = -10;
/// A key that came while there was no room for it is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);

/// The keys of one peer.
pub(super) struct PeerKeys {
    pub(super) slots: Slots,
    /// Counters seen, by the slot in the frame.
    windows: Box<[Window; 4]>,
    /// The link was down: the peer may have started its counters anew.
    may_restart: [bool; 4],
    /// Last frame that a session key opened.
    heard: Instant,
    /// Last change of the roles, or late frame.
    changed: Instant,
    /// It encrypts with a key that is not here.
    pub(super) nokey: bool,
    /// Slot of this node's keys that it says it receives with; 0 for none.
    pub(super) reported: Slot,
    /// It has a master key.
    pub(super) has_master: bool,
    /// When to send it our key.
    pub(super) distribute_at: Option<Instant>,
    generation: Option<u16>,
    waiting: Option<(Arc<Key>, Instant)>,
}

impl PeerKeys {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            slots: Slots::default(),
            windows: Box::default(),
            may_restart: [false; 4],
            heard: now,
            changed: now,
            nokey: false,
            reported: 0,
            has_master: false,
            distribute_at: None,
            generation: None,
            waiting: None,
        }
    }

    /// The key for frames of this slot.
    pub(super) fn find(&mut self, slot: Slot) -> Option<Arc<Key>> {
        if slot == MASTER {
            return None;
        }
        if !self.slots.is_in_use(slot) && self.slots.align(slot) {
            self.forget_counters();
        }
        let in_use = self.slots.is_in_use(slot);
        let held = self.slots.get(slot).filter(|_| in_use);
        held.map(|held| Arc::clone(&held.key))
    }

    pub(super) fn on_opened(&mut self, now: Instant, slot: Slot) {
        if let Some(held) = self.slots.get_mut(slot) {
            held.users = 1;
        }
        self.heard = now;
        if slot == self.slots.passive {
            self.changed = now;
        }
    }

    /// A frame that names this slot was not sealed with its key. That proves nothing while others are: anybody can
    /// send such.
    pub(super) fn on_failed(&mut self, now: Instant, slot: Slot) {
        if now.since(self.heard) >= ACTIVE_LIMIT
            && let Some(held) = self.slots.get_mut(slot)
        {
            held.users -= 1;
        }
    }

    /// No key here opens the peer's frames of this slot.
    pub(super) fn on_no_key(&mut self, slot: Slot) {
        self.nokey = self.waiting.is_none() && self.slots.get(next(slot)).is_none();
    }

    /// Takes a key into the slot the peer has it in, or any.
    pub(super) fn attach(&mut self, key: Arc<Key>, wanted: Option<Slot>) -> bool {
        let Ok(slot) = self.slots.attach(key, wanted) else {
            return false;
        };
        self.nokey = false;
        self.windows[usize::from(slot)] = Window::default();
        true
    }

    /// A key that the peer gave us.
    pub(super) fn on_given(&mut self, now: Instant, generation: u16, key: Arc<Key>) {
        let is_known = self.generation == Some(generation) && !self.slots.is_empty();
        if self.waiting.is_some() || is_known {
            return;
        }
        self.generation = Some(generation);
        self.nokey = false;
        if !self.attach(Arc::clone(&key), None) {
            self.waiting = Some((key, now + RETRY));
        }
    }

    /// Notes the counter of a frame that was opened and belongs to a link that is up. False if it came before.
    pub(super) fn note_counter(&mut self, slot: Slot, counter: u64) -> bool {
        let window = &mut self.windows[usize::from(slot)];
        let is_new = window.note(counter);
        let restarts = std::mem::take(&mut self.may_restart[usize::from(slot)]);
        if !is_new && restarts {
            *window = Window::default();
            return window.note(counter);
        }
        is_new
    }

    /// The link went down.
    pub(super) fn on_link_down(&mut self) {
        self.may_restart = [true; 4];
    }

    fn forget_counters(&mut self) {
        *self.windows = Default::default();
    }

    /// The regular look: at most one change of roles. Tells whether there was one.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        if let Some((key, at)) = self.waiting.take_if(|(_, at)| *at <= now)
            && !self.attach(Arc::clone(&key), None)
        {
            self.waiting = Some((key, at + RETRY));
        }
        let silent = now.since(self.heard) >= ACTIVE_LIMIT;
        let late = now.since(self.changed) >= PASSIVE_LIMIT;
        let slots = &mut self.slots;
        let (pending, active, passive) = (slots.pending, slots.active, slots.passive);
        if pending != 0 && slots.users(pending) > 0 {
            if active != 0 {
                slots.passive = active;
            }
            slots.active = pending;
            slots.pending = 0;
            self.changed = now;
        } else if pending != 0 && slots.users(pending) <= FAILURES_MAX {
            slots.free(pending);
        } else if active != 0 && (silent || slots.users(active) <= 0) {
            if pending != 0 {
                slots.passive = active;
            } else {
                slots.pending = active;
            }
            slots.active = 0;
            if let Some(held) = slots.get_mut(slots.pending) {
                held.users = 0;
            }
            self.changed = now;
        } else if passive != 0 && (late || slots.users(passive) <= FAILURES_MAX) {
            slots.free(passive);
        } else {
            return false;
        }
        true
    }
}
