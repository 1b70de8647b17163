//! How long a call waits.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Until when to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Instant),
    /// As long as it takes.
    Endless,
    /// Until then, or as long as it takes, but only until a signal comes that would end a system call.
    UntilSignal(Option<Instant>),
}

impl Patience {
    /// `None` is endless.
    pub(crate) fn lasting(timeout: Option<Duration>) -> Self {
        timeout
            .and_then(|timeout| Instant::now().checked_add(timeout))
            .map_or(Self::Endless, Self::Until)
    }

    /// The same, ended by signals as system calls are.
    pub(crate) fn of_system_call(self) -> Self {
        match self {
            Self::Until(end) => Self::UntilSignal(Some(end)),
            Self::Endless => Self::UntilSignal(None),
            other => other,
        }
    }

    /// Whether only a signal whose handler restarts no calls ends it.
    pub(crate) fn outlasts_restarts(self) -> bool {
        matches!(self, Self::UntilSignal(None))
    }

    /// What is left; an error if nothing is. `Ok(None)` is endless.
    pub(crate) fn left(self) -> Result<Option<Duration>> {
        match self {
            Self::None => Err(Error::WouldBlock),
            Self::Endless | Self::UntilSignal(None) => Ok(None),
            Self::Until(end) | Self::UntilSignal(Some(end)) => {
                match end.checked_duration_since(Instant::now()) {
                    None | Some(Duration::ZERO) => Err(Error::TimedOut),
                    left => Ok(left),
                }
            }
        }
    }
}
