//! The receiving half of a socket: RX ring, fill ring and the receive area between them.
//!
//! No system call happens here, so the whole half runs on anonymous memory in tests.
//! Invariant: each chunk of the receive area is either the kernel's (in the fill ring, inside the
//! driver, or in the RX ring), in `spare`, or under the one callback that is running. The fill ring
//! has a slot for every chunk, so a chunk can always go home.

use crate::pool::{CHUNK_SIZE, ReceiveArea};
use crate::ring::{Consumer, Producer};
use rustix::net::xdp::{XdpDesc, XdpDescOptions};
use std::ptr::NonNull;

#[cfg(all(test, not(loom)))]
mod tests;

/// Longest packet of several chunks that is gathered: 17 chunks, as for sending.
const GATHERED_MAX: usize = crate::pool::CHUNKS_PER_FRAME_MAX as usize * CHUNK_SIZE;

/// Chunks go home at least this often: far below any ring size, and one index store for all of them.
const FILL_BATCH: usize = 32;

/// What the receiving half counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveCounters {
    /// Packets handed over.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets of several chunks that were too long to be gathered, or came without being asked for.
    pub oversize: u64,
    /// Descriptors that do not lie in one chunk of this socket's receive area.
    pub invalid: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathering {
    /// The next descriptor starts a packet.
    Nothing,
    /// So many bytes of a packet are in the scratch buffer.
    Bytes(usize),
    /// The rest of a packet that is dropped.
    Skipping,
}

#[derive(Debug)]
pub(crate) struct Receive {
    ring: Consumer<XdpDesc>,
    fill: Producer<u64>,
    area: ReceiveArea,
    /// Chunks on their way to the fill ring.
    spare: Vec<u64>,
    /// For packets of several chunks; empty without multi-buffer.
    scratch: Box<[u8]>,
    gathering: Gathering,
    counters: ReceiveCounters,
}

impl Receive {
    /// Takes over an area no socket uses and gives all its chunks to the kernel.
    pub(crate) fn new(
        ring: Consumer<XdpDesc>,
        fill: Producer<u64>,
        area: ReceiveArea,
        multi_buffer: bool,
    ) -> Self {
        let scratch_len = if multi_buffer { GATHERED_MAX } else { 0 };
        let mut receive = Self {
            ring,
            fill,
            spare: area.chunk_addresses().collect(),
            area,
            scratch: vec![0; scratch_len].into_boxed_slice(),
            gathering: Gathering::Nothing,
            counters: ReceiveCounters::default(),
        };
        receive.refill();
        receive
    }

    /// Hands over up to `budget` packets, each as long as the callback runs. Returns how many.
    pub(crate) fn receive(&mut self, budget: usize, mut on_packet: impl FnMut(&mut [u8])) -> usize {
        let mut packets = 0;
        let mut taken = false;
        while packets < budget {
            let Some(descriptor) = self.ring.pop() else {
                break;
            };
            taken = true;
            packets += usize::from(self.take(&descriptor, &mut on_packet));
            if self.spare.len() >= FILL_BATCH {
                self.refill();
            }
        }
        if taken {
            self.ring.publish();
        }
        if !self.spare.is_empty() {
            self.refill();
        }
        packets
    }

    /// One descriptor; whether it completed a packet that was handed over.
    fn take(&mut self, descriptor: &XdpDesc, on_packet: &mut impl FnMut(&mut [u8])) -> bool {
        let last = !descriptor.options.contains(XdpDescOptions::XDP_PKT_CONTD);
        let Some(chunk) = self.area.chunk_of(descriptor.addr) else {
            // Not ours to use, and not ours to give back.
            self.counters.invalid += 1;
            self.gathering = if last {
                Gathering::Nothing
            } else {
                Gathering::Skipping
            };
            return false;
        };
        let handed_over = match self.part(descriptor) {
            Some(part) => self.take_part(part, last, on_packet),
            None => {
                self.counters.invalid += 1;
                self.gathering = if last {
                    Gathering::Nothing
                } else {
                    Gathering::Skipping
                };
                false
            }
        };
        self.spare.push(chunk);
        handed_over
    }

    /// The bytes of a descriptor in this area; `None` if they leave their chunk.
    fn part(&self, descriptor: &XdpDesc) -> Option<NonNull<[u8]>> {
        let len = descriptor.len as usize;
        if descriptor.addr as usize % CHUNK_SIZE + len > CHUNK_SIZE {
            return None;
        }
        let start = self.area.memory().at(descriptor.addr as usize, len);
        Some(NonNull::slice_from_raw_parts(start, len))
    }

    fn take_part(
        &mut self,
        mut part: NonNull<[u8]>,
        last: bool,
        on_packet: &mut impl FnMut(&mut [u8]),
    ) -> bool {
        // SAFETY: mapped as long as `self.area`, initialised (memfd pages). The kernel gave the chunk
        // to us with the RX descriptor and gets it back only by the fill ring, after this borrow; no
        // other socket has this area, and the frame pool never derives slices from it.
        let part = unsafe { part.as_mut() };
        let gathered = match self.gathering {
            Gathering::Nothing if last => {
                self.count(part.len());
                on_packet(part);
                return true;
            }
            Gathering::Nothing => 0,
            Gathering::Bytes(gathered) => gathered,
            Gathering::Skipping => {
                self.gathering = if last {
                    Gathering::Nothing
                } else {
                    Gathering::Skipping
                };
                return false;
            }
        };
        let end = gathered + part.len();
        let Some(room) = self.scratch.get_mut(gathered..end) else {
            self.counters.oversize += 1;
            self.gathering = if last {
                Gathering::Nothing
            } else {
                Gathering::Skipping
            };
            return false;
        };
        room.copy_from_slice(part);
        if !last {
            self.gathering = Gathering::Bytes(end);
            return false;
        }
        self.gathering = Gathering::Nothing;
        self.count(end);
        on_packet(&mut self.scratch[..end]);
        true
    }

    fn count(&mut self, len: usize) {
        self.counters.packets += 1;
        self.counters.bytes += len as u64;
    }

    fn refill(&mut self) {
        // The kernel may publish its consumer index late, so that the ring looks full for a while;
        // what does not fit now stays spare until the next round.
        while self.fill.has_room(1) {
            let Some(chunk) = self.spare.pop() else { break };
            self.fill.push(chunk);
        }
        self.fill.publish();
    }

    /// Goes on with these rings instead of its own, which it gives away with what lies in them. Packets are not to lie in
    /// both.
    pub(crate) fn exchange_rings(
        &mut self,
        ring: Consumer<XdpDesc>,
        fill: Producer<u64>,
    ) -> (Consumer<XdpDesc>, Producer<u64>) {
        let before = std::mem::replace(&mut self.ring, ring);
        (before, std::mem::replace(&mut self.fill, fill))
    }

    /// The ring of received packets.
    pub(crate) fn ring(&mut self) -> &mut Consumer<XdpDesc> {
        &mut self.ring
    }

    /// Whether a packet waits.
    pub(crate) fn is_ready(&self) -> bool {
        self.ring.is_ready()
    }

    /// The ring by which chunks go home.
    pub(crate) fn fill(&mut self) -> &mut Producer<u64> {
        &mut self.fill
    }

    /// Whether the driver stopped for want of chunks and must be told of new ones.
    pub(crate) fn fill_needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    pub(crate) fn area(&self) -> &ReceiveArea {
        &self.area
    }

    pub(crate) fn counters(&self) -> ReceiveCounters {
        self.counters
    }

    /// Ends this half. The area may be used again only after the kernel has released the socket.
    pub(crate) fn into_area(self) -> ReceiveArea {
        self.area
    }
}
