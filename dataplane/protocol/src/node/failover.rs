//! What is still to come by a link that was lost, in the order in which it was sent by that
//! (`docs/protocol/tunnels.md`, failover).

use crate::addr::BearerId;
use crate::engine::Ctx;
use crate::frame::FrameList;
use crate::host::Host;
use crate::link::{Deferral, Link, defer, next_deferred};
use crate::reassembly::Assembly;
use crate::seqno::SeqNo;
use crate::wire::Msg;

/// A failover, as its receiver sees it.
#[derive(Debug)]
pub struct Failover {
    /// The bearer of the lost link.
    pub failed: BearerId,
    /// The link that brings what is still to come, and the number of the last packet that does; `None` before the first
    /// has come.
    pub end: Option<(BearerId, SeqNo)>,
    /// The message that was being put together.
    pub assembly: Assembly,
    /// The tunnelled packet being put together.
    pub tunnelled: Assembly,
    next: SeqNo,
    deferred: FrameList,
}

/// What a tunnelled packet is to the lost link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnelled {
    /// The next one.
    InOrder,
    /// It waits for its turn, or was received before.
    Held,
    /// There is no room to keep it.
    NoRoom,
}

impl Failover {
    /// Goes on where `lost` has stopped. Of a link that never was up here nothing is awaited but the end.
    pub fn of(failed: BearerId, lost: Option<&mut Link>) -> Self {
        let next = lost.as_ref().map_or(SeqNo(1), |link| link.rcv_nxt());
        let unfinished = lost.map(Link::take_unfinished);
        let (deferred, assembly) = unfinished.unwrap_or_default();
        Self {
            failed,
            end: None,
            assembly,
            tunnelled: Assembly::default(),
            next,
            deferred,
        }
    }

    /// Takes note of a packet that came through the tunnel.
    pub fn on_packet<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, packet: Msg<'_>) -> Tunnelled {
        let seqno = SeqNo(packet.get16(crate::wire::field::SEQNO));
        if seqno.before(self.next) {
            return Tunnelled::Held;
        }
        if seqno == self.next {
            self.next = seqno.next();
            return Tunnelled::InOrder;
        }
        let limit = ctx.deferred_limit();
        match defer(ctx, &mut self.deferred, packet, seqno, limit) {
            Deferral::Kept | Deferral::Duplicate => Tunnelled::Held,
            Deferral::Dropped => Tunnelled::NoRoom,
        }
    }

    /// Takes the next packet, if it came before its turn, into `packet`; false if it did not.
    pub fn next_deferred<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, packet: &mut Vec<u8>) -> bool {
        let is_there = next_deferred(ctx, &mut self.deferred, self.next, packet);
        if is_there {
            self.next = self.next.next();
        }
        is_there
    }

    /// Forgets what was not completed.
    pub fn end<H: Host>(mut self, ctx: &mut Ctx<'_, H>) {
        self.deferred.free_all(&ctx.core.table, ctx.host);
        self.assembly.clear(&mut ctx.core.buffers);
        self.tunnelled.clear(&mut ctx.core.buffers);
    }
}
