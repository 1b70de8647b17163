//! The members of a group by address, and by a small number that stays theirs.

use super::member::{Member, MemberNo, MemberState};
use crate::addr::{NodeAddr, SocketAddr};
use crate::slab::Slab;
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

/// Members of one group that a socket knows at most.
pub const MEMBERS_MAX: usize = 1 << 16;
/// Of these, members on one other node.
pub const MEMBERS_OF_NODE_MAX: u32 = 1 << 14;

/// The table.
#[derive(Default)]
pub(super) struct Table {
    members: Slab<Member>,
    /// In the order of Linux: by node, then by port.
    by_addr: BTreeMap<(u32, u32), u32>,
    made: u32,
}

fn key(addr: SocketAddr) -> (u32, u32) {
    (addr.node.0, addr.port.0)
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.by_addr.len()
    }

    pub(super) fn find(&self, addr: SocketAddr) -> Option<u32> {
        self.by_addr.get(&key(addr)).copied()
    }

    /// A member on a node, if there is one.
    pub(super) fn first_on(&self, node: NodeAddr) -> Option<u32> {
        let there = (node.0, 0)..=(node.0, u32::MAX);
        self.by_addr.range(there).next().map(|(_, slot)| *slot)
    }

    /// A member by the number its messages carry.
    pub(super) fn find_numbered(&self, no: MemberNo) -> Option<u32> {
        let (slot, generation) = (no.0 >> 16, no.0 as u16);
        let member = self.members.get(slot)?;
        (member.generation == generation && generation != 0).then_some(slot)
    }

    pub(super) fn number(&self, slot: u32) -> MemberNo {
        MemberNo(slot << 16 | u32::from(self.members[slot].generation))
    }

    /// Adds a member; the caller has made sure that it is not there, and that there is room.
    pub(super) fn insert(&mut self, addr: SocketAddr, state: MemberState) -> u32 {
        self.made = self.made.wrapping_add(1);
        let slot = self.members.insert(Member::new(addr, state, self.made));
        self.by_addr.insert(key(addr), slot);
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Member {
        let member = self.members[slot];
        self.by_addr.remove(&key(member.addr));
        self.members[slot].generation = 0;
        self.members.remove(slot);
        member
    }

    pub(super) fn slots(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.by_addr.values().copied()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Member> + '_ {
        self.slots().map(|slot| &self.members[slot])
    }

    /// Does something to each member.
    pub(super) fn for_each(&mut self, mut act: impl FnMut(&mut Member)) {
        for slot in self.by_addr.values() {
            act(&mut self.members[*slot]);
        }
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.members.allocated_bytes() + self.len() * size_of::<((u32, u32), u32)>()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Index<u32> for Table {
    type Output = Member;

    fn index(&self, slot: u32) -> &Member {
        &self.members[slot]
    }
}

impl IndexMut<u32> for Table {
    fn index_mut(&mut self, slot: u32) -> &mut Member {
        &mut self.members[slot]
    }
}
