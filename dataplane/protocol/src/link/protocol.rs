//! STATE, RESET and ACTIVATE: building them, judging them, acting on them
//! (`docs/protocol/link.md`, link protocol).

use super::fsm::{Effect, LinkEvent, LinkState, step};
use super::{BroadcastView, Link};
use crate::engine::Ctx;
use crate::host::{DownReason, Host};
use crate::seqno::SeqNo;
use crate::wire::{
    Body, Capabilities, DomainRecord, GapAckRecord, GapBlocks, GapList, LinkProtocol, Reset, State,
    field, size,
};

/// Why a STATE is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateReason {
    /// The regular look at the link.
    Tick {
        /// Ask for an answer.
        probe: bool,
    },
    /// Answer to a probe.
    Answer,
    /// Enough has been received.
    Acknowledge,
    /// Something is missing.
    Missing,
}

/// What a LINK_PROTOCOL message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing for the node to act on.
    Fine,
    /// The link went up.
    Up,
    /// The link went down.
    Down(DownReason),
}

impl Link {
    /// True if the message belongs to the session in force, or may start one.
    pub fn accepts(&self, message: &LinkProtocol) -> bool {
        if self.state == LinkState::FailingOver {
            return false;
        }
        let session = SeqNo(message.session);
        match &message.body {
            Body::Reset(_) => !self.in_session || session.after(self.peer_session),
            Body::Activate { .. } => !self.in_session || !session.before(self.peer_session),
            Body::State(_) => {
                self.in_session
                    && session == self.peer_session
                    && (self.is_up() || message.ack == 0)
                    && (!self.capabilities.has(Capabilities::LINK_PROTO_SEQNO)
                        || !SeqNo(message.seqno).before(self.state_rcv_nxt))
            }
        }
    }

    /// A message that [`Self::accepts`] did not accept. If it speaks as if this endpoint were up it gets a
    /// RESET: the first one at once, and one at the next tick in any case.
    pub fn on_refused<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        message: &LinkProtocol,
        bcast: &BroadcastView,
    ) {
        let believes_us_up = matches!(message.body, Body::State(_));
        if !believes_us_up || self.state != LinkState::Reset || self.reset_ticks == 0 {
            return;
        }
        self.ignored |= self.reset_sent;
        if !self.reset_sent && !self.unaware && !self.is_mute(ctx.now) {
            self.send_reset(ctx, bcast, false);
        }
        self.unaware = true;
    }

    /// The peer takes only a RESET with a session after the one it knows. If it goes on as if nothing
    /// had been said, this node was restarted and its numbers compare as old: those half way round
    /// compare as new.
    pub(super) fn leave_ignored_session(&mut self) {
        if std::mem::take(&mut self.ignored) {
            self.session = self.session + 0x8000;
        }
    }

    /// Acts on a message that [`Self::accepts`] accepted.
    pub fn on_link_protocol<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        message: &LinkProtocol,
        bcast: &BroadcastView,
    ) -> Verdict {
        if ctx.core.own.0 > message.own {
            self.net_plane = message.net_plane;
        }
        match &message.body {
            Body::State(state) => self.on_state(ctx, message, state, bcast),
            Body::Reset(reset) => self.on_reset(message, reset, None),
            Body::Activate {
                reset,
                dest_session,
            } => {
                let known = dest_session.is_none_or(|session| SeqNo(session) == self.session);
                let verdict = self.on_reset(message, reset, Some(*dest_session));
                if !known && self.state == LinkState::Reset && !self.is_mute(ctx.now) {
                    // A Linux peer that a RESET took down answers with the session before, until it sees
                    // another one.
                    self.send_reset(ctx, bcast, false);
                }
                verdict
            }
        }
    }

    /// RESET, or ACTIVATE with its destination session.
    fn on_reset(
        &mut self,
        message: &LinkProtocol,
        reset: &Reset,
        activate: Option<Option<u16>>,
    ) -> Verdict {
        if (reset.max_packet as usize) < size::MIN_MTU {
            return Verdict::Fine;
        }
        self.peer_interface = reset.interface;
        self.adopt(message.tolerance_ms, message.priority.max(self.priority));
        if reset.peer_stopping {
            return self.apply(LinkEvent::Failure, DownReason::PeerStopping);
        }
        if let Some(Some(dest_session)) = activate
            && SeqNo(dest_session) != self.session
        {
            // The peer answers an earlier incarnation: make the next RESET newer than that.
            if !self.is_up() && self.session.before(SeqNo(dest_session)) {
                self.session = SeqNo(dest_session).next();
            }
            return Verdict::Fine;
        }
        let was_up = self.is_up();
        let mut verdict = Verdict::Fine;
        if activate.is_none() || !self.is_up() {
            verdict = self.apply(LinkEvent::PeerReset, DownReason::PeerReset);
        }
        if activate.is_some() && self.state == LinkState::Establishing && verdict == Verdict::Fine {
            verdict = self.apply(LinkEvent::Establish, DownReason::PeerReset);
        }
        if !matches!(verdict, Verdict::Down(_)) {
            let bearer = self.peer_bearer;
            self.join(message, reset);
            if was_up {
                // The binding that stands for the link names the bearer it came up with.
                self.peer_bearer = bearer;
            }
        }
        verdict
    }

    /// Adopts the peer's session. After a reset caused by the peer it is adopted again, since the reset
    /// forgot it.
    fn join(&mut self, message: &LinkProtocol, reset: &Reset) {
        self.peer_session = SeqNo(message.session);
        self.in_session = true;
        self.peer_bearer = message.bearer_id;
        self.agree_on_mtu(reset.max_packet);
    }

    fn adopt(&mut self, tolerance_ms: u16, priority: u8) {
        if (50..=30_000).contains(&tolerance_ms) {
            self.tolerance_ms = tolerance_ms.into();
            self.untold.tolerance = 0;
        }
        if (1..=31).contains(&priority) && priority != self.priority {
            self.priority = priority;
            self.untold.priority = 0;
        }
    }

    fn on_state<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        message: &LinkProtocol,
        state: &State,
        bcast: &BroadcastView,
    ) -> Verdict {
        self.state_rcv_nxt = SeqNo(message.seqno).next();
        self.stats.rx_states += 1;
        self.note_sign_of_life(ctx.now, SeqNo(message.ack));
        self.on_told_mtu(state.max_packet);
        let priority_changes =
            (1..=31).contains(&message.priority) && message.priority != self.priority;
        self.adopt(message.tolerance_ms, message.priority);
        if priority_changes {
            return self.apply(LinkEvent::Failure, DownReason::PriorityChange);
        }
        if !self.is_up() {
            return self.apply(LinkEvent::Establish, DownReason::PeerReset);
        }
        self.stats.rx_probes += u32::from(state.probe);
        if state.seq_gap > 0 {
            self.stats.rx_naks += 1;
        }
        if state.keepalive && !state.probe {
            self.round_trip.on_answer(ctx.now);
        }
        self.peer_snd_nxt = SeqNo(message.next_sent);
        let tail_lost = (state.probe || state.keepalive)
            && SeqNo(message.next_sent).after(self.rcv_nxt)
            && self.deferred.is_empty()
            && self.state != LinkState::Synching;
        let verdict = self.acknowledge_state(ctx, message, state);
        if tail_lost || state.probe {
            let reason = if state.probe {
                StateReason::Answer
            } else {
                StateReason::Missing
            };
            let gap = SeqNo(message.next_sent).distance_from(self.rcv_nxt);
            self.send_state(ctx, bcast, reason, if tail_lost { gap } else { 0 });
        }
        verdict
    }

    /// Believed when two STATEs in turn say the same: one that was damaged on its way would make packets short for as long
    /// as the link is up.
    fn on_told_mtu(&mut self, told: Option<u32>) {
        let before = std::mem::replace(&mut self.peer_mtu_told, told);
        if let Some(mtu) = told
            && told == before
            && mtu as usize >= size::MIN_MTU
        {
            self.agree_on_mtu(mtu);
        }
    }

    fn acknowledge_state<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        message: &LinkProtocol,
        state: &State,
    ) -> Verdict {
        let blocks = state
            .gaps
            .as_ref()
            .map_or(GapBlocks::default(), |gaps| gaps.unicast);
        match self.acknowledge(ctx, SeqNo(message.ack), state.seq_gap, blocks) {
            Ok(()) => Verdict::Fine,
            Err(reason) => self.apply(LinkEvent::Failure, reason),
        }
    }

    /// A packet other than LINK_PROTOCOL while ESTABLISHING proves that the peer's endpoint is up.
    pub fn on_proof_of_life(&mut self) -> Verdict {
        match self.state {
            LinkState::Establishing => self.apply(LinkEvent::Establish, DownReason::PeerReset),
            LinkState::Reset
            | LinkState::Established
            | LinkState::Synching
            | LinkState::FailingOver => Verdict::Fine,
        }
    }

    /// The link went up: from now on the peer has to be heard. The STATE is what opens its end.
    pub fn open<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) {
        self.opened = true;
        self.watch.open(ctx.now, ctx.core.own < self.peer);
        let monitor = &ctx.core.monitors[self.bearer.index()];
        let pace = monitor.pace(ctx.now, self.peer, self.tolerance());
        self.watch.set_pace(ctx.now, pace);
        self.send_ack(ctx, bcast);
    }

    /// Answers the new session of the peer, which took the link down: at once, or as soon as that may be.
    pub fn rejoin<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        message: &LinkProtocol,
        reset: &Reset,
        bcast: &BroadcastView,
    ) {
        self.join(message, reset);
        if self.is_mute(ctx.now) {
            self.next_tick = self.mute_until;
        } else {
            self.send_activate(ctx, bcast);
        }
    }

    /// Begins or ends to wait for another link, in either direction of its life.
    pub fn turn(&mut self, event: LinkEvent) {
        self.state = step(self.state, event).0;
    }

    /// Takes an established link down.
    pub fn fail(&mut self, reason: DownReason) -> Verdict {
        self.apply(LinkEvent::Failure, reason)
    }

    fn apply(&mut self, event: LinkEvent, reason: DownReason) -> Verdict {
        let (state, effect) = step(self.state, event);
        self.state = state;
        match effect {
            None => Verdict::Fine,
            Some(Effect::Up) => Verdict::Up,
            Some(Effect::Down) => Verdict::Down(reason),
        }
    }

    /// Says what is missing.
    pub fn send_nack<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) {
        self.send_state(ctx, bcast, StateReason::Missing, 0);
    }

    /// Acknowledges what was received, and tells the state of the broadcast link.
    pub fn send_ack<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) {
        self.send_state(ctx, bcast, StateReason::Acknowledge, 0);
    }

    pub(super) fn send_state<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        bcast: &BroadcastView,
        reason: StateReason,
        tail_gap: u16,
    ) {
        if !self.is_up() {
            return;
        }
        let mut blocks = GapList::default();
        let gap = self.ask(ctx.now, &ctx.core.table, &mut blocks);
        let seq_gap = if gap > 0 { gap } else { tail_gap };
        let probe = matches!(reason, StateReason::Tick { probe: true });
        let with_gaps = self.capabilities.has(Capabilities::GAP_ACK_BLOCK);
        let state = State {
            probe,
            keepalive: probe || reason == StateReason::Answer,
            // 13 and 10 bits on the wire; what is beyond is asked for later.
            seq_gap: seq_gap.min(0x1fff),
            bc_gap: bcast.gap.min(0x3ff),
            gaps: with_gaps.then(|| GapAckRecord {
                broadcast: bcast.blocks.blocks(),
                unicast: blocks.blocks(),
            }),
            max_packet: self.resized.then_some(self.own_mtu),
        };
        self.stats.tx_states += 1;
        self.stats.tx_probes += u32::from(probe);
        if probe {
            self.round_trip.on_probe(ctx.now);
        }
        if seq_gap > 0 {
            self.stats.tx_naks += 1;
        }
        if reason == StateReason::Acknowledge {
            self.stats.tx_acks += 1;
        }
        let seqno = self.state_snd_nxt;
        self.state_snd_nxt = seqno.next();
        self.rcv_unacked = 0;
        let mut message = self.message(ctx.core.own.0, bcast, seqno, Body::State(state));
        if let Some(left) = self.untold.priority.checked_sub(1) {
            self.untold.priority = left;
            message.priority = self.priority;
        }
        if let Some(left) = self.untold.tolerance.checked_sub(1) {
            self.untold.tolerance = left;
            message.tolerance_ms = self.tolerance_ms as u16;
        }
        let mut record = [0; DomainRecord::MAX_SIZE];
        let len = ctx.core.monitors[self.bearer.index()].emit(self.peer, &mut record);
        self.send_once(ctx, |out| {
            let end = message.emit(out);
            out[end..end + len].copy_from_slice(&record[..len]);
            field::SIZE.set(out, (end + len) as u32);
            end + len
        });
    }

    /// Asks the peer for an answer, and tells it what it has not been told.
    pub fn send_probe<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) {
        self.watch.on_probe(ctx.now);
        self.send_state(ctx, bcast, StateReason::Tick { probe: true }, 0);
    }

    /// Sends a RESET; `stopping` announces that this end goes down for good.
    pub fn send_reset<H: Host>(
        &mut self,
        ctx: &mut Ctx<'_, H>,
        bcast: &BroadcastView,
        stopping: bool,
    ) {
        let body = Body::Reset(self.reset_body(ctx, stopping));
        let message = self.message(ctx.core.own.0, bcast, SeqNo(0x8000), body);
        self.send_once(ctx, |out| message.emit(out));
    }

    /// Sends an ACTIVATE.
    pub fn send_activate<H: Host>(&mut self, ctx: &mut Ctx<'_, H>, bcast: &BroadcastView) {
        let dest_session = Some(self.peer_session.0);
        let body = Body::Activate {
            reset: self.reset_body(ctx, false),
            dest_session,
        };
        let message = self.message(ctx.core.own.0, bcast, SeqNo(0x8000), body);
        self.send_once(ctx, |out| message.emit(out));
    }

    fn reset_body<H: Host>(&self, ctx: &Ctx<'_, H>, peer_stopping: bool) -> Reset {
        Reset {
            peer_stopping,
            max_packet: self.own_mtu,
            interface: ctx.core.interfaces[self.bearer.index()],
        }
    }

    fn message<'a>(
        &self,
        own: u32,
        bcast: &BroadcastView,
        seqno: SeqNo,
        body: Body<'a>,
    ) -> LinkProtocol<'a> {
        LinkProtocol {
            own,
            peer: self.peer.0,
            session: self.session.0,
            bearer_id: self.bearer.0,
            net_plane: self.net_plane,
            tolerance_ms: 0,
            priority: 0,
            redundant_link: bcast.up,
            bc_ack_invalid: !bcast.up,
            bcast_ack: bcast.ack.0,
            last_bcast: bcast.last_sent.0,
            next_sent: self.queue.snd_nxt.0,
            ack: self.rcv_nxt.prev().0,
            seqno: seqno.0,
            body,
        }
    }
}
