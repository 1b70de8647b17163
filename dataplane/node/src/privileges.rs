//! What the daemon needs of the kernel before it opens a bearer: version, capabilities, lockable memory.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::config::{Config, MediaSpec, XdpMode};

/// One umem over several queues, and BPF links that go with the process.
const KERNEL_MIN: (u32, u32) = (5, 10);

/// Why the daemon cannot run here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The kernel is too old, or its version is not one.
    #[error("Linux {release} is not supported; accepted: 5.10 or newer")]
    Kernel {
        /// What the kernel calls itself.
        release: String,
    },
    /// Bearers are configured that the process may not open.
    #[error(
        "missing privileges: {missing}; needed by bearers on interfaces with xdp = {mode}; accepted: run as root, \
         give the unit AmbientCapabilities={missing}, or configure none"
    )]
    Capabilities {
        /// The missing ones, separated by spaces.
        missing: String,
        /// The AF_XDP mode that needs them.
        mode: &'static str,
    },
}

/// Refuses kernels that lack what every part relies on.
pub fn check_kernel() -> Result<(), Refusal> {
    let uname = rustix::system::uname();
    check_release(&uname.release().to_string_lossy())
}

fn check_release(release: &str) -> Result<(), Refusal> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    match (next(), next()) {
        (Some(major), Some(minor)) if (major, minor) >= KERNEL_MIN => Ok(()),
        _ => Err(Refusal::Kernel {
            release: release.into(),
        }),
    }
}

/// Refuses when a capability is missing that the configured bearers need.
pub fn check_capabilities(config: &Config) -> Result<(), Refusal> {
    // Not to know the own capabilities does not happen; opening the bearer would say what is missing.
    let have = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective);
    check_effective(config, have)
}

/// Memory that is shared and plain UDP sockets take no privileges.
fn is_of_interface(media: &MediaSpec) -> bool {
    match media {
        MediaSpec::Ethernet(_) | MediaSpec::InfiniBand => true,
        MediaSpec::Udp(udp) => udp.interface().is_some(),
        MediaSpec::SharedMemory(_) => false,
    }
}

fn check_effective(config: &Config, have: CapabilitySet) -> Result<(), Refusal> {
    if !config
        .bearers
        .iter()
        .any(|bearer| is_of_interface(&bearer.media))
    {
        return Ok(());
    }
    let mut needed = vec![
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    ];
    if config.xdp != XdpMode::Off {
        needed.push((CapabilitySet::BPF, "CAP_BPF"));
        needed.push((CapabilitySet::IPC_LOCK, "CAP_IPC_LOCK"));
    }
    // SYS_ADMIN is what BPF was split from and still includes it.
    let have = if have.contains(CapabilitySet::SYS_ADMIN) {
        have | CapabilitySet::BPF
    } else {
        have
    };
    let missing: Vec<_> = needed
        .iter()
        .filter(|(capability, _)| !have.contains(*capability))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal::Capabilities {
        missing: missing.join(" "),
        mode: match config.xdp {
            XdpMode::Auto => "auto",
            XdpMode::Zerocopy => "zerocopy",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Off => "off",
        },
    })
}

/// Lets the frame pool be locked in memory: without limit if allowed, else up to the hard limit.
/// Returns the limit that holds now in bytes, `None` for none.
pub fn raise_memlock() -> Option<u64> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let hard = getrlimit(Resource::Memlock).maximum;
        let highest = Rlimit {
            current: hard,
            maximum: hard,
        };
        // Raising to the hard limit is always allowed; what holds is read back below.
        let _ = setrlimit(Resource::Memlock, highest);
    }
    getrlimit(Resource::Memlock).current
}

/// Lets the process have as many descriptors as the hard limit allows: the usual soft one is for programs that call select,
/// and each application takes a handful, each socket with a descriptor one more.
pub fn raise_open_files() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let highest = Rlimit {
        current: hard,
        maximum: hard,
    };
    // Always allowed.
    let _ = setrlimit(Resource::Nofile, highest);
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::CommandLine;

    fn config(flags: &[&str]) -> Config {
        let line = ["xtipcd"].into_iter().chain(flags.iter().copied());
        Config::load(CommandLine::parse_from(line), None).unwrap()
    }

    #[test]
    fn kernels_from_5_10_on_are_taken() {
        for release in ["5.10", "5.10.0-28-amd64", "5.15.2", "6.1.0", "10.0-rc1"] {
            assert_eq!(check_release(release), Ok(()), "{release}");
        }
        for release in ["5.9.99", "4.19.0", "", "six", "6"] {
            let refusal = check_release(release).unwrap_err().to_string();
            assert!(refusal.ends_with("accepted: 5.10 or newer"), "{refusal}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let eth = config(&["--bearer", "eth:a"]);
        let have = CapabilitySet::NET_RAW | CapabilitySet::IPC_LOCK;
        let refusal = check_effective(&eth, have).unwrap_err().to_string();
        assert!(
            refusal.starts_with("missing privileges: CAP_NET_ADMIN CAP_BPF; needed by"),
            "{refusal}"
        );
        let admin = have | CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
        assert_eq!(check_effective(&eth, admin), Ok(()));
    }

    #[test]
    fn without_af_xdp_or_interfaces_fewer_are_needed() {
        let packet = config(&["--bearer", "eth:a", "--xdp", "off"]);
        let have = CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN;
        assert_eq!(check_effective(&packet, have), Ok(()));
        let none = CapabilitySet::empty();
        let local = config(&["--identity", "alone"]);
        assert_eq!(check_effective(&local, none), Ok(()));
        for bearer in ["shm:pod", "udp:U,localip=10.0.0.1"] {
            let plain = config(&["--identity", "one", "--bearer", bearer]);
            assert_eq!(check_effective(&plain, none), Ok(()), "{bearer}");
        }
        let named = config(&["--bearer", "udp:U,device=eth0"]);
        assert!(check_effective(&named, none).is_err());
    }

    #[test]
    fn the_memory_limit_ends_at_the_hard_limit_or_none() {
        let limit = raise_memlock();
        assert_eq!(limit, getrlimit(Resource::Memlock).maximum);
    }
}
