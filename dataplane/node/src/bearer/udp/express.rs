//! The way of a UDP bearer by AF_XDP, past the kernel's IP.
//!
//! Whole datagrams to and from stations that the kernel has told the way to. All else is for the sockets beside it:
//! fragments, options, packets longer than the interface takes, stations that are not resolved, or behind another
//! interface.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use xtipc_ebpf::Classifier;
use xtipc_ebpf::netlink::{DATAGRAM_SIZE, Netlink};
use xtipc_management::BearerInfo;
use xtipc_protocol::addr::MediaAddr;
use xtipc_protocol::host::{MediaDest, Reserve};
use xtipc_xsk::datagram::{Datagram, Headers, Refused, Source, group_mac};
use xtipc_xsk::interface::Interface;
use xtipc_xsk::udp::HOPS;
use xtipc_xsk::{FrameIndex, FramePool};

use super::hops::{Hops, RTM_GETNEIGH, RTM_GETROUTE, neighbours_question};
use crate::bearer::claim::Claim;
use crate::bearer::error::{StillHeld, XdpError};
use crate::bearer::front::send_behind;
use crate::bearer::interrupts::Interrupts;
use crate::bearer::ladder::{self, Rung};
use crate::bearer::nic::{in_pool, numa_node};
use crate::bearer::room;
use crate::bearer::steering::{of_datagrams, one_of_each_worker};
use crate::bearer::traffic::{Traffic, TxDrop, named};
use crate::bearer::xdp::{ClosingSockets, XdpPort};
use crate::bearer::{HEADROOM, Hands};
use crate::config::{HEADERS_V4, HEADERS_V6, XdpMode};
use crate::wait::Interest;

/// What a change of can change a way: RTMGRP_ of links, neighbours, addresses, routes and rules, both families.
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x4_0000;
/// The kernel does not tell when it learns that a path is narrower.
const ROUTE_LIFETIME: Duration = Duration::from_secs(10);
/// Questions to the kernel in one round, a few microseconds each.
const QUESTIONS: usize = 64;

/// See the module.
pub(super) struct Express {
    port: XdpPort,
    rung: Rung,
    interface: Interface,
    /// The longest IP packet that fits into a frame.
    frame_room: usize,
    local: SocketAddr,
    hops: Hops,
    netlink: Netlink,
    buffer: Box<[u8]>,
    routes_asked: Duration,
    next_id: u16,
    /// `None` until it is known who serves the queues. Dropped before the claim.
    interrupts: Option<Interrupts>,
    claim: Claim,
}

impl Express {
    /// Takes the datagrams to `local` and `group` off an interface, and tells why by this mode; or why it cannot.
    pub(super) fn open(
        interface: &str,
        local: SocketAddr,
        group: Option<IpAddr>,
        xdp: XdpMode,
        ready: Option<Classifier>,
        pool: &mut FramePool,
    ) -> Result<(Self, String), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let interface = Interface::query(interface).map_err(|error| text(&error))?;
        let mut netlink = Netlink::following(GROUPS).map_err(|error| text(&error))?;
        netlink
            .ask(RTM_GETNEIGH, true, &neighbours_question())
            .map_err(|error| text(&error))?;
        let claim = Claim::new(&interface.name, interface.index).map_err(|error| text(&error))?;
        let (port, rung, reason) =
            ladder::climb_for_datagrams(&interface, local, group, xdp, ready, pool)?;
        let mut express = Self {
            port,
            rung,
            hops: Hops::new(interface.index, local.ip()),
            interface,
            frame_room: room::frame_room(pool.frame_len()),
            local,
            netlink,
            buffer: vec![0; DATAGRAM_SIZE].into_boxed_slice(),
            routes_asked: Duration::ZERO,
            next_id: 0,
            interrupts: None,
            claim,
        };
        express.listen();
        Ok((express, reason))
    }

    /// The longest packet that goes this way.
    pub(super) fn room(&self) -> usize {
        let headers = match self.local {
            SocketAddr::V4(_) => HEADERS_V4,
            SocketAddr::V6(_) => HEADERS_V6,
        };
        let fits = self.interface.mtu.saturating_sub(headers) as usize;
        fits.min(self.frame_room)
    }

    /// Hands up to `budget` received datagrams and their senders to `sink`; returns how many frames were taken.
    pub(super) fn receive(
        &mut self,
        budget: usize,
        traffic: &mut Traffic,
        sink: &mut impl FnMut(SocketAddr, &[u8]),
    ) -> usize {
        // The classifier has looked at destination and port.
        self.port
            .receive(budget, |frame| match Datagram::parse(frame) {
                Ok(datagram) => {
                    traffic.received(datagram.payload.len());
                    sink(datagram.from, datagram.payload);
                }
                Err(Refused::Checksum) => traffic.rx_checksum += 1,
                Err(Refused::Malformed) => traffic.rx_malformed += 1,
            })
    }

    /// Sends the `len` bytes at [`HEADROOM`] of a frame, and tells the outcome. `None`: the packet is for the sockets.
    pub(super) fn transmit(
        &mut self,
        pool: &mut FramePool,
        frame: FrameIndex,
        to: SocketAddr,
        len: usize,
        reserve: Reserve,
    ) -> Option<Result<(), TxDrop>> {
        if len > self.room() {
            return None;
        }
        let (mac, dest) = match to.ip() {
            group if group.is_multicast() => (group_mac(group), MediaDest::Broadcast),
            station => {
                let hop = self.hops.find(station)?;
                let headers = self.interface.mtu as usize - self.room();
                if hop.mtu.is_some_and(|mtu| len + headers > mtu as usize) {
                    return None;
                }
                (hop.mac, MediaDest::Unicast(MediaAddr::from_udp(to)))
            }
        };
        let source = Source {
            mac: self.interface.mac,
            socket: self.local,
        };
        let payload = &pool.bytes(frame)[HEADROOM..HEADROOM + len];
        let headers = Headers::new(source, mac, to, HOPS, self.next_id, payload)?;
        self.next_id = self.next_id.wrapping_add(1);
        let (port, reserve) = (&mut self.port, in_pool(reserve));
        let headers = headers.as_bytes();
        Some(send_behind(
            headers,
            pool,
            frame,
            len,
            reserve,
            |pool, frame, start| {
                port.send(pool, (frame, dest), start, HEADROOM - start + len, reserve)
            },
        ))
    }

    pub(super) fn reclaim(&mut self, pool: &mut FramePool) {
        self.port.complete(pool);
    }

    /// The end of a round: wakes the kernel where it needs it, and asks it for the ways that were missing.
    pub(super) fn flush(&mut self) {
        self.port.flush();
        if self.hops.has_questions() {
            self.ask();
        }
    }

    pub(super) fn set_clock(&mut self, now: Duration) {
        self.port.set_clock(now);
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        let netlink = (self.netlink.as_fd(), Interest::Read);
        self.port.fds().chain([netlink])
    }

    /// See [`super::UdpBearer::steer`].
    pub(super) fn steer(&mut self, hands: &Hands<'_>, pool: &FramePool) {
        let servers = self.port.servers();
        self.port.spread_over(one_of_each_worker(&servers), pool);
        self.interrupts
            .get_or_insert_with(|| Interrupts::set_up(&self.interface, &servers, hands));
    }

    pub(super) fn port(&self) -> &XdpPort {
        &self.port
    }

    pub(super) fn port_mut(&mut self) -> &mut XdpPort {
        &mut self.port
    }

    pub(super) fn rx_ready(&mut self) -> bool {
        self.port.rx_ready()
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.port.is_quiet() && !self.hops.has_questions()
    }

    fn ask(&mut self) {
        for _ in 0..QUESTIONS {
            let Some((to, body)) = self.hops.next_question() else {
                break;
            };
            match self.netlink.ask(RTM_GETROUTE, false, &body) {
                Ok(sequence) => self.hops.asked(sequence, to),
                Err(error) => tracing::warn!(%to, %error, "cannot ask for a route"),
            }
            // The answer is there when the question has been sent; taken at once, it cannot fill the buffer.
            self.listen();
        }
    }

    /// Takes what the kernel told meanwhile.
    pub(super) fn listen(&mut self) {
        let Self {
            hops,
            netlink,
            buffer,
            ..
        } = self;
        let mut changed = false;
        let taken = netlink.take(buffer, |message| changed |= hops.take(&message));
        if let Err(error) = taken {
            tracing::debug!(%error, "asking for all neighbours again");
            hops.forget();
            let asked = netlink.ask(RTM_GETNEIGH, true, &neighbours_question());
            if let Err(error) = asked {
                tracing::warn!(%error, "cannot ask for neighbours");
            }
        } else if changed {
            hops.doubt_routes();
        }
    }

    /// Looks after interface, routes and sockets, about once a second. True: the sockets do no work, or the interface is
    /// gone.
    pub(super) fn must_reopen(&mut self, pool: &mut FramePool, now: Duration) -> bool {
        self.listen();
        if now.saturating_sub(self.routes_asked) > ROUTE_LIFETIME {
            self.routes_asked = now;
            self.hops.doubt_routes();
        }
        let Some(current) = self.look() else {
            return true;
        };
        if current.mac != self.interface.mac
            && let Err(error) = self.port.set_mac(current.mac)
        {
            tracing::error!(interface = current.name, %error, "the classifier takes frames for the old address");
        }
        self.interface = current;
        let is_up = self.interface.up && self.interface.running;
        is_up && self.port.is_stuck(pool, now)
    }

    /// The interface now; `None` if it is gone.
    pub(super) fn look(&self) -> Option<Interface> {
        let found = Interface::query(&self.interface.name).ok()?;
        (found.index == self.interface.index).then_some(found)
    }

    pub(super) fn reopen(&mut self, pool: &mut FramePool) -> Result<(), XdpError> {
        self.port.reopen(pool)
    }

    /// What the tools show of it.
    pub(super) fn info(&self) -> BearerInfo {
        BearerInfo {
            mode: self.rung.mode(),
            classifier: self.port.classifier_counters(),
            queues: self.port.queue_infos(),
            drops: named([("rx-handover-full", self.port.dropped_at_handover())]),
            numa_node: numa_node(&self.interface),
            steering: of_datagrams(&self.interface, self.local, &self.port.servers()),
            interrupts: self.interrupts.as_ref().and_then(Interrupts::info),
            ..BearerInfo::default()
        }
    }

    pub(super) fn close(self, pool: &mut FramePool) -> Result<(), StillHeld> {
        self.port.close(pool).1
    }

    pub(super) fn begin_close(self, pool: &mut FramePool) -> (ClosingSockets, Claim) {
        (self.port.begin_close(pool), self.claim)
    }
}
