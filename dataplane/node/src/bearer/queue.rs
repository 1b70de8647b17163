//! A receive queue of an interface: its socket, who serves that, and what becomes of it when it does no work.
//!
//! Owned by a port.

use std::sync::Arc;
use std::time::{Duration, Instant};

use xtipc_management::{Counters, QueueInfo};
use xtipc_xsk::handover::HandoverCounters;
use xtipc_xsk::{ClosingSocket, FrameIndex, FramePool, Reserve, XdpStatistics, XskSocket};

use super::arrears::STALL;
use super::traffic::{TxDrop, named};
use crate::crew::{Crew, Member};

/// How long a packet may stay uncompleted before its socket is made anew.
const COMPLETION_OVERDUE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    /// `None` while it is made anew.
    pub(super) socket: Option<XskSocket>,
    /// The worker that serves it, if that is not this one.
    pub(super) server: Option<Arc<Member>>,
    /// Closed, and not yet released by the kernel.
    closing: Option<ClosingSocket>,
    /// A system call failed for good, or what was sent is not completed.
    stuck: bool,
}

impl Queue {
    /// Whether there is neither a socket nor one that the kernel still has.
    pub(super) fn is_vacant(&self) -> bool {
        self.socket.is_none() && self.closing.is_none()
    }

    /// Lets another worker, if there is one, serve a newly opened socket.
    pub(super) fn hand_over(&mut self, crew: &Crew, pool: &FramePool) {
        let new = self.socket.as_mut().filter(|socket| !socket.is_served());
        if let Some(socket) = new {
            // Whose share it was before counts no more.
            self.server = None;
            self.server = crew.hand_over(socket, pool);
        }
    }

    /// When the worker that serves it made its last round, if there is something that it has not handed over.
    pub(super) fn awaited_since_ns(&self) -> Option<u64> {
        let server = self.server.as_ref()?;
        let socket = self.socket.as_ref()?;
        (!socket.is_caught_up()).then(|| server.last_round_ns())
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
        let Some(socket) = &mut self.socket else {
            return Err(TxDrop::InterfaceDown);
        };
        if socket.send(pool, frame, offset, len, reserve).is_ok() {
            return Ok(());
        }
        self.stuck |= socket.kick().is_err();
        socket.complete(pool);
        socket
            .send(pool, frame, offset, len, reserve)
            .map_err(|_full| TxDrop::Full)
    }

    /// The end of a round: the system calls that the kernel needs.
    pub(super) fn flush(&mut self) {
        if let Some(socket) = &mut self.socket {
            let woken = socket.kick().and_then(|()| socket.wake_fill());
            self.stuck |= woken.is_err();
        }
    }

    /// Whether its socket does no work, or it has none. Call after completing.
    pub(super) fn is_stuck(&mut self, now: Duration) -> bool {
        let age = self.socket.as_ref().and_then(|s| s.oldest_tx_age(now));
        // With something under way a worker looks every few milliseconds: one that does not is late itself.
        let is_late = self.server.as_ref().is_some_and(|server| {
            now.saturating_sub(Duration::from_nanos(server.last_round_ns())) > STALL
        });
        self.stuck |= age.is_some_and(|age| age > COMPLETION_OVERDUE) && !is_late;
        self.was_stuck()
    }

    /// What [`Self::is_stuck`] said.
    pub(super) fn was_stuck(&self) -> bool {
        self.stuck || self.socket.is_none()
    }

    /// Closes the socket.
    pub(super) fn begin_close(&mut self, pool: &mut FramePool) {
        self.stuck = false;
        if let Some(socket) = self.socket.take() {
            self.closing = Some(socket.begin_close(pool));
        }
    }

    /// Waits until the kernel has released a closed socket.
    pub(super) fn await_release(&mut self, pool: &mut FramePool, deadline: Instant) {
        let closing = self.closing.take();
        self.closing = closing.and_then(|socket| socket.wait(pool, deadline).err());
    }

    /// Sends what is waiting and closes the socket, within this time; what the kernel has not released by then is still to be
    /// waited for.
    pub(super) fn close(self, pool: &mut FramePool, timeout: Duration) -> Option<ClosingSocket> {
        let held = self.socket.and_then(|s| s.close(pool, timeout).err());
        held.or(self.closing)
    }

    /// Closes the socket with what has not been sent; it is still to be waited for.
    pub(super) fn abandon(mut self, pool: &mut FramePool) -> Option<ClosingSocket> {
        self.begin_close(pool);
        self.closing
    }

    /// What the tools show; `None` without a socket.
    pub(super) fn info(&self) -> Option<QueueInfo> {
        let socket = self.socket.as_ref()?;
        let server = self.server.as_ref();
        let counters = socket.counters();
        let kernel = socket.statistics().map(kernel_counters);
        let handover = socket.handover_counters();
        Some(QueueInfo {
            queue: socket.queue(),
            worker: server.map_or(0, |server| server.index as u32),
            rx_packets: counters.receive.packets,
            tx_packets: counters.transmit.packets,
            kernel: kernel.unwrap_or_default(),
            handover: handover.map_or_else(Counters::new, handover_counters),
        })
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
