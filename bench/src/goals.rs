//! What is compared with what, and what the ratio has to be.

use serde::Serialize;

use crate::plan::{
    ASLEEP, BUNDLED_RATE, CONNECT, EMBEDDED, EMBEDDED_CROWDED, GENERIC, GROUP, ICEORYX2,
    ICEORYX2_RATE, IDLE, KERNEL, KERNEL_RATE, LARGE, LOAD, LOANED, LOANED_LARGE, LOCAL,
    LOCAL_DATAGRAM, LOCAL_LARGE, LOCAL_MEMORY, LOCAL_RATE, LOCAL_TCP, LOCAL_UNIX, MULTICAST,
    NATIVE, PACED_TCP, PACED_XTIPC, RAW, RAW_BULK, RAW_RATE, RING_RATE, SINGLE_RATE, SLEEPING_TCP,
    SLEEPING_UDP, SLEEPING_XTIPC, SPINNING_TCP, SPINNING_XTIPC, STREAM, TCP_CONNECT, TCP_CROWDED,
    TCP_RATE, UDP_FAN, UDP_RATE, UNIX_ASLEEP, UNIX_LARGE, UNIX_RATE, WAKE, XSK_RS, XSK_RS_RATE,
    ZEROMQ_RATE, bulk,
};
use crate::step::Place::OneProcessor;
use crate::step::Step;

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

/// A bound with the number it has in `docs/performance.md`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    pub(crate) number: &'static str,
    pub(crate) bound: Bound,
}

/// By what two steps are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum By {
    /// The median time, or bytes per second.
    Value,
    /// Of one step: the 99th percentile over the median.
    Tail,
    /// Of one step: its value itself.
    Itself,
    /// Of one step: the share of its messages that went by a direct channel.
    Direct,
    /// The 99th percentile of what is urgent.
    UrgentTail,
}

/// Two steps of a round that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Comparison {
    pub(crate) step: Step,
    pub(crate) against: Step,
    pub(crate) by: By,
    /// `None`: only reported.
    pub(crate) goal: Option<Goal>,
}

const fn compare(step: Step, against: Step) -> Comparison {
    Comparison {
        step,
        against,
        by: By::Value,
        goal: None,
    }
}

const fn alone(step: Step, by: By) -> Comparison {
    Comparison {
        by,
        ..compare(step, step)
    }
}

impl Comparison {
    const fn at_most(mut self, number: &'static str, bound: f64) -> Self {
        let bound = Bound::AtMost(bound);
        self.goal = Some(Goal { number, bound });
        self
    }

    const fn at_least(mut self, number: &'static str, bound: f64) -> Self {
        let bound = Bound::AtLeast(bound);
        self.goal = Some(Goal { number, bound });
        self
    }

    pub(crate) fn name(&self) -> String {
        match self.by {
            By::Value => format!("{} / {}", self.step, self.against),
            By::Tail => format!("{}: p99 / p50", self.step),
            By::Itself => format!("{}: share of a processor", self.step),
            By::Direct => format!("{}: share that went direct", self.step),
            By::UrgentTail => format!("{} / {}: urgent p99", self.step, self.against),
        }
    }
}

/// In the order of the goals; what has none is only reported.
pub(crate) const COMPARISONS: [Comparison; 52] = [
    compare(EMBEDDED, RAW).at_most("1", 1.5),
    compare(EMBEDDED, SPINNING_TCP).at_most("1", 0.55),
    compare(EMBEDDED_CROWDED, TCP_CROWDED).at_most("3", 0.9),
    alone(EMBEDDED, By::Tail).at_most("12", 1.5),
    compare(SPINNING_XTIPC, RAW),
    compare(SPINNING_XTIPC, SPINNING_TCP),
    compare(SLEEPING_XTIPC, SLEEPING_TCP).at_most("2", 0.5),
    compare(SLEEPING_XTIPC, SLEEPING_UDP),
    compare(SLEEPING_XTIPC, KERNEL),
    compare(PACED_XTIPC, PACED_TCP),
    compare(ASLEEP, SLEEPING_TCP.at(OneProcessor)),
    compare(SINGLE_RATE, RAW_RATE).at_least("4", 0.75),
    compare(SINGLE_RATE, UDP_RATE).at_least("4", 3.0),
    compare(BUNDLED_RATE, ZEROMQ_RATE).at_least("5", 1.0),
    compare(BUNDLED_RATE, UDP_RATE).at_least("5", 15.0),
    compare(BUNDLED_RATE, TCP_RATE),
    compare(BUNDLED_RATE, KERNEL_RATE),
    compare(RAW, XSK_RS),
    compare(RAW_RATE, XSK_RS_RATE),
    compare(bulk(STREAM, 1500), RAW_BULK).at_least("6", 0.85),
    compare(bulk(STREAM, 1500), bulk(TCP_RATE, 1500)),
    compare(bulk(BUNDLED_RATE, 1500), bulk(TCP_RATE, 1500)),
    compare(bulk(STREAM, 9000), bulk(TCP_RATE, 9000)).at_least("7", 0.9),
    compare(bulk(BUNDLED_RATE, 9000), bulk(TCP_RATE, 9000)),
    compare(bulk(STREAM, 65_535), bulk(TCP_RATE, 65_535)),
    compare(bulk(BUNDLED_RATE, 65_535), bulk(TCP_RATE, 65_535)),
    compare(LOCAL, LOCAL_MEMORY).at_most("8", 2.5),
    compare(LOCAL, ICEORYX2).at_most("8", 0.5),
    compare(LOCAL, LOCAL_UNIX),
    compare(LOCAL_DATAGRAM, LOCAL_UNIX),
    compare(LOCAL, LOCAL_TCP),
    compare(LOCAL_RATE, RING_RATE).at_least("9", 0.5),
    compare(LOCAL_RATE, ICEORYX2_RATE).at_least("9", 4.0),
    compare(LOCAL_RATE, UNIX_RATE),
    compare(LOANED_LARGE, UNIX_LARGE).at_most("10", 0.1),
    compare(LOANED_LARGE, LOCAL).at_most("10", 1.3),
    compare(LOANED_LARGE, LOANED),
    compare(LOCAL_LARGE, UNIX_LARGE),
    compare(ASLEEP, UNIX_ASLEEP).at_most("11", 0.8),
    compare(ASLEEP, WAKE),
    alone(SPINNING_XTIPC, By::Tail),
    alone(IDLE, By::Itself).at_most("13", 0.01),
    alone(LOCAL_RATE, By::Direct).at_least("14", 0.99),
    compare(SLEEPING_XTIPC, NATIVE).at_most("15", 1.1),
    compare(SLEEPING_XTIPC, GENERIC).at_most("15", 1.1),
    compare(CONNECT, TCP_CONNECT),
    compare(MULTICAST, UDP_FAN),
    compare(GROUP, UDP_FAN),
    compare(LOAD.times(2), LOAD).at_least("load", 0.9),
    compare(LOAD.times(3), LOAD).at_least("load", 0.9),
    Comparison {
        by: By::UrgentTail,
        ..compare(LOAD.times(3), LOAD)
    },
    compare(LOCAL_LARGE, LOCAL),
];

/// Where instructions are counted. Rates are messages per instruction, so "a tenth of the instructions" is ten times the rate.
pub(crate) const OF_INSTRUCTIONS: [Comparison; 9] = [
    compare(BUNDLED_RATE, KERNEL_RATE).at_least("i1", 10.0),
    compare(BUNDLED_RATE.at(OneProcessor), KERNEL_RATE.at(OneProcessor)).at_least("i2", 50.0),
    compare(BUNDLED_RATE.sized(LARGE), KERNEL_RATE.sized(LARGE)).at_least("i3", 1.0 / 0.7),
    compare(ASLEEP, KERNEL.at(OneProcessor)).at_most("i4", 0.4),
    compare(EMBEDDED_CROWDED, KERNEL).at_most("i5", 1.1),
    compare(SLEEPING_XTIPC, KERNEL).at_most("i6", 2.0),
    compare(SLEEPING_XTIPC, SLEEPING_TCP),
    compare(KERNEL, SLEEPING_TCP),
    compare(BUNDLED_RATE, TCP_RATE),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_at_its_own_value() {
        assert!(Bound::AtMost(0.6).holds(0.6) && !Bound::AtMost(0.6).holds(0.61));
        assert!(Bound::AtLeast(5.0).holds(5.0) && !Bound::AtLeast(5.0).holds(4.99));
    }

    #[test]
    fn only_like_is_compared_with_like() {
        for comparison in COMPARISONS.iter().chain(&OF_INSTRUCTIONS) {
            assert_eq!(comparison.step.kind, comparison.against.kind);
            let alone = matches!(comparison.by, By::Tail | By::Itself | By::Direct);
            assert!(!alone || comparison.step == comparison.against);
        }
    }
}
