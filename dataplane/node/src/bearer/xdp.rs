//! AF_XDP on one interface: the classifier and a socket on each receive queue.
//!
//! Owner: the bearer. The classifier is attached after the sockets are in its map, and lives as long as the
//! port: a frame that meets no socket goes to the kernel. Everything is sent through the first socket,
//! which keeps the order of packets. Where the node has further workers, they serve the queues.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use xtipc_ebpf::{AttachMode, Classifier, QueueCounters};
use xtipc_management::{Counters, QueueInfo};
use xtipc_xsk::handover::HandoverCounters;
use xtipc_xsk::{
    BindMode, ClosingSocket, FrameIndex, FramePool, Reserve, SocketConfig, XdpStatistics, XskSocket,
};

use super::arrears::{Arrears, Lookout, STALL};
use super::error::{StillHeld, XdpError};
use super::ethernet::Mac;
use super::traffic::{TxDrop, named};
use crate::crew::{Crew, Member};
use crate::wait::Interest;

/// How long a packet may stay uncompleted before its socket is made anew.
const COMPLETION_OVERDUE: Duration = Duration::from_secs(1);
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
    /// By queue; empty while they are made anew.
    sockets: Vec<XskSocket>,
    /// Who serves them, by queue, if that is not this worker.
    servers: Vec<Arc<Member>>,
    lookout: Lookout,
    /// Closed, but not yet released by the kernel.
    closing: Vec<ClosingSocket>,
    ifindex: u32,
    queues: u32,
    bind: BindMode,
    multi_buffer: bool,
    /// A system call on a socket failed for good.
    broken: bool,
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
            sockets: Vec::new(),
            servers: Vec::new(),
            lookout: Lookout::default(),
            closing: Vec::new(),
            ifindex: setup.ifindex,
            queues: setup.queues,
            bind: setup.bind,
            multi_buffer: setup.multi_buffer,
            broken: false,
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

    fn open_sockets(&mut self, pool: &mut FramePool) -> Result<(), XdpError> {
        pool.want_areas(self.queues);
        for queue in 0..self.queues {
            let config = SocketConfig {
                multi_buffer: self.multi_buffer,
                join: self.sockets.first(),
                ..SocketConfig::new(self.ifindex, queue, self.bind)
            };
            let socket = XskSocket::open(pool, &config)?;
            // Kept first, so that whoever cleans up finds it.
            self.sockets.push(socket);
            self.classifier
                .insert_socket(queue, &self.sockets[queue as usize])?;
        }
        Ok(())
    }

    /// Lets the further workers, if there are any, serve the queues of newly opened sockets.
    pub(super) fn hand_over(&mut self, crew: &Crew, pool: &FramePool) {
        let first = self.servers.len();
        let sockets = self.sockets.iter_mut().skip(first);
        let servers = sockets.map_while(|socket| crew.hand_over(socket, pool));
        self.servers.extend(servers);
    }

    /// The numbers of the workers that serve the queues, by queue; none if this one does.
    pub(super) fn servers(&self) -> Vec<usize> {
        self.servers.iter().map(|server| server.index).collect()
    }

    /// Whether the workers that serve the queues have handed over what came.
    pub(super) fn arrears(&mut self, now: Duration) -> Arrears {
        let queues = self.sockets.iter().zip(&self.servers);
        let behind = queues.filter(|(socket, _)| !socket.is_caught_up());
        let looked_ns = behind.map(|(_, server)| server.last_round_ns()).min();
        self.lookout.judge(now, looked_ns.map(Duration::from_nanos))
    }

    /// Hands up to `budget` received frames to the callback; returns how many.
    pub(super) fn receive(&mut self, budget: usize, mut on_frame: impl FnMut(&[u8])) -> usize {
        let count = self.sockets.len();
        let mut frames = 0;
        for step in 0..count {
            let socket = &mut self.sockets[(self.turn + step) % count];
            frames += socket.receive(budget - frames, |frame| on_frame(frame));
        }
        if count > 1 {
            self.turn = (self.turn + 1) % count;
        }
        frames
    }

    /// Puts part of a frame into the TX ring. A full ring is emptied into the kernel once.
    pub(super) fn send(
        &mut self,
        pool: &mut FramePool,
        frame: FrameIndex,
        offset: usize,
        len: usize,
        reserve: Reserve,
    ) -> Result<(), TxDrop> {
        let Some(socket) = self.sockets.first_mut() else {
            return Err(TxDrop::InterfaceDown);
        };
        if socket.send(pool, frame, offset, len, reserve).is_ok() {
            return Ok(());
        }
        self.broken |= socket.kick().is_err();
        socket.complete(pool);
        socket
            .send(pool, frame, offset, len, reserve)
            .map_err(|_full| TxDrop::Full)
    }

    /// Takes back what the kernel has sent.
    pub(super) fn complete(&mut self, pool: &mut FramePool) {
        for socket in &mut self.sockets {
            socket.complete(pool);
        }
    }

    /// The end of a round: the system calls that the kernel needs.
    pub(super) fn flush(&mut self) {
        for socket in &mut self.sockets {
            let woken = socket.kick().and_then(|()| socket.wake_fill());
            self.broken |= woken.is_err();
        }
    }

    pub(super) fn set_clock(&mut self, now: Duration) {
        for socket in &mut self.sockets {
            socket.set_clock(now);
        }
    }

    pub(super) fn set_mac(&mut self, mac: Mac) -> Result<(), XdpError> {
        Ok(self.classifier.set_mac(mac)?)
    }

    /// Of sockets that others serve, only their end is waited for here.
    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        self.sockets.iter().map(|socket| {
            let interest = match socket.is_served() {
                true => Interest::HangUp,
                false => Interest::Read,
            };
            (socket.as_fd(), interest)
        })
    }

    pub(super) fn rx_ready(&mut self) -> bool {
        self.sockets.iter_mut().any(XskSocket::rx_ready)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.sockets.iter().all(XskSocket::is_quiet)
    }

    /// Whether the sockets no longer do their work and must be made anew ([`Self::reopen`]).
    pub(super) fn is_stuck(&mut self, pool: &mut FramePool, now: Duration) -> bool {
        self.complete(pool);
        let overdue = |socket: &XskSocket| {
            socket
                .oldest_tx_age(now)
                .is_some_and(|age| age > COMPLETION_OVERDUE)
        };
        // With something under way a worker looks every few milliseconds: one that does not is late itself.
        let is_late = |queue: usize| {
            self.servers.get(queue).is_some_and(|server| {
                now.saturating_sub(Duration::from_nanos(server.last_round_ns())) > STALL
            })
        };
        let mut sockets = self.sockets.iter().enumerate();
        self.broken
            || self.sockets.is_empty()
            || sockets.any(|(queue, socket)| overdue(socket) && !is_late(queue))
    }

    /// Closes the sockets and opens them again, as far as the kernel has let go of them; otherwise the port
    /// stays stuck, without sockets, and this can be called again.
    pub(super) fn reopen(&mut self, pool: &mut FramePool) -> Result<(), XdpError> {
        self.close_sockets(pool);
        let deadline = Instant::now() + REOPEN_TIMEOUT;
        let closing = std::mem::take(&mut self.closing).into_iter();
        self.closing = closing
            .filter_map(|socket| socket.wait(pool, deadline).err())
            .collect();
        if !self.closing.is_empty() {
            return Ok(());
        }
        self.broken = false;
        let opened = self.open_sockets(pool);
        if opened.is_err() {
            self.close_sockets(pool);
        }
        opened
    }

    fn close_sockets(&mut self, pool: &mut FramePool) {
        self.servers.clear();
        let sockets = self.sockets.drain(..);
        self.closing
            .extend(sockets.map(|socket| socket.begin_close(pool)));
    }

    /// Sends what is waiting, closes the sockets and waits until the kernel has released them. The classifier is still
    /// attached, if it was.
    pub(super) fn close(self, pool: &mut FramePool) -> (Classifier, Result<(), StillHeld>) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let sockets = self.sockets.into_iter();
        let held: Vec<_> = sockets
            .filter_map(|socket| socket.close(pool, CLOSE_TIMEOUT).err())
            .chain(self.closing)
            .collect();
        let held = held
            .into_iter()
            .filter_map(|socket| socket.wait(pool, deadline).err());
        (self.classifier, still_held(held.collect()))
    }

    /// Closes the sockets, with what has not been sent, and detaches the classifier. They are still to be waited for.
    pub(super) fn begin_close(self, pool: &mut FramePool) -> ClosingSockets {
        let sockets = self.sockets.into_iter();
        let closing = sockets.map(|socket| socket.begin_close(pool));
        ClosingSockets(closing.chain(self.closing).collect())
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
        let infos = self.sockets.iter().enumerate().map(|(queue, socket)| {
            let server = self.servers.get(queue);
            QueueInfo {
                worker: server.map_or(0, |server| server.index as u32),
                ..queue_info(socket)
            }
        });
        infos.collect()
    }

    /// Packets dropped because this worker had not taken those that other workers had handed over before.
    pub(super) fn dropped_at_handover(&self) -> u64 {
        let counters = self.sockets.iter().filter_map(XskSocket::handover_counters);
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

fn queue_info(socket: &XskSocket) -> QueueInfo {
    let counters = socket.counters();
    let kernel = socket.statistics().map(kernel_counters);
    QueueInfo {
        queue: socket.queue(),
        rx_packets: counters.receive.packets,
        tx_packets: counters.transmit.packets,
        kernel: kernel.unwrap_or_default(),
        handover: socket
            .handover_counters()
            .map_or_else(Counters::new, handover_counters),
        ..QueueInfo::default()
    }
}

fn handover_counters(counters: HandoverCounters) -> Counters {
    named([
        ("rx", counters.received),
        ("rx-dropped", counters.dropped),
        ("tx", counters.sent),
        ("wakes", counters.owner_woken),
        ("woken", counters.server_woken),
    ])
}

fn kernel_counters(statistics: XdpStatistics) -> Counters {
    named([
        ("rx-dropped", statistics.rx_dropped),
        ("rx-invalid-descriptors", statistics.rx_invalid_descs),
        ("tx-invalid-descriptors", statistics.tx_invalid_descs),
        ("rx-ring-full", statistics.rx_ring_full.unwrap_or(0)),
        (
            "fill-ring-empty",
            statistics.rx_fill_ring_empty_descs.unwrap_or(0),
        ),
        ("tx-ring-empty", statistics.tx_ring_empty_descs.unwrap_or(0)),
    ])
}
