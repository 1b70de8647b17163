//! Time and connections: requests sent again, connects that give up, probes
//! (`docs/protocol/connections.md`, set-up and probing).
//!
//! All of it runs on one timer. Requests under way are few and lie in a heap; established connections are
//! many, but all are probed after the same time, so their turns come in the order in which they were entered.

use super::{CONNECTION_TIMER, Engine};
use crate::addr::PortId;
use crate::connection::ProbeDue;
use crate::host::{ConnectFailure, Disconnect, Host, Notice};
use crate::time::Instant;
use crate::wire::Importance;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Turns of connections that may be over are kept up to this number, and up to as many as those of others.
const STALE_TURNS: usize = 1024;

/// When connections need attention.
pub(super) struct ConnectionClock {
    /// Of sockets that connect. An entry counts only if the request still has this deadline.
    deadlines: BinaryHeap<Reverse<(Instant, PortId)>>,
    /// Turns of established connections, the next one first. An entry counts only if the connection is probed then.
    turns: VecDeque<(Instant, PortId)>,
    /// At this number of turns those of connections that are over are dropped.
    turns_max: usize,
    armed: Option<Instant>,
    random: u64,
}

impl ConnectionClock {
    pub(super) fn new(random: u64) -> Self {
        Self {
            deadlines: BinaryHeap::new(),
            turns: VecDeque::new(),
            turns_max: STALE_TURNS,
            armed: None,
            random,
        }
    }

    /// The next random number (SplitMix64).
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn pop_due(&mut self, now: Instant) -> Option<(Instant, PortId)> {
        let Reverse((at, _)) = *self.deadlines.peek()?;
        (at <= now).then(|| self.deadlines.pop().map(|Reverse(due)| due))?
    }
}

impl Engine {
    /// A socket that connects needs attention at `at`.
    pub(super) fn attend(&mut self, at: Instant, id: PortId) {
        self.clock.deadlines.push(Reverse((at, id)));
        self.arm_connection_timer();
    }

    /// A connection was established, or probed: its next turn comes an hour later.
    pub(super) fn await_turn(&mut self, id: PortId) {
        let Some(at) = self.established(id).map(|connection| connection.probe.at()) else {
            return;
        };
        if self.clock.turns.len() >= self.clock.turns_max {
            let mut turns = std::mem::take(&mut self.clock.turns);
            turns.retain(|(at, id)| self.is_turn(*at, *id));
            self.clock.turns_max = 2 * turns.len() + STALE_TURNS;
            self.clock.turns = turns;
        }
        self.clock.turns.push_back((at, id));
        self.arm_connection_timer();
    }

    fn is_turn(&mut self, at: Instant, id: PortId) -> bool {
        self.established(id)
            .is_some_and(|connection| connection.probe.at() == at)
    }

    fn arm_connection_timer(&mut self) {
        let clock = &mut self.clock;
        let first = clock.deadlines.peek().map(|Reverse((at, _))| *at);
        let turn = clock.turns.front().map(|(at, _)| *at);
        let next = [first, turn].into_iter().flatten().min();
        if next != clock.armed {
            clock.armed = next;
            if let Some(at) = next {
                self.wheel.arm(CONNECTION_TIMER, at);
            }
        }
    }

    pub(super) fn on_connection_timer<H: Host>(&mut self, now: Instant, host: &mut H) {
        self.clock.armed = None;
        while let Some((at, id)) = self.clock.pop_due(now) {
            self.on_deadline(now, at, id, host);
        }
        while let Some((at, id)) = self.clock.turns.pop_front_if(|(at, _)| *at <= now) {
            if self.is_turn(at, id) {
                self.take_turn(now, id, host);
            }
        }
        self.arm_connection_timer();
    }

    fn on_deadline<H: Host>(&mut self, now: Instant, at: Instant, id: PortId, host: &mut H) {
        let port = self.ports.get_mut(&id);
        let Some(syn) = port.and_then(|p| p.connection_mut()?.syn.as_mut()) else {
            return;
        };
        if syn.give_up_at == Some(at) {
            syn.give_up_at = None;
            host.notice(Notice::ConnectFailed(id, ConnectFailure::TimedOut));
        }
        if syn.retry_at == Some(at) {
            syn.retry_at = None;
            // A node that cannot be reached any more has ended the connection already.
            let _ = self.send_syn(now, id, host);
        }
    }

    /// Probes the peer of a connection, or gives it up.
    fn take_turn<H: Host>(&mut self, now: Instant, id: PortId, host: &mut H) {
        match self.established(id).map(|c| c.probe.due(now)) {
            None | Some(ProbeDue::Not) => {}
            Some(ProbeDue::Send) => {
                self.send_probe(now, id, host);
                self.await_turn(id);
            }
            Some(ProbeDue::Silent) => {
                self.end_connection(id, Disconnect::Silent, Importance::Low, &[][..], host);
            }
        }
    }
}
