//! Keys and encrypted packets (`docs/protocol/crypto.md`).

use super::{CRYPTO_TIMER, Engine, PeerIndex};
use crate::addr::{BearerId, MediaAddr, NodeAddr};
use crate::crypto::{ClearText, CryptoView, KeyError, KeyMaterial, KeyMode, KeyUse, TICK};
use crate::host::{Host, Notice, Reserve};
use crate::node::Peer;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{
    Carrier, Encrypted, EncryptedSender, GCM_AES, Importance, Msg, MsgCrypto, Route, User, field,
    size,
};
use std::time::Duration;

/// Between two replacements of the session key unless set otherwise: a day.
const REKEYING_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// While a key is being introduced, the next replacement waits for this time.
const REKEYING_RETRY: Duration = Duration::from_secs(5);

/// When the session key is replaced by a random one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rekeying {
    /// Never.
    Off,
    /// Each time this has passed.
    Every(Duration),
    /// Once, now. What was set before stays.
    Now,
}

/// The time of the next replacement.
#[derive(Debug)]
pub(super) struct RekeyClock {
    interval: Option<Duration>,
    due: Option<Instant>,
}

impl Default for RekeyClock {
    fn default() -> Self {
        Self {
            interval: Some(REKEYING_DEFAULT),
            due: None,
        }
    }
}

impl RekeyClock {
    fn restart(&mut self, now: Instant) {
        self.due = self.interval.map(|interval| now + interval);
    }
}

impl Engine {
    /// What is done with packets in clear.
    pub fn set_clear_text(&mut self, clear_text: ClearText) {
        self.core.crypto.set_clear_text(clear_text);
    }

    /// Whether this node gives its session keys to others, and takes theirs. One that does not keeps its session key.
    pub fn set_key_exchange(&mut self, enabled: bool) {
        self.core.crypto.set_key_exchange(enabled);
    }

    /// Frames are counted within this epoch from now on. No other start of this node may have had it, nor may have it
    /// later: the host keeps it in a safe place before it gives it.
    pub fn begin_epoch(&mut self, epoch: u32) {
        self.core.crypto.begin_epoch(epoch);
    }

    /// Takes a key. A session key of this node is made known to all who can read it.
    pub fn set_key<H: Host>(
        &mut self,
        now: Instant,
        material: KeyMaterial,
        purpose: KeyUse,
        host: &mut H,
    ) -> Result<(), KeyError> {
        let peer = match purpose {
            KeyUse::Node(id) => self.node_with(id),
            KeyUse::Cluster | KeyUse::Master => None,
        };
        let is_session_key = self.core.crypto.set_key(now, material, purpose, peer)?;
        self.arm_crypto_timer(now);
        if is_session_key {
            self.rekeying.restart(now);
            self.distribute_key(now, host);
        }
        self.settle(now, host);
        Ok(())
    }

    /// Forgets all keys, the master key too. What follows is in clear, if that may be.
    pub fn flush_keys(&mut self) {
        self.core.crypto.flush();
        self.rekeying.due = None;
    }

    /// When the session key is to be replaced.
    pub fn set_rekeying<H: Host>(&mut self, now: Instant, rekeying: Rekeying, host: &mut H) {
        match rekeying {
            Rekeying::Now => self.rekeying.due = Some(now),
            Rekeying::Off => self.rekeying.interval = None,
            Rekeying::Every(interval) => self.rekeying.interval = Some(interval),
        }
        if rekeying != Rekeying::Now {
            self.rekeying.restart(now);
        }
        self.rekey_if_due(now, host);
    }

    /// Replaces the session key by a random one, for this node alone. Without effect while a key is being introduced.
    pub fn rekey<H: Host>(&mut self, now: Instant, material: KeyMaterial, host: &mut H) {
        if self.core.crypto.rekey(material) {
            self.distribute_key(now, host);
            self.settle(now, host);
        }
    }

    /// Between two replacements of the session key; `None` for never.
    pub fn rekeying_interval(&self) -> Option<Duration> {
        self.rekeying.interval
    }

    /// The keys.
    pub fn crypto(&self) -> CryptoView {
        self.core.crypto.view()
    }

    fn node_with(&self, id: crate::addr::NodeId) -> Option<NodeAddr> {
        let mut peers = self.peers.iter().flatten();
        peers.find(|peer| peer.id == id).map(|peer| peer.addr)
    }

    /// An encrypted packet.
    pub(super) fn on_encrypted<H: Host>(
        &mut self,
        now: Instant,
        bearer: BearerId,
        source: MediaAddr,
        frame: &[u8],
        host: &mut H,
    ) -> Result<(), Drop> {
        let packet = Encrypted::parse(frame).map_err(|_| Drop::Malformed)?;
        let node = match packet.sender {
            EncryptedSender::Identity(id) => self.node_with(id),
            EncryptedSender::Address(addr) if addr == self.core.own => {
                return Err(Drop::OwnPacket);
            }
            EncryptedSender::Address(addr) => {
                let known = self.peer_index.contains_key(&addr);
                Some(known.then_some(addr).ok_or(Drop::UnknownNode)?)
            }
        };
        let mut plain = std::mem::take(&mut self.opened);
        let crypto = &mut self.core.crypto;
        let opened = crypto.open(now, node, self.core.own, frame, &packet, &mut plain);
        let taken = opened.and_then(|()| {
            let msg = Msg::check(&plain).map_err(|_| Drop::Malformed)?;
            self.on_opened(now, node, &packet, msg)?;
            self.on_message(now, bearer, source, msg, host)
        });
        self.opened = plain;
        taken
    }

    /// What the header tells is true: it was authenticated with the packet.
    fn on_opened(
        &mut self,
        now: Instant,
        node: Option<NodeAddr>,
        packet: &Encrypted<'_>,
        msg: Msg<'_>,
    ) -> Result<(), Drop> {
        let Some(node) = node else {
            // Only discovery comes from nodes that are not known.
            return Ok(());
        };
        if let EncryptedSender::Address(addr) = packet.sender
            && msg.prev_node() != addr.0
        {
            return Err(Drop::Malformed);
        }
        let up = self.index_of(node).and_then(|i| self.peer(i));
        let counts = msg.user() != User::LinkConfig && !starts_session(msg);
        if counts
            && up.is_some_and(Peer::is_up)
            && !self.core.crypto.note_counter(now, node, packet)
        {
            return Err(Drop::Replayed);
        }
        let own = self.core.own;
        self.core.crypto.learn(now, node, own, packet, msg);
        Ok(())
    }

    /// A peer made its session key known, in a packet that was encrypted.
    pub(super) fn on_key_given(&mut self, now: Instant, index: PeerIndex, msg: Msg<'_>) {
        if !self.core.crypto.exchanges_keys() {
            self.core.drops.count(Drop::UnwantedKey);
            return;
        }
        let given = MsgCrypto::parse(msg).ok().and_then(|given| {
            let material = KeyMaterial::new(given.key).ok()?;
            let mode = KeyMode::from_bits(given.mode)?;
            (given.algorithm == GCM_AES).then_some((given.generation, mode, material))
        });
        let addr = self.peer(index).map(|peer| peer.addr);
        match (given, addr) {
            (Some((generation, mode, material)), Some(addr)) => {
                let crypto = &mut self.core.crypto;
                crypto.on_given(now, addr, generation, mode, material);
                self.arm_crypto_timer(now);
            }
            _ => self.core.drops.count(Drop::BadKey),
        }
    }

    pub(super) fn on_crypto_timer<H: Host>(&mut self, now: Instant, host: &mut H) {
        let mut lacking = std::mem::take(&mut self.receivers);
        lacking.clear();
        self.core.crypto.tick(now, &mut lacking);
        for node in lacking.drain(..) {
            self.give_key(now, node, host);
        }
        self.receivers = lacking;
        self.rekey_if_due(now, host);
        self.arm_crypto_timer(now);
    }

    fn arm_crypto_timer(&mut self, now: Instant) {
        if self.core.crypto.has_keys() {
            self.wheel.arm(CRYPTO_TIMER, now + TICK);
        }
    }

    fn rekey_if_due<H: Host>(&mut self, now: Instant, host: &mut H) {
        if self.rekeying.due.is_none_or(|due| now < due) {
            return;
        }
        let Some(len) = self.core.crypto.rekey_len() else {
            self.rekeying.due = None;
            return;
        };
        if self.core.crypto.view().pending.is_some() {
            self.rekeying.due = Some(now + REKEYING_RETRY);
        } else {
            self.rekeying.restart(now);
            host.notice(Notice::RekeyDue(len));
        }
    }

    /// Tells all nodes the new session key, by broadcast.
    fn distribute_key<H: Host>(&mut self, now: Instant, host: &mut H) {
        if let Some((message, len)) = self.key_message(NodeAddr::NONE) {
            let bcast = &mut self.bcast;
            let mut ctx = super::Ctx {
                now,
                core: &mut self.core,
                host,
                bcast_ack: crate::seqno::SeqNo(0),
            };
            match ctx.alloc_filled(Reserve::Control, Importance::System, &message[..len]) {
                Some(frame) => bcast.submit(&mut ctx, frame),
                // Those who lack it will say so.
                None => ctx.core.drops.count(Drop::NoFrame),
            }
        }
    }

    /// Tells one node the session key that it lacks.
    fn give_key<H: Host>(&mut self, now: Instant, node: NodeAddr, host: &mut H) {
        let Some((message, len)) = self.key_message(node) else {
            return;
        };
        let Some(index) = self.reachable(node) else {
            return;
        };
        if let Some((peer, _, mut ctx)) = self.at_peer(index, now, host)
            && let Some(link) = peer.links.carrier_mut(0)
            && let Some(frame) =
                ctx.alloc_filled(Reserve::Control, Importance::System, &message[..len])
        {
            link.submit(&mut ctx, frame, false);
        }
    }

    fn key_message(&self, to: NodeAddr) -> Option<([u8; KEY_MESSAGE], usize)> {
        let (key, generation) = self.core.crypto.to_distribute()?;
        let mut message = [0; KEY_MESSAGE];
        let len = MsgCrypto {
            route: Route {
                carrier: Carrier::Link {
                    seqno: 0,
                    ack: 0,
                    bcast_ack: 0,
                },
                prev_node: self.core.own,
                orig_node: self.core.own,
                dest_node: to,
            },
            generation,
            mode: key.mode as u8,
            algorithm: GCM_AES,
            key: key.material().bytes(),
        }
        .emit(&mut message);
        Some((message, len))
    }
}

const KEY_MESSAGE: usize = size::INT + MsgCrypto::MAX_PAYLOAD;

/// True for what may come from a peer that counts from the beginning again. What it does, sessions decide.
fn starts_session(msg: Msg<'_>) -> bool {
    msg.user() == User::LinkProtocol && field::TYPE.get(msg.bytes()) != 0
}
