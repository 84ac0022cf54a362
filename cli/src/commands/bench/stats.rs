//! Percentiles. Pure.

use std::time::Duration;

use serde::Serialize;

/// How measured times spread.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Spread {
    /// All zero without any time.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            // The nearest rank: the smallest time that so many percent are not over.
            let rank = (times.len() * percent).div_ceil(100).max(1) - 1;
            times.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
        };
        let [p50_ms, p95_ms, p99_ms, max_ms] = [50, 95, 99, 100].map(at);
        Self { count: times.len(), p50_ms, p95_ms, p99_ms, max_ms }
    }
}

/// So many a second; 0 for no time at all.
pub(crate) fn rate(count: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { to_f64(count) / took.as_secs_f64() }
}

/// Microseconds of processor time for each of `count`; 0 for none.
pub(crate) fn micros_each(spent: Duration, count: u64) -> f64 {
    if count == 0 { 0.0 } else { spent.as_secs_f64() * 1e6 / to_f64(count) }
}

/// Counts here are far below what a double holds exactly.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark stay below 2^52")]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let spread = Spread::of((1..=200).rev().map(Duration::from_millis).collect());
        let close = |is: f64, should: f64| assert!((is - should).abs() < 1e-9, "{is} {should}");
        close(spread.p50_ms, 100.0);
        close(spread.p95_ms, 190.0);
        close(spread.p99_ms, 198.0);
        close(spread.max_ms, 200.0);
        close(Spread::of(vec![Duration::from_millis(7)]).p99_ms, 7.0);
        assert_eq!(Spread::of(Vec::new()).count, 0);
    }

    #[test]
    fn rates_do_not_divide_by_nothing() {
        assert!((rate(30, Duration::from_secs(2)) - 15.0).abs() < 1e-9);
        assert!(rate(30, Duration::ZERO).abs() < 1e-9);
        assert!((micros_each(Duration::from_millis(3), 10) - 300.0).abs() < 1e-9);
        assert!(micros_each(Duration::from_millis(3), 0).abs() < 1e-9);
    }
}
