//! Finding nodes and an address for this one (`docs/protocol/discovery.md`).

use super::{Engine, PeerIndex};
use crate::addr::{BearerId, MediaAddr, NodeAddr, NodeId};
use crate::host::{Host, MediaDest, Notice};
use crate::link::fsm::{LinkEvent, LinkState};
use crate::link::{Link, LinkSetup};
use crate::node::{Peer, UNESTABLISHED_MAX};
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{Capabilities, DiscoveryKind, LinkConfig, Msg};
use std::time::Duration;

const INITIAL_INTERVAL: Duration = Duration::from_millis(125);
/// Longest interval while the bearer has no link.
const FAST_INTERVAL: Duration = Duration::from_secs(1);
/// Longest interval once it has one.
const SLOW_INTERVAL: Duration = Duration::from_secs(60);
const TRIAL_PERIOD: Duration = Duration::from_secs(1);
/// Vetoes that are believed: somebody who vetoes everything must not keep the node out for ever.
const VETOES_MAX: u32 = 16;

/// The search for an own address.
#[derive(Debug)]
pub(super) struct Trial {
    /// The address on trial.
    pub(super) addr: NodeAddr,
    end: Option<Instant>,
    vetoes: u32,
}

impl Trial {
    pub(super) fn new(addr: NodeAddr) -> Self {
        Self {
            addr,
            end: None,
            vetoes: 0,
        }
    }

    fn is_running(&self, now: Instant) -> bool {
        self.end.is_none_or(|end| now < end)
    }
}

impl Engine {
    pub(super) fn start_discovery<H: Host>(&mut self, now: Instant, id: BearerId, host: &mut H) {
        if self.core.own == NodeAddr::NONE && self.trial.end.is_none() {
            self.trial.end = Some(now + TRIAL_PERIOD);
        }
        self.restart_discovery(now, id);
        self.send_search(now, id, host);
    }

    /// A link went down. If it was the last, looks for peers at the shortest interval again.
    pub(super) fn on_bearer_link_down(&mut self, now: Instant, id: BearerId) {
        if self.bearers[id.index()]
            .as_ref()
            .is_some_and(|bearer| bearer.links_up == 0)
        {
            self.restart_discovery(now, id);
        }
    }

    /// Looks for peers at the shortest interval.
    fn restart_discovery(&mut self, now: Instant, id: BearerId) {
        if let Some(bearer) = &mut self.bearers[id.index()] {
            bearer.interval = INITIAL_INTERVAL;
            self.wheel.arm(id.0.into(), now + INITIAL_INTERVAL);
        }
    }

    pub(super) fn on_discovery_timer<H: Host>(&mut self, now: Instant, id: BearerId, host: &mut H) {
        let in_trial = self.core.own == NodeAddr::NONE;
        let over = in_trial && !self.trial.is_running(now);
        let Some(bearer) = &mut self.bearers[id.index()] else {
            return;
        };
        let limit = if bearer.links_up > 0 {
            SLOW_INTERVAL
        } else {
            FAST_INTERVAL
        };
        bearer.interval = if in_trial {
            INITIAL_INTERVAL
        } else {
            (bearer.interval * 2).min(limit)
        };
        self.wheel.arm(id.0.into(), now + bearer.interval);
        if over {
            self.take_address(now, host);
        } else {
            self.send_search(now, id, host);
        }
    }

    /// The trial is over: the address is this node's.
    pub(super) fn take_address<H: Host>(&mut self, now: Instant, host: &mut H) {
        self.core.own = self.trial.addr;
        self.publish_node_state(now, host);
        host.notice(Notice::AddressFinal(self.core.own));
    }

    /// Broadcasts "who is there?", or during the trial "does anybody use this address?".
    fn send_search<H: Host>(&mut self, now: Instant, id: BearerId, host: &mut H) {
        let trial = self.core.own == NodeAddr::NONE;
        let kind = if trial {
            DiscoveryKind::Trial
        } else {
            DiscoveryKind::Request
        };
        self.send_discovery(
            now,
            id,
            MediaDest::Broadcast,
            kind,
            (0, NodeAddr::NONE),
            host,
        );
    }

    fn send_discovery<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        to: MediaDest,
        kind: DiscoveryKind,
        (dest_domain, suggested): (u32, NodeAddr),
        host: &mut H,
    ) {
        let Some(bearer) = &self.bearers[id.index()] else {
            return;
        };
        let message = LinkConfig {
            kind,
            capabilities: Capabilities::OWN,
            signature: self.config.random as u16,
            dest_domain,
            prev_node: self.trial_addr(),
            net_id: self.config.net_id,
            media_addr: bearer.setup.media_addr,
            net_hash: self.config.random as u32,
            suggested,
            node_id: Some(self.config.id),
        };
        self.ctx(now, host)
            .send_once(id, to, None, |out| message.emit(out));
    }

    /// A packet of user LINK_CONFIG.
    pub(super) fn on_discovery<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        source: MediaAddr,
        msg: Msg<'_>,
        host: &mut H,
    ) {
        let Ok(message) = LinkConfig::parse(msg) else {
            return self.core.drops.count(Drop::MalformedControl);
        };
        let Some(own) = self.bearers[id.index()].as_ref().map(|b| &b.setup) else {
            return;
        };
        if source == own.media_addr || message.media_addr == own.media_addr {
            return self.core.drops.count(Drop::OwnPacket);
        }
        // The answer goes to the announced address: it must be the sender's, not a third party's.
        let source = match own.media.station(message.media_addr) {
            Some(station) if source == station || source == MediaAddr::UNTOLD => station,
            _ => return self.core.drops.count(Drop::SpoofedMediaAddress),
        };
        if message.net_id != self.config.net_id {
            return self.core.drops.count(Drop::OtherCluster);
        }
        if self.core.own == NodeAddr::NONE && !self.trial.is_running(now) {
            self.take_address(now, host);
        }
        match message.kind {
            DiscoveryKind::TrialFail => self.on_veto(now, &message),
            DiscoveryKind::Trial => self.on_trial(now, id, source, &message, host),
            DiscoveryKind::Request | DiscoveryKind::Response => {
                if self.core.own != NodeAddr::NONE {
                    self.on_search(now, id, source, &message, host);
                }
            }
        }
    }

    fn on_veto(&mut self, now: Instant, message: &LinkConfig) {
        let ours = self.core.own == NodeAddr::NONE && message.dest_domain == self.trial.addr.0;
        if ours && message.suggested != NodeAddr::NONE && self.trial.vetoes < VETOES_MAX {
            self.trial.vetoes += 1;
            self.trial.addr = message.suggested;
            self.trial.end = Some(now + TRIAL_PERIOD);
        }
    }

    /// Somebody asks whether the address `prev_node` is free.
    fn on_trial<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        source: MediaAddr,
        message: &LinkConfig,
        host: &mut H,
    ) {
        let wanted = message.prev_node;
        let peer_id = identity_of(message);
        let holder = self.index_of(wanted).and_then(|index| self.peer(index));
        let suggested = if holder.is_some_and(|peer| peer.id == peer_id) {
            return;
        } else if let Some(known) = self.peers.iter().flatten().find(|p| p.id == peer_id) {
            // A node that returns gets its old address back, whoever has the one it asks for: those
            // who know it would not take it for the same node under another address.
            known.addr
        } else if holder.is_some() || wanted == self.trial_addr() {
            self.free_address(wanted)
        } else {
            return;
        };
        let to = MediaDest::Unicast(source);
        self.send_discovery(
            now,
            id,
            to,
            DiscoveryKind::TrialFail,
            (wanted.0, suggested),
            host,
        );
    }

    fn free_address(&self, wanted: NodeAddr) -> NodeAddr {
        let mut addr = NodeAddr(wanted.0 ^ self.config.random as u32);
        while addr == NodeAddr::NONE
            || addr == self.trial_addr()
            || self.peer_index.contains_key(&addr)
        {
            addr = NodeAddr(addr.0.wrapping_add(1));
        }
        addr
    }

    /// A request or a response.
    fn on_search<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        source: MediaAddr,
        message: &LinkConfig,
        host: &mut H,
    ) {
        if message.prev_node == NodeAddr::NONE || message.prev_node == self.core.own {
            self.core.drops.count(Drop::DuplicateAddress);
            return host.notice(Notice::DuplicateAddress(message.prev_node));
        }
        if message.dest_domain != 0 && message.dest_domain != self.core.own.0 {
            return self.core.drops.count(Drop::OtherDomain);
        }
        let Some(index) = self.known_or_new(now, message, host) else {
            return self.core.drops.count(Drop::TooManyNodes);
        };
        let respond = self.compare(now, id, index, source, message, host);
        if respond && message.kind == DiscoveryKind::Request {
            let to = MediaDest::Unicast(source);
            let domain = (message.prev_node.0, NodeAddr::NONE);
            self.send_discovery(now, id, to, DiscoveryKind::Response, domain, host);
        }
    }

    /// The node a message is from. A new one is remembered.
    fn known_or_new<H: Host>(
        &mut self,
        now: Instant,
        message: &LinkConfig,
        host: &mut H,
    ) -> Option<PeerIndex> {
        let id = identity_of(message);
        let known = self
            .known_by_address(now, message.prev_node, id, host)
            .or_else(|| self.known_by_identity(now, id, host));
        if known.is_some() {
            return known;
        }
        self.make_room_for_a_node(now, host);
        let peer = Peer::new(message.prev_node, id, message.capabilities, now);
        let index = match self.peers.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                if self.peers.len() == self.peers.capacity() {
                    // Doubling would keep room for as many nodes that never come.
                    self.peers.reserve_exact(self.peers.len() / 64 + 8);
                }
                self.peers.push(None);
                self.peers.len() - 1
            }
        };
        self.peers[index] = Some(peer);
        self.peer_index.insert(message.prev_node, index as u32);
        self.core.crypto.meet(now, message.prev_node, id);
        Some(index)
    }

    /// The node with this address. Without a link and announced with another identity it is forgotten: its link would
    /// come up under the wrong name, and keep it.
    fn known_by_address<H: Host>(
        &mut self,
        now: Instant,
        addr: NodeAddr,
        id: NodeId,
        host: &mut H,
    ) -> Option<PeerIndex> {
        let index = self.index_of(addr)?;
        if self.peer(index).is_some_and(|p| p.id == id || p.is_up()) {
            return Some(index);
        }
        self.forget_peer(now, index, host);
        None
    }

    /// The node with this identity, which is announced under another address than it has here. Without a
    /// link that proves its address it is forgotten: the address was wrong, or it has another one now.
    fn known_by_identity<H: Host>(
        &mut self,
        now: Instant,
        id: NodeId,
        host: &mut H,
    ) -> Option<PeerIndex> {
        let has_id = |peer: &Option<Peer>| peer.as_ref().is_some_and(|peer| peer.id == id);
        let index = self.peers.iter().position(has_id)?;
        if self.peer(index).is_some_and(Peer::is_up) {
            return Some(index);
        }
        self.forget_peer(now, index, host);
        None
    }

    /// Anybody can invent nodes: of those that never had a link the oldest goes when there are too many.
    fn make_room_for_a_node<H: Host>(&mut self, now: Instant, host: &mut H) {
        let strangers = || {
            self.peers
                .iter()
                .enumerate()
                .filter_map(|(i, p)| Some((i, p.as_ref()?)))
        };
        let strangers = || strangers().filter(|(_, p)| !p.was_up);
        if self.peers.len() < UNESTABLISHED_MAX || strangers().count() < UNESTABLISHED_MAX {
            return;
        }
        let oldest = strangers().min_by_key(|(_, p)| p.since).map(|(i, _)| i);
        if let Some(index) = oldest {
            self.core.drops.count(Drop::TooManyNodes);
            self.forget_peer(now, index, host);
        }
    }

    /// Compares signature and media address with what is known, makes or moves the link, and tells
    /// whether to respond.
    fn compare<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        index: PeerIndex,
        source: MediaAddr,
        message: &LinkConfig,
        host: &mut H,
    ) -> bool {
        let Some(peer) = self.peers[index].as_mut() else {
            return false;
        };
        let same_signature = peer.signature == Some(message.signature);
        let link = peer.links.get(id);
        let same_addr = link.is_some_and(|link| link.media_addr == source);
        let up = link.is_some_and(Link::is_up);
        // Nobody else changes how a running link is spoken on.
        if same_addr || !peer.is_up() {
            peer.capabilities = message.capabilities;
            for link in peer.links.iter_mut() {
                link.capabilities = message.capabilities;
            }
        }
        match (same_signature, same_addr, up) {
            (true, true, up) => !up || peer.restarted,
            (_, false, true) => {
                self.core.drops.count(Drop::DuplicateAddress);
                host.notice(Notice::DuplicateAddress(message.prev_node));
                false
            }
            (false, true, up) => {
                // A new instance, which needs our answer to find us. That the old one is gone is for
                // the link to find out, from the new one's RESET.
                peer.signature = Some(message.signature);
                peer.restarted = up;
                true
            }
            (_, false, false) => {
                peer.signature = Some(message.signature);
                self.accept_station(now, id, index, source, host);
                true
            }
        }
    }

    /// The peer is at a media address that is new for it.
    fn accept_station<H: Host>(
        &mut self,
        now: Instant,
        id: BearerId,
        index: PeerIndex,
        source: MediaAddr,
        host: &mut H,
    ) {
        let session = self.session_at(now);
        let Some(setup) = self.bearers[id.index()].as_ref().map(|b| b.setup) else {
            return;
        };
        let Some((peer, _, mut ctx)) = self.at_peer(index, now, host) else {
            return;
        };
        if let Some(link) = peer.links.get_mut(id) {
            link.media_addr = source;
            if link.state == LinkState::Establishing {
                link.state = LinkState::Reset;
            }
            return link.reset(&mut ctx);
        }
        let mut link = Link::new(&LinkSetup {
            peer: peer.addr,
            bearer: id,
            media_addr: source,
            capabilities: peer.capabilities,
            params: setup.params,
            mtu: setup.mtu,
            session,
            now,
        });
        let failover = peer.failover.as_ref();
        if failover.is_some_and(|failover| failover.failed == id) {
            // The one before it on this bearer is lost, and not all that it brought has come.
            link.turn(LinkEvent::FailoverBegin);
        }
        peer.links.put(Box::new(link));
        self.rearm(index);
    }

    fn session_at(&self, now: Instant) -> u16 {
        let units = now.since(self.config.start).as_millis() / super::SESSION_UNIT.as_millis();
        self.config.session_base.wrapping_add(units as u16)
    }
}

fn identity_of(message: &LinkConfig) -> NodeId {
    message
        .node_id
        .unwrap_or_else(|| NodeId::from_legacy_addr(message.prev_node))
}
