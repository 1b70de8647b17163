//! What one link carries for another: SYNCH when it begins to carry messages beside it, FAILOVER with all that the
//! other one still held when it was lost (`docs/protocol/tunnels.md`).

use super::Link;
use crate::engine::Ctx;
use crate::frame::{Frame, FrameList, FrameTable};
use crate::host::{Host, Reserve};
use crate::seqno::SeqNo;
use crate::wire::{DataType, Header, Importance, TunnelKind, User, errcode, field, size};

/// The largest message in a tunnel is a packet as long as a frame; its pieces are counted in 16 bits.
const TUNNELLED_MAX: usize = u16::MAX as usize / 2;

impl Link {
    fn last_sent(&self) -> SeqNo {
        self.queue.snd_nxt.prev()
    }

    /// Number that the last packet given to this link so far has or will have.
    pub fn last_given(&self) -> SeqNo {
        self.last_sent() + self.queue.waiting() as u16
    }

    /// True if the other end has all packets up to this one.
    pub fn has_acked(&self, table: &FrameTable, seqno: SeqNo) -> bool {
        let oldest = self.queue.transmit.front();
        let oldest = oldest.map_or(self.queue.snd_nxt, |frame| table.meta(frame).seqno);
        oldest.after(seqno)
    }

    /// Says as packet 1 that this link is used beside `other` from now on. What is given to it from here on waits until
    /// the peer has acknowledged all that `other` was given before: [`Self::let_out`]. False if there is no frame.
    pub fn begin_synch<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, other: &Self) -> bool {
        let kind = TunnelKind::Synch {
            sync_point: other.last_given().0,
        };
        let header = kind.header(ctx.core.own.0, self.peer.0, other.peer_bearer);
        let frame = ctx.alloc_filled(Reserve::Control, Importance::System, header.as_bytes());
        let Some(frame) = frame else {
            return false;
        };
        self.submit(ctx, frame, false);
        self.held = true;
        true
    }

    /// What was held goes out.
    pub fn let_out<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        self.held = false;
        self.advance(ctx);
    }

    /// Gives all that this link, which was lost, had not brought across to `other`, which carries it before anything
    /// that waits there. False if there are not frames enough.
    pub fn fail_over<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, other: &mut Self) -> bool {
        // There is always something, since the peer waits for it.
        let dummy = dummy(ctx.core.own.0, self.peer.0);
        let frame = ctx.alloc_filled(Reserve::Control, Importance::System, dummy.as_bytes());
        let Some(frame) = frame else {
            return false;
        };
        self.queue.push(&mut ctx.core.table, frame, false);
        let mut packets = self.queue.take_all(&mut ctx.core.table);
        let room = other.mss();
        let lengths = packets.iter(&ctx.core.table);
        let lengths = lengths.map(|frame| ctx.core.table.meta(frame).len as usize);
        let count: usize = lengths.map(|len| pieces(len, room)).sum();
        let mut tunnelled = FrameList::default();
        let mut complete = count <= TUNNELLED_MAX;
        while let Some(packet) = packets.pop_front(&ctx.core.table) {
            if complete {
                complete = self.wrap(ctx, packet, count as u16, room, &mut tunnelled);
            } else {
                ctx.host.free(packet);
            }
        }
        if !complete {
            tunnelled.free_all(&ctx.core.table, ctx.host);
            return false;
        }
        other.tunnelled_until = Some(other.last_sent() + tunnelled.len() as u16);
        other
            .queue
            .put_before_waiting(&mut ctx.core.table, tunnelled);
        other.let_out(ctx);
        true
    }

    /// Answers a failover of a link that has nothing to give: never up here, or reset already.
    pub fn send_empty_failover<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, peer_bearer: u8) -> bool {
        let (own, peer) = (ctx.core.own.0, self.peer.0);
        let header = failover(1, 0, 0).header(own, peer, peer_bearer);
        let dummy = dummy(own, peer);
        let mut message = [0; size::INT + size::BASIC];
        message[..size::INT].copy_from_slice(header.as_bytes());
        message[size::INT..].copy_from_slice(dummy.as_bytes());
        field::SIZE.set(&mut message, (size::INT + size::BASIC) as u32);
        let frame = ctx.alloc_filled(Reserve::Control, Importance::System, &message);
        let Some(frame) = frame else {
            return false;
        };
        self.submit(ctx, frame, false);
        true
    }

    /// Puts a numbered packet into the tunnel, whole or in pieces of at most `room` bytes. In its own frame, if nothing
    /// transmits that any more.
    fn wrap<H: Host>(
        &self,
        ctx: &mut Ctx<'_, H>,
        packet: Frame,
        count: u16,
        room: usize,
        tunnelled: &mut FrameList,
    ) -> bool {
        let name = packet.by_ref();
        let (len, seqno) = {
            let meta = ctx.core.table.meta(name);
            (meta.len as usize, meta.seqno)
        };
        let (own, peer) = (ctx.core.own.0, self.peer.0);
        let header = |kind: TunnelKind, len| {
            let mut header = kind.header(own, peer, self.peer_bearer);
            header.set_payload_len(len);
            header
        };
        if let Some(bytes) = ctx.host.bytes_mut(name) {
            field::SEQNO.set(bytes, seqno.0.into());
            if field::HEADER_WORDS.get(bytes) > 6 {
                field::DEST_NODE.set(bytes, peer);
            }
            if len <= room && size::INT + len <= bytes.len() {
                bytes.copy_within(..len, size::INT);
                bytes[..size::INT].copy_from_slice(header(failover(count, 0, 0), len).as_bytes());
                let meta = ctx.core.table.meta_mut(name);
                meta.len = (size::INT + len) as u32;
                meta.importance = Importance::System;
                tunnelled.push_back(&mut ctx.core.table, packet);
                return true;
            }
        }
        let bytes = ctx.host.bytes(name)[..len].to_vec();
        ctx.host.free(packet);
        let total = pieces(len, room);
        for n in 0..total {
            let piece = &bytes[(n * room).min(len)..((n + 1) * room).min(len)];
            let kind = match total {
                1 => failover(count, 0, 0),
                _ => failover(count, n as u16 + 1, total as u16),
            };
            let header = header(kind, piece.len());
            let size = size::INT + piece.len();
            let write = |out: &mut [u8]| {
                out[..size::INT].copy_from_slice(header.as_bytes());
                out[size::INT..].copy_from_slice(piece);
            };
            let frame = ctx.alloc_written(Reserve::Control, Importance::System, size, write);
            let Some(frame) = frame else {
                return false;
            };
            tunnelled.push_back(&mut ctx.core.table, frame);
        }
        true
    }
}

fn failover(count: u16, fragment_no: u16, fragment_count: u16) -> TunnelKind {
    TunnelKind::Failover {
        count,
        fragment_no,
        fragment_count,
    }
}

/// Packets that carry one of `len` bytes. As Linux cuts: the last of several may be empty.
fn pieces(len: usize, room: usize) -> usize {
    if len <= room { 1 } else { len / room + 1 }
}

/// A message for no socket, which came back already: nobody answers it.
fn dummy(own: u32, peer: u32) -> Header {
    let mut header = Header::new(User::Low, DataType::Direct as u32, size::BASIC);
    header
        .set(field::ERRCODE, errcode::NO_PORT)
        .set(field::PREV_NODE, own)
        .set(field::ORIG_NODE, own)
        .set(field::DEST_NODE, peer)
        .set_payload_len(0);
    header
}
