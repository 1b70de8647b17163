//! How the daemon runs.

use std::collections::BTreeMap;

use serde::Serialize;
use xtipc_management::{
    AttachmentInfo, BearerInfo, Counters, FramePool, PeerInfo, Status, WaitMethod, WorkerInfo,
    WorkerPolicy, WorkerState,
};

use super::bearer::{counters_text, details_text};
use super::{node::state, printable};

pub(crate) fn text(status: &Status) -> String {
    let instance = status
        .instance
        .as_ref()
        .map(|name| format!("  instance {name}"))
        .unwrap_or_default();
    let trial = if status.node.address_is_final {
        ""
    } else {
        " (on trial)"
    };
    let mut text = format!(
        "xtipcd {}{instance}  pid {}  up {}\nnode {}  address {:08x}{trial}  cluster id {}\n",
        status.version,
        status.pid,
        duration(status.uptime_ms / 1000),
        if status.node.identity.is_unset() {
            "without identity".to_owned()
        } else {
            status.node.identity.to_string()
        },
        status.node.address,
        status.node.cluster_id,
    );
    text.extend(status.workers.iter().map(worker_text));
    text.extend(
        status
            .bearers
            .iter()
            .map(|bearer| format!("bearer {}\n{}", bearer.name, details_text(bearer))),
    );
    text += &frames_text(&status.frames);
    text.extend(status.peers.iter().map(peer_text));
    text.extend(status.attachments.iter().map(attachment_text));
    text + &counters_text("drops", &status.drops)
}

fn worker_text(worker: &WorkerInfo) -> String {
    let place = match (worker.cpu, worker.numa_node) {
        (Some(cpu), Some(node)) => format!("cpu {cpu} of NUMA node {node}"),
        (Some(cpu), None) => format!("cpu {cpu}"),
        (None, Some(node)) => format!("on NUMA node {node}"),
        (None, None) => "not pinned".to_owned(),
    };
    let policy = match worker.policy {
        WorkerPolicy::Busy => "busy",
        WorkerPolicy::Adaptive => "adaptive",
        WorkerPolicy::Sleep => "sleep",
    };
    let doing = match worker.state {
        WorkerState::Working => "working",
        WorkerState::Spinning => "spinning",
        WorkerState::Sleeping => "sleeping",
    };
    let wait = match worker.wait {
        WaitMethod::IoUring => "io_uring",
        WaitMethod::Epoll => "epoll",
    };
    format!(
        "worker {}  {place}  policy {policy}  {doing}  waits in {wait}\n  \
         rounds:{} sleeps:{} longest gap:{} us spin budget:{} us\n",
        worker.id, worker.rounds, worker.sleeps, worker.longest_gap_us, worker.spin_budget_us,
    )
}

fn frames_text(frames: &FramePool) -> String {
    let pages = if frames.huge_pages {
        "2 MiB pages"
    } else {
        "4 KiB pages"
    };
    format!(
        "frames {} of {} octets in {pages}\n  free:{} receive:{} queued:{} in tx:{}\n",
        frames.total, frames.frame_size, frames.free, frames.receive, frames.queued, frames.in_tx,
    )
}

fn peer_text(peer: &PeerInfo) -> String {
    let head = format!(
        "peer {}  address {:08x}  {}  links up:{}/{} worker:{} frames:{}\n",
        peer.identity,
        peer.address,
        state(peer.up),
        peer.links_up,
        peer.links,
        peer.worker,
        peer.frames,
    );
    let by_queue =
        |(bearer, queue): (&String, &u32)| format!("  sent to by queue {queue} of {bearer}\n");
    head + &peer.queues.iter().map(by_queue).collect::<String>()
}

fn attachment_text(attachment: &AttachmentInfo) -> String {
    let head = format!(
        "attachment {}  {} (pid {}, uid {})  sockets:{} segment:{} octets submitted:{} delivered:{} direct:{}/{}\n",
        attachment.id,
        printable(&attachment.program),
        attachment.pid,
        attachment.uid,
        attachment.sockets,
        attachment.segment_bytes,
        attachment.submitted,
        attachment.delivered,
        attachment.sent_directly,
        attachment.may_go_directly,
    );
    head + &place_text(attachment) + &counters_text("  drops", &attachment.drops)
}

/// Where a program runs.
fn place_text(attachment: &AttachmentInfo) -> String {
    if attachment.cpus.is_empty() {
        return String::new();
    }
    let nodes: Vec<_> = attachment.numa_nodes.iter().map(u32::to_string).collect();
    let nodes = match nodes.is_empty() {
        true => String::new(),
        false => format!(" of NUMA node {}", nodes.join(", ")),
    };
    let far = match attachment.far {
        true => "  WARNING: not the NUMA node of its worker",
        false => "",
    };
    format!("  ran on cpu {}{nodes}{far}\n", attachment.cpus)
}

fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days == 0 {
        clock
    } else {
        format!("{days}d {clock}")
    }
}

/// The status with identities in their text form; everything else as the daemon gave it.
#[derive(Serialize)]
pub(crate) struct StatusJson<'a> {
    instance: Option<&'a str>,
    version: &'a str,
    pid: u32,
    uptime_ms: u64,
    node: OwnNodeJson,
    workers: &'a [WorkerInfo],
    bearers: &'a [BearerInfo],
    frames: &'a FramePool,
    peers: Vec<PeerJson<'a>>,
    attachments: &'a [AttachmentInfo],
    drops: &'a Counters,
}

#[derive(Serialize)]
struct OwnNodeJson {
    identity: String,
    hash: String,
    address: u32,
    address_is_final: bool,
    cluster_id: u32,
}

#[derive(Serialize)]
struct PeerJson<'a> {
    identity: String,
    hash: String,
    address: u32,
    state: &'static str,
    capabilities: u16,
    links_up: u32,
    links: u32,
    worker: u32,
    queues: &'a BTreeMap<String, u32>,
    frames: u32,
}

pub(crate) fn json(status: &Status) -> StatusJson<'_> {
    StatusJson {
        instance: status.instance.as_deref(),
        version: &status.version,
        pid: status.pid,
        uptime_ms: status.uptime_ms,
        node: OwnNodeJson {
            identity: status.node.identity.to_string(),
            hash: format!("{:08x}", status.node.address),
            address: status.node.address,
            address_is_final: status.node.address_is_final,
            cluster_id: status.node.cluster_id,
        },
        workers: &status.workers,
        bearers: &status.bearers,
        frames: &status.frames,
        peers: status.peers.iter().map(peer_json).collect(),
        attachments: &status.attachments,
        drops: &status.drops,
    }
}

fn peer_json(peer: &PeerInfo) -> PeerJson<'_> {
    PeerJson {
        identity: peer.identity.to_string(),
        hash: format!("{:08x}", peer.address),
        address: peer.address,
        state: state(peer.up),
        capabilities: peer.capabilities,
        links_up: peer.links_up,
        links: peer.links,
        worker: peer.worker,
        queues: &peer.queues,
        frames: peer.frames,
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn a_duration_shows_days_only_when_there_are_any() {
        assert_eq!(duration(3_725), "01:02:05");
        assert_eq!(duration(2 * 86_400 + 59), "2d 00:00:59");
    }
}
