//! How the daemon runs: workers, bearers, frames, attachments, peers.
//!
//! Every struct here has a default for each field, since later versions add to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{NodeIdentity, OwnNode};

/// Named counters, such as the drops of a bearer by their reason. Names are kebab-case words, for instance
/// `own-frame-reflected`; a tool shows them as they are.
pub type Counters = BTreeMap<String, u64>;

/// The state of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Name of the instance; `None` for the only or main one of a host.
    pub instance: Option<String>,
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Time since it was started.
    pub uptime_ms: u64,
    /// The own node.
    pub node: OwnNode,
    /// Its workers by number.
    pub workers: Vec<WorkerInfo>,
    /// Its bearers in slot order.
    pub bearers: Vec<BearerInfo>,
    /// The frame pool.
    pub frames: FramePool,
    /// The attached processes.
    pub attachments: Vec<AttachmentInfo>,
    /// The known peers.
    pub peers: Vec<PeerInfo>,
    /// What was dropped apart from any bearer, socket or attachment, by reason.
    pub drops: Counters,
}

/// A worker thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerInfo {
    /// Its number.
    pub id: u32,
    /// Its thread.
    pub thread_id: u32,
    /// The core it is pinned to.
    pub cpu: Option<u32>,
    /// The NUMA node of that core, or the one it stays on, if the system has several.
    pub numa_node: Option<u32>,
    /// How it idles.
    pub policy: WorkerPolicy,
    /// What it does now.
    pub state: WorkerState,
    /// What it sleeps in.
    pub wait: WaitMethod,
    /// Rounds of its loop.
    pub rounds: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// The longest time between two rounds in which it was not asleep.
    pub longest_gap_us: u64,
    /// Its present spin budget.
    pub spin_budget_us: u32,
}

/// How a worker idles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerPolicy {
    /// Never sleeps.
    Busy,
    /// Spins, then sleeps.
    #[default]
    Adaptive,
    /// Sleeps at once.
    Sleep,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// Had work in its last round.
    Working,
    /// Looks for work.
    Spinning,
    /// Waits in the kernel.
    #[default]
    Sleeping,
}

/// What a worker sleeps in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitMethod {
    /// One io_uring wait for everything.
    #[default]
    IoUring,
    /// epoll, where io_uring is forbidden.
    Epoll,
}

/// A bearer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BearerInfo {
    /// `MEDIA:ID`, such as `eth:eth0`.
    pub name: String,
    /// Its media.
    pub media: Media,
    /// The path its packets take.
    pub mode: BearerMode,
    /// Why this path and no better one.
    pub mode_reason: String,
    /// What is to be thought of it, if it does not do what it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
    /// Whether the interface is up and has carrier.
    pub up: bool,
    /// Own media address: MAC address, or IP address and port.
    pub media_address: String,
    /// Where a UDP bearer sends from and to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpAddresses>,
    /// The largest packet.
    pub mtu: u32,
    /// What its links start with.
    pub priority: u32,
    /// What its links start with.
    pub tolerance_ms: u32,
    /// What its links start with.
    pub window: u32,
    /// Packets received for TIPC.
    pub rx_packets: u64,
    /// Octets in them.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Octets in them.
    pub tx_bytes: u64,
    /// Received or outgoing packets that were dropped, by reason.
    pub drops: Counters,
    /// What the XDP classifier counted; empty without one.
    pub classifier: Counters,
    /// The NUMA node of the NIC, if the system has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Its AF_XDP queues; empty in the other modes.
    pub queues: Vec<QueueInfo>,
    /// How packets come into these queues; `None` where worker 0 serves all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steering: Option<Steering>,
    /// Where the interrupts of the NIC's queues go; `None` where the system tells of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interrupts: Option<Interrupts>,
}

/// How the packets of a bearer come into the queues that several workers serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// By whom.
    pub way: SteeringWay,
    /// Into which queues, or why not by rules.
    pub reason: String,
}

/// Who chooses the queue of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SteeringWay {
    /// The NIC, by rules that the daemon has made for TIPC.
    Rules,
    /// The NIC, by a hash of IP addresses.
    Hash,
    /// Nobody for TIPC: packets are handed over from the queues into which they happen to come.
    Software,
}

/// Where the interrupts of a NIC's queues go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupts {
    /// Whether those of the queues that carry TIPC go where the daemon wants them.
    pub placed: bool,
    /// Where that is, or why not.
    pub reason: String,
    /// By queue.
    pub lines: Vec<Interrupt>,
}

/// An interrupt of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// What the driver calls it.
    pub name: String,
    /// The queue.
    pub queue: u32,
    /// The processors it may go to, like `0,2-3`.
    pub cpus: String,
}

/// The addresses of a UDP bearer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpAddresses {
    /// The own one.
    pub local: SocketAddr,
    /// The multicast group, or the peers that are sent copies.
    pub remotes: Vec<SocketAddr>,
}

/// The media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Media {
    /// Ethernet.
    #[default]
    Eth,
    /// InfiniBand.
    Ib,
    /// UDP over IPv4 or IPv6.
    Udp,
    /// Memory shared by nodes of one host.
    Shm,
}

impl fmt::Display for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Eth => "eth",
            Self::Ib => "ib",
            Self::Udp => "udp",
            Self::Shm => "shm",
        })
    }
}

/// The path packets of a bearer take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BearerMode {
    /// AF_XDP, the NIC reads and writes the frame pool.
    XdpZeroCopy,
    /// AF_XDP, the driver runs the classifier and copies.
    XdpNative,
    /// AF_XDP, the network stack runs the classifier and copies.
    XdpGeneric,
    /// AF_PACKET.
    #[default]
    Packet,
    /// A UDP socket.
    Udp,
    /// Memory shared with the other nodes.
    SharedMemory,
}

/// An AF_XDP socket on one queue of an interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueInfo {
    /// The queue of the interface.
    pub queue: u32,
    /// The worker that serves it.
    pub worker: u32,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// The kernel's own counters of this socket (`XDP_STATISTICS`), by name.
    pub kernel: Counters,
    /// Between worker 0 and another worker that serves it: packets handed over (`rx`), dropped because worker 0 had left no
    /// room (`rx-dropped`), descriptors to send (`tx`), times that worker 0 was woken (`wakes`) and woke the other (`woken`).
    pub handover: Counters,
}

/// The frames of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FramePool {
    /// Size of a frame.
    pub frame_size: u32,
    /// How many there are.
    pub total: u32,
    /// In nobody's hands.
    pub free: u32,
    /// In fill rings or not yet handled.
    pub receive: u32,
    /// Held by links and ports.
    pub queued: u32,
    /// Held by transmit rings.
    pub in_tx: u32,
    /// Whether the pool lies in 2 MiB pages.
    pub huge_pages: bool,
}

/// An attached process, or thread of one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachmentInfo {
    /// Its number.
    pub id: u32,
    /// Its process.
    pub pid: u32,
    /// User of the process.
    pub uid: u32,
    /// Name of the program.
    pub program: String,
    /// The processors on which its threads ran last, like `0,2-3`; empty if that is not told.
    #[serde(default)]
    pub cpus: String,
    /// The NUMA nodes of these, if the system has several.
    #[serde(default)]
    pub numa_nodes: Vec<u32>,
    /// Its worker stays on a NUMA node, and some of its threads ran on another one.
    #[serde(default)]
    pub far: bool,
    /// Its sockets.
    pub sockets: u32,
    /// Size of its shared segment.
    pub segment_bytes: u64,
    /// Messages it sent.
    pub submitted: u64,
    /// Messages delivered to it.
    pub delivered: u64,
    /// Messages that it has sent by direct channels, past the daemon.
    #[serde(default)]
    pub sent_directly: u64,
    /// These, and messages that it has given to the daemon though a direct channel could carry them.
    #[serde(default)]
    pub may_go_directly: u64,
    /// Messages dropped or rejected, by reason.
    pub drops: Counters,
}

/// A peer node with what the daemon holds for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerInfo {
    /// Its identity.
    pub identity: NodeIdentity,
    /// Its node address.
    pub address: u32,
    /// Whether there is contact.
    pub up: bool,
    /// The capability flags it announced.
    pub capabilities: u16,
    /// Links to it that are up.
    pub links_up: u32,
    /// All links to it.
    pub links: u32,
    /// The worker it lives on.
    pub worker: u32,
    /// The AF_XDP queues that packets to it are sent by, by bearer.
    pub queues: BTreeMap<String, u32>,
    /// Frames that its packets and those for it hold.
    pub frames: u32,
}
