//! What is measured. Each subject is two ends, in processes of their own.

pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod fan;
pub(crate) mod handover;
#[cfg(feature = "iceoryx2")]
pub(crate) mod iceoryx2;
pub(crate) mod kernel_tipc;
pub(crate) mod loan;
pub(crate) mod look_up;
pub(crate) mod memory;
pub(crate) mod packet;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod unix;
pub(crate) mod xdp;
pub(crate) mod xtipc;
#[cfg(feature = "zeromq")]
pub(crate) mod zeromq;

use std::fmt;

use serde::{Deserialize, Serialize};

/// What carries the messages, or does what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// A daemon on each side, and an application of it: RDM.
    Xtipc,
    /// A node inside of each application: RDM.
    XtipcEmbedded,
    /// With daemons: a SEQPACKET connection, by a direct channel if both ends are on one node.
    XtipcConnection,
    /// The same in loaned buffers: what is sent is handed over, not copied.
    XtipcLoan,
    /// With daemons: a STREAM connection.
    XtipcStream,
    /// Set-up of a SEQPACKET connection, a message there and back, and its end.
    XtipcConnect,
    /// From a request to the event of the binding that it asked for.
    XtipcEvent,
    /// Which socket serves a name.
    XtipcLookUp,
    /// One message for several sockets at a service range.
    XtipcMulticast,
    /// One message for several members of a group.
    XtipcGroup,
    /// The kernel's.
    Tcp,
    /// Set-up of a connection, a message there and back, and its end.
    TcpConnect,
    /// The kernel's.
    Udp,
    /// One message for several sockets, each by a datagram of its own.
    UdpFan,
    /// AF_XDP sockets without any protocol: the limit.
    Xdp,
    /// The same with sockets of xsk-rs.
    XskRs,
    /// Ethernet frames through AF_PACKET sockets.
    Packet,
    /// The kernel's RDM, where the kernel has it.
    KernelTipc,
    /// Words that two threads share: the limit inside of a machine.
    Memory,
    /// References to frames that go to another worker and back, without the frames.
    Handover,
    /// Wakes a thread, and nothing else.
    Eventfd,
    /// The kernel's.
    UnixStream,
    /// The kernel's.
    UnixSeqpacket,
    /// Publish and subscribe of iceoryx2.
    Iceoryx2,
    /// PUSH and PULL or REQ and REP of ZeroMQ.
    Zeromq,
}

impl Subject {
    pub(crate) const fn needs_daemons(self) -> bool {
        matches!(
            self,
            Self::Xtipc
                | Self::XtipcConnection
                | Self::XtipcLoan
                | Self::XtipcStream
                | Self::XtipcConnect
                | Self::XtipcEvent
                | Self::XtipcLookUp
                | Self::XtipcMulticast
                | Self::XtipcGroup
        )
    }

    /// Baselines with dependencies of their own are in a program that is built with the feature of their name. What to say
    /// where this one was not.
    pub(crate) const fn lacks_feature(self) -> Option<&'static str> {
        match self {
            Self::Iceoryx2 if !cfg!(feature = "iceoryx2") => {
                Some("this program was built without the feature iceoryx2")
            }
            Self::XskRs if !cfg!(feature = "xsk-rs") => {
                Some("this program was built without the feature xsk-rs")
            }
            Self::Zeromq if !cfg!(feature = "zeromq") => {
                Some("this program was built without the feature zeromq")
            }
            _ => None,
        }
    }

    /// Its frames have Ethernet addresses that it needs to know.
    pub(crate) const fn needs_ethernet(self) -> bool {
        matches!(self, Self::Xdp | Self::XskRs | Self::Packet)
    }

    /// It is told the other side by an IPv4 address.
    pub(crate) const fn needs_ipv4(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::TcpConnect | Self::Udp | Self::UdpFan | Self::Zeromq
        )
    }

    /// Both ends are threads of one process.
    pub(crate) const fn is_alone(self) -> bool {
        matches!(
            self,
            Self::Memory | Self::Handover | Self::Eventfd | Self::Iceoryx2
        )
    }

    /// Every message sent comes, once and in order, or goes back to its sender.
    pub(crate) const fn is_reliable(self) -> bool {
        self.needs_daemons() || matches!(self, Self::XtipcEmbedded)
    }
}

/// How an end waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wait {
    /// In a call that blocks.
    Sleeping,
    /// By asking again and again.
    Spinning,
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Xtipc => "xtipc",
            Self::XtipcEmbedded => "xtipc embedded",
            Self::XtipcConnection => "xtipc connection",
            Self::XtipcLoan => "xtipc loaned",
            Self::XtipcStream => "xtipc stream",
            Self::XtipcConnect => "xtipc connect",
            Self::XtipcEvent => "xtipc event",
            Self::XtipcLookUp => "xtipc look-up",
            Self::XtipcMulticast => "xtipc multicast",
            Self::XtipcGroup => "xtipc group",
            Self::Tcp => "TCP",
            Self::TcpConnect => "TCP connect",
            Self::Udp => "UDP",
            Self::UdpFan => "UDP to each",
            Self::Xdp => "raw AF_XDP",
            Self::XskRs => "raw AF_XDP by xsk-rs",
            Self::Packet => "AF_PACKET",
            Self::KernelTipc => "kernel TIPC",
            Self::Memory => "shared memory",
            Self::Handover => "hand-over",
            Self::Eventfd => "eventfd",
            Self::UnixStream => "Unix stream",
            Self::UnixSeqpacket => "Unix seqpacket",
            Self::Iceoryx2 => "iceoryx2",
            Self::Zeromq => "ZeroMQ",
        })
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sleeping => "sleeping",
            Self::Spinning => "spinning",
        })
    }
}

/// Port of the kernel's protocols.
const PORT: u16 = 7777;

/// Repeats what would block.
fn insist<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::hint::spin_loop(),
            outcome => return outcome,
        }
    }
}
