//! Sockets and the binding table. Reference: `docs/protocol/management.md`.

use serde::Serialize;
use xtipc_management::{Publication, Scope, SocketInfo, SocketKind};

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

pub(crate) fn list_text(sockets: &[SocketInfo], details: bool) -> String {
    sockets
        .iter()
        .map(|socket| socket_text(socket, details))
        .collect()
}

/// A connected socket shows its peer, any other its bindings.
fn socket_text(socket: &SocketInfo, details: bool) -> String {
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
    if details {
        let owner = socket
            .pid
            .map_or("xtipcd".to_owned(), |pid| format!("pid {pid}"));
        text += &format!(
            "  {} of {owner}  receive queue messages:{} octets:{}  drops:{}\n",
            kind_word(socket.kind),
            socket.receive_queue_messages,
            socket.receive_queue_bytes,
            socket.drops,
        );
    }
    text
}

fn kind_word(kind: SocketKind) -> &'static str {
    match kind {
        SocketKind::Rdm => "RDM",
        SocketKind::Dgram => "DGRAM",
        SocketKind::Seqpacket => "SEQPACKET",
        SocketKind::Stream => "STREAM",
    }
}
