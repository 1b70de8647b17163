//! How long a measurement goes on: for a time, or for a number of operations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Operations before the measured ones, where operations are counted.
const WARM_UP_OPERATIONS: u64 = 64;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Extent {
    /// So long, after a tenth of it to warm up.
    Lasting(Duration),
    /// So many operations, after some to warm up.
    Counted(u64),
}

impl Extent {
    /// Whether the warm-up is over.
    pub(crate) fn is_warm(&self, operations: u64, elapsed: Duration) -> bool {
        match self {
            Self::Lasting(duration) => elapsed >= *duration / 10,
            Self::Counted(_) => operations + 1 >= WARM_UP_OPERATIONS,
        }
    }

    /// Whether enough was measured.
    pub(crate) fn is_over(&self, operations: u64, elapsed: Duration) -> bool {
        match self {
            Self::Lasting(duration) => elapsed >= *duration,
            Self::Counted(count) => operations >= *count,
        }
    }
}
