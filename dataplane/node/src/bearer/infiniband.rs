//! An InfiniBand bearer: packets over an IPoIB interface by AF_PACKET, whose kernel side knows the 20-byte addresses. There
//! is no AF_XDP for these, and a received packet does not tell its sender.

mod port;

use std::os::fd::{AsFd, BorrowedFd};

use xtipc_management::{BearerInfo, BearerMode, Media};
use xtipc_protocol::addr::MediaAddr;
use xtipc_protocol::host::MediaDest;
use xtipc_xsk::packet::{Listen, PacketConfig, PacketSocket};
use xtipc_xsk::{FrameIndex, FramePool};

use super::claim::Claim;
use super::error::{BearerError, MTU_MIN};
use super::ethernet::ETHERTYPE;
use super::health::BearerEvent;
use super::ladder::PACKET_BUFFER;
use super::traffic::{Traffic, TxDrop, named};
use super::{HEADROOM, occupied};
use port::Port;

/// The MTU of an IPoIB interface; `None` if it cannot be asked.
pub(super) fn mtu_of(name: &str) -> Option<u32> {
    Some(Port::query(name).ok()?.mtu)
}

/// See the module.
pub(super) struct InfiniBandBearer {
    socket: PacketSocket,
    /// As last seen.
    port: Port,
    /// The longest packet that a frame of the pool holds.
    room: usize,
    mode_reason: String,
    traffic: Traffic,
    claim: Claim,
}

impl InfiniBandBearer {
    /// Opens a bearer on an IPoIB interface. Packets are not longer than `room`.
    pub(super) fn open(name: &str, room: usize) -> Result<Self, BearerError> {
        let port = Port::query(name)?;
        if port.mtu < MTU_MIN {
            return Err(BearerError::MtuTooSmall {
                interface: port.name,
                mtu: port.mtu,
            });
        }
        occupied::refuse_kernel_bearer("ib", name)?;
        Self::on(port, room)
    }

    fn on(port: Port, room: usize) -> Result<Self, BearerError> {
        let claim = Claim::new(&port.name, port.index)?;
        let config = PacketConfig {
            ifindex: port.index,
            listen: Listen::PacketsOf(ETHERTYPE),
            frame_len: room.min(port.mtu as usize),
            buffer: PACKET_BUFFER,
        };
        let socket = PacketSocket::open(&config).map_err(|source| BearerError::Packet {
            interface: port.name.clone(),
            source,
            refused: String::new(),
        })?;
        let mut mode_reason = "IP over InfiniBand has no AF_XDP".to_owned();
        if room < port.mtu as usize {
            mode_reason.push_str(&format!(
                "; packets limited to {room} of {} bytes by the frame pool",
                port.mtu
            ));
        }
        Ok(Self {
            socket,
            port,
            room,
            mode_reason,
            traffic: Traffic::default(),
            claim,
        })
    }

    pub(super) fn media_addr(&self) -> MediaAddr {
        MediaAddr::from_infiniband(self.port.address)
    }

    pub(super) fn mtu(&self) -> usize {
        self.room.min(self.port.mtu as usize)
    }

    pub(super) fn receive(
        &mut self,
        budget: usize,
        mut sink: impl FnMut(MediaAddr, &[u8]),
    ) -> usize {
        let traffic = &mut self.traffic;
        self.socket.receive(budget, |packet| {
            if packet.other_host {
                traffic.rx_foreign_mac += 1;
            } else {
                traffic.received(packet.bytes.len());
                sink(MediaAddr::UNTOLD, packet.bytes);
            }
        })
    }

    pub(super) fn transmit(
        &mut self,
        pool: &FramePool,
        frame: FrameIndex,
        to: MediaDest,
        len: usize,
    ) {
        let result = if len > self.mtu() {
            Err(TxDrop::TooLong)
        } else {
            let to = match to {
                MediaDest::Unicast(address) => address.infiniband(),
                MediaDest::Broadcast => self.port.broadcast,
            };
            let packet = &pool.bytes(frame)[HEADROOM..HEADROOM + len];
            self.socket.send_to(packet, to).map_err(TxDrop::of)
        };
        self.traffic.sent(len, result);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn rx_ready(&self) -> bool {
        self.socket.rx_ready()
    }

    /// Looks after the interface. Only what is reported is taken over: the next check finds the rest.
    pub(super) fn check(&mut self) -> BearerEvent {
        self.socket.read_kernel_drops();
        let current = match Port::at(self.port.index) {
            Ok(Some(current)) => current,
            Ok(None) => return BearerEvent::Gone,
            // Asking failed, which says nothing about the interface.
            Err(_) => return BearerEvent::Fine,
        };
        self.follow(current)
    }

    fn follow(&mut self, current: Port) -> BearerEvent {
        let Self { port, .. } = self;
        port.name = current.name;
        port.broadcast = current.broadcast;
        if current.mtu < MTU_MIN {
            return BearerEvent::TooNarrow;
        }
        if port.address != current.address {
            port.address = current.address;
            return BearerEvent::MacChanged;
        }
        if port.mtu != current.mtu {
            port.mtu = current.mtu;
            self.socket.set_frame_len(self.mtu());
            return BearerEvent::MtuChanged;
        }
        match (std::mem::replace(&mut port.up, current.up), current.up) {
            (true, false) => BearerEvent::Down,
            (false, true) => BearerEvent::Up,
            _ => BearerEvent::Fine,
        }
    }

    pub(super) fn info(&self) -> BearerInfo {
        let mut drops = self.traffic.drops();
        drops.extend(named([("rx-buffer-full", self.socket.kernel_drops())]));
        BearerInfo {
            media: Media::Ib,
            mode: BearerMode::Packet,
            mode_reason: self.mode_reason.clone(),
            up: self.port.up,
            media_address: self.media_addr().to_string(),
            mtu: self.mtu() as u32,
            drops,
            ..self.traffic.info()
        }
    }

    /// Closes the socket; what is returned keeps the interface from others until it is dropped.
    pub(super) fn close(self) -> Claim {
        self.claim
    }
}

#[cfg(test)]
mod tests;
