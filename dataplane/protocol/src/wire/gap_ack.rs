//! The gap-ack record at the start of a STATE's payload (`docs/protocol/wire.md`, gap-ack record).
//!
//! The chain (ack, gap), (block.ack, block.gap), … alternates "everything up to and including ack
//! has been received" and "the following gap packets are missing".

use super::WireError;
use arrayvec::ArrayVec;

/// Blocks of each kind a record holds at most.
pub const MAX_GAP_BLOCKS: usize = 64;

/// After the gap described before, everything up to `ack` has been received, then `gap` packets are
/// missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapBlock {
    /// Last packet received before the gap.
    pub ack: u16,
    /// Packets missing behind it; 0 in the last block.
    pub gap: u16,
}

impl GapBlock {
    fn from_wire([ack_high, ack_low, gap_high, gap_low]: [u8; 4]) -> Self {
        Self {
            ack: u16::from_be_bytes([ack_high, ack_low]),
            gap: u16::from_be_bytes([gap_high, gap_low]),
        }
    }
}

/// Blocks of one kind, as they are on the wire: nearly always none, so that room for all would mostly be moved about for
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GapBlocks<'a>(&'a [[u8; 4]]);

impl<'a> GapBlocks<'a> {
    /// Number of blocks.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The blocks, in order.
    pub fn iter(self) -> impl Iterator<Item = GapBlock> + 'a {
        self.0.iter().copied().map(GapBlock::from_wire)
    }

    /// The first one and the others.
    pub fn split_first(self) -> Option<(GapBlock, Self)> {
        let (first, rest) = self.0.split_first()?;
        Some((GapBlock::from_wire(*first), Self(rest)))
    }
}

/// Blocks that are put together.
#[derive(Clone, Debug, Default)]
pub struct GapList(ArrayVec<[u8; 4], MAX_GAP_BLOCKS>);

impl GapList {
    /// Adds one; false if there is no room for it.
    pub fn push(&mut self, block: GapBlock) -> bool {
        let ([a, b], [c, d]) = (block.ack.to_be_bytes(), block.gap.to_be_bytes());
        self.0.try_push([a, b, c, d]).is_ok()
    }

    /// What was added.
    pub fn blocks(&self) -> GapBlocks<'_> {
        GapBlocks(&self.0)
    }
}

impl Extend<GapBlock> for GapList {
    fn extend<I: IntoIterator<Item = GapBlock>>(&mut self, blocks: I) {
        blocks
            .into_iter()
            .take_while(|block| self.push(*block))
            .for_each(drop);
    }
}

/// A whole record. On the wire the broadcast blocks come first, the counts the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GapAckRecord<'a> {
    /// Blocks of the broadcast link.
    pub broadcast: GapBlocks<'a>,
    /// Blocks of the unicast link.
    pub unicast: GapBlocks<'a>,
}

impl<'a> GapAckRecord<'a> {
    /// Parses the record at the start of `payload`; gives it with its length in bytes.
    ///
    /// A record whose counts contradict its length is skipped, one that is longer than the payload
    /// or too short to be a record is malformed.
    pub fn parse(payload: &'a [u8]) -> Result<(Self, usize), WireError> {
        let Some(&[high, low, unicast, broadcast]) = payload.first_chunk::<4>() else {
            return Err(WireError::Truncated {
                need: 4,
                have: payload.len(),
            });
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len < 4 || len > payload.len() {
            return Err(WireError::Malformed("gap-ack record length"));
        }
        let (unicast, broadcast) = (usize::from(unicast), usize::from(broadcast));
        let blocks = &payload[4..len];
        let mut record = Self::default();
        if len == 4 + 4 * (unicast + broadcast) {
            record.broadcast = read(&blocks[..4 * broadcast]);
            record.unicast = read(&blocks[4 * broadcast..]);
        } else if len == 4 + 4 * unicast {
            // A sender from before there were broadcast blocks.
            record.unicast = read(blocks);
        }
        Ok((record, len))
    }

    /// Length of the record on the wire.
    pub fn wire_len(&self) -> usize {
        4 + 4 * (self.broadcast.len() + self.unicast.len())
    }

    /// Writes the record to the start of `out`, which must have room for [`Self::wire_len`] bytes.
    pub fn emit(&self, out: &mut [u8]) {
        let len = self.wire_len() as u16;
        out[..2].copy_from_slice(&len.to_be_bytes());
        out[2] = self.unicast.len() as u8;
        out[3] = self.broadcast.len() as u8;
        let (broadcast, rest) = out[4..].split_at_mut(4 * self.broadcast.len());
        broadcast.copy_from_slice(self.broadcast.0.as_flattened());
        rest[..4 * self.unicast.len()].copy_from_slice(self.unicast.0.as_flattened());
    }
}

/// More blocks than a record may hold are left unread: what they acknowledge is acknowledged later.
fn read(bytes: &[u8]) -> GapBlocks<'_> {
    let (blocks, _) = bytes.as_chunks();
    GapBlocks(&blocks[..blocks.len().min(MAX_GAP_BLOCKS)])
}
