//! Reading ahead. A node with a thousand peers, or one of many nodes in a process, finds in no cache of its processor what
//! an input needs: to wait for that, line by line, takes several times as long as the work itself. Who knows several inputs
//! beforehand can have it read side by side: first which peers they concern, then these, then the links of these. The
//! calls change nothing.

use super::{Engine, FIRST_PEER_TIMER, PeerIndex};
use crate::addr::NodeAddr;
use crate::time::Instant;
use crate::wire::{field, size};
use std::hint::black_box;

/// A peer that an input concerns.
#[derive(Clone, Copy, Debug)]
pub struct Foreseen(PeerIndex);

impl Engine {
    /// The peer that a packet comes from, if it is one.
    pub fn foresee_packet(&self, frame: &[u8]) -> Option<Foreseen> {
        let header = frame.first_chunk::<{ size::MIN }>()?;
        let from = NodeAddr(field::PREV_NODE.get(header));
        self.index_of(from).map(Foreseen)
    }

    /// The peers that have timers which are due in this millisecond.
    pub fn foresee_timers(&self, now: Instant) -> impl Iterator<Item = Foreseen> + '_ {
        let timers = self.wheel.due(now);
        timers.filter_map(|timer| {
            let of_peer = (timer as usize).checked_sub(FIRST_PEER_TIMER)?;
            Some(Foreseen(of_peer / 2))
        })
    }

    /// Reads what is known of such a peer.
    pub fn read_peer(&self, Foreseen(index): Foreseen) {
        black_box(
            self.peer(index)
                .map(|peer| peer.addr.0 ^ u32::from(peer.bcast.up)),
        );
    }

    /// Reads its links, and what monitors know of it.
    pub fn read_links(&self, Foreseen(index): Foreseen) {
        if let Some(peer) = self.peer(index) {
            for monitor in &self.core.monitors {
                monitor.read(peer.addr);
            }
            peer.links.iter().for_each(|link| link.read());
        }
    }
}
