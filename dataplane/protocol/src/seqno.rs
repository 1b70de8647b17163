//! Serial arithmetic on 16-bit numbers: packets, STATE messages, sessions, binding updates.

/// A number that wraps. Compared modulo 2^16, so deliberately not `Ord`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqNo(pub u16);

impl SeqNo {
    /// `self` is `other` or comes before it. A distance of exactly 2^15 counts as after, as in Linux.
    #[inline]
    pub fn before_or_eq(self, other: Self) -> bool {
        other.0.wrapping_sub(self.0) < 1 << 15
    }

    /// `self` comes before `other`.
    #[inline]
    pub fn before(self, other: Self) -> bool {
        self != other && self.before_or_eq(other)
    }

    /// `self` comes after `other`.
    #[inline]
    pub fn after(self, other: Self) -> bool {
        !self.before_or_eq(other)
    }

    /// The number after this one.
    #[inline]
    pub fn next(self) -> Self {
        self + 1
    }

    /// The number before this one.
    #[inline]
    pub fn prev(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    /// How far `self` is ahead of `other`.
    #[inline]
    pub fn distance_from(self, other: Self) -> u16 {
        self.0.wrapping_sub(other.0)
    }
}

impl std::ops::Add<u16> for SeqNo {
    type Output = Self;

    #[inline]
    fn add(self, n: u16) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNo;

    #[test]
    fn comparison_wraps_and_the_exact_opposite_is_after() {
        assert!(SeqNo(65_535).before(SeqNo(0)));
        assert!(SeqNo(0).after(SeqNo(65_535)));
        assert!(SeqNo(0).after(SeqNo(32_768)));
        assert!(SeqNo(32_768).after(SeqNo(0)));
        assert!(SeqNo(0).before(SeqNo(32_767)));
        assert!(SeqNo(7).before_or_eq(SeqNo(7)) && !SeqNo(7).before(SeqNo(7)));
        assert_eq!(SeqNo(2).distance_from(SeqNo(65_534)), 4);
    }
}
