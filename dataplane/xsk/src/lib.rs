//! AF_XDP sockets and the frame pool of xtipc, with UDP datagrams as the frames of such sockets ([`datagram`]); and the sockets
//! for where there is no AF_XDP: AF_PACKET ([`packet`]) and UDP ([`udp`]).
//! Linux only, 5.10 or newer.
//!
//! # Memory
//!
//! One memfd (`xtipc-pool`; on 2 MiB huge pages where the host has enough reserved,
//! [`FramePool::page_kind`] tells) is mapped once and registered as the **UMEM** of every interface,
//! in chunks of 4,096 bytes ([`CHUNK_SIZE`], the largest the kernel takes). The first socket of an
//! interface registers it; sockets on other queues of the same interface join that registration
//! (`XDP_SHARED_UMEM`); another interface registers the same memory as a UMEM of its own. So a frame may
//! be sent through any socket of the pool.
//!
//! ```text
//! ┌──────────────────── frame area ───────────────────┬──────────── receive areas ────────────┐
//! │ frame 0      │ frame 1      │ …                    │ socket A        │ socket B       │ …  │
//! │ 1..=17 chunks│              │                      │ receive_chunks  │                │    │
//! └──────────────┴──────────────┴──────────────────────┴─────────────────┴────────────────┴────┘
//!   the node's own: sent or held                          the kernel's: fill ring → RX ring → callback
//! ```
//!
//! * The **frame area** is for what the node itself sends or holds: link queues, deferred packets,
//!   TX-only packets. The kernel only reads it.
//! * A **receive area** belongs to one socket and is never lent to senders. A received packet is handed
//!   to a callback in place; packets of several chunks are gathered into a scratch buffer of the socket.
//!   The chunk goes back to the fill ring when the callback returns, so a receive chunk is neither lost
//!   nor pinned. What must be kept is copied into a frame.
//!
//! # Who holds a frame
//!
//! The frame table has two facts per frame: `queued` (somebody of ours holds it) and `in_tx` (how many
//! chunks of it TX rings and the kernel hold). *Free ⇔ not queued and `in_tx == 0`*, nothing else.
//!
//! ```text
//!            alloc             send                    complete
//!   free ───────────▶ queued ─────────▶ queued, in_tx ──────────▶ queued     (kept for retransmission)
//!    ▲                  │                     │ release
//!    │      release     │                     ▼          complete
//!    └──────────────────┘               in_tx only ───────────────▶ free      (TX-only)
//! ```
//!
//! Bytes can be written only at `in_tx == 0` ([`FramePool::bytes_mut`] gives `None` otherwise). A frame in
//! TX becomes free by completion, or when its socket is closed **and** the kernel has let go of it
//! ([`XskSocket::close`]). Closing order: sockets first, then [`FramePool::leaks`].
//!
//! A completion that is more than a second overdue ([`XskSocket::oldest_tx_age`]) is the sign to close
//! the socket and open it again.
//!
//! # How large a pool must be
//!
//! With L links, window W in packets and D deferred packets per link (at least 64), B the broadcast link's window,
//! for each socket s its TX and completion ring sizes, and R the control reserve:
//!
//! ```text
//! frame_count    ≥ L · (W + D) + B + Σs (tx_s + completion_s) + R,   R ≥ 2 · L + 64
//! receive_chunks ≥ device RX ring + socket RX ring + 64, rounded up to a power of two
//! bytes          = 4096 · (frame_count · chunks_per_frame + sockets · receive_chunks),
//!                  rounded up to 2 MiB
//! chunks_per_frame = ⌈(headers before the packet + 14 + MTU) / 4096⌉
//! ```
//!
//! A smaller pool is correct but makes senders wait: what the rings may hold at once is an upper bound that
//! only TX-only packets (copies) reach. Each socket also needs 8 bytes per frame. The kernel charges the
//! whole memory per interface against RLIMIT_MEMLOCK unless the process has CAP_IPC_LOCK. A chunk
//! holds 4,096 bytes to send, and 3,840 received (the kernel keeps 256 of headroom).
//!
//! # A round of a worker
//!
//! ```no_run
//! # use xtipc_xsk::{BindMode, FramePool, PoolConfig, Reserve, SocketConfig, XskSocket};
//! # use std::time::Duration;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let interface = xtipc_xsk::interface::Interface::query("eth0")?;
//! let mut pool = FramePool::new(&PoolConfig::default())?;
//! let config = SocketConfig::new(interface.index, 0, BindMode::Copy);
//! let mut socket = XskSocket::open(&mut pool, &config)?;
//! # let now = Duration::ZERO;
//! socket.set_clock(now);
//! socket.complete(&mut pool);
//! socket.receive(64, |packet| println!("{} bytes", packet.len()));
//! socket.wake_fill()?;
//! if let Some(frame) = pool.alloc(Reserve::Data) {
//!     if let Some(bytes) = pool.bytes_mut(frame) {
//!         bytes[..60].fill(0);
//!     }
//!     if socket.send(&mut pool, frame, 0, 60, Reserve::Data).is_err() {
//!         // The ring is full: a caller that keeps the frame tries again later.
//!     }
//!     pool.release(frame); // free when the kernel has sent it
//! }
//! socket.kick()?;
//! # Ok(()) }
//! ```
//!
//! # Threads
//!
//! Pool and sockets belong to one worker and have no locks; they may be moved to its thread (`Send`). Of each socket
//! another worker can serve the rings to the kernel ([`handover`]): only references to frames go between the two. The
//! atomics shared with the kernel, or with that worker, and their partners are listed in `ring.rs`.

pub mod addresses;
mod closing;
pub mod datagram;
pub mod flow_rules;
pub mod handover;
pub mod interface;
mod kernel;
mod memory;
mod open;
pub mod packet;
mod pool;
mod primitive;
mod receive;
pub mod ring;
mod socket;
mod transmit;
pub mod udp;

pub use closing::ClosingSocket;
pub use kernel::WakeCounters;
pub use memory::PageKind;
pub use open::{
    BUSY_TIMEOUT, BindMode, OpenError, RingSizes, SocketConfig, multi_buffer_supported,
    raise_send_limits,
};
pub use pool::{
    CHUNK_SIZE, CHUNKS_PER_FRAME_MAX, FrameCounts, FrameIndex, FramePool, Leaks, PoolConfig,
    PoolError, Reserve,
};
pub use receive::ReceiveCounters;
pub use rustix::net::xdp::XdpStatistics;
pub use socket::{SocketCounters, SocketOptions, XskSocket};
pub use transmit::{TransmitCounters, TxFull};
