//! What the engine runs on in the daemon: the frame pool, an outbox, the attached applications.
//!
//! Packets are not sent while an input is worked on but gathered in the outbox and sent in a batch, with one kick
//! at its end. A frame in the outbox counts as in transmission: it is neither written nor freed.

use xtipc_protocol::addr::{BearerId, PortId};
use xtipc_protocol::frame::{Frame, FrameRef};
use xtipc_protocol::host::{Host, Incoming, MediaDest, Notice, Payload, Reserve};
use xtipc_xsk::{FrameIndex, FramePool};

use super::applications::Applications;
use super::bearers::Slots;
use crate::bearer::HEADROOM;

struct Outgoing {
    bearer: BearerId,
    to: MediaDest,
    frame: FrameIndex,
    len: usize,
    reserve: Reserve,
}

/// Outbox state of a frame.
#[derive(Clone, Copy, Default)]
struct Staged {
    /// Entries of the outbox that name it.
    count: u16,
    /// The engine has freed it meanwhile.
    freed: bool,
}

/// See the module.
pub(super) struct NodeHost {
    pub(super) pool: FramePool,
    pub(super) applications: Applications,
    pub(super) notices: Vec<Notice>,
    outbox: Vec<Outgoing>,
    staged: Vec<Staged>,
    control_reserve: usize,
}

impl NodeHost {
    pub(super) fn new(pool: FramePool, control_reserve: u32, applications: Applications) -> Self {
        let frames = pool.counts().total;
        Self {
            pool,
            applications,
            notices: Vec::new(),
            outbox: Vec::with_capacity(1024),
            staged: vec![Staged::default(); frames as usize],
            control_reserve: control_reserve as usize,
        }
    }

    /// Sends what the outbox holds and lets the kernel know.
    pub(super) fn flush(&mut self, bearers: &mut Slots) {
        for out in self.outbox.drain(..) {
            if let Some(enabled) = &mut bearers[out.bearer.index()] {
                let bearer = &mut enabled.bearer;
                bearer.transmit(&mut self.pool, out.frame, out.to, out.len, out.reserve);
            }
            let staged = &mut self.staged[out.frame.0 as usize];
            staged.count -= 1;
            if staged.count == 0 && staged.freed {
                staged.freed = false;
                self.pool.release(out.frame);
            }
        }
        for enabled in bearers.iter_mut().flatten() {
            enabled.bearer.flush();
        }
    }
}

impl Host for NodeHost {
    fn frame_count(&self) -> u32 {
        self.pool.counts().total
    }

    fn frames_free(&self) -> usize {
        (self.pool.counts().free as usize).saturating_sub(self.control_reserve)
    }

    fn frame_room(&self) -> usize {
        self.pool.frame_len() - HEADROOM
    }

    fn alloc(&mut self, reserve: Reserve) -> Option<Frame> {
        let reserve = match reserve {
            Reserve::Data => xtipc_xsk::Reserve::Data,
            Reserve::Control => xtipc_xsk::Reserve::Control,
        };
        self.pool.alloc(reserve).map(|index| Frame::new(index.0))
    }

    fn free(&mut self, frame: Frame) {
        let staged = &mut self.staged[frame.index() as usize];
        if staged.count > 0 {
            staged.freed = true;
        } else {
            self.pool.release(FrameIndex(frame.index()));
        }
    }

    fn bytes(&self, frame: FrameRef) -> &[u8] {
        &self.pool.bytes(FrameIndex(frame.index()))[HEADROOM..]
    }

    fn bytes_mut(&mut self, frame: FrameRef) -> Option<&mut [u8]> {
        if self.staged[frame.index() as usize].count > 0 {
            return None;
        }
        let bytes = self.pool.bytes_mut(FrameIndex(frame.index()))?;
        bytes.get_mut(HEADROOM..)
    }

    fn transmit(
        &mut self,
        bearer: BearerId,
        to: MediaDest,
        frame: FrameRef,
        len: usize,
        reserve: Reserve,
    ) {
        let frame = FrameIndex(frame.index());
        self.staged[frame.0 as usize].count += 1;
        self.outbox.push(Outgoing {
            bearer,
            to,
            frame,
            len,
            reserve,
        });
    }

    fn deliver<P: Payload + ?Sized>(&mut self, to: PortId, about: &Incoming, payload: &P) {
        self.applications.deliver(to, about, payload);
    }

    fn deliver_all<'a, P: Payload + ?Sized + 'a>(
        &mut self,
        to: PortId,
        about: &Incoming,
        payloads: impl Iterator<Item = &'a P>,
    ) {
        self.applications.deliver_all(to, about, payloads);
    }

    fn lent_in_use(&self, port: PortId) -> u64 {
        self.applications.lent_in_use(port)
    }

    fn on_bindings_changed(&mut self, kind: u32) {
        if let Some(board) = &self.applications.board {
            board.change(kind);
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }
}
