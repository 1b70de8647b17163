//! Links and nodes going up and down (`docs/protocol/peer.md`).

use super::receive::BROADCAST_PATIENCE;
use super::{Engine, PeerIndex};
use crate::addr::{BearerId, MediaAddr, NodeAddr};
use crate::host::{DownReason, Host, Notice, Reserve};
use crate::link::fsm::LinkState;
use crate::link::{Look, Verdict};
use crate::node::fsm::{NodeEvent, step};
use crate::node::{FORGET_AFTER, Peer};
use crate::port::Overdue;
use crate::seqno::SeqNo;
use crate::time::Instant;
use crate::wire::{Body, Header, Importance, LinkProtocol, User, field, size};
use std::time::Duration;

impl Engine {
    /// Does what a link found out about itself demands.
    pub(super) fn act_on<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        verdict: Verdict,
        host: &mut H,
    ) {
        match verdict {
            Verdict::Fine => {}
            Verdict::Up => self.on_link_up(now, index, host),
            Verdict::Down(reason) => self.on_link_down(now, index, reason, host),
        }
    }

    pub(super) fn on_peer_timer<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        if !peer.is_up() && ctx.now.since(peer.since) >= FORGET_AFTER {
            return self.forget_peer(now, index, host);
        }
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
        let look = link.on_timeout(&mut ctx, &view);
        let verdict = match look {
            Look::Between | Look::Ticked => Verdict::Fine,
            Look::Silent => link.fail(DownReason::Silence),
        };
        let due = link.next_timeout();
        if look == Look::Between {
            return self.wheel.arm(Self::peer_timer(index), due);
        }
        // A message that is under way for longer has failed its link.
        let patience = Duration::from_millis(u64::from(link.tolerance_ms * BROADCAST_PATIENCE));
        let (addr, overdue) = (peer.addr, peer.overdue(now, patience));
        self.wheel.arm(Self::peer_timer(index), due);
        self.act_on(now, index, verdict, host);
        if !self.holding.is_empty() {
            self.give_up_held(now, addr, overdue, host);
        }
    }

    /// The order is what a Linux peer relies on: a STATE, which opens its end; the start point of our
    /// broadcasts as packet 1; our bindings.
    fn on_link_up<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        let addr = peer.addr;
        ctx.core.monitors[link.bearer.index()].peer_up(ctx.core.own, addr);
        let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
        link.open(&mut ctx, &view);
        let due = link.next_timeout();
        peer.state = step(peer.state, NodeEvent::SelfUp);
        peer.was_up = true;
        peer.restarted = false;
        bcast.add_peer(&mut peer.bcast);
        let mut header = Header::internal(User::BcastProtocol, 0, ctx.core.own.0, addr.0);
        header
            .set(field::LAST_BCAST, peer.bcast.acked.0.into())
            .set(field::BC_ACK_INVALID, 1);
        let start = ctx.alloc_filled(Reserve::Control, Importance::System, header.as_bytes());
        let bearer = link.bearer;
        let complete = start.is_some();
        if let Some(frame) = start {
            link.submit(&mut ctx, frame, false);
        }
        self.wheel.arm(Self::peer_timer(index), due);
        if let Some(bearer) = &mut self.bearers[bearer.index()] {
            bearer.links_up += 1;
        }
        self.on_bearers_changed();
        host.notice(Notice::LinkUp(addr));
        host.notice(Notice::Contact {
            node: addr,
            up: true,
        });
        if !complete {
            // Without the start point the peer never takes a broadcast.
            return self.fail_link(now, index, DownReason::Overflow, host);
        }
        self.publish_link_state(index);
        self.send_bulk(now, index, host);
    }

    fn on_link_down<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        reason: DownReason,
        host: &mut H,
    ) {
        let link_state = self.link_state(index);
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
            return;
        };
        let (addr, bearer) = (peer.addr, link.bearer);
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
        link.reset(&mut ctx);
        if link.state == LinkState::Reset {
            // Tell the peer at once. With a new session, and without claiming that the node is up.
            let view = peer.bcast.view(SeqNo(0), &ctx.core.table);
            link.send_reset(&mut ctx, &view, true);
        }
        self.purge(addr.0);
        if let Some(gone) = link_state {
            self.retract(gone.range, gone.port, gone.key);
        }
        self.give_up_held(now, addr, Overdue::since(now), host);
        self.abort_connections(addr, host);
        self.lose_members(now, addr, host);
        if let Some(bearer) = &mut self.bearers[bearer.index()] {
            bearer.links_up = bearer.links_up.saturating_sub(1);
        }
        self.on_bearers_changed();
        self.on_bearer_link_down(now, bearer);
        self.on_monitored_down(now, bearer, addr, host);
        host.notice(Notice::LinkDown(addr, reason));
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
        message: &LinkProtocol,
        host: &mut H,
    ) {
        let (Body::Reset(reset) | Body::Activate { reset, .. }) = &message.body else {
            return;
        };
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        if let Some(link) = peer.link.as_mut() {
            let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
            link.rejoin(&mut ctx, message, reset, &view);
            let due = link.next_timeout();
            self.wheel.arm(Self::peer_timer(index), due);
        }
    }

    /// Takes a link down if it is up.
    pub(super) fn fail_link<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        reason: DownReason,
        host: &mut H,
    ) {
        let link = self
            .peers
            .get_mut(index)
            .and_then(|p| p.as_mut()?.link.as_mut());
        let verdict = link.map_or(Verdict::Fine, |link| link.fail(reason));
        self.act_on(now, index, verdict, host);
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

    /// The bearer's interface is up again: links that did not survive are to be found soon.
    pub fn search<H: Host>(&mut self, now: Instant, id: BearerId, host: &mut H) {
        self.start_discovery(now, id, host);
        self.settle(now, host);
    }

    /// Removes the link of a node, which stays known.
    pub(super) fn drop_link<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        if let Some((peer, _, mut ctx)) = self.at_peer(index, now, host)
            && let Some(mut link) = peer.link.take()
        {
            link.reset(&mut ctx);
        }
        self.wheel.cancel(Self::peer_timer(index));
        self.wheel.cancel(Self::gap_timer(index));
    }

    /// Removes a node whose link is not up.
    pub(super) fn forget_peer<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        self.drop_link(now, index, host);
        if let Some(peer) = self.peers[index].take() {
            self.peer_index.remove(&peer.addr);
            self.core.crypto.forget(peer.addr);
            self.forget_monitored(peer.addr);
        }
    }

    /// Which bearers broadcasts go to, and how large they may be.
    fn on_bearers_changed(&mut self) {
        let in_use = || {
            self.bearers
                .iter()
                .enumerate()
                .filter_map(|(id, b)| Some((id, b.as_ref()?)))
        };
        let in_use = || in_use().filter(|(_, b)| b.links_up > 0);
        self.bcast.bearers.clear();
        self.bcast
            .bearers
            .extend(in_use().map(|(id, _)| crate::addr::BearerId(id as u8)));
        if let Some(mtu) = in_use().map(|(_, b)| b.setup.mtu).min() {
            self.bcast.mtu = mtu;
        }
        let peers = self
            .peers
            .iter()
            .flatten()
            .filter(|p| p.is_up())
            .count()
            .max(1);
        self.core.deferred_share = self.core.table.len() / (4 * peers);
    }

    /// The node with this address, if a link to it is up.
    pub(super) fn reachable(&self, node: NodeAddr) -> Option<PeerIndex> {
        let index = *self.peer_index.get(&node)?;
        self.peer(index)
            .filter(|peer| Peer::is_up(peer))
            .map(|_| index)
    }
}
