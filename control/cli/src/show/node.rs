//! Nodes. Reference: `docs/protocol/management.md`.

use xtipc_management::{NodeInfo, OwnNode};

use crate::json::Fields;

pub(crate) fn list_text(nodes: &[NodeInfo]) -> String {
    let mut text = String::from("Node Identity                    Hash     State\n");
    for node in nodes {
        text += &format!(
            "{:<32} {:08x} {}\n",
            node.identity,
            node.address,
            state(node.up)
        );
    }
    text
}

pub(crate) fn identity_text(own: &OwnNode) -> String {
    format!(
        "Node Identity                    Hash\n{:<33}{:08x}\n",
        own.identity, own.address
    )
}

pub(crate) fn address_text(own: &OwnNode) -> String {
    format!("{:08x}\n", own.address)
}

pub(crate) fn cluster_id_text(own: &OwnNode) -> String {
    format!("{}\n", own.cluster_id)
}

/// A peer for scripts: `hash` as in the text, `address` the same number as name tables have it.
#[derive(serde::Serialize)]
pub(crate) struct NodeJson {
    identity: String,
    hash: String,
    address: u32,
    state: &'static str,
}

pub(crate) fn list_json(nodes: &[NodeInfo]) -> Vec<NodeJson> {
    nodes
        .iter()
        .map(|node| NodeJson {
            identity: node.identity.to_string(),
            hash: format!("{:08x}", node.address),
            address: node.address,
            state: state(node.up),
        })
        .collect()
}

pub(crate) fn identity_json(own: &OwnNode) -> [Fields<&'static str, String>; 1] {
    [Fields(vec![
        ("identity", own.identity.to_string()),
        ("hash", format!("{:08x}", own.address)),
    ])]
}

pub(crate) fn address_json(own: &OwnNode) -> [Fields<&'static str, String>; 1] {
    [Fields(vec![("address", format!("{:08x}", own.address))])]
}

pub(crate) fn cluster_id_json(own: &OwnNode) -> [Fields<&'static str, u32>; 1] {
    [Fields(vec![
        ("netid", own.cluster_id),
        ("clusterid", own.cluster_id),
    ])]
}

/// `[{key: value}]`, the JSON of a single property.
pub(crate) fn single(key: &'static str, value: u32) -> [Fields<&'static str, u32>; 1] {
    [Fields(vec![(key, value)])]
}

pub(crate) fn state(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}
