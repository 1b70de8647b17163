//! The ring: domains, roles, and what a record that came tells.

use super::{Monitor, MonitoredNode};
use crate::addr::NodeAddr;
use crate::time::Instant;
use crate::wire::{DomainRecord, MAX_DOMAIN_MEMBERS};
use std::time::Duration;

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
    /// This node watches it, though not for what it says of others.
    alone: bool,
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
    /// The milliseconds in which its last record came, and the last one that asked for an answer; they wrap.
    heard_ms: u32,
    asked_ms: u32,
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
            alone: false,
            applied: 0,
            reports: 0,
            synchronised: false,
            peer_generation: 0,
            acked: 0,
            heard_ms: 0,
            asked_ms: 0,
            record: None,
        }
    }

    pub(super) fn is_local(&self) -> bool {
        self.local
    }

    pub(super) fn is_watched(&self) -> bool {
        self.local || self.head || self.alone
    }

    pub(super) fn is_suspected(&self) -> bool {
        self.reports > 0
    }

    /// It has asked for a sign of life not longer ago: most likely it goes by what this node says.
    pub(super) fn has_asked_within(&self, span: Duration, now: Instant) -> bool {
        is_since(self.asked_ms.wrapping_add(span.as_millis() as u32), now)
    }

    /// Its record says that it has a link to this member.
    fn has_link_to(&self, member: usize) -> bool {
        self.record
            .as_ref()
            .is_some_and(|record| is_set(record.up_map, member))
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

/// Whether this millisecond is not before the moment.
fn is_since(ms: u32, moment: Instant) -> bool {
    ms.wrapping_sub(moment.as_millis() as u32).cast_signed() >= 0
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
        self.set_reports(index, 0);
        let entry = &mut self.entries[index];
        *entry = Entry::new(addr);
        entry.up = true;
        entry.acked = generation.wrapping_sub(1);
        self.unhurried &= !self.update_roles(index);
    }

    /// The link to a peer went down. True if it was one that this node watches for others, who are to be told.
    pub fn peer_down(&mut self, now: Instant, addr: NodeAddr) -> bool {
        let Some(index) = self.index_of(addr) else {
            return false;
        };
        let entry = &mut self.entries[index];
        let (was_head, applied) = (entry.head, usize::from(entry.applied));
        let spoke = was_head && applied > 0 && !entry.is_suspected();
        self.losses.note(now, entry.local && entry.up, spoke);
        let before = entry.record.take();
        self.set_reports(index, 0);
        self.entries[index] = Entry::new(addr);
        // In a mesh nobody depends on what it said.
        if let Some(before) = before.filter(|_| was_head && self.is_ring()) {
            self.note_losses(index, &before, applied, None);
        }
        let changed = self.update_roles(index);
        self.note_unwatched(index);
        self.news |= changed;
        self.unhurried |= changed;
        changed
    }

    fn set_reports(&mut self, index: usize, reports: u8) {
        let entry = &mut self.entries[index];
        let was = entry.is_suspected();
        entry.reports = reports;
        self.suspected = self.suspected + usize::from(reports > 0) - usize::from(was);
    }

    fn suspect(&mut self, index: usize, reports: u8) {
        self.set_reports(index, reports);
        self.suspects.push(self.entries[index].addr);
    }

    /// A node was lost. If that leaves nobody who watches the next one that is up, this node has to look for itself.
    fn note_unwatched(&mut self, lost: usize) {
        let (nodes, watchers) = (self.entries.len(), self.members.len());
        let is_down = |at: &usize| !self.entries[*at].up;
        let mut behind = (1..nodes).map(|i| (lost + i) % nodes);
        let Some(next) = behind.find(|at| !is_down(at)) else {
            return;
        };
        let before = (1..=watchers).map(|i| (next + nodes - i) % nodes);
        let entry = &self.entries[next];
        let is_supervised = entry.record.is_some() && !entry.is_suspected();
        if is_supervised && next != lost && before.take_while(is_down).count() == watchers {
            self.suspect(next, 1);
        }
    }

    /// A peer is not known any more.
    pub fn remove(&mut self, addr: NodeAddr) {
        let Some(index) = self.index_of(addr).filter(|_| addr != self.own) else {
            return;
        };
        self.set_reports(index, 0);
        self.entries.remove(index);
        self.reapply_before(self.wrapped(index));
        self.update_own_record();
        if let Some(own) = self.index_of(self.own) {
            self.assign_roles(own);
        }
    }

    /// A record came in a STATE of a peer's link that is up, one that asks for an answer or another.
    pub fn on_record(
        &mut self,
        now: Instant,
        addr: NodeAddr,
        record: &DomainRecord<'_>,
        asks: bool,
    ) {
        let Some(index) = self.index_of(addr).filter(|i| self.entries[*i].up) else {
            return;
        };
        let entry = &mut self.entries[index];
        let was_in_doubt =
            entry.is_suspected() || entry.head && !is_since(entry.heard_ms, self.losses.since());
        entry.heard_ms = now.as_millis() as u32;
        if asks {
            entry.asked_ms = entry.heard_ms;
        }
        if !entry.synchronised {
            entry.synchronised = true;
            entry.peer_generation = record.generation.wrapping_sub(1);
            entry.acked = record.ack_generation;
        }
        if is_after(record.ack_generation, entry.acked) {
            entry.acked = record.ack_generation;
        }
        self.set_reports(index, 0);
        if was_in_doubt {
            self.assign_roles(self.head_before(index));
        }
        if is_after(record.generation, self.entries[index].peer_generation) {
            self.take_record(index, record);
        }
    }

    fn take_record(&mut self, index: usize, record: &DomainRecord<'_>) {
        let entry = &mut self.entries[index];
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
            let entry = &self.entries[member];
            // Its own domain this node looks at itself, and notices together what is lost together.
            let is_own = entry.local || entry.addr == self.own;
            if !entry.up || is_own || !is_set(before.up_map, i) {
                continue;
            }
            if applied == 0 || applied < i {
                if self.is_ring() {
                    self.suspect(member, 1);
                }
            } else if !is_set(up_map, i) {
                self.suspect(member, entry.reports.saturating_add(1));
            }
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
            let is_own = head == own;
            let covers = if is_own {
                self.members.len()
            } else {
                self.entries[head].applied.into()
            };
            let is_covered = covered < covers;
            let is_linked = is_own || self.entries[head].has_link_to(covered);
            let entry = &mut self.entries[at];
            // One that has not been heard since others were lost may be lost, too: who takes its place has still to be
            // watched for as long.
            let is_local = is_covered && is_own;
            let is_kept = entry.head && !is_local && !is_since(entry.heard_ms, self.losses.since());
            if entry.up && (!is_covered && entry.head || is_kept) {
                break;
            }
            entry.local = is_local;
            entry.head = entry.up && !is_covered && !entry.is_suspected();
            entry.alone = entry.up && !entry.head && !(is_covered && is_linked);
            if entry.head {
                (head, covered) = (at, 0);
            } else {
                covered += 1;
            }
            at = self.wrapped(at + 1);
        }
        self.list_generation = self.list_generation.wrapping_add(1);
    }

    /// Nodes that speak for others, once all is settled.
    pub(super) fn heads(&self) -> usize {
        (self.nodes() - 1) / (self.members.len() + 1)
    }
}

#[cfg(test)]
mod tests;
