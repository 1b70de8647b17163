//! AF_XDP on one interface: the classifier and a socket on each receive queue.
//!
//! Owner: the bearer. The classifier is attached after the sockets are in its map, and lives as long as the
//! port: a frame that meets no socket goes to the kernel. Where the node has further workers, they serve the queues. What is
//! sent to a station goes through one socket, which keeps the order of packets: the first one, or where several workers serve
//! queues, one of those that the stations are spread over ([`Spread`]). A queue whose socket does no work is made anew alone, as
//! long as another one sends, and goes by that one meanwhile.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use xtipc_ebpf::{AttachMode, Classifier, QueueCounters};
use xtipc_management::{Counters, QueueInfo};
use xtipc_protocol::addr::MediaAddr;
use xtipc_protocol::host::MediaDest;
use xtipc_xsk::{BindMode, ClosingSocket, FrameIndex, FramePool, Reserve, SocketConfig, XskSocket};

use super::arrears::{Arrears, Lookout};
use super::error::{StillHeld, XdpError};
use super::ethernet::Mac;
use super::queue::Queue;
use super::spread::Spread;
use super::traffic::{TxDrop, named};
use crate::crew::Crew;
use crate::wait::Interest;

/// How often is looked whether stations can change their queue.
const SETTLE_INTERVAL: Duration = Duration::from_millis(1);
/// How long closing waits for the kernel at the end, for each socket.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a running worker waits for it; then it asks again later.
const REOPEN_TIMEOUT: Duration = Duration::from_millis(20);

/// What the classifier takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// TIPC's ethertype on this VLAN; 0: untagged.
    Vlan(u16),
    /// Datagrams to this address, and to this group.
    Datagrams(SocketAddr, Option<IpAddr>),
}

/// How to run on an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup<'a> {
    pub(super) interface: &'a str,
    pub(super) ifindex: u32,
    /// All of its receive queues.
    pub(super) queues: u32,
    pub(super) takes: Takes,
    pub(super) attach: AttachMode,
    pub(super) bind: BindMode,
    pub(super) multi_buffer: bool,
}

/// The sockets and the classifier of one interface.
pub(super) struct XdpPort {
    classifier: Classifier,
    queues: Vec<Queue>,
    lookout: Lookout,
    /// What all is sent by, if stations are not spread.
    sender: u32,
    spread: Option<Spread>,
    now: Duration,
    settle_due: Duration,
    ifindex: u32,
    bind: BindMode,
    multi_buffer: bool,
    /// The queue to be asked first, so that none is starved.
    turn: usize,
}

impl XdpPort {
    /// Opens the sockets and attaches the classifier; undoes what it did if a step fails. `ready` is a classifier that is
    /// loaded already, if there is one, and is there for the next attempt if this one fails.
    pub(super) fn open(
        setup: &Setup<'_>,
        ready: &mut Option<Classifier>,
        pool: &mut FramePool,
    ) -> Result<Self, XdpError> {
        let mut classifier = match ready.take() {
            Some(classifier) => classifier,
            None => Classifier::load()?,
        };
        match setup.takes {
            Takes::Vlan(vlan) => classifier.allow_vlan(vlan)?,
            Takes::Datagrams(own, group) => classifier.take_datagrams(own, group)?,
        }
        let mut port = Self {
            classifier,
            queues: (0..setup.queues).map(|_| Queue::default()).collect(),
            lookout: Lookout::default(),
            sender: 0,
            spread: None,
            now: Duration::ZERO,
            settle_due: Duration::ZERO,
            ifindex: setup.ifindex,
            bind: setup.bind,
            multi_buffer: setup.multi_buffer,
            turn: 0,
        };
        let opened = port
            .open_sockets(pool)
            .and_then(|()| Ok(port.classifier.attach(setup.interface, setup.attach)?));
        match opened {
            Ok(()) => Ok(port),
            Err(error) => {
                let (classifier, closed) = port.close(pool);
                if let Err(held) = closed {
                    tracing::warn!(interface = setup.interface, %held, "after a refused XDP mode");
                }
                *ready = Some(classifier);
                Err(error)
            }
        }
    }

    fn sockets(&self) -> impl Iterator<Item = &XskSocket> {
        self.queues.iter().filter_map(|queue| queue.socket.as_ref())
    }

    fn sockets_mut(&mut self) -> impl Iterator<Item = &mut XskSocket> {
        let queues = self.queues.iter_mut();
        queues.filter_map(|queue| queue.socket.as_mut())
    }

    fn is_open(&self, queue: u32) -> bool {
        let queue = self.queues.get(queue as usize);
        queue.is_some_and(|queue| queue.socket.is_some())
    }

    /// Opens those that are missing.
    fn open_sockets(&mut self, pool: &mut FramePool) -> Result<(), XdpError> {
        let missing = self.queues.iter().filter(|queue| queue.is_vacant());
        pool.want_areas(missing.count() as u32);
        for number in 0..self.queues.len() {
            if !self.queues[number].is_vacant() {
                continue;
            }
            let config = SocketConfig {
                multi_buffer: self.multi_buffer,
                join: self.sockets().next(),
                ..SocketConfig::new(self.ifindex, number as u32, self.bind)
            };
            let socket = XskSocket::open(pool, &config)?;
            // Kept first, so that whoever cleans up finds it.
            let socket = self.queues[number].socket.insert(socket);
            self.classifier.insert_socket(number as u32, socket)?;
        }
        Ok(())
    }

    /// Lets the further workers, if there are any, serve the queues of newly opened sockets.
    pub(super) fn hand_over(&mut self, crew: &Crew, pool: &FramePool) {
        for queue in &mut self.queues {
            queue.hand_over(crew, pool);
        }
    }

    /// The numbers of the workers that serve the queues, by queue; none if this one does.
    pub(super) fn servers(&self) -> Vec<usize> {
        let servers = self.queues.iter().filter_map(|queue| queue.server.as_ref());
        servers.map(|server| server.index).collect()
    }

    /// Spreads the stations over those of these queues that have a socket. Call when sockets have come or gone.
    pub(super) fn spread_over(&mut self, mut queues: Vec<u32>, pool: &FramePool) {
        let are_several = queues.len() > 1;
        queues.retain(|queue| self.is_open(*queue));
        if let Some(spread) = &mut self.spread {
            if !queues.is_empty() {
                spread.set_queues(queues);
            }
        } else if are_several && !queues.is_empty() {
            self.spread = Some(Spread::new(queues, pool.counts().total));
        } else if !self.is_open(self.sender) {
            // It does not go back to the first when that has come back: order.
            let open = self.sockets().next();
            self.sender = open.map_or(self.sender, XskSocket::queue);
        }
    }

    /// Those that have a link now, and which queue what they send comes into, where that is known.
    pub(super) fn set_linked(
        &mut self,
        stations: impl Iterator<Item = MediaAddr>,
        comes_into: impl Fn(MediaAddr) -> Option<u32>,
    ) {
        if let Some(spread) = &mut self.spread {
            spread.set_linked(stations, comes_into);
        }
    }

    /// The queue that packets to a station are sent by.
    pub(super) fn queue_to(&self, station: &MediaAddr) -> u32 {
        let spread = self.spread.as_ref();
        spread.map_or(self.sender, |spread| spread.queue_of(station))
    }

    /// Whether the workers that serve the queues have handed over what came.
    pub(super) fn arrears(&mut self, now: Duration) -> Arrears {
        let looked_ns = self.queues.iter().filter_map(Queue::awaited_since_ns).min();
        self.lookout.judge(now, looked_ns.map(Duration::from_nanos))
    }

    /// Hands up to `budget` received frames to the callback; returns how many.
    pub(super) fn receive(&mut self, budget: usize, mut on_frame: impl FnMut(&[u8])) -> usize {
        let count = self.queues.len();
        let mut frames = 0;
        for step in 0..count {
            if let Some(socket) = &mut self.queues[(self.turn + step) % count].socket {
                frames += socket.receive(budget - frames, |frame| on_frame(frame));
            }
        }
        if count > 1 {
            self.turn = (self.turn + 1) % count;
        }
        frames
    }

    /// Puts part of a frame into the TX ring of its queue. A full ring is emptied into the kernel once.
    pub(super) fn send(
        &mut self,
        pool: &mut FramePool,
        (frame, to): (FrameIndex, MediaDest),
        offset: usize,
        len: usize,
        reserve: Reserve,
    ) -> Result<(), TxDrop> {
        let spread = self.spread.as_mut();
        let queue = spread.map_or(self.sender, |spread| spread.queue_for(to, frame));
        self.queues[queue as usize].send(pool, frame, offset, len, reserve)
    }

    /// Takes back what the kernel has sent.
    pub(super) fn complete(&mut self, pool: &mut FramePool) {
        for socket in self.sockets_mut() {
            socket.complete(pool);
        }
        if self.now >= self.settle_due
            && let Some(spread) = &mut self.spread
            && spread.is_unsettled()
        {
            self.settle_due = self.now + SETTLE_INTERVAL;
            let sockets = self.queues.iter().filter_map(|queue| queue.socket.as_ref());
            spread.settle(sockets.flat_map(XskSocket::frames_in_tx));
        }
    }

    /// The end of a round: the system calls that the kernel needs.
    pub(super) fn flush(&mut self) {
        self.queues.iter_mut().for_each(Queue::flush);
    }

    pub(super) fn set_clock(&mut self, now: Duration) {
        self.now = now;
        for socket in self.sockets_mut() {
            socket.set_clock(now);
        }
    }

    pub(super) fn set_mac(&mut self, mac: Mac) -> Result<(), XdpError> {
        Ok(self.classifier.set_mac(mac)?)
    }

    /// Of sockets that others serve, only their end is waited for here.
    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        self.sockets().map(|socket| {
            let interest = match socket.is_served() {
                true => Interest::HangUp,
                false => Interest::Read,
            };
            (socket.as_fd(), interest)
        })
    }

    pub(super) fn rx_ready(&mut self) -> bool {
        self.sockets_mut().any(XskSocket::rx_ready)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.sockets().all(XskSocket::is_quiet)
    }

    /// Whether sockets no longer do their work and must be made anew ([`Self::reopen`]).
    pub(super) fn is_stuck(&mut self, pool: &mut FramePool, now: Duration) -> bool {
        self.complete(pool);
        let stuck = self.queues.iter_mut().map(|queue| queue.is_stuck(now));
        stuck.fold(false, |one, other| one | other)
    }

    /// Closes the sockets that do no work, or all if none sends any more, and opens them again, as far as the kernel has let go
    /// of them; otherwise the port stays stuck, and this can be called again.
    pub(super) fn reopen(&mut self, pool: &mut FramePool) -> Result<(), XdpError> {
        let senders = match &self.spread {
            Some(spread) => spread.queues().to_vec(),
            None => vec![self.sender],
        };
        let sends = |queue: &u32| !self.queues[*queue as usize].was_stuck();
        let none_sends = !senders.iter().any(sends);
        for queue in &mut self.queues {
            if none_sends || queue.was_stuck() {
                queue.begin_close(pool);
            }
        }
        let deadline = Instant::now() + REOPEN_TIMEOUT;
        for queue in &mut self.queues {
            queue.await_release(pool, deadline);
        }
        let opened = self.open_sockets(pool);
        if opened.is_err() {
            for queue in &mut self.queues {
                queue.begin_close(pool);
            }
        }
        opened
    }

    /// Sends what is waiting, closes the sockets and waits until the kernel has released them. The classifier is still
    /// attached, if it was.
    pub(super) fn close(self, pool: &mut FramePool) -> (Classifier, Result<(), StillHeld>) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let queues = self.queues.into_iter();
        let held: Vec<_> = queues
            .filter_map(|queue| queue.close(pool, CLOSE_TIMEOUT))
            .collect();
        let held = held
            .into_iter()
            .filter_map(|socket| socket.wait(pool, deadline).err());
        (self.classifier, still_held(held.collect()))
    }

    /// Closes the sockets, with what has not been sent, and detaches the classifier. They are still to be waited for.
    pub(super) fn begin_close(self, pool: &mut FramePool) -> ClosingSockets {
        let queues = self.queues.into_iter();
        ClosingSockets(queues.filter_map(|queue| queue.abandon(pool)).collect())
    }

    /// What the classifier counted, summed over the queues.
    pub(super) fn classifier_counters(&self) -> Counters {
        let queues = self.classifier.counters().unwrap_or_default();
        let sum = |of: fn(&QueueCounters) -> u64| queues.iter().map(of).sum();
        named([
            ("redirected", sum(|queue| queue.redirected)),
            ("passed-other", sum(|queue| queue.passed_other)),
            ("passed-foreign-mac", sum(|queue| queue.passed_foreign_mac)),
            ("passed-vlan", sum(|queue| queue.passed_vlan)),
            ("no-socket", sum(|queue| queue.no_socket)),
        ])
    }

    pub(super) fn queue_infos(&self) -> Vec<QueueInfo> {
        self.queues.iter().filter_map(Queue::info).collect()
    }

    /// Packets dropped because this worker had not taken those that other workers had handed over before.
    pub(super) fn dropped_at_handover(&self) -> u64 {
        let counters = self.sockets().filter_map(XskSocket::handover_counters);
        counters.map(|counters| counters.dropped).sum()
    }
}

/// Sockets that are closed and that the kernel has not released.
#[derive(Default)]
pub(super) struct ClosingSockets(Vec<ClosingSocket>);

impl ClosingSockets {
    /// These too.
    pub(super) fn add(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Takes back what the kernel has released; true if that is all. Does not wait.
    pub(super) fn poll(&mut self, pool: &mut FramePool) -> bool {
        let now = Instant::now();
        let closing = std::mem::take(&mut self.0).into_iter();
        self.0 = closing
            .filter_map(|socket| socket.wait(pool, now).err())
            .collect();
        self.0.is_empty()
    }

    /// Waits for the rest.
    pub(super) fn finish(self, pool: &mut FramePool) -> Result<(), StillHeld> {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let closing = self.0.into_iter();
        let held = closing.filter_map(|socket| socket.wait(pool, deadline).err());
        still_held(held.collect())
    }
}

fn still_held(sockets: Vec<ClosingSocket>) -> Result<(), StillHeld> {
    if sockets.is_empty() {
        return Ok(());
    }
    Err(StillHeld {
        sockets: sockets.len(),
        frames: sockets.iter().map(ClosingSocket::frames_held).sum(),
    })
}
