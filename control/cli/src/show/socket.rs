//! Sockets and the binding table. Reference: `docs/protocol/management.md`.

use serde::Serialize;
use xtipc_management::{
    Call, MemberLacks, Obstacle, Publication, Scope, SocketDetails, SocketInfo, SocketKind,
    SocketState, WindowUnit,
};

use super::printable;

pub(crate) fn table_text(table: &[Publication]) -> String {
    if table.is_empty() {
        return String::new();
    }
    let heading = format!(
        "{:<10} {:<10} {:<10} {:<8} {:<10} {:<33}\n",
        "Type", "Lower", "Upper", "Scope", "Port", "Node"
    );
    let row = |p: &Publication| {
        let (scope, node) = (scope_word(p.scope), node_text(p));
        format!(
            "{:<10} {:<10} {:<10} {scope:<8} {:<10} {node}\n",
            p.service_type, p.lower, p.upper, p.port
        )
    };
    heading + &table.iter().map(row).collect::<String>()
}

#[derive(Serialize)]
pub(crate) struct PublicationJson {
    #[serde(rename = "type")]
    service_type: u32,
    lower: u32,
    upper: u32,
    scope: &'static str,
    port: u32,
    node: String,
}

pub(crate) fn table_json(table: &[Publication]) -> Vec<PublicationJson> {
    table
        .iter()
        .map(|p| PublicationJson {
            service_type: p.service_type,
            lower: p.lower,
            upper: p.upper,
            scope: scope_word(p.scope),
            port: p.port,
            node: node_text(p),
        })
        .collect()
}

fn node_text(publication: &Publication) -> String {
    publication
        .node
        .map(|identity| identity.to_string())
        .unwrap_or_default()
}

fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Zone => "zone",
        Scope::Cluster => "cluster",
        Scope::Node => "node",
    }
}

pub(crate) fn list_text(sockets: &[SocketInfo]) -> String {
    sockets.iter().map(socket_text).collect()
}

/// A connected socket shows its peer, any other its bindings.
fn socket_text(socket: &SocketInfo) -> String {
    let mut text = format!("socket {}\n", socket.port);
    if let Some(peer) = &socket.connected {
        let via = peer
            .via
            .map(|via| format!(" via {{{},{}}}", via.service_type, via.instance));
        text += &format!(
            "  connected to {:x}:{}{}\n",
            peer.address,
            peer.port,
            via.unwrap_or_default()
        );
    } else {
        for b in &socket.bound {
            text += &format!(
                "  bound to {{{},{},{}}}\n",
                b.service_type, b.lower, b.upper
            );
        }
    }
    if let Some(details) = &socket.details {
        let owner = match (details.holders.as_slice(), socket.pid) {
            ([], None) => "xtipcd".to_owned(),
            ([], Some(pid)) => format!("pid {pid}"),
            (holders, _) => {
                let pids: Vec<String> = holders.iter().map(u32::to_string).collect();
                format!("pids {}", pids.join(" "))
            }
        };
        text += &format!(
            "  {} of {owner}  receive queue messages:{} octets:{}  drops:{}\n",
            kind_word(socket.kind),
            socket.receive_queue_messages,
            socket.receive_queue_bytes,
            socket.drops,
        );
        text += &details_text(details);
    }
    text
}

fn details_text(details: &SocketDetails) -> String {
    let mut facts = Vec::new();
    let state = match details.state {
        SocketState::Open => None,
        SocketState::Listening => Some("listening"),
        SocketState::Connecting => Some("connecting"),
        SocketState::Connected => Some("connected"),
        SocketState::Disconnected => Some("disconnected"),
    };
    facts.extend(state.map(str::to_owned));
    facts.extend(details.backlog.map(|count| format!("requests:{count}")));
    if let Some(window) = &details.window {
        let unit = match window.unit {
            WindowUnit::Blocks => "blocks",
            WindowUnit::Messages => "messages",
        };
        let (under_way, limit) = (window.under_way, window.limit);
        facts.push(format!("under way {unit}:{under_way} window:{limit}"));
        if window.gathered_bytes > 0 {
            facts.push(format!("gathered octets:{}", window.gathered_bytes));
        }
    }
    if let Some(channel) = &details.channel {
        facts.push(format!(
            "direct sent:{} received:{} unread:{}",
            channel.sent, channel.received, channel.unread
        ));
    }
    if let Some(subscriber) = &details.subscriber {
        facts.push(format!(
            "subscriptions:{} events waiting:{} unread:{}",
            subscriber.subscriptions, subscriber.events_waiting, subscriber.events_unread
        ));
    }
    let mut text = if facts.is_empty() {
        String::new()
    } else {
        format!("  {}\n", facts.join("  "))
    };
    if let Some(wait) = &details.waiting {
        let obstacle = obstacle_text(wait.obstacle.as_ref());
        text += &format!("  cannot send for {} ms: {obstacle}\n", wait.for_ms);
    }
    for calls in &details.calls {
        let call = match calls.call {
            Call::Send => "send",
            Call::Connect => "connect",
            Call::Accept => "accept",
            Call::Other => "other",
        };
        text += &format!(
            "  waits in {call}:{} for {} ms\n",
            calls.count, calls.for_ms
        );
    }
    text
}

fn obstacle_text(obstacle: Option<&Obstacle>) -> String {
    let least = |slowest: &Option<u32>| {
        slowest.map_or(String::new(), |node| {
            format!(", {node:x} has acknowledged least")
        })
    };
    match obstacle {
        None => "there is room again".to_owned(),
        Some(Obstacle::Peer { address, port }) => {
            format!("peer {address:x}:{port} does not read, the window is used up")
        }
        Some(Obstacle::Member {
            address,
            port,
            lacks,
        }) => {
            let member = format!("member {address:x}:{port}");
            match lacks {
                MemberLacks::Join => format!("{member} is bound and has not joined"),
                MemberLacks::Credit { window, needed } => {
                    format!("{member} does not read, blocks:{needed} window:{window}")
                }
                MemberLacks::Acknowledgement => {
                    format!("{member} has not acknowledged the last broadcast")
                }
            }
        }
        Some(Obstacle::Link { link, address }) => {
            format!("link {} to {address:x} is congested", printable(link))
        }
        Some(Obstacle::BroadcastLink { slowest }) => {
            format!("the broadcast link is congested{}", least(slowest))
        }
        Some(Obstacle::Bindings { slowest }) => {
            format!(
                "the cluster was not told of earlier bindings{}",
                least(slowest)
            )
        }
        Some(Obstacle::Frames) => "too few frames are free".to_owned(),
    }
}

fn kind_word(kind: SocketKind) -> &'static str {
    match kind {
        SocketKind::Rdm => "RDM",
        SocketKind::Dgram => "DGRAM",
        SocketKind::Seqpacket => "SEQPACKET",
        SocketKind::Stream => "STREAM",
        SocketKind::Subscriber => "SUBSCRIBER",
    }
}
