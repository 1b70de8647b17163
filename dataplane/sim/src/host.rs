//! What an engine runs on in a test: a frame pool that knows whose each frame is, transmissions that
//! hold their frame for a while, inboxes.

use crate::rng::Rng;
use std::collections::{BTreeMap, VecDeque};
use xtipc_protocol::addr::{BearerId, PortId};
use xtipc_protocol::frame::{Frame, FrameRef};
use xtipc_protocol::host::{Host, Incoming, MediaDest, Notice, Payload, Reserve};
use xtipc_protocol::time::Instant;

/// Bytes of a frame.
pub const FRAME_ROOM: usize = 2048;
/// Frames that application data leaves to the protocol.
const CONTROL_RESERVE: usize = 64;

/// A packet the engine sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The bearer it goes out on.
    pub bearer: BearerId,
    /// Where it goes.
    pub to: MediaDest,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// A message a socket was given.
#[derive(Clone, Debug)]
pub struct Received {
    /// What the engine says of it.
    pub about: Incoming,
    /// What it says.
    pub bytes: Vec<u8>,
    /// Its number among all that the host was given.
    pub serial: u64,
}

impl Received {
    /// The payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).expect("a test sent text")
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FrameUse {
    owned: bool,
    transmissions: u32,
}

/// The host of one node.
pub struct SimHost {
    arena: Vec<u8>,
    uses: Vec<FrameUse>,
    free: Vec<u32>,
    in_tx: VecDeque<(Instant, u32)>,
    rng: Rng,
    /// Longest time a transmission holds its frame, in nanoseconds; 0 for not at all.
    pub tx_hold: u64,
    /// Virtual time.
    pub now: Instant,
    /// Packets sent and not yet on the wire.
    pub sent: Vec<Sent>,
    /// Messages that wait for their sockets.
    pub inbox: BTreeMap<PortId, VecDeque<Received>>,
    /// What the engine reported.
    pub notices: Vec<Notice>,
    /// Messages it was given so far.
    delivered: u64,
}

impl SimHost {
    /// A pool of `frames` frames.
    pub fn new(frames: usize, seed: u64) -> Self {
        Self {
            arena: vec![0; frames * FRAME_ROOM],
            uses: vec![FrameUse::default(); frames],
            free: (0..frames as u32).rev().collect(),
            in_tx: VecDeque::new(),
            rng: Rng::new(seed),
            tx_hold: 0,
            now: Instant(0),
            sent: Vec::new(),
            inbox: BTreeMap::new(),
            notices: Vec::new(),
            delivered: 0,
        }
    }

    /// Lets transmissions end.
    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        while let Some((until, frame)) = self.in_tx.front().copied()
            && until <= now
        {
            self.in_tx.pop_front();
            let there = &mut self.uses[frame as usize];
            there.transmissions -= 1;
            if *there == FrameUse::default() {
                self.free.push(frame);
            }
        }
    }

    /// Frames that the engine owns.
    pub fn owned(&self) -> usize {
        self.uses.iter().filter(|u| u.owned).count()
    }

    fn range(frame: FrameRef) -> std::ops::Range<usize> {
        let start = frame.index() as usize * FRAME_ROOM;
        start..start + FRAME_ROOM
    }
}

impl Host for SimHost {
    fn frame_count(&self) -> u32 {
        self.uses.len() as u32
    }

    fn frames_free(&self) -> usize {
        self.free.len().saturating_sub(CONTROL_RESERVE)
    }

    fn frame_room(&self) -> usize {
        FRAME_ROOM
    }

    fn alloc(&mut self, reserve: Reserve) -> Option<Frame> {
        if reserve == Reserve::Data && self.frames_free() == 0 {
            return None;
        }
        let index = self.free.pop()?;
        let there = &mut self.uses[index as usize];
        assert_eq!(
            *there,
            FrameUse::default(),
            "frame {index} was free and in use"
        );
        there.owned = true;
        let frame = Frame::new(index);
        // Whoever reads what was not written sees this.
        self.arena[Self::range(frame.by_ref())][..128].fill(0xdb);
        Some(frame)
    }

    fn free(&mut self, frame: Frame) {
        let index = frame.index();
        let there = &mut self.uses[index as usize];
        assert!(there.owned, "frame {index} freed twice");
        there.owned = false;
        if there.transmissions == 0 {
            self.free.push(index);
        }
    }

    fn bytes(&self, frame: FrameRef) -> &[u8] {
        assert!(
            self.uses[frame.index() as usize].owned,
            "reading a freed frame"
        );
        &self.arena[Self::range(frame)]
    }

    fn bytes_mut(&mut self, frame: FrameRef) -> Option<&mut [u8]> {
        let there = self.uses[frame.index() as usize];
        assert!(there.owned, "writing a freed frame");
        (there.transmissions == 0).then(|| &mut self.arena[Self::range(frame)])
    }

    fn transmit(
        &mut self,
        bearer: BearerId,
        to: MediaDest,
        frame: FrameRef,
        len: usize,
        _: Reserve,
    ) {
        let index = frame.index();
        assert!(self.uses[index as usize].owned, "sending a freed frame");
        self.sent.push(Sent {
            bearer,
            to,
            bytes: self.arena[Self::range(frame)][..len].to_vec(),
        });
        if self.tx_hold > 0 {
            let hold = self.rng.below(self.tx_hold);
            // Transmissions of one queue end in order.
            let last = self.in_tx.back().map_or(Instant(0), |(until, _)| *until);
            let until = Instant((self.now.0 + hold).max(last.0));
            self.uses[index as usize].transmissions += 1;
            self.in_tx.push_back((until, index));
        }
    }

    fn deliver<P: Payload + ?Sized>(&mut self, to: PortId, about: &Incoming, payload: &P) {
        let mut bytes = vec![0; payload.len()];
        payload.copy_to(0, &mut bytes);
        self.delivered += 1;
        self.inbox.entry(to).or_default().push_back(Received {
            about: *about,
            bytes,
            serial: self.delivered,
        });
    }

    fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }
}
