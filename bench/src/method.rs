//! How a run measured: what its options were, for a reader of the figures, and for who compares runs.

use serde::{Deserialize, Serialize};

use crate::options::Options;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Method {
    pub(crate) burst_ms: u64,
    /// Of a run that counts instructions.
    pub(crate) operations: Option<u64>,
    /// Of the daemons.
    pub(crate) policy: String,
    /// Between two hosts.
    pub(crate) bearer: Option<String>,
    /// Not as released.
    pub(crate) debug_build: bool,
}

impl Method {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            burst_ms: options.burst,
            operations: options.operations,
            policy: options.policy.clone(),
            bearer: options.bearer.as_ref().map(ToString::to_string),
            debug_build: cfg!(debug_assertions),
        }
    }

    /// By name, what makes runs differ.
    pub(crate) fn facts(&self) -> [(&'static str, String); 5] {
        let operations = self.operations;
        [
            ("burst", format!("{} ms", self.burst_ms)),
            (
                "operations",
                operations.map_or("none".into(), |n| n.to_string()),
            ),
            ("policy", self.policy.clone()),
            (
                "bearer",
                self.bearer.clone().unwrap_or_else(|| "veth".into()),
            ),
            (
                "build",
                if self.debug_build { "debug" } else { "release" }.into(),
            ),
        ]
    }
}
