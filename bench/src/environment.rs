//! Where a run was made: what a reader needs to judge its figures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xtipc_management::BearerMode;

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) version: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus_online: String,
    pub(crate) hypervisor: bool,
    /// By vulnerability, those this processor has.
    pub(crate) mitigations: BTreeMap<String, String>,
    /// Of the two nodes; those of the own host in a run between two.
    pub(crate) cpus: [usize; 2],
    /// Of the session's autogroup, if the kernel has autogroups and let us.
    pub(crate) autogroup_nice: Option<i32>,
    /// The interface between two hosts; of a run on one host it is a veth pair.
    pub(crate) interface: Option<InterfaceFacts>,
    /// The way the packets of xtipc took, as the daemon tells.
    pub(crate) bearer_mode: Option<BearerMode>,
}

/// How an interface is driven.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InterfaceFacts {
    pub(crate) name: String,
    pub(crate) driver: Option<String>,
    pub(crate) mtu: String,
    pub(crate) speed_mbit: Option<String>,
    /// Receive and transmit queues.
    pub(crate) queues: Vec<String>,
    /// Of interrupts with the interface's or its device's name: number, and the processors that may serve it.
    pub(crate) interrupts: BTreeMap<String, String>,
    /// What the processors to which the queues are steered are (`rps_cpus`, `xps_cpus`), where any.
    pub(crate) steering: BTreeMap<String, String>,
}

fn read(path: impl AsRef<Path>) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

impl Environment {
    pub(crate) fn record(cpus: [usize; 2], autogroup_nice: Option<i32>) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or("", |(_, value)| value.trim())
        };
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: field("model name").into(),
            cpus_online: read("/sys/devices/system/cpu/online"),
            hypervisor: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            mitigations: mitigations(),
            cpus,
            autogroup_nice,
            interface: None,
            bearer_mode: None,
        }
    }
}

impl Environment {
    /// By name, what makes runs differ.
    pub(crate) fn facts(&self) -> BTreeMap<&'static str, String> {
        let [first, second] = self.cpus;
        let mut facts = BTreeMap::from([
            ("version", self.version.clone()),
            ("kernel", self.kernel.clone()),
            ("processor", self.cpu.clone()),
            ("processors", format!("{first} and {second}")),
            ("mitigations", format!("{:?}", self.mitigations)),
            ("priority", format!("{:?}", self.autogroup_nice)),
        ]);
        if let Some(mode) = self.bearer_mode {
            facts.insert("mode", format!("{mode:?}"));
        }
        if let Some(interface) = &self.interface {
            let driver = interface.driver.clone().unwrap_or_default();
            let speed = interface.speed_mbit.clone().unwrap_or_default();
            facts.insert("driver", driver);
            facts.insert("MTU", interface.mtu.clone());
            facts.insert("speed", speed);
            facts.insert("queues", interface.queues.join(" "));
            facts.insert("steering", format!("{:?}", interface.steering));
        }
        facts
    }
}

impl InterfaceFacts {
    pub(crate) fn record(name: &str) -> Self {
        let device = Path::new("/sys/class/net").join(name);
        let link = |path: &str| {
            let target = fs::read_link(device.join(path)).ok()?;
            Some(target.file_name()?.to_string_lossy().into_owned())
        };
        let speed = read(device.join("speed"));
        let mut queues: Vec<String> = names(&device.join("queues"));
        queues.sort();
        let mut steering = BTreeMap::new();
        for queue in &queues {
            for file in ["rps_cpus", "xps_cpus"] {
                let processors = read(device.join("queues").join(queue).join(file));
                if processors.chars().any(|c| !matches!(c, '0' | ',')) {
                    steering.insert(format!("{queue}/{file}"), processors);
                }
            }
        }
        Self {
            name: name.into(),
            driver: link("device/driver"),
            mtu: read(device.join("mtu")),
            speed_mbit: (!speed.is_empty() && speed != "-1").then_some(speed),
            interrupts: interrupts(name, link("device").as_deref()),
            queues,
            steering,
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// By number and name, the processors that serve interrupts of the interface or of its device.
fn interrupts(interface: &str, device: Option<&str>) -> BTreeMap<String, String> {
    let table = read("/proc/interrupts");
    let of_interface = |line: &&str| {
        line.contains(interface) || device.is_some_and(|device| line.contains(device))
    };
    let lines = table.lines().filter(of_interface);
    lines
        .filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let name = rest.split_whitespace().last()?;
            let place = format!("/proc/irq/{}/smp_affinity_list", number.trim());
            Some((format!("{} {name}", number.trim()), read(place)))
        })
        .collect()
}

fn mitigations() -> BTreeMap<String, String> {
    let directory = Path::new("/sys/devices/system/cpu/vulnerabilities");
    let known = names(directory).into_iter();
    known
        .map(|name| (read(directory.join(&name)), name))
        .filter(|(text, _)| !text.is_empty() && text != "Not affected")
        .map(|(text, name)| (name, text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_an_interface_are_those_of_the_kernel() {
        let facts = InterfaceFacts::record("lo");
        assert_eq!((facts.name.as_str(), facts.driver), ("lo", None));
        assert!(facts.mtu.parse::<u32>().is_ok());
        assert!(facts.queues.iter().any(|queue| queue == "rx-0"));
    }
}
