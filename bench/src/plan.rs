//! What a round consists of, in which order.

use clap::ValueEnum;

use crate::step::Kind::{Cluster, Idle, Load, Paced, Peers, Rate, RoundTrip};
use crate::step::Place::{Crowded, OneProcessor, Together};
use crate::step::{Stage, Step};
use crate::subject::Subject::{
    Eventfd, Handover, Iceoryx2, KernelTipc, Memory, Packet, Tcp, TcpConnect, Udp, UdpFan,
    UnixSeqpacket, UnixStream, Xdp, XskRs, Xtipc, XtipcConnect, XtipcConnection, XtipcEmbedded,
    XtipcEvent, XtipcGroup, XtipcLoan, XtipcLookUp, XtipcMulticast, XtipcStream, Zeromq,
};
use crate::subject::Wait::{Sleeping, Spinning};

pub(crate) const SLEEPING_XTIPC: Step = Step::new(RoundTrip, Xtipc, Sleeping);
pub(crate) const SPINNING_XTIPC: Step = Step::new(RoundTrip, Xtipc, Spinning);
pub(crate) const SLEEPING_TCP: Step = Step::new(RoundTrip, Tcp, Sleeping);
pub(crate) const SPINNING_TCP: Step = Step::new(RoundTrip, Tcp, Spinning);
pub(crate) const SLEEPING_UDP: Step = Step::new(RoundTrip, Udp, Sleeping);
pub(crate) const KERNEL: Step = Step::new(RoundTrip, KernelTipc, Sleeping);
pub(crate) const EMBEDDED: Step = Step::new(RoundTrip, XtipcEmbedded, Spinning);
pub(crate) const EMBEDDED_CROWDED: Step = Step::new(RoundTrip, XtipcEmbedded, Sleeping).at(Crowded);
pub(crate) const TCP_CROWDED: Step = SLEEPING_TCP.at(Crowded);
pub(crate) const RAW: Step = Step::new(RoundTrip, Xdp, Spinning);
pub(crate) const XSK_RS: Step = Step::new(RoundTrip, XskRs, Spinning);
pub(crate) const PACED_XTIPC: Step = Step::new(Paced, Xtipc, Sleeping);
pub(crate) const PACED_TCP: Step = Step::new(Paced, Tcp, Sleeping);
pub(crate) const BUNDLED_RATE: Step = Step::new(Rate, Xtipc, Sleeping);
pub(crate) const SINGLE_RATE: Step = BUNDLED_RATE.on(Stage::Single);
/// The daemon's own choice of a mode is beside them.
pub(crate) const NATIVE: Step = SLEEPING_XTIPC.on(Stage::Native);
pub(crate) const GENERIC: Step = SLEEPING_XTIPC.on(Stage::Generic);
pub(crate) const UDP_RATE: Step = Step::new(Rate, Udp, Sleeping);
pub(crate) const TCP_RATE: Step = Step::new(Rate, Tcp, Sleeping);
pub(crate) const RAW_RATE: Step = Step::new(Rate, Xdp, Spinning);
pub(crate) const XSK_RS_RATE: Step = Step::new(Rate, XskRs, Spinning);
pub(crate) const KERNEL_RATE: Step = Step::new(Rate, KernelTipc, Sleeping);
pub(crate) const ZEROMQ_RATE: Step = Step::new(Rate, Zeromq, Sleeping);

/// One message of almost the greatest length.
pub(crate) const LARGE: usize = 60_000;
/// What a frame of 1500 bytes carries without any protocol.
const FRAME: usize = 1500;
/// Message sizes whose rates are measured.
const SIZES: [usize; 8] = [1, 16, 64, 256, 1024, 4096, 16_384, 66_000];
/// The longest UDP datagram is shorter than the longest TIPC message.
const UDP_MAX: usize = 65_507;
pub(crate) const MTUS: [u32; 3] = [1500, 9000, 65_535];
/// Receivers of a multicast, members of a group beside the sender.
const RECEIVERS: usize = 10;
/// Sockets by which the cost of one is measured.
const SOCKETS: usize = 10_000;
/// How the costs of sockets and peers grow.
const SOCKETS_OF_CURVES: [usize; 5] = [1, 10, 100, 1000, SOCKETS];
const PEERS_OF_CURVES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

pub(crate) const fn bulk(step: Step, mtu: u32) -> Step {
    step.sized(LARGE).over(mtu)
}

pub(crate) const STREAM: Step = Step::new(Rate, XtipcStream, Sleeping);
pub(crate) const RAW_BULK: Step = RAW_RATE.sized(FRAME);

/// On one node connections are what goes past the daemon.
pub(crate) const LOCAL: Step = Step::new(RoundTrip, XtipcConnection, Spinning).at(Together);
pub(crate) const LOCAL_DATAGRAM: Step = SPINNING_XTIPC.at(Together);
pub(crate) const LOCAL_MEMORY: Step = Step::new(RoundTrip, Memory, Spinning).at(Together);
pub(crate) const LOCAL_UNIX: Step = Step::new(RoundTrip, UnixStream, Spinning).at(Together);
pub(crate) const LOCAL_TCP: Step = SPINNING_TCP.at(Together);
pub(crate) const ICEORYX2: Step = Step::new(RoundTrip, Iceoryx2, Spinning).at(Together);
pub(crate) const ICEORYX2_RATE: Step = Step::new(Rate, Iceoryx2, Spinning).at(Together);
pub(crate) const LOCAL_RATE: Step = Step::new(Rate, XtipcConnection, Sleeping).at(Together);
pub(crate) const RING_RATE: Step = Step::new(Rate, Memory, Spinning).at(Together);
pub(crate) const UNIX_RATE: Step = Step::new(Rate, UnixSeqpacket, Sleeping).at(Together);
pub(crate) const LOCAL_LARGE: Step = LOCAL.sized(LARGE);
pub(crate) const LOANED: Step = Step::new(RoundTrip, XtipcLoan, Spinning).at(Together);
pub(crate) const LOANED_LARGE: Step = LOANED.sized(LARGE);
pub(crate) const UNIX_LARGE: Step = LOCAL_UNIX.sized(LARGE);
pub(crate) const ASLEEP: Step = Step::new(RoundTrip, XtipcConnection, Sleeping).at(OneProcessor);
pub(crate) const UNIX_ASLEEP: Step = Step::new(RoundTrip, UnixStream, Sleeping).at(OneProcessor);
pub(crate) const WAKE: Step = Step::new(RoundTrip, Eventfd, Sleeping).at(OneProcessor);

pub(crate) const CONNECT: Step = Step::new(RoundTrip, XtipcConnect, Sleeping);
pub(crate) const TCP_CONNECT: Step = Step::new(RoundTrip, TcpConnect, Sleeping);
pub(crate) const EVENT: Step = Step::new(RoundTrip, XtipcEvent, Sleeping);
pub(crate) const LOOK_UP: Step = Step::new(RoundTrip, XtipcLookUp, Sleeping);
pub(crate) const MULTICAST: Step = Step::new(Rate, XtipcMulticast, Sleeping).times(RECEIVERS);
pub(crate) const GROUP: Step = Step::new(Rate, XtipcGroup, Sleeping).times(RECEIVERS);
pub(crate) const UDP_FAN: Step = Step::new(Rate, UdpFan, Sleeping).times(RECEIVERS);
/// So many senders, each as fast as it can.
pub(crate) const LOAD: Step = Step::new(Load, Xtipc, Sleeping);
pub(crate) const IDLE: Step = Step::new(Idle, Xtipc, Sleeping).times(SOCKETS);

/// Nodes of simulated clusters, and of those that take long.
const CLUSTERS: [usize; 5] = [2, 8, 16, 32, 64];
const LARGE_CLUSTERS: [usize; 3] = [128, 300, 1000];

/// Steps that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Set {
    /// Round trips and rates of 64 bytes between two nodes
    Wire,
    /// The same on one node
    Local,
    /// Rates by message size
    Sizes,
    /// Throughput by MTU
    Bulk,
    /// Connections, events, multicast and groups
    Setup,
    /// More senders than there is capacity for, and meanwhile urgent messages
    Load,
    /// Processor time and memory of an idle node
    Idle,
    /// Processor time of an idle node's engine by cluster size, in simulated time
    Cluster,
    /// Curves: 1 to 10,000 sockets, 1 to 64 peers in namespaces, up to 1,000 simulated nodes. Takes minutes and 8 GB: only if named
    Scale,
    /// For counted instructions: beside the kernel's TIPC on one processor; only with --operations
    Instructions,
}

impl Set {
    /// All but those that are only measured if they are named.
    pub(crate) const STANDARD: [Self; 8] = [
        Self::Wire,
        Self::Local,
        Self::Sizes,
        Self::Bulk,
        Self::Setup,
        Self::Load,
        Self::Idle,
        Self::Cluster,
    ];

    /// What is compared stands close together, and what has the same daemons too: each start of them costs a second.
    pub(crate) fn steps(self) -> Vec<Step> {
        match self {
            Self::Wire => vec![
                XSK_RS,
                RAW,
                EMBEDDED,
                Step::new(RoundTrip, Packet, Spinning),
                SPINNING_TCP,
                Step::new(RoundTrip, Udp, Spinning),
                EMBEDDED_CROWDED,
                TCP_CROWDED,
                SLEEPING_UDP,
                Step::new(RoundTrip, Zeromq, Sleeping),
                PACED_TCP,
                SLEEPING_TCP,
                NATIVE,
                GENERIC,
                SLEEPING_XTIPC,
                PACED_XTIPC,
                SPINNING_XTIPC,
                ZEROMQ_RATE,
                BUNDLED_RATE,
                SINGLE_RATE,
                UDP_RATE,
                RAW_RATE,
                XSK_RS_RATE,
                TCP_RATE,
                Step::new(Rate, Packet, Sleeping),
                KERNEL,
                KERNEL_RATE,
            ],
            Self::Local => vec![
                Step::new(RoundTrip, Eventfd, Sleeping).at(Together),
                LOCAL_TCP,
                UNIX_RATE,
                RING_RATE,
                ICEORYX2_RATE,
                LOCAL_RATE,
                ASLEEP.at(Together),
                ASLEEP,
                ICEORYX2,
                LOCAL,
                LOCAL_DATAGRAM,
                LOANED,
                LOANED.sized(4096),
                LOANED_LARGE,
                UNIX_LARGE,
                LOCAL_LARGE,
                LOCAL_MEMORY,
                Step::new(RoundTrip, Handover, Spinning).at(Together),
                LOCAL_UNIX,
                UNIX_ASLEEP,
                WAKE,
                SLEEPING_TCP.at(OneProcessor),
                Step::new(RoundTrip, Zeromq, Sleeping).at(Together),
                ZEROMQ_RATE.at(Together),
            ],
            Self::Sizes => by_size(),
            Self::Bulk => {
                let of = |mtu| {
                    [
                        bulk(TCP_RATE, mtu),
                        bulk(STREAM, mtu),
                        bulk(BUNDLED_RATE, mtu),
                    ]
                };
                let all = MTUS.into_iter().flat_map(of);
                std::iter::once(RAW_BULK).chain(all).collect()
            }
            Self::Setup => vec![
                TCP_CONNECT,
                CONNECT,
                EVENT,
                LOOK_UP,
                MULTICAST,
                GROUP,
                UDP_FAN,
            ],
            Self::Load => [1, 2, 3].map(|senders| LOAD.times(senders)).to_vec(),
            Self::Idle => vec![IDLE],
            Self::Cluster => CLUSTERS.map(cluster).to_vec(),
            Self::Scale => {
                let peers = |peers| Step::new(Peers, Xtipc, Sleeping).times(peers);
                let idle = SOCKETS_OF_CURVES.map(|sockets| IDLE.times(sockets));
                let beside = SOCKETS_OF_CURVES.map(|sockets| SLEEPING_XTIPC.times(sockets));
                let clusters = CLUSTERS.into_iter().chain(LARGE_CLUSTERS).map(cluster);
                let real = idle.into_iter().chain(beside);
                let real = real.chain(PEERS_OF_CURVES.map(peers));
                real.chain(clusters).collect()
            }
            Self::Instructions => vec![
                SLEEPING_TCP,
                SLEEPING_UDP,
                EMBEDDED_CROWDED,
                TCP_RATE,
                KERNEL,
                KERNEL_RATE,
                KERNEL_RATE.sized(LARGE),
                KERNEL.at(OneProcessor),
                KERNEL_RATE.at(OneProcessor),
                SLEEPING_XTIPC,
                BUNDLED_RATE,
                BUNDLED_RATE.sized(LARGE),
                ASLEEP,
                BUNDLED_RATE.at(OneProcessor),
            ],
        }
    }
}

const fn cluster(nodes: usize) -> Step {
    Step::new(Cluster, Xtipc, Sleeping).times(nodes)
}

/// First those without daemons.
fn by_size() -> Vec<Step> {
    let of = |step: Step| SIZES.map(|size| step.sized(size));
    let udp = of(UDP_RATE).into_iter().filter(|step| step.size <= UDP_MAX);
    udp.chain(of(TCP_RATE)).chain(of(BUNDLED_RATE)).collect()
}

/// The steps of these sets whose names contain each of these words, none twice.
pub(crate) fn select(sets: &[Set], words: &[String]) -> Vec<Step> {
    let selected = |step: &Step| {
        let name = step.to_string().to_lowercase();
        words.iter().all(|word| name.contains(&word.to_lowercase()))
    };
    let mut steps = Vec::new();
    for step in sets.iter().flat_map(|set| set.steps()).filter(selected) {
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals::COMPARISONS;
    use std::collections::HashSet;

    #[test]
    fn each_step_has_a_name_of_its_own() {
        let mut sets = Set::STANDARD.to_vec();
        sets.extend([Set::Scale, Set::Instructions]);
        let steps = select(&sets, &[]);
        let names: HashSet<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), steps.len());
    }

    #[test]
    fn whatever_is_compared_is_measured_in_one_set() {
        for comparison in COMPARISONS {
            let both = [comparison.step, comparison.against];
            let mut sets = Set::value_variants().iter().map(|set| set.steps());
            assert!(
                sets.any(|steps| both.iter().all(|step| steps.contains(step))),
                "{} / {}",
                comparison.step,
                comparison.against
            );
        }
    }

    #[test]
    fn steps_are_selected_by_words_of_their_names() {
        let of = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| word.to_string()).collect();
            select(&[Set::Wire], &words)
        };
        assert_eq!(of(&[]), Set::Wire.steps());
        assert_eq!(of(&["embedded", "spin"]), [EMBEDDED]);
        assert_eq!(of(&["rate", "XTIPC"]), [BUNDLED_RATE, SINGLE_RATE]);
        assert_eq!(of(&["trip tcp sleeping"]), [TCP_CROWDED, SLEEPING_TCP]);
        assert_eq!(of(&["sctp"]), []);
    }

    #[test]
    fn a_step_of_two_sets_is_measured_once() {
        let steps = select(&[Set::Wire, Set::Sizes], &[]);
        assert_eq!(
            steps.iter().filter(|&&step| step == BUNDLED_RATE).count(),
            1
        );
    }
}
