//! `ioctl`: names of links and identities of nodes.

use xtipc_segment::Request;

use super::{Errno, Result, Socket};

/// `SIOCGETLINKNAME`: of `{u32 node, u32 bearer, char name[68]}` fills the name in.
pub const SIOCGETLINKNAME: u64 = 0x89e0;
/// `SIOCGETNODEID`: of `{u32 node, u8 identity[16]}` fills the identity in.
pub const SIOCGETNODEID: u64 = 0x89e1;

const LINK_REQUEST_LEN: usize = 76;
const NODE_REQUEST_LEN: usize = 20;
/// Bytes of a name in one answer.
const PART_LEN: usize = 16;

impl Socket {
    /// `ioctl` with [`SIOCGETLINKNAME`] or [`SIOCGETNODEID`] on the bytes of its structure.
    pub fn ioctl(&self, request: u64, argument: &mut [u8]) -> Result<()> {
        let fault = Errno(libc::EFAULT);
        match request {
            SIOCGETLINKNAME => {
                let argument = argument
                    .first_chunk_mut::<LINK_REQUEST_LEN>()
                    .ok_or(fault)?;
                let (numbers, name) = argument.split_at_mut(8);
                self.link_name(word(numbers, 0), word(numbers, 4), name)
            }
            SIOCGETNODEID => {
                let argument = argument
                    .first_chunk_mut::<NODE_REQUEST_LEN>()
                    .ok_or(fault)?;
                let (number, identity) = argument.split_at_mut(4);
                let node = word(number, 0);
                let answer = self.call(Request::GetNodeIdentity { node })?;
                identity.copy_from_slice(&bytes_of(answer));
                Ok(())
            }
            _ => Err(Errno(libc::ENOTTY)),
        }
    }

    fn link_name(&self, node: u32, bearer: u32, name: &mut [u8]) -> Result<()> {
        name.fill(0);
        for (index, place) in name.chunks_mut(PART_LEN).enumerate() {
            let part = bytes_of(self.call(Request::GetLinkName {
                node,
                bearer,
                offset: (index * PART_LEN) as u32,
            })?);
            place.copy_from_slice(&part[..place.len()]);
            if part.contains(&0) {
                break;
            }
        }
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn bytes_of([low, high]: [u64; 2]) -> [u8; PART_LEN] {
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}
