//! Clusters that live through random events, from a seed, with everything that must hold checked.
//!
//! A run is faults, restarts, slow nodes, bindings and datagrams as the seed has them. What is
//! checked is in [`crate::checks`]: streams of messages while their links stay up, opinions on links
//! all the time, and when the faults have ended links, tables and frames.
//!
//! One run in eight has packets with flipped bits, as if the Ethernet had no checksum. TIPC has none
//! either, so what arrives then is what the bits say; checked are that no engine panics, that no frame
//! leaks, and that restarted nodes find each other and agree.

use crate::checks::{
    Agreement, Deliveries, Promise, SocketKey, Violation, check_tables, disagreement_bound, table,
};
use crate::cluster::{Cluster, range};
use crate::questions::{MARK, Questions};
use crate::segment::Faults;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr, PortId, SocketAddr};
use xtipc_protocol::host::Notice;
use xtipc_protocol::name::Scope;
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::time::Instant;
use xtipc_protocol::wire::Importance;

const SERVICE: u32 = 5000;
/// Each message starts with its stream and number.
const STAMP: usize = 8;
/// How often opinions on links are compared.
const SAMPLE: Duration = Duration::from_millis(50);
/// Links have so long to come up.
const MESH_WITHIN: Duration = Duration::from_secs(60);
/// What is under way then arrives within this: a multicast may wait for its twin for ten tolerances of
/// 1.5 s, and it goes on at the next tick.
const QUIET: Duration = Duration::from_secs(18);
const MOST_SOCKETS: usize = 24;
const SLOWEST_US: u64 = 600_000;
const STRAGGLES_US: [u64; 3] = [100, 2_000, 20_000];
const DELAYS_US: [u64; 4] = [20, 20, 200, 5_000];

/// What a run is made from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of nodes: one of these.
    pub nodes: Range<u64>,
    /// Number of events.
    pub events: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 2..21,
            events: 400,
        }
    }
}

/// What a run that found nothing wrong was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Depends on every packet, its sender and its time.
    pub trace: u64,
    /// Nodes.
    pub nodes: usize,
    /// Packets sent.
    pub packets: u64,
    /// Messages that arrived.
    pub delivered: u64,
    /// Virtual time that passed.
    pub lasted: Duration,
    /// Longest time two nodes disagreed on their link.
    pub disagreed: Duration,
}

/// A socket of the run.
#[derive(Clone, Copy, Debug)]
struct Socket {
    station: usize,
    addr: SocketAddr,
}

fn key(addr: SocketAddr) -> SocketKey {
    (addr.node.0, addr.port.0)
}

/// Lets a cluster live as the seed says; the same seed and plan give the same run.
pub fn run(seed: u64, plan: &Plan) -> Result<Outcome, Violation> {
    let mut run = Run::new(seed, plan)?;
    for _ in 0..4 {
        run.open();
    }
    for _ in 0..plan.events {
        run.act()?;
    }
    run.finish()
}

/// A run under way.
struct Run {
    cluster: Cluster,
    began: Instant,
    nodes: usize,
    /// Packets get flipped bits.
    corrupting: bool,
    sockets: Vec<Socket>,
    deliveries: Deliveries,
    agreement: Agreement,
    next_sample: Instant,
    /// By sender and destination: the stream in use.
    streams: BTreeMap<(SocketKey, String), usize>,
    questions: Questions,
}

impl Run {
    fn new(seed: u64, plan: &Plan) -> Result<Self, Violation> {
        let mut cluster = Cluster::new(seed);
        let nodes = cluster.rng.within(plan.nodes.clone()) as usize;
        let corrupting = cluster.rng.chance(125);
        cluster.strict = seed.is_multiple_of(10) && !corrupting;
        cluster.recipe.frames = cluster.rng.pick(&[600, 1500, 4096]);
        cluster.recipe.tx_hold_us = cluster.rng.pick(&[0, 0, 200, 20_000]);
        cluster.recipe.mtu = cluster.rng.pick(&[1500, 1500, 600, 2000]);
        cluster.segment.delay_us = cluster.rng.pick(&DELAYS_US);
        let longest = |of: &[u64]| of.iter().max().copied().unwrap_or(0);
        let transit = SLOWEST_US + longest(&STRAGGLES_US) + longest(&DELAYS_US);
        let params = cluster.recipe.params;
        let bound = disagreement_bound(params, Duration::from_micros(transit), SAMPLE);
        let mut run = Self {
            began: cluster.now,
            next_sample: cluster.now,
            nodes,
            cluster,
            corrupting,
            sockets: Vec::new(),
            deliveries: Deliveries::default(),
            agreement: Agreement::new(bound),
            streams: BTreeMap::new(),
            questions: Questions::default(),
        };
        for station in 0..nodes {
            run.cluster.start(station);
            let pause = run.cluster.rng.below(1500);
            run.pass(Duration::from_millis(pause))?;
        }
        run.await_mesh()?;
        Ok(run)
    }

    /// Lets time pass and compares opinions now and then.
    fn pass(&mut self, span: Duration) -> Result<(), Violation> {
        let end = self.cluster.now + span;
        loop {
            let until = end.min(self.next_sample);
            while self.cluster.step(until) {
                self.questions.answer(&mut self.cluster)?;
            }
            if self.cluster.now >= self.next_sample {
                self.next_sample = self.cluster.now + SAMPLE;
                self.compare_opinions()?;
            }
            if self.cluster.now >= end {
                return Ok(());
            }
        }
    }

    /// Who thinks it has a working link to whom.
    fn links(&self) -> BTreeSet<(usize, usize)> {
        let all = self.cluster.stations();
        let by_addr: BTreeMap<NodeAddr, usize> =
            all.iter().map(|s| (self.cluster.addr(*s), *s)).collect();
        let mut links = BTreeSet::new();
        for a in all {
            let up = self.cluster.node(a).engine.peers().filter(|p| p.up);
            links.extend(up.filter_map(|p| Some((a, *by_addr.get(&p.addr)?))));
        }
        links
    }

    fn compare_opinions(&mut self) -> Result<(), Violation> {
        if self.corrupting {
            return Ok(());
        }
        let (now, links) = (self.cluster.now, self.links());
        let all = self.cluster.stations();
        for a in &all {
            for b in all.iter().filter(|b| *b > a) {
                let opinions = (links.contains(&(*a, *b)), links.contains(&(*b, *a)));
                self.agreement.observe(now, (*a, *b), opinions)?;
            }
        }
        Ok(())
    }

    fn await_mesh(&mut self) -> Result<(), Violation> {
        let end = self.cluster.now + MESH_WITHIN;
        let count = self.cluster.stations().len();
        while self.links().len() < count * (count - 1) {
            if self.cluster.now >= end {
                return Err(Violation::NoMesh(MESH_WITHIN));
            }
            self.pass(SAMPLE)?;
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), Violation> {
        match self.cluster.rng.below(1000) {
            0..30 => self.open(),
            30..40 => self.close(),
            40..120 => self.bind_or_unbind(),
            120..128 => self.restart()?,
            128..136 => self.change_faults(),
            136..140 => self.partition(),
            140..146 => self.cluster.segment.heal(),
            146..152 => self.slow_down(),
            152..180 => self.ask(),
            _ => self.send(),
        }
        let pause = self.cluster.rng.pick(&[0, 0, 50, 500, 5_000, 100_000]);
        self.pass(Duration::from_micros(pause))?;
        self.collect()
    }

    fn pick_station(&mut self) -> usize {
        let stations = self.cluster.stations();
        self.cluster.rng.pick(&stations)
    }

    fn open(&mut self) {
        let station = self.pick_station();
        if self.cluster.addr(station) == NodeAddr::NONE || self.sockets.len() >= MOST_SOCKETS {
            return;
        }
        let addr = self.cluster.open(station);
        let rng = &mut self.cluster.rng;
        let importance = rng.pick(&[Importance::Low, Importance::Low, Importance::High]);
        let method = rng.pick(&[
            None,
            None,
            Some(McastMethod::Broadcast),
            Some(McastMethod::Replicast),
        ]);
        self.cluster.with(station, |node| {
            let port = node.engine.port_mut(addr.port).expect("just opened");
            (port.importance, port.mcast_wanted) = (importance, method);
        });
        self.sockets.push(Socket { station, addr });
    }

    fn pick_socket(&mut self) -> Option<Socket> {
        let count = self.sockets.len() as u64;
        (count > 0).then(|| self.sockets[self.cluster.rng.below(count) as usize])
    }

    fn close(&mut self) {
        if let Some(socket) = self.pick_socket() {
            self.cluster.close(socket.station, socket.addr.port);
            self.deliveries.closed(key(socket.addr));
            self.sockets.retain(|s| key(s.addr) != key(socket.addr));
        }
    }

    fn bind_or_unbind(&mut self) {
        let Some(Socket { station, addr }) = self.pick_socket() else {
            return;
        };
        self.deliveries.changed(key(addr));
        let engine = &self.cluster.node(station).engine;
        let port = engine.port(addr.port).expect("a socket of the run is open");
        let first = port.bindings.first().copied();
        if let Some(binding) = first
            && self.cluster.rng.chance(600)
        {
            let now = self.cluster.now;
            self.cluster.with(station, |n| {
                n.engine
                    .unbind(now, addr.port, binding.range, binding.scope, &mut n.host)
                    .expect("it was bound");
            });
            return;
        }
        let rng = &mut self.cluster.rng;
        let lower = rng.below(10) as u32;
        let upper = lower + rng.below(10) as u32;
        let scope = rng.pick(&[Scope::Cluster, Scope::Cluster, Scope::Node]);
        let range = (SERVICE, lower, upper);
        self.cluster.bind_scoped(station, addr.port, range, scope);
    }

    fn restart(&mut self) -> Result<(), Violation> {
        let station = self.pick_station();
        self.end(station)?;
        let pause = self.cluster.rng.below(4000);
        self.pass(Duration::from_millis(pause))?;
        self.cluster.start(station);
        Ok(())
    }

    /// A node dies or stops.
    fn end(&mut self, station: usize) -> Result<(), Violation> {
        let node = self.cluster.addr(station).0;
        for other in self.cluster.stations() {
            self.deliveries.broke(node, self.cluster.addr(other).0);
        }
        self.sockets.retain(|s| s.station != station);
        self.agreement.forget(station);
        if self.cluster.rng.chance(500) {
            self.cluster.kill(station);
            return Ok(());
        }
        match self.cluster.stop_counting(station) {
            0 => Ok(()),
            owned => Err(Violation::FramesLeaked(station, owned)),
        }
    }

    fn change_faults(&mut self) {
        let rng = &mut self.cluster.rng;
        self.cluster.segment.faults = Faults {
            loss: rng.pick(&[0, 10, 100, 250]),
            duplication: rng.pick(&[0, 0, 50, 300]),
            reordering: rng.pick(&[0, 0, 100, 400]),
            straggle_us: rng.pick(&STRAGGLES_US),
            corruption: if self.corrupting {
                rng.pick(&[0, 5, 50])
            } else {
                0
            },
        };
        self.cluster.segment.delay_us = rng.pick(&DELAYS_US);
    }

    fn partition(&mut self) {
        let (a, b) = (self.pick_station(), self.pick_station());
        if self.cluster.rng.chance(300) {
            self.cluster.segment.cuts.insert((a, b));
        } else {
            self.cluster.segment.cut(a, b);
        }
    }

    /// A node becomes slow, or all are fast again.
    fn slow_down(&mut self) {
        self.cluster.segment.slow.clear();
        if self.cluster.rng.chance(600) {
            let station = self.pick_station();
            let by = self.cluster.rng.pick(&[5_000, 100_000, SLOWEST_US]);
            self.cluster.segment.slow.insert(station, by);
        }
    }

    fn ask(&mut self) {
        let (Some(client), Some(server)) = (self.pick_socket(), self.pick_socket()) else {
            return;
        };
        if client.station != server.station && !self.corrupting {
            let (client, server) = ((client.station, client.addr), (server.station, server.addr));
            self.questions.ask(&mut self.cluster, client, server);
        }
    }

    fn send(&mut self) {
        let (Some(from), Some(to)) = (self.pick_socket(), self.pick_socket()) else {
            return;
        };
        let rng = &mut self.cluster.rng;
        let destination = match rng.below(3) {
            0 => Destination::Socket(to.addr),
            1 => Destination::Service {
                kind: SERVICE,
                instance: rng.below(20) as u32,
                domain: NodeAddr::NONE,
            },
            _ => range(SERVICE, 0, 30),
        };
        let burst = rng.pick(&[1, 1, 5, 60]);
        let stream = self.stream(from, to, &destination);
        for _ in 0..burst {
            let len = STAMP + self.cluster.rng.pick(&[0, 0, 10, 100, 1400, 1600, 9_000]);
            let number = self.deliveries.next_number(stream);
            let mut payload = vec![stream as u8; len];
            payload[..4].copy_from_slice(&(stream as u32).to_be_bytes());
            payload[4..8].copy_from_slice(&number.to_be_bytes());
            let (station, port) = (from.station, from.addr.port);
            let sent = self
                .cluster
                .send(station, port, destination, &payload[..])
                .is_ok();
            if sent {
                self.deliveries.sent(stream);
            }
        }
    }

    /// The stream of a sender to a destination: another one whenever it promises something else.
    fn stream(&mut self, from: Socket, to: Socket, destination: &Destination) -> usize {
        let promise = match destination {
            Destination::Socket(_) if self.reaches(from, key(to.addr).0) => {
                Promise::Socket(key(to.addr))
            }
            Destination::Range { .. } => Promise::Members(self.members(from)),
            _ => Promise::Anyone,
        };
        let way = (key(from.addr), format!("{destination:?}"));
        if let Some(stream) = self.streams.get(&way)
            && self.deliveries.goes_on(*stream, &promise)
        {
            return *stream;
        }
        let stream = self.deliveries.begin(key(from.addr), promise);
        self.streams.insert(way, stream);
        stream
    }

    fn reaches(&self, from: Socket, node: u32) -> bool {
        from.addr.node.0 == node
            || self
                .cluster
                .node(from.station)
                .engine
                .peers()
                .any(|p| p.up && p.addr.0 == node)
    }

    /// Sockets with a binding that the sender's node knows and that still is one.
    fn members(&self, from: Socket) -> BTreeSet<SocketKey> {
        let known = self.cluster.node(from.station).engine.publications();
        known
            .filter(|p| p.range.type_ == SERVICE)
            .filter(|p| {
                let of = |s: &&Socket| key(s.addr) == (p.node, p.port);
                self.sockets.iter().find(of).is_some_and(|s| {
                    let port = self.cluster.node(s.station).engine.port(s.addr.port);
                    let mut bindings = port.into_iter().flat_map(|port| &port.bindings);
                    bindings.any(|b| b.range == p.range && b.scope == p.scope)
                })
            })
            .map(|p| (p.node, p.port))
            .collect()
    }

    /// Takes what has arrived and checks it.
    fn collect(&mut self) -> Result<(), Violation> {
        // First all that ends a promise, then what was promised.
        for station in self.cluster.stations() {
            let own = self.cluster.addr(station);
            for notice in self.cluster.notices(station) {
                if let Notice::LinkDown(peer, _) = notice {
                    self.deliveries.broke(own.0, peer.0);
                }
            }
        }
        for station in self.cluster.stations() {
            let node = self.cluster.addr(station);
            let inbox = &self.cluster.node(station).host.inbox;
            let ports: Vec<PortId> = inbox.keys().copied().collect();
            for port in ports {
                for message in self.cluster.recv_all(station, port) {
                    let receiver = key(SocketAddr { port, node });
                    self.check(receiver, key(message.about.source), &message.bytes)?;
                }
            }
        }
        Ok(())
    }

    fn check(
        &mut self,
        receiver: SocketKey,
        source: SocketKey,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        if self.corrupting {
            return Ok(());
        }
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes))
        };
        let (Some(stream), Some(number)) = (word(0), word(4)) else {
            return Err(Violation::Mangled(0));
        };
        if stream == MARK {
            return Ok(());
        }
        let stream = stream as usize;
        if bytes[STAMP..].iter().any(|b| *b != stream as u8) {
            return Err(Violation::Mangled(stream));
        }
        self.deliveries.arrived(stream, number, source, receiver)
    }

    fn finish(mut self) -> Result<Outcome, Violation> {
        self.cluster.segment.faults = Faults::default();
        self.cluster.segment.slow.clear();
        self.cluster.segment.heal();
        if self.corrupting {
            // What flipped bits made of the nodes ends with them.
            for station in self.cluster.stations() {
                self.end(station)?;
            }
            self.pass(Duration::from_secs(2))?;
            (0..self.nodes).for_each(|station| self.cluster.start(station));
        }
        self.await_mesh()?;
        self.pass(QUIET)?;
        self.collect()?;
        self.deliveries.finish()?;
        let stations = self.cluster.stations();
        check_tables(stations.iter().map(|s| (*s, table(&self.cluster, *s))))?;
        for station in stations {
            let owned = self.cluster.stop_counting(station);
            if owned > 0 {
                return Err(Violation::FramesLeaked(station, owned));
            }
        }
        Ok(Outcome {
            trace: self.cluster.segment.trace,
            nodes: self.nodes,
            packets: self.cluster.segment.packets,
            delivered: self.deliveries.count,
            lasted: Duration::from_nanos(self.cluster.now.0 - self.began.0),
            disagreed: self.agreement.longest,
        })
    }
}
