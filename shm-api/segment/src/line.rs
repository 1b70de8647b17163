//! What two nodes of one host share: a ring of packets in each direction, in one sealed memfd.
//!
//! ```text
//!              ring of the caller ──────▶
//! caller (made the memory)               called
//!              ◀────── ring of the called
//! ```
//!
//! Entry n of a ring says how long the packet in slot n is. Both sides can write all of the memory, and neither trusts
//! it: a side keeps its own cursors in private memory, reads the other's once and checks them, reads a length once and
//! checks it, and copies the packet out before it looks at it. Sleeping and waking are those of the segment's (`wake.rs`); the
//! bell is a byte on the socket that joins the two, whose end also tells that the other side is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::area::{Area, make_memfd, seal_size, sealed_len};
use crate::attach::{receive_bytes, send_bytes};
use crate::layout::RingPlace;
use crate::ring::{Consumer, Producer, RingMemory};
use crate::violation::Violation;
use crate::wake::{Progress, Sleeper, Waker};

/// Longest packet, and distance of the slots.
pub const PACKET_MAX: usize = 4096;
/// Packets that a ring holds.
pub const PACKETS: u32 = 512;

/// First bytes of a greeting.
const MAGIC: [u8; 8] = *b"XTIPCSHM";
/// Changes with the layout below.
const VERSION: u32 = 1;
const GREETING_LEN: usize = 20;

/// Cursors and sleep word of a direction are this far apart: two cache lines.
const WORD_DISTANCE: usize = 128;
const TAIL: usize = 0;
const HEAD: usize = WORD_DISTANCE;
const SLEEP: usize = 2 * WORD_DISTANCE;
const ENTRIES: usize = 4096;
const SLOTS: usize = 3 * 4096;
const DIRECTION_LEN: usize = SLOTS + PACKETS as usize * PACKET_MAX;
const LEN: usize = 2 * DIRECTION_LEN;

const _: () = assert!(ENTRIES + PACKETS as usize * size_of::<u64>() <= SLOTS);

/// Who is at an end of a line: the number of its station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The number.
    pub station: u64,
}

impl Greeting {
    /// Says who we are; a caller shows the memory with it.
    pub fn send(self, socket: BorrowedFd<'_>, memory: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_ne_bytes());
        bytes.extend_from_slice(&self.station.to_ne_bytes());
        send_bytes(socket, &bytes, memory.as_slice())
    }

    /// Hears who is there. `None`: the socket was closed.
    pub fn receive(socket: BorrowedFd<'_>) -> Result<Option<(Self, Vec<OwnedFd>)>, LineError> {
        let mut bytes = [0; GREETING_LEN];
        let Some((len, fds)) = receive_bytes(socket, &mut bytes, RecvFlags::CMSG_CLOEXEC)? else {
            return Ok(None);
        };
        let rest = bytes[..len].strip_prefix(&MAGIC).ok_or(LineError::Magic)?;
        let (version, rest) = rest.split_first_chunk().ok_or(LineError::Magic)?;
        let version = u32::from_ne_bytes(*version);
        if version != VERSION {
            return Err(LineError::Version(version));
        }
        let station = rest.first_chunk().ok_or(LineError::Magic)?;
        let station = u64::from_ne_bytes(*station);
        Ok(Some((Self { station }, fds)))
    }
}

/// Why a line to another node cannot be.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no greeting.
    #[error("not a greeting of another xtipc node")]
    Magic,
    /// A version that is not known here.
    #[error("the other node speaks version {0} of shared memory, this one {VERSION}")]
    Version(u32),
    /// The memory is not what a caller makes.
    #[error("the memory of the other node has {0} bytes instead of {LEN}")]
    Size(usize),
}

/// One side of a line.
#[derive(Debug)]
pub struct Line {
    area: Area,
    /// Where the two directions lie.
    out: usize,
    into: usize,
    producer: Producer,
    waker: Waker,
    consumer: Consumer,
    sleeper: Sleeper,
    asleep: bool,
}

impl Line {
    /// Makes the memory: the caller's side, and what the called is shown.
    pub fn make() -> io::Result<(Self, OwnedFd)> {
        let memory = make_memfd("xtipc-line", LEN)?;
        seal_size(memory.as_fd())?;
        let area = Area::map(memory.as_fd(), LEN, true)?;
        Ok((Self::on(area, 0, DIRECTION_LEN), memory))
    }

    /// The called's side of memory that a caller has shown.
    pub fn join(memory: &OwnedFd) -> Result<Self, LineError> {
        let len = sealed_len(memory)?;
        if len != LEN {
            return Err(LineError::Size(len));
        }
        let area = Area::map(memory.as_fd(), LEN, true)?;
        Ok(Self::on(area, DIRECTION_LEN, 0))
    }

    fn on(area: Area, out: usize, into: usize) -> Self {
        Self {
            area,
            out,
            into,
            producer: Producer::default(),
            waker: Waker::default(),
            consumer: Consumer::default(),
            sleeper: Sleeper::default(),
            asleep: false,
        }
    }

    /// Copies a packet into the ring, unless that leaves fewer than `reserve` places. `Ok(false)`: it was not.
    ///
    /// # Panics
    /// If the packet is longer than [`PACKET_MAX`].
    pub fn send(&mut self, packet: &[u8], reserve: u32) -> Result<bool, Violation> {
        assert!(packet.len() <= PACKET_MAX, "the bearer's MTU is no larger");
        let ring = ring(&self.area, self.out);
        if !self.producer.has_more_than(&ring, reserve)? {
            return Ok(false);
        }
        self.area
            .copy_in(slot(self.out, self.producer.place(&ring)), packet);
        self.producer.push(&ring, &[packet.len() as u64])
    }

    /// After sending: whether the other side sleeps and its bell is to be rung.
    pub fn must_ring(&mut self) -> bool {
        self.waker
            .must_ring(self.area.word_at(self.out + SLEEP), Progress::Work)
    }

    /// Copies the oldest packet to the start of `packet`, which has [`PACKET_MAX`] bytes; gives its length.
    pub fn receive(&mut self, packet: &mut [u8]) -> Result<Option<usize>, Violation> {
        let ring = ring(&self.area, self.into);
        let Some([len]) = self.consumer.front(&ring)? else {
            return Ok(None);
        };
        let Some(packet) = packet.get_mut(..usize::try_from(len).unwrap_or(usize::MAX)) else {
            return Err(Violation::Payload {
                offset: 0,
                len: u32::try_from(len).unwrap_or(u32::MAX),
                arena: PACKET_MAX as u32,
            });
        };
        self.area
            .copy_out(slot(self.into, self.consumer.place(&ring)), packet);
        self.consumer.release(&ring);
        Ok(Some(packet.len()))
    }

    /// Before a sleep: asks for the bell, then tells whether there is nothing to receive. A side that broke the contract
    /// has something for us, too: the next [`Self::receive`] says what.
    pub fn may_sleep(&mut self) -> bool {
        if !self.asleep {
            self.asleep = true;
            let word = self.area.word_at(self.into + SLEEP);
            self.sleeper.announce(word, false);
        }
        self.consumer.available(&ring(&self.area, self.into)) == Ok(0)
    }

    /// After a sleep: rings are looked at without a bell.
    pub fn awake(&mut self) {
        if self.asleep {
            self.asleep = false;
            self.sleeper.awake(self.area.word_at(self.into + SLEEP));
        }
    }
}

/// Rings the bell of the other side. A full socket has rung.
pub fn ring_bell(socket: BorrowedFd<'_>) {
    // If it is gone, the socket's end says so.
    let _ = rustix::net::send(socket, &[1], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// Takes the bell's bytes. `false`: the other side is gone.
pub fn silence_bell(socket: BorrowedFd<'_>) -> bool {
    let mut bytes = [0; 16];
    // No more than a socket holds, however fast the other side rings.
    for _ in 0..BELLS_MAX {
        match rustix::net::recv(socket, bytes.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return false,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// Bells silenced at a time.
const BELLS_MAX: usize = 1024;

fn ring(area: &Area, direction: usize) -> RingMemory<'_, 1> {
    RingMemory {
        name: "packet",
        head: area.word_at(direction + HEAD),
        tail: area.word_at(direction + TAIL),
        entries: area.entries(RingPlace {
            offset: (direction + ENTRIES) as u32,
            entries: PACKETS,
            entry_size: 8,
        }),
    }
}

/// Where a slot lies.
fn slot(direction: usize, place: usize) -> usize {
    direction + SLOTS + place * PACKET_MAX
}

#[cfg(test)]
mod tests;
