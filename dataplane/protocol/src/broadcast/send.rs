//! The broadcast send link: numbered packets for everybody, each kept until every peer has it.

use super::{BROADCAST_WINDOW, BroadcastPeer};
use crate::addr::{BearerId, MediaAddr, NodeAddr, PortId};
use crate::engine::Ctx;
use crate::frame::{Frame, FrameRef, FrameTable, Walk};
use crate::host::{Host, MediaDest, Reserve};
use crate::link::gap_chain::{GapChain, Place};
use crate::link::mss;
use crate::link::queue::{SendQueue, backlog_limit};
use crate::seqno::SeqNo;
use crate::stats::{Drop, LinkStats};
use crate::wire::{GapBlocks, Importance, field};
use std::time::Duration;

/// A broadcast is sent again at most once in this time.
const RESEND_SPACING: Duration = Duration::from_millis(10);

/// The send link of the node.
#[derive(Debug)]
pub struct BroadcastLink {
    /// Counters of what is sent.
    pub stats: LinkStats,
    /// Smallest MTU of the bearers in use.
    pub mtu: usize,
    /// Bearers with links.
    pub bearers: Vec<BearerId>,
    /// What a peer misses is sent again to that peer alone.
    pub repairs_by_unicast: bool,
    queue: SendQueue,
    /// Peers that acknowledge.
    peers: u16,
    waiters: Vec<PortId>,
}

/// What one peer says it has received of the broadcasts.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Last one in order.
    pub ack: SeqNo,
    /// Packets missing behind it.
    pub gap: u16,
    /// What it has behind the gap.
    pub blocks: GapBlocks<'a>,
}

/// A peer that may miss some of them, and says so on one of its links.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The peer.
    pub node: NodeAddr,
    /// Bearer of the link.
    pub bearer: BearerId,
    /// The peer's station there.
    pub station: MediaAddr,
    /// For how long it may lack the oldest packet.
    pub patience: Duration,
}

impl BroadcastLink {
    /// A link whose packets are numbered from `first` on. That has to be another number each time the node starts: a
    /// peer that missed the restart would take the broadcasts for those that it still expects. In the lower half of all
    /// numbers, so that 0, which a peer says before it knows one, is before it.
    pub fn new(first: SeqNo) -> Self {
        let mut queue = SendQueue::default();
        queue.snd_nxt = first;
        Self {
            stats: LinkStats::default(),
            mtu: 4096,
            bearers: Vec::new(),
            repairs_by_unicast: false,
            queue,
            peers: 0,
            waiters: Vec::new(),
        }
    }

    /// Last number sent.
    pub fn last_sent(&self) -> SeqNo {
        self.queue.snd_nxt.prev()
    }

    /// Number of peers it reaches.
    pub fn peers(&self) -> u16 {
        self.peers
    }

    /// Largest message that goes in one packet.
    #[inline]
    pub fn mss(&self) -> usize {
        mss(self.mtu)
    }

    /// Packets sent and not acknowledged by all, and packets waiting for the window.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Counts `peer` in for the packets sent from now on.
    pub fn add_peer(&mut self, peer: &mut BroadcastPeer) {
        self.peers += 1;
        peer.acked = self.last_sent();
        peer.acked_ahead = 0;
    }

    /// Counts `peer` off everything it has not acknowledged.
    pub fn remove_peer<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, peer: &mut BroadcastPeer) {
        let report = Report {
            ack: self.last_sent(),
            gap: 0,
            blocks: GapBlocks::default(),
        };
        self.count_off(ctx, peer, &report);
        self.peers = self.peers.saturating_sub(1);
        if self.peers == 0 {
            // The numbers go on: whoever comes next would take late packets with old numbers for future ones.
            let next = self.queue.snd_nxt;
            self.queue.purge(&ctx.core.table, ctx.host);
            self.queue.snd_nxt = next;
        }
        self.advance(ctx);
        self.wake(ctx);
    }

    /// True if the backlog of this importance is full.
    pub fn is_congested(&self, importance: Importance) -> bool {
        self.queue.backlog_len(importance) >= backlog_limit(importance, BROADCAST_WINDOW, self.mtu)
    }

    /// True if the next packet would wait for the window.
    pub fn is_waiting(&self) -> bool {
        self.queue.is_blocked(BROADCAST_WINDOW)
    }

    /// Notes that `port` met congestion and wants to hear when there is room.
    pub fn wait(&mut self, port: PortId) {
        self.stats.congested += 1;
        if !self.waiters.contains(&port) {
            self.waiters.push(port);
        }
    }

    /// Forgets a socket that no longer exists.
    pub fn forget(&mut self, port: PortId) {
        self.waiters.retain(|waiter| *waiter != port);
    }

    /// Queues a packet, written and noted in the table, and sends what the window lets out. With
    /// nobody to receive it, it is gone.
    pub fn submit<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, frame: Frame) {
        if self.peers == 0 {
            return ctx.host.free(frame);
        }
        self.queue.push(&mut ctx.core.table, frame, false);
        self.advance(ctx);
    }

    /// Queues the update of a binding, which `write` writes if there is room for it: with others in one packet while that waits for the
    /// window. False if it found no frame.
    pub fn submit_update<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        len: usize,
        mut write: impl FnMut(&mut [u8]),
    ) -> bool {
        let mss = self.mss();
        let message = (Importance::System, len);
        let (table, host, stats) = (&mut ctx.core.table, &mut *ctx.host, &mut self.stats);
        if self
            .queue
            .bundle(table, host, message, mss, stats, &mut write)
        {
            return true;
        }
        let Some(frame) = ctx.alloc_written(Reserve::Data, Importance::System, len, write) else {
            return false;
        };
        self.queue.push(&mut ctx.core.table, frame, true);
        self.advance(ctx);
        true
    }

    /// The packet behind `after`, or the first one, that the peer is not known to have received in order.
    pub fn next_missing(
        &self,
        table: &FrameTable,
        peer: &BroadcastPeer,
        after: Option<FrameRef>,
    ) -> Option<FrameRef> {
        let (sent, waiting) = (&self.queue.transmit, &self.queue.backlog);
        match after {
            None => {
                let is_missing = |frame: &FrameRef| table.meta(*frame).seqno.after(peer.acked);
                sent.iter(table).find(is_missing).or(waiting.front())
            }
            Some(frame) if sent.back() == Some(frame) => waiting.front(),
            Some(frame) => sent.after(table, frame),
        }
    }

    /// Notes for the counters that `count` fragments of one message were submitted.
    pub fn count_fragments(&mut self, count: u32) {
        self.stats.tx_fragments += count;
        self.stats.tx_fragmented += 1;
    }

    fn advance<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        while self.is_window_open(ctx)
            && let Some(frame) = self.queue.advance(&mut ctx.core.table, BROADCAST_WINDOW)
        {
            let meta = ctx.core.table.meta_mut(frame);
            meta.acks_left = self.peers;
            let seqno = meta.seqno;
            if let Some(bytes) = ctx.host.bytes_mut(frame) {
                field::NON_SEQ.set(bytes, 1);
                field::SEQNO.set(bytes, seqno.0.into());
                field::ACK.set(bytes, 0);
                field::BCAST_ACK.set(bytes, 0);
                field::BROADCAST_NET_ID.set(bytes, ctx.core.net_id);
                field::DEST_NODE.set(bytes, NodeAddr::NONE.0);
            }
            self.stats.tx_packets += 1;
            self.send(ctx, frame, None);
        }
    }

    /// The window is counted from the oldest packet, not in packets: those behind it may be gone already,
    /// but receivers believe in no number further ahead, and [`BroadcastPeer::acked_ahead`] has no bit.
    fn is_window_open<H: Host>(&self, ctx: &Ctx<'_, H>) -> bool {
        let oldest = self
            .queue
            .transmit
            .front()
            .map(|frame| ctx.core.table.meta(frame).seqno);
        oldest.is_none_or(|oldest| self.queue.snd_nxt.distance_from(oldest) < BROADCAST_WINDOW)
    }

    /// To all, or to one alone.
    fn send<H: Host>(&self, ctx: &mut Ctx<'_, H>, frame: FrameRef, to: Option<&Asker>) {
        let meta = ctx.core.table.meta_mut(frame);
        meta.sent_at = ctx.now;
        let len = meta.len as usize;
        let reserve = if meta.importance == Importance::System {
            Reserve::Control
        } else {
            Reserve::Data
        };
        if let Some(to) = to {
            let station = MediaDest::Unicast(to.station);
            return ctx.transmit(to.bearer, station, Some(to.node), frame, len, reserve);
        }
        for bearer in &self.bearers {
            ctx.transmit(*bearer, MediaDest::Broadcast, None, frame, len, reserve);
        }
    }

    /// Acts on what a peer says it has received: releases what all have, sends again what it misses if it asks.
    /// Returns false if it has not got the oldest packet for longer than it may.
    #[inline]
    pub fn on_report<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        peer: &mut BroadcastPeer,
        report: &Report<'_>,
        asker: Option<&Asker>,
    ) -> bool {
        if !peer.up || !peer.open || report.ack.before(peer.acked) {
            return true;
        }
        if !report.ack.before(self.queue.snd_nxt) {
            ctx.core.drops.count(Drop::ImpossibleAck);
            return true;
        }
        if report.ack == peer.acked && report.gap == 0 && report.blocks.is_empty() {
            return true;
        }
        let asker = asker.filter(|_| report.gap > 0);
        if asker.is_some_and(|asker| self.is_stuck(ctx, report, asker.patience)) {
            return false;
        }
        self.count_off(ctx, peer, report);
        if let Some(asker) = asker {
            self.stats.rx_naks += 1;
            peer.stats.rx_naks += 1;
            self.resend(ctx, peer, report, asker);
        }
        self.advance(ctx);
        self.wake(ctx);
        true
    }

    fn is_stuck<H: Host>(&self, ctx: &Ctx<'_, H>, report: &Report<'_>, patience: Duration) -> bool {
        let Some(head) = self.queue.transmit.front() else {
            return false;
        };
        let meta = ctx.core.table.meta(head);
        meta.seqno == report.ack.next()
            && meta
                .resent_at
                .is_some_and(|since| ctx.now.since(since) > patience)
    }

    /// Counts the peer off every packet it reports, once each.
    fn count_off<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        peer: &mut BroadcastPeer,
        report: &Report<'_>,
    ) {
        let mut chain = GapChain::new(report.ack, report.gap, report.blocks, self.last_sent());
        let mut ahead = peer.acked_ahead;
        let acked = peer.acked;
        let mut removed = self.queue.transmit.walk(&mut ctx.core.table, |_, meta| {
            if meta.seqno.before_or_eq(acked) {
                return Walk::Keep;
            }
            let bit = 1u64
                .checked_shl(u32::from(meta.seqno.distance_from(acked)) - 1)
                .unwrap_or(0);
            // An update is of use to the peer once all before it have arrived: until then it is kept, so
            // that a copy can go ahead of a message.
            let is_due =
                meta.importance != Importance::System || meta.seqno.before_or_eq(report.ack);
            match chain.place(meta.seqno) {
                Place::Unknown => return Walk::Stop,
                Place::Received if is_due && ahead & bit == 0 && bit != 0 => {
                    ahead |= bit;
                    meta.acks_left -= 1;
                }
                Place::Received | Place::Missing => {}
            }
            if meta.acks_left == 0 {
                Walk::Remove
            } else {
                Walk::Keep
            }
        });
        let shift = u32::from(report.ack.distance_from(acked));
        peer.acked_ahead = ahead.checked_shr(shift).unwrap_or(0);
        peer.acked = report.ack;
        while let Some(frame) = removed.pop_front(&ctx.core.table) {
            ctx.host.free(frame);
        }
    }

    fn resend<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        peer: &mut BroadcastPeer,
        report: &Report<'_>,
        asker: &Asker,
    ) {
        let to = self.repairs_by_unicast.then_some(asker);
        let mut chain = GapChain::new(report.ack, report.gap, report.blocks, self.last_sent());
        let mut at = self.queue.transmit.front();
        while let Some(frame) = at {
            at = self.queue.transmit.after(&ctx.core.table, frame);
            let meta = ctx.core.table.meta(frame);
            match chain.place(meta.seqno) {
                Place::Unknown => break,
                Place::Missing if ctx.now.since(meta.sent_at) >= RESEND_SPACING => {
                    ctx.core
                        .table
                        .meta_mut(frame)
                        .resent_at
                        .get_or_insert(ctx.now);
                    self.stats.retransmitted += 1;
                    peer.stats.retransmitted += 1;
                    self.send(ctx, frame, to);
                }
                Place::Missing | Place::Received => {}
            }
        }
    }

    fn wake<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        if !self.waiters.is_empty() && !self.is_congested(Importance::Low) {
            ctx.core.woken.extend(self.waiters.drain(..));
        }
    }
}
