//! The set of subscriptions: who is told what and when.
//!
//! A subscription hangs in three structures: the list of its subscriber (newest first), the [`Index`] by what it
//! subscribes to, and the deadlines if it has a timeout. A change of the binding table goes, newest subscription
//! first, to the queues of those it concerns; subscribers whose queue is no longer empty are then *ready*, and the
//! engine takes events from the front as fast as the subscriber takes them.
//!
//! Linux queues without limit for a subscriber that does not read. Here the events that wait have a limit, one for
//! subscribers of this node and one for all others together; beyond it the subscriber with the longest queue is
//! closed, since one that has missed an event knows nothing any more.

use super::event::{Event, EventKind};
use super::filter::Filter;
use super::index::Index;
use super::queue::{Pool, Queue};
use super::subscription::{Request, RequestError, Subscription};
use crate::name::{BindingTable, Change, Publication};
use crate::slab::{NIL, Slab, linked};
use crate::time::Instant;
use hashbrown::HashMap;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Names a subscriber; chosen by the owner of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subscriber(pub u32);

/// What the service keeps for a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The node it is on; `None` for this one.
    pub peer: Option<u32>,
    /// Its subscriptions.
    pub subscriptions: u32,
    /// Events it has not taken.
    pub events: u32,
}

/// How much the service keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Subscriptions of all subscribers together; that of Linux.
    pub subscriptions: u32,
    /// Of these, subscriptions of subscribers on one other node.
    pub of_peer: u32,
    /// Of these, subscriptions of subscribers on all other nodes: the rest is this node's own.
    pub of_peers: u32,
    /// Events that wait for subscribers of this node, and as many for those of all others. An event takes 52 bytes.
    pub events: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions: 65_535,
            of_peer: 16_384,
            of_peers: 49_152,
            events: 1 << 19,
        }
    }
}

/// Room for what a subscription finds bound that is kept for the next one.
const FOUND_KEPT: usize = 1024;

/// "Lasts for ever" among the deadlines.
const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy)]
struct Entry {
    subscription: Subscription,
    subscriber: Subscriber,
    /// Its subscriber's next newer and next older one.
    newer: u32,
    older: u32,
    /// Larger for one that came later.
    created: u64,
    deadline: u64,
}

const _: () = assert!(
    size_of::<Entry>() <= 64,
    "a subscription stays within one cache line"
);

struct State {
    /// The other node it is on; `None`: on this one.
    peer: Option<u32>,
    newest: u32,
    queue: Queue,
    /// Among the ready ones.
    ready: bool,
}

/// The topology service of a node: subscribers, what they subscribed to, and the events they have not taken.
pub struct TopologyService {
    limits: Limits,
    subscribers: HashMap<Subscriber, State, foldhash::fast::RandomState>,
    subscriptions: Slab<Entry>,
    index: Index,
    /// Of the subscriptions that have one, by deadline and age.
    deadlines: BTreeMap<(u64, u64), u32>,
    /// Subscriptions of each other node that has some.
    of_peer: BTreeMap<u32, u32>,
    of_peers: u32,
    events: Pool,
    /// Events that wait for subscribers of this node, and for those of others.
    waiting: [u32; 2],
    ready: Vec<Subscriber>,
    closed: Vec<Subscriber>,
    created: u64,
    /// Subscriptions that the change at hand concerns.
    concerned: Vec<u32>,
    /// What a new subscription finds bound, with the age of each.
    found: Vec<(u64, Publication)>,
}

impl Default for TopologyService {
    fn default() -> Self {
        Self::with_limits(Limits::default())
    }
}

impl TopologyService {
    /// A service with other limits than the default ones.
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            limits,
            subscribers: HashMap::default(),
            subscriptions: Slab::new(),
            index: Index::default(),
            deadlines: BTreeMap::new(),
            of_peer: BTreeMap::new(),
            of_peers: 0,
            events: Pool::new(),
            waiting: [0; 2],
            ready: Vec::new(),
            closed: Vec::new(),
            created: 0,
            concerned: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Takes a subscriber on. `peer` is the node it is on, `None` for this one.
    pub fn open(&mut self, subscriber: Subscriber, peer: Option<u32>) {
        let state = State {
            peer,
            newest: NIL,
            queue: Queue::EMPTY,
            ready: false,
        };
        let known = self.subscribers.insert(subscriber, state);
        assert!(known.is_none(), "a subscriber is opened once");
    }

    /// Lets a subscriber go: its subscriptions and the events it has not taken are gone. Says nothing to it.
    pub fn close(&mut self, subscriber: Subscriber) {
        let Some(mut state) = self.subscribers.remove(&subscriber) else {
            return;
        };
        let mut next = linked(state.newest);
        while let Some(slot) = next {
            let entry = self.subscriptions.remove(slot);
            next = linked(entry.older);
            self.unfile(slot, &entry, state.peer);
        }
        let waiting = &mut self.waiting[usize::from(state.peer.is_some())];
        *waiting -= state.queue.len();
        while self.events.pop(&mut state.queue) {}
        if state.ready {
            self.ready.retain(|other| *other != subscriber);
        }
    }

    /// True as long as the subscriber is neither closed nor unknown.
    pub fn is_open(&self, subscriber: Subscriber) -> bool {
        self.subscribers.contains_key(&subscriber)
    }

    /// The subscribers. Counts the subscriptions of each: not for the data path.
    pub fn subscribers(&self) -> impl Iterator<Item = (Subscriber, Load)> + '_ {
        self.subscribers.iter().map(|(subscriber, state)| {
            let newest = linked(state.newest);
            let all = std::iter::successors(newest, |slot| linked(self.subscriptions[*slot].older));
            let load = Load {
                peer: state.peer,
                subscriptions: all.count() as u32,
                events: state.queue.len(),
            };
            (*subscriber, load)
        })
    }

    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// True if nobody has subscribed to anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One message of a subscriber. A new subscription is told at once what `table` has already. An error has closed
    /// the subscriber, and nobody else: it is to be told so.
    pub fn on_request(
        &mut self,
        now: Instant,
        subscriber: Subscriber,
        message: &[u8],
        table: &BindingTable,
    ) -> Result<(), RequestError> {
        let done = self.perform(now, subscriber, message, table);
        if done.is_err() {
            self.close(subscriber);
        }
        done
    }

    /// A publication was made.
    pub fn on_published(&mut self, change: &Change) {
        self.on_change(EventKind::Published, change);
    }

    /// A publication was withdrawn.
    pub fn on_withdrawn(&mut self, change: &Change) {
        self.on_change(EventKind::Withdrawn, change);
    }

    /// Ends the subscriptions whose time is over.
    pub fn on_time(&mut self, now: Instant) {
        while let Some((&(deadline, _), &slot)) = self.deadlines.first_key_value()
            && deadline <= now.0
        {
            let entry = self.subscriptions[slot];
            self.queue_event(entry.subscriber, &Event::timeout(entry.subscription));
            self.remove(slot);
        }
        self.hold_limits();
    }

    /// When [`Self::on_time`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines
            .first_key_value()
            .map(|((deadline, _), _)| Instant(*deadline))
    }

    /// True if [`Self::take_ready`] and [`Self::take_closed`] have nobody to give.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.ready.is_empty() && self.closed.is_empty()
    }

    /// Takes a subscriber that has events since it was taken last, or was put back by [`Self::put_back`].
    pub fn take_ready(&mut self) -> Option<Subscriber> {
        let subscriber = self.ready.pop()?;
        if let Some(state) = self.subscribers.get_mut(&subscriber) {
            state.ready = false;
        }
        Some(subscriber)
    }

    /// The subscriber can take events again: if any wait it is ready.
    pub fn put_back(&mut self, subscriber: Subscriber) {
        if let Some(state) = self.subscribers.get_mut(&subscriber)
            && !state.ready
            && state.queue.len() > 0
        {
            state.ready = true;
            self.ready.push(subscriber);
        }
    }

    /// The oldest event that waits for a subscriber.
    pub fn next_event(&self, subscriber: Subscriber) -> Option<&[u8; Event::SIZE]> {
        self.events.front(&self.subscribers.get(&subscriber)?.queue)
    }

    /// The subscriber has taken [`Self::next_event`].
    pub fn taken(&mut self, subscriber: Subscriber) {
        if let Some(state) = self.subscribers.get_mut(&subscriber)
            && self.events.pop(&mut state.queue)
        {
            self.waiting[usize::from(state.peer.is_some())] -= 1;
        }
    }

    /// Takes a subscriber that was closed since it did not take its events: it is to be told so.
    pub fn take_closed(&mut self) -> Option<Subscriber> {
        self.closed.pop()
    }

    fn perform(
        &mut self,
        now: Instant,
        subscriber: Subscriber,
        message: &[u8],
        table: &BindingTable,
    ) -> Result<(), RequestError> {
        let peer = match self.subscribers.get(&subscriber) {
            Some(state) => state.peer,
            None => return Err(RequestError::NoSuchSubscriber),
        };
        match Request::parse(message)? {
            Request::Cancel(subscription) => self.cancel(subscriber, &subscription),
            Request::Subscribe(subscription) => {
                self.admit(peer)?;
                self.tell_what_is_bound(subscriber, &subscription, table);
                self.insert(now, subscriber, subscription, peer);
                self.on_time(now);
            }
        }
        Ok(())
    }

    fn admit(&self, peer: Option<u32>) -> Result<(), RequestError> {
        let limits = &self.limits;
        if self.len() >= limits.subscriptions as usize {
            return Err(RequestError::TooMany(limits.subscriptions));
        }
        let Some(peer) = peer else {
            return Ok(());
        };
        if self.of_peer.get(&peer).copied().unwrap_or(0) >= limits.of_peer {
            return Err(RequestError::TooManyOfPeer(peer, limits.of_peer));
        }
        if self.of_peers >= limits.of_peers {
            return Err(RequestError::TooManyOfPeers(limits.of_peers));
        }
        Ok(())
    }

    /// Oldest publication first; without PORTS the oldest of each range only, even where its scope is not asked for.
    fn tell_what_is_bound(
        &mut self,
        subscriber: Subscriber,
        subscription: &Subscription,
        table: &BindingTable,
    ) {
        let filter = subscription.filter();
        if filter.has_any(Filter::NO_STATUS) {
            return;
        }
        let mut found = std::mem::take(&mut self.found);
        for (publication, id) in table.overlapping(subscription.range()) {
            match found.last_mut() {
                Some(oldest)
                    if !filter.has_any(Filter::PORTS) && oldest.1.range == publication.range =>
                {
                    if id < oldest.0 {
                        *oldest = (id, publication);
                    }
                }
                _ => found.push((id, publication)),
            }
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        for (_, publication) in found.drain(..) {
            if filter.admits(publication.scope) {
                let event = Event::of(EventKind::Published, &publication, *subscription);
                self.queue_event(subscriber, &event);
            }
        }
        found.shrink_to(FOUND_KEPT);
        self.found = found;
    }

    fn insert(
        &mut self,
        now: Instant,
        subscriber: Subscriber,
        subscription: Subscription,
        peer: Option<u32>,
    ) {
        let Some(state) = self.subscribers.get_mut(&subscriber) else {
            return;
        };
        self.created += 1;
        let deadline = subscription.timeout().map_or(NEVER, |span| (now + span).0);
        let older = state.newest;
        let slot = self.subscriptions.insert(Entry {
            subscription,
            subscriber,
            newer: NIL,
            older,
            created: self.created,
            deadline,
        });
        state.newest = slot;
        if let Some(older) = linked(older) {
            self.subscriptions[older].newer = slot;
        }
        self.index.insert(subscription.range(), slot);
        if deadline != NEVER {
            self.deadlines.insert((deadline, self.created), slot);
        }
        if let Some(peer) = peer {
            *self.of_peer.entry(peer).or_default() += 1;
            self.of_peers += 1;
        }
    }

    /// Takes the newest of the subscriptions back that consist of exactly these bytes.
    fn cancel(&mut self, subscriber: Subscriber, subscription: &Subscription) {
        let same = self
            .index
            .beginning_as(subscription.range())
            .filter(|slot| {
                let entry = &self.subscriptions[*slot];
                entry.subscriber == subscriber && entry.subscription == *subscription
            });
        if let Some(newest) = same.max_by_key(|slot| self.subscriptions[*slot].created) {
            self.remove(newest);
        }
    }

    fn remove(&mut self, slot: u32) {
        let entry = self.subscriptions.remove(slot);
        if let Some(older) = linked(entry.older) {
            self.subscriptions[older].newer = entry.newer;
        }
        let state = self.subscribers.get_mut(&entry.subscriber);
        let peer = state.as_ref().and_then(|state| state.peer);
        match (linked(entry.newer), state) {
            (Some(newer), _) => self.subscriptions[newer].older = entry.older,
            (None, Some(state)) => state.newest = entry.older,
            (None, None) => {}
        }
        self.unfile(slot, &entry, peer);
    }

    /// Takes a subscription out of all but its subscriber's list.
    fn unfile(&mut self, slot: u32, entry: &Entry, peer: Option<u32>) {
        self.index.remove(entry.subscription.range(), slot);
        if entry.deadline != NEVER {
            self.deadlines.remove(&(entry.deadline, entry.created));
        }
        if let Some(peer) = peer {
            self.of_peers -= 1;
            if let Some(count) = self.of_peer.get_mut(&peer) {
                *count -= 1;
                if *count == 0 {
                    self.of_peer.remove(&peer);
                }
            }
        }
    }

    fn on_change(&mut self, kind: EventKind, change: &Change) {
        let publication = &change.publication;
        let mut concerned = std::mem::take(&mut self.concerned);
        let of_interest = self.index.candidates(publication.range).filter(|slot| {
            let subscription = &self.subscriptions[*slot].subscription;
            let filter = subscription.filter();
            subscription.range().overlaps(publication.range)
                && filter.reports(change.range_edge)
                && filter.admits(publication.scope)
        });
        concerned.extend(of_interest);
        concerned.sort_unstable_by_key(|slot| Reverse(self.subscriptions[*slot].created));
        for slot in concerned.drain(..) {
            let entry = self.subscriptions[slot];
            let event = Event::of(kind, publication, entry.subscription);
            self.queue_event(entry.subscriber, &event);
        }
        self.concerned = concerned;
        self.hold_limits();
    }

    fn queue_event(&mut self, subscriber: Subscriber, event: &Event) {
        if let Some(state) = self.subscribers.get_mut(&subscriber) {
            self.waiting[usize::from(state.peer.is_some())] += 1;
            self.events.push(&mut state.queue, event);
            if !state.ready {
                state.ready = true;
                self.ready.push(subscriber);
            }
        }
    }

    /// Closes subscribers that keep too many events waiting, the longest queues first.
    fn hold_limits(&mut self) {
        for others in [false, true] {
            if self.waiting[usize::from(others)] <= self.limits.events {
                continue;
            }
            let mut queues: Vec<(u32, Subscriber)> = self
                .subscribers
                .iter()
                .filter(|(_, state)| state.peer.is_some() == others)
                .map(|(id, state)| (state.queue.len(), *id))
                .collect();
            queues.sort_unstable();
            while self.waiting[usize::from(others)] > self.limits.events
                && let Some((_, longest)) = queues.pop()
            {
                self.close(longest);
                self.closed.push(longest);
            }
        }
    }
}
