//! What links and the monitor of their bearer tell each other (`docs/protocol/monitor.md`).

use super::{Engine, MONITOR_TIMER, PeerIndex};
use crate::addr::{BearerId, MAX_BEARERS, NodeAddr};
use crate::host::{DownReason, Host};
use crate::monitor::{Monitor, Supervision};
use crate::time::Instant;
use crate::wire::{LinkProtocol, Msg, field};
use std::time::Duration;

/// So long losses are gathered before others are told of them: answers to the probes of one moment come within this time.
const GATHER: Duration = Duration::from_millis(2);

impl Engine {
    /// Which links are watched.
    pub fn set_supervision(&mut self, supervision: Supervision) {
        for monitor in &mut self.core.monitors {
            monitor.set_supervision(supervision);
        }
    }

    /// Nodes up to which no records are sent and no ring is kept.
    pub fn set_monitor_threshold(&mut self, threshold: usize) {
        for monitor in &mut self.core.monitors {
            monitor.set_threshold(threshold);
        }
    }

    /// The same, of all bearers: of those that are not enabled too.
    pub fn monitor_threshold(&self) -> usize {
        self.core.monitors[0].threshold()
    }

    /// The monitor of a bearer that is enabled.
    pub fn monitor(&self, bearer: BearerId) -> Option<&Monitor> {
        let enabled = self.bearers[bearer.index()].is_some();
        enabled.then(|| &self.core.monitors[bearer.index()])
    }

    /// The record behind a STATE that the peer's link accepted. One that is not well-formed says nothing; the STATE
    /// counts all the same.
    pub(super) fn on_record<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        bearer: BearerId,
        msg: Msg<'_>,
        with_gaps: bool,
        host: &mut H,
    ) {
        let Some(peer) = self.peer(index).filter(|peer| peer.is_up()) else {
            return;
        };
        let addr = peer.addr;
        if let Ok(Some(record)) = LinkProtocol::domain(msg, with_gaps) {
            let asks = msg.flag(field::PROBE);
            self.core.monitors[bearer.index()].on_record(now, addr, &record, asks);
            self.look_at_suspects(now, bearer, host);
        }
    }

    /// A link of the bearer went down: those who go by what this node says are told soon.
    pub(super) fn on_monitored_down<H: Host>(
        &mut self,
        now: Instant,
        bearer: BearerId,
        addr: NodeAddr,
        host: &mut H,
    ) {
        let monitor = &mut self.core.monitors[bearer.index()];
        let was_cut_off = monitor.is_cut_off(now);
        if monitor.peer_down(now, addr) {
            self.wheel.arm(MONITOR_TIMER, now + GATHER);
        }
        if monitor.is_cut_off(now) && !was_cut_off {
            for index in 0..self.peers.len() {
                self.look_at(now, index, bearer);
            }
        }
        self.look_at_suspects(now, bearer, host);
    }

    pub(super) fn forget_monitored(&mut self, addr: NodeAddr) {
        for monitor in &mut self.core.monitors {
            monitor.remove(addr);
        }
    }

    /// Tells of all that was lost lately.
    pub(super) fn tell_losses<H: Host>(&mut self, now: Instant, host: &mut H) {
        for bearer in (0..MAX_BEARERS as u8).map(BearerId) {
            if self.core.monitors[bearer.index()].take_news() {
                for index in 0..self.peers.len() {
                    self.tell_of_losses(now, index, bearer, host);
                }
            }
        }
    }

    /// Tells a peer, if it is one that this node tells at once. Where each link is watched from both ends what others say
    /// is but a hint, and who was not heard for long is most likely lost, too. In a ring an answer is asked for: without
    /// it the peer would be told again.
    fn tell_of_losses<H: Host>(
        &mut self,
        now: Instant,
        index: PeerIndex,
        bearer: BearerId,
        host: &mut H,
    ) {
        let Some((peer, bcast, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        let Some(link) = peer.links.get_mut(bearer) else {
            return;
        };
        let monitor = &ctx.core.monitors[bearer.index()];
        if !monitor.is_untold(peer.addr) || !monitor.tells_at_once(now, peer.addr) {
            return;
        }
        let tolerance = Duration::from_millis(link.tolerance_ms.into());
        let view = peer.bcast.view(bcast.last_sent(), &ctx.core.table);
        if monitor.is_ring() {
            link.send_probe(&mut ctx, &view);
        } else if !monitor.watches_all(tolerance) && link.silence(now) < tolerance * 9 / 10 {
            link.send_ack(&mut ctx, &view);
        }
    }

    /// Others lost nodes: those that were not heard here either for half a tolerance are lost, if enough say so; the
    /// rest is looked at.
    fn look_at_suspects<H: Host>(&mut self, now: Instant, bearer: BearerId, host: &mut H) {
        while let Some((addr, believed)) = self.core.monitors[bearer.index()].pop_suspect() {
            let Some(index) = self.reachable(addr) else {
                continue;
            };
            let silent = self
                .peer(index)
                .and_then(|peer| peer.links.get(bearer))
                .is_some_and(|link| {
                    let half = Duration::from_millis(u64::from(link.tolerance_ms / 2));
                    link.silence(now) >= half
                });
            if believed && silent {
                self.fail_link(now, index, bearer, DownReason::Reported, host);
            } else {
                self.look_at(now, index, bearer);
            }
        }
    }

    /// The link to a peer is to be judged at once.
    fn look_at(&mut self, now: Instant, index: PeerIndex, bearer: BearerId) {
        let peer = self.peers.get_mut(index).and_then(Option::as_mut);
        if let Some(link) = peer.and_then(|peer| peer.links.get_mut(bearer))
            && link.is_up()
        {
            link.hasten(now);
            self.wheel.arm(Self::peer_timer(index), now);
        }
    }
}
