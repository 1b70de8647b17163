//! Where and how threads run, and where interrupts go: pinning to processors, NUMA nodes and the scheduling class.

use std::fs;
use std::path::{Path, PathBuf};

use core_affinity::CoreId;
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use xtipc_xsk::interface::Interface;

use crate::config::{Config, InterruptsSpec, MediaSpec};

/// Where the kernel describes processors and NUMA nodes.
const SYSTEM: &str = "/sys/devices/system";

/// Threads of a process that are looked at: it is a worker that looks.
const THREADS_MAX: usize = 64;

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
    interrupts: InterruptsSpec,
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
        Ok(Self {
            cpus,
            node,
            interrupts: config.interrupts.clone(),
        })
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

    /// Where the interrupts of the queues go that this worker serves; or why they stay.
    pub(crate) fn interrupt_cpu(&self, worker: usize) -> Result<usize, String> {
        let cpus = match &self.interrupts {
            InterruptsSpec::Leave => return Err("asked for by interrupts = leave".to_owned()),
            InterruptsSpec::Workers => &self.cpus,
            InterruptsSpec::Cpus(cpus) => cpus,
        };
        let cpu = cpus.get(worker).copied();
        cpu.ok_or_else(|| "the workers are not pinned (cpus)".to_owned())
    }

    /// The NUMA node that this worker stays on, if the system has several.
    pub(crate) fn numa_node(&self, worker: usize) -> Option<u32> {
        self.cpu(worker).map_or(self.node, numa_node)
    }

    /// Where a process of this worker's applications runs.
    pub(crate) fn whereabouts(&self, pid: u32, worker: usize) -> Whereabouts {
        let process = Path::new("/proc").join(pid.to_string());
        whereabouts_in(Path::new(SYSTEM), &process, self.numa_node(worker))
    }
}

/// Where a process runs.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    /// Where its threads ran last, ascending.
    pub(crate) cpus: Vec<usize>,
    /// The NUMA nodes of these, if the system has several.
    pub(crate) numa_nodes: Vec<u32>,
    /// Its worker stays on another NUMA node than one of them.
    pub(crate) far: bool,
}

/// Of the process with this directory in `/proc`, whose worker stays on this NUMA node.
fn whereabouts_in(system: &Path, process: &Path, home: Option<u32>) -> Whereabouts {
    let cpus = last_cpus(process);
    let nodes = cpus.iter().filter_map(|cpu| numa_node_in(system, *cpu));
    let mut numa_nodes: Vec<_> = nodes.collect();
    numa_nodes.sort_unstable();
    numa_nodes.dedup();
    Whereabouts {
        far: home.is_some_and(|home| numa_nodes.iter().any(|node| *node != home)),
        cpus,
        numa_nodes,
    }
}

/// The processors on which the threads of a process ran last, ascending, by its directory in `/proc`.
fn last_cpus(process: &Path) -> Vec<usize> {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten();
    let cpus = threads.flatten().take(THREADS_MAX).filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("stat")).ok()?;
        // Behind the name, in which anything may stand; `processor` is the 39th field, and the name the second.
        let (_, fields) = text.rsplit_once(')')?;
        fields.split_whitespace().nth(36)?.parse().ok()
    });
    let mut cpus: Vec<_> = cpus.collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
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
pub(crate) fn list_text(cpus: &[usize]) -> String {
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
    fn a_process_is_where_its_threads_ran_last() {
        let process = tempfile::tempdir().unwrap();
        let ran_on = |thread: &str, cpu: &str| {
            let directory = process.path().join("task").join(thread);
            fs::create_dir_all(&directory).unwrap();
            let fields = ["S"].into_iter().chain(["0"; 35]).chain([cpu, "0"]);
            let fields: Vec<_> = fields.collect();
            let text = format!("{thread} (a) b) {}", fields.join(" "));
            fs::write(directory.join("stat"), text).unwrap();
        };
        assert!(last_cpus(process.path()).is_empty());
        for (thread, cpu) in [("7", "3"), ("8", "0"), ("9", "3")] {
            ran_on(thread, cpu);
        }
        assert_eq!(last_cpus(process.path()), [0, 3]);
        let system = tempfile::tempdir().unwrap();
        for (cpu, node) in [(0, 0), (3, 1)] {
            let place = format!("cpu/cpu{cpu}/node{node}");
            fs::create_dir_all(system.path().join(place)).unwrap();
        }
        let seen = |home| whereabouts_in(system.path(), process.path(), home);
        assert_eq!(
            (seen(Some(0)).numa_nodes, seen(Some(0)).far),
            (vec![], false)
        );
        for node in ["node/node0", "node/node1"] {
            fs::create_dir_all(system.path().join(node)).unwrap();
        }
        assert_eq!(
            (seen(Some(0)).numa_nodes, seen(Some(0)).far),
            (vec![0, 1], true)
        );
        assert!(!seen(None).far, "the worker may be anywhere");
        ran_on("8", "3");
        assert!(seen(Some(0)).far && !seen(Some(1)).far);
        let own = std::thread::spawn(|| {
            let cpu = *allowed_cpus().last().unwrap();
            pin_current(cpu).unwrap();
            (cpu, last_cpus(Path::new("/proc/self")))
        });
        let (cpu, seen) = own.join().unwrap();
        assert!(seen.contains(&cpu), "{seen:?}");
    }

    #[test]
    fn lists_of_processors_are_written_as_they_are_configured() {
        assert_eq!(list_text(&[0, 2, 3, 4, 7, 8]), "0,2-4,7-8");
        assert_eq!(list_text(&[]), "");
    }
}
