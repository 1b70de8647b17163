//! Reading acknowledgements with gaps (`docs/protocol/link.md`, acknowledgement).

use crate::seqno::SeqNo;
use crate::wire::GapBlocks;

/// Where a packet lies in the chain of acknowledgements and gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The other end has it.
    Received,
    /// The other end asks for it.
    Missing,
    /// Nothing is said of it.
    Unknown,
}

/// The chain (ack, gap), (block.ack, block.gap), …, read once in ascending order. Blocks that do not
/// ascend, or that acknowledge what was never sent, end it.
pub struct GapChain<'a> {
    ack: SeqNo,
    gap: u16,
    blocks: GapBlocks<'a>,
    last_sent: SeqNo,
}

impl<'a> GapChain<'a> {
    /// A chain over packets up to `last_sent`.
    pub fn new(ack: SeqNo, gap: u16, blocks: GapBlocks<'a>, last_sent: SeqNo) -> Self {
        Self {
            ack,
            gap,
            blocks,
            last_sent,
        }
    }

    /// Where `seqno` lies; to be asked in ascending order.
    pub fn place(&mut self, seqno: SeqNo) -> Place {
        loop {
            if seqno.before_or_eq(self.ack) {
                return Place::Received;
            }
            if seqno.before_or_eq(self.ack + self.gap) {
                return Place::Missing;
            }
            let Some((block, rest)) = self.blocks.split_first() else {
                return Place::Unknown;
            };
            let ack = SeqNo(block.ack);
            if !(self.ack + self.gap).before(ack) || ack.after(self.last_sent) {
                return Place::Unknown;
            }
            *self = Self {
                ack,
                gap: block.gap,
                blocks: rest,
                last_sent: self.last_sent,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{GapBlock, GapList};

    fn places(ack: u16, gap: u16, blocks: &[(u16, u16)], last_sent: u16, of: &[u16]) -> Vec<Place> {
        let mut list = GapList::default();
        list.extend(blocks.iter().map(|&(ack, gap)| GapBlock { ack, gap }));
        let mut chain = GapChain::new(SeqNo(ack), gap, list.blocks(), SeqNo(last_sent));
        of.iter().map(|s| chain.place(SeqNo(*s))).collect()
    }

    #[test]
    fn gap_chain_places_each_packet() {
        use Place::*;
        // Received up to 0, then 3 4, 10 11, 13 to 15, 20.
        let got = places(
            0,
            2,
            &[(4, 5), (11, 1), (15, 4), (20, 0)],
            21,
            &[1, 2, 3, 4, 5, 9, 10, 12, 15, 16, 20, 21],
        );
        assert_eq!(
            got,
            [
                Missing, Missing, Received, Received, Missing, Missing, Received, Missing,
                Received, Missing, Received, Unknown
            ]
        );
    }

    #[test]
    fn blocks_that_do_not_ascend_or_were_never_sent_are_not_believed() {
        use Place::*;
        assert_eq!(places(10, 2, &[(9, 0)], 20, &[11, 13]), [Missing, Unknown]);
        assert_eq!(places(10, 2, &[(12, 0)], 20, &[13]), [Unknown]);
        assert_eq!(places(10, 2, &[(21, 0)], 20, &[13]), [Unknown]);
        assert_eq!(
            places(65_534, 1, &[(1, 0)], 2, &[65_535, 0, 1, 2]),
            [Missing, Received, Received, Unknown]
        );
    }
}
