//! Whether to stand by for the daemon's worker or sleep at once (`docs/architecture.md`, sleeping and spinning).
//!
//! Owned by the dispatcher's state. Who stood by in vain does not for a growing number of waits: a yield gives way only
//! inside one scheduling group, and nothing tells in which one the worker is.

/// Longest row of waits without standing by: what those in between cost does not show.
const PAUSE_MAX: u32 = 1023;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct StandBy {
    /// Waits left of the pause.
    left: u32,
    /// How many they were at first; 0 after a success.
    pause: u32,
}

impl StandBy {
    /// Whether to stand by in this wait.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.left == 0;
        self.left = self.left.saturating_sub(1);
        due
    }

    /// Notes whether it has brought anything.
    pub(crate) fn learn(&mut self, paid: bool) {
        self.pause = if paid {
            0
        } else {
            (2 * self.pause + 1).min(PAUSE_MAX)
        };
        self.left = self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_by_in_vain_pauses_longer_each_time_and_not_after_a_success() {
        let mut stand_by = StandBy::default();
        for pause in [1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1023] {
            assert!(stand_by.is_due());
            stand_by.learn(false);
            for _ in 0..pause {
                assert!(!stand_by.is_due());
            }
        }
        assert!(stand_by.is_due());
        stand_by.learn(true);
        assert!(stand_by.is_due());
        stand_by.learn(false);
        assert!(!stand_by.is_due());
        assert!(stand_by.is_due());
    }
}
