//! Where nodes are on the ring, as far as is remembered.

use crate::addr::NodeAddr;
use std::cell::Cell;

/// Nodes that share the half of a line of a processor's cache.
const SHARED: usize = 8;
/// A half-line has room for twice as many nodes as use it on average, so that few find it full.
const SPARE: usize = 2;
/// What no node is told by.
const FREE: u16 = 0;

/// Bits by which nodes of a half-line are told from each other, and behind them where one of them was seen.
#[derive(Clone, Debug, Default)]
#[repr(align(32))]
struct Few([Cell<(u16, u16)>; SHARED]);

/// A guess for each node, which whoever uses it has to check: nodes move on the ring, and hardly ever two share one.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Few>);

impl Places {
    /// Makes room for this number of nodes.
    pub(super) fn fit(&mut self, nodes: usize) {
        if self.0.len() * SHARED < SPARE * nodes {
            // Every node has another half-line then.
            self.0 = vec![Few::default(); (SPARE * nodes).div_ceil(SHARED) + nodes / 64 + 1];
        }
    }

    /// Where a node may be.
    pub(super) fn guess(&self, addr: NodeAddr) -> Option<usize> {
        let (few, tag) = self.few(addr)?;
        let guesses = few.0.iter().map(Cell::get);
        let mut mine = guesses.filter(|(of, _)| *of == tag);
        mine.next().map(|(_, index)| index.into())
    }

    /// It is there.
    pub(super) fn note(&self, addr: NodeAddr, index: usize) {
        if let (Some((few, tag)), Ok(index)) = (self.few(addr), index.try_into()) {
            let has = |wanted| few.0.iter().position(|guess| guess.get().0 == wanted);
            let slot = has(tag).or_else(|| has(FREE));
            few.0[slot.unwrap_or(usize::from(tag) % SHARED)].set((tag, index));
        }
    }

    fn few(&self, addr: NodeAddr) -> Option<(&Few, u16)> {
        let mixed = addr.0.wrapping_mul(0x9e37_79b9);
        let at = (u64::from(mixed) * self.0.len() as u64) >> u32::BITS;
        Some((self.0.get(at as usize)?, mixed as u16 | 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_all_of_a_thousand_nodes_have_a_place_of_their_own() {
        let mut places = Places::default();
        assert_eq!(places.guess(NodeAddr(1)), None);
        places.fit(1000);
        let addr = |index: usize| NodeAddr((index as u32).wrapping_mul(0x45d9_f3b3));
        for index in (0..1000).chain(0..1000) {
            places.note(addr(index), index);
        }
        let found = (0..1000).filter(|index| places.guess(addr(*index)) == Some(*index));
        assert!(found.count() > 980);
    }
}
