//! How long executions took, as a histogram. Pure.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper ends of the buckets, in seconds: from a start alone to the longest run there may be by default.
const UP_TO: [u64; 12] = [1, 2, 5, 10, 30, 60, 120, 300, 900, 1_800, 3_600, 14_400];

#[derive(Default)]
pub(super) struct Durations {
    /// Not cumulative; what is longer than the last is in `count` alone.
    buckets: [AtomicU64; UP_TO.len()],
    count: AtomicU64,
    sum_ms: AtomicU64,
}

impl Durations {
    pub(super) fn add(&self, duration: Duration) {
        let bucket = UP_TO.iter().position(|up_to| duration <= Duration::from_secs(*up_to));
        if let Some(bucket) = bucket {
            self.buckets[bucket].fetch_add(1, Relaxed);
        }
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.sum_ms.fetch_add(ms, Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    /// Nothing before the first: this family alone is not primed.
    pub(super) fn write(&self, name: &str, result: &str, text: &mut String) {
        let mut below = 0;
        let buckets = self.buckets.each_ref().map(|bucket| bucket.load(Relaxed));
        let count = self.count.load(Relaxed);
        if count == 0 {
            return;
        }
        // Writing to a string cannot fail.
        for (up_to, bucket) in UP_TO.iter().zip(buckets) {
            below += bucket;
            let _ = writeln!(text, "{name}_bucket{{result=\"{result}\",le=\"{up_to}\"}} {below}");
        }
        let count = count.max(below);
        let sum = Duration::from_millis(self.sum_ms.load(Relaxed)).as_secs_f64();
        let _ = writeln!(text, "{name}_bucket{{result=\"{result}\",le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum{{result=\"{result}\"}} {sum}");
        let _ = writeln!(text, "{name}_count{{result=\"{result}\"}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_everything_up_to_their_end() {
        let durations = Durations::default();
        let mut text = String::new();
        durations.write("d", "failed", &mut text);
        assert_eq!(text, "");
        for ms in [1_000, 1_001, 100_000_000] {
            durations.add(Duration::from_millis(ms));
        }
        durations.write("d", "failed", &mut text);
        for line in [
            "d_bucket{result=\"failed\",le=\"1\"} 1",
            "d_bucket{result=\"failed\",le=\"2\"} 2",
            "d_bucket{result=\"failed\",le=\"14400\"} 2",
            "d_bucket{result=\"failed\",le=\"+Inf\"} 3",
            "d_sum{result=\"failed\"} 100002.001",
            "d_count{result=\"failed\"} 3",
        ] {
            assert!(text.lines().any(|said| said == line), "{line} is missing: {text}");
        }
    }
}
