//! Nodes on one segment, and the clock they share.

use crate::host::{Arena, Received, Sent, SimHost};
use crate::rng::Rng;
use crate::segment::{Flight, Segment, mac_of, media_addr, source_addr};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;
use xtipc_protocol::addr::{
    BearerId, Destination, MAX_BEARERS, Media, NodeAddr, NodeId, PortId, SocketAddr,
};
use xtipc_protocol::engine::{
    BearerSetup, Engine, Foreseen, LinkView, NodeConfig, PeerView, SESSION_UNIT, SendError,
};
use xtipc_protocol::host::{Notice, Payload};
use xtipc_protocol::link::LinkParams;
use xtipc_protocol::name::{Scope, ServiceRange};
use xtipc_protocol::port::SocketKind;
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::Packet;

/// Cluster id.
pub const NET_ID: u32 = 4711;
/// Usual MTU.
pub const MTU: usize = 1500;

/// One node: an engine and what it runs on.
pub struct Node {
    /// The engine.
    pub engine: Engine,
    /// What it runs on.
    pub host: SimHost,
}

/// How nodes are made.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Frames in the pool.
    pub frames: usize,
    /// What has the addresses: Ethernet or InfiniBand.
    pub media: Media,
    /// MTU of the bearer.
    pub mtu: usize,
    /// Whether one packet reaches all stations.
    pub broadcast: bool,
    /// What links start with.
    pub params: LinkParams,
    /// Longest time a transmission holds its frame.
    pub tx_hold_us: u64,
    /// Segments that a node is on, each by a bearer: 1 to 3.
    pub nets: usize,
    /// Cluster id.
    pub net_id: u32,
    /// Receive buffer of new sockets.
    pub receive_buffer: u32,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            frames: 4096,
            media: Media::Ethernet,
            mtu: MTU,
            broadcast: true,
            params: LinkParams::default(),
            tx_hold_us: 0,
            nets: 1,
            net_id: NET_ID,
            receive_buffer: xtipc_protocol::port::RECEIVE_BUFFER_DEFAULT,
        }
    }
}

/// Packets that a worker takes between two looks at its timers, as the daemon does.
const RECEIVE_BUDGET: usize = 64;
/// Inputs of one moment whose memory is read side by side before the first of them is worked on.
const SIDE_BY_SIDE: usize = 32;

/// What arrives at a node while its process is stopped.
struct Suspension {
    until: Instant,
    ring: VecDeque<(usize, Flight)>,
    /// Packets the receive ring holds; the rest is lost.
    room: usize,
}

/// Nodes, segment and clock.
pub struct Cluster {
    /// Virtual time.
    pub now: Instant,
    /// The seed's numbers.
    pub rng: Rng,
    /// The Ethernet.
    pub segment: Segment,
    /// Those of the second and third bearers.
    pub others: [Segment; MAX_BEARERS - 1],
    /// How nodes are made from now on.
    pub recipe: Recipe,
    /// Check that each packet sent is one that the codec writes: no bit without a meaning.
    pub strict: bool,
    arena: Arena,
    /// Room for the packets that a node sends at once.
    sending: Vec<Sent>,
    /// Room for those that arrive.
    arrived: Vec<Flight>,
    /// Room for the peers that inputs concern, with the stations that have these inputs.
    foreseen: Vec<(usize, Foreseen)>,
    nodes: Vec<Option<Node>>,
    suspended: BTreeMap<usize, Suspension>,
    /// By station: when its engine has something to do.
    due: Vec<Option<Instant>>,
    /// These, the first one on top; entries that `due` does not have are outdated.
    deadlines: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Cluster {
    /// A segment without nodes.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let segment = Segment::new(rng.next_u64());
        let recipe = Recipe::default();
        Self {
            now: Instant::from_millis(5_000),
            rng,
            segment,
            others: std::array::from_fn(|n| Segment::new(seed ^ (n as u64 + 1))),
            recipe,
            strict: true,
            arena: Arena::default(),
            sending: Vec::new(),
            arrived: Vec::new(),
            foreseen: Vec::new(),
            nodes: Vec::new(),
            suspended: BTreeMap::new(),
            due: Vec::new(),
            deadlines: BinaryHeap::new(),
        }
    }

    /// A cluster of `count` nodes that have found each other.
    pub fn settled(seed: u64, count: usize) -> Self {
        let mut cluster = Self::new(seed);
        for station in 0..count {
            cluster.start(station);
        }
        cluster.until("all links are up", |c| c.is_full_mesh());
        cluster.run_for(Duration::from_secs(1));
        cluster
    }

    /// Starts the usual node of a station.
    pub fn start(&mut self, station: usize) {
        self.start_as(station, &format!("node{station}"));
    }

    /// Starts a node with this identity at a station.
    pub fn start_as(&mut self, station: usize, id: &str) {
        let recipe = self.recipe;
        let mut host = SimHost::new(recipe.frames, self.arena.clone(), self.rng.next_u64());
        host.tx_hold = recipe.tx_hold_us * 1000;
        host.advance(self.now);
        let units = u128::from(self.now.as_millis()) / SESSION_UNIT.as_millis();
        let config = NodeConfig {
            id: NodeId::from_text(id).expect("a test gives a valid identity"),
            net_id: recipe.net_id,
            random: self.rng.next_u64(),
            session_base: units as u16,
            receive_buffer: recipe.receive_buffer,
            start: self.now,
        };
        let engine = Engine::new(config, &host);
        if self.nodes.len() <= station {
            self.nodes.resize_with(station + 1, || None);
            self.due.resize(station + 1, None);
        }
        self.nodes[station] = Some(Node { engine, host });
        for _ in 0..recipe.nets {
            self.add_bearer(station);
        }
    }

    /// Puts a node on one more segment.
    pub fn add_bearer(&mut self, station: usize) -> BearerId {
        let (now, recipe) = (self.now, self.recipe);
        let bearer = self.with(station, |node| {
            let taken = |id: u8| node.engine.bearer_params(BearerId(id)).is_some();
            let free = (0..MAX_BEARERS as u8).find(|id| !taken(*id));
            let mut interface = *b"eth0\0\0\0\0\0\0\0\0\0\0\0\0";
            interface[3] += free.expect("a test adds no fourth bearer");
            let setup = BearerSetup {
                interface,
                media: recipe.media,
                broadcast: recipe.broadcast,
                media_addr: media_addr(recipe.media, mac_of(station)),
                mtu: recipe.mtu,
                params: recipe.params,
            };
            let added = node.engine.add_bearer(now, setup, &mut node.host);
            added.expect("a bearer with a sane MTU")
        });
        self.net(bearer.index()).plug(station);
        bearer
    }

    /// The segment of a bearer.
    pub fn net(&mut self, bearer: usize) -> &mut Segment {
        match bearer {
            0 => &mut self.segment,
            other => &mut self.others[other - 1],
        }
    }

    /// All segments.
    pub fn nets(&self) -> impl Iterator<Item = &Segment> {
        std::iter::once(&self.segment).chain(&self.others)
    }

    /// A node dies: nobody is told.
    pub fn kill(&mut self, station: usize) {
        self.nodes[station] = None;
        self.due[station] = None;
        self.suspended.remove(&station);
        for net in 0..MAX_BEARERS {
            self.net(net).unplug(station);
        }
    }

    /// A node stands still, and is deaf meanwhile: its receive rings are full.
    pub fn freeze(&mut self, station: usize) -> Node {
        self.due[station] = None;
        self.nodes[station]
            .take()
            .expect("the test started this node")
    }

    /// A node goes on where [`Self::freeze`] left it.
    pub fn thaw(&mut self, station: usize, node: Node) {
        self.nodes[station] = Some(node);
        self.schedule(station);
    }

    /// A node stops in order and must have given back every frame.
    pub fn stop(&mut self, station: usize) {
        let owned = self.stop_counting(station);
        assert_eq!(owned, 0, "node {station} stopped and keeps {owned} frames");
    }

    /// A node stops in order; gives how many frames it kept.
    pub fn stop_counting(&mut self, station: usize) -> usize {
        let now = self.now;
        self.with(station, |node| node.engine.stop(now, &mut node.host));
        let owned = self.node(station).host.owned();
        self.kill(station);
        owned
    }

    /// Stops all nodes; none may keep a frame.
    pub fn finish(mut self) {
        for station in self.stations() {
            self.stop(station);
        }
    }

    /// Stations with a running node.
    pub fn stations(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|n| self.nodes[*n].is_some())
            .collect()
    }

    /// Stations with a running node that is not suspended.
    pub fn awake(&self) -> Vec<usize> {
        let mut awake = self.stations();
        awake.retain(|station| !self.is_suspended(*station));
        awake
    }

    /// Stops a node's process for a while, as SIGSTOP does: its clock goes on, and nothing of it runs.
    /// What arrives waits in a receive ring of `room` packets; what finds it full is lost.
    pub fn suspend(&mut self, station: usize, span: Duration, room: usize) {
        let suspension = Suspension {
            until: self.now + span,
            ring: VecDeque::new(),
            room,
        };
        self.suspended.insert(station, suspension);
        self.due[station] = None;
    }

    /// Whether a node's process is stopped.
    pub fn is_suspended(&self, station: usize) -> bool {
        self.suspended.contains_key(&station)
    }

    /// A stopped process goes on: it drains its receive ring, with a look at the timers after each
    /// batch, as the daemon's worker does.
    pub fn resume(&mut self, station: usize) {
        let Some(mut suspension) = self.suspended.remove(&station) else {
            return;
        };
        let now = self.now;
        loop {
            let batch = suspension.ring.len().min(RECEIVE_BUDGET);
            for (net, flight) in suspension.ring.drain(..batch) {
                self.receive_on(net, station, flight.source, &flight.bytes);
            }
            self.with(station, |node| node.engine.on_time(now, &mut node.host));
            if suspension.ring.is_empty() {
                return;
            }
        }
    }

    /// Whether a station has a running node.
    pub fn is_running(&self, station: usize) -> bool {
        self.nodes.get(station).is_some_and(Option::is_some)
    }

    /// A running node.
    pub fn node(&self, station: usize) -> &Node {
        self.nodes[station]
            .as_ref()
            .expect("the test started this node")
    }

    /// Calls into a node; what it sends goes on the wire.
    pub fn with<R>(&mut self, station: usize, act: impl FnOnce(&mut Node) -> R) -> R {
        assert!(
            !self.is_suspended(station),
            "node {station} is stopped and cannot act"
        );
        let now = self.now;
        let node = self.nodes[station]
            .as_mut()
            .expect("the test started this node");
        node.host.advance(now);
        let result = act(node);
        self.flush(station);
        self.schedule(station);
        result
    }

    /// Notes when a node has something to do next.
    fn schedule(&mut self, station: usize) {
        let node = self.nodes[station].as_ref();
        let next = node.and_then(|node| node.engine.next_timeout());
        if self.due[station] != next {
            self.due[station] = next;
            let deadline = next.map(|at| Reverse((at, station)));
            self.deadlines.extend(deadline);
        }
    }

    /// The first deadline of a node.
    fn next_deadline(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, station))) = self.deadlines.peek() {
            if self.due[*station] == Some(*at) {
                return Some(*at);
            }
            self.deadlines.pop();
        }
        None
    }

    /// Stations whose deadline has come, in order.
    fn pop_due(&mut self, now: Instant) -> Vec<usize> {
        let mut due = Vec::new();
        while self.next_deadline().is_some_and(|at| at <= now) {
            if let Some(Reverse((_, station))) = self.deadlines.pop() {
                self.due[station] = None;
                due.push(station);
            }
        }
        due.sort_unstable();
        due
    }

    fn flush(&mut self, station: usize) {
        let Some(node) = &mut self.nodes[station] else {
            return;
        };
        if node.host.sent.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.sending);
        std::mem::swap(&mut all, &mut node.host.sent);
        for sent in all.drain(..) {
            if self.strict && sent.bytes.len() < 9000 {
                let decoded = Packet::decode(&sent.bytes);
                assert!(
                    decoded.is_ok(),
                    "node {station} sent {decoded:?}: {:02x?}",
                    sent.bytes
                );
            }
            let now = self.now;
            self.net(sent.bearer.index())
                .send(now, station, sent.to, sent.bytes);
        }
        self.sending = all;
    }

    /// Lets time pass up to the next event, at most to `end`. False if `end` was reached.
    pub fn step(&mut self, end: Instant) -> bool {
        let timeouts = self.next_deadline();
        let resumes = self.suspended.values().map(|s| s.until);
        let next = timeouts
            .into_iter()
            .chain(resumes)
            .chain(self.nets().filter_map(Segment::next_arrival))
            .min();
        let Some(next) = next.map(|at| at.max(self.now)).filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.now = next;
        for net in 0..MAX_BEARERS {
            while self.deliver_some(net) {}
        }
        let over = self.suspended.iter().filter(|(_, s)| s.until <= next);
        for station in over.map(|(station, _)| *station).collect::<Vec<_>>() {
            self.resume(station);
        }
        for stations in self.pop_due(next).chunks(SIDE_BY_SIDE) {
            self.read_ahead(|cluster, foreseen| {
                for station in stations {
                    let timers = cluster.node(*station).engine.foresee_timers(next);
                    foreseen.extend(timers.map(|peer| (*station, peer)));
                }
            });
            for station in stations {
                self.with(*station, |node| node.engine.on_time(next, &mut node.host));
            }
        }
        true
    }

    /// Reads what inputs of several nodes will need, side by side: nodes and peers are many, and what one of them was last
    /// asked for has left all caches since.
    fn read_ahead(&mut self, foresee: impl FnOnce(&Self, &mut Vec<(usize, Foreseen)>)) {
        let mut foreseen = std::mem::take(&mut self.foreseen);
        foresee(self, &mut foreseen);
        for (station, peer) in &foreseen {
            self.node(*station).engine.read_peer(*peer);
        }
        for (station, peer) in foreseen.drain(..) {
            self.node(station).engine.read_links(peer);
        }
        self.foreseen = foreseen;
    }

    /// Hands the next packets that have arrived to their nodes; false if there were none.
    fn deliver_some(&mut self, net: usize) -> bool {
        let now = self.now;
        let mut arrived = std::mem::take(&mut self.arrived);
        let segment = self.net(net);
        arrived.extend(std::iter::from_fn(|| segment.pop_arrived(now)).take(SIDE_BY_SIDE));
        let is_over = arrived.is_empty();
        if arrived.len() > 1 {
            self.read_ahead(|cluster, foreseen| {
                foreseen.extend(arrived.iter().filter_map(|flight| {
                    let node = cluster.nodes.get(flight.to)?.as_ref()?;
                    Some((flight.to, node.engine.foresee_packet(&flight.bytes)?))
                }));
            });
        }
        for flight in arrived.drain(..) {
            if let Some(suspension) = self.suspended.get_mut(&flight.to) {
                if suspension.ring.len() < suspension.room {
                    suspension.ring.push_back((net, flight));
                }
            } else if self.is_running(flight.to) {
                self.receive_on(net, flight.to, flight.source, &flight.bytes);
                self.arena.give_back_packet(flight.bytes);
            }
        }
        self.arrived = arrived;
        !is_over
    }

    /// Hands a packet to a node at once.
    pub fn receive(&mut self, station: usize, source: [u8; 6], bytes: &[u8]) {
        self.receive_on(0, station, source, bytes);
    }

    /// The same from the segment of another bearer.
    pub fn receive_on(&mut self, net: usize, station: usize, source: [u8; 6], bytes: &[u8]) {
        let (now, bearer) = (self.now, BearerId(net as u8));
        let source = source_addr(self.recipe.media, source);
        self.with(station, |node| {
            node.engine
                .on_packet(now, bearer, source, bytes, &mut node.host);
        });
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
    }

    /// Runs until something is the case; a minute of virtual time must do.
    pub fn until(&mut self, what: &str, done: impl FnMut(&Self) -> bool) {
        let reached = self.reaches(Duration::from_secs(60), done);
        assert!(reached, "not within a minute: {what}");
    }

    /// Runs until something is the case, or for `span`. False if it was not.
    pub fn reaches(&mut self, span: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + span;
        while !done(self) {
            if !self.step(end) {
                return false;
            }
        }
        true
    }

    /// A node's address.
    pub fn addr(&self, station: usize) -> NodeAddr {
        self.node(station).engine.own_addr()
    }

    /// The same, or no address if the node does not run.
    pub fn addr_if_running(&self, station: usize) -> NodeAddr {
        if self.is_running(station) {
            self.addr(station)
        } else {
            NodeAddr::NONE
        }
    }

    /// What a node thinks of another.
    pub fn peer_view(&self, of: usize, peer: usize) -> Option<PeerView> {
        let id = self.node(peer).engine.config().id;
        self.node(of).engine.peers().find(|p| p.id == id)
    }

    /// The first link of a node to another.
    pub fn link_view(&self, of: usize, peer: usize) -> LinkView {
        let view = self.peer_view(of, peer);
        let link = view.and_then(|peer| peer.links.into_iter().next());
        link.expect("they have a link")
    }

    /// Whether `a` has a working link to `b`.
    pub fn is_up(&self, a: usize, b: usize) -> bool {
        self.peer_view(a, b).is_some_and(|p| p.up)
    }

    /// Whether all have working links to all.
    pub fn is_full_mesh(&self) -> bool {
        let all = self.stations();
        let addrs: Vec<_> = all.iter().map(|station| self.addr(*station)).collect();
        let meets_all = |station: &usize| {
            let engine = &self.node(*station).engine;
            addrs.iter().all(|addr| engine.path(*addr).up)
        };
        !addrs.contains(&NodeAddr::NONE) && all.iter().all(meets_all)
    }

    /// Notices of a node since the last call.
    pub fn notices(&mut self, station: usize) -> Vec<Notice> {
        self.with(station, |node| std::mem::take(&mut node.host.notices))
    }
}

/// Sockets.
impl Cluster {
    /// Opens a socket.
    pub fn open(&mut self, station: usize) -> SocketAddr {
        let port = self.with(station, |node| node.engine.open(SocketKind::Rdm));
        SocketAddr {
            port,
            node: self.addr(station),
        }
    }

    /// A socket whose messages come back if nobody takes them.
    pub fn open_returning(&mut self, station: usize) -> SocketAddr {
        let addr = self.open(station);
        self.with(station, |n| {
            n.engine
                .port_mut(addr.port)
                .expect("just opened")
                .dest_droppable = false
        });
        addr
    }

    /// Binds in the whole cluster.
    pub fn bind(&mut self, station: usize, port: PortId, range: (u32, u32, u32)) {
        self.bind_scoped(station, port, range, Scope::Cluster);
    }

    /// Binds.
    pub fn bind_scoped(
        &mut self,
        station: usize,
        port: PortId,
        range: (u32, u32, u32),
        scope: Scope,
    ) {
        let (now, range) = (self.now, service_range(range));
        let bound = self.with(station, |node| {
            node.engine.bind(now, port, range, scope, &mut node.host)
        });
        bound.expect("a test binds what can be bound");
    }

    /// Takes a binding of the whole cluster back.
    pub fn unbind(&mut self, station: usize, port: PortId, range: (u32, u32, u32)) {
        let (now, range) = (self.now, service_range(range));
        let gone = self.with(station, |n| {
            n.engine
                .unbind(now, port, range, Scope::Cluster, &mut n.host)
        });
        gone.expect("a test unbinds what is bound");
    }

    /// Sends a message.
    pub fn send<P: Payload + ?Sized>(
        &mut self,
        station: usize,
        from: PortId,
        to: Destination,
        payload: &P,
    ) -> Result<(), SendError> {
        let now = self.now;
        self.with(station, |node| {
            node.engine.send(now, from, &to, payload, &mut node.host)
        })
    }

    /// Lets the small messages that `act` sends from this node share packets.
    pub fn gathering(&mut self, station: usize, act: impl FnOnce(&mut Self)) {
        self.with(station, |node| node.engine.begin_gathering());
        act(self);
        let now = self.now;
        self.with(station, |node| {
            node.engine.end_gathering(now, &mut node.host)
        });
    }

    /// Closes a socket.
    pub fn close(&mut self, station: usize, port: PortId) {
        let now = self.now;
        self.with(station, |node| node.engine.close(now, port, &mut node.host));
    }

    /// Takes the next message of a socket.
    pub fn recv(&mut self, station: usize, port: PortId) -> Option<Received> {
        let now = self.now;
        self.with(station, |node| {
            let message = node.host.inbox.get_mut(&port)?.pop_front()?;
            crate::groups::consume(&mut node.engine, port, &message.about);
            node.engine.acknowledge_consumed(now, &mut node.host);
            Some(message)
        })
    }

    /// Takes all messages of a socket.
    pub fn recv_all(&mut self, station: usize, port: PortId) -> Vec<Received> {
        std::iter::from_fn(|| self.recv(station, port)).collect()
    }

    /// The texts of all messages of a socket.
    pub fn texts(&mut self, station: usize, port: PortId) -> Vec<String> {
        self.recv_all(station, port)
            .iter()
            .map(|m| m.text().to_string())
            .collect()
    }
}

/// A service range from its parts.
pub fn service_range((type_, lower, upper): (u32, u32, u32)) -> ServiceRange {
    ServiceRange {
        type_,
        lower,
        upper,
    }
}

/// Any one socket bound to a service address.
pub fn service(kind: u32, instance: u32) -> Destination {
    Destination::Service {
        kind,
        instance,
        domain: NodeAddr::NONE,
    }
}

/// All sockets bound within a range.
pub fn range(kind: u32, lower: u32, upper: u32) -> Destination {
    Destination::Range { kind, lower, upper }
}
