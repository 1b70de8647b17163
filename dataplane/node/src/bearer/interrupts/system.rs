//! What the system shows of a NIC's interrupts, and where it lets them be sent.

use std::fs;
use std::io;
use std::path::PathBuf;

use xtipc_xsk::interface::Interface;

/// How drivers call what a queue has an interrupt for.
const QUEUE_WORDS: [&str; 8] = ["txrx", "rx", "tx", "input", "output", "comp", "fp", "q"];

/// An interrupt of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interrupt {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) queue: u32,
}

/// `/proc` and `/sys` below this directory.
pub(super) struct System {
    root: PathBuf,
}

impl System {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Those of an interface's queues, by queue; none where their names do not tell the queues, or the device has none.
    pub(super) fn interrupts_of(&self, interface: &Interface) -> Vec<Interrupt> {
        let directory = self.root.join("sys/class/net").join(&interface.name);
        let ifindex = fs::read_to_string(directory.join("ifindex")).unwrap_or_default();
        // It may be another namespace's that has the same name.
        if ifindex.trim() != interface.index.to_string() {
            return Vec::new();
        }
        // The device of a virtio NIC is on one that has them.
        let places = ["device/msi_irqs", "device/../msi_irqs"];
        let numbers = places
            .iter()
            .find_map(|place| fs::read_dir(directory.join(place)).ok());
        let numbers = numbers.into_iter().flatten().flatten();
        let numbers: Vec<u32> = numbers
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        let mut found: Vec<_> = self
            .names()
            .into_iter()
            .filter(|(number, _)| numbers.contains(number))
            .filter_map(|(number, name)| {
                let queue = queue_in(&name)?;
                Some(Interrupt {
                    number,
                    name,
                    queue,
                })
            })
            .collect();
        found.sort_by_key(|interrupt| (interrupt.queue, interrupt.number));
        // Some drivers count from 1: then these are other numbers than the queues'.
        match found.first() {
            Some(first) if first.queue == 0 => found,
            _ => Vec::new(),
        }
    }

    /// The name of an interrupt; `None` if it is in no use.
    pub(super) fn name_of(&self, number: u32) -> Option<String> {
        let names = self.names().into_iter();
        let mut it = names.filter(|(of, _)| *of == number);
        it.next().map(|(_, name)| name)
    }

    /// The processors that it may go to, as a list.
    pub(super) fn affinity(&self, number: u32) -> Option<String> {
        let text = fs::read_to_string(self.affinity_file(number)).ok()?;
        Some(text.trim().to_owned())
    }

    pub(super) fn set_affinity(&self, number: u32, cpus: &str) -> io::Result<()> {
        fs::write(self.affinity_file(number), cpus)
    }

    /// Whether a daemon runs that moves interrupts to where it likes.
    pub(super) fn is_balanced(&self) -> bool {
        let processes = fs::read_dir(self.root.join("proc")).into_iter().flatten();
        processes.flatten().any(|process| {
            let is_process = process.file_name().as_encoded_bytes()[0].is_ascii_digit();
            let name = || fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            is_process && name().trim() == "irqbalance"
        })
    }

    fn affinity_file(&self, number: u32) -> PathBuf {
        let directory = self.root.join("proc/irq").join(number.to_string());
        directory.join("smp_affinity_list")
    }

    /// All interrupts that are in use, with what their lines end with.
    fn names(&self) -> Vec<(u32, String)> {
        let text = fs::read_to_string(self.root.join("proc/interrupts")).unwrap_or_default();
        let named = text.lines().filter_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let name = rest.split_whitespace().next_back()?;
            Some((number.trim().parse().ok()?, name.to_owned()))
        });
        named.collect()
    }
}

/// The queue that the name of an interrupt tells, like `eth0-TxRx-3`, `virtio0-input.0` or `mlx5_comp1@pci:0000:08:00.0`.
pub(super) fn queue_in(name: &str) -> Option<u32> {
    let name = name.split('@').next()?;
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let queue = name[word.len()..].parse().ok()?;
    let word = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    let word = word.rsplit(|c: char| !c.is_ascii_alphanumeric()).next()?;
    let is_queue = QUEUE_WORDS.contains(&word.to_ascii_lowercase().as_str());
    is_queue.then_some(queue)
}
