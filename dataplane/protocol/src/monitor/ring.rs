//! The ring: domains, roles, and what a record that came tells.

use super::{Monitor, MonitoredNode, ONE_CAUSE};
use crate::addr::NodeAddr;
use crate::time::Instant;
use crate::wire::{DomainRecord, MAX_DOMAIN_MEMBERS};

/// Who watches a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is this node.
    Own,
    /// This node: it is one of those that follow.
    Local,
    /// This node: it speaks for those that follow it.
    Head,
    /// Others, who would tell.
    Indirect,
}

/// A node on the ring.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) addr: NodeAddr,
    up: bool,
    head: bool,
    local: bool,
    /// Members of its record, from the first on, that follow it here, too.
    applied: u8,
    /// Times it was reported lost since it was last heard.
    pub(super) reports: u8,
    /// A record has come since its link is up.
    pub(super) synchronised: bool,
    /// Of its last record.
    pub(super) peer_generation: u16,
    /// Of the own record that it said to have.
    pub(super) acked: u16,
    record: Option<Box<Record>>,
}

/// What a node said of its domain.
#[derive(Debug)]
struct Record {
    up_map: u64,
    members: Box<[NodeAddr]>,
}

impl Entry {
    fn new(addr: NodeAddr) -> Self {
        Self {
            addr,
            up: false,
            head: false,
            local: false,
            applied: 0,
            reports: 0,
            synchronised: false,
            peer_generation: 0,
            acked: 0,
            record: None,
        }
    }

    pub(super) fn is_local(&self) -> bool {
        self.local
    }

    pub(super) fn is_watched(&self) -> bool {
        self.local || self.head
    }

    pub(super) fn is_suspected(&self) -> bool {
        self.reports > 0
    }

    pub(super) fn view(&self, own: NodeAddr) -> MonitoredNode {
        MonitoredNode {
            addr: self.addr,
            up: self.up,
            role: match (self.addr == own, self.local, self.head) {
                (true, _, _) => Role::Own,
                (_, true, _) => Role::Local,
                (_, _, true) => Role::Head,
                _ => Role::Indirect,
            },
            generation: self.peer_generation,
            record: self.record.as_ref().map(|record| {
                (
                    with_states(&record.members, record.up_map),
                    self.applied.into(),
                )
            }),
        }
    }
}

/// The members of a record, and whether each is up.
fn with_states(members: &[NodeAddr], up_map: u64) -> Vec<(NodeAddr, bool)> {
    let all = members.iter().enumerate();
    all.map(|(i, member)| (*member, is_set(up_map, i)))
        .collect()
}

fn is_set(map: u64, bit: usize) -> bool {
    map.checked_shr(bit as u32).is_some_and(|map| map & 1 != 0)
}

fn is_after(number: u16, other: u16) -> bool {
    (number.wrapping_sub(other)).cast_signed() > 0
}

/// A node and those it watches itself, of so many nodes.
fn domain_size(nodes: usize) -> usize {
    (1..=MAX_DOMAIN_MEMBERS)
        .find(|size| size * size >= nodes)
        .unwrap_or(MAX_DOMAIN_MEMBERS)
}

impl Monitor {
    pub(super) fn index_of(&self, addr: NodeAddr) -> Option<usize> {
        let guess = self.places.guess(addr);
        let is_there = |index: &usize| self.entries.get(*index).is_some_and(|e| e.addr == addr);
        if let Some(index) = guess.filter(is_there) {
            return Some(index);
        }
        let index = self.entries.binary_search_by_key(&addr, |e| e.addr).ok()?;
        self.places.note(addr, index);
        Some(index)
    }

    fn wrapped(&self, index: usize) -> usize {
        index % self.entries.len()
    }

    /// The link to a peer went up.
    pub fn peer_up(&mut self, own: NodeAddr, addr: NodeAddr) {
        if self.entries.is_empty() {
            self.own = own;
            let mut entry = Entry::new(own);
            (entry.up, entry.head) = (true, true);
            self.entries.push(entry);
        }
        let place = self.entries.binary_search_by_key(&addr, |e| e.addr);
        let index = match place {
            Ok(index) => index,
            Err(index) => {
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact(self.entries.len() / 32 + 8);
                }
                self.entries.insert(index, Entry::new(addr));
                self.places.fit(self.entries.len());
                self.reapply_before(index);
                index
            }
        };
        let generation = self.generation;
        let entry = &mut self.entries[index];
        *entry = Entry::new(addr);
        entry.up = true;
        entry.acked = generation.wrapping_sub(1);
        self.update_roles(index);
    }

    /// The link to a peer went down. True if it was one that this node watches for others, who are to be told at once.
    pub fn peer_down(&mut self, now: Instant, addr: NodeAddr) -> bool {
        let Some(index) = self.index_of(addr) else {
            return false;
        };
        let entry = &mut self.entries[index];
        let (was_head, applied) = (entry.head, usize::from(entry.applied));
        let was_local = entry.local && entry.up;
        let before = entry.record.take();
        *entry = Entry::new(addr);
        if was_local {
            self.note_own_loss(now);
        }
        if let Some(before) = before.filter(|_| was_head) {
            self.note_losses(index, &before, applied, None);
        }
        self.update_roles(index)
    }

    fn note_own_loss(&mut self, now: Instant) {
        let (lost, since) = &mut self.own_losses;
        if now.since(*since) > ONE_CAUSE {
            (*lost, *since) = (0, now);
        }
        *lost = lost.saturating_add(1);
    }

    /// A peer is not known any more.
    pub fn remove(&mut self, addr: NodeAddr) {
        let Some(index) = self.index_of(addr).filter(|_| addr != self.own) else {
            return;
        };
        self.entries.remove(index);
        self.reapply_before(self.wrapped(index));
        self.update_own_record();
        if let Some(own) = self.index_of(self.own) {
            self.assign_roles(own);
        }
    }

    /// A record came in a STATE of a peer's link that is up.
    pub fn on_record(&mut self, addr: NodeAddr, record: &DomainRecord<'_>) {
        let Some(index) = self.index_of(addr).filter(|i| self.entries[*i].up) else {
            return;
        };
        let entry = &mut self.entries[index];
        entry.reports = 0;
        if !entry.synchronised {
            entry.synchronised = true;
            entry.peer_generation = record.generation.wrapping_sub(1);
            entry.acked = record.ack_generation;
        }
        if is_after(record.ack_generation, entry.acked) {
            entry.acked = record.ack_generation;
        }
        if !is_after(record.generation, entry.peer_generation) {
            return;
        }
        entry.peer_generation = record.generation;
        let new = Record {
            up_map: record.up_map,
            members: record.members().map(|(member, _)| member).collect(),
        };
        let applied = usize::from(entry.applied);
        let before = entry.record.replace(Box::new(new));
        self.apply(index);
        if let Some(before) = before {
            let now = usize::from(self.entries[index].applied);
            self.note_losses(index, &before, applied, Some((record.up_map, now)));
        }
        let from = if self.entries[index].head {
            index
        } else {
            self.head_before(index)
        };
        self.assign_roles(from);
    }

    /// Those that a node does not answer for any more, or reports lost.
    fn note_losses(
        &mut self,
        index: usize,
        before: &Record,
        applied_before: usize,
        now: Option<(u64, usize)>,
    ) {
        let (up_map, applied) = now.unwrap_or_default();
        for i in 0..applied_before {
            let member = self.wrapped(index + 1 + i);
            let entry = &mut self.entries[member];
            if !entry.up || entry.addr == self.own || !is_set(before.up_map, i) {
                continue;
            }
            if applied == 0 || applied < i {
                if entry.local {
                    continue;
                }
                entry.reports = 1;
            } else if !is_set(up_map, i) {
                entry.reports = entry.reports.saturating_add(1);
            } else {
                continue;
            }
            self.suspects.push(entry.addr);
        }
    }

    /// How much of a node's record agrees with the ring as it is here.
    fn apply(&mut self, index: usize) {
        let Some(record) = self.entries[index].record.as_ref() else {
            return;
        };
        let members = record.members.iter().enumerate();
        let agrees = |(i, member): &(usize, &NodeAddr)| {
            self.entries[self.wrapped(index + 1 + i)].addr == **member
        };
        let applied = members.take_while(agrees).count();
        self.entries[index].applied = applied as u8;
    }

    /// The ring changed at `index`: records that reach there are looked at again.
    fn reapply_before(&mut self, index: usize) {
        let nodes = self.entries.len();
        for back in 0..domain_size(nodes).min(nodes) {
            self.apply((index + nodes - back) % nodes);
        }
    }

    /// The head whose domain a node is in, or may be in.
    fn head_before(&self, index: usize) -> usize {
        let nodes = self.entries.len();
        (1..=nodes)
            .map(|back| (index + nodes - back) % nodes)
            .find(|at| self.entries[*at].head)
            .unwrap_or(index)
    }

    /// The node at this place of the list. Of the own one the record is what others are told.
    pub(super) fn view(&self, entry: &Entry) -> MonitoredNode {
        let view = entry.view(self.own);
        if entry.addr != self.own {
            return view;
        }
        MonitoredNode {
            generation: self.generation,
            record: Some((with_states(&self.members, self.up_map), self.members.len())),
            ..view
        }
    }

    /// A node came or went: true if the own record is another one.
    fn update_roles(&mut self, index: usize) -> bool {
        let changed = self.update_own_record();
        let own = self.index_of(self.own).filter(|_| changed);
        let from = own.unwrap_or_else(|| self.head_before(index));
        self.assign_roles(from);
        changed
    }

    fn update_own_record(&mut self) -> bool {
        let Some(own) = self.index_of(self.own) else {
            return false;
        };
        let nodes = self.entries.len();
        let (mut changed, mut up_map) = (false, 0);
        let size = domain_size(nodes) - 1;
        for i in 0..size {
            let entry = &self.entries[(own + 1 + i) % nodes];
            up_map |= u64::from(entry.up) << i;
            match self.members.get_mut(i) {
                Some(member) => changed |= std::mem::replace(member, entry.addr) != entry.addr,
                None => {
                    self.members.push(entry.addr);
                    changed = true;
                }
            }
        }
        changed |= self.members.len() != size || self.up_map != up_map;
        self.members.truncate(size);
        self.up_map = up_map;
        self.generation = self.generation.wrapping_add(u16::from(changed));
        changed
    }

    /// Gives roles anew from a head on, up to where they are as they should be.
    fn assign_roles(&mut self, from: usize) {
        let Some(own) = self.index_of(self.own) else {
            return;
        };
        let (mut head, mut covered) = (from, 0);
        let mut at = self.wrapped(from + 1);
        while at != own {
            let covers = if head == own {
                self.members.len()
            } else {
                self.entries[head].applied.into()
            };
            let entry = &mut self.entries[at];
            entry.local = covered < covers && head == own;
            if covered < covers {
                entry.head = false;
            } else if entry.up {
                if entry.head {
                    break;
                }
                entry.head = true;
                (head, covered) = (at, 0);
                at = self.wrapped(at + 1);
                continue;
            }
            covered += 1;
            at = self.wrapped(at + 1);
        }
        self.list_generation = self.list_generation.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
