//! The messages of a run: sent as streams whose promises are known, taken and checked.

use super::{Run, SERVICE, STAMP, Socket, key};
use crate::checks::{Promise, SocketKey, Violation};
use crate::cluster::range;
use crate::host::Received;
use crate::questions::MARK;
use std::collections::BTreeSet;
use xtipc_protocol::addr::{Destination, NodeAddr, PortId, SocketAddr};
use xtipc_protocol::engine::SendError;
use xtipc_protocol::host::Notice;
use xtipc_protocol::name::Scope;
use xtipc_protocol::port::McastMethod;
use xtipc_protocol::time::Instant;

/// Bounds of no binding.
const UNBOUND: (u32, u32) = (u32::MAX, 0);

impl Run {
    /// Whether the receiver's node must have heard of all bindings there were when a message was sent: in the
    /// contact that the nodes have now, since one that waited for the broadcast window also reaches nodes
    /// that came later. A message to a service address may come by a third node, which sent it on.
    fn is_told_before(&self, message: &Received, to: u32) -> bool {
        let from = message.about.source.node.0;
        let sent = message
            .bytes
            .get(16..STAMP)
            .and_then(|at| at.try_into().ok());
        let sent = Instant(sent.map_or(0, u64::from_be_bytes));
        let may_come_by_a_third = message
            .about
            .dest_name
            .is_some_and(|name| name.lower == name.upper);
        let since = self.contact.get(&(from, to));
        !may_come_by_a_third && (from == to || since.is_some_and(|since| *since < sent))
    }

    /// The bounds of a binding that a socket has in the whole cluster.
    fn binding_of(&self, socket: Socket) -> Option<(u32, u32)> {
        let engine = &self.cluster.node(socket.station).engine;
        let mut bindings = engine.port(socket.addr.port)?.bindings.iter().rev();
        let found = bindings.find(|b| b.range.type_ == SERVICE && b.scope == Scope::Cluster)?;
        Some((found.range.lower, found.range.upper))
    }

    /// Nothing is under way, and everybody reads: nobody has to wait.
    pub(super) fn check_progress(&mut self) -> Result<(), Violation> {
        for from in self.sockets.clone() {
            let Some(to) = self.pick_socket() else {
                return Ok(());
            };
            let mut payload = [0; STAMP];
            payload[..4].copy_from_slice(&MARK.to_be_bytes());
            let to = Destination::Socket(to.addr);
            let sent = self
                .cluster
                .send(from.station, from.addr.port, to, &payload[..]);
            if sent == Err(SendError::Congested) {
                return Err(Violation::StillWaiting(key(from.addr)));
            }
        }
        Ok(())
    }

    pub(super) fn ask(&mut self) {
        let (Some(client), Some(server)) = (self.pick_awake_socket(), self.pick_awake_socket())
        else {
            return;
        };
        if client.station != server.station && !self.corrupting {
            let (client, server) = ((client.station, client.addr), (server.station, server.addr));
            self.questions.ask(&mut self.cluster, client, server);
        }
    }

    pub(super) fn send(&mut self) {
        let (Some(from), Some(to)) = (self.pick_awake_socket(), self.pick_socket()) else {
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
        self.say(|| format!("stream {stream}: {burst} from {from:?} to {destination:?}"));
        for _ in 0..burst {
            let len = STAMP + self.cluster.rng.pick(&[0, 0, 10, 100, 1400, 1600, 9_000]);
            let number = self.deliveries.next_number(stream);
            let mut payload = vec![stream as u8; len];
            payload[..4].copy_from_slice(&(stream as u32).to_be_bytes());
            payload[4..8].copy_from_slice(&number.to_be_bytes());
            let (lower, upper) = self.binding_of(from).unwrap_or(UNBOUND);
            payload[8..12].copy_from_slice(&lower.to_be_bytes());
            payload[12..16].copy_from_slice(&upper.to_be_bytes());
            payload[16..24].copy_from_slice(&self.cluster.now.0.to_be_bytes());
            let (station, port) = (from.station, from.addr.port);
            let method = self.method(from);
            let sent = self
                .cluster
                .send(station, port, destination, &payload[..])
                .is_ok();
            if sent {
                self.deliveries.sent(stream);
            }
            if self.method(from) != method {
                self.note_switch(from);
            }
        }
    }

    fn method(&self, of: Socket) -> Option<McastMethod> {
        let port = self.cluster.node(of.station).engine.port(of.addr.port);
        port.map(|port| port.mcast_method)
    }

    /// A sender switched the method of its multicasts: members whose node it does not know as one may
    /// get half of the pair.
    fn note_switch(&mut self, from: Socket) {
        let sender = key(from.addr);
        let now = self.cluster.now;
        self.switches.entry(sender).or_default().push(now);
        let known = self.cluster.node(from.station).engine.publications();
        let known = known.filter(|p| p.range.type_ == SERVICE && p.scope == Scope::Cluster);
        let known: BTreeSet<u32> = known.map(|p| p.node).collect();
        for socket in &self.sockets {
            if !known.contains(&socket.addr.node.0) && self.is_member(*socket) {
                self.deliveries.halved(sender, key(socket.addr));
            }
        }
    }

    /// Whether the socket gets multicasts of other nodes.
    pub(super) fn is_member(&self, socket: Socket) -> bool {
        let engine = &self.cluster.node(socket.station).engine;
        let mut bindings = engine
            .port(socket.addr.port)
            .into_iter()
            .flat_map(|port| &port.bindings);
        bindings.any(|b| b.range.type_ == SERVICE && b.scope == Scope::Cluster)
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
    pub(super) fn collect(&mut self) -> Result<(), Violation> {
        // First all that ends a promise, then what was promised.
        for station in self.cluster.awake() {
            let own = self.cluster.addr(station);
            for notice in self.cluster.notices(station) {
                match notice {
                    Notice::Contact {
                        node: peer,
                        up: false,
                    } => {
                        if self.lasting {
                            return Err(Violation::ContactLost(own.0, peer.0));
                        }
                        self.deliveries.broke(own.0, peer.0);
                        self.connections.lost(own, Some(peer));
                    }
                    Notice::Contact {
                        node: peer,
                        up: true,
                    } => {
                        let now = self.cluster.now;
                        self.contact
                            .extend([((own.0, peer.0), now), ((peer.0, own.0), now)]);
                    }
                    Notice::AddressFinal(_) => {
                        self.listen(station);
                        self.subscribe(station);
                    }
                    Notice::ConnectFailed(port, _) => self.connections.failed(station, port),
                    _ => {}
                }
            }
        }
        self.accept_all();
        self.hear()?;
        for station in self.cluster.awake() {
            let node = self.cluster.addr(station);
            let inbox = &self.cluster.node(station).host.inbox;
            let ports: Vec<PortId> = inbox.keys().copied().collect();
            let others = self.other_ports(station);
            for port in ports.into_iter().filter(|port| !others.contains(port)) {
                let messages = self.cluster.recv_all(station, port);
                for message in self.sabotaged(messages) {
                    let receiver = key(SocketAddr { port, node });
                    self.check(station, receiver, &message)?;
                }
            }
        }
        Ok(())
    }

    fn check(
        &mut self,
        station: usize,
        receiver: SocketKey,
        message: &Received,
    ) -> Result<(), Violation> {
        let (source, bytes) = (key(message.about.source), &message.bytes[..]);
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
        let sent = bytes.get(16..STAMP).and_then(|at| at.try_into().ok());
        let sent = Instant(sent.map_or(0, u64::from_be_bytes));
        if message.about.dest_name.is_none() {
            // Others may wait for the twin of a switch that a new member has got one half of.
            self.slowest = self.slowest.max(self.cluster.now.since(sent));
        }
        if bytes[STAMP..].iter().any(|b| *b != stream as u8) {
            return Err(Violation::Mangled(stream));
        }
        self.say(|| format!("{receiver:?} got message {number} of stream {stream}"));
        let bounds = (word(8).unwrap_or(0), word(12).unwrap_or(0));
        if bounds != UNBOUND
            && self.is_told_before(message, receiver.0)
            && let Some((_, heard)) = self.subscribers.get(&station)
        {
            heard.message(station, message.serial, (bounds.0, bounds.1, source))?;
        }
        self.deliveries.arrived(stream, number, source, receiver)
    }
}
