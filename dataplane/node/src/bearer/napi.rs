//! Settings of an interface that make received packets wait: usual advice elsewhere, ruinous here.
//!
//! A kernel thread that polls the interface competes with workers and applications for their processors; interrupts that are
//! put off wait for somebody who polls, and the worker sleeps until there is one. Over veth the one was seen to cost
//! 8 ms at the 99th percentile, the other 200 us in each round trip.

use std::fs;
use std::path::Path;

use xtipc_xsk::interface::Interface;

/// Where the kernel shows the interfaces of the network namespace it was mounted in.
const INTERFACES: &str = "/sys/class/net";

/// What there is of these, with the remedy. Asked anew each time: they are changed at any time.
pub(super) fn warnings(interface: &Interface) -> Vec<String> {
    warnings_in(Path::new(INTERFACES), interface)
}

fn warnings_in(interfaces: &Path, interface: &Interface) -> Vec<String> {
    let directory = interfaces.join(&interface.name);
    let value = |setting: &str| {
        let text = fs::read_to_string(directory.join(setting)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    // It may be another namespace's that has the same name.
    if value("ifindex") != Some(interface.index.into()) {
        return Vec::new();
    }
    let is_set = |setting| value(setting).is_some_and(|value| value > 0);
    let path = directory.display();
    let mut warnings = Vec::new();
    if is_set("threaded") {
        warnings.push(format!(
            "threaded NAPI delays packets (echo 0 > {path}/threaded)"
        ));
    }
    if is_set("napi_defer_hard_irqs") && is_set("gro_flush_timeout") {
        warnings.push(format!(
            "deferred interrupts delay packets (echo 0 > {path}/napi_defer_hard_irqs)"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bearer::tests::interface;
    use xtipc_xsk::interface::DeviceKind;

    #[test]
    fn settings_that_delay_packets_are_named_with_their_remedy() {
        let interfaces = tempfile::tempdir().unwrap();
        let directory = interfaces.path().join("eth0");
        fs::create_dir(&directory).unwrap();
        let interface = interface(DeviceKind::Software, "veth");
        let set = |setting: &str, value: &str| fs::write(directory.join(setting), value).unwrap();
        let warnings = || warnings_in(interfaces.path(), &interface);
        for setting in ["threaded", "napi_defer_hard_irqs", "gro_flush_timeout"] {
            set(setting, "0\n");
        }
        set("ifindex", "7\n");
        assert!(warnings().is_empty());
        // Only both together put interrupts off.
        set("napi_defer_hard_irqs", "2\n");
        assert!(warnings().is_empty());
        set("gro_flush_timeout", "200000\n");
        assert!(matches!(&warnings()[..], [one] if one.ends_with("eth0/napi_defer_hard_irqs)")));
        set("threaded", "1\n");
        assert!(matches!(&warnings()[..], [one, _] if one.ends_with("eth0/threaded)")));
        set("ifindex", "8\n");
        assert!(warnings().is_empty(), "that is another interface");
    }
}
