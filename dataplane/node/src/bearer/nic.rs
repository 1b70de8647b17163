//! An Ethernet bearer: an interface, the way packets take over it, and what it counts.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use xtipc_ebpf::Classifier;
use xtipc_management::{BearerInfo, Media};
use xtipc_protocol::addr::MediaAddr;
use xtipc_protocol::host::{MediaDest, Reserve};
use xtipc_xsk::interface::{Interface, InterfaceError};
use xtipc_xsk::packet::{PacketFrame, PacketSocket};
use xtipc_xsk::{FrameIndex, FramePool};

use super::claim::Claim;
use super::error::{BearerError, MTU_MIN, StillHeld};
use super::ethernet::{BROADCAST, Header, Received, vlan_id};
use super::front::send_behind;
use super::interrupts::Interrupts;
use super::ladder::{self, Rung};
use super::steering::Steering;
use super::traffic::{Traffic, TxDrop, named};
use super::xdp::{ClosingSockets, XdpPort};
use super::{HEADROOM, Hands, links, napi, occupied, room};
use crate::config::{EthernetSpec, XdpMode};
use crate::placement::has_numa_nodes;
use crate::wait::Interest;

/// The way packets take between the interface and the frame pool.
pub(super) enum Path {
    Packet(PacketSocket),
    Xdp(Box<XdpPort>),
}

/// See the module.
pub(super) struct EthernetBearer {
    pub(super) path: Path,
    rung: Rung,
    mode_reason: String,
    /// As last seen: its address is the source of what we send.
    pub(super) interface: Interface,
    vlan: u16,
    /// The longest packet that path and pool carry, whatever the MTU.
    room: usize,
    traffic: Traffic,
    /// `None` until it is known who serves the queues. Dropped before the claim.
    steering: Option<Steering>,
    interrupts: Option<Interrupts>,
    claim: Claim,
}

impl EthernetBearer {
    /// Opens a bearer on the best path that `xdp` admits. If that fails nothing is left behind.
    pub(super) fn open(
        name: &str,
        spec: &EthernetSpec,
        xdp: XdpMode,
        ready: Option<Classifier>,
        pool: &mut FramePool,
    ) -> Result<Self, BearerError> {
        let interface = examine(name, spec, xdp)?;
        let claim = Claim::new(&interface.name, interface.index)?;
        let vlan = spec.vlan.unwrap_or(0);
        let frame_room = room::frame_room(pool.frame_len());
        let packet_mtu = frame_room.min(interface.mtu as usize);
        let found = ladder::climb(&interface, vlan, xdp, packet_mtu, ready, pool)?;
        let room = match found.multi_chunk {
            true => frame_room,
            false => frame_room.min(room::single_chunk_room(vlan)),
        };
        let mut mode_reason = found.reason;
        if room < interface.mtu as usize {
            mode_reason.push_str(&format!(
                "; packets limited to {room} of {} bytes by the frame pool or a kernel without XDP_USE_SG",
                interface.mtu
            ));
        }
        for warning in napi::warnings(&interface) {
            tracing::warn!(interface = interface.name, "{warning}");
        }
        Ok(Self {
            path: found.path,
            rung: found.rung,
            mode_reason,
            interface,
            vlan,
            room,
            traffic: Traffic::default(),
            steering: None,
            interrupts: None,
            claim,
        })
    }

    /// The own address on this bearer.
    pub(super) fn media_addr(&self) -> MediaAddr {
        MediaAddr::ethernet(self.interface.mac)
    }

    /// The longest TIPC packet.
    pub(super) fn mtu(&self) -> usize {
        self.room.min(self.interface.mtu as usize)
    }

    /// Hands up to `budget` received TIPC packets (bytes after the Ethernet header, with the padding of a
    /// short frame) and their source addresses to `sink`. Returns how many frames were taken.
    pub(super) fn receive(
        &mut self,
        budget: usize,
        mut sink: impl FnMut(MediaAddr, &[u8]),
    ) -> usize {
        let Self {
            path,
            traffic,
            interface,
            vlan,
            ..
        } = self;
        let (own, vlan) = (interface.mac, *vlan);
        match path {
            // The classifier has looked at address and VLAN.
            Path::Xdp(port) => port.receive(budget, |frame| match Received::parse(frame) {
                Some(received) => {
                    traffic.received(received.packet.len());
                    sink(MediaAddr::ethernet(received.from), received.packet);
                }
                None => traffic.rx_malformed += 1,
            }),
            Path::Packet(socket) => socket.receive(budget, |frame| {
                let Some(received) = Received::parse(frame.bytes) else {
                    traffic.rx_malformed += 1;
                    return;
                };
                if !received.is_for(own) {
                    traffic.rx_foreign_mac += 1;
                } else if known_vlan(&frame) != Some(vlan) {
                    traffic.rx_other_vlan += 1;
                } else {
                    traffic.received(received.packet.len());
                    sink(MediaAddr::ethernet(received.from), received.packet);
                }
            }),
        }
    }

    /// Sends the `len` bytes of a packet that start at [`HEADROOM`] of a frame the caller holds. A packet that
    /// cannot be sent now is dropped and counted: the link layer repeats it. While another transmission
    /// with another Ethernet header holds the frame, a copy is sent.
    pub(super) fn transmit(
        &mut self,
        pool: &mut FramePool,
        frame: FrameIndex,
        to: MediaDest,
        len: usize,
        reserve: Reserve,
    ) {
        let result = if len > self.mtu() {
            Err(TxDrop::TooLong)
        } else {
            let destination = match to {
                MediaDest::Unicast(address) => address.mac(),
                MediaDest::Broadcast => BROADCAST,
            };
            let header = Header::new(destination, self.interface.mac, self.vlan);
            let (header, reserve) = (header.as_bytes(), in_pool(reserve));
            let path = &mut self.path;
            send_behind(
                header,
                pool,
                frame,
                len,
                reserve,
                |pool, frame, start| match path {
                    Path::Xdp(port) => {
                        port.send(pool, (frame, to), start, HEADROOM - start + len, reserve)
                    }
                    Path::Packet(socket) => socket
                        .send(&pool.bytes(frame)[start..HEADROOM + len])
                        .map_err(TxDrop::of),
                },
            )
        };
        self.traffic.sent(len, result);
    }

    /// Takes back what was sent.
    pub(super) fn reclaim(&mut self, pool: &mut FramePool) {
        if let Path::Xdp(port) = &mut self.path {
            port.complete(pool);
        }
    }

    /// The end of a round: wakes the kernel where it needs it.
    pub(super) fn flush(&mut self) {
        if let Path::Xdp(port) = &mut self.path {
            port.flush();
        }
    }

    /// Tells the time, once per round before sending.
    pub(super) fn set_clock(&mut self, now: Duration) {
        if let Path::Xdp(port) = &mut self.path {
            port.set_clock(now);
        }
    }

    /// All sockets to wait on, and for what. They change only in [`Self::reopen`].
    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        let (packet, xdp) = match &self.path {
            Path::Packet(socket) => (Some((socket.as_fd(), Interest::Read)), None),
            Path::Xdp(port) => (None, Some(port.fds())),
        };
        packet.into_iter().chain(xdp.into_iter().flatten())
    }

    /// The sockets of AF_XDP, where it runs.
    pub(super) fn port(&self) -> Option<&XdpPort> {
        match &self.path {
            Path::Packet(_) => None,
            Path::Xdp(port) => Some(port),
        }
    }

    /// The same, to use them.
    pub(super) fn port_mut(&mut self) -> Option<&mut XdpPort> {
        match &mut self.path {
            Path::Packet(_) => None,
            Path::Xdp(port) => Some(port),
        }
    }

    /// Has the NIC put packets into the queues that the further workers serve, if it can, once it is known which these are; and
    /// spreads over these what is sent.
    pub(super) fn steer(&mut self, hands: &Hands<'_>, pool: &FramePool) {
        let servers = self.port().map_or(Vec::new(), XdpPort::servers);
        let steering = self.steering.get_or_insert_with(|| {
            let steering =
                Steering::set_up(&self.interface, self.vlan, &servers, hands.run_dir);
            if let Some(shown) = steering.info(&self.interface, &[]) {
                tracing::info!(interface = self.interface.name, way = ?shown.way, why = shown.reason, "steering");
            }
            steering
        });
        if let Path::Xdp(port) = &mut self.path {
            port.spread_over(steering.queues_to_send_by(&servers), pool);
            self.interrupts
                .get_or_insert_with(|| Interrupts::set_up(&self.interface, &servers, hands));
        }
    }

    /// Tells which stations have a link.
    pub(super) fn set_linked(&mut self, stations: impl Iterator<Item = MediaAddr>) {
        if let Path::Xdp(port) = &mut self.path {
            let steering = self.steering.as_ref();
            port.set_linked(stations, |station| steering?.queue_from(station.mac()));
        }
    }

    /// Whether packets wait to be received: the check before sleeping.
    pub(super) fn rx_ready(&mut self) -> bool {
        match &mut self.path {
            Path::Packet(socket) => socket.rx_ready(),
            Path::Xdp(port) => port.rx_ready(),
        }
    }

    /// Whether a round would find nothing here. False where only a system call could tell.
    pub(super) fn is_quiet(&self) -> bool {
        match &self.path {
            Path::Packet(_) => false,
            Path::Xdp(port) => port.is_quiet(),
        }
    }

    /// Nothing has come since it was opened, though the interface is up.
    pub(super) fn is_silent(&self) -> bool {
        self.is_up() && self.traffic.rx_packets == 0
    }

    /// What the tools show. Worker and link defaults are the caller's to fill in.
    pub(super) fn info(&self) -> BearerInfo {
        let (classifier, queues, overflow) = match &self.path {
            Path::Packet(socket) => (
                Default::default(),
                Vec::new(),
                ("rx-buffer-full", socket.kernel_drops()),
            ),
            Path::Xdp(port) => (
                port.classifier_counters(),
                port.queue_infos(),
                ("rx-handover-full", port.dropped_at_handover()),
            ),
        };
        let mut drops = self.traffic.drops();
        drops.extend(named([overflow]));
        let mut mode_reason = self.mode_reason.clone();
        for warning in napi::warnings(&self.interface) {
            mode_reason.push_str(&format!("; WARNING: {warning}"));
        }
        BearerInfo {
            media: Media::Eth,
            mode: self.rung.mode(),
            mode_reason,
            up: self.is_up(),
            media_address: self.media_addr().to_string(),
            mtu: self.mtu() as u32,
            drops,
            classifier,
            numa_node: numa_node(&self.interface),
            steering: self
                .steering
                .as_ref()
                .and_then(|steering| steering.info(&self.interface, &queues)),
            interrupts: self.interrupts.as_ref().and_then(Interrupts::info),
            queues,
            ..self.traffic.info()
        }
    }

    /// Sends what is waiting, closes the sockets, waits up to seconds for the kernel to release them, and gives
    /// the interface up. The fds must be out of every waiter.
    pub(super) fn close(self, pool: &mut FramePool) -> Result<(), StillHeld> {
        match self.path {
            Path::Packet(_) => Ok(()),
            Path::Xdp(port) => port.close(pool).1,
        }
    }

    /// The same without waiting; what was not flushed is not sent.
    pub(super) fn begin_close(self, pool: &mut FramePool) -> (ClosingSockets, Claim) {
        let sockets = match self.path {
            Path::Packet(_) => ClosingSockets::default(),
            Path::Xdp(port) => port.begin_close(pool),
        };
        (sockets, self.claim)
    }
}

/// The VLAN of a frame of an AF_PACKET socket, 0 without a tag. `None` if the kernel may have taken a tag out and
/// not told it: then it marks the frame as another host's.
fn known_vlan(frame: &PacketFrame<'_>) -> Option<u16> {
    match frame.tag.map_or(0, |tag| vlan_id(tag.control)) {
        0 if frame.other_host => None,
        vlan => Some(vlan),
    }
}

/// That of the NIC, if the system has several.
pub(super) fn numa_node(interface: &Interface) -> Option<u32> {
    interface.numa_node().filter(|_| has_numa_nodes())
}

pub(super) fn in_pool(reserve: Reserve) -> xtipc_xsk::Reserve {
    match reserve {
        Reserve::Data => xtipc_xsk::Reserve::Data,
        Reserve::Control => xtipc_xsk::Reserve::Control,
    }
}

/// Asks about the interface of a bearer and refuses one that cannot carry it, or is another's.
fn examine(interface: &str, spec: &EthernetSpec, xdp: XdpMode) -> Result<Interface, BearerError> {
    let name = || interface.to_owned();
    let found = Interface::query(interface).map_err(|error| match error {
        InterfaceError::NotFound(interface) => BearerError::UnknownInterface {
            interface,
            media: "Ethernet",
            existing: links::names(links::ETHERNET),
        },
        other => other.into(),
    })?;
    if found.mtu < MTU_MIN {
        return Err(BearerError::MtuTooSmall {
            interface: name(),
            mtu: found.mtu,
        });
    }
    let existing: Vec<_> = (0..found.rx_queues as usize).collect();
    if !spec.queues.is_empty() && spec.queues != existing {
        return Err(BearerError::Queues {
            interface: name(),
            listed: spec.queues.clone(),
            existing,
        });
    }
    occupied::refuse_kernel_bearer("eth", interface)?;
    match occupied::program(interface) {
        Some(occupant) if xdp != XdpMode::Off => Err(BearerError::Occupied {
            interface: name(),
            occupant,
        }),
        _ => Ok(found),
    }
}
