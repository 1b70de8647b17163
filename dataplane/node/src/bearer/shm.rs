//! A bearer between nodes of one host, such as containers: they meet in a directory and share memory.
//!
//! Every station has a random number and, under it, a listening socket in the directory. Of two stations the one with the
//! lower number calls the other. What joins them is a [`Line`]: packets pass through its rings and never through the
//! kernel. The socket stays, for the bell of who sleeps, and because its end is how a peer's death is seen at once.
//!
//! All sockets are in an epoll of the bearer's own, so that to the worker they are one descriptor that stays.

mod directory;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::Timespec;
use rustix::event::epoll;
use xtipc_management::{BearerInfo, BearerMode, Media};
use xtipc_protocol::addr::MediaAddr;
use xtipc_protocol::host::{MediaDest, Reserve};
use xtipc_segment::line::{Greeting, Line, PACKET_MAX, PACKETS, ring_bell, silence_bell};
use xtipc_xsk::{FrameIndex, FramePool};

use super::HEADROOM;
use super::error::BearerError;
use super::traffic::{Traffic, TxDrop, named};
use directory::Directory;

/// Largest packet: it lies in one chunk of the frame pool.
pub(super) const MTU: u32 = (PACKET_MAX - HEADROOM) as u32;
/// Places of a ring left to link protocol, discovery and binding updates.
const CONTROL_RESERVE: u32 = PACKETS / 16;
const STATIONS_MAX: usize = 256;
/// Calls that were not yet answered, in either direction; beyond it the oldest is given up.
const STRANGERS_MAX: usize = 16;
/// Events taken from the epoll at a time; the rest is reported again.
const EVENTS: usize = 32;

/// Where bearers meet that were given no directory. No instance of the daemon has a name like this.
const MEETINGS: &str = "/run/xtipc/.shm";

const LISTENER: u64 = 0;
const DIRECTORY: u64 = 1;
const FIRST_SOCKET: u64 = 2;

/// What happened to the stations of a bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StationNews {
    /// There is one more.
    Met,
    /// This one is gone for good.
    Lost(MediaAddr),
}

/// A socket that has not been greeted on.
struct Stranger {
    token: u64,
    socket: OwnedFd,
    /// Of a call of ours: the station called, and its line.
    called: Option<(u64, Line)>,
}

/// Another station.
struct Station {
    token: u64,
    number: u64,
    socket: OwnedFd,
    line: Line,
    /// Something was sent since its bell was looked at.
    sent: bool,
    /// Its socket has ended: packets that it sent before may still be taken.
    left: Option<u32>,
}

/// See the module.
pub(super) struct ShmBearer {
    directory: Directory,
    epoll: OwnedFd,
    next_token: u64,
    strangers: Vec<Stranger>,
    stations: Vec<Station>,
    news: Vec<StationNews>,
    mtu: usize,
    packet: Box<[u8]>,
    /// The station to be asked first, so that none is starved.
    turn: usize,
    /// Packets may have been left behind.
    behind: bool,
    broke_contract: u64,
    traffic: Traffic,
}

impl ShmBearer {
    /// Enters the directory, which is made if it is not there, and calls who is in it.
    pub(super) fn open(path: &Path, room: usize) -> Result<Self, BearerError> {
        let refused = |step| {
            move |source| BearerError::Directory {
                directory: path.to_owned(),
                step,
                source,
            }
        };
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| refused("draw a random number for")(error.into()))?;
        let directory =
            Directory::enter(path, u64::from_ne_bytes(random)).map_err(refused("enter"))?;
        let watch = refused("watch");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| watch(e.into()))?;
        let mut bearer = Self {
            directory,
            epoll,
            next_token: FIRST_SOCKET,
            strangers: Vec::new(),
            stations: Vec::new(),
            news: Vec::new(),
            mtu: (MTU as usize).min(room),
            packet: vec![0; PACKET_MAX].into_boxed_slice(),
            turn: 0,
            behind: false,
            broke_contract: 0,
            traffic: Traffic::default(),
        };
        bearer.watch_directory().map_err(watch)?;
        bearer.call_others();
        Ok(bearer)
    }

    pub(super) fn media_addr(&self) -> MediaAddr {
        MediaAddr::from_shared_memory(self.directory.own())
    }

    pub(super) fn mtu(&self) -> usize {
        self.mtu
    }

    /// Serves the sockets that have something to say.
    pub(super) fn on_call(&mut self) {
        let mut tokens = [0; EVENTS];
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; EVENTS];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let Ok((events, _)) = epoll::wait(&self.epoll, buffer.as_mut_slice(), Some(&now)) else {
            return;
        };
        let count = events.len();
        for (token, event) in tokens.iter_mut().zip(events.iter()) {
            *token = event.data.u64();
        }
        for token in &tokens[..count] {
            match *token {
                LISTENER => self.accept(),
                DIRECTORY => {
                    self.directory.silence_changes();
                    self.call_others();
                }
                token => self.on_socket(token),
            }
        }
    }

    /// Looks whether others can find this node, and who is there. Call about once a second.
    pub(super) fn check(&mut self) {
        match self.directory.return_if_removed() {
            Ok(false) => {}
            Ok(true) => {
                let directory = self.directory.path().display();
                tracing::warn!(%directory, "the directory of a bearer was removed, and is made anew");
                let watched = self.watch_directory();
                if let Err(error) = watched {
                    tracing::warn!(%error, "nodes that come are not heard of at once");
                }
            }
            Err(error) => tracing::debug!(%error, "cannot enter the directory of a bearer again"),
        }
        self.call_others();
    }

    fn watch_directory(&self) -> std::io::Result<()> {
        add(&self.epoll, self.directory.listener(), LISTENER)?;
        add(&self.epoll, self.directory.changes(), DIRECTORY)
    }

    /// Calls the stations that are ours to call and are not here yet.
    fn call_others(&mut self) {
        for number in self.directory.others() {
            let known = self.stations.iter().any(|station| station.number == number);
            let called = |stranger: &Stranger| {
                stranger
                    .called
                    .as_ref()
                    .is_some_and(|(called, _)| *called == number)
            };
            if number <= self.directory.own() || known || self.strangers.iter().any(called) {
                continue;
            }
            if self.stations.len() == STATIONS_MAX {
                tracing::warn!(
                    stations = STATIONS_MAX,
                    "too many nodes in the directory of a bearer"
                );
                return;
            }
            if let Err(error) = self.call(number) {
                tracing::debug!(station = format!("{number:016x}"), %error, "cannot call a node of this host");
            }
        }
    }

    fn call(&mut self, number: u64) -> std::io::Result<()> {
        let Some(socket) = self.directory.connect(number)? else {
            return Ok(());
        };
        let (line, memory) = Line::make()?;
        let own = Greeting {
            station: self.directory.own(),
        };
        own.send(socket.as_fd(), Some(memory.as_fd()))?;
        self.meet(socket, Some((number, line)))
    }

    fn accept(&mut self) {
        for _ in 0..STRANGERS_MAX {
            let Ok(socket) = xtipc_segment::attach::accept(self.directory.listener()) else {
                return;
            };
            if let Err(error) = self.meet(socket, None) {
                tracing::warn!(%error, "cannot listen to a node of this host");
            }
        }
    }

    fn meet(&mut self, socket: OwnedFd, called: Option<(u64, Line)>) -> std::io::Result<()> {
        let token = self.next_token;
        self.next_token += 1;
        add(&self.epoll, socket.as_fd(), token)?;
        if self.strangers.len() == STRANGERS_MAX {
            self.strangers.remove(0);
        }
        self.strangers.push(Stranger {
            token,
            socket,
            called,
        });
        Ok(())
    }

    fn on_socket(&mut self, token: u64) {
        if let Some(at) = self.strangers.iter().position(|s| s.token == token) {
            let stranger = self.strangers.remove(at);
            if let Err(why) = self.greet(stranger) {
                tracing::warn!(%why, "a node of this host was refused");
            }
        } else if let Some(station) = self.stations.iter_mut().find(|s| s.token == token)
            && station.left.is_none()
            && !silence_bell(station.socket.as_fd())
        {
            station.left = Some(PACKETS);
            let _ = epoll::delete(&self.epoll, &station.socket);
        }
    }

    /// Hears what a stranger says; it is a station now, or its socket is closed.
    fn greet(&mut self, stranger: Stranger) -> Result<(), String> {
        let Stranger {
            token,
            socket,
            called,
        } = stranger;
        let heard = Greeting::receive(socket.as_fd()).map_err(|error| error.to_string())?;
        let Some((Greeting { station: number }, fds)) = heard else {
            // It ended, or had enough.
            return Ok(());
        };
        let line = match (called, fds.as_slice()) {
            (Some((called, line)), _) if called == number => line,
            (Some((called, _)), _) => {
                return Err(format!("called {called:016x}, {number:016x} answered"));
            }
            (None, [memory]) => {
                self.check_caller(number)?;
                let line = Line::join(memory).map_err(|error| error.to_string())?;
                let own = Greeting {
                    station: self.directory.own(),
                };
                let answered = own.send(socket.as_fd(), None);
                answered.map_err(|error| format!("cannot answer {number:016x}: {error}"))?;
                line
            }
            (None, _) => return Err(format!("{number:016x} called without memory")),
        };
        tracing::debug!(
            station = format!("{number:016x}"),
            "met a node of this host"
        );
        self.stations.push(Station {
            token,
            number,
            socket,
            line,
            sent: false,
            left: None,
        });
        self.news.push(StationNews::Met);
        Ok(())
    }

    /// Nobody takes the place of a station that is here.
    fn check_caller(&self, number: u64) -> Result<(), String> {
        if number >= self.directory.own() {
            return Err(format!("{number:016x} called, but is to be called"));
        }
        if self.stations.iter().any(|station| station.number == number) {
            return Err(format!("{number:016x} is here already"));
        }
        if self.stations.len() == STATIONS_MAX {
            return Err(format!("there are {STATIONS_MAX} nodes already"));
        }
        Ok(())
    }

    pub(super) fn news(&mut self) -> Option<StationNews> {
        self.news.pop()
    }

    pub(super) fn receive(
        &mut self,
        budget: usize,
        mut sink: impl FnMut(MediaAddr, &[u8]),
    ) -> usize {
        let count = self.stations.len();
        let mut taken = 0;
        for step in 0..count {
            let station = &mut self.stations[(self.turn + step) % count];
            station.line.awake();
            let source = MediaAddr::from_shared_memory(station.number);
            while taken < budget && station.left != Some(0) {
                match station.line.receive(&mut self.packet) {
                    Ok(Some(len)) => {
                        taken += 1;
                        station.left = station.left.map(|left| left - 1);
                        self.traffic.received(len);
                        sink(source, &self.packet[..len]);
                    }
                    Ok(None) => {
                        station.left = station.left.map(|_| 0);
                        break;
                    }
                    Err(violation) => {
                        tracing::warn!(station = %source, %violation, "a node of this host is let go");
                        self.broke_contract += 1;
                        station.left = Some(0);
                    }
                }
            }
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        self.behind = taken == budget;
        self.part();
        taken
    }

    /// Lets those go that have left and of whom nothing more can be taken.
    fn part(&mut self) {
        let news = &mut self.news;
        self.stations.retain(|station| {
            let stays = station.left != Some(0);
            if !stays {
                let address = MediaAddr::from_shared_memory(station.number);
                news.push(StationNews::Lost(address));
            }
            stays
        });
    }

    pub(super) fn transmit(
        &mut self,
        pool: &FramePool,
        frame: FrameIndex,
        to: MediaDest,
        len: usize,
        reserve: Reserve,
    ) {
        if len > self.mtu {
            return self.traffic.sent(len, Err(TxDrop::TooLong));
        }
        let packet = &pool.bytes(frame)[HEADROOM..HEADROOM + len];
        let left_free = match reserve {
            Reserve::Data => CONTROL_RESERVE,
            Reserve::Control => 0,
        };
        let wanted = match to {
            MediaDest::Unicast(address) => Some(address),
            MediaDest::Broadcast => None,
        };
        let mut reached = wanted.is_none();
        for station in &mut self.stations {
            let address = MediaAddr::from_shared_memory(station.number);
            if station.left.is_some() || wanted.is_some_and(|wanted| wanted != address) {
                continue;
            }
            reached = true;
            let result = match station.line.send(packet, left_free) {
                Ok(true) => Ok(()),
                Ok(false) => Err(TxDrop::Full),
                Err(violation) => {
                    tracing::warn!(station = %address, %violation, "a node of this host is let go");
                    self.broke_contract += 1;
                    station.left = Some(0);
                    Err(TxDrop::NoStation)
                }
            };
            station.sent |= result.is_ok();
            self.traffic.sent(len, result);
        }
        if !reached {
            self.traffic.sent(len, Err(TxDrop::NoStation));
        }
    }

    /// Rings the bells of those that sleep and were sent something.
    pub(super) fn flush(&mut self) {
        for station in &mut self.stations {
            if std::mem::take(&mut station.sent) && station.line.must_ring() {
                ring_bell(station.socket.as_fd());
            }
        }
        self.part();
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Whether there is something to do; if not, bells are asked for.
    pub(super) fn must_stay_awake(&mut self) -> bool {
        let mut ready = self.behind || !self.news.is_empty();
        for station in &mut self.stations {
            ready |= station.left.is_some() || !station.line.may_sleep();
        }
        ready
    }

    pub(super) fn info(&self) -> BearerInfo {
        let mut drops = self.traffic.drops();
        drops.extend(named([("rx-contract-broken", self.broke_contract)]));
        BearerInfo {
            media: Media::Shm,
            mode: BearerMode::SharedMemory,
            mode_reason: format!(
                "{} other nodes in {}",
                self.stations.len(),
                self.directory.path().display()
            ),
            up: true,
            media_address: self.media_addr().to_string(),
            mtu: self.mtu as u32,
            drops,
            ..self.traffic.info()
        }
    }
}

/// The directory of all bearers of this host with this name.
pub(super) fn meeting_of(name: &str) -> PathBuf {
    Path::new(MEETINGS).join(name)
}

fn add(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: u64) -> std::io::Result<()> {
    let data = epoll::EventData::new_u64(token);
    Ok(epoll::add(epoll, fd, data, epoll::EventFlags::IN)?)
}
