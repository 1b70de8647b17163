//! The engine: a whole TIPC node without I/O.
//!
//! Inputs are packets ([`Engine::on_packet`]), time ([`Engine::on_time`]) and what applications ask
//! for; outputs go to the [`Host`] that each input gets. One thread owns an engine. The parts:
//! `discovery` finds nodes, `receive` takes packets to their links, `contact` brings links and nodes
//! up and down, `parallel` joins two links to one peer, `deliver` takes messages to sockets, `send` the other way, `names` keeps the binding
//! table, `telling` makes it known, `topology` tells subscribers of it, `view` shows it all to operators, `tuning` changes
//! what they want changed, `waiting` tells them what senders wait for. `ahead` reads what inputs will need.

mod accept;
mod ahead;
mod connect;
mod connection_receive;
mod connection_send;
mod connection_timers;
mod contact;
mod core;
mod deliver;
mod discovery;
mod encryption;
mod frame_queue;
mod group_receive;
mod group_send;
mod groups;
mod inner;
mod monitoring;
mod names;
mod parallel;
mod parting;
mod receive;
mod send;
mod send_many;
mod sockets;
mod telling;
mod topology;
mod topology_server;
mod tuning;
mod view;
mod waiting;

pub use self::core::{Core, Ctx};
pub use accept::{AcceptError, Accepted, ListenError, PairError};
pub use ahead::Foreseen;
pub use connect::ConnectError;
pub use encryption::Rekeying;
pub use groups::{GROUP_MEMBERS_MAX, JoinError, NoMember};
pub use inner::InnerEvent;
pub use names::BindError;
pub use parting::{Ending, ShutdownError};
pub use send::SendError;
pub use send_many::SentMany;
pub use tuning::free_priority;
pub use view::{BroadcastLinkView, LinkView, PathView, PeerView, SubscriberView};
pub use waiting::{Obstacle, Waiting};

use crate::addr::{BearerId, MAX_BEARERS, Media, MediaAddr, NodeAddr, NodeId, PortId};
use crate::broadcast::BroadcastLink;
use crate::crypto::Crypto;
use crate::frame::FrameTable;
use crate::host::{DownReason, Host};
use crate::link::LinkParams;
use crate::name::{BindingTable, Distributor};
use crate::node::Peer;
use crate::port::Port;
use crate::reassembly::Buffers;
use crate::seqno::SeqNo;
use crate::stats::Drops;
use crate::time::Instant;
use crate::timer::Wheel;
use crate::topology::TopologyService;
use crate::wire::INTERFACE_NAME;
use connection_timers::ConnectionClock;
use discovery::Trial;
use frame_queue::FrameQueue;
use groups::Groups;
use hashbrown::HashMap;
use inner::Inner;
use parting::Farewell;
use std::collections::VecDeque;
use std::time::Duration;
use telling::Untold;
use topology::Reader;

pub(crate) type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a node has to know of itself.
#[derive(Clone, Copy, Debug)]
pub struct NodeConfig {
    /// Identity; its hash is the address the node tries first.
    pub id: NodeId,
    /// Cluster id.
    pub net_id: u32,
    /// Random per start: signature, first port number, first broadcast number, keys of hash tables.
    pub random: u64,
    /// First session number for links made at `start`. It has to grow from one start to the next, so
    /// that peers see a restart at once: a clock in units of [`SESSION_UNIT`].
    pub session_base: u16,
    /// Receive buffer of new sockets in bytes.
    pub receive_buffer: u32,
    /// Now.
    pub start: Instant,
}

/// Clock unit of session numbers: half their range is longer than any link tolerance.
pub const SESSION_UNIT: Duration = Duration::from_millis(10);

/// A bearer to be enabled.
#[derive(Clone, Copy, Debug)]
pub struct BearerSetup {
    /// Interface name, NUL-padded.
    pub interface: [u8; INTERFACE_NAME],
    /// What carries its packets.
    pub media: Media,
    /// One packet reaches all stations. Where copies are needed for that, multicasts are copied only for the nodes
    /// they are for.
    pub broadcast: bool,
    /// Own address on it.
    pub media_addr: MediaAddr,
    /// Largest packet.
    pub mtu: usize,
    /// What its links start with.
    pub params: LinkParams,
}

/// Why a bearer could not be enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// All places are taken.
    #[error("a node has at most {MAX_BEARERS} bearers")]
    TooMany,
    /// Too small for a TIPC header, or larger than a frame.
    #[error("MTU {mtu} is out of range: {min} to {max} accepted")]
    Mtu {
        /// What was asked for.
        mtu: usize,
        /// Smallest.
        min: usize,
        /// Largest: the room of a frame.
        max: usize,
    },
}

struct Bearer {
    setup: BearerSetup,
    /// Links on it that are up.
    links_up: u32,
    /// Between two discovery messages.
    interval: Duration,
}

type PeerIndex = usize;

/// Timers: one per bearer, one for all connections, one for all groups, one for all keys, one for what all monitors
/// have to tell, two per peer.
const CONNECTION_TIMER: u32 = MAX_BEARERS as u32;
const GROUP_TIMER: u32 = CONNECTION_TIMER + 1;
const CRYPTO_TIMER: u32 = GROUP_TIMER + 1;
const MONITOR_TIMER: u32 = CRYPTO_TIMER + 1;
const FIRST_PEER_TIMER: usize = MAX_BEARERS + 4;

/// A TIPC node.
pub struct Engine {
    config: NodeConfig,
    core: Core,
    wheel: Wheel,
    trial: Trial,
    bearers: [Option<Bearer>; MAX_BEARERS],
    peers: Vec<Option<Peer>>,
    /// In few bytes, since there may be a thousand.
    peer_index: FastMap<NodeAddr, u32>,
    bcast: BroadcastLink,
    names: BindingTable,
    distributor: Distributor,
    ports: FastMap<PortId, Port>,
    next_port: u32,
    /// Sockets whose last message found no frames.
    starved: FrameQueue,
    /// Changes of own bindings that the cluster has not been told for want of room.
    untold: Untold,
    /// Other nodes that the multicast being sent goes to.
    receivers: Vec<NodeAddr>,
    /// The deferred packet being delivered.
    packet: Vec<u8>,
    /// The packet that was decrypted.
    opened: Vec<u8>,
    /// When the session key is replaced.
    rekeying: encryption::RekeyClock,
    /// Sockets that hold multicasts back.
    holding: Vec<PortId>,
    /// Receivers of the multicast being delivered.
    members: Vec<u32>,
    /// When connections need attention.
    clock: ConnectionClock,
    /// Connections with a message that found no room.
    owing: VecDeque<PortId>,
    /// Ends of connections that found no room; their sockets are gone.
    farewells: VecDeque<Farewell>,
    /// What the groups of this node's sockets have in common.
    groups: Groups,
    /// What arrived at the engine's own sockets.
    inner: Inner,
    topology: TopologyService,
    /// Its listening socket.
    topology_listener: Option<PortId>,
    /// Subscribers whose events go to the host.
    readers: FastMap<PortId, Reader>,
    /// Those of them with more events than they may have unread.
    blocked_readers: Vec<PortId>,
    /// Sockets with messages whose senders may wait until they are read.
    awaited_readers: Vec<PortId>,
}

impl Engine {
    /// A node without bearers. `host` tells how many frames there are.
    pub fn new<H: Host>(config: NodeConfig, host: &H) -> Self {
        Self {
            config,
            core: Core {
                own: NodeAddr::NONE,
                net_id: config.net_id,
                interfaces: [[0; INTERFACE_NAME]; MAX_BEARERS],
                table: FrameTable::new(host.frame_count()),
                drops: Drops::default(),
                buffers: Buffers::default(),
                woken: VecDeque::new(),
                gathering: false,
                gathered: Vec::new(),
                deferred_share: host.frame_count() as usize / 4,
                monitors: Default::default(),
                crypto: Crypto::new(config.id, config.random, config.start),
            },
            wheel: Wheel::new(config.start),
            trial: Trial::new(config.id.hash()),
            bearers: [const { None }; MAX_BEARERS],
            peers: Vec::new(),
            peer_index: FastMap::default(),
            bcast: BroadcastLink::new(SeqNo((config.random >> 49) as u16)),
            names: BindingTable::new(0, config.random),
            distributor: Distributor::new(),
            ports: FastMap::default(),
            next_port: (config.random >> 32) as u32,
            starved: FrameQueue::default(),
            untold: Untold::default(),
            receivers: Vec::new(),
            packet: Vec::with_capacity(host.frame_room()),
            opened: Vec::new(),
            rekeying: encryption::RekeyClock::default(),
            holding: Vec::new(),
            members: Vec::new(),
            clock: ConnectionClock::new(config.random),
            owing: VecDeque::new(),
            farewells: VecDeque::new(),
            groups: Groups::default(),
            inner: Inner::default(),
            topology: TopologyService::default(),
            topology_listener: None,
            readers: FastMap::default(),
            blocked_readers: Vec::new(),
            awaited_readers: Vec::new(),
        }
    }

    /// Own address; `NONE` until the trial period is over.
    pub fn own_addr(&self) -> NodeAddr {
        self.core.own
    }

    /// The address in use or on trial.
    pub fn trial_addr(&self) -> NodeAddr {
        if self.core.own == NodeAddr::NONE {
            self.trial.addr
        } else {
            self.core.own
        }
    }

    /// Own identity and cluster.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Drops by reason.
    pub fn drops(&self) -> &Drops {
        &self.core.drops
    }

    /// Enables a bearer and starts discovery on it.
    pub fn add_bearer<H: Host>(
        &mut self,
        now: Instant,
        setup: BearerSetup,
        host: &mut H,
    ) -> Result<BearerId, BearerError> {
        let (min, max) = (crate::wire::size::MIN_MTU, host.frame_room());
        if !(min..=max).contains(&setup.mtu) {
            return Err(BearerError::Mtu {
                mtu: setup.mtu,
                min,
                max,
            });
        }
        let Some(index) = self.bearers.iter().position(Option::is_none) else {
            return Err(BearerError::TooMany);
        };
        let id = BearerId(index as u8);
        self.core.interfaces[index] = setup.interface;
        self.bearers[index] = Some(Bearer {
            setup,
            links_up: 0,
            interval: Duration::ZERO,
        });
        self.start_discovery(now, id, host);
        Ok(id)
    }

    /// Makes a node without bearers usable by its own sockets: with nobody to ask, its address is the
    /// hash of its identity.
    pub fn stand_alone<H: Host>(&mut self, now: Instant, host: &mut H) {
        self.take_address(now, host);
    }

    /// Takes all links down and tells every peer so.
    pub fn stop<H: Host>(&mut self, now: Instant, host: &mut H) {
        for index in 0..self.peers.len() {
            self.lose_contact(now, index, DownReason::Stopped, host);
        }
        self.settle(now, host);
    }

    /// Runs the timers that are due. To be called after all packets that have arrived were handed in:
    /// a node that was stalled must not judge its peers by its own silence.
    pub fn on_time<H: Host>(&mut self, now: Instant, host: &mut H) {
        while let Some(timer) = self.wheel.pop_expired(now) {
            match (timer as usize).checked_sub(FIRST_PEER_TIMER) {
                Some(of_peer) if of_peer % 2 == 0 => self.on_peer_timer(now, of_peer / 2, host),
                Some(of_peer) => self.on_gap_timer(now, of_peer / 2, host),
                None if timer == CONNECTION_TIMER => self.on_connection_timer(now, host),
                None if timer == GROUP_TIMER => self.on_group_timer(now, host),
                None if timer == CRYPTO_TIMER => self.on_crypto_timer(now, host),
                None if timer == MONITOR_TIMER => self.tell_losses(now, host),
                None => self.on_discovery_timer(now, BearerId(timer as u8), host),
            }
        }
        self.topology.on_time(now);
        self.settle(now, host);
    }

    /// When [`Self::on_time`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let timers = self.wheel.next_deadline().into_iter();
        timers.chain(self.topology.next_timeout()).min()
    }

    /// The end of every input: tells the cluster what it could not be told before, subscribers what
    /// happened, and waiting senders that there is room.
    #[inline]
    fn settle<H: Host>(&mut self, now: Instant, host: &mut H) {
        if !self.is_settled() {
            self.settle_all(now, host);
        }
    }

    /// True if nothing is left to be told, which is so after most inputs.
    #[inline]
    fn is_settled(&self) -> bool {
        self.core.woken.is_empty()
            && self.untold.is_empty()
            && self.starved.is_empty()
            && self.owing.is_empty()
            && self.farewells.is_empty()
            && self.inner.is_empty()
            && self.topology.is_quiet()
            && self.groups.is_idle()
            && !self.names.has_changed()
    }

    #[inline(never)]
    fn settle_all<H: Host>(&mut self, now: Instant, host: &mut H) {
        while let Some(kind) = self.names.take_changed() {
            host.on_bindings_changed(kind);
        }
        self.tell_untold(now, host);
        if !self.starved.is_empty() {
            let woken = &mut self.core.woken;
            self.starved
                .grant(now, host.frames_free(), |port| woken.push_back(port));
        }
        self.post_stuck(now, host);
        loop {
            while let Some(id) = self.core.woken.pop_front() {
                if let Some(port) = self.ports.get_mut(&id) {
                    port.on_abated();
                    self.push_held(now, id, host);
                    self.tell_writable(id, host);
                }
            }
            self.serve_subscribers(now, host);
            self.tell_subscribers(now, host);
            self.serve_groups(now, host);
            self.pay_owed(now, host);
            self.say_farewells(now, host);
            // A client on this node may have answered.
            let served = !self.are_subscribers_waiting() && self.groups.is_quiet();
            if served && self.core.woken.is_empty() {
                break;
            }
        }
    }

    /// The parts that work on one peer, borrowed side by side.
    #[inline]
    fn at_peer<'a, H: Host>(
        &'a mut self,
        index: PeerIndex,
        now: Instant,
        host: &'a mut H,
    ) -> Option<(&'a mut Peer, &'a mut BroadcastLink, Ctx<'a, H>)> {
        let peer = self.peers.get_mut(index)?.as_mut()?;
        let bcast_ack = peer.bcast.ack();
        let ctx = Ctx {
            now,
            core: &mut self.core,
            host,
            bcast_ack,
        };
        Some((peer, &mut self.bcast, ctx))
    }

    fn ctx<'a, H: Host>(&'a mut self, now: Instant, host: &'a mut H) -> Ctx<'a, H> {
        Ctx {
            now,
            core: &mut self.core,
            host,
            bcast_ack: SeqNo(0),
        }
    }

    /// Where a node is among the peers.
    #[inline]
    fn index_of(&self, node: NodeAddr) -> Option<PeerIndex> {
        self.peer_index.get(&node).map(|index| *index as PeerIndex)
    }

    #[inline]
    fn peer(&self, index: PeerIndex) -> Option<&Peer> {
        self.peers.get(index)?.as_ref()
    }

    fn peer_timer(index: PeerIndex) -> u32 {
        (2 * index + FIRST_PEER_TIMER) as u32
    }

    /// The timer after which a late packet of a peer is asked for.
    fn gap_timer(index: PeerIndex) -> u32 {
        Self::peer_timer(index) + 1
    }
}
