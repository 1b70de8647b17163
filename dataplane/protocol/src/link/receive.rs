//! Receiving: order, deferral, what is missing (`docs/protocol/link.md`, receiving).

use super::{Link, RECEIVE_WINDOW};
use crate::engine::Ctx;
use crate::frame::{FrameList, FrameTable, Inserted};
use crate::host::{Host, Reserve};
use crate::reassembly::Assembly;
use crate::seqno::SeqNo;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{GapBlock, GapList, Importance, Msg, field};

/// Packets out of order that a peer may pin at least.
pub const DEFERRED_MIN: usize = 64;

/// What a sequenced packet is to the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequenced {
    /// The next one: deliver it, then look for deferred ones.
    InOrder,
    /// Kept, dropped or known already. `nack`: tell the peer what is missing.
    Held {
        /// Time to ask for what is missing.
        nack: bool,
    },
}

/// How far a link has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number expected next.
    pub next: SeqNo,
    /// Something that was sent is known to be missing.
    pub missing: bool,
}

impl Link {
    /// Takes note of a packet with a number and of the acknowledgement in it.
    #[inline]
    pub fn on_sequenced<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, packet: Msg<'_>) -> Sequenced {
        self.note_sign_of_life(ctx.now, SeqNo(packet.get16(field::ACK)));
        let seqno = SeqNo(packet.get16(field::SEQNO));
        if !self.is_in_window(seqno) {
            self.on_duplicate(ctx.now, seqno);
            ctx.core.drops.count(Drop::Duplicate);
            return Sequenced::Held { nack: false };
        }
        self.on_ack(ctx, SeqNo(packet.get16(field::ACK)));
        if seqno != self.rcv_nxt {
            return self.defer(ctx, packet, seqno);
        }
        self.rcv_nxt = seqno.next();
        self.rcv_unacked += 1;
        self.patience.on_accepted();
        self.stats.rx_packets += 1;
        Sequenced::InOrder
    }

    /// While this link waits for another one, what arrives is kept and not asked for.
    pub fn hold_back<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, packet: Msg<'_>) {
        self.note_sign_of_life(ctx.now, SeqNo(packet.get16(field::ACK)));
        let seqno = SeqNo(packet.get16(field::SEQNO));
        if !self.is_in_window(seqno) {
            self.on_duplicate(ctx.now, seqno);
            return ctx.core.drops.count(Drop::Duplicate);
        }
        self.on_ack(ctx, SeqNo(packet.get16(field::ACK)));
        self.defer(ctx, packet, seqno);
    }

    /// Takes the packets that came too early, and the message being put together: another link brings what belongs
    /// before.
    pub fn take_unfinished(&mut self) -> (FrameList, Assembly) {
        (
            std::mem::take(&mut self.deferred),
            std::mem::take(&mut self.assembly),
        )
    }

    /// True of the number expected next and of those that may come early.
    #[inline]
    pub fn is_in_window(&self, seqno: SeqNo) -> bool {
        !seqno.before(self.rcv_nxt) && !seqno.after(self.rcv_nxt + RECEIVE_WINDOW)
    }

    fn on_duplicate(&mut self, now: Instant, seqno: SeqNo) {
        self.stats.rx_duplicates += 1;
        let ahead = seqno.distance_from(self.rcv_nxt).cast_signed();
        self.patience.on_duplicate(now, ahead);
    }

    fn defer<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, packet: Msg<'_>, seqno: SeqNo) -> Sequenced {
        self.stats.rx_deferred += 1;
        let limit = ctx.deferred_limit();
        if defer(ctx, &mut self.deferred, packet, seqno, limit) == Deferral::Duplicate {
            self.on_duplicate(ctx.now, seqno);
        }
        // The third packet out of order, then every sixteenth.
        let len = self.deferred.len();
        Sequenced::Held {
            nack: len >= 3
                && (len - 3).is_multiple_of(16)
                && self
                    .ask_at(&ctx.core.table)
                    .is_some_and(|due| due <= ctx.now),
        }
    }

    /// When to ask for what is missing before the first deferred packet, if there is one.
    pub fn ask_at(&self, table: &FrameTable) -> Option<Instant> {
        let first = self.deferred.front()?;
        Some(self.patience.due_at(table.meta(first).sent_at))
    }

    /// The same, if it does not follow from the packets that come.
    pub fn ask_timeout(&self, table: &FrameTable) -> Option<Instant> {
        self.ask_at(table).filter(|_| self.patience.waits())
    }

    /// True if packets wait that came too early.
    #[inline]
    pub fn defers(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Takes the deferred packet whose turn it is into `packet`; false if there is none.
    pub fn next_deferred<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, packet: &mut Vec<u8>) -> bool {
        next_deferred(ctx, &mut self.deferred, self.rcv_nxt, packet)
    }

    /// The number expected next, and whether something that the peer has sent is missing.
    pub fn progress(&self) -> Progress {
        Progress {
            next: self.rcv_nxt,
            missing: !self.deferred.is_empty() || self.peer_snd_nxt.after(self.rcv_nxt),
        }
    }

    /// What to ask for now: packets missing before the first deferred one, and in `blocks` what was received behind it.
    /// Takes note that it is asked for.
    pub(super) fn ask(&mut self, now: Instant, table: &FrameTable, blocks: &mut GapList) -> u16 {
        if !self.defers() {
            return 0;
        }
        let patience = self.patience;
        let is_due = |came| patience.due_at(came) <= now;
        let gap = missing(&self.deferred, self.rcv_nxt, table, blocks, is_due);
        if let Some(first) = self.deferred.front()
            && gap > 0
        {
            let noticed = table.meta(first).sent_at;
            let ahead = |number| SeqNo(number).distance_from(self.rcv_nxt);
            self.patience
                .on_asked(now, noticed, gap, blocks.blocks(), ahead);
        }
        gap
    }
}

/// What became of a packet that came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deferral {
    /// It waits for its turn.
    Kept,
    /// It waits already.
    Duplicate,
    /// There is no room.
    Dropped,
}

/// Copies a packet that came too early into a frame of the deferred queue, which notes when it came.
pub fn defer<H: Host>(
    ctx: &mut Ctx<'_, H>,
    deferred: &mut FrameList,
    packet: Msg<'_>,
    seqno: SeqNo,
    limit: usize,
) -> Deferral {
    if deferred.len() >= limit {
        ctx.core.drops.count(Drop::DeferredLimit);
        return Deferral::Dropped;
    }
    let Some(frame) = ctx.alloc_filled(Reserve::Data, Importance::Low, packet.bytes()) else {
        ctx.core.drops.count(Drop::NoFrame);
        return Deferral::Dropped;
    };
    ctx.core.table.meta_mut(frame.by_ref()).seqno = seqno;
    match deferred.insert_by_seqno(&mut ctx.core.table, frame) {
        Inserted::Duplicate(frame) => {
            ctx.host.free(frame);
            Deferral::Duplicate
        }
        _ => Deferral::Kept,
    }
}

/// Takes the packet numbered `next` out of the deferred queue, if it is there.
pub fn next_deferred<H: Host>(
    ctx: &mut Ctx<'_, H>,
    deferred: &mut FrameList,
    next: SeqNo,
    packet: &mut Vec<u8>,
) -> bool {
    while let Some(head) = deferred.front() {
        let meta = ctx.core.table.meta(head);
        let (seqno, len) = (meta.seqno, meta.len as usize);
        if seqno.after(next) {
            return false;
        }
        let Some(frame) = deferred.pop_front(&ctx.core.table) else {
            return false;
        };
        if seqno == next {
            packet.clear();
            packet.extend_from_slice(&ctx.host.bytes(head)[..len]);
        }
        ctx.host.free(frame);
        if seqno == next {
            return true;
        }
    }
    false
}

/// Packets missing before the first deferred one, and in `blocks` what was received behind it. `is_due` tells by when a
/// packet came whether to ask for what is missing before it; what is behind one that is not due is left out.
pub fn missing(
    deferred: &FrameList,
    next: SeqNo,
    table: &FrameTable,
    blocks: &mut GapList,
    is_due: impl Fn(Instant) -> bool,
) -> u16 {
    let mut packets = deferred.iter(table).map(|frame| table.meta(frame));
    let Some(first) = packets.next().filter(|first| is_due(first.sent_at)) else {
        return 0;
    };
    let first = first.seqno;
    let mut last = first;
    for meta in packets {
        let seqno = meta.seqno;
        if seqno != last.next() {
            if !is_due(meta.sent_at) {
                break;
            }
            let gap = seqno.distance_from(last) - 1;
            if !blocks.push(GapBlock { ack: last.0, gap }) {
                return first.distance_from(next);
            }
        }
        last = seqno;
    }
    blocks.push(GapBlock {
        ack: last.0,
        gap: 0,
    });
    first.distance_from(next)
}
