//! One Ethernet bearer: an interface, the way packets take over it, and what it counts.
//!
//! Owned by a worker; everything here runs in its thread, which is in the interface's network
//! namespace. A frame of the pool stays the caller's: sending never takes it over. A bearer must be
//! closed ([`Bearer::close`]), not dropped, so that frames and receive areas come back, and its fds must be
//! out of every waiter before they are closed or made anew: an armed io_uring poll keeps the
//! kernel from letting go.

mod claim;
mod error;
mod ethernet;
mod health;
mod ladder;
mod occupied;
mod room;
#[cfg(test)]
mod tests;
mod traffic;
mod xdp;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use xtipc_management::{BearerInfo, Media};
use xtipc_protocol::host::{MediaDest, Reserve};
use xtipc_xsk::interface::{Interface, InterfaceError};
use xtipc_xsk::packet::{PacketFrame, PacketSocket};
use xtipc_xsk::{FrameIndex, FramePool};

use crate::config::{BearerSpec, XdpMode};
use claim::Claim;
use error::MTU_MIN;
use ethernet::{BROADCAST, Header, Received, vlan_id};
use ladder::Rung;
use traffic::{Traffic, TxDrop, named};
use xdp::{ClosingSockets, XdpPort};

pub(crate) use error::{BearerError, StillHeld};
pub(crate) use health::BearerEvent;
pub(crate) use room::pool_config;

/// Where the TIPC packet starts in a frame; the Ethernet header is written right before it.
pub(crate) const HEADROOM: usize = 64;

/// The way packets take between the interface and the frame pool.
enum Path {
    Packet(PacketSocket),
    Xdp(Box<XdpPort>),
}

/// An Ethernet bearer.
pub(crate) struct Bearer {
    path: Path,
    rung: Rung,
    mode_reason: String,
    /// As last seen: its address is the source of what we send.
    interface: Interface,
    vlan: u16,
    /// The longest packet that path and pool carry, whatever the MTU.
    room: usize,
    traffic: Traffic,
    name: String,
    _claim: Claim,
}

impl Bearer {
    /// Opens a bearer on the best path that `xdp` admits. If that fails nothing is left behind.
    pub(crate) fn open(
        spec: &BearerSpec,
        xdp: XdpMode,
        pool: &mut FramePool,
    ) -> Result<Self, BearerError> {
        let interface = examine(spec, xdp)?;
        let claim = Claim::new(&interface.name, interface.index)?;
        let vlan = spec.vlan.unwrap_or(0);
        let frame_room = room::frame_room(pool.frame_len());
        let packet_mtu = frame_room.min(interface.mtu as usize);
        let found = ladder::climb(&interface, vlan, xdp, packet_mtu, pool)?;
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
        Ok(Self {
            path: found.path,
            rung: found.rung,
            mode_reason,
            interface,
            vlan,
            room,
            traffic: Traffic::default(),
            name: spec.name(),
            _claim: claim,
        })
    }

    /// The own address on this bearer.
    pub(crate) fn media_addr(&self) -> [u8; 6] {
        self.interface.mac
    }

    /// The longest TIPC packet.
    pub(crate) fn mtu(&self) -> usize {
        self.room.min(self.interface.mtu as usize)
    }

    /// Hands up to `budget` received TIPC packets (bytes after the Ethernet header, with the padding of a
    /// short frame) and their source addresses to `sink`. Returns how many frames were taken.
    pub(crate) fn receive(&mut self, budget: usize, mut sink: impl FnMut([u8; 6], &[u8])) -> usize {
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
                    sink(received.from, received.packet);
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
                    sink(received.from, received.packet);
                }
            }),
        }
    }

    /// Sends the `len` bytes of a packet that start at [`HEADROOM`] of a frame the caller holds. A packet that
    /// cannot be sent now is dropped and counted: the link layer repeats it. While another transmission
    /// with another Ethernet header holds the frame, a copy is sent.
    pub(crate) fn transmit(
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
            self.transmit_with(&header, pool, frame, len, in_pool(reserve))
        };
        self.traffic.sent(len, result);
    }

    fn transmit_with(
        &mut self,
        header: &Header,
        pool: &mut FramePool,
        frame: FrameIndex,
        len: usize,
        reserve: xtipc_xsk::Reserve,
    ) -> Result<(), TxDrop> {
        if put_header(pool, frame, header) {
            return self.send(pool, frame, header, len, reserve);
        }
        let copy = pool.alloc(reserve).ok_or(TxDrop::NoFrame)?;
        let packet = pool.bytes(frame)[HEADROOM..HEADROOM + len].to_vec();
        if let Some(bytes) = pool.bytes_mut(copy) {
            bytes[HEADROOM..HEADROOM + len].copy_from_slice(&packet);
        }
        let result = match put_header(pool, copy, header) {
            true => self.send(pool, copy, header, len, reserve),
            false => Err(TxDrop::NoFrame),
        };
        pool.release(copy);
        result
    }

    fn send(
        &mut self,
        pool: &mut FramePool,
        frame: FrameIndex,
        header: &Header,
        len: usize,
        reserve: xtipc_xsk::Reserve,
    ) -> Result<(), TxDrop> {
        let start = HEADROOM - header.as_bytes().len();
        match &mut self.path {
            Path::Xdp(port) => port.send(pool, frame, start, HEADROOM - start + len, reserve),
            Path::Packet(socket) => socket
                .send(&pool.bytes(frame)[start..HEADROOM + len])
                .map_err(TxDrop::of),
        }
    }

    /// The end of a poll round: takes back what was sent and wakes the kernel where it needs it.
    pub(crate) fn flush(&mut self, pool: &mut FramePool) {
        if let Path::Xdp(port) = &mut self.path {
            port.flush(pool);
        }
    }

    /// Tells the time, once per round before sending.
    pub(crate) fn set_clock(&mut self, now: Duration) {
        if let Path::Xdp(port) = &mut self.path {
            port.set_clock(now);
        }
    }

    /// All sockets to wait on for reading. They change only in [`Self::reopen`].
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (packet, xdp) = match &self.path {
            Path::Packet(socket) => (Some(socket.as_fd()), None),
            Path::Xdp(port) => (None, Some(port.fds())),
        };
        packet.into_iter().chain(xdp.into_iter().flatten())
    }

    /// Whether packets wait to be received: the check before sleeping.
    pub(crate) fn rx_ready(&self) -> bool {
        match &self.path {
            Path::Packet(socket) => socket.rx_ready(),
            Path::Xdp(port) => port.rx_ready(),
        }
    }

    /// What the tools show. Worker and link defaults are the caller's to fill in.
    pub(crate) fn info(&self) -> BearerInfo {
        let (classifier, queues, overflow) = match &self.path {
            Path::Packet(socket) => (Default::default(), Vec::new(), socket.kernel_drops()),
            Path::Xdp(port) => (port.classifier_counters(), port.queue_infos(), 0),
        };
        let mut drops = self.traffic.drops();
        drops.extend(named([("rx-buffer-full", overflow)]));
        let [a, b, c, d, e, f] = self.interface.mac;
        BearerInfo {
            name: self.name.clone(),
            media: Media::Eth,
            mode: self.rung.mode(),
            mode_reason: self.mode_reason.clone(),
            up: self.is_up(),
            media_address: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
            mtu: self.mtu() as u32,
            rx_packets: self.traffic.rx_packets,
            rx_bytes: self.traffic.rx_bytes,
            tx_packets: self.traffic.tx_packets,
            tx_bytes: self.traffic.tx_bytes,
            drops,
            classifier,
            queues,
            ..BearerInfo::default()
        }
    }

    /// Sends what is waiting, closes the sockets, waits up to seconds for the kernel to release them, and gives
    /// the interface up. The fds must be out of every waiter.
    pub(crate) fn close(self, pool: &mut FramePool) -> Result<(), StillHeld> {
        match self.path {
            Path::Packet(_) => Ok(()),
            Path::Xdp(port) => port.close(pool),
        }
    }

    /// The same without waiting; what was not flushed is not sent.
    pub(crate) fn begin_close(self, pool: &mut FramePool) -> ClosingBearer {
        ClosingBearer {
            name: self.name,
            sockets: match self.path {
                Path::Packet(_) => ClosingSockets::default(),
                Path::Xdp(port) => port.begin_close(pool),
            },
            _claim: self._claim,
        }
    }
}

/// A bearer that was closed while the node runs on, and that the kernel has not released as a whole.
pub(crate) struct ClosingBearer {
    /// Its name.
    pub(crate) name: String,
    sockets: ClosingSockets,
    _claim: Claim,
}

impl ClosingBearer {
    /// Takes back what the kernel has released; true if that is all.
    pub(crate) fn poll(&mut self, pool: &mut FramePool) -> bool {
        self.sockets.poll(pool)
    }

    /// Waits for the rest, up to seconds.
    pub(crate) fn finish(self, pool: &mut FramePool) -> Result<(), StillHeld> {
        self.sockets.finish(pool)
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

/// Makes the frame's bytes before the packet this header. `false` while a transmission with another one holds it.
fn put_header(pool: &mut FramePool, frame: FrameIndex, header: &Header) -> bool {
    let header = header.as_bytes();
    let place = HEADROOM - header.len()..HEADROOM;
    match pool.bytes_mut(frame) {
        Some(bytes) => {
            bytes[place].copy_from_slice(header);
            true
        }
        None => &pool.bytes(frame)[place] == header,
    }
}

fn in_pool(reserve: Reserve) -> xtipc_xsk::Reserve {
    match reserve {
        Reserve::Data => xtipc_xsk::Reserve::Data,
        Reserve::Control => xtipc_xsk::Reserve::Control,
    }
}

/// Asks about the interface of a bearer and refuses one that cannot carry it, or is another's.
fn examine(spec: &BearerSpec, xdp: XdpMode) -> Result<Interface, BearerError> {
    let name = || spec.interface.clone();
    let interface = Interface::query(&spec.interface).map_err(|error| match error {
        InterfaceError::NotFound(interface) => BearerError::UnknownInterface {
            interface,
            existing: occupied::ethernet_interfaces().unwrap_or_default(),
        },
        other => other.into(),
    })?;
    if interface.mtu < MTU_MIN {
        return Err(BearerError::MtuTooSmall {
            interface: name(),
            mtu: interface.mtu,
        });
    }
    let existing: Vec<_> = (0..interface.rx_queues as usize).collect();
    if !spec.queues.is_empty() && spec.queues != existing {
        return Err(BearerError::Queues {
            interface: name(),
            listed: spec.queues.clone(),
            existing,
        });
    }
    match occupied::kernel_bearer(&spec.interface) {
        Ok(true) => return Err(BearerError::KernelBearer { interface: name() }),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(interface = spec.interface, %error, "cannot ask for the kernel's TIPC bearers");
        }
    }
    match occupied::program(&spec.interface) {
        Some(occupant) if xdp != XdpMode::Off => Err(BearerError::Occupied {
            interface: name(),
            occupant,
        }),
        _ => Ok(interface),
    }
}
