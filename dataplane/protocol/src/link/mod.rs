//! One end of a unicast link (`docs/protocol/link.md`).
//!
//! A [`Link`] belongs to its peer ([`crate::node::Peer`]). It numbers and keeps what it sent until the
//! other end has it, defers what arrives too early, and judges by silence whether the peer is alive.
//! What arrives in order it leaves to the engine to deliver.

mod alike;
pub mod fsm;
pub mod gap_chain;
mod patience;
mod protocol;
pub mod queue;
mod receive;
mod round_trip;
mod transmit;
mod tunnel;
mod watch;

use crate::addr::{BearerId, MediaAddr, NodeAddr, PortId};
use crate::crypto;
use crate::engine::Ctx;
use crate::frame::{FrameList, FrameTable};
use crate::host::{Host, MediaDest, Reserve};
use crate::reassembly::Assembly;
use crate::seqno::SeqNo;
use crate::stats::LinkStats;
use crate::time::Instant;
use crate::wire::{Capabilities, GapList, INTERFACE_NAME, Importance, size};
use fsm::{LinkEvent, LinkState};
use patience::Patience;
use queue::SendQueue;
use round_trip::RoundTrip;
use std::hint::black_box;
use std::time::Duration;
use watch::Watch;

pub use protocol::Verdict;
pub use receive::{DEFERRED_MIN, Deferral, Progress, Sequenced, defer, missing, next_deferred};

/// Packets received without another packet going back before a STATE acknowledges them.
pub const ACK_THRESHOLD: u16 = 16;
/// Packets beyond the next expected one that are kept.
pub const RECEIVE_WINDOW: u16 = 8191;
/// Longest time that a packet is taken to be on its way.
pub const TRANSIT_MAX: Duration = Duration::from_millis(50);
/// Tolerances that a failover may take.
const FAILOVER_TOLERANCES: u32 = 10;
/// RESETs at the first ticks of a link that is down, and ticks from one to the next from then on.
const RESETS_IN_A_ROW: u32 = 5;
const RESET_EVERY: u32 = 16;
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

/// What an operator changes of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// 0 to 31. The peer adopts it, which takes the link down and up again.
    Priority(u8),
    /// 50 to 30,000 ms. The peer adopts it.
    Tolerance(u32),
    /// Packets in flight at most, 50 to 8191. The peer does not hear of it.
    Window(u16),
}

impl LinkParams {
    /// Changes one of them.
    pub fn set(&mut self, setting: Setting) {
        match setting {
            Setting::Priority(priority) => self.priority = priority,
            Setting::Tolerance(tolerance_ms) => self.tolerance_ms = tolerance_ms,
            Setting::Window(max_window) => self.max_window = max_window,
        }
    }
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
    pub blocks: GapList,
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

/// STATEs that carry a new setting: one may be lost.
const ANNOUNCEMENTS: u8 = 4;

/// How many STATEs the peer is still to be told a setting in.
#[derive(Clone, Copy, Debug, Default)]
struct Untold {
    priority: u8,
    tolerance: u8,
}

/// Largest message that goes in one packet: room is left for a tunnel header and for encryption, in whole words, since
/// Linux keeps what pads a fragment before it is encrypted.
#[inline]
pub fn mss(mtu: usize) -> usize {
    (mtu.saturating_sub(size::INT + crypto::OVERHEAD) & !3).max(size::MIN_PACKET)
}

/// One end of a link.
///
/// A node may have a thousand that are idle, and the memory of each is far away when it is looked at. So what a look, a
/// probe and its answer need lies together, in the order of the lines of a processor's cache; `tests` below says which.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Link {
    // First line: whether the peer is alive.
    /// Its state.
    pub state: LinkState,
    /// The bearer it runs on.
    pub bearer: BearerId,
    /// Network plane: the lower node address decides.
    pub net_plane: u8,
    /// Priority in force.
    pub priority: u8,
    in_session: bool,
    /// The last tick found nothing under way: the next one comes with the next look at the peer.
    resting: bool,
    /// What it is given waits: the peer has not acknowledged all that came before over another link.
    held: bool,
    /// Bearer of the peer, as it numbers them.
    peer_bearer: u8,
    /// The node at the other end.
    pub peer: NodeAddr,
    /// Tolerance in force.
    pub tolerance_ms: u32,
    next_tick: Instant,
    /// What [`Self::next_timeout`] gave.
    due: Instant,
    watch: Watch,
    // Second line: numbers, and whether packets wait.
    /// What the peer can do.
    pub capabilities: Capabilities,
    session: SeqNo,
    peer_session: SeqNo,
    rcv_nxt: SeqNo,
    /// The number the peer will give its next packet, as its last STATE told.
    peer_snd_nxt: SeqNo,
    state_snd_nxt: SeqNo,
    state_rcv_nxt: SeqNo,
    rcv_unacked: u16,
    /// `snd_nxt` at the last tick.
    checkpoint: SeqNo,
    window: u16,
    slow_start_threshold: u16,
    acked_in_window: u16,
    min_window: u16,
    max_window: u16,
    /// STATEs that still carry a priority an operator has set, and a tolerance.
    untold: Untold,
    /// It carries messages, alone or beside another link.
    pub joined: bool,
    /// It has been up since the last reset.
    opened: bool,
    deferred: FrameList,
    /// Its backlog fills the third line.
    queue: SendQueue,
    // Fourth line: where to.
    /// How many of this node's binding updates it has carried, or the peer has from the broadcast link.
    pub told: u64,
    waiters: Vec<Waiter>,
    /// Where the peer is.
    pub media_addr: MediaAddr,
    // Fifth line: what is counted of probes. Behind it what only messages and resets need.
    round_trip: RoundTrip,
    /// Counters since the last reset.
    pub stats: LinkStats,
    patience: Patience,
    /// When a packet with a number was last sent.
    sequenced_at: Instant,
    /// Nothing is said of a new session before this: packets of the old one may still be on their way.
    mute_until: Instant,
    /// Largest packet both ends take.
    pub mtu: usize,
    /// The message being put together.
    pub assembly: Assembly,
    /// Interface at the peer, NUL-terminated; empty until the first RESET or ACTIVATE.
    pub peer_interface: [u8; INTERFACE_NAME],
    own_mtu: u32,
    /// As it last announced; without limit until it does.
    peer_mtu: u32,
    /// What its last STATE said of that.
    peer_mtu_told: Option<u32>,
    /// The MTU is another than RESET and ACTIVATE told: every STATE says so.
    resized: bool,
    reset_ticks: u32,
    /// The last packet that carries one of another link.
    tunnelled_until: Option<SeqNo>,
    /// The peer has spoken as if this endpoint were up since the last tick: it needs a RESET.
    unaware: bool,
    /// It did so although the tick before had sent one.
    ignored: bool,
    /// The last tick sent a RESET.
    reset_sent: bool,
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
    /// First session number: later than any this node used towards the peer before.
    pub session: u16,
    /// Now.
    pub now: Instant,
}

/// What a look at the link found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It was not time for a tick.
    Between,
    /// A tick with nothing to act on.
    Ticked,
    /// The peer is silent for too long.
    Silent,
}

impl Link {
    /// A link in state RESET.
    pub fn new(setup: &LinkSetup) -> Self {
        let params = setup.params;
        let mut link = Self {
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
            joined: false,
            told: 0,
            opened: false,
            tunnelled_until: None,
            held: false,
            min_window: params.min_window,
            max_window: params.max_window,
            untold: Untold::default(),
            own_mtu: setup.mtu as u32,
            peer_mtu: u32::MAX,
            peer_mtu_told: None,
            resized: false,
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
            watch: Watch::default(),
            reset_ticks: 0,
            next_tick: setup.now,
            due: setup.now,
            resting: false,
            sequenced_at: Instant::default(),
            // An earlier link to this peer may have been dropped a moment ago.
            mute_until: setup.now + TRANSIT_MAX,
            checkpoint: SeqNo(0),
            window: params.min_window,
            slow_start_threshold: params.max_window,
            acked_in_window: 0,
            round_trip: RoundTrip::default(),
            waiters: Vec::new(),
        };
        link.next_tick = link.mute_until.max(setup.now + link.tick_interval());
        link
    }

    /// Changes a setting, and tells the peer what concerns it.
    pub fn set<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, setting: Setting, bcast: &BroadcastView) {
        match setting {
            Setting::Priority(priority) => {
                self.priority = priority;
                self.untold.priority = ANNOUNCEMENTS;
            }
            Setting::Tolerance(tolerance_ms) => {
                self.tolerance_ms = tolerance_ms;
                self.next_tick = self.next_tick.min(ctx.now + self.tick_interval());
                self.untold.tolerance = ANNOUNCEMENTS;
            }
            Setting::Window(max_window) => {
                self.max_window = max_window;
                self.window = self.min_window;
                self.slow_start_threshold = max_window;
                return;
            }
        }
        self.send_ack(ctx, bcast);
    }

    /// The bearer takes longer packets from now on, or shorter ones. What is queued stays as it is.
    pub fn set_mtu<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, mtu: usize, bcast: &BroadcastView) {
        self.own_mtu = mtu as u32;
        self.agree_on_mtu(self.peer_mtu);
        self.resized = true;
        self.send_ack(ctx, bcast);
    }

    fn agree_on_mtu(&mut self, of_peer: u32) {
        self.peer_mtu = of_peer;
        self.mtu = self.own_mtu.min(of_peer) as usize;
    }

    /// Packets that may be in flight at most.
    pub fn window_max(&self) -> u16 {
        self.max_window
    }

    /// True while messages can be sent.
    #[inline]
    pub fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Established | LinkState::Synching)
    }

    /// True once it has received a packet with a number.
    pub fn has_received(&self) -> bool {
        self.rcv_nxt != SeqNo(1)
    }

    /// The number expected next.
    pub fn rcv_nxt(&self) -> SeqNo {
        self.rcv_nxt
    }

    /// True once it was given a packet to send.
    pub fn has_carried(&self) -> bool {
        self.queue.snd_nxt != SeqNo(1) || !self.queue.is_empty()
    }

    /// True between going down and [`Self::reset`].
    pub fn is_to_be_reset(&self) -> bool {
        !self.is_up() && self.opened
    }

    /// True if there is something to do.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// True while the peer is not known to have all that another link gave this one when it was lost.
    pub fn carries_failover(&self, table: &FrameTable) -> bool {
        self.tunnelled_until
            .is_some_and(|last| !self.has_acked(table, last))
    }

    /// What it held has arrived over another link: it may come up again.
    pub fn end_failover(&mut self, now: Instant) {
        if self.state == LinkState::FailingOver {
            self.turn(LinkEvent::FailoverEnd);
            // The peer lost its end too, so what it said before is of a session that is over: it may have left it by half of
            // all numbers since, which would compare as old for ever.
            self.in_session = false;
            self.reset_ticks = 0;
            self.next_tick = self.mute_until.max(now);
        }
    }

    /// Packets that it lets out now.
    #[inline]
    fn open_window(&self) -> u16 {
        if self.held { 0 } else { self.window }
    }

    /// True if so much was received since the last acknowledgement that one is due.
    #[inline]
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

    /// Largest message that goes in one packet.
    #[inline]
    pub fn mss(&self) -> usize {
        mss(self.mtu)
    }

    /// Where packets to the peer go.
    #[inline]
    pub fn dest(&self) -> MediaDest {
        MediaDest::Unicast(self.media_addr)
    }

    /// Time from tick to tick.
    pub fn tick_interval(&self) -> Duration {
        TICK_MAX.min(Duration::from_millis(u64::from(self.tolerance_ms / 4)))
    }

    /// Tolerance in force.
    pub fn tolerance(&self) -> Duration {
        Duration::from_millis(self.tolerance_ms.into())
    }

    /// For how long the peer has not been heard.
    pub fn silence(&self, now: Instant) -> Duration {
        self.watch.silence(now)
    }

    /// Ticks that make up the tolerance.
    pub fn ticks_of_tolerance(&self) -> u32 {
        self.tolerance_ms / self.tick_interval().as_millis().max(1) as u32
    }

    /// Reads a word of each line that a probe or an answer needs.
    pub(crate) fn read(&self) {
        let number = u64::from(self.rcv_nxt.0) ^ self.waiters.len() as u64;
        black_box(self.due.0 ^ number ^ u64::from(self.stats.ticks));
    }

    /// Forgets everything of the session and starts a new one. Every waiting sender is released.
    pub fn reset<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        self.fall_mute(ctx.now);
        self.queue.purge(&ctx.core.table, ctx.host);
        self.deferred.free_all(&ctx.core.table, ctx.host);
        self.held = false;
        self.opened = false;
        self.tunnelled_until = None;
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
        self.reset_ticks = 0;
        self.resting = false;
        self.checkpoint = SeqNo(0);
        self.acked_in_window = 0;
        self.peer_mtu_told = None;
        self.resized = false;
        self.agree_on_mtu(u32::MAX);
        self.stats = LinkStats::default();
    }

    /// Packets carry no session: those of the old one, if they arrived in the new one, would be taken for its own. So
    /// the peer does not hear of the new one while any of them may be under way. One that was never acknowledged may
    /// have waited in a transmit ring while this node stood still.
    fn fall_mute(&mut self, now: Instant) {
        let last_sent = if self.queue.transmit.is_empty() {
            self.sequenced_at
        } else {
            now
        };
        self.mute_until = self.mute_until.max(last_sent + TRANSIT_MAX);
        self.next_tick = self.next_tick.max(self.mute_until);
    }

    /// True while nothing may be said of the session in force.
    fn is_mute(&self, now: Instant) -> bool {
        now < self.mute_until
    }

    /// When to call [`Self::on_timeout`] next.
    pub fn next_timeout(&mut self) -> Instant {
        let next = match self.state {
            LinkState::Reset | LinkState::Establishing | LinkState::FailingOver => self.next_tick,
            LinkState::Established | LinkState::Synching => {
                let look = self.watch.next_look(self.tolerance());
                look.map_or(self.next_tick, |look| {
                    if self.resting {
                        look
                    } else {
                        look.min(self.next_tick)
                    }
                })
            }
        };
        // Timers fire at whole milliseconds: what is later than that is a stall.
        self.due = Instant::from_millis(next.0.div_ceil(1_000_000));
        self.due
    }

    /// It is to be looked at now.
    pub fn hasten(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// The regular look at the link.
    pub fn on_timeout<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) -> Look {
        let ticks = ctx.now >= self.next_tick;
        if ticks {
            self.next_tick = ctx.now + self.tick_interval();
        }
        match self.state {
            LinkState::Reset if ticks => self.tick_reset(ctx, bcast),
            LinkState::Establishing if ticks => self.send_activate(ctx, bcast),
            LinkState::Reset | LinkState::Establishing => {}
            LinkState::FailingOver => {
                self.reset_ticks += u32::from(ticks);
                if self.reset_ticks > self.ticks_of_tolerance() * FAILOVER_TOLERANCES {
                    return Look::Silent;
                }
            }
            LinkState::Established | LinkState::Synching => {
                let stall = ctx.now.since(self.due);
                self.watch.on_own_stall(ctx.now, stall, self.tolerance());
                let monitor = &ctx.core.monitors[self.bearer.index()];
                let pace = monitor.pace(ctx.now, self.peer, self.tolerance());
                self.watch.set_pace(ctx.now, pace);
                if self.watch.is_over(ctx.now) {
                    return Look::Silent;
                }
                self.look_at_peer(ctx, bcast, ticks);
            }
        }
        if ticks { Look::Ticked } else { Look::Between }
    }

    fn tick_reset<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) {
        self.reset_ticks += 1;
        // Some RESETs in a row, then one from time to time: the peer may be gone for long. One that
        // speaks is not gone, and does not know.
        let unaware = std::mem::take(&mut self.unaware);
        let monitor = &ctx.core.monitors[self.bearer.index()];
        if self.reset_ticks == 1 && monitor.has_lost_many(ctx.now) {
            // Of many that were lost together none is hurried, nor all of them called at once.
            self.reset_ticks += RESETS_IN_A_ROW + self.peer.0 % RESET_EVERY;
        }
        let in_a_row = self.reset_ticks <= RESETS_IN_A_ROW;
        self.reset_sent = unaware || in_a_row || self.reset_ticks.is_multiple_of(RESET_EVERY);
        if self.reset_sent {
            self.leave_ignored_session();
            self.send_reset(ctx, bcast, false);
        }
    }

    /// The peer lives. If it acknowledges packets that were never sent, what lives there is not the other
    /// end of this link any more: only a reset makes the two agree again.
    #[inline]
    fn note_sign_of_life(&mut self, now: Instant, ack: SeqNo) {
        if self.was_sent(ack) {
            self.watch.on_sign_of_life(now);
        }
    }

    fn look_at_peer<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView, ticks: bool) {
        let mut probe = self.watch.is_probe_due(ctx.now, self.tolerance());
        let mut state_due = false;
        if ticks {
            self.sample(ctx);
            state_due = bcast.state_due || self.rcv_unacked > 0 || !self.queue.transmit.is_empty();
            let idle = self.queue.snd_nxt == self.checkpoint;
            let lacks = !self.deferred.is_empty();
            self.resting = idle && !state_due && !lacks;
            // What an idle peer is probed with tells it of this node's record, too.
            let monitor = &mut ctx.core.monitors[self.bearer.index()];
            let tells = !(idle && self.watch.asks()) && monitor.may_tell(ctx.now, self.peer);
            // A probe shows the peer what it misses at the end, and asks what is missing here.
            probe |= tells || lacks || idle && !self.queue.transmit.is_empty();
            if idle {
                self.restart_window();
            }
            self.checkpoint = self.queue.snd_nxt;
        }
        if probe {
            self.watch.on_probe(ctx.now);
        }
        if state_due || probe {
            self.send_state(ctx, bcast, protocol::StateReason::Tick { probe }, 0);
        }
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
    #[inline]
    fn wake<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        if !self.waiters.is_empty() {
            self.wake_waiters(ctx);
        }
    }

    fn wake_waiters<H: Host>(&mut self, ctx: &mut Ctx<'_, H>) {
        let mut room = [0usize; Importance::COUNT];
        for importance in [
            Importance::Low,
            Importance::Medium,
            Importance::High,
            Importance::Critical,
        ] {
            let limit = queue::backlog_limit(importance, self.min_window, self.mtu);
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
        ctx.send_once(self.bearer, self.dest(), Some(self.peer), write);
    }

    fn transmit_queued<H: Host>(&self, ctx: &mut Ctx<'_, H>, frame: crate::frame::FrameRef) {
        let meta = ctx.core.table.meta(frame);
        let reserve = if meta.importance == Importance::System {
            Reserve::Control
        } else {
            Reserve::Data
        };
        let (len, node) = (meta.len as usize, Some(self.peer));
        ctx.transmit(self.bearer, self.dest(), node, frame, len, reserve);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    const LINE: usize = 64;

    #[test]
    fn what_probes_need_is_in_four_lines() {
        assert_eq!(offset_of!(Link, capabilities), LINE);
        let transmit = offset_of!(Link, queue) + offset_of!(SendQueue, transmit);
        assert!(transmit + size_of::<FrameList>() <= 2 * LINE);
        assert_eq!(offset_of!(Link, told), 3 * LINE);
        assert_eq!(offset_of!(Link, round_trip), 4 * LINE);
        let last = offset_of!(Link, stats) + offset_of!(LinkStats, tx_probes);
        assert!(last < 5 * LINE, "{last}");
        assert_eq!(size_of::<Link>(), 9 * LINE);
    }
}
