//! The links to a peer, one per bearer, and which of them messages take (`docs/protocol/tunnels.md`, links of a peer).
//!
//! Two links carry messages at most. A third that is up is *spare*: supervised, and unused until one of the two is lost.

use crate::addr::{BearerId, MAX_BEARERS};
use crate::link::Link;
use crate::time::Instant;

/// Links of a peer that carry messages.
const JOINED_MAX: usize = 2;

/// The links to one peer.
#[derive(Debug, Default)]
pub struct Links {
    all: [Option<Box<Link>>; MAX_BEARERS],
    /// By bit 0 of the sending socket: the bearer its messages take. Both or none.
    active: Option<[BearerId; 2]>,
}

/// What a link that went up is to its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The only one.
    First,
    /// It carries messages beside the one over this bearer.
    Beside(BearerId),
    /// There are others enough.
    Spare,
}

impl Links {
    /// The link over a bearer.
    #[inline]
    pub fn get(&self, id: BearerId) -> Option<&Link> {
        self.all.get(id.index())?.as_deref()
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, id: BearerId) -> Option<&mut Link> {
        self.all.get_mut(id.index())?.as_deref_mut()
    }

    /// All, in the order of their bearers.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.all.iter().flatten().map(|link| &**link)
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.all.iter_mut().flatten().map(|link| &mut **link)
    }

    /// Adds a link, which is down.
    pub fn put(&mut self, link: Box<Link>) {
        let slot = link.bearer.index();
        self.all[slot] = Some(link);
    }

    /// Takes a link out for a while, or for ever if it is down.
    pub fn take(&mut self, id: BearerId) -> Option<Box<Link>> {
        self.all.get_mut(id.index())?.take()
    }

    /// True while a link carries messages.
    #[inline]
    pub fn is_up(&self) -> bool {
        self.active.is_some()
    }

    /// True if this link is among those that messages take.
    pub fn is_active(&self, id: BearerId) -> bool {
        self.active.is_some_and(|active| active.contains(&id))
    }

    /// The bearers that messages take, by bit 0 of the sending socket.
    pub fn active(&self) -> Option<[BearerId; 2]> {
        self.active
    }

    /// The link that the messages of a socket, or of what else has this selector, take.
    #[inline]
    pub fn carrier(&self, selector: u32) -> Option<&Link> {
        let id = self.active?[selector as usize & 1];
        self.get(id).filter(|link| link.is_up())
    }

    /// The same, to be changed.
    #[inline]
    pub fn carrier_mut(&mut self, selector: u32) -> Option<&mut Link> {
        let id = self.active?[selector as usize & 1];
        self.get_mut(id).filter(|link| link.is_up())
    }

    /// Largest message that goes in one packet, whichever of the links takes it.
    #[inline]
    pub fn mss(&self) -> Option<usize> {
        let [even, odd] = self.active?;
        let mss = self.carrier(0).map(Link::mss);
        if even == odd {
            return mss;
        }
        let other = self.carrier(1).map(Link::mss);
        mss.into_iter().chain(other).min()
    }

    /// A link went up.
    pub fn place(&mut self, id: BearerId, may_join: bool) -> Place {
        let Some(active) = self.active else {
            self.active = Some([id, id]);
            self.mark_joined(id, true);
            return Place::First;
        };
        let joined = self.iter().filter(|link| link.joined).count();
        if joined >= JOINED_MAX || !may_join {
            return Place::Spare;
        }
        let old = active[0];
        self.mark_joined(id, true);
        let priority = |id| self.get(id).map_or(0, |link| link.priority);
        match priority(id).cmp(&priority(old)) {
            std::cmp::Ordering::Greater => self.active = Some([id, id]),
            std::cmp::Ordering::Equal => {
                self.active = Some(if old < id { [old, id] } else { [id, old] });
            }
            std::cmp::Ordering::Less => {}
        }
        Place::Beside(old)
    }

    /// A link went down. Gives the one that carries everything from now on, if there is one.
    pub fn displace(&mut self, id: BearerId) -> Option<BearerId> {
        if self.get(id).is_some_and(|link| !link.joined) {
            return self.active.map(|active| active[0]);
        }
        self.mark_joined(id, false);
        let joined = self.iter().filter(|link| link.joined && link.is_up());
        let best = joined
            .max_by_key(|link| link.priority)
            .map(|link| link.bearer);
        self.active = best.map(|best| [best, best]);
        best
    }

    /// No link carries messages any more.
    pub fn part(&mut self) {
        self.active = None;
        for link in self.iter_mut() {
            link.joined = false;
        }
    }

    /// A spare link, the best of them, that can take the place of one that was lost.
    pub fn spare(&self) -> Option<BearerId> {
        let spare = |link: &&Link| link.is_up() && !link.joined && !link.has_carried();
        let spare = self.iter().filter(spare);
        spare
            .max_by_key(|link| link.priority)
            .map(|link| link.bearer)
    }

    /// When the next of them has something to do.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        self.iter_mut().map(Link::next_timeout).min()
    }

    fn mark_joined(&mut self, id: BearerId, joined: bool) {
        if let Some(link) = self.get_mut(id) {
            link.joined = joined;
        }
    }
}
