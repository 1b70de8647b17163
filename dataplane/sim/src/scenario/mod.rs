//! Clusters that live through random events, from a seed, with everything that must hold checked.
//!
//! A run is faults, restarts, slow and stopped nodes, bindings and datagrams as the seed has them
//! (`events`, `traffic`). What is checked is in [`crate::checks`]: streams of messages while their links
//! stay up, opinions on links all the time, and when the faults have ended links, tables and frames.
//! With a [`Sabotage`] a run breaks one of these properties itself, and has to fail.
//!
//! One run in eight has packets with flipped bits, as if the Ethernet had no checksum. TIPC has none
//! either, so what arrives then is what the bits say, and a changed binding stays changed. Checked are
//! that no engine panics, that all links are up again when the faults have ended, that no frame leaks,
//! and that nodes which start anew agree on their tables.

mod connections;
mod cuts;
mod events;
mod groups;
mod sabotage;
mod tracking;
mod traffic;

pub use sabotage::Sabotage;

use crate::checks::{
    Agreement, Deliveries, Losses, SocketKey, Violation, check_frames, check_mesh, check_tables,
    silence_bound, table,
};
use crate::cluster::Cluster;
use crate::questions::Questions;
use crate::segment::{Faults, seconds};
use crate::tracking::Heard;
use connections::Connections;
use groups::Members;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;
use xtipc_protocol::addr::{NodeAddr, PortId, SocketAddr};
use xtipc_protocol::engine::PeerView;
use xtipc_protocol::time::Instant;

const SERVICE: u32 = 5000;
/// Each message starts with its stream, its number, the bounds of a binding of its sender and the time.
const STAMP: usize = 24;
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
/// How long a process is stopped.
const STOPPED_MS: [(u64, u64); 3] = [(10, 300), (300, 2_000), (2_000, 12_000)];
/// Packets that wait for a stopped process.
const RING_ROOM: [usize; 3] = [64, 512, 2048];
const DELAYS_US: [u64; 4] = [20, 20, 200, 5_000];

/// What a run is made from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of nodes: one of these.
    pub nodes: Range<u64>,
    /// Number of events.
    pub events: usize,
    /// Events that concern connections, in per mille.
    pub connecting: u32,
    /// Those that concern a group, in per mille.
    pub grouping: u32,
    /// Segments that each node is on; `None`: two in every fourth run, else one.
    pub nets: Option<usize>,
    /// So many cuts and restores of one of two nets, under traffic, in place of `events` and all other faults.
    pub cuts: Option<usize>,
    /// Print each packet and event.
    pub log: bool,
    /// What the run itself breaks.
    pub sabotage: Option<Sabotage>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 2..21,
            events: 400,
            connecting: 200,
            grouping: 150,
            nets: None,
            cuts: None,
            log: false,
            sabotage: None,
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
    /// Bytes that connections carried.
    pub carried: u64,
    /// Ends of connections that were told of the end.
    pub ended: u64,
    /// Messages and events that members of the group heard.
    pub told: u64,
    /// Events that subscribers heard.
    pub heard: u64,
    /// Virtual time that passed.
    pub lasted: Duration,
    /// Longest time two nodes disagreed on their link.
    pub disagreed: Duration,
    /// Longest time that a message to a socket address took.
    pub slowest: Duration,
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
    match plan.cuts {
        Some(cuts) => run.live_through_cuts(cuts)?,
        None => {
            for _ in 0..plan.events {
                run.act()?;
            }
        }
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
    losses: Losses,
    next_sample: Instant,
    /// By sender and destination: the stream in use.
    streams: BTreeMap<(SocketKey, String), usize>,
    questions: Questions,
    connections: Connections,
    /// Events that concern them, in per mille.
    connecting: u32,
    members: Members,
    /// Events that concern them, in per mille.
    grouping: u32,
    /// By station: its subscriber, and what it has heard.
    subscribers: BTreeMap<usize, (PortId, Heard)>,
    heard: u64,
    /// Since when two nodes have had contact, whichever of them noticed last; not if one of them is a new one that the
    /// other has not noticed.
    contact: BTreeMap<(u32, u32), Instant>,
    /// When senders switched the method of their multicasts.
    switches: BTreeMap<SocketKey, Vec<Instant>>,
    sabotage: Option<Sabotage>,
    /// Nothing goes wrong but that nets are cut, and contact has to last.
    lasting: bool,
    slowest: Duration,
}

impl Run {
    fn new(seed: u64, plan: &Plan) -> Result<Self, Violation> {
        let mut cluster = Cluster::new(seed);
        let nodes = cluster.rng.within(plan.nodes.clone()) as usize;
        let corrupting = cluster.rng.chance(125) && plan.cuts.is_none();
        cluster.strict = seed.is_multiple_of(10) && !corrupting;
        cluster.recipe.frames = cluster.rng.pick(&[600, 1500, 4096]);
        cluster.recipe.tx_hold_us = cluster.rng.pick(&[0, 0, 200, 20_000]);
        cluster.recipe.mtu = cluster.rng.pick(&[1500, 1500, 600, 2000]);
        cluster.recipe.nets = plan.nets.unwrap_or(1 + usize::from(seed % 4 == 3));
        if plan.cuts.is_some() {
            // The second one comes while there is traffic.
            cluster.recipe.nets = 1;
        }
        for net in 0..cluster.recipe.nets {
            let delay_us = cluster.rng.pick(&DELAYS_US);
            cluster.net(net).log = plan.log;
            cluster.net(net).delay_us = delay_us;
        }
        let longest = |of: &[u64]| of.iter().max().copied().unwrap_or(0);
        let transit = SLOWEST_US + longest(&STRAGGLES_US) + longest(&DELAYS_US);
        let params = cluster.recipe.params;
        let bound = silence_bound(params, Duration::from_micros(transit), SAMPLE);
        let mut run = Self {
            began: cluster.now,
            next_sample: cluster.now,
            nodes,
            cluster,
            corrupting,
            sockets: Vec::new(),
            deliveries: Deliveries::default(),
            agreement: Agreement::new(bound),
            losses: Losses::new(bound),
            streams: BTreeMap::new(),
            questions: Questions::default(),
            connections: Connections::default(),
            connecting: plan.connecting,
            members: Members::default(),
            grouping: plan.grouping,
            subscribers: BTreeMap::new(),
            heard: 0,
            contact: BTreeMap::new(),
            switches: BTreeMap::new(),
            sabotage: plan.sabotage,
            lasting: plan.cuts.is_some(),
            slowest: Duration::ZERO,
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
                self.hear()?;
            }
            if self.cluster.now >= end {
                return Ok(());
            }
        }
    }

    /// Who thinks it has contact with whom.
    fn links(&self) -> BTreeSet<(usize, usize)> {
        self.links_by(1)
    }

    /// Who thinks it has so many working links to whom.
    fn links_by(&self, nets: usize) -> BTreeSet<(usize, usize)> {
        let all = self.cluster.stations();
        let by_addr: BTreeMap<NodeAddr, usize> =
            all.iter().map(|s| (self.cluster.addr(*s), *s)).collect();
        let mut links = BTreeSet::new();
        for a in all {
            let count = |peer: &PeerView| peer.links.iter().filter(|link| link.up).count();
            let peers = self.cluster.node(a).engine.peers();
            let up = peers.filter(|peer| peer.up && count(peer) >= nets);
            links.extend(up.filter_map(|p| Some((a, *by_addr.get(&p.addr)?))));
        }
        links
    }

    fn compare_opinions(&mut self) -> Result<(), Violation> {
        if self.corrupting {
            return Ok(());
        }
        let (now, mut links) = (self.cluster.now, self.links());
        if self.sabotage == Some(Sabotage::Disagree) {
            links.remove(&(0, 1));
        }
        // A stopped process has no opinion.
        let all = self.cluster.awake();
        for station in self.cluster.stations() {
            if self.cluster.is_suspended(station) {
                self.agreement.forget(station);
                self.losses.stopped(now, station);
            }
        }
        for station in &all {
            // A restarted node has the address of the one that died from its trial period on.
            self.losses.returned(self.cluster.addr(*station).0);
        }
        if self.sabotage == Some(Sabotage::Believe) && all.contains(&0) {
            self.losses.died(self.began, self.cluster.addr(0).0);
        }
        for station in &all {
            let peers = self.cluster.node(*station).engine.peers();
            let linked = peers.filter(|p| p.up).map(|p| p.addr.0);
            self.losses.observe(now, *station, linked)?;
        }
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
        let all = self.cluster.stations();
        loop {
            let links = self.links_by(self.cluster.recipe.nets);
            let meshed = check_mesh(&links, &all, MESH_WITHIN);
            if meshed.is_ok() || self.cluster.now >= end {
                return meshed;
            }
            self.pass(SAMPLE)?;
            self.collect()?;
        }
    }

    /// Says what happens, to be read among the packets.
    fn say(&self, what: impl FnOnce() -> String) {
        if self.cluster.segment.log {
            println!("{:.6} {}", seconds(self.cluster.now), what());
        }
    }

    fn stop_all(&mut self) -> Result<(), Violation> {
        for station in self.cluster.stations() {
            let owned = self.cluster.stop_counting(station);
            check_frames(station, owned)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome, Violation> {
        for net in 0..self.cluster.recipe.nets {
            let net = self.cluster.net(net);
            net.faults = Faults::default();
            net.slow.clear();
            net.heal();
        }
        for station in self.cluster.stations() {
            self.cluster.resume(station);
        }
        if self.sabotage == Some(Sabotage::Cut) {
            for net in 0..self.cluster.recipe.nets {
                self.cluster.net(net).cut(0, 1);
            }
            self.pass(QUIET)?;
        }
        self.await_mesh()?;
        if !self.corrupting {
            self.finish_connections()?;
            self.finish_groups()?;
        }
        if self.corrupting {
            // What flipped bits made of the tables ends with the nodes.
            self.stop_all()?;
            (0..self.nodes).for_each(|station| self.forget(station));
            self.pass(Duration::from_secs(2))?;
            (0..self.nodes).for_each(|station| self.cluster.start(station));
            self.await_mesh()?;
        }
        self.pass(QUIET)?;
        self.collect()?;
        if !self.corrupting {
            self.deliveries.finish()?;
            self.check_ends()?;
            self.check_groups()?;
            self.check_events()?;
            self.check_progress()?;
        }
        let stations = self.cluster.stations();
        let mut tables: Vec<_> = stations
            .iter()
            .map(|s| (*s, table(&self.cluster, *s)))
            .collect();
        if self.sabotage == Some(Sabotage::Hide) {
            tables[0].1.pop_first();
        }
        check_tables(tables)?;
        if self.sabotage == Some(Sabotage::Leak) {
            self.leak(0);
        }
        self.stop_all()?;
        Ok(Outcome {
            trace: self.cluster.nets().fold(0, |all, net| all ^ net.trace),
            nodes: self.nodes,
            packets: self.cluster.nets().map(|net| net.packets).sum(),
            delivered: self.deliveries.count,
            carried: self.connections.bytes,
            ended: self.connections.ended,
            told: self.members.heard,
            heard: self.heard,
            lasted: Duration::from_nanos(self.cluster.now.0 - self.began.0),
            disagreed: self.agreement.longest,
            slowest: self.slowest,
        })
    }
}
