//! Connections that live through random events, from a seed: they never lose, double or reorder a
//! byte, every end has its reason, and no sender waits for ever while the receiver reads.

use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr, SocketAddr};
use xtipc_protocol::engine::SendError;
use xtipc_protocol::host::Notice;
use xtipc_protocol::port::SocketKind;
use xtipc_sim::cluster::Cluster;
use xtipc_sim::segment::Faults;

const SEEDS: u64 = 12;
const CLOSED: u8 = 2;
const NO_NODE: u8 = 3;
const SHUTDOWN: u8 = 5;

/// One end of a connection.
#[derive(Debug)]
struct End {
    station: usize,
    addr: SocketAddr,
    /// Bytes it sent and bytes it read.
    sent: usize,
    got: usize,
    /// Its owner is done with it, or its node is gone.
    closed: bool,
    /// It was told that the connection is over.
    over: bool,
}

#[derive(Debug)]
struct Connection {
    /// The client, and the server once it has accepted.
    ends: [Option<End>; 2],
    /// Contact between the nodes was lost meanwhile.
    broken: bool,
}

struct Run {
    c: Cluster,
    seed: u64,
    listeners: Vec<Option<SocketAddr>>,
    connections: Vec<Connection>,
    bytes: usize,
    ended: usize,
}

/// What byte `at` of a direction is.
fn byte(connection: usize, end: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) + connection * 7 + end * 3 + at / 251) as u8
}

fn pattern(connection: usize, end: usize, start: usize, len: usize) -> Vec<u8> {
    (start..start + len)
        .map(|at| byte(connection, end, at))
        .collect()
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut c = Cluster::new(seed);
        let nodes = c.rng.within(2..5) as usize;
        c.strict = false;
        c.recipe.frames = c.rng.pick(&[400, 1500, 4096]);
        c.recipe.tx_hold_us = c.rng.pick(&[0, 0, 200]);
        c.recipe.mtu = c.rng.pick(&[1500, 600, 2000]);
        for station in 0..nodes {
            c.start(station);
        }
        c.until("links", |c| c.is_full_mesh());
        c.run_for(Duration::from_secs(1));
        let mut run = Self {
            c,
            seed,
            listeners: vec![None; nodes],
            connections: Vec::new(),
            bytes: 0,
            ended: 0,
        };
        (0..nodes).for_each(|station| run.listen(station));
        run
    }

    fn listen(&mut self, station: usize) {
        let kind = self.kind();
        self.listeners[station] = Some(self.c.listener(station, kind));
    }

    fn kind(&mut self) -> SocketKind {
        self.c
            .rng
            .pick(&[SocketKind::Seqpacket, SocketKind::Stream])
    }

    fn act(&mut self) {
        match self.c.rng.below(1000) {
            0..60 => self.connect(),
            60..90 => self.end_one(),
            90..92 => self.restart(),
            92..106 => self.change_faults(),
            106..114 => self.partition(),
            114..130 => self.c.segment.heal(),
            130..400 => self.read_one(),
            _ => self.write_one(),
        }
        let pause = self.c.rng.pick(&[0, 0, 50, 500, 5_000, 50_000]);
        self.c.run_for(Duration::from_micros(pause));
        self.note_losses();
        self.accept_all();
    }

    fn connect(&mut self) {
        let stations = self.c.stations();
        let (near, far) = (self.c.rng.pick(&stations), self.c.rng.pick(&stations));
        let Some(listener) = self.listeners[far] else {
            return;
        };
        let kind = self.kind();
        let number = self.connections.len();
        let addr = self.c.open_kind(near, kind);
        let to = Destination::Socket(listener);
        let first = self.c.rng.pick(&[0, 1, 900, 20_000]);
        let asked = if first == 0 {
            self.c.connect(near, addr.port, to).is_ok()
        } else {
            let payload = pattern(number, 0, 0, first);
            self.c.send(near, addr.port, to, &payload[..]).is_ok()
        };
        if !asked {
            return self.c.close(near, addr.port);
        }
        let client = End {
            station: near,
            addr,
            sent: first,
            got: 0,
            closed: false,
            over: false,
        };
        self.connections.push(Connection {
            ends: [Some(client), None],
            broken: false,
        });
    }

    fn accept_all(&mut self) {
        for station in self.c.stations() {
            let Some(listener) = self.listeners[station] else {
                continue;
            };
            while let Ok(accepted) = self.c.accept(station, listener.port) {
                let asked = |c: &&mut Connection| {
                    c.ends[1].is_none()
                        && c.ends[0].as_ref().is_some_and(|e| e.addr == accepted.peer)
                };
                let connection = self.connections.iter_mut().find(asked);
                let connection = connection.expect("only sockets of the run ask, and once each");
                connection.ends[1] = Some(End {
                    station,
                    addr: SocketAddr {
                        port: accepted.port,
                        node: listener.node,
                    },
                    sent: 0,
                    got: 0,
                    closed: false,
                    over: false,
                });
            }
        }
    }

    /// A connection and one of its ends whose owner still has it.
    fn pick_end(&mut self) -> Option<(usize, usize)> {
        let count = self.connections.len() as u64;
        if count == 0 {
            return None;
        }
        let (number, end) = (self.c.rng.below(count), self.c.rng.below(2));
        let (number, end) = (number as usize, end as usize);
        let there = self.connections[number].ends[end].as_ref()?;
        (!there.closed).then_some((number, end))
    }

    fn write_one(&mut self) {
        if let Some((number, end)) = self.pick_end() {
            for _ in 0..self.c.rng.pick(&[1, 1, 3, 20]) {
                let len = self.c.rng.pick(&[1, 5, 100, 1000, 1460, 3000, 66_000]);
                self.write(number, end, len);
            }
        }
    }

    fn write(&mut self, number: usize, end: usize, len: usize) {
        let Some(there) = &mut self.connections[number].ends[end] else {
            return;
        };
        let payload = pattern(number, end, there.sent, len);
        match self.c.write(there.station, there.addr.port, &payload[..]) {
            Ok(taken) => there.sent += taken,
            Err(SendError::Congested | SendError::NotConnected | SendError::Disconnected) => {}
            Err(SendError::Unreachable) => {}
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    fn read_one(&mut self) {
        if let Some((number, end)) = self.pick_end() {
            let most = self.c.rng.pick(&[1, 3, 1000]);
            self.read(number, end, most);
        }
    }

    fn read(&mut self, number: usize, end: usize, most: usize) {
        let seed = self.seed;
        for _ in 0..most {
            let here = &mut self.connections[number].ends[end];
            let Some(here) = here.as_mut().filter(|e| !e.closed) else {
                return;
            };
            let Some(message) = self.c.recv(here.station, here.addr.port) else {
                return;
            };
            let what = format!("seed {seed} connection {number} end {end}");
            if message.about.errcode == 0 {
                assert!(!here.over, "{what}: data behind the end");
                let expect = pattern(number, 1 - end, here.got, message.bytes.len());
                assert!(
                    message.bytes == expect,
                    "{what}: other bytes at {}",
                    here.got
                );
                here.got += message.bytes.len();
                self.bytes += message.bytes.len();
                continue;
            }
            here.over = true;
            self.ended += 1;
            let connection = &self.connections[number];
            let [client, server] = &connection.ends;
            let (here, there) = if end == 0 {
                (client, server)
            } else {
                (server, client)
            };
            self.check_end(connection, here, there, message.about.errcode, &what);
        }
    }

    /// An end has its reason, and all that was sent before it has arrived.
    fn check_end(
        &self,
        connection: &Connection,
        here: &Option<End>,
        there: &Option<End>,
        code: u8,
        what: &str,
    ) {
        if connection.broken {
            return;
        }
        let got = here.as_ref().map_or(0, |e| e.got);
        match (code, there) {
            (NO_NODE, _) => panic!("{what}: contact was never lost"),
            (CLOSED | SHUTDOWN, Some(there)) if there.closed => {
                assert_eq!(got, there.sent, "{what}: told of the end before all bytes");
            }
            // Its listener went before it was accepted.
            (CLOSED, None) => {}
            other => panic!("{what}: ended with {other:?}"),
        }
    }

    fn end_one(&mut self) {
        let Some((number, end)) = self.pick_end() else {
            return;
        };
        let orderly = self.c.rng.chance(500);
        let Some(here) = self.connections[number].ends[end].as_mut() else {
            return;
        };
        here.closed = true;
        let (station, port) = (here.station, here.addr.port);
        if orderly {
            self.c.shutdown(station, port);
            self.c.close(station, port);
        } else {
            self.c.close_unread(station, port);
        }
    }

    fn restart(&mut self) {
        let stations = self.c.stations();
        let station = self.c.rng.pick(&stations);
        self.lose(station, None);
        for connection in &mut self.connections {
            for end in connection.ends.iter_mut().flatten() {
                end.closed |= end.station == station;
            }
        }
        self.c.kill(station);
        self.c.run_for(Duration::from_millis(500));
        self.note_losses();
        self.c.start(station);
        self.listeners[station] = None;
    }

    /// Two nodes do not hear each other, mostly until they have given each other up.
    fn partition(&mut self) {
        let a = self.c.rng.below(self.listeners.len() as u64) as usize;
        let b = (a + 1) % self.listeners.len();
        self.c.segment.cut(a, b);
        // What is under way then is lost for good if they do.
        for _ in 0..10 {
            self.write_one();
        }
        let span = self.c.rng.pick(&[500, 3000]);
        self.c.run_for(Duration::from_millis(span));
    }

    fn change_faults(&mut self) {
        let rng = &mut self.c.rng;
        self.c.segment.faults = Faults {
            loss: rng.pick(&[0, 10, 100]),
            duplication: rng.pick(&[0, 0, 100]),
            reordering: rng.pick(&[0, 0, 200]),
            straggle_us: rng.pick(&[100, 2_000]),
            corruption: 0,
        };
        self.c.segment.delay_us = rng.pick(&[20, 20, 2_000]);
    }

    /// Contact between two nodes is lost, or of one node with all.
    fn lose(&mut self, station: usize, other: Option<NodeAddr>) {
        let concerns = |end: &End| other.is_none_or(|node| end.addr.node == node);
        for connection in &mut self.connections {
            let at = |end: &End| end.station == station;
            let [client, server] = &connection.ends;
            connection.broken |= match (client, server) {
                (Some(a), Some(b)) => at(a) && concerns(b) || at(b) && concerns(a),
                // Whom it asked is not noted.
                (Some(_), None) => true,
                _ => false,
            };
        }
    }

    fn note_losses(&mut self) {
        for station in self.c.stations() {
            for notice in self.c.notices(station) {
                match notice {
                    Notice::LinkDown(node, _) => self.lose(station, Some(node)),
                    Notice::AddressFinal(_) => self.listen(station),
                    _ => {}
                }
            }
        }
    }

    /// Faults end: what is open goes on until each side has sent and read some more.
    fn finish(mut self) -> (usize, usize) {
        self.c.segment.faults = Faults::default();
        self.c.segment.heal();
        for _ in 0..1200 {
            if self.c.is_full_mesh() {
                break;
            }
            self.c.run_for(Duration::from_millis(50));
            self.note_losses();
        }
        assert!(self.c.is_full_mesh(), "seed {}: links", self.seed);
        let goal: Vec<[usize; 2]> = self
            .connections
            .iter()
            .map(|c| [0, 1].map(|n| c.ends[n].as_ref().map_or(0, |e| e.sent + 100_000)))
            .collect();
        for _ in 0..4000 {
            let mut waiting = 0;
            for (number, goal) in goal.iter().enumerate() {
                for end in [0, 1] {
                    self.read(number, end, 1000);
                    let ends = &self.connections[number].ends;
                    let open = ends.iter().flatten().count() == 2
                        && ends.iter().flatten().all(|e| !e.closed && !e.over);
                    let (Some(here), Some(there)) = (&ends[end], &ends[1 - end]) else {
                        continue;
                    };
                    if !open {
                        continue;
                    }
                    waiting += usize::from(here.sent < goal[end] || there.got < here.sent);
                    if here.sent < goal[end] {
                        let len = self.c.rng.pick(&[10, 100, 20_000, 30_000]);
                        let left = goal[end] - here.sent;
                        self.write(number, end, left.min(len));
                    }
                }
            }
            self.c.run_for(Duration::from_millis(2));
            self.note_losses();
            self.accept_all();
            if waiting == 0 {
                break;
            }
        }
        for (number, goal) in goal.iter().enumerate() {
            let ends = &self.connections[number].ends;
            if let [Some(a), Some(b)] = ends
                && !a.closed
                && !b.closed
                && !a.over
                && !b.over
            {
                let done = ([a.sent, b.sent], [b.got, a.got]);
                assert_eq!(
                    done,
                    (*goal, *goal),
                    "seed {} connection {number}",
                    self.seed
                );
            }
        }
        let outcome = (self.bytes, self.ended);
        self.c.finish();
        outcome
    }
}

#[test]
fn connections_keep_every_byte_in_order_and_no_sender_waits_for_ever() {
    let (mut bytes, mut ended) = (0, 0);
    for seed in 0..SEEDS {
        let mut run = Run::new(seed);
        for _ in 0..500 {
            run.act();
        }
        let (some, ends) = run.finish();
        bytes += some;
        ended += ends;
    }
    assert!(
        bytes > SEEDS as usize * 1_000_000,
        "{bytes} bytes say too little"
    );
    assert!(ended > 30, "{ended} ends say too little");
}
