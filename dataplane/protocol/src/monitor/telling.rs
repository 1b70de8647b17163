//! Who is told of the own record, and when.

use super::{Monitor, REPORTS};
use crate::addr::NodeAddr;
use crate::time::Instant;
use std::time::Duration;

/// In a mesh each node is told of a loss by so many of those that watched the lost one, at least: one is enough, and
/// packets get lost.
const TELLERS: usize = 2;
/// Time between two peers that are told although nothing else is to be said.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// Who goes by what a node says asks for a sign of life within this time.
const ASKED_LATELY: Duration = Duration::from_secs(2);

impl Monitor {
    /// The own record has not reached this peer, as far as is known.
    pub fn is_untold(&self, peer: NodeAddr) -> bool {
        self.sends_records()
            && self
                .index_of(peer)
                .is_some_and(|index| self.entries[index].acked != self.generation)
    }

    /// Members of the own domain were lost since this was asked last: those that are told at once are to be told.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Whether this node tells this peer of its losses at once. Those that watch a node share the others among them: of
    /// neighbours on the ring each tells those that are so many places apart. In a mesh it tells those of its neighbours that
    /// were lost, too; in a ring enough tell each node for it to believe them, and where too few are left, those that go by
    /// what this node says depend on it.
    pub fn tells_at_once(&self, now: Instant, peer: NodeAddr) -> bool {
        let tellers = if self.is_ring() {
            REPORTS.into()
        } else {
            TELLERS
        };
        // Where the ring of addresses ends, the places do not go on evenly: one more makes up for that.
        let apart = ((self.members.len() + 1) / (tellers + 1)).max(1);
        let (Some(own), Some(peer)) = (self.index_of(self.own), self.index_of(peer)) else {
            return false;
        };
        let is_one_of = |place: usize| (place + peer).is_multiple_of(apart);
        if self.is_ring() {
            let asked = || self.entries[peer].has_asked_within(ASKED_LATELY, now);
            return is_one_of(own) || self.has_lost_neighbours() && asked();
        }
        let lost = self.up_map.trailing_zeros() as usize;
        (0..apart.min(lost + 1)).any(|next| is_one_of(own + next))
    }

    /// Whether to probe a peer only to tell it of the own record. Of losses one after the other, beside those that are told
    /// at once: none of the others depends on it.
    pub(crate) fn may_tell(&mut self, now: Instant, peer: NodeAddr) -> bool {
        if !self.is_untold(peer) {
            return false;
        }
        if !self.unhurried || self.is_ring() && self.tells_at_once(now, peer) {
            return true;
        }
        let is_time = now >= self.tell_next;
        if is_time {
            self.tell_next = now + TELL_EVERY;
        }
        is_time
    }
}
