//! Percentiles of samples, medians and spreads of repeats.

use serde::{Deserialize, Serialize};

/// What a load measured of one kind of time, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half took at most this.
    pub p50: f64,
    /// 95 of 100 took at most this.
    pub p95: f64,
    /// 99 of 100 took at most this.
    pub p99: f64,
}

impl Percentiles {
    /// Of samples in microseconds, in any order; all zero when there are none.
    pub fn of_micros(samples: &mut [u32]) -> Self {
        samples.sort_unstable();
        let at = |percent| f64::from(nearest_rank(samples, percent).copied().unwrap_or_default()) / 1000.0;
        Self { p50: at(50), p95: at(95), p99: at(99) }
    }
}

/// The smallest sample that at least `percent` of 100 samples do not exceed (the nearest-rank method).
fn nearest_rank<T>(sorted: &[T], percent: usize) -> Option<&T> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1)
}

/// A figure that was measured several times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; the mean of both middle ones where they are even in number.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// `None` when nothing was measured.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_that_were_measured() {
        let mut hundred: Vec<u32> = (1..=100).rev().map(|n| n * 1000).collect();
        assert_eq!(Percentiles::of_micros(&mut hundred), Percentiles { p50: 50.0, p95: 95.0, p99: 99.0 });
        assert_eq!(Percentiles::of_micros(&mut [7000]), Percentiles { p50: 7.0, p95: 7.0, p99: 7.0 });
        assert_eq!(Percentiles::of_micros(&mut [1000, 9000]), Percentiles { p50: 1.0, p95: 9.0, p99: 9.0 });
        assert_eq!(Percentiles::of_micros(&mut []), Percentiles::default());
    }

    #[test]
    fn a_spread_has_a_median_between_its_ends() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[]), None);
    }
}
