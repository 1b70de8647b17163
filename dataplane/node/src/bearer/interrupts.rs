//! Which processors the interrupts of a NIC's queues go to.
//!
//! The kernel takes a queue's packets where its interrupt comes, and wakes from there the worker that serves the queue. On that
//! worker's own processor the wake-up is no interrupt to another one, and the rings are in its cache. Where it is known which
//! processors these are, the interrupts of the queues that carry TIPC are sent there; those of all other queues stay.
//!
//! Where an interrupt goes outlives the process, as rules do ([`super::steering`]): what it was is noted in the run directory
//! before it is changed, so that the next start finds what a killed daemon left. What others have changed since stays.

mod system;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use xtipc_management::{Interrupt as InterruptInfo, Interrupts as InterruptsInfo};
use xtipc_xsk::interface::Interface;

use super::Hands;
use super::note::{Note, Noted};
use super::steering::one_of_each_worker;
use system::{Interrupt, System};

/// An interrupt that goes elsewhere than it did.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moved {
    number: u32,
    /// As a line of `/proc/interrupts` ends: numbers are given to others once a driver is gone.
    name: String,
    /// Lists of processors.
    before: String,
    ours: String,
}

impl Noted for Moved {
    const KIND: &'static str = "interrupts";

    fn words(&self) -> [String; 4] {
        let number = self.number.to_string();
        [
            number,
            self.name.clone(),
            self.before.clone(),
            self.ours.clone(),
        ]
    }

    fn of_words([number, name, before, ours]: [&str; 4]) -> Option<Self> {
        Some(Self {
            number: number.parse().ok()?,
            name: name.to_owned(),
            before: before.to_owned(),
            ours: ours.to_owned(),
        })
    }
}

/// The interrupts of a bearer's queues. Dropping this puts them back.
pub(super) struct Interrupts {
    system: System,
    interface: Interface,
    moved: Vec<Moved>,
    /// Why none was moved, or not all.
    kept: Option<String>,
    /// irqbalance was there when they were moved.
    balanced: bool,
    note: Note<Moved>,
}

impl Interrupts {
    /// Sends those of the queues that carry TIPC next to the workers that serve these, given by queue; before that puts back what
    /// a daemon that was killed has left.
    pub(super) fn set_up(interface: &Interface, servers: &[usize], hands: &Hands<'_>) -> Self {
        let system = System::new(PathBuf::from("/"));
        let queues = one_of_each_worker(servers).into_iter();
        let cpus: Result<Vec<_>, _> = queues
            .map(|queue| {
                let worker = servers.get(queue as usize).copied().unwrap_or(0);
                Ok((queue, hands.placement.interrupt_cpu(worker)?))
            })
            .collect();
        let wanted = cpus.is_ok();
        let interrupts = Self::place(system, interface, cpus, hands.run_dir);
        if let Some(info) = interrupts.info().filter(|_| wanted) {
            let (interface, why) = (&interface.name, &info.reason);
            match info.placed && !interrupts.balanced {
                true => tracing::info!(interface, why, "interrupts"),
                false => tracing::warn!(interface, why, "interrupts"),
            }
        }
        interrupts
    }

    /// `cpus` has a processor for each queue, or why there are none.
    fn place(
        system: System,
        interface: &Interface,
        cpus: Result<Vec<(u32, usize)>, String>,
        run_dir: &Path,
    ) -> Self {
        let note = Note::of(run_dir, interface.index);
        put_back(&system, &note.read());
        note.remove();
        let mut placed = Self {
            system,
            interface: interface.clone(),
            moved: Vec::new(),
            kept: None,
            balanced: false,
            note,
        };
        match cpus {
            Ok(cpus) => placed.move_to(&cpus),
            Err(reason) => placed.kept = Some(reason),
        }
        placed
    }

    fn move_to(&mut self, cpus: &[(u32, usize)]) {
        let mut to_move = Vec::new();
        for Interrupt {
            number,
            name,
            queue,
        } in self.system.interrupts_of(&self.interface)
        {
            let Some((_, cpu)) = cpus.iter().find(|(of, _)| *of == queue) else {
                continue;
            };
            let (ours, before) = (cpu.to_string(), self.system.affinity(number));
            if let Some(before) = before.filter(|before| *before != ours) {
                to_move.push(Moved {
                    number,
                    name,
                    before,
                    ours,
                });
            }
        }
        if to_move.is_empty() {
            return;
        }
        if let Err(why) = self.note.write(&to_move) {
            self.kept = Some(why);
            return;
        }
        self.balanced = self.system.is_balanced();
        for moved in to_move {
            match self.system.set_affinity(moved.number, &moved.ours) {
                Ok(()) => self.moved.push(moved),
                Err(error) => {
                    self.kept = Some(format!(
                        "the kernel refused to move interrupt {}: {error}",
                        moved.number
                    ));
                }
            }
        }
    }

    /// What the tools show, asked anew each time; `None` where the system tells of no interrupts.
    pub(super) fn info(&self) -> Option<InterruptsInfo> {
        let interrupts = self.system.interrupts_of(&self.interface);
        if interrupts.is_empty() {
            return None;
        }
        let is_elsewhere = |moved: &&Moved| {
            let now = self.system.affinity(moved.number);
            now.is_some_and(|now| now != moved.ours)
        };
        let stray = self.moved.iter().find(is_elsewhere);
        let kept = match stray {
            Some(Moved { number, .. }) => {
                Some(format!("somebody else has moved interrupt {number}"))
            }
            None => self.kept.clone(),
        };
        let placed = kept.is_none();
        let mut reason = kept.unwrap_or_else(|| "at the processors of the workers".to_owned());
        if self.balanced {
            reason.push_str(
                "; WARNING: irqbalance runs and moves them (systemctl disable --now irqbalance)",
            );
        }
        let lines = interrupts.into_iter().map(|interrupt| InterruptInfo {
            cpus: self.system.affinity(interrupt.number).unwrap_or_default(),
            number: interrupt.number,
            name: interrupt.name,
            queue: interrupt.queue,
        });
        Some(InterruptsInfo {
            placed,
            reason,
            lines: lines.collect(),
        })
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        put_back(&self.system, &self.moved);
        self.note.remove();
    }
}

/// Lets those go where they went that are still where we have sent them.
fn put_back(system: &System, moved: &[Moved]) {
    for Moved {
        number,
        name,
        before,
        ours,
    } in moved
    {
        let is_ours = system.name_of(*number).as_ref() == Some(name)
            && system.affinity(*number).as_ref() == Some(ours);
        if is_ours && let Err(error) = system.set_affinity(*number, before) {
            tracing::warn!(number, name, before, %error, "cannot put an interrupt back");
        }
    }
}
