//! A complaint that others can cause as often as they like: the log has it once in a while, with how often it was meant.

/// Between two of a kind in the log.
const SPACING_NS: u64 = 10_000_000_000;

/// One kind of complaint.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    due_ns: u64,
    /// Since the last one that was told.
    untold: u64,
}

impl Complaints {
    /// There is cause for one. `Some` if it is to be told, with how many were not since the last that was.
    pub(crate) fn occur(&mut self, now_ns: u64) -> Option<u64> {
        if now_ns < self.due_ns {
            self.untold += 1;
            return None;
        }
        self.due_ns = now_ns + SPACING_NS;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_in_a_while_and_counted() {
        let mut complaints = Complaints::default();
        let begin_ns = 7;
        assert_eq!(complaints.occur(begin_ns), Some(0));
        for after_ns in 1..=100 {
            assert_eq!(complaints.occur(begin_ns + after_ns), None);
        }
        assert_eq!(complaints.occur(begin_ns + SPACING_NS), Some(100));
        assert_eq!(complaints.occur(begin_ns + 2 * SPACING_NS), Some(0));
    }
}
