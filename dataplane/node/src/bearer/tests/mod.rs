//! Bearers on real interfaces: veth pairs between two network namespaces. Needs root.

mod exchange;
pub(super) mod lab;
mod lifetime;
mod refusals;
mod udp;

use std::time::{Duration, Instant};

use xtipc_protocol::addr::MediaAddr;
use xtipc_protocol::host::{MediaDest, Reserve};
use xtipc_xsk::FramePool;
use xtipc_xsk::interface::{DeviceKind, Interface};

use super::{Bearer, Defaults, HEADROOM, MTU_V4, Preparation, pool_config};
use crate::config::{BearerSpec, EthernetSpec, MediaSpec, XdpMode};
use lab::{Lab, MAC, spec};

fn defaults(xdp: XdpMode) -> Defaults {
    Defaults {
        xdp,
        cluster_id: 4711,
        udp_mtu: MTU_V4,
    }
}

/// A bearer with a pool of its own, at one end of the lab.
struct End {
    side: usize,
    bearer: Bearer,
    pool: FramePool,
    started: Instant,
    /// Where the other end is.
    peer: MediaAddr,
}

impl End {
    fn open(lab: &Lab, side: usize, spec: &BearerSpec, xdp: XdpMode) -> Self {
        lab.enter(side);
        let config = pool_config(std::slice::from_ref(spec), xdp, 1024);
        let mut pool = FramePool::new(&config).unwrap();
        let bearer = Bearer::open(spec, defaults(xdp), Preparation::default(), &mut pool).unwrap();
        Self {
            side,
            bearer,
            pool,
            started: Instant::now(),
            peer: station(1 - side),
        }
    }

    fn to_peer(&self) -> MediaDest {
        MediaDest::Unicast(self.peer)
    }

    /// Sends one packet and gives its frame up.
    fn send(&mut self, to: MediaDest, packet: &[u8]) {
        self.bearer.set_clock(self.started.elapsed());
        let frame = self.pool.alloc(xtipc_xsk::Reserve::Data).unwrap();
        self.pool.bytes_mut(frame).unwrap()[HEADROOM..HEADROOM + packet.len()]
            .copy_from_slice(packet);
        self.bearer
            .transmit(&mut self.pool, frame, to, packet.len(), Reserve::Data);
        self.pool.release(frame);
    }

    fn flush(&mut self) {
        self.bearer.reclaim(&mut self.pool);
        self.bearer.flush();
    }

    /// What arrives until `count` packets are there or nothing comes for a while.
    fn receive(&mut self, count: usize) -> Vec<(MediaAddr, Vec<u8>)> {
        let mut packets = Vec::new();
        let mut heard = Instant::now();
        while packets.len() < count && heard.elapsed() < Duration::from_millis(300) {
            let before = packets.len();
            // As a waiter would tell that reports every socket.
            self.bearer.on_call();
            self.bearer
                .receive(64, |from, packet| packets.push((from, packet.to_vec())));
            self.flush();
            if packets.len() > before {
                heard = Instant::now();
            }
        }
        packets
    }

    /// As if further workers served these queues.
    fn spread_over(&mut self, queues: Vec<u32>) {
        let port = self.bearer.port_mut().expect("AF_XDP");
        port.spread_over(queues, &self.pool);
    }

    fn drops(&self, name: &str) -> u64 {
        self.bearer.info().drops.get(name).copied().unwrap_or(0)
    }

    fn close(mut self, lab: &Lab) {
        lab.enter(self.side);
        self.bearer.close(&mut self.pool).unwrap();
        self.pool.leaks().unwrap();
    }
}

/// What the kernel would say about an interface that there need not be.
pub(super) fn interface(kind: DeviceKind, driver: &str) -> Interface {
    Interface {
        name: "eth0".into(),
        index: 7,
        mac: MAC[0],
        mtu: 1500,
        up: true,
        running: true,
        driver: Some(driver.into()),
        kind,
        rx_queues: 1,
    }
}

/// The Ethernet station of a side.
fn station(side: usize) -> MediaAddr {
    MediaAddr::ethernet(MAC[side])
}

/// Two ends in the same mode.
fn pair(lab: &Lab, spec: &BearerSpec, xdp: XdpMode) -> [End; 2] {
    [0, 1].map(|side| End::open(lab, side, spec, xdp))
}

/// Sends numbered packets of a length from one end to the other in bursts; each arrives once, in order.
fn transfer(from: &mut End, to: &mut End, count: u32, len: usize) {
    const BURST: u32 = 50;
    for first in (0..count).step_by(BURST as usize) {
        let numbers = first..(first + BURST).min(count);
        for number in numbers.clone() {
            from.send(from.to_peer(), &numbered(number, len));
        }
        from.flush();
        let received = to.receive(numbers.len());
        assert_eq!(
            received.len(),
            numbers.len(),
            "{:?} {:?}",
            from.bearer.info(),
            to.bearer.info()
        );
        for (number, (source, packet)) in numbers.zip(received) {
            assert_eq!(source, from.bearer.media_addr());
            assert!(packet == numbered(number, len), "packet {number}");
        }
    }
}

fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|at| (at as u32 ^ number) as u8).collect();
    packet[..4].copy_from_slice(&number.to_be_bytes());
    packet
}
