//! The monitor record behind the gap-ack record of a STATE: which nodes the sender supervises
//! (`docs/protocol/wire.md`, monitor record).

use super::WireError;
use crate::addr::NodeAddr;

/// Members of a domain at most.
pub const MAX_DOMAIN_MEMBERS: usize = 64;

/// Bytes before the members.
const FIXED: usize = 16;

/// A node's domain: the next nodes on the ring, and which of them are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainRecord<'a> {
    /// Generation of the sender's domain.
    pub generation: u16,
    /// Last generation received from the addressee.
    pub ack_generation: u16,
    /// Bit i is set if member i is up; bits beyond the members mean nothing.
    pub up_map: u64,
    /// The members' addresses as they are on the wire; none if the addressee knows the generation.
    pub members: &'a [[u8; 4]],
}

impl<'a> DomainRecord<'a> {
    /// Longest record.
    pub const MAX_SIZE: usize = FIXED + 4 * MAX_DOMAIN_MEMBERS;

    /// Parses a record that fills `bytes`. Stated length, number of members and the bytes at hand
    /// must agree exactly.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
            return Err(WireError::Truncated {
                need: FIXED,
                have: bytes.len(),
            });
        };
        let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let (members, odd) = rest.as_chunks();
        let count = usize::from(half(6));
        let agree = odd.is_empty() && count == members.len() && usize::from(half(0)) == bytes.len();
        if count > MAX_DOMAIN_MEMBERS || !agree {
            return Err(WireError::Malformed("monitor record length"));
        }
        let mut up_map = [0; 8];
        up_map.copy_from_slice(&fixed[8..]);
        Ok(Self {
            generation: half(2),
            ack_generation: half(4),
            up_map: u64::from_be_bytes(up_map),
            members,
        })
    }

    /// The members and whether each is up.
    pub fn members(&self) -> impl Iterator<Item = (NodeAddr, bool)> + 'a {
        let up_map = self.up_map;
        let up = move |i: usize| up_map.checked_shr(i as u32).is_some_and(|map| map & 1 != 0);
        self.members
            .iter()
            .enumerate()
            .map(move |(i, addr)| (NodeAddr(u32::from_be_bytes(*addr)), up(i)))
    }

    /// Writes the record to the start of `out`; gives its length.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let len = FIXED + 4 * self.members.len();
        let halves = [
            len as u16,
            self.generation,
            self.ack_generation,
            self.members.len() as u16,
        ];
        for (bytes, half) in out.as_chunks_mut().0.iter_mut().zip(halves) {
            *bytes = half.to_be_bytes();
        }
        out[8..FIXED].copy_from_slice(&self.up_map.to_be_bytes());
        out[FIXED..len].copy_from_slice(self.members.as_flattened());
        len
    }
}
