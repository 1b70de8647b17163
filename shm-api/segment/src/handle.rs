//! How the two sides name a delivery buffer: by the block of the arena where it begins, and by the lower bits of the
//! number of its delivery. So an entry for an earlier use of the block is found out.

/// Bits that number the blocks of the largest arena.
const BLOCK_BITS: u32 = 22;
/// Bits of a handle.
pub(crate) const HANDLE_BITS: u32 = 48;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(u64);

impl Handle {
    #[inline]
    pub(crate) fn new(block: u32, number: u64) -> Self {
        Self((number << BLOCK_BITS | u64::from(block)) & ((1 << HANDLE_BITS) - 1))
    }

    /// One that the other side has written: any bits will do.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn block(self) -> usize {
        self.0 as usize & ((1 << BLOCK_BITS) - 1)
    }

    /// The buffer of the next delivery, if this one has one block and that begins behind it. Where the numbers come round
    /// there is none.
    #[inline]
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1 << BLOCK_BITS | 1))
    }
}
