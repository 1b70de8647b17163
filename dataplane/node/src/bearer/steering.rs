//! Which receive queues TIPC's packets come into, where further workers serve these.
//!
//! A NIC spreads packets over its queues by a hash of their IP addresses. TIPC's ethertype has none: all of it comes into one
//! queue, mostly the first, through which everything is sent too. Where the driver takes rules, those made here put what is
//! received into queues of other workers than the one that sends: by the last bits of the sender's address, since the packets
//! of a sender must stay in order, or all into one queue if the NIC cannot look at these.
//!
//! Rules outlive the process. They are noted in the run directory before they are made, so that the next start finds what a
//! killed daemon left. Rules that are not noted are somebody else's, and stay.

mod note;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;

use rustix::io::Errno;
use xtipc_management::{QueueInfo, Steering as SteeringInfo, SteeringWay};
use xtipc_xsk::flow_rules::{Entry, Rule, RuleTable};
use xtipc_xsk::interface::Interface;

use super::ethernet::ETHERTYPE;
use super::links;
use note::Note;

/// A NIC's table of rules.
trait Table {
    fn list(&self) -> rustix::io::Result<Vec<Entry>>;
    fn insert(&self, rule: &Rule) -> rustix::io::Result<u32>;
    fn remove(&self, location: u32) -> rustix::io::Result<()>;
}

impl Table for RuleTable<'_> {
    fn list(&self) -> rustix::io::Result<Vec<Entry>> {
        self.list()
    }

    fn insert(&self, rule: &Rule) -> rustix::io::Result<u32> {
        self.insert(rule)
    }

    fn remove(&self, location: u32) -> rustix::io::Result<()> {
        self.remove(location)
    }
}

/// How packets come into the queues of an Ethernet bearer.
pub(super) enum Steering {
    /// Worker 0 serves all.
    Unneeded,
    Rules(Directed),
    /// As the NIC likes, for this reason.
    Software(String),
}

/// Rules that are ours. Dropping this removes them.
pub(super) struct Directed {
    ifindex: u32,
    entries: Vec<Entry>,
    note: Note,
}

impl Steering {
    /// Directs TIPC's frames on this VLAN, if that can be done for queues of these workers; before that removes what a daemon
    /// that was killed has left.
    pub(super) fn set_up(
        interface: &Interface,
        vlan: u16,
        servers: &[usize],
        run_dir: &Path,
    ) -> Self {
        let note = Note::of(run_dir, interface.index);
        let table = match RuleTable::of(&interface.name) {
            Ok(table) => table,
            Err(error) => return Self::Software(error.to_string()),
        };
        if let Err(error) = recover(&table, &note) {
            tracing::warn!(interface = interface.name, %error, "cannot remove the rules of a killed daemon from the NIC");
        }
        if servers.is_empty() {
            return Self::Unneeded;
        }
        let made = queues(servers).and_then(|queues| direct(&table, vlan, &queues, &note));
        match made {
            Ok(entries) => Self::Rules(Directed {
                ifindex: interface.index,
                entries,
                note,
            }),
            Err(refusal) => Self::Software(refusal.text(interface, table.is_off())),
        }
    }

    /// What the tools show, given what has come into the queues. Asked anew each time: others may remove rules.
    pub(super) fn info(&self, interface: &Interface, queues: &[QueueInfo]) -> Option<SteeringInfo> {
        let refused = match self {
            Self::Unneeded => return None,
            Self::Software(reason) => Err(reason.clone()),
            Self::Rules(directed) => match RuleTable::of(&interface.name).map(|table| table.list())
            {
                Ok(Ok(present)) => shown(&directed.entries, &present, queues),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            },
        };
        let (way, reason) = match refused {
            Ok(text) => (SteeringWay::Rules, text),
            Err(reason) => (SteeringWay::Software, reason),
        };
        Some(SteeringInfo { way, reason })
    }
}

/// What our rules do, or why nothing: others have removed them, or the NIC, which keeps them, does not go by them.
fn shown(ours: &[Entry], present: &[Entry], queues: &[QueueInfo]) -> Result<String, String> {
    if !ours.iter().all(|entry| present.contains(entry)) {
        return Err("somebody else has removed the rules".to_owned());
    }
    let directed: Vec<_> = ours.iter().filter_map(|entry| entry.rule).collect();
    let is_directed = |queue: &&QueueInfo| directed.iter().any(|rule| rule.queue == queue.queue);
    let names: Vec<_> = directed.iter().map(|rule| rule.queue.to_string()).collect();
    let names = names.join(", ");
    let mut used = queues
        .iter()
        .filter(|queue| queue.rx_packets > 0)
        .peekable();
    if used.peek().is_some() && !used.any(|queue| is_directed(&queue)) {
        return Err(format!(
            "the NIC keeps the rules, and yet nothing has come into queue {names}"
        ));
    }
    Ok(match directed.len() {
        1 => format!("TIPC comes into queue {names}"),
        _ => format!("TIPC comes into queues {names} by the senders' addresses"),
    })
}

/// How datagrams to an address come into the queues of these workers: by the hash that IP has anyway. `None` where worker 0
/// serves all.
pub(super) fn of_datagrams(
    interface: &Interface,
    local: SocketAddr,
    servers: &[usize],
) -> Option<SteeringInfo> {
    if servers.is_empty() {
        return None;
    }
    let asked = RuleTable::of(&interface.name).map(|table| table.queues_by_hash(local.is_ipv6()));
    let (way, reason) = match (queues(servers), asked) {
        (Err(refusal), _) => (SteeringWay::Software, refusal.text(interface, false)),
        (Ok(_), Ok(Ok(0 | 1))) => (
            SteeringWay::Software,
            format!(
                "{} tells of no hash of the senders' addresses",
                driver(interface)
            ),
        ),
        (Ok(_), Ok(Ok(spread))) => (
            SteeringWay::Hash,
            format!("of the senders' addresses, over {spread} queues"),
        ),
        (Ok(_), Ok(Err(error))) => (
            SteeringWay::Software,
            format!("{} tells of no hash: {error}", driver(interface)),
        ),
        (Ok(_), Err(error)) => (SteeringWay::Software, error.to_string()),
    };
    Some(SteeringInfo { way, reason })
}

/// Why there are no rules.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    OneQueue,
    OneWorker,
    /// The driver's answer when it was asked for its rules.
    NoTable(Errno),
    /// Its answer to a rule.
    Refused(Errno),
    /// It looks at less than it was asked to.
    Altered,
    /// Somebody else has directed TIPC into this queue.
    Taken(u32),
    Unnoted(String),
}

impl Refusal {
    fn text(&self, interface: &Interface, is_off: bool) -> String {
        let driver = driver(interface);
        match self {
            Self::OneQueue => "one queue".to_owned(),
            Self::OneWorker => "one worker serves all queues".to_owned(),
            Self::NoTable(error) => format!("{driver} has no rules for queues: {error}"),
            Self::Refused(error) if is_off => format!(
                "{driver} refused the rule: {error}; rules are off, or this NIC has none (ethtool -K {} ntuple on)",
                interface.name
            ),
            Self::Refused(error) => format!("{driver} refused the rule: {error}"),
            Self::Altered => format!("{driver} made another rule than it was asked for"),
            Self::Taken(queue) => {
                format!("somebody else's rule puts TIPC into queue {queue}")
            }
            Self::Unnoted(why) => why.clone(),
        }
    }
}

fn driver(interface: &Interface) -> &str {
    interface.driver.as_deref().unwrap_or("the driver")
}

/// The queues to receive by: one of each worker that serves another queue than the first, which sends.
fn queues(servers: &[usize]) -> Result<Vec<u32>, Refusal> {
    if servers.len() < 2 {
        return Err(Refusal::OneQueue);
    }
    let first_of_its_worker = |queue: &usize| !servers[..*queue].contains(&servers[*queue]);
    let queues = (1..servers.len()).filter(first_of_its_worker);
    let queues: Vec<_> = queues.map(|queue| queue as u32).collect();
    if queues.is_empty() {
        return Err(Refusal::OneWorker);
    }
    Ok(queues)
}

/// Rules by which these queues share the senders. There are a power of two of them, and at most 256.
fn rules(vlan: u16, queues: &[u32]) -> Vec<Rule> {
    let rules = queues.iter().enumerate().map(|(source, &queue)| Rule {
        ethertype: ETHERTYPE,
        vlan,
        source: source as u8,
        source_mask: (queues.len() - 1) as u8,
        queue,
    });
    rules.collect()
}

/// Makes rules for as many of the queues as the NIC can tell senders apart for, and reads them back.
fn direct(
    table: &impl Table,
    vlan: u16,
    queues: &[u32],
    note: &Note,
) -> Result<Vec<Entry>, Refusal> {
    let present = table.list().map_err(Refusal::NoTable)?;
    let mut about_tipc = present.iter().filter_map(|entry| entry.rule);
    let same_frames = |rule: &Rule| rule.ethertype == ETHERTYPE && rule.vlan == vlan;
    if let Some(rule) = about_tipc.find(same_frames) {
        return Err(Refusal::Taken(rule.queue));
    }
    let mut count = 1 << queues.len().min(256).ilog2();
    loop {
        match make(table, &rules(vlan, &queues[..count]), note) {
            Err(_) if count > 1 => count /= 2,
            made => return made,
        }
    }
}

/// Makes these rules, all or none.
fn make(table: &impl Table, rules: &[Rule], note: &Note) -> Result<Vec<Entry>, Refusal> {
    note.write(rules).map_err(Refusal::Unnoted)?;
    let mut made = Vec::with_capacity(rules.len());
    let mut insert_all = || {
        for &rule in rules {
            let location = table.insert(&rule).map_err(Refusal::Refused)?;
            let rule = Some(rule);
            made.push(Entry { location, rule });
        }
        let present = table.list().map_err(Refusal::NoTable)?;
        match made.iter().all(|entry| present.contains(entry)) {
            true => Ok(()),
            false => Err(Refusal::Altered),
        }
    };
    let outcome = insert_all();
    if let Err(refusal) = outcome {
        // Whatever the driver has made of them.
        let removed: Result<Vec<_>, _> = made.iter().map(|e| table.remove(e.location)).collect();
        match removed {
            Ok(_) => note.remove(),
            Err(error) => tracing::warn!(%error, "cannot remove a rule from the NIC"),
        }
        return Err(refusal);
    }
    Ok(made)
}

/// Removes the rules that are noted.
fn recover(table: &impl Table, note: &Note) -> rustix::io::Result<()> {
    let noted = note.read();
    if noted.is_empty() {
        return Ok(());
    }
    for entry in table.list()? {
        if entry.rule.is_some_and(|rule| noted.contains(&rule)) {
            table.remove(entry.location)?;
        }
    }
    note.remove();
    Ok(())
}

/// Removes what of these is still as it was made.
fn withdraw(table: &impl Table, ours: &[Entry], note: &Note) -> rustix::io::Result<()> {
    let present = table.list()?;
    for entry in ours.iter().filter(|entry| present.contains(entry)) {
        table.remove(entry.location)?;
    }
    note.remove();
    Ok(())
}

impl Drop for Directed {
    fn drop(&mut self) {
        // Its name may be another one by now. With an interface that is gone its rules are.
        let Some(name) = links::name_of(self.ifindex) else {
            return self.note.remove();
        };
        let withdrawn =
            RuleTable::of(&name).map(|table| withdraw(&table, &self.entries, &self.note));
        if let Ok(Err(error)) = withdrawn {
            tracing::warn!(interface = name, %error, "cannot remove the rules for TIPC from the NIC");
        }
    }
}
