//! Whether the workers that serve queues have handed over what came, before worker 0 judges peers by what it has.
//!
//! Owned by a port. Pure: the caller tells the time and what it sees.

use std::time::Duration;

/// A worker that serves queues is stalled when it has made no round for so long with something to take.
pub(super) const STALL: Duration = Duration::from_millis(100);
/// How long its stall keeps the node from judging peers.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Arrears {
    /// Nothing: all that came is here, or no worker is waited for.
    None,
    /// They have looked, and hand over.
    Coming,
    /// One has not looked since packets were seen.
    Awaited,
    /// The same for so long that it is stalled.
    Stalled,
}

/// Follows the workers of a port.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// When packets were seen in queues of workers that have not looked since.
    since: Option<Duration>,
}

impl Lookout {
    /// One look: when the worker that has not looked for longest did so, of those with packets in their queues.
    pub(super) fn judge(&mut self, now: Duration, looked: Option<Duration>) -> Arrears {
        let Some(looked) = looked else {
            self.since = None;
            return Arrears::None;
        };
        let since = *self.since.get_or_insert(now);
        if looked > since {
            // What lies there now is newer.
            self.since = Some(now);
            return Arrears::Coming;
        }
        match now.saturating_sub(since) {
            standing if standing > PATIENCE => Arrears::None,
            standing if standing > STALL => Arrears::Stalled,
            _ => Arrears::Awaited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_worker_that_slept_for_long_is_given_time_from_when_packets_are_seen() {
        let mut lookout = Lookout::default();
        assert_eq!(lookout.judge(ms(9_000), None), Arrears::None);
        assert_eq!(lookout.judge(ms(9_500), Some(ms(10))), Arrears::Awaited);
        assert_eq!(lookout.judge(ms(9_599), Some(ms(10))), Arrears::Awaited);
        assert_eq!(lookout.judge(ms(9_600), None), Arrears::None);
    }

    #[test]
    fn a_worker_under_load_is_waited_for_one_look_at_a_time() {
        let mut lookout = Lookout::default();
        for now in (1000..3000).step_by(10) {
            assert_eq!(lookout.judge(ms(now), Some(ms(now - 1))), Arrears::Awaited);
            assert_eq!(
                lookout.judge(ms(now + 5), Some(ms(now + 1))),
                Arrears::Coming
            );
            lookout.judge(ms(now + 6), None);
        }
    }

    #[test]
    fn a_stall_is_seen_also_of_one_that_was_never_done_and_not_waited_for_without_end() {
        let mut lookout = Lookout::default();
        lookout.judge(ms(1000), Some(ms(990)));
        assert_eq!(lookout.judge(ms(1010), Some(ms(1005))), Arrears::Coming);
        assert_eq!(lookout.judge(ms(1100), Some(ms(1005))), Arrears::Awaited);
        assert_eq!(lookout.judge(ms(1111), Some(ms(1005))), Arrears::Stalled);
        assert_eq!(lookout.judge(ms(2010), Some(ms(1005))), Arrears::Stalled);
        assert_eq!(lookout.judge(ms(2011), Some(ms(1005))), Arrears::None);
        assert_eq!(lookout.judge(ms(2500), Some(ms(2499))), Arrears::Coming);
    }
}
