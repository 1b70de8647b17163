//! Who watches whom. Reference: `docs/protocol/management.md`.

use serde::Serialize;
use xtipc_management::{MonitorInfo, MonitoredInfo, MonitorsInfo};

use crate::json::Fields;

/// What stands in the JSON, in the order in which it is made.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Json {
    Number(u32),
    Text(String),
    Texts(Vec<String>),
    Nodes(Vec<Fields<&'static str, Json>>),
}

fn text(value: impl Into<String>) -> Json {
    Json::Text(value.into())
}

/// The selected bearer, or all.
pub(crate) fn selected(mut monitors: MonitorsInfo, bearer: Option<&str>) -> MonitorsInfo {
    monitors
        .bearers
        .retain(|monitor| bearer.is_none_or(|name| name == monitor.bearer));
    monitors
}

pub(crate) fn summary_text(monitors: &MonitorsInfo) -> String {
    let mut out = String::new();
    for monitor in &monitors.bearers {
        out += &format!(
            "\nbearer {}\n    table_generation {}\n    cluster_size {}\n    algorithm {}\n",
            monitor.bearer,
            monitor.generation,
            monitor.nodes.len(),
            algorithm(monitor)
        );
    }
    out
}

pub(crate) fn summary_json(monitors: &MonitorsInfo) -> Vec<Fields<&'static str, Json>> {
    let summary = |monitor: &MonitorInfo| {
        Fields(vec![
            ("bearer", text(&monitor.bearer)),
            ("table_generation", Json::Number(monitor.generation)),
            ("cluster_size", Json::Number(monitor.nodes.len() as u32)),
            ("algorithm", text(algorithm(monitor))),
        ])
    };
    monitors.bearers.iter().map(summary).collect()
}

pub(crate) fn list_text(monitors: &MonitorsInfo) -> String {
    let mut out = String::new();
    for monitor in &monitors.bearers {
        out += &format!(
            "\nbearer {}\n{:<14}{:<7}{:<10}{:<11}{}\n",
            monitor.bearer,
            "node",
            "status",
            "monitored",
            "generation",
            "applied_node_status [non_applied_node:status]"
        );
        for node in &monitor.nodes {
            let (status, monitored) = (super::node::state(node.up), monitored(node));
            out += &format!(
                "{:<14}{status:<7}{monitored:<10}{:<11}",
                place(node.address),
                node.generation
            );
            if let Some((applied, others)) = domain(node) {
                for (n, (_, up)) in applied.iter().enumerate() {
                    out += if n > 0 && n % 5 == 0 { "," } else { "" };
                    out += letter(*up);
                }
                let others = others.iter().map(of_other);
                out += &format!(" [{}]", others.collect::<Vec<_>>().join(","));
            }
            out.push('\n');
        }
    }
    out
}

pub(crate) fn list_json(monitors: &MonitorsInfo) -> Vec<Fields<String, Json>> {
    let of_node = |node: &MonitoredInfo| {
        let mut fields = vec![
            ("node", text(place(node.address))),
            ("status", text(super::node::state(node.up))),
            ("monitored", text(monitored(node))),
            ("generation", Json::Number(node.generation)),
        ];
        if let Some((applied, others)) = domain(node) {
            let applied = applied.iter().map(|(_, up)| letter(*up).to_owned());
            let others = others.iter().map(of_other);
            fields.push(("applied_node_status", Json::Texts(applied.collect())));
            fields.push(("[non_applied_node:status]", Json::Texts(others.collect())));
        }
        Fields(fields)
    };
    let of_bearer = |monitor: &MonitorInfo| {
        let nodes = monitor.nodes.iter().map(of_node).collect();
        Fields(vec![
            ("bearer".to_owned(), text(&monitor.bearer)),
            (monitor.bearer.clone(), Json::Nodes(nodes)),
        ])
    };
    monitors.bearers.iter().map(of_bearer).collect()
}

fn of_other((node, up): &Member) -> String {
    format!("{node:x}:{}", letter(*up))
}

fn algorithm(monitor: &MonitorInfo) -> &'static str {
    if monitor.ring {
        "overlapping-ring"
    } else {
        "full-mesh"
    }
}

fn monitored(node: &MonitoredInfo) -> &'static str {
    if node.direct { "direct" } else { "indirect" }
}

fn letter(up: bool) -> &'static str {
    if up { "U" } else { "D" }
}

/// An address in the three parts that it had once.
fn place(address: u32) -> String {
    format!(
        "{}.{}.{}",
        address >> 24,
        address >> 12 & 0xfff,
        address & 0xfff
    )
}

/// A node and whether it is up.
type Member = (u32, bool);

/// The members that follow the node on the own ring, and the others.
fn domain(node: &MonitoredInfo) -> Option<(&[Member], &[Member])> {
    let domain = node.domain.as_ref()?;
    Some(domain.split_at((node.applied as usize).min(domain.len())))
}
