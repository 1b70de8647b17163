//! What happens to a cluster in a run: sockets and bindings come and go, and everything goes wrong.

use super::{
    DELAYS_US, MOST_SOCKETS, QUIET, RING_ROOM, Run, SERVICE, SLOWEST_US, STOPPED_MS, STRAGGLES_US,
    Socket, key,
};
use crate::checks::{Violation, check_frames};
use crate::segment::Faults;
use std::time::Duration;
use xtipc_protocol::addr::NodeAddr;
use xtipc_protocol::name::Scope;
use xtipc_protocol::port::{McastMethod, RECEIVE_BUFFER_RANGE};
use xtipc_protocol::wire::Importance;

impl Run {
    pub(super) fn act(&mut self) -> Result<(), Violation> {
        let what = self.cluster.rng.below(1000) as u32;
        if what < self.connecting {
            self.act_on_connections()?;
        } else if what - self.connecting < self.grouping {
            self.act_on_members()?;
        } else {
            self.act_on_others()?;
        }
        let pause = self.cluster.rng.pick(&[0, 0, 50, 500, 5_000, 100_000]);
        self.pass(Duration::from_micros(pause))?;
        self.collect()
    }

    fn act_on_others(&mut self) -> Result<(), Violation> {
        match self.cluster.rng.below(1000) {
            120..158 if self.lasting => self.send(),
            0..30 => self.open(),
            30..40 => self.close(),
            40..120 => self.bind_or_unbind(),
            120..128 => self.restart()?,
            128..136 => self.change_faults(),
            136..140 => self.partition(),
            140..146 => self.heal(),
            146..152 => self.slow_down(),
            152..158 => self.suspend(),
            158..186 => self.ask(),
            _ => self.send(),
        }
        Ok(())
    }

    fn pick_station(&mut self) -> usize {
        let stations = self.cluster.stations();
        self.cluster.rng.pick(&stations)
    }

    /// A station whose node can act, if there is one.
    pub(super) fn pick_awake(&mut self) -> Option<usize> {
        let awake = self.cluster.awake();
        (!awake.is_empty()).then(|| self.cluster.rng.pick(&awake))
    }

    pub(super) fn open(&mut self) {
        let Some(station) = self.pick_awake() else {
            return;
        };
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
            // Applications read now and then; what is checked here is the way to them.
            let most = *RECEIVE_BUFFER_RANGE.end();
            let set = node.engine.set_receive_buffer(addr.port, most);
            set.expect("the largest that there is");
            let port = node.engine.port_mut(addr.port).expect("just opened");
            (port.importance, port.mcast_wanted) = (importance, method);
        });
        self.sockets.push(Socket { station, addr });
    }

    pub(super) fn pick_socket(&mut self) -> Option<Socket> {
        let count = self.sockets.len() as u64;
        (count > 0).then(|| self.sockets[self.cluster.rng.below(count) as usize])
    }

    /// A socket whose node can act.
    pub(super) fn pick_awake_socket(&mut self) -> Option<Socket> {
        self.pick_socket()
            .filter(|socket| !self.cluster.is_suspended(socket.station))
    }

    fn close(&mut self) {
        if let Some(socket) = self.pick_awake_socket() {
            self.say(|| format!("close {socket:?}"));
            self.cluster.close(socket.station, socket.addr.port);
            self.deliveries.closed(key(socket.addr));
            self.sockets.retain(|s| key(s.addr) != key(socket.addr));
        }
    }

    fn bind_or_unbind(&mut self) {
        let Some(socket) = self.pick_awake_socket() else {
            return;
        };
        let Socket { station, addr } = socket;
        let was_member = self.is_member(socket);
        self.deliveries.changed(key(addr));
        let engine = &self.cluster.node(station).engine;
        let port = engine.port(addr.port).expect("a socket of the run is open");
        let first = port.bindings.first().copied();
        if let Some(binding) = first
            && self.cluster.rng.chance(600)
        {
            self.say(|| format!("unbind {socket:?} {binding:?}"));
            let now = self.cluster.now;
            self.cluster.with(station, |n| {
                n.engine
                    .unbind(now, addr.port, binding.range, binding.scope, &mut n.host)
                    .expect("it was bound");
            });
            if !self.is_member(socket) {
                self.deliveries.left(key(addr));
            }
            return;
        }
        let rng = &mut self.cluster.rng;
        let lower = rng.below(10) as u32;
        let upper = lower + rng.below(10) as u32;
        let scope = rng.pick(&[Scope::Cluster, Scope::Cluster, Scope::Node]);
        let range = (SERVICE, lower, upper);
        self.say(|| format!("bind {socket:?} {range:?} {scope:?}"));
        self.cluster.bind_scoped(station, addr.port, range, scope);
        if !was_member && self.is_member(socket) {
            self.note_pairs_under_way(socket);
        }
    }

    /// A socket that joins may get half of what a sender's switch, earlier, left under way.
    fn note_pairs_under_way(&mut self, joining: Socket) {
        let now = self.cluster.now;
        for (sender, switches) in &mut self.switches {
            switches.retain(|at| *at + QUIET >= now);
            for _ in switches {
                self.deliveries.halved(*sender, key(joining.addr));
            }
        }
    }

    fn restart(&mut self) -> Result<(), Violation> {
        let station = self.pick_station();
        self.say(|| format!("restart of node {station}"));
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
        self.forget(station);
        self.agreement.forget(station);
        self.contact.retain(|(a, b), _| *a != node && *b != node);
        if self.cluster.is_suspended(station) || self.cluster.rng.chance(500) {
            self.losses.died(self.cluster.now, node);
            self.cluster.kill(station);
            return Ok(());
        }
        let owned = self.cluster.stop_counting(station);
        check_frames(station, owned)
    }

    /// What there was on a node is gone.
    pub(super) fn forget(&mut self, station: usize) {
        let node = self.cluster.addr_if_running(station);
        self.sockets.retain(|s| s.station != station);
        self.subscribers.remove(&station);
        self.connections.gone(station, node);
        self.members.gone(station);
    }

    fn change_faults(&mut self) {
        let net = self.pick_net();
        let rng = &mut self.cluster.rng;
        let faults = Faults {
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
        let delay_us = rng.pick(&DELAYS_US);
        self.cluster.net(net).faults = faults;
        self.cluster.net(net).delay_us = delay_us;
        self.say(|| format!("net {net}: {faults:?}"));
    }

    fn pick_net(&mut self) -> usize {
        match self.cluster.recipe.nets as u64 {
            1 => 0,
            nets => self.cluster.rng.below(nets) as usize,
        }
    }

    /// A segment without cuts.
    fn heal(&mut self) {
        let net = self.pick_net();
        self.say(|| format!("net {net} is whole"));
        self.cluster.net(net).heal();
    }

    fn partition(&mut self) {
        let net = self.pick_net();
        let (a, b) = (self.pick_station(), self.pick_station());
        if self.cluster.recipe.nets > 1 && self.cluster.rng.chance(400) {
            self.say(|| format!("net {net} is gone"));
            for (a, b) in (0..self.nodes).flat_map(|a| (0..a).map(move |b| (a, b))) {
                self.cluster.net(net).cut(a, b);
            }
            return;
        }
        self.say(|| format!("partition of nodes {a} and {b} on net {net}"));
        if self.cluster.rng.chance(300) {
            self.cluster.net(net).cuts.insert((a, b));
        } else {
            self.cluster.net(net).cut(a, b);
        }
    }

    /// A node becomes slow, or all are fast again.
    fn slow_down(&mut self) {
        for net in 0..self.cluster.recipe.nets {
            self.cluster.net(net).slow.clear();
        }
        if self.cluster.rng.chance(600) {
            let station = self.pick_station();
            let by = self.cluster.rng.pick(&[5_000, 100_000, SLOWEST_US]);
            self.say(|| format!("node {station} is slow by {by} us"));
            for net in 0..self.cluster.recipe.nets {
                self.cluster.net(net).slow.insert(station, by);
            }
        }
    }

    /// A node's process is stopped: for less than the tolerance, about as long, or long enough that its
    /// links are lost.
    fn suspend(&mut self) {
        let Some(station) = self.pick_awake() else {
            return;
        };
        let rng = &mut self.cluster.rng;
        let (least, most) = rng.pick(&STOPPED_MS);
        let span = Duration::from_millis(rng.within(least..most));
        let room = rng.pick(&RING_ROOM);
        self.say(|| format!("node {station} is stopped for {span:?}, its ring holds {room}"));
        self.cluster.suspend(station, span, room);
    }
}
