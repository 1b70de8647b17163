//! What was lost by one cause.

use super::Monitor;
use crate::time::Instant;
use std::time::Duration;

/// Losses within this time have one cause, which is acted on for a few times as long.
const ONE_CAUSE: Duration = Duration::from_secs(1);
const CAUSE_LASTS: u32 = 3;
/// Nodes that are lost so many at once are not there for a while: to call each of them again and again costs more than
/// it helps.
const MANY: u16 = 32;

/// Losses by one cause.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// When the first of them was.
    since: Instant,
    /// Links.
    all: u16,
    /// Those to members of the own domain.
    members: u16,
    /// Those to nodes that spoke for others.
    heads: u16,
}

impl Losses {
    pub(super) fn note(&mut self, now: Instant, is_member: bool, is_head: bool) {
        if now.since(self.since) > ONE_CAUSE {
            *self = Self {
                since: now,
                ..Self::default()
            };
        }
        self.all = self.all.saturating_add(1);
        self.members += u16::from(is_member);
        self.heads += u16::from(is_head);
    }

    /// When the first of the latest was.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    fn last(&self, now: Instant) -> bool {
        now.since(self.since) <= ONE_CAUSE * CAUSE_LASTS
    }
}

impl Monitor {
    /// Most of the own domain was lost at the same time, and in a ring most of those that speak for others elsewhere: it is
    /// this node that was cut off, and there is nobody left to report those whom others watch.
    pub fn is_cut_off(&self, now: Instant) -> bool {
        let lost = &self.losses;
        usize::from(lost.members) * 2 > self.members.len()
            && (!self.is_ring() || usize::from(lost.heads) * 2 > self.heads())
            && lost.last(now)
    }

    /// So much of the own domain was lost at the same time that few others are left who watched it.
    pub(super) fn has_lost_neighbours(&self) -> bool {
        usize::from(self.losses.members) * 4 > self.members.len()
    }

    /// So many links were lost at the same time that nobody is in a hurry to have each of them back.
    pub fn has_lost_many(&self, now: Instant) -> bool {
        self.losses.all > MANY && self.losses.last(now)
    }
}
