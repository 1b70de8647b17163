//! A socket whose rings to the kernel another worker serves.
//!
//! The frame table, and with it the socket, stays with its owner, the worker that has the pool. What the other one serves
//! is a [`ServedQueue`]: the four rings to the kernel, and four to the owner. It moves references from ring to ring, makes
//! the system calls, and never sees a frame's bytes or state.
//!
//! ```text
//!  owner: XskSocket                       ServedQueue                        kernel
//!   receive  ◀── received descriptors ────  (dropped if full) ◀── RX ring ─────
//!            ──── chunks going home ─────▶                    ─── fill ring ──▶
//!   transmit ──── descriptors to send ───▶                    ─── TX ring ────▶
//!            ◀── completed chunks ────────                    ◀─ completion ──
//! ```
//!
//! Neither ever waits for the other:
//!
//! * Received descriptors find room for half of the receive area. Beyond that packets are dropped and counted, and their
//!   chunks go back to the kernel at once: so an owner that falls behind never leaves the device without chunks.
//! * The other rings are as long as what goes round in them: the receive area, or all chunks of the pool. If a frame is
//!   sent several times at once, so that even these are full, the owner gets [`crate::TxFull`], or completions wait in the
//!   kernel's ring.
//! * A frame counts as in TX from [`crate::XskSocket::send`] until the owner has taken its completion from the ring.
//! * Who sleeps has announced it in a ring that the other one fills, and is woken by it ([`Wake`]): the owner for received
//!   packets, the server for what is to be sent, or if the kernel has less than half of the chunks, for these.

use crate::kernel::Kernel;
use crate::pool::{AreaExtent, FramePool};
use crate::receive::Receive;
use crate::ring::{Consumer, Level, Producer, pair};
use crate::transmit::Transmit;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::xdp::{XdpDesc, XdpDescOptions};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

#[cfg(all(test, not(loom)))]
mod tests;

/// Ends the sleep of a worker, or keeps it from falling asleep.
pub struct Wake(Box<dyn Fn() + Send>);

impl Wake {
    /// By this call.
    pub fn new(call: impl Fn() + Send + 'static) -> Self {
        Self(Box::new(call))
    }

    fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wake")
    }
}

/// What went between the two workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandoverCounters {
    /// Packets handed to the owner.
    pub received: u64,
    /// Packets dropped because the owner had left no room for them.
    pub dropped: u64,
    /// Descriptors taken from the owner and given to the kernel.
    pub sent: u64,
    /// Times that the server woke the owner.
    pub owner_woken: u64,
    /// Times that the owner woke the server.
    pub server_woken: u64,
}

/// What the two tell each other beside the rings.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// By the owner: the socket is to be closed.
    closing: AtomicBool,
    /// By the server: it has closed it, and has no ring any more.
    released: AtomicBool,
    /// By the server: the error number of a system call that failed for good.
    failure: AtomicI32,
    received: AtomicU64,
    dropped: AtomicU64,
    sent: AtomicU64,
    owner_woken: AtomicU64,
}

impl Link {
    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }
}

/// Parts a socket whose halves these are.
pub(crate) fn part(
    receive: &mut Receive,
    transmit: &mut Transmit,
    pool: &FramePool,
    kernel: Kernel,
    (to_server, to_owner): (Wake, Wake),
) -> (Server, ServedQueue) {
    let chunks = receive.area().chunks();
    let under_way = pool.frame_chunks().next_power_of_two();
    let (received, to_receive) = pair(chunks / 2);
    let (go_home, home) = pair(chunks);
    let (to_send, outgoing) = pair(under_way);
    let (completed, to_complete) = pair(under_way);
    let (rx, fill) = receive.exchange_rings(to_receive, go_home);
    let (tx, completions) = transmit.exchange_rings(to_send, to_complete);
    let link = Arc::new(Link::default());
    let server = Server {
        link: Arc::clone(&link),
        kernel: kernel.another(),
        to_server,
        arrivals: rx.level(),
        asleep: false,
        server_woken: 0,
    };
    let served = ServedQueue {
        rx,
        fill,
        tx,
        completions,
        received,
        home,
        outgoing,
        completed,
        area: receive.area().extent(),
        chunks,
        packet: Vec::with_capacity(64),
        spare: Vec::with_capacity(chunks as usize),
        in_kernel: 0,
        counters: HandoverCounters::default(),
        kernel,
        to_owner,
        end: End(link),
    };
    (server, served)
}

/// The owner's view of who serves its socket.
#[derive(Debug)]
pub(crate) struct Server {
    link: Arc<Link>,
    /// For questions; the calls of the rings are the server's.
    kernel: Kernel,
    to_server: Wake,
    /// The kernel's RX ring.
    arrivals: Level,
    /// The owner has announced that it sleeps.
    asleep: bool,
    server_woken: u64,
}

impl Server {
    pub(crate) fn kick(&mut self, ring: &mut Producer<XdpDesc>) -> rustix::io::Result<()> {
        ring.publish();
        if ring.must_wake() {
            self.wake();
        }
        match self.link.failure.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(Errno::from_raw_os_error(number)),
        }
    }

    pub(crate) fn wake_fill(&mut self, fill: &mut Producer<u64>) {
        if fill.must_wake() {
            self.wake();
        }
    }

    fn wake(&mut self) {
        self.server_woken += 1;
        self.to_server.wake();
    }

    pub(crate) fn owner_will_sleep(&mut self, receive: &mut Receive) {
        self.asleep = true;
        receive.ring().announce_sleep();
    }

    pub(crate) fn owner_is_awake(&mut self, receive: &mut Receive) {
        if std::mem::take(&mut self.asleep) {
            receive.ring().awake();
        }
    }

    pub(crate) fn has_handed_over_all(&self) -> bool {
        self.arrivals.is_empty()
    }

    pub(crate) fn counters(&self) -> HandoverCounters {
        let Link {
            received,
            dropped,
            sent,
            owner_woken,
            ..
        } = &*self.link;
        HandoverCounters {
            received: received.load(Ordering::Relaxed),
            dropped: dropped.load(Ordering::Relaxed),
            sent: sent.load(Ordering::Relaxed),
            owner_woken: owner_woken.load(Ordering::Relaxed),
            server_woken: self.server_woken,
        }
    }

    /// Has the server close the socket; the link tells when it has.
    pub(crate) fn close(self) -> Arc<Link> {
        self.link.closing.store(true, Ordering::Release);
        self.to_server.wake();
        self.link
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }
}

/// The rings of a socket to the kernel, and to its owner. Belongs to the worker that serves it; dropping it closes the
/// kernel's socket, as far as that is the server's, and tells the owner.
#[derive(Debug)]
pub struct ServedQueue {
    rx: Consumer<XdpDesc>,
    fill: Producer<u64>,
    tx: Producer<XdpDesc>,
    completions: Consumer<u64>,
    received: Producer<XdpDesc>,
    home: Consumer<u64>,
    outgoing: Consumer<XdpDesc>,
    completed: Producer<u64>,
    area: AreaExtent,
    /// Of the receive area.
    chunks: u32,
    /// The parts of a packet that is not whole yet.
    packet: Vec<XdpDesc>,
    /// Chunks of dropped packets on their way back.
    spare: Vec<u64>,
    /// Descriptors given to the kernel and not completed.
    in_kernel: u32,
    counters: HandoverCounters,
    kernel: Kernel,
    to_owner: Wake,
    /// Last: it tells that everything above is gone.
    end: End,
}

#[derive(Debug)]
struct End(Arc<Link>);

impl Drop for End {
    fn drop(&mut self) {
        // For an owner that did not ask for it.
        self.0
            .failure
            .store(Errno::PIPE.raw_os_error(), Ordering::Relaxed);
        self.0.released.store(true, Ordering::Release);
    }
}

impl ServedQueue {
    /// One look at all rings: moves what it finds, up to `budget` packets each way, and makes the system calls for it.
    /// Whether it found anything.
    pub fn serve(&mut self, budget: usize) -> bool {
        let before = self.counters;
        let completed = self.complete();
        self.receive(budget);
        let filled = self.refill();
        self.send(budget);
        if self.counters == before {
            return completed + filled > 0;
        }
        let link = &self.end.0;
        link.sent.store(self.counters.sent, Ordering::Relaxed);
        link.owner_woken
            .store(self.counters.owner_woken, Ordering::Relaxed);
        true
    }

    fn receive(&mut self, budget: usize) {
        let mut taken = 0;
        while taken < budget {
            let Some(descriptor) = self.rx.pop() else {
                break;
            };
            taken += 1;
            self.packet.push(descriptor);
            if !descriptor.options.contains(XdpDescOptions::XDP_PKT_CONTD) {
                self.pass_on();
            }
        }
        if taken == 0 {
            return;
        }
        let link = &self.end.0;
        link.received
            .store(self.counters.received, Ordering::Relaxed);
        link.dropped.store(self.counters.dropped, Ordering::Relaxed);
        // In this order: who has a packet sees it counted, and who sees the kernel's ring empty sees what came of it.
        self.received.publish();
        self.rx.publish();
        if self.received.must_wake() {
            self.counters.owner_woken += 1;
            self.to_owner.wake();
        }
    }

    /// A packet is whole: the owner gets all of it or nothing.
    fn pass_on(&mut self) {
        if self.received.has_room(self.packet.len() as u32) {
            self.counters.received += 1;
            for descriptor in self.packet.drain(..) {
                self.received.push(descriptor);
            }
            return;
        }
        self.counters.dropped += 1;
        let area = self.area;
        let chunks = self.packet.drain(..);
        self.spare
            .extend(chunks.filter_map(|descriptor| area.chunk_of(descriptor.addr)));
    }

    fn refill(&mut self) -> usize {
        let mut filled = 0;
        // The kernel may publish its index late, as in `Receive`.
        while self.fill.has_room(1) {
            let Some(chunk) = self.spare.pop().or_else(|| self.home.pop()) else {
                break;
            };
            self.fill.push(chunk);
            filled += 1;
        }
        if filled > 0 {
            self.home.publish();
            self.fill.publish();
        }
        let woken = self.kernel.wake_fill(&self.fill);
        self.note(woken);
        filled
    }

    fn send(&mut self, budget: usize) {
        let mut moved = 0;
        while moved < budget && self.tx.has_room(1) {
            let Some(descriptor) = self.outgoing.pop() else {
                break;
            };
            self.tx.push(descriptor);
            moved += 1;
        }
        if moved > 0 {
            self.outgoing.publish();
            self.in_kernel += moved as u32;
            self.counters.sent += moved as u64;
        }
        if moved > 0 || !self.tx.is_drained() {
            let kicked = self.kernel.kick(&mut self.tx);
            self.note(kicked);
        }
    }

    fn complete(&mut self) -> usize {
        let mut completed = 0;
        while self.completed.has_room(1) {
            let Some(chunk) = self.completions.pop() else {
                break;
            };
            self.completed.push(chunk);
            completed += 1;
        }
        if completed > 0 {
            self.completed.publish();
            self.completions.publish();
            self.in_kernel = self.in_kernel.saturating_sub(completed);
        }
        completed as usize
    }

    fn note(&self, called: rustix::io::Result<()>) {
        if let Err(error) = called {
            let number = error.raw_os_error();
            self.end.0.failure.store(number, Ordering::Relaxed);
        }
    }

    /// Announces that the server will sleep on [`Self::as_fd`] and what the owner wakes it by. False: not now, there is
    /// something to serve. Call [`Self::awake`] afterwards in either case.
    pub fn before_sleep(&mut self) -> bool {
        self.outgoing.announce_sleep();
        let short = self.fill.waiting() < self.chunks / 2;
        if short {
            self.home.announce_sleep();
        }
        !(self.rx.is_ready()
            || self.outgoing.is_ready()
            || self.completions.is_ready()
            || short && self.home.is_ready()
            || self.is_closing())
    }

    /// The server is awake.
    pub fn awake(&mut self) {
        self.outgoing.awake();
        self.home.awake();
    }

    /// Whether the kernel has not completed all that it was given: nothing but a look tells when it has.
    pub fn is_kernel_at_work(&self) -> bool {
        self.in_kernel > 0
    }

    /// Whether the owner wants the socket closed: [`Self::close`].
    pub fn is_closing(&self) -> bool {
        self.end.0.closing.load(Ordering::Acquire)
    }

    /// Gives the kernel what the owner wanted sent, as far as it takes that at once, and closes the socket.
    pub fn close(mut self) {
        loop {
            let before = self.counters.sent;
            self.complete();
            self.send(usize::MAX);
            if self.counters.sent == before {
                return;
            }
        }
    }
}

impl AsFd for ServedQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }
}
