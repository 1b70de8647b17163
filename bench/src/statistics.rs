//! Figures over rounds, and the percentiles of a histogram.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Median and spread of some rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// Of how many values.
    pub(crate) count: usize,
}

impl Spread {
    /// `None` of nothing. The median of an even number of values is the mean of the two in the middle.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            median,
            least,
            most,
            count: values.len(),
        })
    }
}

/// Percentiles of round-trip times, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Percentiles {
    /// Of a histogram of nanoseconds.
    pub(crate) fn of(nanoseconds: &Histogram<u64>) -> Self {
        Self {
            count: nanoseconds.len(),
            p50: nanoseconds.value_at_quantile(0.5),
            p90: nanoseconds.value_at_quantile(0.9),
            p99: nanoseconds.value_at_quantile(0.99),
            p999: nanoseconds.value_at_quantile(0.999),
            max: nanoseconds.max(),
        }
    }
}

/// Percentiles, and all they were made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    #[serde(flatten)]
    pub(crate) percentiles: Percentiles,
    /// Upper ends of the occupied buckets in nanoseconds, three significant digits, and how many times fell into each.
    pub(crate) histogram: Vec<(u64, u64)>,
}

impl Times {
    /// Of a histogram of nanoseconds.
    pub(crate) fn of(nanoseconds: &Histogram<u64>) -> Self {
        let buckets = nanoseconds.iter_recorded();
        Self {
            percentiles: Percentiles::of(nanoseconds),
            histogram: buckets
                .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middles() {
        let odd = Spread::of([9.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.least, odd.median, odd.most), (1.0, 2.0, 9.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of([5.0]).unwrap().median, 5.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn percentiles_are_those_of_the_recorded_times() {
        let mut histogram = Histogram::new(3).unwrap();
        for nanoseconds in 1..=1000 {
            histogram.record(nanoseconds).unwrap();
        }
        let percentiles = Percentiles::of(&histogram);
        let expected = Percentiles {
            count: 1000,
            p50: 500,
            p90: 900,
            p99: 990,
            p999: 999,
            max: 1000,
        };
        assert_eq!(percentiles, expected);
    }
}
