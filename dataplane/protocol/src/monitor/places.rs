//! Where nodes are on the ring, as far as is remembered.

use crate::addr::NodeAddr;
use std::cell::Cell;

/// A guess for each node, which whoever uses it has to check: nodes may share one, and move on the ring.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Cell<u16>>);

impl Places {
    /// Makes room for this number of nodes.
    pub(super) fn fit(&mut self, nodes: usize) {
        // Half of them empty, so that few nodes share one.
        let wanted = (2 * nodes).next_power_of_two();
        if self.0.len() < wanted {
            self.0.resize(wanted, Cell::new(0));
        }
    }

    /// Where a node may be.
    pub(super) fn guess(&self, addr: NodeAddr) -> Option<usize> {
        self.slot(addr).map(|slot| slot.get().into())
    }

    /// It is there.
    pub(super) fn note(&self, addr: NodeAddr, index: usize) {
        if let (Some(slot), Ok(index)) = (self.slot(addr), index.try_into()) {
            slot.set(index);
        }
    }

    fn slot(&self, addr: NodeAddr) -> Option<&Cell<u16>> {
        let bits = self.0.len().checked_ilog2()?;
        let mixed = addr.0.wrapping_mul(0x9e37_79b9);
        self.0.get(mixed.checked_shr(u32::BITS - bits)? as usize)
    }
}
