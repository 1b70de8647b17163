//! Connections of a run: asked for, accepted, written, read and ended as the seed says.

use super::{Run, Sabotage};
use crate::checks::Violation;
use crate::talks::Talk;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr, PortId, SocketAddr};
use xtipc_protocol::port::SocketKind;

/// Bytes that each end of a connection that lives is to send when the faults have ended, and the time for it.
const LAST_BYTES: usize = 20_000;
const LAST_WITHIN: Duration = Duration::from_secs(60);

/// Where a connection's two sockets are.
#[derive(Clone, Copy, Debug)]
struct Place {
    station: usize,
    addr: SocketAddr,
}

#[derive(Debug)]
struct Connection {
    talk: Talk,
    places: [Option<Place>; 2],
}

/// The connections of a run.
#[derive(Debug, Default)]
pub(super) struct Connections {
    listeners: BTreeMap<usize, SocketAddr>,
    all: Vec<Connection>,
    /// Bytes that arrived.
    pub(super) bytes: u64,
    /// Ends that were told of the end.
    pub(super) ended: u64,
}

impl Connections {
    /// The sockets of a station whose messages are not of streams.
    pub(super) fn ports(&self, station: usize) -> BTreeSet<PortId> {
        let places = self.all.iter().flat_map(|c| c.places.iter().flatten());
        let ports = places.filter(|p| p.station == station).map(|p| p.addr.port);
        ports.collect()
    }

    /// Contact of a node with another, or with all, is lost.
    pub(super) fn lost(&mut self, node: NodeAddr, other: Option<NodeAddr>) {
        for connection in &mut self.all {
            let concerned = match connection.places.map(|p| p.map(|p| p.addr.node)) {
                [Some(a), Some(b)] => {
                    let is_other = |there| other.is_none_or(|other| other == there);
                    a == node && is_other(b) || b == node && is_other(a)
                }
                // Whom it asked is not noted.
                [Some(_), None] => true,
                [None, _] => false,
            };
            if concerned {
                connection.talk.part();
            }
        }
    }

    /// A connect was given up: an answer that still comes may find nobody.
    pub(super) fn failed(&mut self, station: usize, port: PortId) {
        for connection in &mut self.all {
            let is_it = |p: &Place| (p.station, p.addr.port) == (station, port);
            if connection.places[0].as_ref().is_some_and(is_it) {
                connection.talk.part();
            }
        }
    }

    /// A node is gone, with all its sockets.
    pub(super) fn gone(&mut self, station: usize, node: NodeAddr) {
        self.lost(node, None);
        self.listeners.remove(&station);
        for connection in &mut self.all {
            for end in [0, 1] {
                if connection.places[end].is_some_and(|p| p.station == station) {
                    connection.talk.close(end);
                }
            }
        }
    }
}

impl Run {
    pub(super) fn listen(&mut self, station: usize) {
        let kind = self.kind();
        let listener = self.cluster.listener(station, kind);
        self.connections.listeners.insert(station, listener);
    }

    fn kind(&mut self) -> SocketKind {
        let rng = &mut self.cluster.rng;
        rng.pick(&[SocketKind::Seqpacket, SocketKind::Stream])
    }

    /// Something happens to a connection.
    pub(super) fn act_on_connections(&mut self) -> Result<(), Violation> {
        match self.cluster.rng.below(100) {
            0..9 => self.connect(),
            9..13 => self.end_one(),
            13..45 => {
                if let Some((number, end)) = self.pick_end() {
                    let most = self.cluster.rng.pick(&[1, 3, 1000]);
                    self.read(number, end, most)?;
                }
            }
            _ => self.write_one(),
        }
        Ok(())
    }

    fn connect(&mut self) {
        let Some(near) = self.pick_awake() else {
            return;
        };
        let listeners: Vec<_> = self.connections.listeners.values().copied().collect();
        if listeners.is_empty() || self.cluster.addr(near) == NodeAddr::NONE {
            return;
        }
        let to = Destination::Socket(self.cluster.rng.pick(&listeners));
        let kind = self.kind();
        let mut talk = Talk::new(self.connections.all.len());
        let addr = self.cluster.open_kind(near, kind);
        let first = self.cluster.rng.pick(&[0, 1, 900, 20_000]);
        let asked = if first == 0 {
            self.cluster.connect(near, addr.port, to).is_ok()
        } else {
            let payload = talk.bytes(0, first);
            let sent = self.cluster.send(near, addr.port, to, &payload[..]);
            sent.is_ok()
        };
        if !asked {
            return self.cluster.close(near, addr.port);
        }
        talk.wrote(0, first);
        let number = self.connections.all.len();
        self.say(|| format!("connection {number}: {addr:?} asks {to:?}"));
        let client = Place {
            station: near,
            addr,
        };
        let places = [Some(client), None];
        self.connections.all.push(Connection { talk, places });
    }

    /// Listeners take what has arrived.
    pub(super) fn accept_all(&mut self) {
        for (station, listener) in self.connections.listeners.clone() {
            if self.cluster.is_suspended(station) {
                continue;
            }
            while let Ok(accepted) = self.cluster.accept(station, listener.port) {
                let asked = |c: &&mut Connection| {
                    c.places[1].is_none() && c.places[0].is_some_and(|p| p.addr == accepted.peer)
                };
                let place = Place {
                    station,
                    addr: SocketAddr {
                        port: accepted.port,
                        node: listener.node,
                    },
                };
                match self.connections.all.iter_mut().find(asked) {
                    Some(connection) => {
                        connection.talk.accept();
                        connection.places[1] = Some(place);
                    }
                    // Flipped bits asked.
                    None => self.cluster.close(station, accepted.port),
                }
            }
        }
    }

    /// An end whose owner still has it, and can act.
    fn pick_end(&mut self) -> Option<(usize, usize)> {
        let count = self.connections.all.len() as u64;
        if count == 0 {
            return None;
        }
        let number = self.cluster.rng.below(count) as usize;
        let end = self.cluster.rng.below(2) as usize;
        self.place(number, end).map(|_| (number, end))
    }

    fn place(&self, number: usize, end: usize) -> Option<Place> {
        let connection = &self.connections.all[number];
        let place = connection.places[end].filter(|_| connection.talk.is_held(end))?;
        (!self.cluster.is_suspended(place.station)).then_some(place)
    }

    fn write_one(&mut self) {
        if let Some((number, end)) = self.pick_end() {
            for _ in 0..self.cluster.rng.pick(&[1, 1, 3, 20]) {
                let lens = [1, 5, 100, 1000, 1460, 3000, 20_000, 66_000];
                let len = self.cluster.rng.pick(&lens);
                self.write(number, end, len);
            }
        }
    }

    /// What is not taken, for want of room or of a connection, is not sent.
    fn write(&mut self, number: usize, end: usize, len: usize) {
        if let Some(place) = self.place(number, end) {
            let payload = self.connections.all[number].talk.bytes(end, len);
            let taken = self
                .cluster
                .write(place.station, place.addr.port, &payload[..]);
            if let Ok(taken) = taken {
                self.connections.all[number].talk.wrote(end, taken);
            }
        }
    }

    fn read(&mut self, number: usize, end: usize, most: usize) -> Result<(), Violation> {
        for _ in 0..most {
            let Some(place) = self.place(number, end) else {
                return Ok(());
            };
            let Some(mut message) = self.cluster.recv(place.station, place.addr.port) else {
                return Ok(());
            };
            if self.sabotage == Some(Sabotage::Garble) {
                message.bytes.reverse();
            }
            let talk = &mut self.connections.all[number].talk;
            let result = if message.about.errcode == 0 {
                self.connections.bytes += message.bytes.len() as u64;
                talk.read(end, &message.bytes)
            } else {
                self.connections.ended += 1;
                talk.told(end, message.about.errcode)
            };
            if !self.corrupting {
                result?;
            }
        }
        Ok(())
    }

    fn end_one(&mut self) {
        let Some((number, end)) = self.pick_end() else {
            return;
        };
        let Some(place) = self.place(number, end) else {
            return;
        };
        self.say(|| format!("connection {number}: end {end} closes"));
        self.connections.all[number].talk.close(end);
        let (station, port) = (place.station, place.addr.port);
        if self.cluster.rng.chance(500) {
            self.cluster.shutdown(station, port);
            self.cluster.close(station, port);
        } else {
            self.cluster.close_unread(station, port);
        }
    }

    /// The faults have ended: connections that live carry some more bytes each way while their owners read.
    pub(super) fn finish_connections(&mut self) -> Result<(), Violation> {
        let open = |c: &Connection| c.talk.is_alive();
        let numbers = 0..self.connections.all.len();
        let goals: Vec<(usize, [usize; 2])> = numbers
            .filter(|number| open(&self.connections.all[*number]))
            .map(|number| {
                let talk = &self.connections.all[number].talk;
                (number, [0, 1].map(|end| talk.sent(end) + LAST_BYTES))
            })
            .collect();
        let end = self.cluster.now + LAST_WITHIN;
        loop {
            let mut waiting = Ok(());
            for (number, goal) in &goals {
                for end in [0, 1] {
                    if self.sabotage != Some(Sabotage::Block) {
                        self.read(*number, end, usize::MAX)?;
                    }
                    let sent = self.connections.all[*number].talk.sent(end);
                    let len = self.cluster.rng.pick(&[10, 100, 5_000]);
                    self.write(*number, end, len.min(goal[end] - sent));
                }
                let talk = &self.connections.all[*number].talk;
                if talk.is_alive() {
                    waiting = waiting.and(talk.has_reached(*goal));
                }
            }
            if waiting.is_ok() || self.cluster.now >= end {
                return waiting;
            }
            self.pass(Duration::from_millis(2))?;
            self.collect()?;
        }
    }

    /// Nothing is under way any more: who is to know of an end knows it.
    pub(super) fn check_ends(&mut self) -> Result<(), Violation> {
        for number in 0..self.connections.all.len() {
            for end in [0, 1] {
                self.read(number, end, usize::MAX)?;
            }
            self.connections.all[number].talk.finish()?;
        }
        Ok(())
    }
}
