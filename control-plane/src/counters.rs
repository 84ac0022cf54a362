//! Numbers of this process since its start, for `/metrics`. Nothing is decided by them, and counting takes no lock
//! and asks no database.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use protocol::failure::FailureReason;

use crate::store::Measured;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by the cause of a failure.
#[derive(Debug)]
pub struct ByReason(Vec<Counter>);

impl Default for ByReason {
    fn default() -> Self {
        Self(FailureReason::ALL.iter().map(|_| Counter::default()).collect())
    }
}

impl ByReason {
    pub fn add(&self, reason: FailureReason) {
        // `ALL` is in the order of the declaration.
        if let Some(counter) = self.0.get(reason as usize) {
            counter.add(1);
        }
    }

    /// The reasons that have occurred.
    pub fn all(&self) -> impl Iterator<Item = (FailureReason, u64)> {
        let counts = FailureReason::ALL.iter().copied().zip(self.0.iter().map(Counter::get));
        counts.filter(|(_, count)| *count > 0)
    }
}

/// Durations by bucket, for a histogram.
#[derive(Debug)]
pub struct Durations<const N: usize> {
    /// Upper bounds in milliseconds, rising.
    pub bounds_ms: [u64; N],
    buckets: [Counter; N],
    count: Counter,
    sum_ms: Counter,
}

impl<const N: usize> Durations<N> {
    fn new(bounds_ms: [u64; N]) -> Self {
        let buckets = std::array::from_fn(|_| Counter::default());
        Self { bounds_ms, buckets, count: Counter::default(), sum_ms: Counter::default() }
    }

    pub fn observe(&self, ms: u64) {
        if let Some(at) = self.bounds_ms.iter().position(|bound| ms <= *bound) {
            self.buckets[at].add(1);
        }
        self.count.add(1);
        self.sum_ms.add(ms);
    }

    /// For each bound how many were at most that long; then how many there were, and their sum in milliseconds.
    pub fn read(&self) -> ([u64; N], u64, u64) {
        // Counted last when written, it is read first, so that no bucket is larger than the whole.
        let (sum, mut total) = (self.sum_ms.get(), 0);
        let below = std::array::from_fn(|at| {
            total += self.buckets[at].get();
            total
        });
        (below, self.count.get().max(total), sum)
    }
}

/// Waits in the queue, from a millisecond to hours.
const WAITS_MS: [u64; 14] =
    [1, 5, 10, 50, 100, 500, 1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000, 14_400_000];

/// Runs, from a second to a day.
const RUNS_MS: [u64; 13] = [
    1_000, 5_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000,
    7_200_000, 14_400_000, 86_400_000,
];

#[derive(Debug)]
pub struct Counters {
    pub runs_submitted: Counter,
    /// Executions handed to a worker.
    pub assigned: Counter,
    /// Assignments a worker did not take, or did not answer.
    pub declined: Counter,
    /// Executions whose lease ran out.
    pub lost: Counter,
    /// Facts and events of superseded or ended executions, all refused.
    pub superseded: Counter,
    pub events_stored: Counter,
    /// Events the plane had already.
    pub events_repeated: Counter,
    /// Batches that began later than expected.
    pub event_gaps: Counter,
    pub runs_succeeded: Counter,
    pub runs_failed: Counter,
    pub runs_error: Counter,
    pub runs_cancelled: Counter,
    /// Runs whose wait in the queue was longer than they may.
    pub waited_too_long: Counter,
    /// Messages of workers that could not be read.
    pub bad_frames: Counter,
    /// Jumps of the time of day.
    pub clock_jumps: Counter,
    pub retention_runs: Counter,
    pub retention_events: Counter,
    pub retention_artifacts: Counter,
    /// Executions that failed, by cause.
    pub failed: ByReason,
    /// Those after which the run was queued again.
    pub requeued: ByReason,
    /// From the queue to a worker.
    pub queue_wait: Durations<14>,
    /// From the first start to the end.
    pub run_duration: Durations<13>,
    /// When retention last looked, in milliseconds since 1970; 0 for never.
    last_sweep: AtomicI64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            runs_submitted: Counter::default(),
            assigned: Counter::default(),
            declined: Counter::default(),
            lost: Counter::default(),
            superseded: Counter::default(),
            events_stored: Counter::default(),
            events_repeated: Counter::default(),
            event_gaps: Counter::default(),
            runs_succeeded: Counter::default(),
            runs_failed: Counter::default(),
            runs_error: Counter::default(),
            runs_cancelled: Counter::default(),
            waited_too_long: Counter::default(),
            bad_frames: Counter::default(),
            clock_jumps: Counter::default(),
            retention_runs: Counter::default(),
            retention_events: Counter::default(),
            retention_artifacts: Counter::default(),
            failed: ByReason::default(),
            requeued: ByReason::default(),
            queue_wait: Durations::new(WAITS_MS),
            run_duration: Durations::new(RUNS_MS),
            last_sweep: AtomicI64::new(0),
        }
    }
}

impl Counters {
    /// Every counter by its name in `/metrics`, without prefix.
    pub fn all(&self) -> [(&'static str, u64); 18] {
        [
            ("runs_submitted_total", self.runs_submitted.get()),
            ("executions_assigned_total", self.assigned.get()),
            ("executions_declined_total", self.declined.get()),
            ("executions_lost_total", self.lost.get()),
            ("superseded_facts_total", self.superseded.get()),
            ("events_stored_total", self.events_stored.get()),
            ("events_repeated_total", self.events_repeated.get()),
            ("event_gaps_total", self.event_gaps.get()),
            ("runs_succeeded_total", self.runs_succeeded.get()),
            ("runs_failed_total", self.runs_failed.get()),
            ("runs_error_total", self.runs_error.get()),
            ("runs_cancelled_total", self.runs_cancelled.get()),
            ("runs_waited_too_long_total", self.waited_too_long.get()),
            ("bad_frames_total", self.bad_frames.get()),
            ("clock_jumps_total", self.clock_jumps.get()),
            ("retention_runs_deleted_total", self.retention_runs.get()),
            ("retention_events_deleted_total", self.retention_events.get()),
            ("retention_artifacts_deleted_total", self.retention_artifacts.get()),
        ]
    }

    /// What a recorded report measured; `queued` when the run waits again.
    pub(crate) fn measured(&self, measured: &Measured, queued: bool) {
        if let Some(reason) = measured.reason {
            self.failed.add(reason);
            if queued {
                self.requeued.add(reason);
            }
        }
        if let Some(ms) = measured.waited_ms {
            self.queue_wait.observe(ms);
        }
        if let Some(ms) = measured.ran_ms {
            self.run_duration.observe(ms);
        }
    }

    pub(crate) fn retention_deleted(&self, runs: u64, events: u64, artifacts: u64) {
        self.retention_runs.add(runs);
        self.retention_events.add(events);
        self.retention_artifacts.add(artifacts);
    }

    pub(crate) fn retention_swept(&self, now_ms: i64) {
        self.last_sweep.store(now_ms, Ordering::Relaxed);
    }

    pub(crate) fn last_sweep_ms(&self) -> i64 {
        self.last_sweep.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let counters = ByReason::default();
        for reason in FailureReason::ALL {
            counters.add(*reason);
        }
        counters.add(FailureReason::ContainerOom);
        assert_eq!(counters.all().count(), FailureReason::ALL.len());
        let twice: Vec<_> = counters.all().filter(|(_, count)| *count == 2).collect();
        assert_eq!(twice, [(FailureReason::ContainerOom, 2)]);
    }

    #[test]
    fn buckets_hold_what_is_at_most_as_long() {
        let durations = Durations::new([10, 100]);
        for ms in [10, 11, 100, 5_000] {
            durations.observe(ms);
        }
        assert_eq!(durations.read(), ([1, 3], 4, 5_121));
    }
}
