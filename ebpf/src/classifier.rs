//! The loaded classifier: its maps, its attachment, its counters.
//!
//! Owned by the bearer of one interface. The attachment is a `bpf_link`, never pinned: it is gone
//! when the [`Classifier`] is dropped and when its process dies, however that happens.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::xdp::{XdpError, XdpLink};
use aya::programs::{ProgramError, Xdp, XdpMode};

use crate::error::{AttachError, LoadError, UpdateError};
use crate::interface::Interface;

/// The object that `build.rs` compiled from `classifier.bpf.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/classifier.o"));

/// The program's name, in the object and in `ip link` and `bpftool`.
pub const PROGRAM_NAME: &str = "xtipc_classify";

/// A dead owner's attachment is released asynchronously; after this long it is taken for alive.
const RELEASE_WAIT: Duration = Duration::from_secs(2);
const RELEASE_POLL: Duration = Duration::from_millis(20);

/// Highest VLAN id; 4095 is reserved.
const VLAN_ID_MAX: u16 = 4094;

/// Where in the receive path the classifier runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel builds a packet: needed for zero-copy.
    Native,
    /// In the kernel's generic receive path: works on every device, faster than native on veth.
    Generic,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// What became of the frames of one receive queue. Each frame counts in exactly one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// The receive queue.
    pub queue: u32,
    /// Frames with TIPC packets given to the queue's AF_XDP socket.
    pub redirected: u64,
    /// Frames without TIPC packets, and datagrams that are the kernel's to understand.
    pub passed_other: u64,
    /// TIPC frames on a configured VLAN for another host.
    pub passed_foreign_mac: u64,
    /// TIPC frames on a VLAN that is not configured.
    pub passed_vlan: u64,
    /// Frames with TIPC packets for us that met no socket on their queue, and went to the kernel.
    pub no_socket: u64,
}

/// `struct datagrams` of classifier.bpf.c: ethertype, port, own address, group.
type Datagrams = [u8; 36];

/// The classifier of one interface.
///
/// Loaded, it is attached nowhere, knows no VLAN, address and socket: allow at least one VLAN
/// (0 for untagged frames) or name the datagrams to take, and insert the sockets, then attach.
pub struct Classifier {
    /// Holds the program; the maps below were taken out of it.
    object: Ebpf,
    link: Option<XdpLink>,
    /// Queues whose counters are worth reading: those of the attached interface.
    queues: u32,
    sockets: XskMap<MapData>,
    own_mac: Array<MapData, u64>,
    vlans: Array<MapData, u64>,
    datagrams: Array<MapData, Datagrams>,
    counters: PerCpuArray<MapData, [u64; 5]>,
}

impl Classifier {
    /// Loads program and maps into the kernel. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn load() -> Result<Self, LoadError> {
        let mut object = Ebpf::load(OBJECT)?;
        program(&mut object).load()?;
        let mut take = |name| {
            object
                .take_map(name)
                .expect("classifier.bpf.c defines this map")
        };
        let sockets = XskMap::try_from(take("sockets")).map_err(typed)?;
        let own_mac = Array::try_from(take("own_mac")).map_err(typed)?;
        let vlans = Array::try_from(take("vlans")).map_err(typed)?;
        let datagrams = Array::try_from(take("datagrams")).map_err(typed)?;
        let counters = PerCpuArray::try_from(take("counters")).map_err(typed)?;
        let queues = sockets.len();
        Ok(Self {
            object,
            link: None,
            queues,
            sockets,
            own_mac,
            vlans,
            datagrams,
            counters,
        })
    }

    /// Attaches to an interface of the calling thread's network namespace, in exactly this mode,
    /// and takes over its present address ([`Self::set_mac`] follows later changes).
    ///
    /// A foreign program on the interface is refused at once. The classifier of another xtipc, a
    /// program whose name cannot be read, and a busy interface without a visible program may be
    /// the remains of a dead process: these are waited for, up to two seconds.
    pub fn attach(&mut self, interface: &str, mode: AttachMode) -> Result<(), AttachError> {
        if self.link.is_some() {
            return Err(AttachError::AlreadyAttached {
                interface: interface.into(),
            });
        }
        let found = query(interface)?;
        let mac = found.mac.ok_or_else(|| AttachError::NotEthernet {
            interface: interface.into(),
        })?;
        self.set_mac(mac)?;

        let deadline = Instant::now() + RELEASE_WAIT;
        loop {
            let refusal = match self.try_attach(found.index, mode) {
                Ok(link) => {
                    self.link = Some(link);
                    self.queues = found.rx_queues.min(self.sockets.len());
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            let error = explain(interface, mode, refusal)?;
            if Instant::now() >= deadline || is_foreign(&error) {
                return Err(error);
            }
            sleep(RELEASE_POLL);
        }
    }

    /// Takes the classifier off its interface. Without an attachment this does nothing.
    pub fn detach(&mut self) {
        // Dropping the last descriptor of a link is what detaches it.
        self.link = None;
    }

    /// Tells the interface's own address. Takes effect for the next frame.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), UpdateError> {
        let [a, b, c, d, e, f] = mac;
        let number = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        self.own_mac
            .set(0, number, 0)
            .map_err(|source| UpdateError::Map {
                map: "own_mac",
                source,
            })
    }

    /// Takes TIPC frames of this VLAN: 0 for untagged ones, else the id in their 802.1Q tag.
    ///
    /// A frame whose tag carries only a priority (id 0) counts as untagged, and is delivered with
    /// its tag. Tags are seen only where the interface leaves them in the frame: see
    /// [`rx_vlan_offload`](crate::rx_vlan_offload).
    pub fn allow_vlan(&mut self, vlan: u16) -> Result<(), UpdateError> {
        self.change_vlan(vlan, |bits, bit| bits | bit)
    }

    /// Leaves TIPC frames of this VLAN to the kernel again.
    pub fn deny_vlan(&mut self, vlan: u16) -> Result<(), UpdateError> {
        self.change_vlan(vlan, |bits, bit| bits & !bit)
    }

    /// Takes whole UDP packets to this address and port, and to this group and the same port: untagged, without IP
    /// options or extension headers. To be called before attaching.
    pub fn take_datagrams(
        &mut self,
        own: SocketAddr,
        group: Option<IpAddr>,
    ) -> Result<(), UpdateError> {
        let ethertype: u16 = if own.is_ipv4() { 0x0800 } else { 0x86dd };
        let mut value = [0; size_of::<Datagrams>()];
        value[..2].copy_from_slice(&ethertype.to_be_bytes());
        value[2..4].copy_from_slice(&own.port().to_be_bytes());
        value[4..20].copy_from_slice(&address(own.ip()));
        value[20..].copy_from_slice(&address(group.unwrap_or(own.ip())));
        self.datagrams
            .set(0, value, 0)
            .map_err(|source| UpdateError::Map {
                map: "datagrams",
                source,
            })
    }

    /// Gives the frames of a receive queue to an AF_XDP socket, which must be bound to that queue.
    /// The kernel takes the socket out of the map when it is closed.
    pub fn insert_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), UpdateError> {
        let socket = socket.as_fd().as_raw_fd();
        self.sockets
            .set(queue, socket, 0)
            .map_err(|source| socket_error(queue, source))
    }

    /// Leaves the frames of a receive queue to the kernel again.
    pub fn remove_socket(&mut self, queue: u32) -> Result<(), UpdateError> {
        self.sockets
            .unset(queue)
            .map_err(|source| socket_error(queue, source))
    }

    /// The counters of every receive queue of the attached interface, summed over the CPUs.
    /// They count from the load on and are never reset.
    pub fn counters(&self) -> Result<Vec<QueueCounters>, UpdateError> {
        (0..self.queues)
            .map(|queue| self.queue_counters(queue))
            .collect()
    }

    fn queue_counters(&self, queue: u32) -> Result<QueueCounters, UpdateError> {
        let per_cpu = self
            .counters
            .get(&queue, 0)
            .map_err(|source| UpdateError::Map {
                map: "counters",
                source,
            })?;
        let zero = QueueCounters {
            queue,
            ..QueueCounters::default()
        };
        // The order is that of `struct queue_counters` in classifier.bpf.c.
        Ok(per_cpu.iter().fold(
            zero,
            |sum, &[redirected, other, foreign_mac, vlan, no_socket]| QueueCounters {
                queue,
                redirected: sum.redirected + redirected,
                passed_other: sum.passed_other + other,
                passed_foreign_mac: sum.passed_foreign_mac + foreign_mac,
                passed_vlan: sum.passed_vlan + vlan,
                no_socket: sum.no_socket + no_socket,
            },
        ))
    }

    fn change_vlan(&mut self, vlan: u16, change: fn(u64, u64) -> u64) -> Result<(), UpdateError> {
        if vlan > VLAN_ID_MAX {
            return Err(UpdateError::VlanId(vlan));
        }
        let (word, bit) = (u32::from(vlan / 64), 1 << (vlan % 64));
        let failed = |source| UpdateError::Map {
            map: "vlans",
            source,
        };
        let bits = self.vlans.get(&word, 0).map_err(failed)?;
        self.vlans.set(word, change(bits, bit), 0).map_err(failed)
    }

    fn try_attach(&mut self, index: u32, mode: AttachMode) -> Result<XdpLink, ProgramError> {
        let mode = match mode {
            AttachMode::Native => XdpMode::Driver,
            AttachMode::Generic => XdpMode::Skb,
        };
        // On EINVAL aya tries netlink, whose attachments outlive a crash. That cannot succeed where
        // the link failed: each kernel that loads a multi-buffer program (5.18) has XDP links (5.9).
        let program = program(&mut self.object);
        let id = program.attach_to_if_index(index, mode)?;
        program.take_link(id)
    }
}

/// The address as the program has it, an IPv4 one in the first four bytes.
fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn program(object: &mut Ebpf) -> &mut Xdp {
    object
        .program_mut(PROGRAM_NAME)
        .and_then(|program| program.try_into().ok())
        .expect("classifier.bpf.c defines this XDP program")
}

/// A map whose type is not the one in `classifier.bpf.c`.
fn typed(error: MapError) -> LoadError {
    LoadError::Ebpf(error.into())
}

fn socket_error(queue: u32, error: MapError) -> UpdateError {
    match error {
        MapError::OutOfBounds {
            max_entries: limit, ..
        } => UpdateError::QueueTooHigh { queue, limit },
        source => UpdateError::Map {
            map: "sockets",
            source,
        },
    }
}

fn query(interface: &str) -> Result<Interface, AttachError> {
    Interface::query(interface).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AttachError::UnknownInterface {
            interface: interface.into(),
        },
        _ => AttachError::Examine {
            interface: interface.into(),
            source,
        },
    })
}

/// Says why the kernel refused: `Ok` is an occupied or busy interface, where a retry may help.
fn explain(
    interface: &str,
    mode: AttachMode,
    refusal: ProgramError,
) -> Result<AttachError, AttachError> {
    let source = system_error(refusal);
    let interface = interface.to_owned();
    match source.raw_os_error() {
        // EBUSY: a program in this mode. EEXIST: one in another mode, or on an upper device.
        Some(libc::EBUSY | libc::EEXIST) => {
            let occupant = query(&interface)?.occupants.into_iter().next();
            Ok(match occupant {
                Some(occupant) => AttachError::Occupied {
                    interface,
                    occupant,
                },
                None => AttachError::Busy { interface, source },
            })
        }
        Some(libc::ENODEV) => Err(AttachError::UnknownInterface { interface }),
        _ => Err(AttachError::ModeRefused {
            interface,
            mode,
            source,
        }),
    }
}

/// Whether the interface is held by a program that is known not to be ours.
fn is_foreign(error: &AttachError) -> bool {
    matches!(error, AttachError::Occupied { occupant, .. }
        if occupant.program_name.as_deref().is_some_and(|name| name != PROGRAM_NAME))
}

/// The system's error inside aya's, with the driver's own words where the kernel passed them on.
fn system_error(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(call) => call.io_error,
        ProgramError::XdpError(XdpError::NetlinkError(netlink)) => match netlink.raw_os_error() {
            Some(number @ (libc::EBUSY | libc::EEXIST | libc::ENODEV)) => {
                io::Error::from_raw_os_error(number)
            }
            _ => io::Error::other(netlink),
        },
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests;
