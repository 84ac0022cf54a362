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
        Self { count: times.len(), p50_ms: at(50), p95_ms: at(95), p99_ms: at(99) }
    }
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
        close(Spread::of(vec![Duration::from_millis(7)]).p99_ms, 7.0);
        assert_eq!(Spread::of(Vec::new()).count, 0);
    }
}
