//! The node as operators see it.

use super::Engine;
use crate::addr::{BearerId, MediaAddr, NodeAddr, NodeId, PortId};
use crate::broadcast::BROADCAST_WINDOW;
use crate::link::Link;
use crate::link::fsm::LinkState;
use crate::name::{BindingTable, Publication};
use crate::node::{Links, Peer};
use crate::port::Port;
use crate::stats::LinkStats;
use crate::wire::{Capabilities, Importance};
use std::time::Duration;

/// A link.
#[derive(Clone, Debug)]
pub struct LinkView {
    /// `own:interface-peer:interface`.
    pub name: String,
    /// Its bearer.
    pub bearer: BearerId,
    /// Where its packets go.
    pub media_addr: MediaAddr,
    /// Network plane, from A on.
    pub network_plane: char,
    /// Its state.
    pub state: LinkState,
    /// Up.
    pub up: bool,
    /// Up, and carries messages.
    pub active: bool,
    /// Largest packet.
    pub mtu: usize,
    /// Priority in force.
    pub priority: u8,
    /// Tolerance in force.
    pub tolerance_ms: u32,
    /// Packets that may be in flight.
    pub window: u16,
    /// Packets that may ever be in flight.
    pub window_max: u16,
    /// Packets sent and not acknowledged, and packets waiting.
    pub queue_len: usize,
    /// Counters.
    pub stats: LinkStats,
}

/// The way to a node, as a sender sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathView {
    /// Messages can be sent.
    pub up: bool,
    /// Senders of low importance have to wait.
    pub congested: bool,
    /// The shortest time of the last seconds between a packet and its acknowledgement.
    pub round_trip: Option<Duration>,
    /// Packets sent and not acknowledged.
    pub in_flight: u32,
    /// Packets that wait for the window.
    pub waiting: u32,
    /// Packets that may be in flight.
    pub window: u32,
    /// Largest message that goes in one packet; 0 if that does not matter, on this node.
    pub mss: u32,
}

/// A peer node.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its identity.
    pub id: NodeId,
    /// Its address.
    pub addr: NodeAddr,
    /// True while a link is up.
    pub up: bool,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The links to it, in the order of their bearers.
    pub links: Vec<LinkView>,
    /// What arrived on its broadcast link.
    pub broadcast: LinkStats,
}

/// The broadcast send link.
#[derive(Clone, Copy, Debug)]
pub struct BroadcastLinkView {
    /// Packets that may be in flight.
    pub window: u16,
    /// Packets sent and not acknowledged by all, and packets waiting.
    pub queue_len: usize,
    /// Peers it reaches.
    pub peers: u16,
    /// Counters.
    pub stats: LinkStats,
}

/// A subscriber of the topology service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriberView {
    /// The number its events go to: of a socket of its own kind, or of the connection it asked by.
    pub port: PortId,
    /// The node it is on, if it is another one.
    pub peer: Option<NodeAddr>,
    /// Its subscriptions.
    pub subscriptions: u32,
    /// Events that wait for it in the service.
    pub waiting: u32,
    /// Events handed to it and not read, where that is known: not of one that asked by a connection.
    pub unread: u32,
}

impl Engine {
    /// The subscribers of the topology service.
    pub fn subscribers(&self) -> impl Iterator<Item = SubscriberView> + '_ {
        self.topology.subscribers().map(|(subscriber, load)| {
            let port = PortId(subscriber.0);
            SubscriberView {
                port,
                peer: load.peer.map(NodeAddr),
                subscriptions: load.subscriptions,
                waiting: load.events,
                unread: self.readers.get(&port).map_or(0, |reader| reader.unread()),
            }
        })
    }

    /// The peer nodes.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> + '_ {
        self.peers.iter().flatten().map(|peer| PeerView {
            id: peer.id,
            addr: peer.addr,
            up: peer.is_up(),
            capabilities: peer.capabilities,
            links: peer
                .links
                .iter()
                .map(|link| self.link_view(link, peer))
                .collect(),
            broadcast: peer.bcast.stats,
        })
    }

    /// The stations on a bearer that have a link which is up.
    pub fn stations(&self, bearer: BearerId) -> impl Iterator<Item = MediaAddr> + '_ {
        let peers = self.peers.iter().flatten();
        peers
            .filter_map(move |peer| peer.links.get(bearer))
            .filter(|link| link.is_up())
            .map(|link| link.media_addr)
    }

    /// The way to a node; the default where it is not known.
    pub fn path(&self, node: NodeAddr) -> PathView {
        if self.is_own(node) {
            return PathView {
                up: true,
                ..PathView::default()
            };
        }
        let peer = self.index_of(node).and_then(|i| self.peer(i));
        let links = peer.map(|peer| &peer.links);
        let active = links.and_then(Links::active);
        let ids = active.map_or([None, None], |[even, odd]| {
            [Some(even), Some(odd).filter(|odd| *odd != even)]
        });
        let paths = ids.into_iter().flatten();
        let paths = paths.filter_map(|id| Some(path_of(links?.get(id)?)));
        paths.reduce(PathView::beside).unwrap_or_default()
    }

    fn link_view(&self, link: &Link, peer: &Peer) -> LinkView {
        LinkView {
            name: self.link_name(link, peer.id),
            bearer: link.bearer,
            media_addr: link.media_addr,
            network_plane: (b'A' + (link.net_plane & 7)) as char,
            state: link.state,
            up: link.is_up(),
            active: link.is_up() && peer.links.is_active(link.bearer),
            mtu: link.mtu,
            priority: link.priority,
            tolerance_ms: link.tolerance_ms,
            window: link.window(),
            window_max: link.window_max(),
            queue_len: link.queue_len(),
            stats: link.stats,
        }
    }

    /// Name of the link to a node over a bearer, if there is one.
    pub fn name_of_link(&self, node: NodeAddr, bearer: BearerId) -> Option<String> {
        let peer = self.peer(self.index_of(node)?)?;
        let link = peer.links.get(bearer)?;
        Some(self.link_name(link, peer.id))
    }

    /// Both interfaces, as the `tipc` tool names a link.
    fn link_name(&self, link: &Link, peer: NodeId) -> String {
        let own_interface = self.bearers[link.bearer.index()]
            .as_ref()
            .map_or(&[][..], |b| &b.setup.interface);
        let peer_interface = match link.peer_interface[0] {
            0 => &b"unknown"[..],
            _ => &link.peer_interface,
        };
        format!(
            "{}:{}-{}:{}",
            node_name(self.config.id, self.trial_addr()),
            interface_text(own_interface),
            node_name(peer, link.peer),
            interface_text(peer_interface),
        )
    }

    /// The broadcast send link.
    pub fn broadcast_link(&self) -> BroadcastLinkView {
        BroadcastLinkView {
            window: BROADCAST_WINDOW,
            queue_len: self.bcast.queue_len(),
            peers: self.bcast.peers(),
            stats: self.bcast.stats,
        }
    }

    /// The binding table.
    pub fn binding_table(&self) -> &BindingTable {
        &self.names
    }

    /// All bindings of the cluster.
    pub fn publications(&self) -> impl Iterator<Item = Publication> + '_ {
        self.names.iter()
    }

    /// The identity of a node: own or peer.
    pub fn identity_of(&self, addr: NodeAddr) -> Option<NodeId> {
        if addr == self.core.own {
            return Some(self.config.id);
        }
        let index = self.index_of(addr)?;
        self.peer(index).map(|peer| peer.id)
    }

    /// The sockets of this node.
    pub fn sockets(&self) -> impl Iterator<Item = (PortId, &Port)> + '_ {
        self.ports.iter().map(|(id, port)| (*id, port))
    }
}

fn path_of(link: &Link) -> PathView {
    PathView {
        up: link.is_up(),
        congested: link.is_congested(Importance::Low),
        round_trip: link.round_trip(),
        in_flight: (link.queue_len() - link.waiting_len()) as u32,
        waiting: link.waiting_len() as u32,
        window: link.window().into(),
        mss: link.mss() as u32,
    }
}

impl PathView {
    /// Two links that share the load. Congested if one is: which one a message takes depends on its socket.
    fn beside(self, other: Self) -> Self {
        let round_trips = self.round_trip.into_iter().chain(other.round_trip);
        Self {
            up: self.up || other.up,
            congested: self.congested || other.congested,
            round_trip: round_trips.min(),
            in_flight: self.in_flight + other.in_flight,
            waiting: self.waiting + other.waiting,
            window: self.window + other.window,
            mss: self.mss.min(other.mss),
        }
    }
}

/// A node's part of a link name: an identity that is too long gives way to the address.
fn node_name(id: NodeId, addr: NodeAddr) -> String {
    let text = id.to_string();
    if text.len() > 16 {
        addr.to_string()
    } else {
        text
    }
}

/// Text up to the first NUL; what a peer put there that is no text shows as `?`.
fn interface_text(name: &[u8]) -> String {
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    name[..end]
        .iter()
        .map(|b| {
            if b.is_ascii_graphic() {
                *b as char
            } else {
                '?'
            }
        })
        .collect()
}
