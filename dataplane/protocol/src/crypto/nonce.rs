//! The counters of frames that this node encrypts (`docs/protocol/crypto.md`, counters).

/// Bits of the number within an epoch.
const COUNT_BITS: u32 = 34;
/// Bits for the worker that counts, between epoch and number.
const WORKER_BITS: u32 = 6;
/// Epochs there are.
pub const EPOCHS: u32 = 1 << 24;

/// Counts up within an epoch that no other start of this node has.
#[derive(Debug, Default)]
pub(super) struct Counter {
    epoch: Option<u32>,
    next: u64,
    /// The host was asked for the next epoch.
    asked: bool,
}

impl Counter {
    /// Starts over in an epoch that was never used.
    pub(super) fn begin(&mut self, epoch: u32) {
        *self = Self {
            epoch: Some(epoch),
            next: 0,
            asked: false,
        };
    }

    pub(super) fn has_epoch(&self) -> bool {
        self.epoch.is_some()
    }

    /// The next counter of this node, which comes only once; `None` at the end of the epoch. The same for all keys, so
    /// that a key which is set again finds none that it had.
    pub(super) fn take(&mut self) -> Option<u64> {
        let epoch = self.epoch?;
        self.next += 1;
        if self.next >> COUNT_BITS != 0 {
            self.epoch = None;
            return None;
        }
        Some(u64::from(epoch) << (COUNT_BITS + WORKER_BITS) | self.next)
    }

    /// True once when half of the epoch is used up.
    pub(super) fn asks(&mut self) -> bool {
        let asks = !self.asked && self.next >> (COUNT_BITS - 1) != 0;
        self.asked |= asks;
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_two_epochs_differ_and_each_ends() {
        let mut counter = Counter::default();
        assert_eq!(counter.take(), None);
        counter.begin(1);
        assert_eq!(counter.take(), Some((1 << 40) + 1));
        assert!(!counter.asks());
        counter.next = 1 << 33;
        assert!(counter.asks() && !counter.asks());
        counter.next = (1 << 34) - 2;
        assert_eq!(counter.take(), Some((2 << 40) - 1 - (0x3f << 34)));
        assert_eq!((counter.take(), counter.has_epoch()), (None, false));
        counter.begin(EPOCHS - 1);
        assert_eq!(counter.take(), Some(0xffff_ff00_0000_0001));
    }
}
