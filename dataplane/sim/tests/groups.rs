//! Groups under random faults: members on four nodes that send in all modes, read, leave and come back while packets are
//! lost and nodes lose each other. Whatever happens,
//!
//! * each member hears of another: joined, its messages, left, and so on in turn;
//! * its messages come in the order sent across all modes, and between joined and left no broadcast is missing;
//! * once the wire is sound all members know each other and nobody waits for ever.

use std::collections::BTreeMap;
use std::time::Duration;
use xtipc_protocol::addr::{Destination, SocketAddr};
use xtipc_protocol::engine::SendError;
use xtipc_protocol::host::MemberNews;
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::time::Instant;
use xtipc_sim::cluster::Cluster;
use xtipc_sim::groups::{all_at, any_at, membership};
use xtipc_sim::rng::Rng;
use xtipc_sim::segment::Faults;

const GROUP: u32 = 5000;
const NODES: usize = 4;
const MEMBERS: usize = 10;
const INSTANCES: u32 = 3;
/// Marks a message whose place among the broadcasts means nothing.
const NOT_BROADCAST: u32 = u32::MAX;

/// What one member knows of another by what it heard.
#[derive(Default)]
struct Heard {
    joined: bool,
    /// Number of the last message.
    last: Option<u32>,
    /// Number of the last broadcast among the broadcasts.
    broadcast: Option<u32>,
}

struct Member {
    station: usize,
    instance: u32,
    addr: SocketAddr,
    in_group: bool,
    /// Messages and broadcasts it sent.
    sent: u32,
    broadcasts: u32,
    heard: BTreeMap<(u32, u32), Heard>,
}

struct Life {
    c: Cluster,
    rng: Rng,
    seed: u64,
    members: Vec<Member>,
    read: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut c = Cluster::settled(seed, NODES);
        let members = (0..MEMBERS)
            .map(|n| Member {
                station: n % NODES,
                instance: n as u32 % INSTANCES,
                addr: c.open(n % NODES),
                in_group: false,
                sent: 0,
                broadcasts: 0,
                heard: BTreeMap::new(),
            })
            .collect();
        let mut life = Self {
            c,
            rng: Rng::new(seed),
            seed,
            members,
            read: 0,
        };
        for n in 0..MEMBERS {
            life.join(n);
        }
        life
    }

    fn join(&mut self, n: usize) {
        let member = &mut self.members[n];
        let (station, port) = (member.station, member.addr.port);
        let joined = self
            .c
            .try_join(station, port, membership(GROUP, member.instance));
        joined.expect("it is in no group");
        member.in_group = true;
        let wants = [None, Some(McastMethod::Broadcast)][self.rng.below(2) as usize];
        self.c.with(station, |node| {
            let port = node.engine.port_mut(port).expect("an open socket");
            port.mcast_wanted = wants;
        });
    }

    /// Reads what has come first, as an application does that wants all of it.
    fn leave(&mut self, n: usize) {
        self.read(n, usize::MAX);
        let member = &mut self.members[n];
        let left = self.c.leave(member.station, member.addr.port);
        left.expect("it is in the group");
        member.in_group = false;
        member.heard.clear();
    }

    fn send(&mut self, n: usize) -> Result<(), SendError> {
        let mode = self.rng.below(5);
        let other = self.rng.below(MEMBERS as u64) as usize;
        let size = 12 + self.rng.below(4000) as usize;
        let (to, instance) = (self.members[other].addr, self.members[other].instance);
        let member = &mut self.members[n];
        let is_broadcast = mode < 2;
        let place = if is_broadcast {
            member.broadcasts
        } else {
            NOT_BROADCAST
        };
        let mut bytes = vec![0; size];
        bytes[..4].copy_from_slice(&member.sent.to_be_bytes());
        bytes[4..8].copy_from_slice(&place.to_be_bytes());
        let (station, port) = (member.station, member.addr.port);
        let sent = match mode {
            0 | 1 => self.c.broadcast(station, port, &bytes[..]),
            2 => self.c.send(station, port, all_at(instance), &bytes[..]),
            3 => self.c.send(station, port, any_at(instance), &bytes[..]),
            _ => {
                let one = Destination::Socket(to);
                self.c.send(station, port, one, &bytes[..])
            }
        };
        if sent.is_ok() {
            let member = &mut self.members[n];
            member.sent += 1;
            member.broadcasts += u32::from(is_broadcast);
        }
        sent
    }

    /// Reads and checks up to so many messages and events.
    fn read(&mut self, n: usize, most: usize) {
        let seed = self.seed;
        let member = &mut self.members[n];
        for _ in 0..most {
            let Some(message) = self.c.recv(member.station, member.addr.port) else {
                return;
            };
            self.read += 1;
            let from = message.about.group.expect("a member gets nothing else");
            let source = message.about.source;
            let heard = member
                .heard
                .entry((source.node.0, source.port.0))
                .or_default();
            let who = format!("seed {seed}: member {n} of {source:?}");
            match from.news {
                MemberNews::Joined => {
                    assert!(!heard.joined, "{who}: joined twice");
                    *heard = Heard {
                        joined: true,
                        ..Heard::default()
                    };
                }
                MemberNews::Left => {
                    assert!(heard.joined, "{who}: left, and had not joined");
                    heard.joined = false;
                }
                MemberNews::Message(_) => {
                    assert!(heard.joined, "{who}: a message of no member");
                    let words = message.bytes.as_chunks::<4>().0;
                    let (number, place) =
                        (u32::from_be_bytes(words[0]), u32::from_be_bytes(words[1]));
                    let before = heard.last.replace(number);
                    assert!(
                        before.is_none_or(|b| b < number),
                        "{who}: {before:?} {number}"
                    );
                    if place != NOT_BROADCAST {
                        let before = heard.broadcast.replace(place);
                        let follows = before.is_none_or(|b| b + 1 == place);
                        assert!(follows, "{who}: broadcast {place} behind {before:?}");
                    }
                }
            }
        }
    }

    fn read_all(&mut self) {
        for n in 0..MEMBERS {
            self.read(n, usize::MAX);
        }
    }

    /// One thing that happens.
    fn act(&mut self) {
        let n = self.rng.below(MEMBERS as u64) as usize;
        match self.rng.below(100) {
            0..60 if self.members[n].in_group => match self.send(n) {
                Ok(()) | Err(SendError::Congested | SendError::Unreachable) => {}
                Err(error) => panic!("seed {}: {error}", self.seed),
            },
            60..90 => {
                let most = 1 + self.rng.below(20) as usize;
                self.read(n, most);
            }
            90 | 91 if self.members[n].in_group => self.leave(n),
            92..96 if !self.members[n].in_group => self.join(n),
            96 => {
                let a = self.rng.below(NODES as u64) as usize;
                let b = (a + 1 + self.rng.below(NODES as u64 - 1) as usize) % NODES;
                if self.rng.below(12) == 0 {
                    self.c.segment.cut(a, b);
                    let span = self.rng.below(3000);
                    self.c.run_for(Duration::from_millis(span));
                    self.c.segment.heal();
                }
            }
            _ => {}
        }
        let pause = self.rng.below(400);
        self.c.run_for(Duration::from_micros(pause));
    }

    /// Lets everything come to rest, read as it comes.
    fn settle(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.c.now + Duration::from_secs(120);
        loop {
            self.read_all();
            if done(self) {
                return;
            }
            assert!(self.c.now < end, "seed {}: {what}", self.seed);
            self.c.run_for(Duration::from_millis(20));
        }
    }

    fn knows_all(&self) -> bool {
        self.members.iter().all(|member| {
            let group = self.c.group(member.station, member.addr.port);
            let others = self.members.iter().filter(|m| m.addr != member.addr);
            group.members().len() == MEMBERS - 1
                && others.into_iter().all(|other| {
                    let key = (other.addr.node.0, other.addr.port.0);
                    group.member(other.addr).is_some_and(|m| m.window > 0)
                        && member.heard.get(&key).is_some_and(|heard| heard.joined)
                })
        })
    }

    /// Everybody reaches everybody, in every mode.
    fn end(mut self) {
        self.c.segment.heal();
        self.c.segment.faults = Faults::default();
        self.settle("the nodes find each other", |life| life.c.is_full_mesh());
        for n in 0..MEMBERS {
            if !self.members[n].in_group {
                self.join(n);
            }
        }
        self.settle("the members find each other", Self::knows_all);
        for n in 0..MEMBERS {
            let end = self.c.now + Duration::from_secs(20);
            for _ in 0..20 {
                while self.send(n) == Err(SendError::Congested) {
                    assert!(
                        self.c.now < end,
                        "seed {}: member {n} waits for ever",
                        self.seed
                    );
                    self.read_all();
                    self.c.run_for(Duration::from_millis(1));
                }
            }
        }
        self.c.run_for(Duration::from_secs(1));
        self.read_all();
        for (n, member) in self.members.iter().enumerate() {
            let others = self.members.iter().filter(|m| m.addr != member.addr);
            for other in others.filter(|other| other.broadcasts > 0) {
                let heard = &member.heard[&(other.addr.node.0, other.addr.port.0)];
                let last = heard.broadcast.map(|place| place + 1);
                let is_last = last.is_none_or(|last| last == other.broadcasts);
                assert!(
                    is_last,
                    "seed {}: member {n} missed the last broadcast",
                    self.seed
                );
            }
            let group = self.c.group(member.station, member.addr.port);
            assert_eq!(group.deferred(), 0, "seed {}", self.seed);
        }
        assert!(self.c.now > Instant(0) && self.read > 100);
        self.c.finish();
    }
}

fn live(seed: u64, steps: u32) {
    let mut life = Life::new(seed);
    life.c.segment.faults = Faults {
        loss: 20,
        duplication: 10,
        reordering: 50,
        straggle_us: 500,
        corruption: 0,
    };
    for _ in 0..steps {
        life.act();
    }
    life.end();
}

#[test]
fn members_hear_each_other_in_order_whatever_happens() {
    for seed in 0..12 {
        live(seed, 1500);
    }
}
