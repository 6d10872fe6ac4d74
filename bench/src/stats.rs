//! Medians, paired ratios, and latency histograms.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The middle value; the mean of the two middle ones for an even count. `None` for none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The median of `left / right` over the rounds in which both were measured.
pub(crate) fn median_ratio(left: &[Option<f64>], right: &[Option<f64>]) -> Option<f64> {
    let ratios: Vec<f64> = left
        .iter()
        .zip(right)
        .filter_map(|pair| match pair {
            (Some(left), Some(right)) if *right != 0.0 => Some(left / right),
            _ => None,
        })
        .collect();
    median(&ratios)
}

/// Latencies from 1 µs to an hour, with three significant digits, in bounded memory.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

const LONGEST: u64 = 3_600_000_000;

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are valid"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.record_micros(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn record_micros(&mut self, micros: u64) {
        self.0.saturating_record(micros.clamp(1, LONGEST));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In µs; 0 when nothing was recorded.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 }
    }

    /// In µs.
    pub(crate) fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// In µs; 0 when nothing was recorded.
    pub(crate) fn longest(&self) -> f64 {
        self.0.max() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted_values() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn what_is_not_a_number_does_not_count() {
        assert_eq!(median(&[f64::NAN, 2.0, f64::INFINITY]), Some(2.0));
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_not_between_medians() {
        // Medians alone would give 20 / 10.
        let left = [Some(10.0), Some(20.0), Some(90.0)];
        let right = [Some(10.0), Some(40.0), Some(9.0)];
        assert_eq!(median_ratio(&left, &right), Some(1.0));
    }

    #[test]
    fn a_round_without_both_sides_is_left_out() {
        let left = [None, Some(6.0), Some(8.0)];
        let right = [Some(1.0), Some(2.0), None];
        assert_eq!(median_ratio(&left, &right), Some(3.0));
        assert_eq!(median_ratio(&[Some(1.0)], &[Some(0.0)]), None);
    }

    #[test]
    fn quantiles_keep_three_digits() {
        let mut latencies = Latencies::new();
        for micros in 1..=1000 {
            latencies.record_micros(micros);
        }
        assert_eq!(latencies.count(), 1000);
        assert_eq!(latencies.quantile(0.5), 500.0);
        assert_eq!(latencies.quantile(0.99), 990.0);
    }

    #[test]
    fn latencies_out_of_bounds_are_kept_at_the_bounds() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::MAX);
        assert_eq!(latencies.count(), 2);
        assert_eq!(latencies.quantile(0.0), 1.0);
    }
}
