//! Answers to the operator's tools.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use xtipc_management::{
    AttachmentInfo, BearerInfo, Counters, FramePool, LinkInfo, LinkKind, LinkState, LinkStatistics,
    LinkSummary, NodeIdentity, NodeInfo, OwnNode, PeerInfo, Publication, Reply, Request, Response,
    Scope, SizeProfile, Status, WaitMethod, WorkerInfo, WorkerPolicy, WorkerState,
};
use xtipc_protocol::addr::{BearerId, NodeAddr};
use xtipc_protocol::engine::{LinkView, PeerView};
use xtipc_protocol::time::Instant;
use xtipc_protocol::{name, stats};
use xtipc_xsk::PageKind;

use super::Worker;
use super::application::Application;
use crate::clock::now_ns;
use crate::placement::list_text;
use crate::policy::Policy;
use crate::steward::Query;
use crate::wait::Backend;
use crate::watchdog::Phase;

pub(super) const BROADCAST_LINK: &str = "broadcast-link";

impl Worker {
    pub(super) fn answer(&mut self, now: Instant, query: &mut Query) -> Response {
        let request = &query.request;
        let reply = match request {
            Request::KeySet { .. } | Request::KeyFlush | Request::KeyGet => {
                return self.manage_keys(now, request, query.epoch);
            }
            Request::MonitorGet | Request::MonitorSet { .. } => {
                return self.manage_monitors(request);
            }
            Request::BearerEnable { .. }
            | Request::BearerDisable { .. }
            | Request::BearerAdd { .. }
            | Request::BearerRemove { .. }
            | Request::BearerSet { .. }
            | Request::LinkSet { .. }
            | Request::MediaSet { .. } => {
                return self.change(now, request, std::mem::take(&mut query.prepared));
            }
            Request::NodeList => Reply::Nodes(self.engine.peers().map(|p| node_info(&p)).collect()),
            Request::NodeGet => Reply::Node(self.own_node()),
            Request::LinkList => Reply::Links(self.link_summaries()),
            Request::LinkStatistics { filter } => {
                let mut links = self.links();
                links.retain(|link| filter.selects(&link.name));
                Reply::LinkStatistics(links)
            }
            Request::LinkGet { name } => {
                match self.links().into_iter().find(|link| link.name == *name) {
                    Some(link) => Reply::Link(link),
                    None => {
                        let text = format!("Link not found: there is no link \"{name}\"");
                        return Response::error(libc::EINVAL, text);
                    }
                }
            }
            Request::BearerList => Reply::Bearers(self.bearers()),
            Request::MediaList => Reply::Media(self.media.0.to_vec()),
            Request::NameTable => Reply::NameTable(self.publications()),
            Request::SocketList { details } => Reply::Sockets(self.sockets(*details)),
            Request::Status => Reply::Status(Box::new(self.status())),
        };
        Response::Ok(reply)
    }

    fn own_node(&self) -> OwnNode {
        let own = self.engine.own_addr();
        OwnNode {
            identity: NodeIdentity(self.engine.config().id.0),
            address: self.engine.trial_addr().0,
            address_is_final: own != NodeAddr::NONE,
            cluster_id: self.engine.config().net_id,
        }
    }

    fn bearers(&self) -> Vec<BearerInfo> {
        let now = Instant(now_ns());
        let all = (0..)
            .map(BearerId)
            .zip(&self.bearers)
            .filter_map(|(id, slot)| {
                let params = self.engine.bearer_params(id)?;
                let mut info = slot.as_ref()?.bearer.info();
                info.priority = params.priority.into();
                info.tolerance_ms = params.tolerance_ms;
                info.window = params.max_window.into();
                info.diagnosis = self.silence(now, id);
                Some(info)
            });
        all.collect()
    }

    fn link_summaries(&self) -> Vec<LinkSummary> {
        let mut links = vec![LinkSummary {
            name: BROADCAST_LINK.into(),
            up: true,
        }];
        let unicast = self.engine.peers().flat_map(|peer| peer.links);
        links.extend(unicast.map(|link| LinkSummary {
            name: link.name,
            up: link.up,
        }));
        links
    }

    fn links(&self) -> Vec<LinkInfo> {
        let send = self.engine.broadcast_link();
        let mut links = vec![LinkInfo {
            name: BROADCAST_LINK.into(),
            window: self.broadcast_window.into(),
            kind: LinkKind::BroadcastSend,
            statistics: statistics(&send.stats),
        }];
        for peer in self.engine.peers() {
            links.push(LinkInfo {
                name: format!("{BROADCAST_LINK}:{}", peer.id),
                window: send.window.into(),
                kind: LinkKind::BroadcastReceive,
                statistics: statistics(&peer.broadcast),
            });
            links.extend(peer.links.into_iter().map(link_info));
        }
        links
    }

    fn publications(&self) -> Vec<Publication> {
        let all = self.engine.publications().map(|p| Publication {
            service_type: p.range.type_,
            lower: p.range.lower,
            upper: p.range.upper,
            scope: scope(p.scope),
            port: p.port,
            address: p.node,
            node: self
                .engine
                .identity_of(NodeAddr(p.node))
                .map(|id| NodeIdentity(id.0)),
        });
        all.collect()
    }

    fn status(&self) -> Status {
        let counts = self.host.pool.counts();
        Status {
            instance: self.own.config.instance.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_ms: (now_ns() - self.started_ns) / 1_000_000,
            node: self.own_node(),
            workers: self.workers(),
            bearers: self.bearers(),
            frames: FramePool {
                frame_size: self.host.pool.frame_len() as u32,
                total: counts.total,
                free: counts.free,
                receive: (self.host.pool.len_in_use() / xtipc_xsk::CHUNK_SIZE) as u32
                    - counts.total * (self.host.pool.frame_len() / xtipc_xsk::CHUNK_SIZE) as u32,
                queued: counts.queued,
                in_tx: counts.in_tx,
                huge_pages: self.host.pool.page_kind() == PageKind::Huge2MiB,
            },
            attachments: self.attachments(),
            peers: self
                .engine
                .peers()
                .map(|peer| self.peer_info(&peer))
                .collect(),
            drops: drops(self.engine.drops()),
        }
    }

    fn peer_info(&self, peer: &PeerView) -> PeerInfo {
        let by_queue = |link: &LinkView| {
            let enabled = self.bearers[link.bearer.index()].as_ref()?;
            let queue = enabled.bearer.queue_to(&link.media_addr)?;
            Some((enabled.spec.name(), queue))
        };
        PeerInfo {
            identity: NodeIdentity(peer.id.0),
            address: peer.addr.0,
            up: peer.up,
            capabilities: peer.capabilities.0,
            links_up: peer.links.iter().filter(|link| link.up).count() as u32,
            links: peer.links.len() as u32,
            worker: 0,
            queues: peer.links.iter().filter_map(by_queue).collect(),
            frames: peer.links.iter().map(|link| link.queue_len as u32).sum(),
        }
    }

    fn workers(&self) -> Vec<WorkerInfo> {
        let config = &self.own.config;
        let all = self
            .own
            .pulses
            .iter()
            .enumerate()
            .map(|(index, pulse)| WorkerInfo {
                id: index as u32,
                thread_id: pulse.thread_id(),
                cpu: self.own.placement.cpu(index).map(|cpu| cpu as u32),
                policy: match config.policy {
                    Policy::Busy => WorkerPolicy::Busy,
                    Policy::Adaptive => WorkerPolicy::Adaptive,
                    Policy::Sleep => WorkerPolicy::Sleep,
                },
                state: match pulse.phase() {
                    Phase::Working => WorkerState::Working,
                    Phase::Spinning => WorkerState::Spinning,
                    Phase::Asleep => WorkerState::Sleeping,
                },
                numa_node: self.own.placement.numa_node(index),
                longest_gap_us: pulse.longest_gap_ns() / 1000,
                ..self.work_of(index)
            });
        all.collect()
    }

    /// What a worker itself tells of its rounds.
    fn work_of(&self, index: usize) -> WorkerInfo {
        let wait = |backend| match backend {
            Backend::IoUring => WaitMethod::IoUring,
            Backend::Epoll => WaitMethod::Epoll,
        };
        match self.own.crew.member(index) {
            None => WorkerInfo {
                wait: wait(self.waiter.backend()),
                rounds: self.rounds,
                sleeps: self.sleeps,
                spin_budget_us: (self.idle.spin_budget_ns() / 1000) as u32,
                ..WorkerInfo::default()
            },
            Some(member) => {
                let tally = &member.tally;
                WorkerInfo {
                    wait: wait(tally.backend()),
                    rounds: tally.rounds.load(Ordering::Relaxed),
                    sleeps: tally.sleeps.load(Ordering::Relaxed),
                    spin_budget_us: (tally.spin_budget_ns.load(Ordering::Relaxed) / 1000) as u32,
                    ..WorkerInfo::default()
                }
            }
        }
    }

    fn sent_directly(&self, application: &Application) -> u64 {
        let ports = application.sockets.keys();
        let channels = ports.flat_map(|port| self.host.applications.channels_of(*port));
        let sent = channels.map(|(_, direct)| direct.traffic().sent);
        application.sent_directly + sent.sum::<u64>()
    }

    fn attachments(&self) -> Vec<AttachmentInfo> {
        let all = self.host.applications.iter().map(|(slot, application)| {
            let sent_directly = self.sent_directly(application);
            let whereabouts = self.own.placement.whereabouts(application.process.pid, 0);
            AttachmentInfo {
                id: slot as u32,
                pid: application.process.pid,
                uid: application.process.uid,
                program: program_of(application.process.pid),
                cpus: list_text(&whereabouts.cpus),
                numa_nodes: whereabouts.numa_nodes,
                far: whereabouts.far,
                sockets: application.sockets.len() as u32,
                segment_bytes: application.side.segment_len() as u64,
                submitted: application.submitted,
                delivered: application.delivered,
                sent_directly,
                may_go_directly: sent_directly + application.detours,
                drops: Counters::new(),
            }
        });
        all.collect()
    }
}

fn node_info(peer: &PeerView) -> NodeInfo {
    NodeInfo {
        identity: NodeIdentity(peer.id.0),
        address: peer.addr.0,
        up: peer.up,
    }
}

fn link_info(link: LinkView) -> LinkInfo {
    LinkInfo {
        name: link.name,
        window: link.window.into(),
        kind: LinkKind::Unicast {
            state: match (link.up, link.active) {
                (true, true) => LinkState::Active,
                (true, false) => LinkState::Standby,
                (false, _) => LinkState::Defunct,
            },
            mtu: link.mtu as u32,
            priority: link.priority.into(),
            tolerance_ms: link.tolerance_ms,
            window_max: link.window_max.into(),
        },
        statistics: statistics(&link.stats),
    }
}

fn statistics(stats: &stats::LinkStats) -> LinkStatistics {
    LinkStatistics {
        rx_packets: stats.rx_packets,
        rx_fragments: stats.rx_fragments,
        rx_fragmented: stats.rx_fragmented,
        rx_bundles: stats.rx_bundles,
        rx_bundled: stats.rx_bundled,
        tx_packets: stats.tx_packets,
        tx_fragments: stats.tx_fragments,
        tx_fragmented: stats.tx_fragmented,
        tx_bundles: stats.tx_bundles,
        tx_bundled: stats.tx_bundled,
        tx_profile: SizeProfile {
            samples: stats.profile_samples,
            octets: stats.profile_bytes,
            counts: stats.profile,
        },
        rx_states: stats.rx_states,
        rx_probes: stats.rx_probes,
        rx_naks: stats.rx_naks,
        rx_deferred: stats.rx_deferred,
        rx_duplicates: stats.rx_duplicates,
        tx_states: stats.tx_states,
        tx_probes: stats.tx_probes,
        tx_naks: stats.tx_naks,
        tx_acks: stats.tx_acks,
        retransmitted: stats.retransmitted,
        link_congestions: stats.congested,
        send_queue_max: stats.queue_length_max,
        send_queue_average: stats
            .queue_length_sum
            .checked_div(stats.ticks.into())
            .unwrap_or(0) as u32,
    }
}

pub(super) fn scope(scope: name::Scope) -> Scope {
    match scope {
        name::Scope::Cluster => Scope::Cluster,
        name::Scope::Node => Scope::Node,
    }
}

fn drops(drops: &stats::Drops) -> Counters {
    drops
        .iter()
        .map(|(reason, count)| (reason.label().replace('_', "-"), count))
        .collect()
}

fn program_of(pid: u32) -> String {
    let path: PathBuf = ["/proc", &pid.to_string(), "comm"].iter().collect();
    std::fs::read_to_string(path)
        .map(|name| name.trim_end().to_owned())
        .unwrap_or_default()
}
