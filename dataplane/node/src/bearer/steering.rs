//! Which receive queues TIPC's packets come into, where further workers serve these.
//!
//! A NIC spreads packets over its queues by a hash of their IP addresses. TIPC's ethertype has none: all of it comes into one
//! queue, mostly the first. Where the driver takes rules, those made here put what is received into queues of all workers:
//! by the last bits of the sender's address, since the packets of a sender must stay in order. If the NIC cannot look at
//! these, all goes into one queue, and the workers of the others send.
//!
//! Rules outlive the process. They are noted in the run directory before they are made, so that the next start finds what a
//! killed daemon left. Rules that are not noted are somebody else's, and stay.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;

use rustix::io::Errno;
use xtipc_management::{QueueInfo, Steering as SteeringInfo, SteeringWay};
use xtipc_xsk::flow_rules::{Entry, Rule, RuleTable};
use xtipc_xsk::interface::Interface;

use super::ethernet::{ETHERTYPE, Mac};
use super::links;
use super::note::{Note, Noted};

impl Noted for Rule {
    const KIND: &'static str = "steering";

    fn words(&self) -> [String; 4] {
        let Self {
            vlan,
            source,
            source_mask,
            queue,
            ..
        } = self;
        [
            vlan.to_string(),
            source.to_string(),
            source_mask.to_string(),
            queue.to_string(),
        ]
    }

    fn of_words([vlan, source, source_mask, queue]: [&str; 4]) -> Option<Self> {
        Some(Self {
            ethertype: ETHERTYPE,
            vlan: vlan.parse().ok()?,
            source: source.parse().ok()?,
            source_mask: source_mask.parse().ok()?,
            queue: queue.parse().ok()?,
        })
    }
}

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
    note: Note<Rule>,
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
        let made = queues_to_share(servers).and_then(|queues| direct(&table, vlan, &queues, &note));
        match made {
            Ok(entries) => Self::Rules(Directed {
                ifindex: interface.index,
                entries,
                note,
            }),
            Err(refusal) => Self::Software(refusal.text(interface, table.is_off())),
        }
    }

    /// The queues to send by, where these workers serve them: one of each worker, without one that all is received by.
    pub(super) fn queues_to_send_by(&self, servers: &[usize]) -> Vec<u32> {
        let mut queues = one_of_each_worker(servers);
        if let Self::Rules(directed) = self
            && let [only] = directed.rules().collect::<Vec<_>>()[..]
            && queues.len() > 1
        {
            queues.retain(|queue| *queue != only.queue);
        }
        queues
    }

    /// The queue that rules put the packets of a sender into.
    pub(super) fn queue_from(&self, sender: Mac) -> Option<u32> {
        let Self::Rules(directed) = self else {
            return None;
        };
        let is_of = |rule: &&Rule| sender[5] & rule.source_mask == rule.source;
        directed.rules().find(is_of).map(|rule| rule.queue)
    }

    /// What the tools show, given what has come into the queues. Asked anew each time: others may remove rules.
    pub(super) fn info(&self, interface: &Interface, queues: &[QueueInfo]) -> Option<SteeringInfo> {
        let ruled = match self {
            Self::Unneeded => return None,
            Self::Software(reason) => Err(reason.clone()),
            Self::Rules(directed) => match RuleTable::of(&interface.name).map(|table| table.list())
            {
                Ok(Ok(present)) => shown(&directed.entries, &present, queues),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            },
        };
        Some(steered(SteeringWay::Rules, ruled))
    }
}

impl Directed {
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.entries.iter().filter_map(|entry| entry.rule.as_ref())
    }
}

/// In this way and so, or why not.
fn steered(way: SteeringWay, outcome: Result<String, String>) -> SteeringInfo {
    match outcome {
        Ok(reason) => SteeringInfo { way, reason },
        Err(reason) => SteeringInfo {
            way: SteeringWay::Software,
            reason,
        },
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
    Some(steered(
        SteeringWay::Hash,
        hashed(interface, local.is_ipv6(), servers),
    ))
}

/// Over what the NIC's hash spreads datagrams, or why over nothing.
fn hashed(interface: &Interface, ipv6: bool, servers: &[usize]) -> Result<String, String> {
    queues_to_share(servers).map_err(|refusal| refusal.text(interface, false))?;
    let table = RuleTable::of(&interface.name).map_err(|error| error.to_string())?;
    let driver = driver(interface);
    match table.queues_by_hash(ipv6) {
        Ok(0 | 1) => Err(format!(
            "{driver} tells of no hash of the senders' addresses"
        )),
        Ok(spread) => Ok(format!("of the senders' addresses, over {spread} queues")),
        Err(error) => Err(format!("{driver} tells of no hash: {error}")),
    }
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

/// One queue of each worker, given the workers by queue; the first if there are none.
pub(super) fn one_of_each_worker(servers: &[usize]) -> Vec<u32> {
    let is_first_of_its_worker = |queue: &usize| {
        let server = servers.get(*queue);
        server.is_none_or(|server| !servers[..*queue].contains(server))
    };
    let queues = (0..servers.len().max(1)).filter(is_first_of_its_worker);
    queues.map(|queue| queue as u32).collect()
}

/// Those that workers can share.
fn queues_to_share(servers: &[usize]) -> Result<Vec<u32>, Refusal> {
    let queues = one_of_each_worker(servers);
    match (servers.len(), queues.len()) {
        (0 | 1, _) => Err(Refusal::OneQueue),
        (_, 1) => Err(Refusal::OneWorker),
        _ => Ok(queues),
    }
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

/// Makes rules for as many of the queues as the NIC can tell senders apart for, and reads them back. The first, which has what is
/// sent to all, is the first to be left out.
fn direct(
    table: &impl Table,
    vlan: u16,
    queues: &[u32],
    note: &Note<Rule>,
) -> Result<Vec<Entry>, Refusal> {
    let present = table.list().map_err(Refusal::NoTable)?;
    let mut about_tipc = present.iter().filter_map(|entry| entry.rule);
    let same_frames = |rule: &Rule| rule.ethertype == ETHERTYPE && rule.vlan == vlan;
    if let Some(rule) = about_tipc.find(same_frames) {
        return Err(Refusal::Taken(rule.queue));
    }
    let mut count = 1 << queues.len().min(256).ilog2();
    loop {
        match make(table, &rules(vlan, &queues[queues.len() - count..]), note) {
            Err(_) if count > 1 => count /= 2,
            made => return made,
        }
    }
}

/// Makes these rules, all or none.
fn make(table: &impl Table, rules: &[Rule], note: &Note<Rule>) -> Result<Vec<Entry>, Refusal> {
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
fn recover(table: &impl Table, note: &Note<Rule>) -> rustix::io::Result<()> {
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
fn withdraw(table: &impl Table, ours: &[Entry], note: &Note<Rule>) -> rustix::io::Result<()> {
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
