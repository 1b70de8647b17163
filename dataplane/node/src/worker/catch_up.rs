//! After a stall the worker first takes what arrived meanwhile, then looks at timers (docs/architecture.md, the worker).
//!
//! Owned by the worker. Pure: the caller tells how long it stood still and what a round received. One round takes only
//! a share of full receive rings; a timer between two of them would judge a peer by what it has said long ago.

use crate::watchdog::late_ns;

/// Nothing a worker does takes so long: it was not given the processor, or was stopped.
pub(super) const STALL_NS: u64 = 100_000_000;

/// How long it is without a round if it was stalled: sooner where a link is given up in less than that.
pub(super) fn stall_ns(shortest_tolerance_ms: u32) -> u64 {
    late_ns(shortest_tolerance_ms).min(STALL_NS)
}

/// More than the receive rings of a bearer hold; beyond that timers get their turn whatever still comes.
const PACKETS_MAX: usize = 32_768;

/// Whether timers have to wait.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// Packets that may still come before timers.
    left: usize,
}

impl CatchUp {
    /// The worker made no round for `gap_ns`; longer than `stall_ns` is a stall.
    pub(super) fn after_gap(&mut self, gap_ns: u64, stall_ns: u64) {
        if gap_ns > stall_ns {
            self.begin();
        }
    }

    /// Somebody else was stalled, who has packets for this worker.
    pub(super) fn begin(&mut self) {
        self.left = PACKETS_MAX;
    }

    /// Timers wait for nothing.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// A round took `received` packets, and `drained` tells whether it left none. True if timers have to wait for the
    /// next round.
    pub(super) fn goes_on(&mut self, received: usize, drained: bool) -> bool {
        self.left = if drained {
            0
        } else {
            self.left.saturating_sub(received)
        };
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_stall_timers_wait_for_nothing() {
        let mut catch_up = CatchUp::default();
        assert!(!catch_up.goes_on(64, false));
        catch_up.after_gap(STALL_NS, stall_ns(1500));
        assert!(!catch_up.goes_on(64, false));
    }

    #[test]
    fn after_a_stall_timers_wait_until_all_that_arrived_is_taken() {
        let mut catch_up = CatchUp::default();
        catch_up.after_gap(10_000_000_000, stall_ns(1500));
        for _ in 0..64 {
            assert!(catch_up.goes_on(64, false));
            catch_up.after_gap(10_000, stall_ns(1500));
        }
        assert!(!catch_up.is_over());
        assert!(!catch_up.goes_on(10, true));
        assert!(catch_up.is_over());
        assert!(!catch_up.goes_on(64, false), "that is new traffic");
    }

    #[test]
    fn links_of_a_short_tolerance_make_a_stall_of_a_shorter_gap() {
        let mut catch_up = CatchUp::default();
        catch_up.after_gap(6_250_000, stall_ns(50));
        assert!(!catch_up.goes_on(64, false));
        catch_up.after_gap(6_250_001, stall_ns(50));
        assert!(catch_up.goes_on(64, false));
    }

    #[test]
    fn packets_without_end_do_not_keep_timers_waiting() {
        let mut catch_up = CatchUp::default();
        catch_up.after_gap(10_000_000_000, stall_ns(1500));
        let rounds = (1..).find(|_| !catch_up.goes_on(64, false));
        assert_eq!(rounds, Some(512));
    }
}
