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

/// Blocks of one kind.
pub type GapBlocks = ArrayVec<GapBlock, MAX_GAP_BLOCKS>;

/// A whole record. On the wire the broadcast blocks come first, the counts the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GapAckRecord {
    /// Blocks of the broadcast link.
    pub broadcast: GapBlocks,
    /// Blocks of the unicast link.
    pub unicast: GapBlocks,
}

impl GapAckRecord {
    /// Parses the record at the start of `payload`; gives it with its length in bytes.
    ///
    /// A record whose counts contradict its length is skipped, one that is longer than the payload
    /// or too short to be a record is malformed.
    pub fn parse(payload: &[u8]) -> Result<(Self, usize), WireError> {
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
        for (block, bytes) in self
            .broadcast
            .iter()
            .chain(&self.unicast)
            .zip(out[4..].chunks_exact_mut(4))
        {
            bytes[..2].copy_from_slice(&block.ack.to_be_bytes());
            bytes[2..].copy_from_slice(&block.gap.to_be_bytes());
        }
    }
}

/// More blocks than a record may hold are left unread: what they acknowledge is acknowledged later.
fn read(bytes: &[u8]) -> GapBlocks {
    bytes
        .chunks_exact(4)
        .take(MAX_GAP_BLOCKS)
        .map(|b| GapBlock {
            ack: u16::from_be_bytes([b[0], b[1]]),
            gap: u16::from_be_bytes([b[2], b[3]]),
        })
        .collect()
}
