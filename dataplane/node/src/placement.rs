//! Where and how threads run: pinning to processors, NUMA nodes and the scheduling class.

use std::fs;
use std::path::{Path, PathBuf};

use core_affinity::CoreId;
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use xtipc_xsk::interface::Interface;

use crate::config::{Config, MediaSpec};

/// Where the kernel describes processors and NUMA nodes.
const SYSTEM: &str = "/sys/devices/system";

/// Why a worker cannot be pinned as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PinError {
    /// No such processor.
    #[error("cpus: processor {cpu} does not exist; accepted: {allowed}")]
    Absent {
        /// The processor asked for.
        cpu: usize,
        /// Those this process may use.
        allowed: String,
    },
    /// The processor is offline, or outside this process's set.
    #[error("cpus: processor {cpu} is offline or not allowed to this process; accepted: {allowed}")]
    NotAllowed {
        /// The processor asked for.
        cpu: usize,
        /// Those this process may use.
        allowed: String,
    },
}

/// The processors the calling thread may use, ascending.
pub fn allowed_cpus() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut cpus: Vec<_> = cores.into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus
}

/// Where the workers run. What memory they take at their start, frame pool and rings, comes from the NUMA node that they
/// run on.
#[derive(Debug)]
pub(crate) struct Placement {
    /// By worker; or empty.
    cpus: Vec<usize>,
    /// Where all run that have no processor of their own.
    node: Option<u32>,
}

impl Placement {
    /// On the processors of the configuration; else on the NUMA node of the first NIC among the bearers, if there are several
    /// nodes and this process may use a processor of it for each worker. Call it from a thread that is not pinned itself.
    pub(crate) fn new(config: &Config) -> Result<Self, PinError> {
        check_cpus(&config.cpus)?;
        let cpus = config.cpus.clone();
        let near = || {
            let node = config
                .bearers
                .iter()
                .find_map(|bearer| match &bearer.media {
                    MediaSpec::Ethernet(_) => nic_node(&bearer.interface),
                    MediaSpec::Udp(udp) => nic_node(udp.interface()?),
                    MediaSpec::InfiniBand | MediaSpec::SharedMemory(_) => None,
                });
            node.filter(|node| cpus_of_node(*node).len() >= config.workers)
        };
        let node = if cpus.is_empty() { near() } else { None };
        Ok(Self { cpus, node })
    }

    /// Moves the calling thread to where this worker runs.
    pub(crate) fn settle(&self, worker: usize) -> Result<(), PinError> {
        match (self.cpus.get(worker), self.node) {
            (Some(cpu), _) => return pin_current(*cpu),
            (None, Some(node)) => {
                let mut set = CpuSet::new();
                cpus_of_node(node).into_iter().for_each(|cpu| set.set(cpu));
                if let Err(error) = sched_setaffinity(None, &set) {
                    tracing::warn!(worker, node, %error, "cannot stay on the NUMA node of the NIC");
                }
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// The processor that this worker is pinned to.
    pub(crate) fn cpu(&self, worker: usize) -> Option<usize> {
        self.cpus.get(worker).copied()
    }

    /// The NUMA node that this worker stays on, if the system has several.
    pub(crate) fn numa_node(&self, worker: usize) -> Option<u32> {
        self.cpu(worker).map_or(self.node, numa_node)
    }
}

/// The NUMA node of an interface, if the system has several.
fn nic_node(interface: &str) -> Option<u32> {
    if !has_numa_nodes() {
        return None;
    }
    Interface::query(interface).ok()?.numa_node()
}

/// The processors of a NUMA node that the calling thread may use.
fn cpus_of_node(node: u32) -> Vec<usize> {
    let mut cpus = allowed_cpus();
    cpus.retain(|cpu| numa_node(*cpu) == Some(node));
    cpus
}

/// Checks a list before any worker starts. Call it from a thread that is not pinned itself.
fn check_cpus(cpus: &[usize]) -> Result<(), PinError> {
    let allowed = allowed_cpus();
    match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        None => Ok(()),
        Some(&cpu) => Err(refusal(cpu, &allowed)),
    }
}

/// Pins the calling thread to one processor.
pub(crate) fn pin_current(cpu: usize) -> Result<(), PinError> {
    if core_affinity::set_for_current(CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(refusal(cpu, &allowed_cpus()))
    }
}

fn refusal(cpu: usize, allowed: &[usize]) -> PinError {
    let exists = Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists();
    let allowed = list_text(allowed);
    if exists {
        PinError::NotAllowed { cpu, allowed }
    } else {
        PinError::Absent { cpu, allowed }
    }
}

/// `0,2-3` for ascending numbers, the form in which they are configured.
fn list_text(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let texts: Vec<_> = runs
        .iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    texts.join(",")
}

/// The NUMA node of a processor, if the system has several.
fn numa_node(cpu: usize) -> Option<u32> {
    numa_node_in(Path::new(SYSTEM), cpu)
}

fn numa_node_in(system: &Path, cpu: usize) -> Option<u32> {
    // Of a single one there is nothing to tell.
    nodes_in(system.join("node")).nth(1)?;
    nodes_in(system.join(format!("cpu/cpu{cpu}"))).next()
}

/// Whether the system has several NUMA nodes.
pub(crate) fn has_numa_nodes() -> bool {
    nodes_in(Path::new(SYSTEM).join("node")).nth(1).is_some()
}

fn nodes_in(directory: PathBuf) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        entry
            .file_name()
            .to_str()?
            .strip_prefix("node")?
            .parse()
            .ok()
    })
}

/// Scheduling class of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// SCHED_OTHER.
    Normal,
    /// SCHED_IDLE: runs only when nobody else wants the processor.
    Idle,
    /// SCHED_FIFO: runs before all of the other classes.
    Urgent,
}

/// Sets the class of a thread of this process; nice values and pinning stay.
pub fn set_class(thread: Pid, class: Class) -> std::io::Result<()> {
    let (policy, sched_priority) = match class {
        Class::Normal => (libc::SCHED_OTHER, 0),
        Class::Idle => (libc::SCHED_IDLE, 0),
        Class::Urgent => (libc::SCHED_FIFO, 1),
    };
    let parameters = libc::sched_param { sched_priority };
    // SAFETY: `parameters` lives across the call, which only reads it; a thread id that has ended gives ESRCH.
    let result =
        unsafe { libc::sched_setscheduler(thread.as_raw_nonzero().get(), policy, &parameters) };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_pinned_to_the_processor_it_asked_for() {
        let cpu = *allowed_cpus().last().unwrap();
        let seen = std::thread::spawn(move || {
            pin_current(cpu).unwrap();
            allowed_cpus()
        });
        assert_eq!(seen.join().unwrap(), [cpu]);
    }

    #[test]
    fn a_processor_that_is_not_there_is_refused_with_those_that_are() {
        let error = check_cpus(&[1023]).unwrap_err();
        let allowed = list_text(&allowed_cpus());
        assert_eq!(
            error.to_string(),
            format!("cpus: processor 1023 does not exist; accepted: {allowed}")
        );
        assert_eq!(
            std::thread::spawn(|| pin_current(1023))
                .join()
                .unwrap()
                .unwrap_err(),
            error
        );
    }

    #[test]
    fn a_processor_outside_the_allowed_set_is_refused() {
        let all = allowed_cpus();
        let [first, .., last] = all[..] else {
            println!("skipped: needs two processors");
            return;
        };
        let outcome = std::thread::spawn(move || {
            pin_current(first).unwrap();
            check_cpus(&[last])
        });
        let expected = PinError::NotAllowed {
            cpu: last,
            allowed: first.to_string(),
        };
        assert_eq!(outcome.join().unwrap(), Err(expected));
    }

    #[test]
    fn a_numa_node_is_told_where_there_are_several() {
        let system = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(system.path().join(path)).unwrap();
        make("cpu/cpu5/node1");
        make("cpu/cpu5/cache");
        make("node/node0");
        assert_eq!(numa_node_in(system.path(), 5), None, "the only one");
        make("node/node1");
        make("node/power");
        assert_eq!(numa_node_in(system.path(), 5), Some(1));
        assert_eq!(numa_node_in(system.path(), 6), None);
    }

    #[test]
    fn lists_of_processors_are_written_as_they_are_configured() {
        assert_eq!(list_text(&[0, 2, 3, 4, 7, 8]), "0,2-4,7-8");
        assert_eq!(list_text(&[]), "");
    }
}
