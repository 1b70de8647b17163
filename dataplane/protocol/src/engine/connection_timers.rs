//! Time and connections: requests sent again, connects that give up, probes
//! (`docs/protocol/connections.md`, set-up and probing).
//!
//! All of it runs on one timer. Requests under way are few and each has its deadline; established
//! connections are many and are looked through once in a while.

use super::{CONNECTION_TIMER, Engine};
use crate::addr::PortId;
use crate::connection::{PROBE_INTERVAL, ProbeDue, State};
use crate::host::{ConnectFailure, Disconnect, Host, Notice};
use crate::time::Instant;
use crate::wire::Importance;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Time between two looks at all connections. A probe is so much late at most.
const LOOK: Duration = Duration::from_millis(PROBE_INTERVAL.as_millis() as u64 / 60);

/// When connections need attention.
pub(super) struct ConnectionClock {
    /// Of sockets that connect. An entry counts only if the request still has this deadline.
    deadlines: BinaryHeap<Reverse<(Instant, PortId)>>,
    /// The next look at established connections; `None` while there are none.
    look_at: Option<Instant>,
    armed: Option<Instant>,
    random: u64,
}

impl ConnectionClock {
    pub(super) fn new(random: u64) -> Self {
        Self {
            deadlines: BinaryHeap::new(),
            look_at: None,
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

    /// A connection was established.
    pub(super) fn watch_established(&mut self, now: Instant) {
        self.clock.look_at.get_or_insert(now + LOOK);
        self.arm_connection_timer();
    }

    fn arm_connection_timer(&mut self) {
        let clock = &mut self.clock;
        let first = clock.deadlines.peek().map(|Reverse((at, _))| *at);
        let next = [first, clock.look_at].into_iter().flatten().min();
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
        if self.clock.look_at.is_some_and(|at| at <= now) {
            self.clock.look_at = self.look_at_connections(now, host).then_some(now + LOOK);
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

    /// Probes the peers that are due; false if there is no connection any more.
    fn look_at_connections<H: Host>(&mut self, now: Instant, host: &mut H) -> bool {
        let mut due = Vec::new();
        let mut any = false;
        for (id, port) in &self.ports {
            if let Some(connection) = port.connection()
                && connection.state == State::Established
            {
                any = true;
                match connection.probe.due(now) {
                    ProbeDue::Not => {}
                    what => due.push((*id, what)),
                }
            }
        }
        // In an order that does not depend on the table, so that a run can be repeated.
        due.sort_unstable_by_key(|(id, _)| *id);
        for (id, what) in due {
            match what {
                ProbeDue::Not => {}
                ProbeDue::Send => self.send_probe(now, id, host),
                ProbeDue::Silent => {
                    self.end_connection(id, Disconnect::Silent, Importance::Low, &[][..], host);
                }
            }
        }
        any
    }
}
