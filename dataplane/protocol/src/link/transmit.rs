//! Sending: queueing, acknowledgements, retransmission, the window
//! (`docs/protocol/link.md`, acknowledgement and window).
//!
//! There is no retransmission timer. The receiver notices what is missing, from later packets or from
//! the numbers in a probe, and asks for it.

use super::Link;
use super::gap_chain::{GapChain, Place};
use super::queue::backlog_limit;
use crate::engine::Ctx;
use crate::frame::{Frame, FrameRef, Meta, Walk};
use crate::host::{DownReason, Host, Reserve};
use crate::seqno::SeqNo;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{GapBlocks, Importance, field, size};
use std::time::Duration;

/// A packet is sent again at most once in this time: until a copy has arrived it may be asked for repeatedly.
const RESEND_SPACING: Duration = Duration::from_millis(1);
/// Below this window a loss does not shrink it: the losses of a small window say little.
const WINDOW_FLOOR: u16 = 300;
/// Tolerances after which a packet that cannot be brought across fails the link.
const RETRANSMIT_LIMIT: u32 = 10;

impl Link {
    /// True if the backlog of this importance is full: the message at hand is still taken, but its
    /// sender has to wait before the next.
    #[inline]
    pub fn is_congested(&self, importance: Importance) -> bool {
        self.queue.backlog_len(importance) >= backlog_limit(importance, self.min_window, self.mtu)
    }

    /// Tries to add a message to a packet that waits, for the window or for more messages.
    pub fn bundle<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        importance: Importance,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        let mss = self.mss();
        if !self.queue.is_blocked(self.open_window()) || !bundles(len, mss) {
            return false;
        }
        let (table, host) = (&mut ctx.core.table, &mut *ctx.host);
        self.queue
            .bundle(table, host, (importance, len), mss, &mut self.stats, write)
    }

    /// Queues a packet, written and noted in the table, and sends what the window lets out. While
    /// messages are gathered, a packet that may take more of them is the last to stay.
    pub fn submit<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, frame: Frame, may_bundle: bool) {
        let len = ctx.core.table.meta(frame.by_ref()).len as usize;
        let bundles = may_bundle && bundles(len, self.mss());
        let stays = bundles && ctx.core.gathering;
        if !stays && !self.is_waiting() {
            let frame = self.queue.number(&mut ctx.core.table, frame);
            return self.send_first(ctx, frame);
        }
        self.queue.push(&mut ctx.core.table, frame, bundles);
        if !stays {
            return self.advance(ctx);
        }
        if ctx.core.gathered.last() != Some(&self.peer) {
            ctx.core.gathered.push(self.peer);
        }
        self.advance_until(ctx, 1);
    }

    /// Queues a binding update before every message to come, sharing a packet with others; to be sent by
    /// [`Self::advance`]. False if there is no frame for it.
    pub fn queue_update<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, update: &[u8]) -> bool {
        let (mss, len) = (self.mss(), update.len());
        let (table, host) = (&mut ctx.core.table, &mut *ctx.host);
        let message = (Importance::System, len);
        let write = |out: &mut [u8]| out.copy_from_slice(update);
        let stats = &mut self.stats;
        if !self.queue.bundle(table, host, message, mss, stats, write) {
            let frame = ctx.alloc_filled(Reserve::Data, Importance::System, update);
            let Some(frame) = frame else {
                return false;
            };
            self.queue
                .push(&mut ctx.core.table, frame, bundles(len, mss));
        }
        self.queue.seal();
        true
    }

    /// True if the next packet would wait for the window.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.queue.is_blocked(self.open_window())
    }

    /// Notes for the counters that `count` fragments of one message were submitted.
    pub fn count_fragments(&mut self, count: u32) {
        self.stats.tx_fragments += count;
        self.stats.tx_fragmented += 1;
    }

    /// Sends what the window lets out of the backlog.
    pub fn advance<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        self.advance_until(ctx, 0);
    }

    /// The same, but leaves the last `kept` packets.
    fn advance_until<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, kept: usize) {
        while self.queue.waiting() > kept
            && let Some(frame) = self.queue.advance(&mut ctx.core.table, self.open_window())
        {
            self.send_first(ctx, frame);
        }
    }

    /// Sends a packet that has just got its number.
    #[inline]
    fn send_first<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, frame: FrameRef) {
        self.stats.tx_packets += 1;
        self.send(ctx, frame);
    }

    /// Stamps a numbered packet with what this end has received, and sends it. While an earlier
    /// transmission still holds the frame nothing can be written, so nothing is sent: false.
    fn send<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, frame: FrameRef) -> bool {
        let meta = ctx.core.table.meta_mut(frame);
        let Some(bytes) = ctx.host.bytes_mut(frame) else {
            ctx.core.drops.count(Drop::RetransmitInFlight);
            return false;
        };
        meta.sent_at = ctx.now;
        self.sequenced_at = ctx.now;
        field::SEQNO.set(bytes, meta.seqno.0.into());
        field::ACK.set(bytes, self.rcv_nxt.prev().0.into());
        field::BCAST_ACK.set(bytes, ctx.bcast_ack.0.into());
        if field::HEADER_WORDS.get(bytes) > 6 {
            field::DEST_NODE.set(bytes, self.peer.0);
        }
        self.rcv_unacked = 0;
        self.transmit_queued(ctx, frame);
        true
    }

    /// True if the other end can have received packet `ack`.
    #[inline]
    pub(super) fn was_sent(&self, ack: SeqNo) -> bool {
        ack.before(self.queue.snd_nxt)
    }

    /// Acts on an acknowledgement without gaps, as every packet carries it.
    #[inline]
    pub fn on_ack<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, ack: SeqNo) {
        // Without gaps nothing is sent again, so nothing can fail.
        let _ = self.acknowledge(ctx, ack, 0, GapBlocks::default());
    }

    /// Releases what the other end has and sends again what it misses.
    #[inline]
    pub fn acknowledge<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        ack: SeqNo,
        gap: u16,
        blocks: GapBlocks<'_>,
    ) -> Result<(), DownReason> {
        if !self.was_sent(ack) {
            ctx.core.drops.count(Drop::ImpossibleAck);
            return Ok(());
        }
        let fresh = self.queue.transmit.front().is_some_and(|head| {
            let head = ctx.core.table.meta(head).seqno;
            head.before_or_eq(ack) || gap > 0
        });
        if !fresh {
            self.wake(ctx);
            return Ok(());
        }
        if gap > 0 {
            self.check_progress(ctx, ack)?;
        }
        let released = self.release(ctx, ack, gap, blocks);
        let resent = if gap > 0 {
            self.resend(ctx, ack, gap, blocks)
        } else {
            0
        };
        self.adapt_window(ctx, released, resent);
        self.advance(ctx);
        self.wake(ctx);
        Ok(())
    }

    /// Fails the link if its oldest packet has been sent again for ten tolerances in vain.
    fn check_progress<H: Host>(&self, ctx: &Ctx<'_, H>, ack: SeqNo) -> Result<(), DownReason> {
        let Some(head) = self.queue.transmit.front() else {
            return Ok(());
        };
        let meta = ctx.core.table.meta(head);
        let limit = Duration::from_millis(u64::from(self.tolerance_ms * RETRANSMIT_LIMIT));
        match meta.resent_at {
            Some(since) if meta.seqno == ack.next() && ctx.now.since(since) > limit => {
                Err(DownReason::RetransmitFailure)
            }
            _ => Ok(()),
        }
    }

    fn release<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        ack: SeqNo,
        gap: u16,
        blocks: GapBlocks<'_>,
    ) -> u16 {
        let mut released = 0;
        let mut newest = None;
        let mut release = |ctx: &mut Ctx<'_, H>, frame: Frame| {
            let meta = ctx.core.table.meta(frame.by_ref());
            newest = meta.resent_at.is_none().then_some(meta.sent_at);
            released += 1;
            ctx.host.free(frame);
        };
        let sent = &mut self.queue.transmit;
        while let Some(head) = sent.front()
            && ctx.core.table.meta(head).seqno.before_or_eq(ack)
            && let Some(frame) = sent.pop_front(&ctx.core.table)
        {
            release(ctx, frame);
        }
        if !blocks.is_empty() {
            let mut chain = GapChain::new(ack, gap, blocks, self.queue.snd_nxt.prev());
            let mut received = sent.walk(&mut ctx.core.table, |_, meta| {
                match chain.place(meta.seqno) {
                    Place::Received => Walk::Remove,
                    Place::Missing => Walk::Keep,
                    Place::Unknown => Walk::Stop,
                }
            });
            while let Some(frame) = received.pop_front(&ctx.core.table) {
                release(ctx, frame);
            }
        }
        if let Some(sent_at) = newest {
            self.round_trip.on_sample(ctx.now, ctx.now.since(sent_at));
        }
        released
    }

    fn resend<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        ack: SeqNo,
        gap: u16,
        blocks: GapBlocks<'_>,
    ) -> u32 {
        let mut chain = GapChain::new(ack, gap, blocks, self.queue.snd_nxt.prev());
        let mut resent = 0;
        let mut at = self.queue.transmit.front();
        while let Some(frame) = at {
            let meta = ctx.core.table.meta(frame);
            match chain.place(meta.seqno) {
                Place::Unknown => break,
                Place::Missing if is_due(meta, ctx.now) => {
                    if self.send(ctx, frame) {
                        ctx.core
                            .table
                            .meta_mut(frame)
                            .resent_at
                            .get_or_insert(ctx.now);
                        resent += 1;
                    }
                }
                Place::Missing | Place::Received => {}
            }
            at = self.queue.transmit.after(&ctx.core.table, frame);
        }
        self.stats.retransmitted += resent;
        resent
    }

    /// Slow start and congestion avoidance, as the other end would do it.
    fn adapt_window<H: Host>(&mut self, ctx: &Ctx<'_, H>, released: u16, resent: u32) {
        if resent > 0 {
            self.slow_start_threshold = (self.window / 2).max(WINDOW_FLOOR);
            self.window = self.window.min(self.slow_start_threshold);
            return;
        }
        if released == 0 || self.queue.len() < usize::from(self.window) || self.has_holes(ctx) {
            return;
        }
        self.acked_in_window = self.acked_in_window.saturating_add(released);
        if self.window <= self.slow_start_threshold {
            self.window = self.window.saturating_add(released).min(self.max_window);
        } else if self.acked_in_window >= self.window {
            self.window = (self.window + 1).min(self.max_window);
            self.acked_in_window = 0;
        }
    }

    fn has_holes<H: Host>(&self, ctx: &Ctx<'_, H>) -> bool {
        let Some(head) = self.queue.transmit.front() else {
            return false;
        };
        let head = ctx.core.table.meta(head).seqno;
        usize::from(self.queue.snd_nxt.distance_from(head)) != self.queue.transmit.len()
    }

    /// An idle link starts anew.
    pub(super) fn restart_window(&mut self) {
        self.slow_start_threshold = (self.window / 2).max(WINDOW_FLOOR);
        self.window = self.min_window;
    }
}

/// True if a message of `len` bytes may share a packet.
#[inline]
fn bundles(len: usize, mss: usize) -> bool {
    size::INT + len < mss
}

/// The first time a packet is sent again at once: who asks for it has what was sent later, and may not ask again before
/// the next tick.
fn is_due(meta: &Meta, now: Instant) -> bool {
    meta.resent_at.is_none() || now.since(meta.sent_at) >= RESEND_SPACING
}
