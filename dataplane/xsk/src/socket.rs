//! One AF_XDP socket on one queue of an interface: system calls around its two halves.
//!
//! Owner: one worker, that of the pool; the rings to the kernel may be another one's ([`crate::handover`]). The socket holds frames of exactly one [`FramePool`], the one it was opened
//! with. Dropping it without [`XskSocket::close`] leaves its frames `in_tx` and its receive area taken
//! for good: memory the kernel may still touch is never used again by accident.

use crate::closing::ClosingSocket;
use crate::handover::{self, HandoverCounters, ServedQueue, Server, Wake};
use crate::kernel::{Kernel, WakeCounters};
use crate::open::{self, OpenError, SocketConfig};
use crate::pool::{FrameIndex, FramePool, Reserve};
use crate::receive::{Receive, ReceiveCounters};
use crate::transmit::{Transmit, TransmitCounters, TxFull};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::sockopt;
use rustix::net::xdp::XdpStatistics;
use std::time::{Duration, Instant};

/// All counters of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Receiving.
    pub receive: ReceiveCounters,
    /// Sending.
    pub transmit: TransmitCounters,
    /// System calls; of a socket that this worker serves itself.
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
    beyond: Beyond,
    probe: OwnedFd,
    ifindex: u32,
    queue: u32,
    options: SocketOptions,
}

/// What the rings lead to.
#[derive(Debug)]
enum Beyond {
    Kernel(Kernel),
    /// The worker that serves the queue.
    Server(Server),
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
        Self {
            receive,
            transmit,
            beyond: Beyond::Kernel(Kernel::new(fd, zero_copy)),
            probe,
            ifindex,
            queue,
            options,
        }
    }

    /// Lets another worker, which `to_server` wakes, serve the rings to the kernel from now on: what is returned is for
    /// its thread, and wakes this one by `to_owner`. Once in the life of a socket, right after it was opened.
    pub fn hand_over(&mut self, pool: &FramePool, to_server: Wake, to_owner: Wake) -> ServedQueue {
        let Beyond::Kernel(kernel) = &self.beyond else {
            panic!("a socket is handed over once");
        };
        let (server, served) = handover::part(
            &mut self.receive,
            &mut self.transmit,
            pool,
            kernel.another(),
            (to_server, to_owner),
        );
        self.beyond = Beyond::Server(server);
        served
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
        if let Beyond::Server(server) = &mut self.beyond {
            server.owner_is_awake(&mut self.receive);
        }
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
        match &mut self.beyond {
            Beyond::Kernel(kernel) => kernel.kick(self.transmit.ring()),
            Beyond::Server(server) => server.kick(self.transmit.ring()),
        }
    }

    /// Tells a driver that ran out of chunks that there are new ones. Cheap when it did not.
    pub fn wake_fill(&mut self) -> rustix::io::Result<()> {
        match &mut self.beyond {
            Beyond::Kernel(kernel) => kernel.wake_fill(self.receive.fill()),
            Beyond::Server(server) => {
                server.wake_fill(self.receive.fill());
                Ok(())
            }
        }
    }

    /// Whether a packet waits to be received: the check before sleeping, on [`Self::as_fd`] or, where another worker
    /// serves the queue, until it wakes this one.
    pub fn rx_ready(&mut self) -> bool {
        if let Beyond::Server(server) = &mut self.beyond {
            server.owner_will_sleep(&mut self.receive);
        }
        self.receive.is_ready()
    }

    /// Whether a round would find nothing: no packet, no completion, nothing that the kernel has not taken. Some loads.
    pub fn is_quiet(&self) -> bool {
        let quiet = match &self.beyond {
            Beyond::Kernel(_) => !self.receive.fill_needs_wakeup() && self.transmit.is_quiet(),
            // It takes what is to be sent, and what goes home, by itself.
            Beyond::Server(_) => !self.transmit.has_completions(),
        };
        quiet && !self.receive.is_ready()
    }

    /// Whether the worker that serves the queue has handed over all that has come, and it was received here. True where
    /// there is none.
    pub fn is_caught_up(&self) -> bool {
        match &self.beyond {
            Beyond::Kernel(_) => true,
            Beyond::Server(server) => server.has_handed_over_all() && !self.receive.is_ready(),
        }
    }

    /// Whether another worker serves the queue.
    pub fn is_served(&self) -> bool {
        matches!(self.beyond, Beyond::Server(_))
    }

    /// What that worker did; `None` without one.
    pub fn handover_counters(&self) -> Option<HandoverCounters> {
        match &self.beyond {
            Beyond::Kernel(_) => None,
            Beyond::Server(server) => Some(server.counters()),
        }
    }

    /// Descriptors sent and not completed.
    pub fn tx_outstanding(&self) -> u32 {
        self.transmit.outstanding()
    }

    /// The frames of these. Looks at the whole frame table while there is one, so not for each round.
    pub fn frames_in_tx(&self) -> impl Iterator<Item = FrameIndex> + '_ {
        self.transmit.frames()
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
            wake: match &self.beyond {
                Beyond::Kernel(kernel) => kernel.counters(),
                Beyond::Server(_) => WakeCounters::default(),
            },
        }
    }

    /// The kernel's counters (`XDP_STATISTICS`).
    pub fn statistics(&self) -> rustix::io::Result<XdpStatistics> {
        sockopt::xdp_statistics(self)
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

    /// Closes the socket now, with what is in its TX ring unsent, except that a worker that serves it sends what it can at once; [`ClosingSocket::poll`] tells when
    /// the kernel has released it.
    pub fn begin_close(mut self, pool: &mut FramePool) -> ClosingSocket {
        self.complete(pool);
        let Self {
            receive,
            transmit,
            beyond,
            probe,
            ifindex,
            queue,
            ..
        } = self;
        // Both halves unmap their rings, each of which keeps the socket alive beside its descriptor.
        let frames = transmit.into_outstanding();
        let area = receive.into_area();
        let link = match beyond {
            Beyond::Kernel(_) => None,
            Beyond::Server(server) => Some(server.close()),
        };
        ClosingSocket::new(frames, area, probe, link, ifindex, queue)
    }
}

impl AsFd for XskSocket {
    /// For poll, epoll or io_uring, and for the XSKMAP of the XDP program.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.beyond {
            Beyond::Kernel(kernel) => kernel.as_fd(),
            Beyond::Server(server) => server.as_fd(),
        }
    }
}
