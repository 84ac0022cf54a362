//! Numbers of this process since its start, for `/metrics`. Nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};

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

#[derive(Debug, Default)]
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
    /// Messages of workers that could not be read.
    pub bad_frames: Counter,
}

impl Counters {
    /// Every counter by its name in `/metrics`, without prefix.
    pub fn all(&self) -> [(&'static str, u64); 13] {
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
            ("bad_frames_total", self.bad_frames.get()),
        ]
    }
}
