//! What the engines run on: a pool and a wire of fixed size, so that what is counted is the engine's work.

use xtipc_protocol::addr::{BearerId, PortId};
use xtipc_protocol::frame::{Frame, FrameRef};
use xtipc_protocol::host::{Host, Incoming, MediaDest, Notice, Payload, Reserve};

const ROOM: usize = 2048;
const FRAMES: usize = 2048;
/// Frames that application data leaves to the protocol.
const RESERVED: usize = 64;

/// See the module.
pub(crate) struct FixedHost {
    arena: Vec<u8>,
    free: Vec<u32>,
    /// What is on the wire: packets in slots that are used again.
    out: Vec<[u8; ROOM]>,
    lens: Vec<usize>,
    /// Messages delivered, and what their sockets have to take back.
    pub(crate) delivered: u64,
    /// Those alike and in a row together, as a segment tells of them.
    pub(crate) costs: Vec<(PortId, u32, u32)>,
}

impl FixedHost {
    pub(crate) fn new() -> Self {
        Self {
            arena: vec![0; FRAMES * ROOM],
            free: (0..FRAMES as u32).collect(),
            out: vec![[0; ROOM]; FRAMES],
            lens: Vec::with_capacity(FRAMES),
            delivered: 0,
            costs: Vec::with_capacity(4 * FRAMES),
        }
    }

    /// The packets sent since this was called last.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        for (packet, &len) in self.out.iter().zip(&self.lens) {
            each(&packet[..len]);
        }
        let sent = self.lens.len();
        self.lens.clear();
        sent
    }
}

impl Host for FixedHost {
    fn frame_count(&self) -> u32 {
        FRAMES as u32
    }

    fn frames_free(&self) -> usize {
        self.free.len().saturating_sub(RESERVED)
    }

    fn frame_room(&self) -> usize {
        ROOM
    }

    fn alloc(&mut self, reserve: Reserve) -> Option<Frame> {
        if reserve == Reserve::Data && self.frames_free() == 0 {
            return None;
        }
        self.free.pop().map(Frame::new)
    }

    fn free(&mut self, frame: Frame) {
        self.free.push(frame.index());
    }

    fn bytes(&self, frame: FrameRef) -> &[u8] {
        &self.arena[frame.index() as usize * ROOM..][..ROOM]
    }

    fn bytes_mut(&mut self, frame: FrameRef) -> Option<&mut [u8]> {
        Some(&mut self.arena[frame.index() as usize * ROOM..][..ROOM])
    }

    fn transmit(&mut self, _: BearerId, _: MediaDest, frame: FrameRef, len: usize, _: Reserve) {
        let packet = &self.arena[frame.index() as usize * ROOM..][..len];
        self.out[self.lens.len()][..len].copy_from_slice(packet);
        self.lens.push(len);
    }

    fn deliver<P: Payload + ?Sized>(&mut self, to: PortId, about: &Incoming, _: &P) {
        self.delivered += 1;
        match self.costs.last_mut() {
            Some((last, cost, count)) if (*last, *cost) == (to, about.cost) => *count += 1,
            _ => self.costs.push((to, about.cost, 1)),
        }
    }

    fn notice(&mut self, _: Notice) {}
}
