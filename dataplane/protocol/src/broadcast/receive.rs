//! The broadcast link as seen from one peer: what arrived from it, what it has acknowledged.

use super::BROADCAST_WINDOW;
use crate::engine::Ctx;
use crate::frame::{FrameList, FrameTable};
use crate::host::Host;
use crate::link::{
    ACK_THRESHOLD, BroadcastView, Deferral, Progress, RECEIVE_WINDOW, defer, missing, next_deferred,
};
use crate::reassembly::Assembly;
use crate::seqno::SeqNo;
use crate::stats::{Drop, LinkStats};
use crate::time::Instant;
use crate::wire::{GapList, Msg, field};
use std::time::Duration;

/// While packets come but some are missing, the sender is told once in this time: as often as it sends
/// a packet again.
const REPAIR_INTERVAL: Duration = Duration::from_millis(10);
/// Receivers that miss the same packet do not all ask at once: sixteen turns of this length.
const REPAIR_TURN: Duration = Duration::from_micros(500);
/// Ticks that acknowledge what was received last.
const ACKNOWLEDGING_TICKS: u8 = 4;
/// A STATE that shows missing broadcasts is answered by one that asks for them at most once in this time: two nodes
/// that both miss some would otherwise answer each other for as long as they do.
const ASK_SPACING: Duration = Duration::from_millis(1);

/// Both directions of the broadcast link with one peer. What an idle link says of it comes first, side by side.
#[derive(Debug)]
#[repr(C)]
pub struct BroadcastPeer {
    /// The start point of the peer's broadcasts is known.
    pub up: bool,
    /// The peer's bindings are here: nothing that it broadcasts can be ahead of them, and so it may be taken.
    pub told: bool,
    /// The peer has proved that it knows the start point of ours.
    pub open: bool,
    /// Received since the peer was last told so for sure.
    rcv_unacked: u8,
    /// Ticks that told it since the last one came.
    told_ticks: u8,
    /// How many came out of order, modulo 256: whose turn it is to tell the sender.
    out_of_order: u8,
    /// Last of our broadcasts that the peer has received in order.
    pub acked: SeqNo,
    rcv_nxt: SeqNo,
    /// The number the peer will give its next broadcast, as far as it has told.
    peer_snd_nxt: SeqNo,
    deferred: FrameList,
    /// When a STATE of the peer was last answered by asking for broadcasts.
    asked_at: Instant,
    /// When the gap opened, or the sender was last told of it in good time.
    gap_told: Instant,
    /// Bit n: the peer has `acked + 1 + n` as well, out of order.
    pub acked_ahead: u64,
    /// The message being put together.
    pub assembly: Assembly,
    /// Counters of what arrives.
    pub stats: LinkStats,
}

impl Default for BroadcastPeer {
    fn default() -> Self {
        Self {
            up: false,
            told: false,
            open: false,
            acked: SeqNo(0),
            acked_ahead: 0,
            assembly: Assembly::default(),
            stats: LinkStats::default(),
            rcv_nxt: SeqNo(1),
            peer_snd_nxt: SeqNo(1),
            deferred: FrameList::default(),
            rcv_unacked: 0,
            told_ticks: 0,
            out_of_order: 0,
            gap_told: Instant(0),
            asked_at: Instant::default(),
        }
    }
}

/// What a broadcast packet is to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BroadcastSequenced {
    /// The next one: deliver it, then look for deferred ones. `ack`: tell the sender now.
    InOrder {
        /// An acknowledgement is due.
        ack: bool,
    },
    /// Kept, dropped or known already. `nack`: tell the sender what is missing.
    Held {
        /// Time to ask for what is missing.
        nack: bool,
    },
}

impl BroadcastPeer {
    /// The peer told its start point: its next broadcast follows `last_bcast`. Its bindings come behind it.
    pub fn start(&mut self, last_bcast: SeqNo) {
        if !self.up {
            self.rcv_nxt = last_bcast.next();
            self.peer_snd_nxt = self.rcv_nxt;
            self.up = true;
        }
    }

    /// Contact is lost: forget what the peer sent.
    pub fn reset<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        while let Some(frame) = self.deferred.pop_front(&ctx.core.table) {
            ctx.host.free(frame);
        }
        self.assembly.clear(&mut ctx.core.buffers);
        *self = Self::default();
    }

    /// What the link to this peer says of the broadcast link. Of broadcasts that wait for the peer's bindings it says
    /// nothing: TIPC has no words for one that is there and not taken.
    #[inline]
    pub fn view(&self, last_sent: SeqNo, table: &FrameTable) -> BroadcastView {
        let mut view = BroadcastView {
            up: self.up,
            ack: self.ack(),
            gap: 0,
            blocks: GapList::default(),
            last_sent,
            state_due: self.up && self.rcv_unacked > 0 || self.open && self.acked != last_sent,
        };
        let blocks = &mut view.blocks;
        view.gap = missing(&self.deferred, self.rcv_nxt, table, blocks, |_| self.told);
        if view.gap == 0 && self.told && self.peer_snd_nxt.after(self.rcv_nxt) {
            view.gap = self.peer_snd_nxt.distance_from(self.rcv_nxt);
        }
        view
    }

    /// A tick sent a STATE if one was due. Several of them tell what was received, since one may be lost; then they end,
    /// or each link on which a broadcast ever came would never be idle again.
    pub fn on_tick(&mut self) {
        self.told_ticks = self.told_ticks.saturating_add(1);
        if self.told_ticks >= ACKNOWLEDGING_TICKS {
            self.rcv_unacked = 0;
        }
    }

    /// The number expected next, and whether something that the peer has sent is missing.
    pub fn progress(&self) -> Progress {
        Progress {
            next: self.rcv_nxt,
            missing: !self.deferred.is_empty() || self.peer_snd_nxt.after(self.rcv_nxt),
        }
    }

    /// Last broadcast of the peer received in order.
    #[inline]
    pub fn ack(&self) -> SeqNo {
        if self.up {
            self.rcv_nxt.prev()
        } else {
            SeqNo(0)
        }
    }

    /// Takes note of a broadcast packet of the peer.
    pub fn on_broadcast<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        packet: Msg<'_>,
    ) -> BroadcastSequenced {
        let held = BroadcastSequenced::Held { nack: false };
        if !self.up {
            ctx.core.drops.count(Drop::BroadcastNotOpen);
            return held;
        }
        let seqno = SeqNo(packet.get16(field::SEQNO));
        if seqno.before(self.rcv_nxt) || seqno.after(self.rcv_nxt + RECEIVE_WINDOW) {
            self.stats.rx_duplicates += 1;
            ctx.core.drops.count(Drop::Duplicate);
            return held;
        }
        // Receivers take turns: each tells the sender at its own phase of sixteen packets.
        let phase = ctx.core.own.0 & 0xf;
        if seqno != self.rcv_nxt || !self.told {
            self.stats.rx_deferred += 1;
            self.out_of_order = self.out_of_order.wrapping_add(1);
            if self.deferred.is_empty() {
                self.gap_told = ctx.now;
            }
            let limit = usize::from(BROADCAST_WINDOW);
            if defer(ctx, &mut self.deferred, packet, seqno, limit) == Deferral::Duplicate {
                self.stats.rx_duplicates += 1;
            }
            return BroadcastSequenced::Held {
                nack: self.told && u32::from(self.out_of_order & 0xf) == phase,
            };
        }
        self.rcv_nxt = seqno.next();
        self.rcv_unacked = self.rcv_unacked.saturating_add(1);
        self.told_ticks = 0;
        self.stats.rx_packets += 1;
        let ack = u16::from(self.rcv_unacked) >= ACK_THRESHOLD
            && (u32::from(self.rcv_nxt.0) ^ ctx.core.own.0) & 0xf == 0xf;
        if ack {
            self.rcv_unacked = 0;
        }
        BroadcastSequenced::InOrder { ack }
    }

    /// True if broadcasts wait that came too early.
    #[inline]
    pub fn defers(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// True if the sender has to be told of what is missing; to be asked when something of the peer came.
    /// What is told sooner, the sender ignores: it has only just sent the packet.
    pub fn is_repair_due<H: Host>(&mut self, ctx: &Ctx<'_, H>) -> bool {
        if self.deferred.is_empty() || !self.told {
            return false;
        }
        let turn = ctx.core.own.0 & 0xf;
        let is_due = ctx.now.since(self.gap_told) >= REPAIR_INTERVAL + REPAIR_TURN * turn;
        if is_due {
            self.gap_told = ctx.now;
        }
        is_due
    }

    /// Takes the deferred packet whose turn it is into `packet`; false if there is none.
    pub fn next_deferred<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, packet: &mut Vec<u8>) -> bool {
        next_deferred(ctx, &mut self.deferred, self.rcv_nxt, packet)
    }

    /// The peer told the number of its last broadcast. True if some are missing here and it should be told so.
    pub fn on_last_bcast(&mut self, now: Instant, last_bcast: SeqNo) -> bool {
        let next = last_bcast.next();
        if !self.up || !self.told || !self.open || next.after(self.rcv_nxt + BROADCAST_WINDOW) {
            return false;
        }
        if next.after(self.peer_snd_nxt) {
            self.peer_snd_nxt = next;
        }
        let lacks = !self.deferred.is_empty() || self.peer_snd_nxt.after(self.rcv_nxt);
        let is_due = now.since(self.asked_at) >= ASK_SPACING;
        if lacks && is_due {
            self.asked_at = now;
        }
        lacks && is_due
    }
}
