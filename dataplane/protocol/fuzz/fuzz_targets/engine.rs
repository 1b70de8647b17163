//! Any sequence of frames, pauses and requests of applications: three engines go on, and the one that is
//! stopped in the end has given back every frame.
//!
//! The input is a list of steps. Frames are arbitrary bytes, or what a node sent with some bytes changed,
//! so that the fuzzer need not guess sessions and numbers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use xtipc_protocol::addr::{Destination, NodeAddr, PortId, SocketAddr};
use xtipc_protocol::name::Scope;
use xtipc_protocol::port::SocketKind;
use xtipc_sim::cluster::{Cluster, range, service, service_range};
use xtipc_sim::segment::{Faults, mac_of};

const SERVICE: u32 = 5000;
const STATIONS: usize = 3;
/// Packets of the past that a step can send again.
const REMEMBERED: usize = 64;

/// Takes the input apart.
struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The sockets of each station.
type Ports = [Vec<PortId>; STATIONS];

fn port(ports: &Ports, station: usize, choice: u8) -> Option<PortId> {
    let ports = &ports[station];
    (!ports.is_empty()).then(|| ports[usize::from(choice) % ports.len()])
}

/// What a node sent lately, with some bytes changed.
fn damaged(c: &mut Cluster, steps: &mut Steps<'_>) -> Option<Vec<u8>> {
    let sent = &mut c.segment.seen;
    sent.drain(..sent.len().saturating_sub(REMEMBERED));
    let back = usize::from(steps.byte()?) % sent.len().max(1);
    let mut bytes = sent.iter().rev().nth(back)?.bytes.clone();
    for _ in 0..steps.byte()? % 4 {
        let (at, value) = (usize::from(steps.byte()?), steps.byte()?);
        let len = bytes.len();
        bytes[at % len] = value;
    }
    Some(bytes)
}

fn step(c: &mut Cluster, ports: &mut Ports, steps: &mut Steps<'_>) -> Option<()> {
    let kind = steps.byte()?;
    let station = usize::from(kind >> 4) % STATIONS;
    let from = usize::from(kind >> 6) % STATIONS;
    let now = c.now;
    match kind % 16 {
        0..3 => c.run_for(Duration::from_millis(u64::from(steps.byte()?) * 4)),
        3..6 => {
            let len = usize::from(steps.byte()?) * 8;
            c.receive(station, mac_of(from), steps.bytes(len));
        }
        6..10 => {
            let bytes = damaged(c, steps)?;
            c.receive(station, mac_of(from), &bytes);
        }
        10 => ports[station].push(c.with(station, |n| n.engine.open(SocketKind::Rdm))),
        11 => {
            let port = port(ports, station, steps.byte()?)?;
            let lower = u32::from(steps.byte()? % 8);
            let range = service_range((SERVICE, lower, lower + 4));
            // A socket may be out of binding keys, or the range not bound.
            let _ = c.with(station, |n| match lower {
                0..6 => n.engine.bind(now, port, range, Scope::Cluster, &mut n.host),
                _ => n.engine.unbind_all(now, port, &mut n.host),
            });
        }
        12..14 => {
            let port = port(ports, station, steps.byte()?)?;
            let to = match steps.byte()? % 3 {
                0 => service(SERVICE, 3),
                1 => range(SERVICE, 0, 9),
                _ => Destination::Socket(SocketAddr {
                    port,
                    node: NodeAddr(u32::from(steps.byte()?)),
                }),
            };
            let payload = vec![7; usize::from(steps.byte()?) * 40];
            // Unreachable and congested are answers too.
            let _ = c.send(station, port, to, &payload[..]);
        }
        14 => {
            let closed = port(ports, station, steps.byte()?)?;
            ports[station].retain(|port| *port != closed);
            c.close(station, closed);
        }
        _ => {
            let loss = u32::from(steps.byte()? % 2) * 300;
            c.segment.faults = Faults {
                loss,
                ..Faults::default()
            };
        }
    }
    Some(())
}

fuzz_target!(|input: &[u8]| {
    let mut c = Cluster::new(1);
    // What is sent back to forged messages has their headers.
    c.strict = false;
    c.recipe.frames = 256;
    for station in 0..STATIONS {
        c.start(station);
    }
    c.until("all links are up", Cluster::is_full_mesh);
    c.segment.record = true;
    let mut ports = Ports::default();
    for (station, ports) in ports.iter_mut().enumerate() {
        let socket = c.open(station);
        c.bind(station, socket.port, (SERVICE, 0, 9));
        ports.push(socket.port);
    }
    let mut steps = Steps(input);
    while step(&mut c, &mut ports, &mut steps).is_some() {}
    c.segment.faults = Faults::default();
    c.run_for(Duration::from_secs(2));
    c.finish();
});
