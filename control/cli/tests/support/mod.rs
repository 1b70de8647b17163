//! A daemon that only answers, with the facts behind the samples of `docs/protocol/management.md`, and the real
//! binary asking it.
#![allow(dead_code, reason = "each test binary uses its part of this module")]

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use tempfile::TempDir;
use xtipc_management::*;

/// A control socket in a directory of its own.
pub(crate) struct FakeDaemon {
    directory: TempDir,
}

impl FakeDaemon {
    /// Answers every request with the facts of this module.
    pub(crate) fn start() -> Self {
        Self::answering(answer)
    }

    /// Answers every request by `answer`.
    pub(crate) fn answering(answer: fn(Request) -> Response) -> Self {
        Self::accepting(move |stream| {
            serve(&stream, answer).expect("xtipc keeps to the framing");
        })
    }

    /// Does with each connection what `handle` says, until the test process ends.
    pub(crate) fn accepting(
        handle: impl Fn(std::os::unix::net::UnixStream) + Send + 'static,
    ) -> Self {
        let directory = TempDir::new().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("control.sock")).expect("a socket");
        thread::spawn(move || {
            listener
                .incoming()
                .for_each(|stream| handle(stream.expect("a client")))
        });
        Self { directory }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// Runs `xtipc LINE` against this daemon.
    pub(crate) fn xtipc(&self, line: &str) -> Outcome {
        run(command(&self.socket(), line)).expect("xtipc runs")
    }
}

/// `xtipc --socket SOCKET LINE`.
pub(crate) fn command(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtipc"));
    command
        .arg("--socket")
        .arg(socket)
        .args(line.split_whitespace());
    command
}

/// What a run left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: Option<i32>,
}

pub(crate) fn run(mut command: Command) -> io::Result<Outcome> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output()?;
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ok(Outcome {
        stdout: text(stdout),
        stderr: text(stderr),
        status: status.code(),
    })
}

fn text_identity(name: &str) -> NodeIdentity {
    name.parse().expect("an identity")
}

fn own_identity() -> NodeIdentity {
    NodeIdentity([0x0a, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

const NODE_2: u32 = 0x435d_6465;
const OWN: u32 = 0x0a01_0000;

fn answer(request: Request) -> Response {
    Response::Ok(match request {
        Request::NodeList => Reply::Nodes(vec![
            NodeInfo {
                identity: text_identity("node-3"),
                address: 0x435c_6465,
                up: false,
            },
            NodeInfo {
                identity: text_identity("node-2"),
                address: NODE_2,
                up: true,
            },
        ]),
        Request::NodeGet => Reply::Node(own_node()),
        Request::LinkList => Reply::Links(
            [
                ("broadcast-link", true),
                ("0a0000000001:eth0-node-3:eth0", true),
                (NODE_2_LINK, false),
            ]
            .map(|(name, up)| LinkSummary {
                name: name.to_owned(),
                up,
            })
            .into(),
        ),
        Request::LinkStatistics { filter } => Reply::LinkStatistics(
            links()
                .into_iter()
                .filter(|link| filter.selects(&link.name))
                .collect(),
        ),
        Request::LinkGet { name } => match links().into_iter().find(|link| link.name == name) {
            Some(link) => Reply::Link(link),
            None => return Response::error(22, ""),
        },
        Request::BearerList => Reply::Bearers(bearers()),
        Request::MediaList => Reply::Media(vec![
            MediaInfo {
                name: "eth".to_owned(),
                priority: 10,
                tolerance_ms: 1500,
                window: 8191,
                mtu: None,
            },
            MediaInfo {
                name: "udp".to_owned(),
                priority: 10,
                tolerance_ms: 1500,
                window: 50,
                mtu: Some(14_000),
            },
        ]),
        Request::NameTable => Reply::NameTable(name_table()),
        Request::SocketList { details } => Reply::Sockets(sockets(details)),
        Request::Status => Reply::Status(Box::new(status())),
        Request::BearerEnable { .. }
        | Request::BearerDisable { .. }
        | Request::BearerSet { .. }
        | Request::BearerAdd { .. }
        | Request::BearerRemove { .. }
        | Request::LinkSet { .. }
        | Request::MediaSet { .. }
        | Request::KeySet { .. }
        | Request::KeyFlush
        | Request::MonitorSet { .. } => Reply::Done,
        Request::MonitorGet => Reply::Monitors(monitors()),
        Request::KeyGet => Reply::Keys(KeysInfo {
            master: true,
            active: Some(SessionKeyInfo {
                slot: 2,
                cluster: false,
                bits: 128,
            }),
            pending: None,
            peers: 2,
            rekeying_minutes: 1440,
            sealed: 1234,
            opened: 2345,
            switches: 6,
        }),
    })
}

fn monitors() -> MonitorsInfo {
    let node = |address, up, direct, domain: Option<&[(u32, bool)]>, applied| MonitoredInfo {
        address,
        up,
        direct,
        generation: if domain.is_some() { 2 } else { 0 },
        domain: domain.map(<[_]>::to_vec),
        applied,
    };
    let seven = [1, 2, 3, 4, 5, 6, 7].map(|address| (0x0100_1000 + address, address != 3));
    MonitorsInfo {
        threshold: 32,
        bearers: vec![MonitorInfo {
            bearer: "eth:eth0".to_owned(),
            generation: 2,
            ring: false,
            nodes: vec![
                node(OWN, true, true, Some(&[]), 0),
                node(NODE_2, true, true, Some(&seven), 6),
                node(0x435c_6465, false, false, None, 0),
            ],
        }],
    }
}

fn own_node() -> OwnNode {
    OwnNode {
        identity: own_identity(),
        address: OWN,
        address_is_final: true,
        cluster_id: 4711,
    }
}

const NODE_2_LINK: &str = "0a0000000001:eth0-node-2:eth0";

fn links() -> Vec<LinkInfo> {
    let broadcast = |name: &str, kind| LinkInfo {
        name: name.to_owned(),
        window: 50,
        kind,
        statistics: LinkStatistics::default(),
    };
    vec![
        broadcast("broadcast-link", LinkKind::BroadcastSend),
        broadcast("broadcast-link:node-2", LinkKind::BroadcastReceive),
        LinkInfo {
            name: NODE_2_LINK.to_owned(),
            window: 50,
            kind: LinkKind::Unicast {
                window_max: 8191,
                state: LinkState::Active,
                mtu: 1500,
                priority: 10,
                tolerance_ms: 1500,
            },
            statistics: LinkStatistics {
                rx_packets: 2,
                tx_packets: 2,
                tx_profile: SizeProfile {
                    samples: 1,
                    octets: 40,
                    counts: [1, 0, 0, 0, 0, 0, 0],
                },
                rx_states: 48,
                rx_probes: 23,
                tx_states: 48,
                tx_probes: 23,
                tx_acks: 1,
                ..LinkStatistics::default()
            },
        },
    ]
}

fn name_table() -> Vec<Publication> {
    let row = |service_type, lower, scope, port, address| Publication {
        service_type,
        lower,
        upper: lower,
        scope,
        port,
        address,
        node: Some(if address == OWN {
            own_identity()
        } else {
            text_identity("node-2")
        }),
    };
    vec![
        row(0, OWN, Scope::Cluster, 0, OWN),
        row(0, NODE_2, Scope::Cluster, 0, NODE_2),
        row(1, 1, Scope::Node, 1_168_781_436, OWN),
        row(2, NODE_2, Scope::Node, 0, OWN),
        row(18_888, 17, Scope::Cluster, 2_222_222_222, NODE_2),
    ]
}

fn sockets(details: bool) -> Vec<SocketInfo> {
    let socket = |port, kind, pid| SocketInfo {
        port,
        kind,
        pid,
        bound: Vec::new(),
        connected: None,
        receive_queue_messages: 0,
        receive_queue_bytes: 0,
        drops: 0,
        details: details.then(SocketDetails::default),
    };
    let mut sockets = vec![
        SocketInfo {
            bound: vec![Binding {
                service_type: 1,
                lower: 1,
                upper: 1,
                scope: Scope::Node,
            }],
            ..socket(1_168_781_436, SocketKind::Seqpacket, None)
        },
        SocketInfo {
            connected: Some(Connection {
                address: NODE_2,
                port: 2_222_222_222,
                via: Some(ServiceAddress {
                    service_type: 18_888,
                    instance: 17,
                }),
            }),
            receive_queue_messages: 2,
            receive_queue_bytes: 300,
            ..socket(1_000_000_002, SocketKind::Stream, Some(99))
        },
        SocketInfo {
            drops: 7,
            ..socket(1_000_000_003, SocketKind::Rdm, Some(99))
        },
    ];
    if details {
        add_details(&mut sockets);
        sockets.push(SocketInfo {
            details: Some(SocketDetails {
                subscriber: Some(SubscriberInfo {
                    subscriptions: 3,
                    events_waiting: 10,
                    events_unread: 256,
                }),
                ..SocketDetails::default()
            }),
            ..socket(1_000_000_004, SocketKind::Subscriber, Some(98))
        });
    }
    sockets
}

/// A listener, a connection whose peer does not read, and a datagram socket behind a congested link.
fn add_details(sockets: &mut [SocketInfo]) {
    let waits = |obstacle| {
        Some(SendWait {
            for_ms: 1234,
            obstacle: Some(obstacle),
        })
    };
    sockets[0].details = Some(SocketDetails {
        state: SocketState::Listening,
        backlog: Some(2),
        calls: vec![WaitingCalls {
            call: Call::Accept,
            count: 1,
            for_ms: 60_000,
        }],
        ..SocketDetails::default()
    });
    sockets[1].details = Some(SocketDetails {
        state: SocketState::Connected,
        window: Some(ConnectionWindow {
            unit: WindowUnit::Blocks,
            under_way: 177,
            limit: 128,
            gathered_bytes: 12,
        }),
        channel: Some(ChannelInfo {
            sent: 12_345,
            received: 12_340,
            unread: 3,
        }),
        waiting: waits(Obstacle::Peer {
            address: NODE_2,
            port: 2_222_222_222,
        }),
        calls: vec![WaitingCalls {
            call: Call::Send,
            count: 1,
            for_ms: 1234,
        }],
        ..SocketDetails::default()
    });
    sockets[2].details = Some(SocketDetails {
        holders: vec![99, 101],
        waiting: waits(Obstacle::Link {
            link: "0a0000000001:eth0-node-2:eth0".to_owned(),
            address: NODE_2,
        }),
        ..SocketDetails::default()
    });
}

fn counters(name: &str, count: u64) -> Counters {
    Counters::from([
        (name.to_owned(), count),
        ("never-shown-in-text".to_owned(), 0),
    ])
}

fn bearers() -> Vec<BearerInfo> {
    let links = BearerInfo {
        priority: 10,
        tolerance_ms: 1500,
        window: 50,
        ..BearerInfo::default()
    };
    vec![
        BearerInfo {
            name: "eth:eth0".to_owned(),
            media: Media::Eth,
            mode: BearerMode::XdpGeneric,
            mode_reason: "generic is the faster copy mode on veth".to_owned(),
            up: true,
            media_address: "0a:00:00:00:00:01".to_owned(),
            mtu: 1500,
            rx_packets: 12,
            rx_bytes: 1234,
            tx_packets: 10,
            tx_bytes: 1000,
            drops: counters("own-frame-reflected", 3),
            classifier: counters("redirected", 12),
            queues: vec![QueueInfo {
                worker: 1,
                rx_packets: 12,
                tx_packets: 10,
                kernel: counters("rx-dropped", 1),
                handover: counters("rx", 12),
                ..QueueInfo::default()
            }],
            numa_node: Some(1),
            steering: Some(Steering {
                way: SteeringWay::Software,
                reason: "one queue".to_owned(),
            }),
            interrupts: Some(Interrupts {
                placed: true,
                reason: "at the processors of the workers".to_owned(),
                lines: vec![Interrupt {
                    number: 27,
                    name: "eth0-TxRx-0".to_owned(),
                    queue: 0,
                    cpus: "1".to_owned(),
                }],
            }),
            ..links.clone()
        },
        BearerInfo {
            name: "udp:UDP1".to_owned(),
            media: Media::Udp,
            mode: BearerMode::Udp,
            media_address: "10.9.0.1:6118".to_owned(),
            udp: Some(UdpAddresses {
                local: "10.9.0.1:6118".parse().expect("an address"),
                remotes: vec![
                    "10.9.0.7:6118".parse().expect("an address"),
                    "10.9.0.2:7000".parse().expect("an address"),
                ],
            }),
            mtu: 14_000,
            ..links
        },
    ]
}

fn status() -> Status {
    Status {
        instance: Some("blue".to_owned()),
        version: "0.1.0".to_owned(),
        pid: 4711,
        uptime_ms: 90_123_456,
        node: own_node(),
        workers: vec![WorkerInfo {
            thread_id: 4712,
            cpu: Some(1),
            numa_node: Some(0),
            rounds: 1000,
            sleeps: 90,
            longest_gap_us: 312,
            spin_budget_us: 20,
            ..WorkerInfo::default()
        }],
        bearers: bearers(),
        frames: FramePool {
            frame_size: 4096,
            total: 4096,
            free: 2047,
            receive: 2048,
            queued: 1,
            in_tx: 0,
            huge_pages: false,
        },
        attachments: vec![AttachmentInfo {
            id: 1,
            pid: 99,
            uid: 1000,
            program: "hel\x1blo".to_owned(),
            cpus: "0,2".to_owned(),
            numa_nodes: vec![0, 1],
            far: true,
            sockets: 2,
            segment_bytes: 1 << 20,
            submitted: 5,
            delivered: 6,
            sent_directly: 1000,
            may_go_directly: 1032,
            drops: counters("no-such-service", 1),
        }],
        peers: vec![PeerInfo {
            identity: text_identity("node-2"),
            address: NODE_2,
            up: true,
            capabilities: 0x7fff,
            links_up: 1,
            links: 1,
            worker: 0,
            queues: BTreeMap::from([("eth:eth0".to_owned(), 0)]),
            frames: 1,
        }],
        drops: counters("garbage", 4),
    }
}
