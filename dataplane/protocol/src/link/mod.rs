//! One end of a unicast link (`docs/protocol/link.md`).
//!
//! A [`Link`] belongs to its peer ([`crate::node::Peer`]). It numbers and keeps what it sent until the
//! other end has it, defers what arrives too early, and judges by silence whether the peer is alive.
//! What arrives in order it leaves to the engine to deliver.

pub mod fsm;
pub mod gap_chain;
mod patience;
mod protocol;
pub mod queue;
mod receive;
mod round_trip;
mod transmit;

use crate::addr::{BearerId, MediaAddr, NodeAddr, PortId};
use crate::engine::Ctx;
use crate::frame::FrameList;
use crate::host::{Host, MediaDest, Reserve};
use crate::reassembly::Assembly;
use crate::seqno::SeqNo;
use crate::stats::LinkStats;
use crate::time::Instant;
use crate::wire::{Capabilities, GapBlocks, INTERFACE_NAME, Importance, size};
use fsm::LinkState;
use patience::Patience;
use queue::SendQueue;
use round_trip::RoundTrip;
use std::time::Duration;

pub use protocol::Verdict;
pub use receive::{DEFERRED_MIN, Deferral, Progress, Sequenced, defer, missing, next_deferred};

/// Packets received without another packet going back before a STATE acknowledges them.
pub const ACK_THRESHOLD: u16 = 16;
/// Packets beyond the next expected one that are kept.
pub const RECEIVE_WINDOW: u16 = 8191;
/// Longest interval between two ticks of a link.
const TICK_MAX: Duration = Duration::from_millis(500);

/// What a bearer gives each of its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkParams {
    /// 0 to 31; higher wins.
    pub priority: u8,
    /// 50 to 30,000 ms.
    pub tolerance_ms: u32,
    /// Packets in flight at least.
    pub min_window: u16,
    /// Packets in flight at most.
    pub max_window: u16,
}

impl Default for LinkParams {
    fn default() -> Self {
        Self {
            priority: 10,
            tolerance_ms: 1500,
            min_window: 50,
            max_window: 8191,
        }
    }
}

/// What a link says of the broadcast link to this peer in its STATE messages.
#[derive(Clone, Debug)]
pub struct BroadcastView {
    /// The start point of the peer's broadcasts is known.
    pub up: bool,
    /// Last broadcast of the peer received in order.
    pub ack: SeqNo,
    /// Broadcasts missing behind it.
    pub gap: u16,
    /// What was received behind the gap.
    pub blocks: GapBlocks,
    /// Last broadcast this node sent.
    pub last_sent: SeqNo,
    /// A STATE is due for the broadcast link's sake.
    pub state_due: bool,
}

/// A socket that waits for room on the link.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    port: PortId,
    importance: Importance,
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    /// The node at the other end.
    pub peer: NodeAddr,
    /// The bearer it runs on.
    pub bearer: BearerId,
    /// Where the peer is.
    pub media_addr: MediaAddr,
    /// What the peer can do.
    pub capabilities: Capabilities,
    /// Its state.
    pub state: LinkState,
    /// Bearer of the peer, as it numbers them.
    peer_bearer: u8,
    /// Interface at the peer, NUL-terminated; empty until the first RESET or ACTIVATE.
    pub peer_interface: [u8; INTERFACE_NAME],
    /// Priority in force.
    pub priority: u8,
    /// Tolerance in force.
    pub tolerance_ms: u32,
    /// Network plane: the lower node address decides.
    pub net_plane: u8,
    /// Largest packet both ends take.
    pub mtu: usize,
    /// Counters since the last reset.
    pub stats: LinkStats,
    /// The message being put together.
    pub assembly: Assembly,
    params: LinkParams,
    own_mtu: usize,
    own_interface: [u8; INTERFACE_NAME],
    session: SeqNo,
    /// The peer has spoken as if this endpoint were up since the last tick: it needs a RESET.
    unaware: bool,
    /// It did so although the tick before had sent one.
    ignored: bool,
    /// The last tick sent a RESET.
    reset_sent: bool,
    peer_session: SeqNo,
    in_session: bool,
    queue: SendQueue,
    rcv_nxt: SeqNo,
    /// The number the peer will give its next packet, as its last STATE told.
    peer_snd_nxt: SeqNo,
    state_snd_nxt: SeqNo,
    state_rcv_nxt: SeqNo,
    deferred: FrameList,
    rcv_unacked: u16,
    patience: Patience,
    silent_ticks: u32,
    reset_ticks: u32,
    last_tick: Option<Instant>,
    /// This node stood still, and what the peer thinks of it has to be found out soon.
    in_doubt: bool,
    /// `snd_nxt` at the last tick.
    checkpoint: SeqNo,
    window: u16,
    slow_start_threshold: u16,
    acked_in_window: u16,
    round_trip: RoundTrip,
    waiters: Vec<Waiter>,
}

/// What a new link needs to know.
#[derive(Clone, Copy, Debug)]
pub struct LinkSetup {
    /// The node at the other end.
    pub peer: NodeAddr,
    /// The bearer.
    pub bearer: BearerId,
    /// Where the peer is.
    pub media_addr: MediaAddr,
    /// What the peer can do.
    pub capabilities: Capabilities,
    /// Limits and defaults.
    pub params: LinkParams,
    /// MTU of the bearer.
    pub mtu: usize,
    /// Own interface name.
    pub interface: [u8; INTERFACE_NAME],
    /// First session number: later than any this node used towards the peer before.
    pub session: u16,
}

/// What a tick found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Nothing to act on.
    Fine,
    /// The peer was silent for the tolerance.
    Silent,
}

impl Link {
    /// A link in state RESET.
    pub fn new(setup: &LinkSetup) -> Self {
        let params = setup.params;
        Self {
            peer: setup.peer,
            bearer: setup.bearer,
            media_addr: setup.media_addr,
            capabilities: setup.capabilities,
            state: LinkState::Reset,
            peer_bearer: 0,
            peer_interface: [0; INTERFACE_NAME],
            priority: params.priority,
            tolerance_ms: params.tolerance_ms,
            net_plane: setup.bearer.0,
            mtu: setup.mtu,
            stats: LinkStats::default(),
            assembly: Assembly::default(),
            params,
            own_mtu: setup.mtu,
            own_interface: setup.interface,
            session: SeqNo(setup.session),
            unaware: false,
            ignored: false,
            reset_sent: false,
            peer_session: SeqNo(0),
            in_session: false,
            queue: SendQueue::default(),
            rcv_nxt: SeqNo(1),
            peer_snd_nxt: SeqNo(1),
            state_snd_nxt: SeqNo(1),
            state_rcv_nxt: SeqNo(1),
            deferred: FrameList::default(),
            rcv_unacked: 0,
            patience: Patience::default(),
            silent_ticks: 0,
            reset_ticks: 0,
            last_tick: None,
            in_doubt: false,
            checkpoint: SeqNo(0),
            window: params.min_window,
            slow_start_threshold: params.max_window,
            acked_in_window: 0,
            round_trip: RoundTrip::default(),
            waiters: Vec::new(),
        }
    }

    /// True while messages can be sent.
    pub fn is_up(&self) -> bool {
        self.state == LinkState::Established
    }

    /// True if so much was received since the last acknowledgement that one is due.
    pub fn is_ack_due(&self) -> bool {
        self.rcv_unacked >= ACK_THRESHOLD
    }

    /// Bearer of the peer, as it numbers them.
    pub fn peer_bearer(&self) -> u8 {
        self.peer_bearer
    }

    /// Packets that may be in flight now.
    pub fn window(&self) -> u16 {
        self.window
    }

    /// Packets sent and not acknowledged, and packets waiting for the window.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Packets of these that wait.
    pub fn waiting_len(&self) -> usize {
        self.queue.waiting()
    }

    /// The shortest time of the last seconds between a packet and its acknowledgement.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.estimate()
    }

    /// Largest message that goes in one packet: room is left for a tunnel header.
    pub fn mss(&self) -> usize {
        self.mtu - size::INT
    }

    /// Where packets to the peer go.
    pub fn dest(&self) -> MediaDest {
        MediaDest::Unicast(self.media_addr)
    }

    /// Time to the next tick.
    pub fn tick_interval(&self) -> Duration {
        if self.in_doubt {
            self.usual_interval() / 4
        } else {
            self.usual_interval()
        }
    }

    fn usual_interval(&self) -> Duration {
        TICK_MAX.min(Duration::from_millis(u64::from(self.tolerance_ms / 4)))
    }

    fn tolerance(&self) -> Duration {
        Duration::from_millis(self.tolerance_ms.into())
    }

    /// Ticks without a sign of life after which the peer is given up.
    pub fn silent_limit(&self) -> u32 {
        self.tolerance_ms / self.usual_interval().as_millis().max(1) as u32
    }

    /// Forgets everything of the session and starts a new one. Every waiting sender is released.
    pub fn reset<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        self.queue.purge(&ctx.core.table, ctx.host);
        while let Some(frame) = self.deferred.pop_front(&ctx.core.table) {
            ctx.host.free(frame);
        }
        self.assembly.clear(&mut ctx.core.buffers);
        ctx.core
            .woken
            .extend(self.waiters.drain(..).map(|w| w.port));
        self.session = self.session.next();
        self.unaware = false;
        self.ignored = false;
        self.reset_sent = false;
        self.peer_session = self.peer_session.prev();
        self.in_session = false;
        self.rcv_nxt = SeqNo(1);
        self.peer_snd_nxt = SeqNo(1);
        self.state_snd_nxt = SeqNo(1);
        self.state_rcv_nxt = SeqNo(1);
        self.rcv_unacked = 0;
        self.patience = Patience::default();
        self.silent_ticks = 0;
        self.reset_ticks = 0;
        self.checkpoint = SeqNo(0);
        self.acked_in_window = 0;
        self.mtu = self.own_mtu;
        self.stats = LinkStats::default();
    }

    /// The regular look at the link, once per [`Self::tick_interval`].
    pub fn on_tick<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) -> Tick {
        let last_tick = self.last_tick.replace(ctx.now);
        match self.state {
            LinkState::Reset => {
                self.tick_reset(ctx, bcast);
                Tick::Fine
            }
            LinkState::Establishing => {
                self.send_activate(ctx, bcast);
                Tick::Fine
            }
            LinkState::Established => {
                let patience = self.usual_interval() + self.tolerance();
                if last_tick.is_some_and(|last| ctx.now.since(last) > patience) {
                    self.doubt_after_own_stall();
                }
                self.tick_established(ctx, bcast)
            }
        }
    }

    fn tick_reset<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) {
        self.reset_ticks += 1;
        self.in_doubt = false;
        // Five RESETs in a row, then one in sixteen ticks: the peer may be gone for long. One that
        // speaks is not gone, and does not know.
        let unaware = std::mem::take(&mut self.unaware);
        self.reset_sent = unaware || self.reset_ticks <= 5 || self.reset_ticks.is_multiple_of(16);
        if self.reset_sent {
            self.leave_ignored_session();
            self.send_reset(ctx, bcast, false);
        }
    }

    /// This node stood still for longer than the tolerance, so the peer has most likely given it up, and
    /// may have said so while nobody listened. Two probes at short intervals find out; the silence during
    /// the stall says nothing.
    fn doubt_after_own_stall(&mut self) {
        self.silent_ticks = self.silent_limit().saturating_sub(1);
        self.in_doubt = true;
    }

    /// The peer lives. If it acknowledges packets that were never sent, what lives there is not the other
    /// end of this link any more: only a reset makes the two agree again.
    fn note_sign_of_life(&mut self, ack: SeqNo) {
        if self.was_sent(ack) {
            self.silent_ticks = 0;
        }
    }

    fn tick_established<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) -> Tick {
        self.sample(ctx);
        if self.silent_ticks > self.silent_limit() {
            return Tick::Silent;
        }
        self.in_doubt &= self.silent_ticks > 0;
        let state_due = bcast.state_due || self.rcv_unacked > 0 || !self.queue.transmit.is_empty();
        let mut probe = self.silent_ticks > 0 || !self.deferred.is_empty();
        self.silent_ticks += 1;
        if self.queue.snd_nxt == self.checkpoint {
            self.restart_window();
            probe = true;
        }
        self.checkpoint = self.queue.snd_nxt;
        if state_due || probe {
            self.send_state(ctx, bcast, protocol::StateReason::Tick { probe }, 0);
        }
        Tick::Fine
    }

    fn sample<H: Host>(&mut self, ctx: &Ctx<'_, H>) {
        let in_flight = self.queue.transmit.len();
        self.stats.ticks += 1;
        self.stats.queue_length_sum += in_flight as u64;
        self.stats.queue_length_max = self.stats.queue_length_max.max(in_flight as u32);
        if let Some(head) = self.queue.transmit.front() {
            self.stats.sample(ctx.core.table.meta(head).len);
        }
    }

    /// Notes that `port` met congestion and wants to hear when there is room.
    pub fn wait(&mut self, port: PortId, importance: Importance) {
        self.stats.congested += 1;
        if !self.waiters.iter().any(|w| w.port == port) {
            self.waiters.push(Waiter { port, importance });
        }
    }

    /// Forgets a socket that no longer exists.
    pub fn forget(&mut self, port: PortId) {
        self.waiters.retain(|w| w.port != port);
    }

    /// Releases as many waiting senders as there is room for, in order.
    fn wake<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        if self.waiters.is_empty() {
            return;
        }
        let mut room = [0usize; Importance::COUNT];
        for importance in [
            Importance::Low,
            Importance::Medium,
            Importance::High,
            Importance::Critical,
        ] {
            let limit = queue::backlog_limit(importance, self.params.min_window, self.mtu);
            room[importance as usize] = limit.saturating_sub(self.queue.backlog_len(importance));
        }
        let woken = &mut ctx.core.woken;
        self.waiters.retain(|w| {
            let room = &mut room[w.importance as usize];
            if *room == 0 {
                return true;
            }
            *room -= 1;
            woken.push_back(w.port);
            false
        });
    }

    /// Sends a LINK_PROTOCOL message or the like: written once, freed by its transmission.
    fn send_once<H: Host>(&self, ctx: &mut Ctx<'_, H>, write: impl FnOnce(&mut [u8]) -> usize) {
        ctx.send_once(self.bearer, self.dest(), write);
    }

    fn transmit_queued<H: Host>(&self, ctx: &mut Ctx<'_, H>, frame: crate::frame::FrameRef) {
        let meta = ctx.core.table.meta(frame);
        let reserve = if meta.importance == Importance::System {
            Reserve::Control
        } else {
            Reserve::Data
        };
        ctx.host
            .transmit(self.bearer, self.dest(), frame, meta.len as usize, reserve);
    }
}
