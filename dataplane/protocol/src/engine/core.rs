//! What every part of the engine shares while it acts on one input.

use crate::addr::{BearerId, MAX_BEARERS, NodeAddr, PortId};
use crate::crypto::Crypto;
use crate::frame::{Frame, FrameRef, FrameTable};
use crate::host::{Host, MediaDest, Notice, Reserve};
use crate::link::DEFERRED_MIN;
use crate::monitor::Monitor;
use crate::reassembly::Buffers;
use crate::seqno::SeqNo;
use crate::stats::Drops;
use crate::time::Instant;
use crate::wire::{INTERFACE_NAME, Importance};
use std::collections::VecDeque;

/// State of the node that links and ports use.
pub struct Core {
    /// Own address; `NONE` during the trial period.
    pub own: NodeAddr,
    /// Cluster id.
    pub net_id: u32,
    /// Names of the bearers' interfaces, NUL-padded.
    pub interfaces: [[u8; INTERFACE_NAME]; MAX_BEARERS],
    /// What is known of each frame.
    pub table: FrameTable,
    /// Drops by reason.
    pub drops: Drops,
    /// Buffers for messages in fragments.
    pub buffers: Buffers,
    /// Sockets that may send again; told to the host at the end of the input.
    pub woken: VecDeque<PortId>,
    /// A packet that may take more messages stays until the end of gathering.
    pub gathering: bool,
    /// Peers with such a packet.
    pub gathered: Vec<NodeAddr>,
    /// Packets out of order that one peer may pin.
    pub deferred_share: usize,
    /// Who watches whom, by bearer.
    pub monitors: [Monitor; MAX_BEARERS],
    /// Keys.
    pub crypto: Crypto,
}

/// One input being worked on.
pub struct Ctx<'a, H: Host> {
    /// When it came.
    pub now: Instant,
    /// The node.
    pub core: &'a mut Core,
    /// What the engine runs on.
    pub host: &'a mut H,
    /// Last broadcast received in order from the peer at hand.
    pub bcast_ack: SeqNo,
}

impl<H: Host> Ctx<'_, H> {
    /// Packets out of order that a link may hold.
    pub fn deferred_limit(&self) -> usize {
        self.core.deferred_share.max(DEFERRED_MIN)
    }

    /// A frame for a packet of `len` bytes, filled by `write` and noted in the table.
    pub fn alloc_written(
        &mut self,
        reserve: Reserve,
        importance: Importance,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Option<Frame> {
        let frame = self.host.alloc(reserve)?;
        let name = frame.by_ref();
        let Some(bytes) = self
            .host
            .bytes_mut(name)
            .and_then(|bytes| bytes.get_mut(..len))
        else {
            self.host.free(frame);
            return None;
        };
        write(bytes);
        let now = self.now;
        let meta = self.core.table.meta_mut(name);
        meta.len = len as u32;
        meta.importance = importance;
        meta.acks_left = 0;
        meta.sent_at = now;
        meta.resent_at = None;
        Some(frame)
    }

    /// A frame with these bytes.
    pub fn alloc_filled(
        &mut self,
        reserve: Reserve,
        importance: Importance,
        bytes: &[u8],
    ) -> Option<Frame> {
        self.alloc_written(reserve, importance, bytes.len(), |out| {
            out.copy_from_slice(bytes)
        })
    }

    /// Sends a packet that nobody keeps. `write` gives its size. Without a frame it is not sent: its
    /// sender sends the like again before long.
    pub fn send_once(
        &mut self,
        bearer: BearerId,
        to: MediaDest,
        node: Option<NodeAddr>,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let Some(frame) = self.host.alloc(Reserve::Control) else {
            return self.core.drops.count(crate::stats::Drop::NoFrame);
        };
        let name = frame.by_ref();
        if let Some(bytes) = self.host.bytes_mut(name) {
            let len = write(bytes);
            self.transmit(bearer, to, node, name, len, Reserve::Control);
        }
        self.host.free(frame);
    }

    /// Sends the packet in the first `len` bytes of a frame; `node` is its receiver if it is a link's. With keys it
    /// goes out encrypted.
    #[inline]
    pub fn transmit(
        &mut self,
        bearer: BearerId,
        to: MediaDest,
        node: Option<NodeAddr>,
        frame: FrameRef,
        len: usize,
        reserve: Reserve,
    ) {
        if self.core.crypto.seals() {
            self.transmit_sealed(bearer, to, node, frame, len, reserve);
        } else {
            self.host.transmit(bearer, to, frame, len, reserve);
        }
    }

    /// Sends it in frames of its own that end with their transmission, one for each key that its receivers need.
    #[inline(never)]
    fn transmit_sealed(
        &mut self,
        bearer: BearerId,
        to: MediaDest,
        node: Option<NodeAddr>,
        frame: FrameRef,
        len: usize,
        reserve: Reserve,
    ) {
        let packet = &self.host.bytes(frame)[..len];
        let slots = self.core.crypto.prepare(self.now, node, packet);
        if slots.is_empty() {
            self.core.drops.count(crate::stats::Drop::NoKey);
        }
        for slot in slots {
            let Some(copy) = self.host.alloc(reserve) else {
                self.core.drops.count(crate::stats::Drop::NoFrame);
                continue;
            };
            let name = copy.by_ref();
            let out = self.host.bytes_mut(name);
            match out.and_then(|out| self.core.crypto.seal(slot, node, out)) {
                Some(len) => self.host.transmit(bearer, to, name, len, reserve),
                None => self.core.drops.count(crate::stats::Drop::NoKey),
            }
            self.host.free(copy);
        }
        if self.core.crypto.asks_for_epoch() {
            self.host.notice(Notice::EpochWanted);
        }
    }
}
