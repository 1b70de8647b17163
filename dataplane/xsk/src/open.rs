//! Opening an AF_XDP socket: UMEM, rings, bind.
//!
//! Owner: whoever sets up a bearer. Which mode to try is the caller's decision; nothing falls back
//! here. The order is the kernel's: register or join the UMEM, size and map the rings, fill the fill
//! ring (zero-copy drivers take chunks while binding), bind.

use crate::memory::Mapping;
use crate::pool::{FramePool, ReceiveArea};
use crate::receive::Receive;
use crate::ring::{Consumer, Producer, RingLayout};
use crate::socket::XskSocket;
use crate::transmit::Transmit;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::xdp::{
    self, SocketAddrXdp, SocketAddrXdpFlags as Flags, XdpRingOffset, XdpUmemReg,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long `bind` may find the queue busy: the kernel releases the socket of a process that ended, or
/// of a bearer that was closed, asynchronously.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

const BUSY_RETRY: Duration = Duration::from_millis(5);

/// `XDP_MAX_TX_SKB_BUDGET` of `linux/if_xdp.h`, Linux 6.17; in no libc crate yet.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Descriptors per `sendto` in copy mode where the kernel lets us choose: 8 % more packets per second
/// on veth than the default of 32.
const TX_SKB_BUDGET: u32 = 256;

/// In copy mode each descriptor becomes an skb that counts against the socket's send buffer until it
/// has left. The default of 208 KiB is three jumbo packets.
const SEND_BUFFER: usize = 8 << 20;

/// How the kernel moves packets between the device and the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// The driver works on the pool itself; `bind` fails where it cannot.
    ZeroCopy,
    /// The kernel copies. Works with every driver, with native and with generic XDP.
    Copy,
}

/// Ring sizes of a socket in entries, each a power of two. The fill ring has as many as the receive
/// area has chunks.
#[derive(Clone, Copy, Debug)]
pub struct RingSizes {
    /// Received packets that wait for the worker.
    pub rx: u32,
    /// Packets that wait for the kernel.
    pub tx: u32,
    /// Sent chunks that wait to be taken back; the kernel stops sending when it is full.
    pub completion: u32,
}

impl Default for RingSizes {
    fn default() -> Self {
        Self {
            rx: 2048,
            tx: 2048,
            completion: 2048,
        }
    }
}

/// What to open.
#[derive(Clone, Copy, Debug)]
pub struct SocketConfig<'a> {
    /// The interface, in the network namespace of the calling thread.
    pub ifindex: u32,
    /// Its receive (and transmit) queue.
    pub queue: u32,
    /// How to bind. Ignored with `join`: the mode is that of the joined socket.
    pub mode: BindMode,
    /// Send and receive packets of several chunks (`XDP_USE_SG`). Ask [`multi_buffer_supported`]
    /// first. Must be the joined socket's with `join`.
    pub multi_buffer: bool,
    /// Ring sizes.
    pub rings: RingSizes,
    /// TX slots that only [`crate::Reserve::Control`] may take. Below `rings.tx`.
    pub tx_control_reserve: u32,
    /// An open socket on another queue of the same interface, whose UMEM registration to use. `None`
    /// for the first socket of an interface.
    pub join: Option<&'a XskSocket>,
}

impl SocketConfig<'_> {
    /// The first socket of an interface: single chunks, default sizes.
    pub fn new(ifindex: u32, queue: u32, mode: BindMode) -> Self {
        Self {
            ifindex,
            queue,
            mode,
            multi_buffer: false,
            rings: RingSizes::default(),
            tx_control_reserve: 64,
            join: None,
        }
    }
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A ring size is not possible.
    #[error("{ring} ring of {entries} entries: a power of two from 32 to 32768 is needed")]
    RingSize {
        /// Which ring.
        ring: &'static str,
        /// The configured size.
        entries: u32,
    },
    /// The TX reserve leaves no slot for data.
    #[error("a control reserve of {reserve} TX slots needs a larger TX ring than {tx} entries")]
    ControlReserve {
        /// The configured reserve.
        reserve: u32,
        /// The configured TX ring.
        tx: u32,
    },
    /// The pool was made for fewer sockets.
    #[error(
        "all {0} receive areas of the frame pool are in use: make the pool with one per socket"
    )]
    NoReceiveArea(u32),
    /// The joined socket differs in what must be the same.
    #[error(
        "a socket can join only one of the same interface, frame pool and multi-buffer setting"
    )]
    CannotJoin,
    /// The kernel has no multi-buffer support.
    #[error(
        "this kernel has no XDP_USE_SG (multi-buffer packets): Linux 6.6 or an MTU below 3500 is needed"
    )]
    MultiBufferUnsupported,
    /// The driver does not grant zero-copy.
    #[error(
        "interface {ifindex} queue {queue}: the driver grants no zero-copy; copy mode works everywhere"
    )]
    ZeroCopyUnsupported {
        /// The interface.
        ifindex: u32,
        /// The queue.
        queue: u32,
    },
    /// Somebody else has the queue.
    #[error(
        "interface {ifindex} queue {queue} is held by another AF_XDP socket, also after {BUSY_TIMEOUT:?}; stop the program that uses it"
    )]
    Busy {
        /// The interface.
        ifindex: u32,
        /// The queue.
        queue: u32,
    },
    /// Any other refusal.
    #[error("cannot {step} for interface {ifindex} queue {queue}: {source}{}", hint(*.source))]
    System {
        /// What was being done.
        step: &'static str,
        /// The interface.
        ifindex: u32,
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        source: Errno,
    },
}

fn hint(source: Errno) -> &'static str {
    match source {
        Errno::PERM => " (CAP_NET_RAW is needed, and CAP_NET_ADMIN to attach the XDP program)",
        Errno::NOBUFS => {
            " (the pool is larger than RLIMIT_MEMLOCK: raise it or grant CAP_IPC_LOCK)"
        }
        Errno::NODEV => " (no such interface in this network namespace)",
        Errno::INVAL => " (does the interface have this queue?)",
        _ => "",
    }
}

/// Whether this kernel knows multi-buffer packets (`XDP_USE_SG`, Linux 6.6), found by trying.
pub fn multi_buffer_supported() -> rustix::io::Result<bool> {
    let socket = new_socket()?;
    // Flags are checked before the interface, and no interface has index 0.
    match rustix::net::bind(&socket, &SocketAddrXdp::new(Flags::XDP_USE_SG, 0, 0)) {
        Err(Errno::NODEV) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Err(Errno::ISCONN),
    }
}

fn new_socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::XDP,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
}

pub(crate) fn open(
    pool: &mut FramePool,
    config: &SocketConfig<'_>,
) -> Result<XskSocket, OpenError> {
    check(pool, config)?;
    let area = pool
        .take_receive_area()
        .ok_or(OpenError::NoReceiveArea(pool.receive_area_count()))?;
    let opening = Opening { pool, config };
    // The kernel has nothing of the area when this fails: rings without a bound device are idle.
    let chunks = area.chunks();
    match opening.descriptors_and_rings(chunks) {
        Ok(parts) => opening.bind(parts, area).map_err(|(error, area)| {
            pool.return_receive_area(area);
            error
        }),
        Err(error) => {
            pool.return_receive_area(area);
            Err(error)
        }
    }
}

fn check(pool: &FramePool, config: &SocketConfig<'_>) -> Result<(), OpenError> {
    let RingSizes { rx, tx, completion } = config.rings;
    for (ring, entries) in [("RX", rx), ("TX", tx), ("completion", completion)] {
        if !entries.is_power_of_two() || !(32..=32_768).contains(&entries) {
            return Err(OpenError::RingSize { ring, entries });
        }
    }
    if config.tx_control_reserve >= tx {
        return Err(OpenError::ControlReserve {
            reserve: config.tx_control_reserve,
            tx,
        });
    }
    if config
        .join
        .is_some_and(|joined| !joined.can_be_joined(pool, config))
    {
        return Err(OpenError::CannotJoin);
    }
    match config.multi_buffer && config.join.is_none() {
        true if multi_buffer_supported() == Ok(false) => Err(OpenError::MultiBufferUnsupported),
        _ => Ok(()),
    }
}

struct Opening<'a> {
    pool: &'a FramePool,
    config: &'a SocketConfig<'a>,
}

struct Parts {
    fd: OwnedFd,
    /// Unbound; tells later, by binding, when the kernel has released the queue. Made now because it
    /// needs the same privilege and network namespace.
    probe: OwnedFd,
    rx: Consumer<xdp::XdpDesc>,
    tx: Producer<xdp::XdpDesc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
}

impl Opening<'_> {
    fn step<T>(&self, step: &'static str, result: rustix::io::Result<T>) -> Result<T, OpenError> {
        let SocketConfig { ifindex, queue, .. } = *self.config;
        result.map_err(|source| OpenError::System {
            step,
            ifindex,
            queue,
            source,
        })
    }

    fn descriptors_and_rings(&self, fill_entries: u32) -> Result<Parts, OpenError> {
        let fd = self.step("open an AF_XDP socket", new_socket())?;
        let probe = self.step("open an AF_XDP socket", new_socket())?;
        if self.config.join.is_none() {
            self.step(
                "register the frame pool",
                register_umem(&fd, self.pool.memory(), self.pool.len_in_use()),
            )?;
        }
        let RingSizes { rx, tx, completion } = self.config.rings;
        self.step(
            "size the fill ring",
            sockopt::set_xdp_umem_fill_ring_size(&fd, fill_entries),
        )?;
        self.step(
            "size the completion ring",
            sockopt::set_xdp_umem_completion_ring_size(&fd, completion),
        )?;
        self.step("size the RX ring", sockopt::set_xdp_rx_ring_size(&fd, rx))?;
        self.step("size the TX ring", sockopt::set_xdp_tx_ring_size(&fd, tx))?;
        let offsets = self.step("read the ring layout", sockopt::xdp_mmap_offsets(&fd))?;

        let map = |at, offsets, entries, slot| {
            self.step("map a ring", map_ring(&fd, at, offsets, entries, slot))
        };
        let (rx_memory, rx_layout) = map(
            xdp::XDP_PGOFF_RX_RING,
            offsets.rx,
            rx,
            size_of::<xdp::XdpDesc>(),
        )?;
        let (tx_memory, tx_layout) = map(
            xdp::XDP_PGOFF_TX_RING,
            offsets.tx,
            tx,
            size_of::<xdp::XdpDesc>(),
        )?;
        let (fill_memory, fill_layout) = map(
            xdp::XDP_UMEM_PGOFF_FILL_RING,
            offsets.fr,
            fill_entries,
            size_of::<u64>(),
        )?;
        let (completion_memory, completion_layout) = map(
            xdp::XDP_UMEM_PGOFF_COMPLETION_RING,
            offsets.cr,
            completion,
            size_of::<u64>(),
        )?;
        Ok(Parts {
            // SAFETY: the kernel's RX ring of `XdpDesc` (plain integers), mapped just now and only here.
            rx: unsafe { Consumer::new(&rx_memory, rx_layout) },
            // SAFETY: the kernel's TX ring of `XdpDesc`, mapped just now and only here.
            tx: unsafe { Producer::new(&tx_memory, tx_layout) },
            // SAFETY: the kernel's fill ring of 64-bit addresses, mapped just now and only here.
            fill: unsafe { Producer::new(&fill_memory, fill_layout) },
            // SAFETY: the kernel's completion ring of 64-bit addresses, mapped just now and only here.
            completion: unsafe { Consumer::new(&completion_memory, completion_layout) },
            fd,
            probe,
        })
    }

    fn bind(&self, parts: Parts, area: ReceiveArea) -> Result<XskSocket, (OpenError, ReceiveArea)> {
        let Parts {
            fd,
            probe,
            rx,
            tx,
            fill,
            completion,
        } = parts;
        let config = self.config;
        let receive = Receive::new(rx, fill, area, config.multi_buffer);
        let bound = self
            .bind_to_queue(&fd)
            .and_then(|()| self.step("read the socket's options", sockopt::xdp_options(&fd)));
        let options = match bound {
            Ok(options) => options,
            Err(error) => return Err((error, receive.into_area())),
        };
        let tx_budget = raise_send_limits(&fd, config.rings.tx);
        let transmit = Transmit::new(
            tx,
            completion,
            config.tx_control_reserve,
            config.multi_buffer,
            self.pool.counts().total,
        );
        let zero_copy = options.contains(xdp::XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(XskSocket::assemble(
            fd, probe, receive, transmit, config, zero_copy, tx_budget,
        ))
    }

    fn bind_to_queue(&self, fd: &OwnedFd) -> Result<(), OpenError> {
        let SocketConfig {
            ifindex,
            queue,
            mode,
            ..
        } = *self.config;
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            match self.bind_once(fd) {
                Ok(()) => return Ok(()),
                Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(BUSY_RETRY),
                Err(Errno::BUSY) => return Err(OpenError::Busy { ifindex, queue }),
                Err(Errno::OPNOTSUPP)
                    if mode == BindMode::ZeroCopy && self.config.join.is_none() =>
                {
                    return Err(OpenError::ZeroCopyUnsupported { ifindex, queue });
                }
                Err(source) => return self.step("bind", Err(source)),
            }
        }
    }

    fn bind_once(&self, fd: &OwnedFd) -> rustix::io::Result<()> {
        let SocketConfig {
            ifindex,
            queue,
            mode,
            multi_buffer,
            join,
            ..
        } = *self.config;
        if let Some(joined) = join {
            // Any other flag beside XDP_SHARED_UMEM is EINVAL: mode, need-wakeup and multi-buffer
            // are the joined socket's.
            let addr = SocketAddrXdp::new(Flags::XDP_SHARED_UMEM, ifindex, queue);
            let shared_umem_fd = joined.as_fd();
            return rustix::net::bind(
                fd,
                &xdp::SocketAddrXdpWithSharedUmem {
                    addr,
                    shared_umem_fd,
                },
            );
        }
        let mut flags = Flags::XDP_USE_NEED_WAKEUP;
        flags |= match mode {
            BindMode::ZeroCopy => Flags::XDP_ZEROCOPY,
            BindMode::Copy => Flags::XDP_COPY,
        };
        flags.set(Flags::XDP_USE_SG, multi_buffer);
        rustix::net::bind(fd, &SocketAddrXdp::new(flags, ifindex, queue))
    }
}

fn register_umem(fd: &OwnedFd, memory: &Mapping, len: usize) -> rustix::io::Result<()> {
    let registration = XdpUmemReg {
        addr: memory.at(0, len).as_ptr().addr() as u64,
        len: len as u64,
        chunk_size: crate::pool::CHUNK_SIZE as u32,
        headroom: 0,
        flags: xdp::XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    sockopt::set_xdp_umem_reg(fd, registration)
}

fn map_ring(
    fd: &OwnedFd,
    page_offset: u64,
    offsets: XdpRingOffset,
    entries: u32,
    slot_len: usize,
) -> rustix::io::Result<(Arc<Mapping>, RingLayout)> {
    // Kernels before 5.4 have no flags word; joining queues needs 5.10 anyway.
    let flags = offsets.flags.ok_or(Errno::NOSYS)?;
    let layout = RingLayout {
        producer: offsets.producer as usize,
        consumer: offsets.consumer as usize,
        flags: flags as usize,
        slots: offsets.desc as usize,
        entries,
    };
    let len = layout.slots + entries as usize * slot_len;
    Ok((Arc::new(Mapping::of_file(fd, page_offset, len)?), layout))
}

/// Makes copy mode faster: has one `sendto` send more packets of a TX ring of so many entries, and more of them be under way.
/// [`XskSocket::open`] does so itself; for AF_XDP sockets of other crates that are compared with ours. Returns the number of
/// packets one `sendto` sends from now on; `None` where the kernel's default of 32 stays.
pub fn raise_send_limits(socket: impl AsFd, tx_entries: u32) -> Option<u32> {
    // A kernel or privilege that refuses is no reason to fail.
    let _ = sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER);
    set_tx_skb_budget(socket.as_fd(), TX_SKB_BUDGET.min(tx_entries))
}

fn set_tx_skb_budget(fd: BorrowedFd<'_>, budget: u32) -> Option<u32> {
    let value = (&raw const budget).cast();
    let len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the option reads a u32, which is what `value` and `len` describe; `fd` is open.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            value,
            len,
        )
    };
    (result == 0).then_some(budget)
}

/// Whether the kernel has let go of a queue, asked by binding the unbound socket `probe` to it. `true`
/// uses the probe up; the kernel releases its binding soon after it is dropped.
pub(crate) fn is_queue_released(
    probe: &ReleaseProbe,
    ifindex: u32,
    queue: u32,
) -> rustix::io::Result<bool> {
    match rustix::net::bind(
        &probe.fd,
        &SocketAddrXdp::new(Flags::XDP_COPY, ifindex, queue),
    ) {
        // Without the interface there is no driver left that could use the memory.
        Ok(()) | Err(Errno::NODEV) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// An unbound socket with a UMEM of one page, see [`is_queue_released`].
#[derive(Debug)]
pub(crate) struct ReleaseProbe {
    fd: OwnedFd,
    _umem: Mapping,
}

impl ReleaseProbe {
    pub(crate) fn new(fd: OwnedFd) -> rustix::io::Result<Self> {
        let umem = Mapping::anonymous(crate::pool::CHUNK_SIZE)?;
        register_umem(&fd, &umem, umem.len())?;
        sockopt::set_xdp_umem_fill_ring_size(&fd, 2)?;
        sockopt::set_xdp_umem_completion_ring_size(&fd, 2)?;
        sockopt::set_xdp_rx_ring_size(&fd, 2)?;
        Ok(Self { fd, _umem: umem })
    }
}
