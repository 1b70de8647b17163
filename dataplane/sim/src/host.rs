//! What an engine runs on in a test: a frame pool that knows whose each frame is, transmissions that
//! hold their frame for a while, inboxes.
//!
//! Frames have memory only while they are in use, from one [`Arena`] for all hosts of a cluster: a thousand nodes need
//! as much as they use at the same time.

use crate::rng::Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
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

/// The memory of one frame.
type Room = Box<[u8; FRAME_ROOM]>;

/// Buffers kept for packets that are sent next.
const PACKETS_KEPT: usize = 1 << 14;

/// Memory for frames and packets, shared by hosts.
#[derive(Clone, Default)]
pub struct Arena {
    rooms: Rc<RefCell<Vec<Room>>>,
    packets: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Arena {
    /// A copy of a packet.
    fn packet(&self, bytes: &[u8]) -> Vec<u8> {
        let mut packet = self.packets.borrow_mut().pop().unwrap_or_default();
        packet.extend_from_slice(bytes);
        packet
    }

    /// Takes back the buffer of a packet that has arrived.
    pub(crate) fn give_back_packet(&self, mut packet: Vec<u8>) {
        let mut packets = self.packets.borrow_mut();
        if packets.len() < PACKETS_KEPT {
            packet.clear();
            packets.push(packet);
        }
    }

    fn take(&self) -> Room {
        let spare = self.rooms.borrow_mut().pop();
        let mut room = spare.unwrap_or_else(|| Box::new([0; FRAME_ROOM]));
        // Whoever reads what was not written sees this.
        room[..128].fill(0xdb);
        room
    }

    fn give_back(&self, room: Option<Room>) {
        self.rooms.borrow_mut().extend(room);
    }
}

#[derive(Default)]
struct FrameUse {
    owned: bool,
    transmissions: u32,
    /// While one of the two is so.
    room: Option<Room>,
}

/// The host of one node.
pub struct SimHost {
    arena: Arena,
    frame_count: u32,
    /// Those that were ever used.
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
    /// A pool of `frames` frames whose memory comes from `arena`.
    pub fn new(frames: usize, arena: Arena, seed: u64) -> Self {
        Self {
            arena,
            frame_count: frames as u32,
            uses: Vec::new(),
            free: Vec::new(),
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
            self.release(frame);
        }
    }

    /// Frames that the engine owns.
    pub fn owned(&self) -> usize {
        self.uses.iter().filter(|u| u.owned).count()
    }

    /// A frame that nobody uses any more is free.
    fn release(&mut self, index: u32) {
        let there = &mut self.uses[index as usize];
        if !there.owned && there.transmissions == 0 {
            self.arena.give_back(there.room.take());
            self.free.push(index);
        }
    }

    /// Frames that nobody uses, with those that nobody ever used.
    fn unused(&self) -> usize {
        self.free.len() + self.frame_count as usize - self.uses.len()
    }

    fn room(&self, frame: FrameRef) -> &[u8] {
        let there = &self.uses[frame.index() as usize];
        assert!(there.owned, "reading a freed frame");
        &there.room.as_ref().expect("a frame in use has memory")[..]
    }
}

impl Host for SimHost {
    fn frame_count(&self) -> u32 {
        self.frame_count
    }

    fn frames_free(&self) -> usize {
        self.unused().saturating_sub(CONTROL_RESERVE)
    }

    fn frame_room(&self) -> usize {
        FRAME_ROOM
    }

    fn alloc(&mut self, reserve: Reserve) -> Option<Frame> {
        if reserve == Reserve::Data && self.frames_free() == 0 {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.unused() > 0 => {
                self.uses.push(FrameUse::default());
                self.uses.len() as u32 - 1
            }
            None => return None,
        };
        let there = &mut self.uses[index as usize];
        assert!(
            !there.owned && there.transmissions == 0,
            "frame {index} was free and in use"
        );
        there.owned = true;
        there.room = Some(self.arena.take());
        Some(Frame::new(index))
    }

    fn free(&mut self, frame: Frame) {
        let there = &mut self.uses[frame.index() as usize];
        assert!(there.owned, "frame {} freed twice", frame.index());
        there.owned = false;
        self.release(frame.index());
    }

    fn bytes(&self, frame: FrameRef) -> &[u8] {
        self.room(frame)
    }

    fn bytes_mut(&mut self, frame: FrameRef) -> Option<&mut [u8]> {
        let there = &mut self.uses[frame.index() as usize];
        assert!(there.owned, "writing a freed frame");
        let room = there.room.as_mut().filter(|_| there.transmissions == 0);
        room.map(|room| &mut room[..])
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
        self.sent.push(Sent {
            bearer,
            to,
            bytes: self.arena.packet(&self.room(frame)[..len]),
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

impl Drop for SimHost {
    /// A node that dies leaves its memory to the others.
    fn drop(&mut self) {
        for there in &mut self.uses {
            self.arena.give_back(there.room.take());
        }
    }
}
