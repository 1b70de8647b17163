//! What a round consists of, in which order, and which ratios are taken of it.

use std::fmt;

use serde::Serialize;

use crate::subject::{Subject, Wait};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Times of round trips.
    RoundTrip,
    /// Messages per second, one way.
    Rate,
}

/// What stands on the wire while a step is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// Nothing but the interfaces.
    Bare,
    /// Daemons that let messages share a packet.
    Bundling,
    /// Daemons that send each message in a packet of its own.
    Single,
}

/// One measurement of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) subject: Subject,
    pub(crate) wait: Wait,
    pub(crate) stage: Stage,
}

impl Step {
    const fn new(kind: Kind, subject: Subject, wait: Wait, stage: Stage) -> Self {
        Self {
            kind,
            subject,
            wait,
            stage,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.subject, self.stage) {
            (Kind::RoundTrip, subject, _) => write!(f, "round trip {subject} {}", self.wait),
            (Kind::Rate, Subject::Xtipc, Stage::Single) => f.write_str("rate xtipc single"),
            (Kind::Rate, Subject::Xtipc, _) => f.write_str("rate xtipc bundled"),
            (Kind::Rate, Subject::Udp, _) => f.write_str("rate UDP sendmmsg"),
            (Kind::Rate, subject, _) => write!(f, "rate {subject}"),
        }
    }
}

use Kind::{Rate, RoundTrip};
use Stage::{Bare, Bundling, Single};
use Subject::{Tcp, Udp, Xdp, Xtipc};
use Wait::{Sleeping, Spinning};

const SLEEPING_XTIPC: Step = Step::new(RoundTrip, Xtipc, Sleeping, Bundling);
const SPINNING_XTIPC: Step = Step::new(RoundTrip, Xtipc, Spinning, Bundling);
const SLEEPING_TCP: Step = Step::new(RoundTrip, Tcp, Sleeping, Bare);
const SPINNING_TCP: Step = Step::new(RoundTrip, Tcp, Spinning, Bare);
const SLEEPING_UDP: Step = Step::new(RoundTrip, Udp, Sleeping, Bare);
const RAW: Step = Step::new(RoundTrip, Xdp, Spinning, Bare);
const BUNDLED_RATE: Step = Step::new(Rate, Xtipc, Sleeping, Bundling);
const SINGLE_RATE: Step = Step::new(Rate, Xtipc, Sleeping, Single);
const UDP_RATE: Step = Step::new(Rate, Udp, Sleeping, Bare);
const TCP_RATE: Step = Step::new(Rate, Tcp, Sleeping, Bare);
const RAW_RATE: Step = Step::new(Rate, Xdp, Spinning, Bare);

/// A round. What is compared stands close together, and the daemons are started only twice: the kernel's protocols
/// and raw frames have the interfaces without a daemon's XDP program on them.
pub(crate) const ROUND: [Step; 11] = [
    RAW,
    SPINNING_TCP,
    SLEEPING_UDP,
    SLEEPING_TCP,
    SLEEPING_XTIPC,
    SPINNING_XTIPC,
    BUNDLED_RATE,
    SINGLE_RATE,
    UDP_RATE,
    RAW_RATE,
    TCP_RATE,
];

/// What a ratio has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub(crate) fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(bound) => ratio <= bound,
            Self::AtLeast(bound) => ratio >= bound,
        }
    }
}

/// Two steps that are compared: by the median round trip or by the rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Comparison {
    pub(crate) step: Step,
    pub(crate) against: Step,
    /// `None`: only reported.
    pub(crate) goal: Option<Bound>,
}

const fn compare(step: Step, against: Step, goal: Option<Bound>) -> Comparison {
    Comparison {
        step,
        against,
        goal,
    }
}

/// Goals first.
pub(crate) const COMPARISONS: [Comparison; 8] = [
    compare(SLEEPING_XTIPC, SLEEPING_TCP, Some(Bound::AtMost(0.6))),
    compare(BUNDLED_RATE, UDP_RATE, Some(Bound::AtLeast(5.0))),
    compare(SINGLE_RATE, UDP_RATE, Some(Bound::AtLeast(2.0))),
    compare(SLEEPING_XTIPC, SLEEPING_UDP, None),
    compare(SPINNING_XTIPC, SPINNING_TCP, None),
    compare(SPINNING_XTIPC, RAW, None),
    compare(SINGLE_RATE, RAW_RATE, None),
    compare(BUNDLED_RATE, TCP_RATE, None),
];

/// The steps of a round whose names contain each of these words.
pub(crate) fn select(words: &[String]) -> Vec<Step> {
    let selected = |step: &Step| {
        let name = step.to_string().to_lowercase();
        words.iter().all(|word| name.contains(&word.to_lowercase()))
    };
    ROUND.into_iter().filter(selected).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_step_has_a_name_of_its_own() {
        let names: HashSet<_> = ROUND.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), ROUND.len());
    }

    #[test]
    fn whatever_is_compared_is_measured_in_a_round() {
        for comparison in COMPARISONS {
            for step in [comparison.step, comparison.against] {
                assert!(ROUND.contains(&step), "{step}");
            }
            assert_eq!(comparison.step.kind, comparison.against.kind);
        }
    }

    #[test]
    fn steps_are_selected_by_words_of_their_names() {
        let of = |words: &[&str]| select(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&[]), ROUND);
        assert_eq!(of(&["rate", "XTIPC"]), [BUNDLED_RATE, SINGLE_RATE]);
        assert_eq!(of(&["tcp sleeping"]), [SLEEPING_TCP]);
        assert_eq!(of(&["sctp"]), []);
    }

    #[test]
    fn a_bound_holds_at_its_own_value() {
        assert!(Bound::AtMost(0.6).holds(0.6) && !Bound::AtMost(0.6).holds(0.61));
        assert!(Bound::AtLeast(5.0).holds(5.0) && !Bound::AtLeast(5.0).holds(4.99));
    }
}
