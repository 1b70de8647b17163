//! A small cluster with a short tolerance that lives for long: nodes stand still for less than the tolerance and are not
//! lost; nodes die and are lost in time.

use crate::cluster::Cluster;
use crate::segment::Faults;
use std::time::Duration;
use xtipc_protocol::addr::NodeAddr;
use xtipc_protocol::host::Notice;

/// A node stands still for so long at most, in tenths of the tolerance.
const STILL_TENTHS: u64 = 9;
/// One in so many events is a death.
const DEATHS: u64 = 50;
/// Packets that wait for a node that stands still.
const RING_ROOM: usize = 512;
/// In per mille.
const LOSS: u32 = 2;

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Nodes that died.
    pub deaths: u64,
    /// How soon after it somebody saw one, at the least, and at the most.
    pub seen: (Duration, Duration),
    /// Deaths not seen by all within five tolerances.
    pub missed: u64,
    /// Times that nodes stood still.
    pub stalls: u64,
    /// Nodes lost that had not died.
    pub false_alarms: u64,
    /// Packets sent.
    pub packets: u64,
}

/// Lets `nodes` nodes live for `span`.
pub fn run(seed: u64, nodes: usize, tolerance: Duration, span: Duration) -> Outcome {
    let mut c = Cluster::new(seed);
    c.strict = false;
    c.recipe.params.tolerance_ms = tolerance.as_millis() as u32;
    c.recipe.frames = 600;
    c.segment.faults = Faults {
        loss: LOSS,
        duplication: LOSS,
        reordering: 10,
        straggle_us: 2_000,
        corruption: 0,
    };
    for station in 0..nodes {
        c.start(station);
    }
    let mut outcome = Outcome {
        seen: (Duration::MAX, Duration::ZERO),
        ..Outcome::default()
    };
    settle(&mut c);
    let end = c.now + span;
    while c.now < end {
        let pause = c.rng.below(tolerance.as_micros() as u64 * 4);
        c.run_for(Duration::from_micros(pause));
        if c.rng.below(DEATHS) > 0 {
            stand_still(&mut c, tolerance);
            outcome.stalls += 1;
            outcome.false_alarms += alarms(&mut c).len() as u64;
        } else {
            c.run_for(tolerance * 3);
            outcome.false_alarms += alarms(&mut c).len() as u64;
            die(&mut c, tolerance, &mut outcome);
        }
    }
    outcome.packets = c.segment.packets;
    outcome
}

fn stand_still(c: &mut Cluster, tolerance: Duration) {
    let awake = c.awake();
    if awake.is_empty() {
        return;
    }
    let station = c.rng.pick(&awake);
    let most = tolerance.as_micros() as u64 * STILL_TENTHS / 10;
    let span = Duration::from_micros(c.rng.below(most));
    c.suspend(station, span, RING_ROOM);
}

/// A node dies, is seen to be dead, and comes back.
fn die(c: &mut Cluster, tolerance: Duration, outcome: &mut Outcome) {
    let all = c.stations();
    let station = c.rng.pick(&all);
    let dead = c.addr(station);
    let died = c.now;
    c.kill(station);
    let mut seen = 0;
    while c.now.since(died) < tolerance * 5 {
        c.run_for(Duration::from_millis(1));
        let (right, wrong): (Vec<NodeAddr>, Vec<NodeAddr>) =
            alarms(c).into_iter().partition(|addr| *addr == dead);
        outcome.false_alarms += wrong.len() as u64;
        seen += right.len();
        if !right.is_empty() {
            let after = c.now.since(died);
            outcome.seen = (outcome.seen.0.min(after), outcome.seen.1.max(after));
        }
    }
    outcome.deaths += 1;
    outcome.missed += u64::from(seen != all.len() - 1);
    c.start(station);
    settle(c);
}

fn settle(c: &mut Cluster) {
    c.until("all links are up", Cluster::is_full_mesh);
    c.run_for(Duration::from_millis(500));
    alarms(c);
}

/// Nodes that others have lost since the last call.
fn alarms(c: &mut Cluster) -> Vec<NodeAddr> {
    let mut lost = Vec::new();
    for station in c.awake() {
        for notice in c.notices(station) {
            if let Notice::LinkDown(addr, ..) = notice {
                lost.push(addr);
            }
        }
    }
    lost
}
