//! Counters of this worker, under the stock worker's names (oz-api.md 5.3), as Prometheus text.

mod durations;

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use protocol::failure::FailureReason;

use self::durations::Durations;
use crate::{report::Report, swept::Swept};

#[derive(Default)]
pub(crate) struct Metrics {
    connected: AtomicU64,
    claimed: AtomicU64,
    rejected: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    cleanup_failed: AtomicU64,
    dial_failed: AtomicU64,
    remote_close: AtomicU64,
    engine_lost: AtomicU64,
    images_removed: AtomicU64,
    /// Containers, networks, volumes, folders, conversations.
    swept: [AtomicU64; 5],
    succeeded_after: Durations,
    failed_after: Durations,
    cancelled_after: Durations,
    /// In the order of [`FailureReason::ALL`].
    reasons: [AtomicU64; FailureReason::ALL.len()],
}

/// What only others know at the moment of asking.
pub(crate) struct Gauges<'a> {
    pub(crate) active: usize,
    pub(crate) capacity: u32,
    pub(crate) worker_id: &'a str,
    pub(crate) backend: &'a str,
    /// Why nothing new is taken; `None` while it is.
    pub(crate) refusal: Option<&'static str>,
    pub(crate) engine_there: bool,
    /// Used, at most (0: no bound), and free.
    pub(crate) disk_bytes: [u64; 3],
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Metrics {
    pub(crate) fn claimed(&self) {
        add(&self.claimed);
    }

    pub(crate) fn rejected(&self) {
        add(&self.rejected);
    }

    pub(crate) fn cleanup_failed(&self) {
        add(&self.cleanup_failed);
    }

    pub(crate) fn swept(&self, swept: &Swept) {
        let Swept { containers, networks, volumes, folders, sessions, .. } = *swept;
        let counts = [containers, networks, volumes, folders, sessions];
        for (counter, count) in self.swept.iter().zip(counts) {
            counter.fetch_add(count, Relaxed);
        }
        self.cleanup_failed.fetch_add(swept.failed, Relaxed);
    }

    pub(crate) fn image_removed(&self) {
        add(&self.images_removed);
    }

    /// The engine stopped to answer.
    pub(crate) fn engine_lost(&self) {
        add(&self.engine_lost);
    }

    pub(crate) fn connected(&self) {
        self.connected.store(1, Relaxed);
    }

    /// A session ended; `was_up` tells a broken link from a dial that failed.
    pub(crate) fn disconnected(&self, was_up: bool) {
        self.connected.store(0, Relaxed);
        add(if was_up { &self.remote_close } else { &self.dial_failed });
    }

    /// An execution ended, this long after it was taken.
    pub(crate) fn ended(&self, report: &Report, lasted: Duration) {
        match report {
            Report::Succeeded { .. } => {
                self.succeeded_after.add(lasted);
                add(&self.succeeded);
            }
            Report::Cancelled { .. } => {
                self.cancelled_after.add(lasted);
                add(&self.cancelled);
            }
            Report::Failed { reason, .. } => {
                self.failed_after.add(lasted);
                add(&self.failed);
                if let Some(at) = FailureReason::ALL.iter().position(|known| known == reason) {
                    add(&self.reasons[at]);
                }
            }
        }
    }

    pub(crate) fn text(&self, gauges: &Gauges<'_>) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, samples: &[(String, u64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let one = |value: u64| [(String::new(), value)];
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let label = |key: &str, value: &str| format!("{{{key}=\"{value}\"}}");

        family("oz_worker_connected", "gauge", &one(of(&self.connected)));
        family("oz_worker_tasks_active", "gauge", &one(gauges.active as u64));
        let most = u64::from(gauges.capacity);
        family("oz_worker_tasks_max_concurrent", "gauge", &one(most));
        family("oz_worker_tasks_claimed_total", "counter", &one(of(&self.claimed)));
        family(
            "oz_worker_tasks_rejected_total",
            "counter",
            &[(label("reason", "at_capacity"), of(&self.rejected))],
        );
        family(
            "oz_worker_tasks_completed_total",
            "counter",
            &[
                (label("result", "succeeded"), of(&self.succeeded)),
                (label("result", "failed"), of(&self.failed)),
                (label("result", "cancelled"), of(&self.cancelled)),
            ],
        );
        let mut failures: Vec<_> = FailureReason::ALL
            .iter()
            .zip(&self.reasons)
            .map(|(reason, count)| {
                (format!("{{phase=\"backend\",reason=\"{reason}\"}}"), of(count))
            })
            .collect();
        let cleanup = "{phase=\"cleanup\",reason=\"unknown\"}".to_owned();
        failures.push((cleanup, of(&self.cleanup_failed)));
        family("oz_worker_task_failures_total", "counter", &failures);
        family(
            "oz_worker_websocket_reconnects_total",
            "counter",
            &[
                (label("reason", "dial_failed"), of(&self.dial_failed)),
                (label("reason", "remote_close"), of(&self.remote_close)),
            ],
        );
        let accepting = u64::from(gauges.refusal.is_none());
        family("oz_worker_accepting", "gauge", &one(accepting));
        let there = u64::from(gauges.engine_there);
        family("oz_worker_engine_connected", "gauge", &one(there));
        family("oz_worker_engine_lost_total", "counter", &one(of(&self.engine_lost)));
        for (what, bytes) in ["used", "limit", "free"].iter().zip(gauges.disk_bytes) {
            family(&format!("oz_worker_disk_{what}_bytes"), "gauge", &one(bytes));
        }
        family("oz_worker_images_removed_total", "counter", &one(of(&self.images_removed)));
        let kinds = ["container", "network", "volume", "folder", "conversation"];
        let swept = kinds.iter().zip(&self.swept);
        let swept: Vec<_> = swept.map(|(kind, count)| (label("kind", kind), of(count))).collect();
        family("oz_worker_swept_total", "counter", &swept);
        let escaped = gauges.worker_id.replace('\\', "\\\\").replace('"', "\\\"");
        let info = format!(
            "{{version=\"{}\",backend=\"{}\",worker_id=\"{escaped}\"}}",
            env!("CARGO_PKG_VERSION"),
            gauges.backend
        );
        family("oz_worker_info", "gauge", &[(info, 1)]);

        let name = "oz_worker_task_duration_seconds";
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (result, durations) in [
            ("succeeded", &self.succeeded_after),
            ("failed", &self.failed_after),
            ("cancelled", &self.cancelled_after),
        ] {
            durations.write(name, result, &mut text);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sweep_removed_and_what_it_could_not_are_counted() {
        let metrics = Metrics::default();
        let mut swept = Swept { volumes: 1, sessions: 2, ..Swept::default() };
        swept.failed(&anyhow::anyhow!("in use"));
        metrics.swept(&swept);
        let text = metrics.text(&Gauges {
            active: 0,
            capacity: 1,
            worker_id: "w",
            backend: "docker",
            refusal: None,
            engine_there: true,
            disk_bytes: [0; 3],
        });
        for line in [
            "oz_worker_swept_total{kind=\"volume\"} 1\n",
            "oz_worker_swept_total{kind=\"conversation\"} 2\n",
            "oz_worker_task_failures_total{phase=\"cleanup\",reason=\"unknown\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
