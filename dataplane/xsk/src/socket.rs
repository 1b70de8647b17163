//! One AF_XDP socket on one queue of an interface: system calls around its two halves.
//!
//! Owner: one worker. The socket holds frames of exactly one [`FramePool`], the one it was opened
//! with. Dropping it without [`XskSocket::close`] leaves its frames `in_tx` and its receive area taken
//! for good: memory the kernel may still touch is never used again by accident.

use crate::closing::ClosingSocket;
use crate::open::{self, OpenError, SocketConfig};
use crate::pool::{FrameIndex, FramePool, Reserve};
use crate::receive::{Receive, ReceiveCounters};
use crate::transmit::{Transmit, TransmitCounters, TxFull};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::xdp::XdpStatistics;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// What became of the system calls that wake the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WakeCounters {
    /// `sendto` calls.
    pub kicks: u64,
    /// Answered EAGAIN: more packets than one call sends, or no send buffer or completion slot free.
    pub again: u64,
    /// Answered EBUSY: the device could not take a packet now.
    pub busy: u64,
    /// Answered ENOBUFS: the kernel had no memory for a packet.
    pub no_buffers: u64,
    /// Answered ENETDOWN: the interface is down.
    pub net_down: u64,
    /// Ended with packets left in the TX ring: the next kick goes on.
    pub unfinished: u64,
    /// `recvfrom` calls because the driver had run out of chunks.
    pub fill_wakes: u64,
}

/// All counters of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Receiving.
    pub receive: ReceiveCounters,
    /// Sending.
    pub transmit: TransmitCounters,
    /// System calls.
    pub wake: WakeCounters,
}

/// How the socket runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The kernel's word that packets are not copied.
    pub zero_copy: bool,
    /// Packets may span chunks (`XDP_USE_SG`).
    pub multi_buffer: bool,
    /// Descriptors one `sendto` sends in copy mode, where the kernel lets it be set (Linux 6.17);
    /// else it is 32.
    pub tx_budget: Option<u32>,
}

/// An AF_XDP socket bound to one queue of an interface.
#[derive(Debug)]
pub struct XskSocket {
    receive: Receive,
    transmit: Transmit,
    fd: OwnedFd,
    probe: OwnedFd,
    ifindex: u32,
    queue: u32,
    options: SocketOptions,
    wake: WakeCounters,
}

impl XskSocket {
    /// Opens a socket over the pool's memory and binds it in exactly the mode asked for. Blocks up to
    /// [`crate::BUSY_TIMEOUT`] while the queue is busy. Packets arrive as soon as an XDP program on the
    /// interface redirects to it.
    pub fn open(pool: &mut FramePool, config: &SocketConfig<'_>) -> Result<Self, OpenError> {
        open::open(pool, config)
    }

    pub(crate) fn assemble(
        fd: OwnedFd,
        probe: OwnedFd,
        receive: Receive,
        transmit: Transmit,
        config: &SocketConfig<'_>,
        zero_copy: bool,
        tx_budget: Option<u32>,
    ) -> Self {
        let SocketConfig {
            ifindex,
            queue,
            multi_buffer,
            ..
        } = *config;
        let options = SocketOptions {
            zero_copy,
            multi_buffer,
            tx_budget,
        };
        let wake = WakeCounters::default();
        Self {
            receive,
            transmit,
            fd,
            probe,
            ifindex,
            queue,
            options,
            wake,
        }
    }

    pub(crate) fn can_be_joined(&self, pool: &FramePool, config: &SocketConfig<'_>) -> bool {
        self.ifindex == config.ifindex
            && self.options.multi_buffer == config.multi_buffer
            && self.receive.area().is_of(pool)
    }

    /// Tells the socket the time (any monotonic origin), once per round before sending: the stamp of
    /// frames for [`Self::oldest_tx_age`].
    pub fn set_clock(&mut self, now: Duration) {
        self.transmit.set_clock(now);
    }

    /// Hands up to `budget` received packets (Ethernet header first) to the callback; returns how many.
    /// The bytes are the callback's, to read and to write, while it runs; then the chunk goes back to
    /// the kernel.
    pub fn receive(&mut self, budget: usize, on_packet: impl FnMut(&mut [u8])) -> usize {
        self.receive.receive(budget, on_packet)
    }

    /// Puts `len` bytes of a frame, from `offset`, into the TX ring, for [`Self::kick`] to send. A
    /// packet that spans chunks becomes several descriptors. The frame is `in_tx` until
    /// [`Self::complete`] has seen all of them. Panics on our own bugs: a frame nobody holds or of
    /// another pool, an empty or overlong packet, several chunks without multi-buffer.
    pub fn send(
        &mut self,
        pool: &mut FramePool,
        frame: FrameIndex,
        offset: usize,
        len: usize,
        reserve: Reserve,
    ) -> Result<(), TxFull> {
        assert!(
            self.receive.area().is_of(pool),
            "{frame:?} is of another pool than the socket"
        );
        self.transmit.send(pool, frame, offset, len, reserve)
    }

    /// Takes back from the kernel what it has sent; returns the number of descriptors.
    pub fn complete(&mut self, pool: &mut FramePool) -> usize {
        assert!(
            self.receive.area().is_of(pool),
            "completing into another pool than the socket's"
        );
        self.transmit.complete(pool)
    }

    /// Makes the kernel send what is in the TX ring. In copy mode the packets are transmitted inside
    /// this call; what the device did not take now stays in the ring for the next one. An error means
    /// the socket is of no more use (its interface is gone): close it.
    pub fn kick(&mut self) -> rustix::io::Result<()> {
        self.transmit.publish();
        if self.transmit.waiting() == 0 {
            return Ok(());
        }
        // The driver sets the flag and then looks at the ring once more; we fill the ring and then look at
        // the flag. Without a full fence both could see the old value, and the packet would lie there.
        fence(Ordering::SeqCst);
        loop {
            let waiting = self.transmit.waiting();
            if waiting == 0 || !self.transmit.needs_wakeup() {
                return Ok(());
            }
            self.wake.kicks += 1;
            match rustix::net::send(&self.fd, &[], SendFlags::DONTWAIT) {
                Ok(_) => {}
                Err(Errno::AGAIN) => self.wake.again += 1,
                Err(Errno::BUSY) => self.wake.busy += 1,
                Err(Errno::NOBUFS) => self.wake.no_buffers += 1,
                Err(Errno::NETDOWN) => self.wake.net_down += 1,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            }
            let left = self.transmit.waiting();
            // EAGAIN alone says nothing: it is also the answer to "sent as many as one call sends".
            let stuck = left >= waiting;
            if left > 0 && (stuck || self.options.zero_copy) {
                // Zero-copy drivers go on by themselves once woken.
                self.wake.unfinished += u64::from(stuck);
                return Ok(());
            }
        }
    }

    /// Tells a driver that ran out of chunks that there are new ones. Cheap when it did not.
    pub fn wake_fill(&mut self) -> rustix::io::Result<()> {
        // Our fill index must be visible before the flag is read, as in `kick`.
        fence(Ordering::SeqCst);
        if !self.receive.fill_needs_wakeup() {
            return Ok(());
        }
        self.wake.fill_wakes += 1;
        match rustix::net::recv(&self.fd, &mut [0u8; 0][..], RecvFlags::DONTWAIT) {
            Ok(_)
            | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::NETDOWN | Errno::INTR) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a packet waits to be received: the check before sleeping on [`Self::as_fd`].
    pub fn rx_ready(&self) -> bool {
        self.receive.is_ready()
    }

    /// Whether a round would find nothing: no packet, no completion, nothing that the kernel has not taken. Some loads.
    pub fn is_quiet(&self) -> bool {
        !self.receive.is_ready() && !self.receive.fill_needs_wakeup() && self.transmit.is_quiet()
    }

    /// Descriptors sent and not completed.
    pub fn tx_outstanding(&self) -> u32 {
        self.transmit.outstanding()
    }

    /// How long the oldest frame has waited for its completion, by [`Self::set_clock`]'s clock. Call
    /// [`Self::complete`] just before. More than a second means that the kernel lost it: close the
    /// socket and open it again. Walks the frame table while anything is outstanding, so ask from a
    /// timer, not in each round.
    pub fn oldest_tx_age(&self, now: Duration) -> Option<Duration> {
        self.transmit.oldest_age(now)
    }

    /// How the socket really runs.
    pub fn options(&self) -> SocketOptions {
        self.options
    }

    /// The interface it is bound to.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The queue it is bound to.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Our counters.
    pub fn counters(&self) -> SocketCounters {
        SocketCounters {
            receive: self.receive.counters(),
            transmit: self.transmit.counters(),
            wake: self.wake,
        }
    }

    /// The kernel's counters (`XDP_STATISTICS`).
    pub fn statistics(&self) -> rustix::io::Result<XdpStatistics> {
        sockopt::xdp_statistics(&self.fd)
    }

    /// Sends what is in the TX ring as far as that makes progress, closes the socket, and waits until
    /// the kernel has released it and with it every frame and the receive area. Blocks up to `timeout`;
    /// when that passes, what the kernel may still use stays out of circulation in the returned
    /// [`ClosingSocket`], which can be asked again.
    pub fn close(mut self, pool: &mut FramePool, timeout: Duration) -> Result<(), ClosingSocket> {
        let deadline = Instant::now() + timeout;
        let drain_until = Instant::now() + timeout / 4;
        while self.transmit.outstanding() > 0 && Instant::now() < drain_until {
            let alive = self.kick().is_ok();
            if self.complete(pool) > 0 {
                continue;
            }
            if !alive {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        self.begin_close(pool).wait(pool, deadline)
    }

    /// Closes the socket now, with what is in its TX ring unsent; [`ClosingSocket::poll`] tells when
    /// the kernel has released it.
    pub fn begin_close(mut self, pool: &mut FramePool) -> ClosingSocket {
        self.complete(pool);
        let Self {
            receive,
            transmit,
            fd,
            probe,
            ifindex,
            queue,
            ..
        } = self;
        // Both halves unmap their rings, each of which keeps the socket alive beside `fd`.
        let frames = transmit.into_outstanding();
        let area = receive.into_area();
        drop(fd);
        ClosingSocket::new(frames, area, probe, ifindex, queue)
    }
}

impl AsFd for XskSocket {
    /// For poll, epoll or io_uring, and for the XSKMAP of the XDP program.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
