//! Links and nodes going up and down (`docs/protocol/peer.md`). What goes from one link to another is in `parallel`.

use super::receive::BROADCAST_PATIENCE;
use super::{Bearer, Engine, PeerIndex};
use crate::addr::{BearerId, MAX_BEARERS, MediaAddr, NodeAddr};
use crate::host::{DownReason, Host, Notice, Reserve};
use crate::link::fsm::LinkState;
use crate::link::{Look, Verdict};
use crate::node::fsm::{NodeEvent, step};
use crate::node::{FORGET_AFTER, Peer, Place};
use crate::port::Overdue;
use crate::seqno::SeqNo;
use crate::time::Instant;
use crate::wire::{Body, Header, Importance, LinkProtocol, User, field, size};
use std::time::Duration;

/// An interface may be down for a part of the tolerance: bonds lose their carrier for a moment when they change over.
const INTERFACE_PATIENCE: u32 = 4;

impl Engine {
    /// Does what a link found out about itself demands.
    pub(super) fn act_on<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        verdict: Verdict,
        host: &mut H,
    ) {
        match verdict {
            Verdict::Fine => {}
            Verdict::Up => self.on_link_up(now, index, id, host),
            Verdict::Down(reason) => self.on_link_down(now, index, id, reason, host),
        }
    }

    pub(super) fn on_peer_timer<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        let Some(peer) = self.peer(index) else {
            return;
        };
        if !peer.is_up() && now.since(peer.since) >= FORGET_AFTER {
            return self.forget_peer(now, index, host);
        }
        let mut has_ticked = false;
        for id in (0..MAX_BEARERS as u8).map(BearerId) {
            has_ticked |= self.look_at_link(now, index, id, host);
        }
        self.rearm(index);
        if has_ticked && let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) {
            // A message that is under way for longer has failed its link.
            let tolerances = peer.links.iter().map(|link| link.tolerance_ms);
            let patience = u64::from(tolerances.max().unwrap_or(0) * BROADCAST_PATIENCE);
            let (addr, overdue) = (
                peer.addr,
                peer.overdue(now, Duration::from_millis(patience)),
            );
            if !self.holding.is_empty() {
                self.give_up_held(now, addr, overdue, host);
            }
        }
    }

    /// The regular look at a link; true if it ticked.
    fn look_at_link<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        host: &mut H,
    ) -> bool {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return false;
        };
        let Some(link) = peer.links.get_mut(id).filter(|link| link.is_due(now)) else {
            return false;
        };
        let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
        match link.on_timeout(&mut ctx, &view) {
            Look::Between => return false,
            Look::Ticked => peer.bcast.on_tick(),
            Look::Silent => match link.fail(DownReason::Silence) {
                // What the lost link held did not come in time.
                Verdict::Fine => self.lose_contact(now, index, DownReason::Tunnel, host),
                verdict => self.act_on(now, index, id, verdict, host),
            },
        }
        true
    }

    /// Sets the timer of a peer to the next thing that its links have to do.
    pub(super) fn rearm(&mut self, index: PeerIndex) {
        if let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) {
            let due = peer.links.next_timeout();
            let due = due.unwrap_or(peer.since + FORGET_AFTER);
            self.wheel.arm(Self::peer_timer(index), due);
        }
    }

    fn on_link_up<H: Host>(&mut self, now: Instant, index: PeerIndex, id: BearerId, host: &mut H) {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let Some(link) = peer.links.get_mut(id) else {
            return;
        };
        ctx.core.monitors[id.index()].peer_up(ctx.core.own, peer.addr);
        let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
        link.open(&mut ctx, &view);
        let may_join = peer.takes_tunnels();
        let place = peer.links.place(id, may_join);
        peer.restarted = false;
        let addr = peer.addr;
        self.rearm(index);
        if let Some(bearer) = &mut self.bearers[id.index()] {
            bearer.links_up += 1;
        }
        host.notice(Notice::LinkUp(addr, id));
        match place {
            Place::First => self.on_contact(now, index, id, host),
            Place::Beside(other) => {
                self.on_bearers_changed();
                self.publish_link_state(index, id);
                self.join(now, index, id, other, host);
            }
            Place::Spare => {
                self.on_bearers_changed();
                self.publish_link_state(index, id);
            }
        }
    }

    /// The first link to a peer is up. The order is what a Linux peer relies on: a STATE, which has opened its end; the
    /// start point of our broadcasts as packet 1; our bindings.
    fn on_contact<H: Host>(&mut self, now: Instant, index: PeerIndex, id: BearerId, host: &mut H) {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let Some(link) = peer.links.get_mut(id) else {
            return;
        };
        let addr = peer.addr;
        peer.state = step(peer.state, NodeEvent::SelfUp);
        peer.was_up = true;
        bcast.add_peer(&mut peer.bcast);
        let mut header = Header::internal(User::BcastProtocol, 0, ctx.core.own.0, addr.0);
        header
            .set(field::LAST_BCAST, peer.bcast.acked.0.into())
            .set(field::BC_ACK_INVALID, 1);
        let start = ctx.alloc_filled(Reserve::Control, Importance::System, header.as_bytes());
        let complete = start.is_some();
        if let Some(frame) = start {
            link.submit(&mut ctx, frame, false);
        }
        self.on_bearers_changed();
        host.notice(Notice::Contact {
            node: addr,
            up: true,
        });
        if !complete {
            // Without the start point the peer never takes a broadcast.
            return self.lose_contact(now, index, DownReason::Overflow, host);
        }
        self.publish_link_state(index, id);
        self.send_bulk(now, index, host);
    }

    fn on_link_down<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        reason: DownReason,
        host: &mut H,
    ) {
        let beyond = self.is_beyond_failover(index, id);
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let is_unused = peer
            .links
            .get(id)
            .is_some_and(|link| !link.joined && !link.has_carried() && !link.has_received());
        let tunnel = peer.links.displace(id);
        if let Some(tunnel) = tunnel
            && (is_unused || !beyond)
        {
            self.note_link_down(now, index, id, reason, host);
            if is_unused {
                self.reset_link(now, index, id, host);
            } else if !self.fail_over(now, index, id, tunnel, host) {
                self.lose_contact(now, index, DownReason::Tunnel, host);
            }
            return;
        }
        self.on_contact_lost(now, index, Some(id), reason, host);
    }

    /// The endpoint begins a new session, and says no more than its ticks do.
    fn reset_link<H: Host>(&mut self, now: Instant, index: PeerIndex, id: BearerId, host: &mut H) {
        if let Some((peer, _, mut ctx)) = self.at_peer(index, now, host)
            && let Some(link) = peer.links.get_mut(id)
        {
            link.reset(&mut ctx);
        }
        self.rearm(index);
    }

    /// What is known of a link that went down, apart from the peer.
    fn note_link_down<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        reason: DownReason,
        host: &mut H,
    ) {
        if let Some(gone) = self.link_state(index, id) {
            self.retract(gone.range, gone.port, gone.key);
        }
        if let Some(bearer) = &mut self.bearers[id.index()] {
            bearer.links_up = bearer.links_up.saturating_sub(1);
        }
        self.on_bearers_changed();
        self.on_bearer_link_down(now, id);
        if let Some(peer) = self.peer(index) {
            let addr = peer.addr;
            self.on_monitored_down(now, id, addr, host);
            host.notice(Notice::LinkDown(addr, reason, id));
        }
    }

    /// Takes down every link to a peer that is up.
    pub(super) fn lose_contact<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        reason: DownReason,
        host: &mut H,
    ) {
        if self.peer(index).is_some_and(Peer::is_up) {
            self.on_contact_lost(now, index, None, reason, host);
        }
    }

    /// No link carries messages any more, the one over `last` being the last that went down. Those that are still up go,
    /// too: they cannot carry on.
    fn on_contact_lost<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        last: Option<BearerId>,
        reason: DownReason,
        host: &mut H,
    ) {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let addr = peer.addr;
        let event = if reason == DownReason::PeerReset {
            NodeEvent::LostByPeer
        } else {
            NodeEvent::SelfLost
        };
        peer.state = step(peer.state, event);
        peer.since = now;
        peer.updates.reset();
        ctx.core.crypto.on_link_down(addr);
        bcast.remove_peer(&mut ctx, &mut peer.bcast);
        peer.bcast.reset(&mut ctx);
        (peer.synch, peer.hold) = (None, None);
        if let Some(failover) = peer.failover.take() {
            failover.end(&mut ctx);
        }
        // Tell the peer at once. With new sessions, and without claiming that the node is up.
        let view = peer.bcast.view(SeqNo(0), &ctx.core.table);
        peer.links.part();
        let mut down = [false; MAX_BEARERS];
        for link in peer.links.iter_mut() {
            let goes = link.fail(reason) != Verdict::Fine;
            down[link.bearer.index()] = goes || last == Some(link.bearer);
            link.end_failover(now);
            if link.is_to_be_reset() {
                link.reset(&mut ctx);
                if link.state == LinkState::Reset {
                    link.send_reset(&mut ctx, &view, true);
                }
            }
        }
        self.rearm(index);
        self.purge(addr.0);
        for id in (0..MAX_BEARERS as u8).map(BearerId) {
            if down[id.index()] {
                self.note_link_down(now, index, id, reason, host);
            }
        }
        self.give_up_held(now, addr, Overdue::since(now), host);
        self.abort_connections(addr, host);
        self.lose_members(now, addr, host);
        host.notice(Notice::Contact {
            node: addr,
            up: false,
        });
    }

    /// The link went down since the peer reset its end: answer its new session.
    pub(super) fn rejoin<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        message: &LinkProtocol,
        host: &mut H,
    ) {
        let (Body::Reset(reset) | Body::Activate { reset, .. }) = &message.body else {
            return;
        };
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        // Unless it is silent until a failover ends.
        let link = peer.links.get_mut(id);
        if let Some(link) = link.filter(|link| link.state == LinkState::Establishing) {
            let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
            link.rejoin(&mut ctx, message, reset, &view);
            self.rearm(index);
        }
    }

    /// Takes a link down if it is up.
    pub(super) fn fail_link<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        reason: DownReason,
        host: &mut H,
    ) {
        let peer = self.peers.get_mut(index).and_then(Option::as_mut);
        let link = peer.and_then(|peer| peer.links.get_mut(id));
        let verdict = link.map_or(Verdict::Fine, |link| link.fail(reason));
        self.act_on(now, index, id, verdict, host);
    }

    /// The bearer's interface has another address or MTU, or came back: its links go, and discovery
    /// starts anew.
    pub fn reset_bearer<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        media_addr: MediaAddr,
        mtu: usize,
        host: &mut H,
    ) {
        self.remove_links(now, id, host);
        if let Some(bearer) = &mut self.bearers[id.index()] {
            bearer.setup.media_addr = media_addr;
            bearer.setup.mtu = mtu.clamp(size::MIN_MTU, host.frame_room());
            self.start_discovery(now, id, host);
        }
        self.settle(now, host);
    }

    /// The bearer's interface is down, or without carrier, since `since`: links over it are given up as soon as nothing
    /// was heard by them for a quarter of their tolerance. True if some are left.
    pub fn without_interface<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        since: Instant,
        host: &mut H,
    ) -> bool {
        let mut left = false;
        for index in 0..self.peers.len() {
            let link = self.peer(index).and_then(|peer| peer.links.get(id));
            let Some(link) = link.filter(|link| link.is_up()) else {
                continue;
            };
            if link.silence(now).min(now.since(since)) < link.tolerance() / INTERFACE_PATIENCE {
                left = true;
            } else {
                self.fail_link(now, index, id, DownReason::Interface, host);
            }
        }
        self.settle(now, host);
        left
    }

    /// The bearer's interface is up again: links that did not survive are to be found soon.
    pub fn search<H: Host>(&mut self, now: Instant, id: BearerId, host: &mut H) {
        self.start_discovery(now, id, host);
        self.settle(now, host);
    }

    /// Removes a link that is down; its peer stays known.
    pub(super) fn drop_link<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        host: &mut H,
    ) {
        if let Some((peer, _, mut ctx)) = self.at_peer(index, now, host)
            && let Some(mut link) = peer.links.take(id)
        {
            link.reset(&mut ctx);
        }
        self.rearm(index);
    }

    /// Removes a node whose links are not up.
    pub(super) fn forget_peer<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        for id in (0..MAX_BEARERS as u8).map(BearerId) {
            self.drop_link(now, index, id, host);
        }
        self.wheel.cancel(Self::peer_timer(index));
        self.wheel.cancel(Self::gap_timer(index));
        if let Some(peer) = self.peers[index].take() {
            self.peer_index.remove(&peer.addr);
            self.core.crypto.forget(peer.addr);
            self.forget_monitored(peer.addr);
        }
    }

    /// Which bearers broadcasts go to: one that leads to all peers, or all that lead to some. And how large they may be: as
    /// all who hear them take.
    pub(super) fn on_bearers_changed(&mut self) {
        let peers = self.peers.iter().flatten().filter(|p| p.is_up()).count();
        let in_use = |(id, bearer): (usize, &Option<Bearer>)| {
            let bearer = bearer.as_ref().filter(|bearer| bearer.links_up > 0)?;
            Some((BearerId(id as u8), bearer.links_up as usize))
        };
        let in_use = || self.bearers.iter().enumerate().filter_map(in_use);
        let primary = in_use().find(|(_, links)| *links == peers);
        let chosen = in_use().filter(|(id, _)| primary.is_none_or(|(only, _)| only == *id));
        self.bcast.bearers.clear();
        self.bcast.bearers.extend(chosen.map(|(id, _)| id));
        let links = self.peers.iter().flatten().flat_map(|p| p.links.iter());
        let heard_by = links.filter(|l| l.is_up() && self.bcast.bearers.contains(&l.bearer));
        if let Some(mtu) = heard_by.map(|link| link.mtu).min() {
            self.bcast.mtu = mtu;
        }
        self.core.deferred_share = self.core.table.len() / (4 * peers.max(1));
    }

    /// The node with this address, if a link to it is up.
    #[inline]
    pub(super) fn reachable(&self, node: NodeAddr) -> Option<PeerIndex> {
        let index = self.index_of(node)?;
        self.peer(index)
            .filter(|peer| Peer::is_up(peer))
            .map(|_| index)
    }
}
