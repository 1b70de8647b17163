//! Two links to one peer: how a second one begins to carry messages, and how nothing is lost with one that is lost
//! (`docs/protocol/tunnels.md`).

use super::deliver::Via;
use super::{Engine, PeerIndex};
use crate::addr::{BearerId, MAX_BEARERS};
use crate::host::{DownReason, Host};
use crate::link::fsm::{LinkEvent, LinkState};
use crate::node::fsm::{NodeEvent, step};
use crate::node::{Failover, Peer, Place, Synch, Tunnelled};
use crate::reassembly::Fragment;
use crate::seqno::SeqNo;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{Msg, TunnelKind, TunnelProtocol, User, field};

impl Engine {
    /// A link is up beside another one and carries messages from now on.
    pub(super) fn join<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        other: BearerId,
        host: &mut H,
    ) {
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let Some(mut link) = peer.links.take(id) else {
            return;
        };
        let mut begun = false;
        if let Some(before) = peer.links.get(other) {
            let point = before.last_given();
            link.told = before.told;
            begun = link.begin_synch(&mut ctx, before);
            peer.hold = Some(Synch {
                link: id,
                other,
                point,
            });
        }
        peer.links.put(link);
        if begun {
            self.look_at_synch(now, index, host);
        } else {
            self.fail_link(now, index, id, DownReason::Overflow, host);
        }
    }

    /// What waits for the other link may have waited long enough: what this node holds back, and what the peer sent.
    pub(super) fn look_at_synch<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        if !self.peer(index).is_some_and(Peer::waits_for_other_link) {
            return;
        }
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        if let Some(hold) = peer.hold
            && let Some(other) = peer.links.get(hold.other)
            && other.has_acked(&ctx.core.table, hold.point)
        {
            peer.hold = None;
            if let Some(link) = peer.links.get_mut(hold.link) {
                link.let_out(&mut ctx);
            }
        }
        if let Some(synch) = peer.synch
            && let Some(other) = peer.links.get(synch.other)
            && other.rcv_nxt().after(synch.point)
        {
            self.end_synch(now, index, host);
        }
    }

    /// The peer has begun to use a link beside the one over `other`, to which packet `point` was given last.
    fn begin_synch<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        other: BearerId,
        point: SeqNo,
        host: &mut H,
    ) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let state = step(peer.state, NodeEvent::SynchBegin);
        let is_other_up = peer.links.get(other).is_some_and(|link| link.is_up());
        if !is_other_up || state == peer.state {
            return;
        }
        peer.state = state;
        peer.synch = Some(Synch {
            link: id,
            other,
            point,
        });
        if let Some(link) = peer.links.get_mut(id) {
            link.turn(LinkEvent::SynchBegin);
        }
        self.look_at_synch(now, index, host);
    }

    /// What arrived meanwhile by the link that the peer has begun to use is taken.
    fn end_synch<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(synch) = peer.synch.take() else {
            return;
        };
        peer.state = step(peer.state, NodeEvent::SynchEnd);
        if let Some(link) = peer.links.get_mut(synch.link) {
            link.turn(LinkEvent::SynchEnd);
        }
        self.deliver_deferred(now, index, synch.link, host);
        self.acknowledge_if_due(now, index, synch.link, host);
    }

    /// A link was lost, `tunnel` carries what it held. False if it cannot.
    pub(super) fn fail_over<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        failed: BearerId,
        tunnel: BearerId,
        host: &mut H,
    ) -> bool {
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return false;
        };
        let (Some(mut lost), Some(mut other)) = (peer.links.take(failed), peer.links.take(tunnel))
        else {
            return false;
        };
        peer.state = step(peer.state, NodeEvent::FailoverBegin);
        peer.hold = None;
        let carried = lost.fail_over(&mut ctx, &mut other);
        peer.failover = Some(Box::new(Failover::of(failed, Some(&mut lost))));
        lost.reset(&mut ctx);
        lost.turn(LinkEvent::FailoverBegin);
        peer.links.put(lost);
        peer.links.put(other);
        self.rearm(index);
        if carried {
            // What was held back may begin with the peer's part of this failover.
            self.end_synch(now, index, host);
        }
        carried
    }

    /// The peer has lost a link that is down here: there is nothing to give, but it waits for the end of that.
    fn answer_failover<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        failed: BearerId,
        host: &mut H,
    ) -> bool {
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return false;
        };
        peer.state = step(peer.state, NodeEvent::FailoverBegin);
        peer.failover = Some(Box::new(Failover::of(failed, None)));
        let mut peer_bearer = failed.0;
        if let Some(link) = peer.links.get_mut(failed) {
            link.turn(LinkEvent::FailoverBegin);
            peer_bearer = link.peer_bearer();
        }
        let carrier = peer.links.carrier_mut(0);
        let answered = carrier.is_some_and(|link| link.send_empty_failover(&mut ctx, peer_bearer));
        self.end_synch(now, index, host);
        answered
    }

    /// All that the lost link held has arrived.
    fn end_failover<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let Some(failover) = peer.failover.take() else {
            return;
        };
        peer.state = step(peer.state, NodeEvent::FailoverEnd);
        if let Some(link) = peer.links.get_mut(failover.failed) {
            link.end_failover(now);
        }
        failover.end(&mut ctx);
        self.rearm(index);
        self.promote(now, index, host);
    }

    /// A spare link takes the place of one that was lost.
    fn promote<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let may_join = peer.takes_tunnels();
        if let Some(spare) = peer.links.spare()
            && let Place::Beside(other) = peer.links.place(spare, may_join)
        {
            self.join(now, index, spare, other, host);
        }
    }

    /// True of a SYNCH that cannot be taken before a failover ends.
    #[inline]
    pub(super) fn is_too_early(&self, index: PeerIndex, msg: Msg<'_>) -> bool {
        let failover = self.peer(index).and_then(|peer| peer.failover.as_ref());
        msg.user() == User::TunnelProtocol
            && failover.is_some_and(|failover| {
                TunnelProtocol::parse(msg).is_ok_and(|tunnel| {
                    matches!(tunnel.kind, TunnelKind::Synch { .. })
                        && tunnel.bearer_id != failover.failed.0
                })
            })
    }

    /// A message of user TUNNEL_PROTOCOL that a link received in order.
    pub(super) fn on_tunnel<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        msg: Msg<'_>,
        host: &mut H,
    ) {
        let Ok(tunnel) = TunnelProtocol::parse(msg) else {
            return self.core.drops.count(Drop::MalformedControl);
        };
        let seqno = SeqNo(msg.get16(field::SEQNO));
        let about = self.other_link(index, id, BearerId(tunnel.bearer_id));
        match tunnel.kind {
            TunnelKind::Synch { .. } if seqno != SeqNo(1) => {}
            TunnelKind::Synch { sync_point } => {
                self.begin_synch(now, index, id, about, SeqNo(sync_point), host);
            }
            TunnelKind::Failover {
                count,
                fragment_no,
                fragment_count,
            } => {
                let piece = (fragment_no, fragment_count);
                let taken = self.admit_failover(now, index, (id, about), (seqno, count), host)
                    && self.take_tunnelled(now, index, piece, tunnel.payload, host);
                let failover = self.peer(index).and_then(|peer| peer.failover.as_ref());
                let is_over = failover.and_then(|failover| failover.end) == Some((id, seqno));
                if !taken {
                    self.core.drops.count(Drop::Tunnel);
                    self.lose_contact(now, index, DownReason::Tunnel, host);
                } else if is_over {
                    self.end_failover(now, index, host);
                }
            }
        }
    }

    /// The link that a message on the one over `id` is about. `named` is the number that its bearer has here, or should
    /// have: with two links it can only be the other one.
    fn other_link(&self, index: PeerIndex, id: BearerId, named: BearerId) -> BearerId {
        let peer = self.peer(index);
        let links = peer.map(|peer| &peer.links);
        let failover = peer.and_then(|peer| peer.failover.as_ref());
        // Of a bearer that was removed the link is gone, and not what it brought.
        let is_lost = failover.is_some_and(|failover| failover.failed == named);
        if named != id && (is_lost || links.is_some_and(|links| links.get(named).is_some())) {
            return named;
        }
        let mut others = links.into_iter().flat_map(|links| links.iter());
        let other = others.find(|link| link.bearer != id);
        other.map_or(BearerId((id.0 + 1) % MAX_BEARERS as u8), |link| link.bearer)
    }

    /// Begins the failover that a tunnelled packet belongs to, if it has not begun. False if there cannot be one.
    fn admit_failover<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        (id, failed): (BearerId, BearerId),
        (seqno, count): (SeqNo, u16),
        host: &mut H,
    ) -> bool {
        let Some(peer) = self.peer(index) else {
            return false;
        };
        if peer.failover.is_none() {
            let is_up = peer.links.get(failed).is_some_and(|link| link.is_up());
            if is_up {
                self.fail_link(now, index, failed, DownReason::Failover, host);
            } else if !self.answer_failover(now, index, failed, host) {
                return false;
            }
        }
        let peer = self.peers.get_mut(index).and_then(Option::as_mut);
        let failover = peer.and_then(|peer| peer.failover.as_mut());
        failover.is_some_and(|failover| {
            // The first of the batch tells where it ends.
            let first = (id, seqno + count.saturating_sub(1));
            let (tunnel, last) = *failover.end.get_or_insert(first);
            failover.failed == failed && tunnel == id && !seqno.after(last)
        })
    }

    /// A packet of the lost link, or a piece of one. False if it leads nowhere.
    fn take_tunnelled<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        piece: (u16, u16),
        payload: &[u8],
        host: &mut H,
    ) -> bool {
        if piece.1 == 0 {
            return self.deliver_tunnelled(now, index, payload, host);
        }
        let Some((peer, _, ctx)) = self.at_peer(index, now, host) else {
            return false;
        };
        let Some(failover) = &mut peer.failover else {
            return false;
        };
        let buffers = &mut ctx.core.buffers;
        match failover.tunnelled.on_tunnelled(piece, payload, buffers) {
            Fragment::Pending => true,
            Fragment::Broken => false,
            Fragment::Complete(packet) => {
                let taken = self.deliver_tunnelled(now, index, &packet, host);
                self.core.buffers.put(packet);
                taken
            }
        }
    }

    fn deliver_tunnelled<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        payload: &[u8],
        host: &mut H,
    ) -> bool {
        let Ok(msg) = Msg::check(payload) else {
            return false;
        };
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return false;
        };
        let Some(failover) = &mut peer.failover else {
            return false;
        };
        match failover.on_packet(&mut ctx, msg) {
            Tunnelled::Held => return true,
            Tunnelled::NoRoom => return false,
            Tunnelled::InOrder => self.deliver_packet(now, index, Via::Tunnel, msg, host),
        }
        let mut packet = std::mem::take(&mut self.packet);
        while let Some((peer, _, mut ctx)) = self.at_peer(index, now, host)
            && let Some(failover) = &mut peer.failover
            && failover.next_deferred(&mut ctx, &mut packet)
            && let Ok(msg) = Msg::check(&packet)
        {
            self.deliver_packet(now, index, Via::Tunnel, msg, host);
        }
        self.packet = packet;
        // A message of it may have ended contact.
        self.peer(index).is_some_and(|peer| peer.failover.is_some())
    }

    /// True if a link that goes down takes contact with it although others are up: what it held, or brings, cannot go
    /// over them.
    pub(super) fn is_beyond_failover(&self, index: PeerIndex, id: BearerId) -> bool {
        let Some(peer) = self.peer(index) else {
            return true;
        };
        let Some(link) = peer.links.get(id) else {
            return true;
        };
        let mut others = peer.links.iter().filter(|link| link.bearer != id);
        // A failover in a failover is not understood. A link that is up again has ended its own.
        peer.failover.is_some()
            || link.carries_failover(&self.core.table) && !others.all(|link| link.is_up())
            || link.state == LinkState::FailingOver
    }
}
