//! The bearers of a node: what carries its packets.
//!
//! To the engine every media is the same: an own address, an MTU, whether one packet reaches all stations, received
//! packets with their senders, transmission to one or all.
//!
//! Owned by a worker; everything here runs in its thread, which is in the network namespace of the interfaces. A frame
//! of the pool stays the caller's: sending never takes it over. A bearer must be closed ([`Bearer::close`]), not
//! dropped, so that frames and receive areas come back, and its fds must be out of every waiter before they are
//! closed or made anew: an armed io_uring poll keeps the kernel from letting go.

mod arrears;
mod claim;
mod error;
mod ethernet;
mod front;
mod health;
mod infiniband;
mod interrupts;
mod ladder;
mod links;
mod napi;
mod nic;
mod note;
mod occupied;
mod queue;
mod room;
mod shm;
mod spread;
mod steering;
#[cfg(test)]
mod tests;
mod traffic;
mod udp;
mod xdp;

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use xtipc_ebpf::Classifier;
use xtipc_management::BearerInfo;
use xtipc_protocol::addr::{Media, MediaAddr};
use xtipc_protocol::host::{MediaDest, Reserve};
use xtipc_xsk::{FrameIndex, FramePool};

use crate::config::{BearerSpec, MediaSpec, XdpMode};
use crate::crew::Crew;
use crate::placement::Placement;
use crate::wait::Interest;
use claim::Claim;
use error::XdpError;
use infiniband::InfiniBandBearer;
use nic::EthernetBearer;
use shm::ShmBearer;
use udp::UdpBearer;
use xdp::{ClosingSockets, XdpPort};

pub(crate) use arrears::Arrears;
pub(crate) use error::{BearerError, ChangeError, StillHeld};
pub(crate) use health::BearerEvent;
pub(crate) use room::pool_config;
pub(crate) use shm::StationNews;
pub(crate) use udp::MTU_V4;

/// Where the TIPC packet starts in a frame; an Ethernet header is written right before it.
pub(crate) const HEADROOM: usize = 64;

/// A bearer.
pub(crate) struct Bearer {
    name: String,
    carrier: Carrier,
}

/// What bearers take from their node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    /// The paths that bearers over Ethernet may take.
    pub(crate) xdp: XdpMode,
    /// Names the multicast group of UDP bearers that are given no other.
    pub(crate) cluster_id: u32,
    /// Largest packet over IPv4 where none is given.
    pub(crate) udp_mtu: u32,
}

/// Who serves queues, and where.
pub(crate) struct Hands<'a> {
    pub(crate) crew: &'a Crew,
    pub(crate) placement: &'a Placement,
    /// Where is noted what outlives the process.
    pub(crate) run_dir: &'a Path,
}

enum Carrier {
    Ethernet(Box<EthernetBearer>),
    InfiniBand(Box<InfiniBandBearer>),
    Udp(Box<UdpBearer>),
    SharedMemory(Box<ShmBearer>),
}

/// What takes long when a bearer is opened, made beforehand on another thread than the worker's, whose links would notice.
#[derive(Default)]
pub struct Preparation {
    /// Loading it takes the kernel up to half a second on a busy machine.
    classifier: Option<Box<Classifier>>,
}

impl Preparation {
    /// For such a bearer. Where it fails the worker tries itself, and says what is wrong.
    pub(crate) fn of(spec: &BearerSpec) -> Self {
        let wanted = match &spec.media {
            MediaSpec::Ethernet(_) => true,
            MediaSpec::Udp(udp) => udp.interface().is_some(),
            MediaSpec::InfiniBand | MediaSpec::SharedMemory(_) => false,
        };
        let classifier = wanted.then(Classifier::load).and_then(Result::ok);
        let classifier = classifier.map(Box::new);
        Self { classifier }
    }
}

impl fmt::Debug for Preparation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { classifier } = self;
        write!(formatter, "classifier: {}", classifier.is_some())
    }
}

impl Bearer {
    /// Opens a bearer, one over Ethernet on the best path that is admitted. If that fails nothing is left behind.
    pub(crate) fn open(
        spec: &BearerSpec,
        defaults: Defaults,
        prepared: Preparation,
        pool: &mut FramePool,
    ) -> Result<Self, BearerError> {
        let carrier = match &spec.media {
            MediaSpec::Ethernet(ethernet) => {
                let (name, xdp) = (&spec.interface, defaults.xdp);
                let bearer = EthernetBearer::open(
                    name,
                    ethernet,
                    xdp,
                    prepared.classifier.map(|loaded| *loaded),
                    pool,
                )?;
                Carrier::Ethernet(Box::new(bearer))
            }
            MediaSpec::InfiniBand => {
                let room = room::frame_room(pool.frame_len());
                let bearer = InfiniBandBearer::open(&spec.interface, room)?;
                Carrier::InfiniBand(Box::new(bearer))
            }
            MediaSpec::Udp(udp) => {
                let room = room::frame_room(pool.frame_len());
                let ready = prepared.classifier.map(|loaded| *loaded);
                let bearer = UdpBearer::open(udp, &defaults, room, ready, pool)?;
                Carrier::Udp(Box::new(bearer))
            }
            MediaSpec::SharedMemory(shm) => {
                let meeting = shm.dir.clone();
                let meeting = meeting.unwrap_or_else(|| shm::meeting_of(&spec.interface));
                let bearer = ShmBearer::open(&meeting, room::frame_room(pool.frame_len()))?;
                Carrier::SharedMemory(Box::new(bearer))
            }
        };
        Ok(Self {
            name: spec.name(),
            carrier,
        })
    }

    /// What carries it.
    pub(crate) fn media(&self) -> Media {
        match &self.carrier {
            Carrier::Ethernet(_) => Media::Ethernet,
            Carrier::InfiniBand(_) => Media::InfiniBand,
            Carrier::Udp(_) => Media::Udp,
            Carrier::SharedMemory(_) => Media::SharedMemory,
        }
    }

    /// The own address on this bearer.
    pub(crate) fn media_addr(&self) -> MediaAddr {
        match &self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.media_addr(),
            Carrier::InfiniBand(infiniband) => infiniband.media_addr(),
            Carrier::Udp(udp) => udp.media_addr(),
            Carrier::SharedMemory(shm) => shm.media_addr(),
        }
    }

    /// The longest TIPC packet.
    pub(crate) fn mtu(&self) -> usize {
        match &self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.mtu(),
            Carrier::InfiniBand(infiniband) => infiniband.mtu(),
            Carrier::Udp(udp) => udp.mtu(),
            Carrier::SharedMemory(shm) => shm.mtu(),
        }
    }

    /// Whether one packet reaches all stations, without copies.
    pub(crate) fn reaches_all_at_once(&self) -> bool {
        match &self.carrier {
            Carrier::Ethernet(_) | Carrier::InfiniBand(_) => true,
            Carrier::Udp(udp) => udp.reaches_all_at_once(),
            Carrier::SharedMemory(_) => false,
        }
    }

    /// Hands up to `budget` received TIPC packets (bytes after the media's header, with the padding of a short
    /// frame) and their senders to `sink`. Returns how many were taken.
    pub(crate) fn receive(&mut self, budget: usize, sink: impl FnMut(MediaAddr, &[u8])) -> usize {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.receive(budget, sink),
            Carrier::InfiniBand(infiniband) => infiniband.receive(budget, sink),
            Carrier::Udp(udp) => udp.receive(budget, sink),
            Carrier::SharedMemory(shm) => shm.receive(budget, sink),
        }
    }

    /// Serves sockets that packets do not come by. Call when the waiter has reported a bearer, before receiving.
    pub(crate) fn on_call(&mut self) {
        match &mut self.carrier {
            Carrier::Ethernet(_) | Carrier::InfiniBand(_) => {}
            Carrier::Udp(udp) => udp.on_call(),
            Carrier::SharedMemory(shm) => shm.on_call(),
        }
    }

    /// What happened to other stations, where that is known at once. Ask after receiving and flushing.
    pub(crate) fn station_news(&mut self) -> Option<StationNews> {
        match &mut self.carrier {
            Carrier::SharedMemory(shm) => shm.news(),
            _ => None,
        }
    }

    /// Sends the `len` bytes of a packet that start at [`HEADROOM`] of a frame the caller holds. A packet that
    /// cannot be sent now is dropped and counted: the link layer repeats it.
    pub(crate) fn transmit(
        &mut self,
        pool: &mut FramePool,
        frame: FrameIndex,
        to: MediaDest,
        len: usize,
        reserve: Reserve,
    ) {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.transmit(pool, frame, to, len, reserve),
            Carrier::InfiniBand(infiniband) => infiniband.transmit(pool, frame, to, len),
            Carrier::Udp(udp) => udp.transmit(pool, frame, to, len, reserve),
            Carrier::SharedMemory(shm) => shm.transmit(pool, frame, to, len, reserve),
        }
    }

    /// At each look, also one that no round follows: takes back what was sent, so that a round can send with it.
    pub(crate) fn reclaim(&mut self, pool: &mut FramePool) {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.reclaim(pool),
            Carrier::Udp(udp) => udp.reclaim(pool),
            Carrier::InfiniBand(_) | Carrier::SharedMemory(_) => {}
        }
    }

    /// The end of a round: hands the kernel what it needs.
    pub(crate) fn flush(&mut self) {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.flush(),
            Carrier::InfiniBand(_) => {}
            Carrier::Udp(udp) => udp.flush(),
            Carrier::SharedMemory(shm) => shm.flush(),
        }
    }

    /// Tells the time, at each look: before taking back what was sent, and before sending.
    pub(crate) fn set_clock(&mut self, now: Duration) {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.set_clock(now),
            Carrier::Udp(udp) => udp.set_clock(now),
            Carrier::InfiniBand(_) | Carrier::SharedMemory(_) => {}
        }
    }

    /// Tells which stations have a link, after each change: they are spread over the queues, and where copies are sent to all,
    /// these get one.
    pub(crate) fn set_linked(&mut self, stations: impl Iterator<Item = MediaAddr>) {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.set_linked(stations),
            Carrier::Udp(udp) => udp.set_linked(stations),
            Carrier::InfiniBand(_) | Carrier::SharedMemory(_) => {}
        }
    }

    /// The AF_XDP queue that packets to a station are sent by.
    pub(crate) fn queue_to(&self, station: &MediaAddr) -> Option<u32> {
        let port = match &self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.port(),
            Carrier::Udp(udp) => udp.port(),
            Carrier::InfiniBand(_) | Carrier::SharedMemory(_) => None,
        };
        port.map(|port| port.queue_to(station))
    }

    /// Adds a peer that copies are sent to.
    pub(crate) fn add_remote(&mut self, remote: SocketAddr) -> Result<(), ChangeError> {
        self.udp()?.add_remote(remote)
    }

    /// Removes a peer, which is not heard until it is added again.
    pub(crate) fn remove_remote(&mut self, remote: SocketAddr) -> Result<(), ChangeError> {
        self.udp()?.remove_remote(remote)
    }

    /// Makes packets longer or shorter, as far as the frames of the pool admit.
    pub(crate) fn set_mtu(&mut self, mtu: u32, pool: &FramePool) -> Result<(), ChangeError> {
        let room = room::frame_room(pool.frame_len());
        self.udp()?.set_mtu(mtu, room)
    }

    fn udp(&mut self) -> Result<&mut UdpBearer, ChangeError> {
        match &mut self.carrier {
            Carrier::Udp(udp) => Ok(udp),
            _ => Err(ChangeError::NotUdp),
        }
    }

    /// Lets the further workers, if there are any, serve its AF_XDP queues, has the NIC put packets into these where it
    /// can, and their interrupts next to the workers, and spreads over them what is sent: call after opening and after
    /// [`Self::reopen`], before the waiter is given the sockets. All else stays with this worker.
    pub(crate) fn hand_over(&mut self, hands: &Hands<'_>, pool: &FramePool) {
        if let Some(port) = self.port_mut() {
            port.hand_over(hands.crew, pool);
        }
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.steer(hands, pool),
            Carrier::Udp(udp) => udp.steer(hands, pool),
            Carrier::InfiniBand(_) | Carrier::SharedMemory(_) => {}
        }
    }

    /// Whether these workers have handed over what came.
    pub(crate) fn arrears(&mut self, now: Duration) -> Arrears {
        self.port_mut()
            .map_or(Arrears::None, |port| port.arrears(now))
    }

    fn port_mut(&mut self) -> Option<&mut XdpPort> {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.port_mut(),
            Carrier::Udp(udp) => udp.port_mut(),
            Carrier::InfiniBand(_) | Carrier::SharedMemory(_) => None,
        }
    }

    /// All sockets to wait on, and for what. They change only in [`Self::reopen`].
    pub(crate) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Interest)> {
        let (ethernet, udp, single) = match &self.carrier {
            Carrier::Ethernet(ethernet) => (Some(ethernet.fds()), None, None),
            Carrier::Udp(udp) => (None, Some(udp.fds()), None),
            Carrier::InfiniBand(infiniband) => {
                (None, None, Some((infiniband.fd(), Interest::Read)))
            }
            Carrier::SharedMemory(shm) => (None, None, Some((shm.fd(), Interest::Read))),
        };
        let ethernet = ethernet.into_iter().flatten();
        ethernet.chain(udp.into_iter().flatten()).chain(single)
    }

    /// Whether packets wait to be received: the check before sleeping. Where others put packets into memory, they are
    /// asked to ring from now on.
    pub(crate) fn rx_ready(&mut self) -> bool {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.rx_ready(),
            Carrier::InfiniBand(infiniband) => infiniband.rx_ready(),
            Carrier::Udp(udp) => udp.rx_ready(),
            Carrier::SharedMemory(shm) => shm.must_stay_awake(),
        }
    }

    /// Whether a round would find nothing here, as far as memory tells; where only a system call could, it is made by the
    /// round.
    pub(crate) fn is_quiet(&self) -> bool {
        match &self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.is_quiet(),
            Carrier::Udp(udp) => udp.is_quiet(),
            Carrier::InfiniBand(_) | Carrier::SharedMemory(_) => false,
        }
    }

    /// Looks after interface and sockets. Call about once a second with the clock of [`Self::set_clock`], and when the
    /// waiter reports a bearer that has nothing to receive.
    pub(crate) fn check(&mut self, pool: &mut FramePool, now: Duration) -> BearerEvent {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.check(pool, now),
            Carrier::InfiniBand(infiniband) => infiniband.check(),
            Carrier::Udp(udp) => udp.check(pool, now),
            Carrier::SharedMemory(shm) => {
                shm.check();
                BearerEvent::Fine
            }
        }
    }

    /// Over Ethernet: nothing has come since it was opened, though the interface is up.
    pub(crate) fn is_silent(&self) -> bool {
        match &self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.is_silent(),
            Carrier::InfiniBand(_) | Carrier::Udp(_) | Carrier::SharedMemory(_) => false,
        }
    }

    /// Makes the sockets anew after [`BearerEvent::Stuck`]. Where the kernel has not yet let go of the old ones the
    /// bearer stays without; the next check says so.
    pub(crate) fn reopen(&mut self, pool: &mut FramePool) -> Result<(), XdpError> {
        match &mut self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.reopen(pool),
            Carrier::Udp(udp) => udp.reopen(pool),
            Carrier::InfiniBand(_) | Carrier::SharedMemory(_) => Ok(()),
        }
    }

    /// What the tools show. Worker and link defaults are the caller's to fill in.
    pub(crate) fn info(&self) -> BearerInfo {
        let info = match &self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.info(),
            Carrier::InfiniBand(infiniband) => infiniband.info(),
            Carrier::Udp(udp) => udp.info(),
            Carrier::SharedMemory(shm) => shm.info(),
        };
        BearerInfo {
            name: self.name.clone(),
            ..info
        }
    }

    /// Sends what is waiting, closes the sockets, waits up to seconds for the kernel to release them, and gives
    /// the interface up. The fds must be out of every waiter.
    pub(crate) fn close(self, pool: &mut FramePool) -> Result<(), StillHeld> {
        match self.carrier {
            Carrier::Ethernet(ethernet) => ethernet.close(pool),
            Carrier::Udp(udp) => udp.close(pool),
            Carrier::InfiniBand(_) | Carrier::SharedMemory(_) => Ok(()),
        }
    }

    /// The same without waiting; what was not flushed is not sent.
    pub(crate) fn begin_close(self, pool: &mut FramePool) -> ClosingBearer {
        let (sockets, claim) = match self.carrier {
            Carrier::Ethernet(ethernet) => {
                let (sockets, claim) = ethernet.begin_close(pool);
                (sockets, Some(claim))
            }
            Carrier::InfiniBand(infiniband) => {
                (ClosingSockets::default(), Some(infiniband.close()))
            }
            Carrier::Udp(udp) => udp.begin_close(pool),
            Carrier::SharedMemory(_) => (ClosingSockets::default(), None),
        };
        ClosingBearer {
            name: self.name,
            sockets,
            _claim: claim,
        }
    }
}

/// A bearer that was closed while the node runs on, and that the kernel has not released as a whole.
pub(crate) struct ClosingBearer {
    /// Its name.
    pub(crate) name: String,
    sockets: ClosingSockets,
    _claim: Option<Claim>,
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
