//! What operators change while the node runs: bearers come and go, links get other settings
//! (`docs/protocol/link.md`, parameters).

use super::Engine;
use crate::addr::{BearerId, MediaAddr, NodeAddr};
use crate::host::{DownReason, Host};
use crate::link::{Link, LinkParams, Setting};
use crate::time::Instant;
use crate::wire::size;

/// Bearers with links of the same priority, as on Linux: no peer can have more links that share the load.
const SAME_PRIORITY_MAX: usize = 2;

/// As [`Engine::free_priority`], beside bearers of these priorities.
pub fn free_priority(wanted: u8, taken: impl Iterator<Item = u8> + Clone) -> Option<u8> {
    let is_full = |priority| {
        let same = taken.clone().filter(|taken| *taken == priority);
        same.count() >= SAME_PRIORITY_MAX
    };
    (0..=wanted).rev().find(|priority| !is_full(*priority))
}

impl Engine {
    /// Whether broadcasts that a peer misses are sent again to that peer alone, not to all.
    pub fn set_broadcast_repair(&mut self, by_unicast: bool) {
        self.bcast.repairs_by_unicast = by_unicast;
    }

    /// What new links of a bearer start with.
    pub fn bearer_params(&self, id: BearerId) -> Option<LinkParams> {
        Some(self.bearers[id.index()].as_ref()?.setup.params)
    }

    /// The shortest tolerance of all bearers and links, in milliseconds.
    pub fn shortest_tolerance_ms(&self) -> Option<u32> {
        let bearers = self.bearers.iter().flatten();
        let links = self
            .peers
            .iter()
            .flatten()
            .flat_map(|peer| peer.links.iter());
        bearers
            .map(|bearer| bearer.setup.params.tolerance_ms)
            .chain(links.map(|link| link.tolerance_ms))
            .min()
    }

    /// The priority that a new bearer gets when `wanted` is asked for: at most two bearers have the same one. `None` if
    /// there is none below.
    pub fn free_priority(&self, wanted: u8) -> Option<u8> {
        let bearers = self.bearers.iter().flatten();
        free_priority(wanted, bearers.map(|bearer| bearer.setup.params.priority))
    }

    /// Changes what the links of a bearer start with. A tolerance counts for those it has, too.
    pub fn set_bearer<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        setting: Setting,
        host: &mut H,
    ) {
        let Some(bearer) = &mut self.bearers[id.index()] else {
            return;
        };
        bearer.setup.params.set(setting);
        if matches!(setting, Setting::Tolerance(_)) {
            for index in 0..self.peers.len() {
                self.set_peer_link(now, index, id, setting, host);
            }
        }
        self.settle(now, host);
    }

    /// Packets of a bearer may be longer from now on, or have to be shorter; its links go on.
    pub fn set_bearer_mtu<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        mtu: usize,
        host: &mut H,
    ) {
        let Some(bearer) = &mut self.bearers[id.index()] else {
            return;
        };
        let mtu = mtu.clamp(size::MIN_MTU, host.frame_room());
        bearer.setup.mtu = mtu;
        for index in 0..self.peers.len() {
            if let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host)
                && let Some(link) = peer.links.get_mut(id)
            {
                let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
                link.set_mtu(&mut ctx, mtu, &view);
                self.rearm(index);
            }
        }
        self.on_bearers_changed();
        self.settle(now, host);
    }

    /// Changes a link, and tells its peer what that has to know. False if there is no such link.
    pub fn set_link<H: Host>(
        &mut self,
        now: Instant,
        node: NodeAddr,
        id: BearerId,
        setting: Setting,
        host: &mut H,
    ) -> bool {
        let index = self.index_of(node);
        let is_set = index.is_some_and(|index| self.set_peer_link(now, index, id, setting, host));
        self.settle(now, host);
        is_set
    }

    fn set_peer_link<H: Host>(
        &mut self,
        now: Instant,
        index: super::PeerIndex,
        id: BearerId,
        setting: Setting,
        host: &mut H,
    ) -> bool {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return false;
        };
        let Some(link) = peer.links.get_mut(id) else {
            return false;
        };
        let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
        link.set(&mut ctx, setting, &view);
        self.rearm(index);
        true
    }

    /// Takes the links of a bearer down, tells their peers, and forgets both.
    pub fn remove_bearer<H: Host>(&mut self, now: Instant, id: BearerId, host: &mut H) {
        self.remove_links(now, id, host);
        self.bearers[id.index()] = None;
        self.wheel.cancel(id.0.into());
        self.settle(now, host);
    }

    /// A station is gone for good, or is to be left alone: its link goes.
    pub fn lose_station<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        station: MediaAddr,
        host: &mut H,
    ) {
        self.remove_links_where(now, id, host, |link| link.media_addr == station);
        self.settle(now, host);
    }

    /// The links of a bearer go; their peers stay known.
    pub(super) fn remove_links<H: Host>(&mut self, now: Instant, id: BearerId, host: &mut H) {
        self.remove_links_where(now, id, host, |_| true);
    }

    fn remove_links_where<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        host: &mut H,
        goes: impl Fn(&Link) -> bool,
    ) {
        for index in 0..self.peers.len() {
            let link = self.peer(index).and_then(|peer| peer.links.get(id));
            if link.is_some_and(&goes) {
                self.fail_link(now, index, id, DownReason::Stopped, host);
                self.drop_link(now, index, id, host);
            }
        }
    }
}
