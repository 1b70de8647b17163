//! From the bearer to the link: who may speak, in what state, in what order
//! (`docs/protocol/peer.md`, gate, and `docs/protocol/link.md`, receiving).

use super::deliver::Via;
use super::{Engine, PeerIndex};
use crate::addr::{BearerId, MediaAddr, NodeAddr};
use crate::broadcast::{Asker, BroadcastSequenced, Report};
use crate::host::{DownReason, Host};
use crate::link::fsm::LinkState;
use crate::link::{Link, Sequenced, Verdict};
use crate::node::fsm::{NodeEvent, NodeState, step};
use crate::seqno::SeqNo;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{
    Body, Capabilities, Encrypted, GapBlocks, LinkProtocol, Msg, State, User, field, size,
};
use std::time::Duration;

/// Tolerances that a broadcast may take to get across before its receiver is given up.
pub(super) const BROADCAST_PATIENCE: u32 = 10;

impl Engine {
    /// A packet has arrived: `frame` are the bytes behind the media header, `source` the station that
    /// sent it, as its media writes it ([`crate::addr::Media::station`]).
    pub fn on_packet<H: Host>(
        &mut self,
        now: Instant,
        bearer: BearerId,
        source: MediaAddr,
        frame: &[u8],
        host: &mut H,
    ) {
        if let Err(reason) = self.dispatch(now, bearer, source, frame, host) {
            self.core.drops.count(reason);
        }
        self.settle(now, host);
    }

    fn dispatch<H: Host>(
        &mut self,
        now: Instant,
        bearer: BearerId,
        source: MediaAddr,
        frame: &[u8],
        host: &mut H,
    ) -> Result<(), Drop> {
        if Encrypted::is_at(frame) {
            if !self.core.crypto.has_keys() {
                return Err(Drop::Encrypted);
            }
            return self.on_encrypted(now, bearer, source, frame, host);
        }
        if !self.core.crypto.takes_clear_text() {
            return Err(Drop::ClearText);
        }
        let msg = Msg::check(frame).map_err(|_| Drop::Malformed)?;
        if msg.user() == User::MsgCrypto {
            return Err(Drop::ClearText);
        }
        self.on_message(now, bearer, source, msg, host)
    }

    /// A packet that came in clear or was decrypted.
    pub(super) fn on_message<H: Host>(
        &mut self,
        now: Instant,
        bearer: BearerId,
        source: MediaAddr,
        msg: Msg<'_>,
        host: &mut H,
    ) -> Result<(), Drop> {
        let non_seq = msg.flag(field::NON_SEQ);
        if msg.user() == User::LinkConfig {
            if !non_seq {
                return Err(Drop::UnexpectedUser);
            }
            self.on_discovery(now, bearer, source, msg, host);
            return Ok(());
        }
        let index = self.sender(bearer, source, msg)?;
        if non_seq {
            self.on_broadcast(now, index, msg, host)
        } else if msg.header_size() > size::SHORT && msg.get(field::DEST_NODE) != self.core.own.0 {
            Err(Drop::OtherNode)
        } else if msg.user() == User::LinkProtocol {
            self.on_link_protocol(now, index, bearer, msg, host)
        } else {
            self.on_sequenced(now, index, bearer, msg, host)
        }
    }

    /// The peer that a packet comes from: known, and at the station it announced.
    #[inline]
    fn sender(&self, bearer: BearerId, source: MediaAddr, msg: Msg<'_>) -> Result<PeerIndex, Drop> {
        let prev = NodeAddr(msg.prev_node());
        if prev == self.core.own {
            return Err(Drop::OwnPacket);
        }
        let index = self.index_of(prev).ok_or(Drop::UnknownNode)?;
        let links = &self.peer(index).ok_or(Drop::LinkDown)?.links;
        let is_its = |link: &Link| link.media_addr == source || source == MediaAddr::UNTOLD;
        match links.get(bearer) {
            Some(link) if is_its(link) => Ok(index),
            None if links.iter().next().is_none() => Err(Drop::LinkDown),
            Some(_) | None => Err(Drop::ForeignStation),
        }
    }

    fn on_link_protocol<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        msg: Msg<'_>,
        host: &mut H,
    ) -> Result<(), Drop> {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return Err(Drop::UnknownNode);
        };
        let with_gaps = peer.capabilities.has(Capabilities::GAP_ACK_BLOCK);
        let message = LinkProtocol::parse(msg, with_gaps).map_err(|_| Drop::MalformedControl)?;
        let link = peer.links.get_mut(id).ok_or(Drop::LinkDown)?;
        if !link.accepts(&message) {
            let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
            link.on_refused(&mut ctx, &message, &view);
            return Err(Drop::StaleSession);
        }
        let is_state = matches!(message.body, Body::State(_));
        match peer.state {
            NodeState::PeerLeaving if is_state || message.redundant_link => {
                return Err(Drop::PeerState);
            }
            NodeState::PeerLeaving => peer.state = step(peer.state, NodeEvent::PeerSeenDown),
            NodeState::PeerComing if is_state && link.is_up() => {
                peer.state = step(peer.state, NodeEvent::PeerUp);
            }
            NodeState::PeerComing
            | NodeState::Down
            | NodeState::Up
            | NodeState::Synching
            | NodeState::FailingOver => {}
        }
        let mut missing = false;
        if let Body::State(state) = &message.body
            && !message.bc_ack_invalid
        {
            if peer.bcast.up && message.ack != 0 {
                peer.bcast.open = true;
            }
            let report = report_of(&message, state);
            let asker = Asker {
                node: peer.addr,
                bearer: id,
                station: link.media_addr,
                patience: Duration::from_millis(u64::from(link.tolerance_ms * BROADCAST_PATIENCE)),
            };
            if !bcast.on_report(&mut ctx, &mut peer.bcast, &report, Some(&asker)) {
                self.lose_contact(now, index, DownReason::RetransmitFailure, host);
                return Ok(());
            }
            missing = peer.bcast.on_last_bcast(now, SeqNo(message.last_bcast)) && !state.probe;
        }
        let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
        let (tolerance_ms, mtu) = (link.tolerance_ms, link.mtu);
        let verdict = link.on_link_protocol(&mut ctx, &message, &view);
        if missing {
            link.send_ack(&mut ctx, &view);
        }
        let is_changed = link.tolerance_ms != tolerance_ms;
        let is_resized = link.mtu != mtu;
        self.act_on(now, index, id, verdict, host);
        if is_state {
            self.on_record(now, index, id, msg, with_gaps, host);
        }
        if verdict == Verdict::Down(DownReason::PeerReset) {
            self.rejoin(now, index, id, &message, host);
        }
        if is_changed {
            self.rearm(index);
        }
        if is_resized {
            self.on_bearers_changed();
        }
        self.look_at_synch(now, index, host);
        Ok(())
    }

    fn on_sequenced<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        msg: Msg<'_>,
        host: &mut H,
    ) -> Result<(), Drop> {
        if self.is_too_early(index, msg) {
            return Err(Drop::PeerState);
        }
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return Err(Drop::UnknownNode);
        };
        if peer.state == NodeState::PeerLeaving {
            return Err(Drop::PeerState);
        }
        let link = peer.links.get_mut(id).ok_or(Drop::LinkDown)?;
        if !link.is_up() {
            // Proves that the peer's end is up; the packet itself will be sent again.
            let verdict = link.on_proof_of_life();
            self.act_on(now, index, id, verdict, host);
            return Err(Drop::LinkDown);
        }
        peer.state = step(peer.state, NodeEvent::PeerUp);
        let carries_bcast_ack = match msg.user() {
            User::BcastProtocol | User::NameDistributor => !msg.flag(field::BC_ACK_INVALID),
            _ => true,
        };
        // Numbers are all that tells this session's packets: what is outside the window acknowledges nothing.
        let ack = SeqNo(msg.get16(field::BCAST_ACK));
        if ack != peer.bcast.acked
            && carries_bcast_ack
            && link.is_in_window(SeqNo(msg.get16(field::SEQNO)))
        {
            let report = Report {
                ack,
                gap: 0,
                blocks: GapBlocks::default(),
            };
            bcast.on_report(&mut ctx, &mut peer.bcast, &report, None);
        }
        if link.state == LinkState::Synching {
            link.hold_back(&mut ctx, msg);
            self.look_at_synch(now, index, host);
            return Ok(());
        }
        match link.on_sequenced(&mut ctx, msg) {
            Sequenced::InOrder => {
                let defers = link.defers();
                self.deliver_packet(now, index, Via::Link(id), msg, host);
                if defers {
                    self.deliver_deferred(now, index, id, host);
                }
            }
            Sequenced::Held { nack } => {
                if nack {
                    let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
                    link.send_nack(&mut ctx, &view);
                }
                if let Some(at) = link.ask_timeout(&ctx.core.table) {
                    self.wheel.arm(Self::gap_timer(index), at);
                }
            }
        }
        self.follow_up(now, index, id, host);
        Ok(())
    }

    /// What else a packet of a peer that came over the link gives reason for.
    fn follow_up<H: Host>(&mut self, now: Instant, index: PeerIndex, id: BearerId, host: &mut H) {
        let Some(peer) = self.peer(index) else {
            return;
        };
        let acknowledges = peer.links.get(id).is_some_and(Link::is_ack_due);
        let (lacks, waits) = (peer.bcast.defers(), peer.waits_for_other_link());
        if acknowledges {
            self.acknowledge_if_due(now, index, id, host);
        }
        if lacks {
            self.repair_if_due(now, index, host);
        }
        if waits {
            self.look_at_synch(now, index, host);
        }
    }

    /// Tells the peer which of its broadcasts are missing here, now and then.
    fn repair_if_due<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        if let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host)
            && peer.is_up()
            && peer.bcast.is_repair_due(&ctx)
            && let Some(link) = peer.links.carrier_mut(0)
        {
            let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
            link.send_ack(&mut ctx, &view);
        }
    }

    /// What a receiver waited for may have come too late, or not at all.
    pub(super) fn on_gap_timer<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let mut next: Option<Instant> = None;
        for link in peer.links.iter_mut().filter(|link| link.is_up()) {
            let due = link.ask_timeout(&ctx.core.table);
            if due.is_some_and(|due| due <= now) {
                let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
                link.send_nack(&mut ctx, &view);
            }
            next = next
                .into_iter()
                .chain(link.ask_timeout(&ctx.core.table))
                .min();
        }
        if let Some(at) = next {
            self.wheel.arm(Self::gap_timer(index), at);
        }
    }

    /// Delivers the deferred packets whose turn has come.
    pub(super) fn deliver_deferred<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        host: &mut H,
    ) {
        let mut packet = std::mem::take(&mut self.packet);
        while let Some((peer, _, mut ctx)) = self.at_peer(index, now, host)
            && let Some(link) = peer.links.get_mut(id)
            && link.state == LinkState::Established
            && link.next_deferred(&mut ctx, &mut packet)
            && let Ok(msg) = Msg::check(&packet)
        {
            if link.on_sequenced(&mut ctx, msg) == Sequenced::InOrder {
                self.deliver_packet(now, index, Via::Link(id), msg, host);
            }
        }
        self.packet = packet;
    }

    pub(super) fn acknowledge_if_due<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        id: BearerId,
        host: &mut H,
    ) {
        if let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host)
            && let Some(link) = peer.links.get_mut(id)
            && link.is_ack_due()
        {
            let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
            link.send_ack(&mut ctx, &view);
        }
    }

    /// A packet of the peer's broadcast link.
    fn on_broadcast<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        msg: Msg<'_>,
        host: &mut H,
    ) -> Result<(), Drop> {
        if msg.user() == User::BcastProtocol || msg.user() == User::LinkProtocol {
            return Err(Drop::UnexpectedUser);
        }
        if msg.get(field::BROADCAST_NET_ID) != self.config.net_id {
            return Err(Drop::BroadcastOtherCluster);
        }
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return Err(Drop::UnknownNode);
        };
        let mut tell = false;
        match peer.bcast.on_broadcast(&mut ctx, msg) {
            BroadcastSequenced::InOrder { ack } => {
                tell = ack;
                self.deliver_packet(now, index, Via::Broadcast, msg, host);
                tell |= self.deliver_deferred_broadcasts(now, index, host);
            }
            BroadcastSequenced::Held { nack } => tell |= nack,
        }
        if tell {
            self.tell_of_broadcasts(now, index, host);
        }
        self.repair_if_due(now, index, host);
        Ok(())
    }

    /// The peer's bindings are here: takes the broadcasts that waited for them.
    pub(super) fn take_held_broadcasts<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        host: &mut H,
    ) {
        self.deliver_deferred_broadcasts(now, index, host);
        self.tell_of_broadcasts(now, index, host);
    }

    /// Tells the peer which of its broadcasts are here.
    fn tell_of_broadcasts<H: Host>(&mut self, now: Instant, index: PeerIndex, host: &mut H) {
        if let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host)
            && let Some(link) = peer.links.carrier_mut(0)
        {
            let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
            link.send_ack(&mut ctx, &view);
        }
    }

    fn deliver_deferred_broadcasts<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        host: &mut H,
    ) -> bool {
        let mut packet = std::mem::take(&mut self.packet);
        let mut tell = false;
        while let Some((peer, _, mut ctx)) = self.at_peer(index, now, host)
            && peer.bcast.next_deferred(&mut ctx, &mut packet)
            && let Ok(msg) = Msg::check(&packet)
        {
            if let BroadcastSequenced::InOrder { ack } = peer.bcast.on_broadcast(&mut ctx, msg) {
                tell |= ack;
                self.deliver_packet(now, index, Via::Broadcast, msg, host);
            }
        }
        self.packet = packet;
        tell
    }
}

fn report_of<'a>(message: &LinkProtocol<'_>, state: &State<'a>) -> Report<'a> {
    Report {
        ack: SeqNo(message.bcast_ack),
        gap: state.bc_gap,
        blocks: state.gaps.map(|gaps| gaps.broadcast).unwrap_or_default(),
    }
}
