//! What can go wrong between the classifier and the kernel, said so that an operator can act on it.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use rustix::process::{Resource, getrlimit};
use rustix::system::uname;
use rustix::thread::{CapabilitySet, capabilities};

use crate::classifier::AttachMode;
use crate::interface::Occupant;

/// The classifier could not be loaded into the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Capabilities are missing.
    #[error(
        "loading the XDP classifier is not permitted: it needs CAP_BPF and CAP_NET_ADMIN in the \
         initial user namespace ({missing})"
    )]
    NotPermitted {
        /// Which of them this process lacks.
        missing: String,
    },
    /// The locked-memory limit is too small; only kernels before 5.11 charge BPF maps to it.
    #[error(
        "loading the XDP classifier exceeds the locked-memory limit of {limit} bytes: raise it \
         (ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit)"
    )]
    MemoryLock {
        /// The limit in force.
        limit: u64,
    },
    /// The memory cgroup of this process, or the machine, has no room for the maps.
    #[error(
        "no memory for the XDP classifier's maps: raise the memory limit of this process's cgroup"
    )]
    OutOfMemory,
    /// The kernel lacks something the classifier is built on.
    #[error(
        "kernel {running} cannot run the XDP classifier ({source}): it needs Linux 5.18 or newer \
         with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS"
    )]
    UnsupportedKernel {
        /// Release of the running kernel.
        running: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's verifier refused the program.
    #[error("the kernel's verifier refused the XDP classifier: {log}")]
    Refused {
        /// The verifier's words.
        log: String,
    },
    /// Anything else aya reports.
    #[error("loading the XDP classifier")]
    Ebpf(#[source] EbpfError),
}

impl From<EbpfError> for LoadError {
    fn from(error: EbpfError) -> Self {
        let EbpfError::MapError(MapError::CreateError { io_error, .. }) = &error else {
            return Self::Ebpf(error);
        };
        Self::from_refusal(io_error).unwrap_or(Self::Ebpf(error))
    }
}

impl From<ProgramError> for LoadError {
    fn from(error: ProgramError) -> Self {
        let ProgramError::LoadError {
            io_error,
            verifier_log,
        } = &error
        else {
            return Self::Ebpf(error.into());
        };
        if io_error.raw_os_error() == Some(libc::EACCES) {
            return Self::Refused {
                log: verifier_log.to_string(),
            };
        }
        Self::from_refusal(io_error).unwrap_or(Self::Ebpf(error.into()))
    }
}

impl LoadError {
    /// What the error of a `bpf` system call means.
    fn from_refusal(refusal: &io::Error) -> Option<Self> {
        let number = refusal.raw_os_error()?;
        match number {
            libc::EPERM => Some(Self::from_missing_permission()),
            libc::ENOMEM => Some(Self::OutOfMemory),
            // EINVAL and E2BIG: a map or program flag this kernel does not know.
            libc::EINVAL | libc::E2BIG | libc::ENOSYS => Some(Self::UnsupportedKernel {
                running: uname().release().to_string_lossy().into_owned(),
                source: io::Error::from_raw_os_error(number),
            }),
            _ => None,
        }
    }

    /// EPERM means a missing capability or, on old kernels, the locked-memory limit.
    fn from_missing_permission() -> Self {
        let missing = missing_capabilities();
        match getrlimit(Resource::Memlock).current {
            Some(limit) if missing.is_empty() && kernel_charges_memlock() => {
                Self::MemoryLock { limit }
            }
            _ if missing.is_empty() => Self::NotPermitted {
                missing:
                    "this process has them only in a user namespace of its own, or a security \
                          module denies bpf()"
                        .into(),
            },
            _ => Self::NotPermitted {
                missing: format!("missing: {}", missing.join(", ")),
            },
        }
    }
}

/// Kernels before 5.11 charge BPF memory to the locked-memory limit instead of the memory cgroup.
fn kernel_charges_memlock() -> bool {
    aya::util::KernelVersion::current()
        .is_ok_and(|running| running < aya::util::KernelVersion::new(5, 11, 0))
}

/// The capabilities for loading and attaching that this process lacks.
fn missing_capabilities() -> Vec<&'static str> {
    let Ok(sets) = capabilities(None) else {
        return Vec::new();
    };
    // CAP_SYS_ADMIN stands in for CAP_BPF, as the kernel has it.
    let bpf = sets
        .effective
        .intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
    let net_admin = sets.effective.contains(CapabilitySet::NET_ADMIN);
    [(bpf, "CAP_BPF"), (net_admin, "CAP_NET_ADMIN")]
        .into_iter()
        .filter_map(|(held, name)| (!held).then_some(name))
        .collect()
}

/// The classifier could not be attached to an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No interface of that name in this network namespace.
    #[error("there is no interface \"{interface}\" in this network namespace")]
    UnknownInterface {
        /// The name asked for.
        interface: String,
    },
    /// The interface has no Ethernet address to classify by.
    #[error("interface \"{interface}\" is not an Ethernet interface")]
    NotEthernet {
        /// The interface.
        interface: String,
    },
    /// This classifier is attached already: one instance serves one interface.
    #[error("this classifier is attached already; \"{interface}\" needs one of its own")]
    AlreadyAttached {
        /// The interface asked for.
        interface: String,
    },
    /// Another program is on the interface. It is never replaced.
    #[error("interface \"{interface}\" is occupied by {occupant}; detach it or use `xdp = off`")]
    Occupied {
        /// The interface.
        interface: String,
        /// The program on it.
        occupant: Occupant,
    },
    /// The kernel says busy though no program is visible on the interface.
    #[error(
        "interface \"{interface}\" stays busy though no XDP program is visible on it ({source}): \
         a dying process or an upper device (bond) may hold one"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The driver or kernel does not attach in this mode; another mode may work.
    #[error("interface \"{interface}\" does not take the XDP classifier in {mode} mode: {source}")]
    ModeRefused {
        /// The interface.
        interface: String,
        /// The mode asked for.
        mode: AttachMode,
        /// What the kernel or driver said.
        source: io::Error,
    },
    /// The interface could not be examined.
    #[error("examining interface \"{interface}\": {source}")]
    Examine {
        /// The interface.
        interface: String,
        /// The netlink error.
        source: io::Error,
    },
    /// A map of the classifier could not be written.
    #[error(transparent)]
    Update(#[from] UpdateError),
}

/// A map of the running classifier could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The VLAN id is not one.
    #[error("{0} is not a VLAN id: 0 (untagged) to 4094 are accepted")]
    VlanId(u16),
    /// The queue has no place in the socket map.
    #[error("receive queue {queue} is beyond the classifier's {limit} queues")]
    QueueTooHigh {
        /// The queue asked for.
        queue: u32,
        /// Number of queues the classifier knows.
        limit: u32,
    },
    /// The kernel refused.
    #[error("the classifier's map \"{map}\": {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What went wrong.
        source: MapError,
    },
}
