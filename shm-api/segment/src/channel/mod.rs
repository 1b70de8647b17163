//! Direct channels: memory that two sockets of one node share, so that their messages need no daemon.
//!
//! The daemon makes the memory and the bells and gives them to the two applications; it keeps a view of the counts alone
//! ([`ChannelView`]). Each of the two *sides* sends in one direction and receives in the other. Layout, all of it zero at
//! first:
//!
//! ```text
//!        0  control block of side 0          each control block, written by its side alone:
//!     1024  control block of side 1               0  messages consumed: u32     8  window:32 units acknowledged:32
//!                                                16  messages taken in all, once it takes no more: 1:32 count:32
//!                                                24  messages sent: u64        32  bytes of them: u64
//!                                                40  bytes consumed: u64        48  its messages are refused since: u64
//!                                                56  calls that wait to send: u32     64  the oldest of them since: u64
//!     4096  messages of side 0 (1024 of 256)    128  sleep word: u32          132  processor + 1, 0 if not told: u32
//!   266240  messages of side 1
//!   528384  returns of side 0 (1024 of 8)     what side 0 gives back of the arena of side 1
//!   536576  returns of side 1
//!   544768  arena of side 0 (1 MiB)           payloads that side 0 sends
//!  1593344  arena of side 1
//!
//! message, 32 words                                          return, 1 word
//!   0  stamp:32 length:17 importance:2 kind:3 named:1          0  stamp:32 handle:32
//!      droppable:1
//!   1  if it is named: service type:32 instance:32; all else one word later
//!   1  the message itself, at most 192 bytes (kind 1),
//!      or offset:32 handle:32 in the arena (2 copied, 3 loaned); nothing for 4, the switch back to the daemon
//! ```
//!
//! Neither side trusts the other. What the other one writes is read once and checked; entries are atomic words, payloads
//! are copied before anybody looks at them, or stay behind [`SharedBytes`], which makes no promise about them. Who gets
//! hold of nonsense lets go of the channel ([`crate::Violation`]).
//!
//! A message is *consumed* when a receive has handed it out: only then its place in the ring is free, so that the
//! sender still has what was never read when the other side ends ([`ChannelSender::oldest_unread`]). Payload memory comes
//! back by the returns, in any order.
//!
//! Flow control is that of connections: a message counts (length + 24) / 1024 + 1 units; a sender waits while more is
//! unacknowledged than the window, and a receiver acknowledges when a quarter of its window was consumed.

mod envelope;
mod memory;
mod receiver;
mod sender;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

pub use envelope::Envelope;
pub use receiver::{Acknowledger, ChannelReceiver, DirectBuffer, Incoming, Lookout, SharedBytes};
pub use sender::{ChannelSender, DATAGRAM_OVERHEAD, Loan, Sending};

use crate::area::{make_memfd, seal_size, sealed_len};
use crate::primitive::{Ordering, fence};
use crate::wake::{Sleeper, Waker, revoke};
use memory::Memory;

/// Longest message that lies in the ring itself.
pub const INLINE_MAX: usize = 192;
/// Messages under way in one direction at most.
pub const CHANNEL_MESSAGES: u32 = memory::ENTRIES;
/// Bytes of the memory of a channel; taken from the machine as they are touched.
pub const CHANNEL_LEN: usize = memory::LEN;

/// What one side needs, in the order in which it is passed.
#[derive(Debug)]
pub struct ChannelFds {
    /// The memory.
    pub memory: OwnedFd,
    /// Written to wake the other side.
    pub bell: OwnedFd,
    /// Readable when the other side has rung.
    pub rung: OwnedFd,
}

impl ChannelFds {
    /// From the fds of a message. Behind these there may be more of them.
    pub fn from_fds(mut fds: Vec<OwnedFd>) -> Option<Self> {
        fds.truncate(3);
        let [memory, bell, rung] = fds.try_into().ok()?;
        Some(Self { memory, bell, rung })
    }

    /// For a message.
    pub fn as_fds(&self) -> [std::os::fd::BorrowedFd<'_>; 3] {
        [self.memory.as_fd(), self.bell.as_fd(), self.rung.as_fd()]
    }
}

/// A bell is emptied by who announces its sleep, before every so many announcements: who sleeps on it until it is rung once
/// more, however often it was before, need not empty it each time.
const ANNOUNCEMENTS_AT_ONCE: u32 = 1024;
/// What is in it by then at most: sender and receiver of the other side ring once for each announcement, and once at the end.
/// More would find room, too.
const RINGS_MAX: usize = 2 * ANNOUNCEMENTS_AT_ONCE as usize + 1;

/// Makes a channel: what each of the two sides gets, and what who made it keeps.
pub fn create() -> io::Result<([ChannelFds; 2], ChannelView)> {
    let memory = make_memfd("xtipc-channel", CHANNEL_LEN)?;
    seal_size(memory.as_fd())?;
    let view = ChannelView(Memory::map_control(memory.as_fd())?);
    let ((bell_of_0, rung_of_1), (bell_of_1, rung_of_0)) = (bell()?, bell()?);
    let sides = [
        ChannelFds {
            memory: memory.try_clone()?,
            bell: bell_of_0,
            rung: rung_of_0,
        },
        ChannelFds {
            memory,
            bell: bell_of_1,
            rung: rung_of_1,
        },
    ];
    Ok((sides, view))
}

/// What both sides tell of themselves in a channel, to be shown: nothing may depend on them, for the sides write what they like.
#[derive(Debug)]
pub struct ChannelView(Memory);

/// What went by a channel, seen from one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelTraffic {
    /// Messages that it has sent.
    pub sent: u64,
    /// Messages that it was sent.
    pub received: u64,
    /// Those of them that its program has not received.
    pub unread: u32,
    /// Bytes of those.
    pub unread_bytes: u64,
}

impl ChannelView {
    /// The counts now.
    pub fn traffic(&self, side: Side) -> ChannelTraffic {
        let other = side.other();
        // First what comes later, so that of honest sides nothing was consumed that was not sent.
        let consumed_bytes = self.0.consumed_bytes(side).load(Ordering::Relaxed);
        let consumed = self.0.consumed(side).load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let received = self.0.sent(other).load(Ordering::Relaxed);
        let received_bytes = self.0.sent_bytes(other).load(Ordering::Relaxed);
        let unread = (received as u32).wrapping_sub(consumed);
        ChannelTraffic {
            sent: self.0.sent(side).load(Ordering::Relaxed),
            received,
            unread: unread.min(CHANNEL_MESSAGES),
            unread_bytes: received_bytes.saturating_sub(consumed_bytes),
        }
    }

    /// How a side says that it waits.
    pub fn wait(&self, side: Side) -> ChannelWait {
        ChannelWait {
            refused_since: self.0.refused_since(side).load(Ordering::Relaxed),
            calls: self.0.waiting_calls(side).load(Ordering::Relaxed),
            calls_since: self.0.calls_since(side).load(Ordering::Relaxed),
        }
    }
}

/// How a side waits to send: times are nanoseconds of CLOCK_MONOTONIC, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelWait {
    /// The first message that was refused, since the last that was not.
    pub refused_since: u64,
    /// Calls that wait.
    pub calls: u32,
    /// The oldest of them.
    pub calls_since: u64,
}

/// A pipe: the end to ring with, and the end that gets readable. They share no flags, so neither side can make a call of the
/// other wait. The first is a reader too: writing to it when the other side has gone is no broken pipe.
fn bell() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let path = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&write_end)
    );
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let ringer = rustix::fs::open(path, flags, Mode::empty())?;
    Ok((ringer, read_end))
}

/// Which side of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who asked for the channel.
    First,
    /// The peer.
    Second,
}

impl Side {
    /// The side of this number.
    pub fn of_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::First),
            1 => Some(Self::Second),
            _ => None,
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// All parts of one side.
#[derive(Debug)]
pub struct Channel {
    /// Sends.
    pub sender: ChannelSender,
    /// Receives.
    pub receiver: ChannelReceiver,
    /// Tells the other side what was consumed.
    pub acknowledger: Arc<Acknowledger>,
    /// Announces sleep to the other side.
    pub sleep: ChannelSleep,
    /// Readable when the other side has rung.
    pub rung: OwnedFd,
}

impl Channel {
    /// Maps what the daemon sent. `receive_window`: units that the other side may send ahead, as far as this side has told
    /// until now; `u32::MAX` for datagrams, of which nothing is acknowledged.
    pub fn map(fds: ChannelFds, side: Side, receive_window: u32) -> io::Result<Self> {
        if sealed_len(&fds.memory)? != CHANNEL_LEN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the memory of a channel has another size",
            ));
        }
        let memory = Arc::new(Memory::map(fds.memory.as_fd())?);
        memory.present(side).store(1, Ordering::Relaxed);
        let bell = Arc::new(fds.bell);
        let acknowledger = Arc::new(Acknowledger::new(
            &memory,
            side,
            Ringer::new(&bell),
            receive_window,
        ));
        Ok(Self {
            sender: ChannelSender::new(&memory, side, Ringer::new(&bell)),
            receiver: ChannelReceiver::new(&memory, side, &acknowledger),
            acknowledger,
            sleep: ChannelSleep {
                memory,
                side,
                sleeper: Sleeper::default(),
                revoked: false,
            },
            rung: fds.rung,
        })
    }
}

impl Channel {
    /// Announces that a thread is about to sleep on [`Channel::rung`]. The caller then looks at the channel once more, and
    /// sleeps only if nothing is there. `wants_room`: ring also when messages were consumed.
    pub fn announce(&mut self, wants_room: bool) {
        if self
            .sleep
            .sleeper
            .epoch()
            .is_multiple_of(ANNOUNCEMENTS_AT_ONCE)
        {
            self.silence();
        }
        self.sleep.announce(wants_room);
    }

    /// Empties the bell. To be followed by a look at the channel.
    pub fn silence(&self) {
        let mut rings = [MaybeUninit::<u8>::uninit(); RINGS_MAX];
        // Empty is as good as emptied.
        let _ = rustix::io::read(&self.rung, &mut rings[..]);
    }

    /// Whether the other side has mapped the channel too, and will see what is sent.
    pub fn is_peer_present(&self) -> bool {
        let word = self.sleep.memory.present(self.sleep.side.other());
        word.load(Ordering::Relaxed) != 0
    }
}

/// Wakes the other side.
#[derive(Debug)]
struct Ringer {
    waker: Waker,
    bell: Arc<OwnedFd>,
}

impl Ringer {
    fn new(bell: &Arc<OwnedFd>) -> Self {
        Self {
            waker: Waker::default(),
            bell: Arc::clone(bell),
        }
    }

    fn ring_if_asleep(&mut self, memory: &Memory, other: Side, progress: crate::wake::Progress) {
        if self.waker.must_ring(memory.sleep(other), progress) {
            self.ring();
        }
    }

    fn ring(&self) {
        // A full pipe is readable already.
        let _ = rustix::io::write(&*self.bell, &[1]);
    }
}

/// The sleep word of a side, and its processor.
#[derive(Debug)]
pub struct ChannelSleep {
    memory: Arc<Memory>,
    side: Side,
    sleeper: Sleeper,
    revoked: bool,
}

impl ChannelSleep {
    fn announce(&mut self, wants_room: bool) {
        if self.revoked {
            return;
        }
        self.sleeper
            .announce(self.memory.sleep(self.side), wants_room);
    }

    /// Says that a thread only waits for a message, on a processor that the other side needs, too: a hint, and no
    /// announcement.
    pub fn stand_by(&mut self) {
        if !self.revoked {
            self.sleeper.stand_by(self.memory.sleep(self.side), false);
        }
    }

    /// Takes either back.
    pub fn awake(&mut self) {
        if !self.revoked {
            self.sleeper.awake(self.memory.sleep(self.side));
        }
    }

    /// Has the other side send nothing more by the channel. The caller then takes what is there, and at last calls
    /// [`ChannelReceiver::finish`].
    pub fn revoke(&mut self) {
        self.revoked = true;
        revoke(self.memory.sleep(self.side));
    }

    /// Tells on which processor this side waits.
    pub fn run_on(&self, processor: u32) {
        let word = self.memory.processor(self.side);
        // The other side looks at the line each time.
        if word.load(Ordering::Relaxed) != processor.wrapping_add(1) {
            word.store(processor.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Where the other side was when it last told. A hint: a wrong one costs time, nothing else.
    pub fn processor_of_peer(&self) -> Option<u32> {
        let word = self.memory.processor(self.side.other());
        word.load(Ordering::Relaxed).checked_sub(1)
    }
}

#[cfg(test)]
mod tests;
