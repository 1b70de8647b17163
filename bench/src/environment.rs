//! Where a run was made: what a reader needs to judge its figures.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;
use xtipc_management::BearerMode;

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    pub(crate) version: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus_online: String,
    pub(crate) hypervisor: bool,
    /// By vulnerability, those this processor has.
    pub(crate) mitigations: BTreeMap<String, String>,
    pub(crate) cpus: [usize; 2],
    /// Of the session's autogroup, if the kernel has autogroups and let us.
    pub(crate) autogroup_nice: Option<i32>,
    /// The way the packets of xtipc took, as the daemon tells.
    pub(crate) bearer_mode: Option<BearerMode>,
}

impl Environment {
    pub(crate) fn record(cpus: [usize; 2], autogroup_nice: Option<i32>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or("", |(_, value)| value.trim())
        };
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            cpu: field("model name").into(),
            cpus_online: read("/sys/devices/system/cpu/online").trim().into(),
            hypervisor: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            mitigations: mitigations(),
            cpus,
            autogroup_nice,
            bearer_mode: None,
        }
    }
}

fn mitigations() -> BTreeMap<String, String> {
    let entries = fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            (text.trim() != "Not affected").then(|| (name, text.trim().to_owned()))
        })
        .collect()
}
