//! Large clusters that stand idle and then lose nodes: what their supervision costs, and how soon every node sees a loss.

use crate::checks::{check_tables, table};
use crate::cluster::{Cluster, Recipe};
use crate::segment::Fate;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xtipc_protocol::addr::NodeAddr;
use xtipc_protocol::host::Notice;
use xtipc_protocol::monitor::Supervision;

/// Mean time between the starts of two nodes.
const START_EVERY: Duration = Duration::from_millis(5);
/// How often it is looked whether all is well.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Links have so long to come up. A link that is down is tried every 6 s, nodes are searched every 60 s.
const MESH_WITHIN: Duration = Duration::from_secs(150);
/// Until domain records have reached all.
const SETTLE: Duration = Duration::from_secs(4);
/// Grain of the times at which losses are seen.
const GRAIN: Duration = Duration::from_millis(1);

/// A cluster under observation.
pub struct Large {
    cluster: Cluster,
    stations: BTreeMap<NodeAddr, usize>,
}

/// What was seen in a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Ends of links that went down as they had to.
    pub seen: usize,
    /// Ends of links that had to go down and did not.
    pub missed: usize,
    /// Ends of links that went down and had no reason.
    pub wrong: usize,
    /// When the last one went down.
    pub last: Duration,
    /// Packets of the link protocol that the busiest node sent in the busiest second.
    pub packets: u64,
    /// Those of the busiest node in each second, on average.
    pub mean: u64,
}

impl Large {
    /// Starts so many nodes within a few seconds.
    pub fn start(nodes: usize, supervision: Supervision, seed: u64) -> Self {
        let mut cluster = Cluster::new(seed);
        cluster.strict = false;
        cluster.recipe = Recipe {
            // The first two packets of each link wait for their acknowledgements.
            frames: 512 + 4 * nodes,
            ..Recipe::default()
        };
        for station in 0..nodes {
            cluster.start(station);
            cluster.with(station, |node| node.engine.set_supervision(supervision));
            let pause = cluster.rng.below(2 * START_EVERY.as_micros() as u64);
            cluster.run_for(Duration::from_micros(pause));
        }
        Self {
            cluster,
            stations: BTreeMap::new(),
        }
    }

    /// Lets time pass until all links are up and all tables are the same; says how long that took.
    pub fn settle(&mut self) -> Option<Duration> {
        let begun = self.cluster.now;
        while !self.cluster.is_full_mesh() {
            if self.cluster.now.since(begun) > MESH_WITHIN {
                return None;
            }
            self.cluster.run_for(LOOK_EVERY);
            self.forget_notices();
        }
        let took = self.cluster.now.since(begun);
        self.cluster.run_for(SETTLE);
        let all = self.cluster.stations().into_iter();
        self.stations = all.map(|at| (self.cluster.addr(at), at)).collect();
        self.forget_notices();
        let tables = self
            .stations
            .values()
            .map(|at| (*at, table(&self.cluster, *at)));
        check_tables(tables).is_ok().then_some(took)
    }

    /// Bindings of the whole cluster.
    pub fn bindings(&self) -> usize {
        table(&self.cluster, self.cluster.stations()[0]).len()
    }

    /// Nodes that run.
    pub fn nodes(&self) -> usize {
        self.stations.len()
    }

    /// Nothing happens for a while.
    pub fn idle(&mut self, span: Duration) -> Loss {
        self.observe(span, |_, _| false)
    }

    /// Some that are not neighbours on the ring.
    pub fn scattered(&mut self, count: usize) -> BTreeSet<usize> {
        let all: Vec<usize> = self.stations.values().copied().collect();
        let mut chosen = BTreeSet::new();
        while chosen.len() < count {
            chosen.insert(self.cluster.rng.pick(&all));
        }
        chosen
    }

    /// Some that are.
    pub fn neighbours(&mut self, count: usize) -> BTreeSet<usize> {
        let first = self.cluster.rng.below(self.stations.len() as u64) as usize;
        let ring = self.stations.values().cycle().skip(first);
        ring.take(count).copied().collect()
    }

    /// They die at the same moment.
    pub fn kill(&mut self, chosen: &BTreeSet<usize>, span: Duration) -> Loss {
        for station in chosen {
            self.cluster.kill(*station);
        }
        self.observe(span, |a, b| chosen.contains(&b) && !chosen.contains(&a))
    }

    /// They hear each other and nobody else any more.
    pub fn part(&mut self, chosen: &BTreeSet<usize>, span: Duration) -> Loss {
        let apart = {
            let chosen = chosen.clone();
            move |a: usize, b: usize| chosen.contains(&a) != chosen.contains(&b)
        };
        let lost = apart.clone();
        self.cluster.segment.filter = Some(Box::new(move |flight| {
            if apart(flight.from, flight.to) {
                Fate::Lose
            } else {
                Fate::Pass
            }
        }));
        self.observe(span, lost)
    }

    /// All hear each other again; says how long it took until all was as before.
    pub fn join(&mut self) -> Option<Duration> {
        self.cluster.segment.filter = None;
        self.settle()
    }

    /// Watches for losses. `lost` tells whether a station has to lose its link to another.
    fn observe(&mut self, span: Duration, lost: impl Fn(usize, usize) -> bool) -> Loss {
        let begun = self.cluster.now;
        let stations: BTreeMap<NodeAddr, usize> = std::mem::take(&mut self.stations);
        let running = self.cluster.stations();
        let due = |a: &usize| {
            stations
                .values()
                .filter(|b| a != *b && lost(*a, **b))
                .count()
        };
        let due = running.iter().map(due).sum::<usize>();
        let mut loss = Loss::default();
        let mut down = BTreeSet::new();
        let mut second = begun;
        let first = self.cluster.segment.supervision.clone();
        let mut before = first.clone();
        while self.cluster.now.since(begun) < span {
            self.cluster.run_for(GRAIN);
            for station in &running {
                if self.cluster.node(*station).host.notices.is_empty() {
                    continue;
                }
                for notice in self.cluster.notices(*station) {
                    let Notice::LinkDown(addr, ..) = notice else {
                        continue;
                    };
                    let of = stations.get(&addr).filter(|of| lost(*station, **of));
                    if of.is_some_and(|of| down.insert((*station, *of))) {
                        loss.last = self.cluster.now.since(begun);
                    } else {
                        loss.wrong += 1;
                    }
                }
            }
            if self.cluster.now.since(second) >= Duration::from_secs(1) {
                second = self.cluster.now;
                let sent = &self.cluster.segment.supervision;
                let each = sent.iter().zip(&before).map(|(now, before)| now - before);
                loss.packets = loss.packets.max(each.max().unwrap_or(0));
                before.clone_from(sent);
            }
        }
        let sent = self.cluster.segment.supervision.iter().zip(&first);
        let most = sent.map(|(now, before)| now - before).max().unwrap_or(0);
        loss.mean = most * 1000 / span.as_millis() as u64;
        loss.seen = down.len();
        loss.missed = due - down.len();
        let all = stations.into_iter();
        self.stations = all.filter(|(_, at)| self.cluster.is_running(*at)).collect();
        loss
    }

    fn forget_notices(&mut self) {
        for station in self.cluster.stations() {
            self.cluster.notices(station);
        }
    }
}
