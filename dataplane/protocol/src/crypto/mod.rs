//! Encryption of everything that goes over bearers (`docs/protocol/crypto.md`).
//!
//! [`Crypto`] has the node's keys and those of its peers. The engine asks it which keys a packet is to be sealed
//! with, and to seal and to open; it sends nothing itself. Each frame is sealed anew, also when a packet is sent again.

mod key;
mod nonce;
mod peer;
mod replay;
mod slots;

pub use key::{KEY_MAX, Key, KeyLengthError, KeyMaterial, KeyMode};
pub use nonce::EPOCHS;

use crate::addr::{NodeAddr, NodeId};
use crate::engine::FastMap;
use crate::stats::Drop;
use crate::time::Instant;
use crate::wire::{Encrypted, EncryptedSender, Msg, TAG_SIZE, User, field, size};
use arrayvec::ArrayVec;
use nonce::Counter;
use peer::PeerKeys;
use slots::{MASTER, Slot, Slots};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that encryption adds to a packet of a link at most, beside padding.
pub const OVERHEAD: usize = 16 + TAG_SIZE;
/// Between two looks at the keys.
pub(crate) const TICK: Duration = Duration::from_millis(375);
/// After the cluster was found to lack a key of ours, the master key stands in for so long.
const GRACE: Duration = Duration::from_secs(5);
/// A new key is used alone when nobody's use of keys has changed for so long.
const LASTING: Duration = Duration::from_secs(10);
/// A peer that lacks our key gets it after one to five times this, at random.
const DISTRIBUTION_STEP: Duration = Duration::from_millis(500);

/// What is done with packets that are not encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClearText {
    /// Taken and sent as long as this node has no key.
    #[default]
    Auto,
    /// Never taken nor sent, also without a key.
    Refused,
    /// Taken, as Linux does; sent as long as this node has no key.
    Taken,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// Session key of the whole cluster.
    Cluster,
    /// Long-lived key of the whole cluster: for newcomers, and to distribute session keys.
    Master,
    /// What this node, or the other node with this identity, encrypts with.
    Node(NodeId),
}

/// Why a key was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Keys are being changed.
    #[error("another key is being introduced; accepted: another one about 12 s after the last")]
    Busy,
    /// Counters would come twice.
    #[error("there is no epoch for the counters of encrypted frames")]
    NoEpoch,
}

/// What encryption counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CryptoStats {
    /// Frames sealed.
    pub sealed: u64,
    /// Frames opened.
    pub opened: u64,
    /// Changes of the key that is sent with, or received with.
    pub switches: u64,
}

/// The keys as operators see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CryptoView {
    /// There is a master key.
    pub master: bool,
    /// Slot, mode and bytes of the session key in use.
    pub active: Option<(u8, KeyMode, usize)>,
    /// The same of the one being introduced.
    pub pending: Option<(u8, KeyMode, usize)>,
    /// Peers whose frames a session key here opens.
    pub peers: usize,
    /// Counters.
    pub stats: CryptoStats,
}

/// Keys of this node and of its peers.
pub struct Crypto {
    own_id: NodeId,
    clear_text: ClearText,
    exchanges_keys: bool,
    slots: Slots,
    /// Last change in who uses which of our keys.
    changed: Instant,
    /// A peer was last found to lack our keys.
    lacking: Instant,
    /// A peer has no master key.
    legacy: bool,
    generation: u16,
    counter: Counter,
    peers: FastMap<NodeAddr, PeerKeys>,
    /// Keys of other nodes that the operator gave.
    given: Vec<(NodeId, Arc<Key>)>,
    stats: CryptoStats,
    /// The packet being sealed, padded.
    plain: Vec<u8>,
    random: u64,
}

impl Crypto {
    pub(crate) fn new(own_id: NodeId, random: u64, now: Instant) -> Self {
        Self {
            own_id,
            clear_text: ClearText::Auto,
            exchanges_keys: true,
            slots: Slots::default(),
            changed: now,
            lacking: now,
            legacy: false,
            generation: random as u16,
            counter: Counter::default(),
            peers: FastMap::default(),
            given: Vec::new(),
            stats: CryptoStats::default(),
            plain: Vec::new(),
            random: random | 1,
        }
    }

    /// Packets that are not encrypted are taken.
    #[inline]
    pub(crate) fn takes_clear_text(&self) -> bool {
        match self.clear_text {
            ClearText::Auto => self.slots.is_empty() && self.given.is_empty(),
            ClearText::Refused => false,
            ClearText::Taken => true,
        }
    }

    /// Packets go out sealed, or not at all.
    #[inline]
    pub(crate) fn seals(&self) -> bool {
        !self.slots.is_empty() || self.clear_text == ClearText::Refused
    }

    /// There are keys, so that [`Self::tick`] has something to do.
    #[inline]
    pub(crate) fn has_keys(&self) -> bool {
        !self.slots.is_empty() || !self.given.is_empty() || !self.peers.is_empty()
    }

    pub(crate) fn set_clear_text(&mut self, clear_text: ClearText) {
        self.clear_text = clear_text;
    }

    pub(crate) fn set_key_exchange(&mut self, enabled: bool) {
        self.exchanges_keys = enabled;
    }

    /// Session keys are given to others, and taken from them.
    pub(crate) fn exchanges_keys(&self) -> bool {
        self.exchanges_keys
    }

    pub(crate) fn begin_epoch(&mut self, epoch: u32) {
        self.counter.begin(epoch);
    }

    /// True once when a new epoch is needed before long.
    pub(crate) fn asks_for_epoch(&mut self) -> bool {
        self.counter.asks()
    }

    /// Takes a key. True if it is a session key of this node, which is to be distributed.
    pub(crate) fn set_key(
        &mut self,
        now: Instant,
        material: KeyMaterial,
        purpose: KeyUse,
        peer: Option<NodeAddr>,
    ) -> Result<bool, KeyError> {
        if !self.counter.has_epoch() {
            return Err(KeyError::NoEpoch);
        }
        let mode = match purpose {
            KeyUse::Cluster | KeyUse::Master => KeyMode::Cluster,
            KeyUse::Node(_) => KeyMode::PerNode,
        };
        let key = Arc::new(Key::new(material, mode));
        match purpose {
            KeyUse::Master => {
                self.slots.set_master(key);
                Ok(false)
            }
            KeyUse::Node(id) if id != self.own_id => {
                self.given.retain(|(known, _)| *known != id);
                self.given.push((id, Arc::clone(&key)));
                let busy = peer.is_some_and(|node| !self.of(now, node).attach(key, None));
                if busy { Err(KeyError::Busy) } else { Ok(false) }
            }
            KeyUse::Cluster | KeyUse::Node(_) => {
                self.slots.attach(key, None).map_err(|_| KeyError::Busy)?;
                self.generation = self.generation.wrapping_add(1);
                Ok(true)
            }
        }
    }

    /// Introduces a new session key in place of the one in use. False if one is being introduced already.
    pub(crate) fn rekey(&mut self, material: KeyMaterial) -> bool {
        if self.slots.pending != 0 || self.rekey_len().is_none() {
            return false;
        }
        let key = Arc::new(Key::new(material, KeyMode::PerNode));
        let taken = self.slots.attach(key, None).is_ok();
        self.generation = self.generation.wrapping_add(u16::from(taken));
        taken
    }

    /// Bytes of a key to replace the one in use; `None` without one, and where nobody would learn the new one.
    pub(crate) fn rekey_len(&self) -> Option<usize> {
        if !self.exchanges_keys {
            return None;
        }
        let template = self
            .slots
            .get(self.slots.active)
            .filter(|_| self.slots.active != 0);
        let template = template.or(self.slots.get(MASTER));
        template.map(|held| held.key.material().bytes().len())
    }

    /// Forgets all keys.
    pub(crate) fn flush(&mut self) {
        self.slots = Slots::default();
        self.peers.clear();
        self.given.clear();
        self.legacy = false;
    }

    /// The peer's keys.
    fn of(&mut self, now: Instant, node: NodeAddr) -> &mut PeerKeys {
        self.peers.entry(node).or_insert_with(|| PeerKeys::new(now))
    }

    /// A node became known under this address.
    pub(crate) fn meet(&mut self, now: Instant, node: NodeAddr, id: NodeId) {
        if let Some(key) = self.given_for(id) {
            self.of(now, node).attach(key, None);
        }
    }

    /// The key that an operator gave for another node.
    fn given_for(&self, id: NodeId) -> Option<Arc<Key>> {
        let given = self.given.iter().find(|(known, _)| *known == id);
        given.map(|(_, key)| Arc::clone(key))
    }

    /// A node is not known any more.
    pub(crate) fn forget(&mut self, node: NodeAddr) {
        if let Some(peer) = self.peers.remove(&node) {
            self.leave(peer.reported);
        }
    }

    pub(crate) fn on_link_down(&mut self, node: NodeAddr) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.on_link_down();
        }
    }

    /// One peer less uses a key of ours.
    fn leave(&mut self, slot: Slot) {
        if slot != 0
            && let Some(held) = self.slots.get_mut(slot)
        {
            held.users = (held.users - 1).max(0);
        }
    }

    /// Opens a packet into `plain`. `node` is its sender if it is known, `own` this node's address. Gives the slot of
    /// the key that did it.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        node: Option<NodeAddr>,
        own: NodeAddr,
        frame: &[u8],
        packet: &Encrypted<'_>,
        plain: &mut Vec<u8>,
    ) -> Result<(), Drop> {
        let header = &frame[..frame.len() - packet.ciphertext.len()];
        let mut open = |key: &Key| {
            let nonce_node = match key.mode {
                KeyMode::Cluster => cluster_node(header),
                KeyMode::PerNode if packet.destined => own,
                KeyMode::PerNode => NodeAddr::NONE,
            };
            key.open(header, nonce_node, packet.seqno, packet.ciphertext, plain)
        };
        let slot = packet.tx_key;
        if let Some(node) = node
            && let Some(key) = self.of(now, node).find(slot)
        {
            let opened = open(&key);
            let peer = self.of(now, node);
            if !opened {
                peer.on_failed(now, slot);
                return Err(Drop::Undecryptable);
            }
            peer.on_opened(now, slot);
            self.stats.opened += 1;
            return Ok(());
        }
        let given = match packet.sender {
            EncryptedSender::Identity(id) if node.is_none() => self.given_for(id),
            _ => None,
        };
        if given.is_some_and(|key| open(&key)) {
            self.stats.opened += 1;
            return Ok(());
        }
        let fits = if slot == MASTER {
            let master = self.slots.get(MASTER).map(|held| &held.key);
            master.filter(|key| open(key)).cloned()
        } else {
            self.slots.cluster_keys().find(|key| open(key)).cloned()
        };
        let Some(key) = fits else {
            if let Some(node) = node {
                self.of(now, node).on_no_key(slot);
            }
            return Err(Drop::NoKey);
        };
        self.stats.opened += 1;
        if let Some(node) = node
            && slot != MASTER
        {
            let peer = self.of(now, node);
            if peer.attach(key, Some(slot)) {
                peer.on_opened(now, slot);
            }
        }
        Ok(())
    }

    /// Learns from the header of a packet that was opened, `msg` being what is in it.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        node: NodeAddr,
        own: NodeAddr,
        packet: &Encrypted<'_>,
        msg: Msg<'_>,
    ) {
        let has_session_key = self.slots.has_session_key();
        let delay = DISTRIBUTION_STEP * (1 + self.draw() % 5);
        self.legacy |= !packet.master_key;
        let peer = self.of(now, node);
        peer.has_master = packet.master_key;
        let for_us = msg.header_size() > size::SHORT && msg.get(field::DEST_NODE) == own.0;
        if !packet.destined || !for_us {
            return;
        }
        if !packet.rx_nokey {
            peer.distribute_at = None;
        } else if has_session_key {
            peer.distribute_at.get_or_insert(now + delay);
        }
        let before = std::mem::replace(&mut peer.reported, packet.rx_key_active);
        if packet.rx_nokey {
            self.lacking = now;
        }
        if before != packet.rx_key_active {
            if let Some(held) = self.slots.get_mut(packet.rx_key_active)
                && packet.rx_key_active != 0
            {
                held.users += 1;
            }
            self.leave(before);
            self.changed = now;
        }
    }

    /// Notes the counter of an opened packet of a link that is up. False if it came before.
    pub(crate) fn note_counter(
        &mut self,
        now: Instant,
        node: NodeAddr,
        packet: &Encrypted<'_>,
    ) -> bool {
        self.of(now, node).note_counter(packet.tx_key, packet.seqno)
    }

    /// A key that a peer gave us in a packet that was encrypted.
    pub(crate) fn on_given(
        &mut self,
        now: Instant,
        node: NodeAddr,
        generation: u16,
        mode: KeyMode,
        key: KeyMaterial,
    ) {
        let key = Arc::new(Key::new(key, mode));
        self.of(now, node).on_given(now, generation, key);
    }

    /// The session key to distribute, if that may be, and its generation.
    pub(crate) fn to_distribute(&self) -> Option<(Arc<Key>, u16)> {
        let slot = if self.slots.pending != 0 {
            self.slots.pending
        } else {
            self.slots.active
        };
        let may_be = slot != MASTER && self.exchanges_keys;
        let held = self.slots.get(slot).filter(|_| may_be)?;
        Some((Arc::clone(&held.key), self.generation))
    }

    /// The regular look at all keys. Puts the peers that are to be sent our key into `lacking`.
    pub(crate) fn tick(&mut self, now: Instant, lacking: &mut Vec<NodeAddr>) {
        let slots = &mut self.slots;
        let (pending, active) = (slots.pending, slots.active);
        if pending != 0
            && slots.users(pending) > 0
            && (active == 0 || slots.users(active) <= 0)
            && now.since(self.changed) >= LASTING
        {
            if active != 0 {
                slots.free(active);
            }
            slots.active = pending;
            slots.pending = 0;
            self.stats.switches += 1;
        }
        if !self.is_in_grace(now) {
            self.legacy = false;
        }
        for (node, peer) in &mut self.peers {
            self.stats.switches += u64::from(peer.tick(now));
            if peer.distribute_at.take_if(|at| *at <= now).is_some() {
                lacking.push(*node);
            }
        }
    }

    fn is_in_grace(&self, now: Instant) -> bool {
        now.since(self.lacking) < GRACE
    }

    fn draw(&mut self) -> u32 {
        // Only so that not all peers answer at once.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }

    /// Takes a packet to be sealed by [`Self::seal`], once for each slot given. `to` is its receiver, if it has one.
    pub(crate) fn prepare(
        &mut self,
        now: Instant,
        to: Option<NodeAddr>,
        packet: &[u8],
    ) -> ArrayVec<u8, 3> {
        self.plain.clear();
        self.plain.extend_from_slice(packet);
        self.plain.resize(packet.len().next_multiple_of(4), 0);
        self.choose(now, to, Inner::of(packet))
    }

    fn choose(&self, now: Instant, to: Option<NodeAddr>, inner: Inner) -> ArrayVec<Slot, 3> {
        let mut chosen = ArrayVec::new();
        let peer = to.and_then(|node| self.peers.get(&node));
        let reported = peer.map_or(0, |peer| peer.reported);
        let (pending, active) = (self.slots.pending, self.slots.active);
        let has_master = self.slots.get(MASTER).is_some();
        if pending != 0 {
            if active == 0 && !has_master || reported == pending {
                chosen.push(pending);
                return chosen;
            }
            if matches!(inner.user, User::LinkConfig | User::LinkProtocol) {
                // A copy for those who have the new key already.
                chosen.push(pending);
            }
        }
        if has_master {
            if active == 0 {
                chosen.push(MASTER);
                return chosen;
            }
            if inner.is_vital() || self.is_in_grace(now) {
                match to {
                    Some(_) if reported == 0 && peer.is_some_and(|peer| peer.has_master) => {
                        chosen.push(MASTER);
                        return chosen;
                    }
                    Some(_) => {}
                    None => {
                        chosen.push(MASTER);
                        if !self.legacy {
                            return chosen;
                        }
                    }
                }
            }
        }
        if active != 0 {
            chosen.push(active);
        }
        chosen
    }

    /// Seals the prepared packet with the key of a slot into `out`; gives the size of the frame. `None` if it cannot
    /// be: without a counter, or without room.
    pub(crate) fn seal(&mut self, slot: u8, to: Option<NodeAddr>, out: &mut [u8]) -> Option<usize> {
        let inner = Inner::of(&self.plain);
        let key = &self.slots.get(slot)?.key;
        let peer = to.and_then(|node| self.peers.get(&node));
        let packet = Encrypted {
            user: inner.header_user(),
            destined: to.is_some(),
            tx_key: slot,
            rx_key_active: peer.map_or(0, |peer| peer.slots.active),
            keepalive: inner.keepalive,
            master_key: self.slots.get(MASTER).is_some(),
            rx_nokey: peer.is_some_and(|peer| peer.nokey),
            seqno: 0,
            sender: match inner.user {
                User::LinkConfig => EncryptedSender::Identity(self.own_id),
                _ => EncryptedSender::Address(NodeAddr(field::PREV_NODE.get(&self.plain))),
            },
            ciphertext: &[],
        };
        let end = packet.header_len() + self.plain.len() + TAG_SIZE;
        let out = out.get_mut(..end)?;
        let seqno = self.counter.take()?;
        let (header, rest) = out.split_at_mut(packet.header_len());
        Encrypted { seqno, ..packet }.emit_header(header);
        let node = match key.mode {
            KeyMode::Cluster => cluster_node(header),
            KeyMode::PerNode => to.unwrap_or(NodeAddr::NONE),
        };
        key.seal(header, node, seqno, &self.plain, rest);
        self.stats.sealed += 1;
        Some(end)
    }

    /// The keys as operators see them.
    pub(crate) fn view(&self) -> CryptoView {
        let of = |slot: Slot| {
            let held = self.slots.get(slot).filter(|_| slot != MASTER)?;
            Some((slot, held.key.mode, held.key.material().bytes().len()))
        };
        CryptoView {
            master: self.slots.get(MASTER).is_some(),
            active: of(self.slots.active),
            pending: of(self.slots.pending),
            peers: self
                .peers
                .values()
                .filter(|peer| peer.slots.active != 0)
                .count(),
            stats: self.stats,
        }
    }
}

/// What goes into the nonce of a cluster key: the sender's address, or the start of its identity.
fn cluster_node(header: &[u8]) -> NodeAddr {
    NodeAddr(field::PREV_NODE.get(header))
}

/// What the choice of keys depends on in the packet that is to be sealed.
#[derive(Clone, Copy)]
struct Inner {
    user: User,
    kind: u32,
    keepalive: bool,
}

const STATE: u32 = 0;
const RESET: u32 = 1;

impl Inner {
    fn of(packet: &[u8]) -> Self {
        let user = User::from_bits(field::USER.get(packet));
        let kind = field::TYPE.get(packet);
        Self {
            user,
            kind,
            keepalive: Self::is_state(user, kind) && field::KEEPALIVE.get(packet) == 1,
        }
    }

    fn is_state(user: User, kind: u32) -> bool {
        user == User::LinkProtocol && kind == STATE
    }

    /// A newcomer has to understand it.
    fn is_vital(self) -> bool {
        match self.user {
            User::LinkConfig | User::MsgCrypto => true,
            User::LinkProtocol => self.kind == RESET,
            _ => false,
        }
    }

    fn header_user(self) -> User {
        match self.user {
            User::LinkConfig => User::LinkConfig,
            User::LinkProtocol if self.kind == STATE => User::LinkProtocol,
            _ => User::Low,
        }
    }
}
