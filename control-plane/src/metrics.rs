//! `/metrics`: this process's numbers in Prometheus's text form. Nothing is decided by them.

pub(crate) mod text;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use protocol::run::RunState;

use self::text::Page;
use crate::{
    core::Core,
    counters::{ByReason, Durations},
    store::StoreError,
};

/// How long a count of runs is good enough.
const COUNTED_FOR: Duration = Duration::from_secs(5);

/// How long a reader waits for the database; scrapes are given up after ten seconds.
const DATABASE_WITHIN: Duration = Duration::from_secs(3);

/// Upper bounds of the duration histogram, in milliseconds. The last bucket, `+Inf`, is the count.
const BUCKETS_MS: [u64; 10] = [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000];

/// Most series of requests; routes are few, so that this is never reached by honest requests.
const MAX_SERIES: usize = 1_000;

/// Numbers of the API itself; the core counts its own.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(crate) http: Requests,
    runs: RunCounts,
}

/// Requests by method, route and status.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<Key, Series>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    route: String,
    method: String,
    status: u16,
}

#[derive(Debug, Default, Clone)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS_MS.len()],
}

impl Requests {
    pub(crate) fn observe(&self, method: &str, route: &str, status: u16, took: Duration) {
        // Methods are the caller's to invent; series are not.
        let method = match method {
            "GET" | "POST" | "PUT" | "DELETE" | "HEAD" | "OPTIONS" | "PATCH" => method,
            _ => "other",
        };
        let key = Key { route: route.to_owned(), method: method.to_owned(), status };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_SERIES && !all.contains_key(&key) {
            return;
        }
        let series = all.entry(key).or_default();
        series.count += 1;
        series.seconds += took.as_secs_f64();
        for (bucket, bound) in series.buckets.iter_mut().zip(BUCKETS_MS) {
            *bucket += u64::from(took <= Duration::from_millis(bound));
        }
    }

    fn write(&self, page: &mut Page) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = "http_request_duration_seconds";
        page.family(name, "histogram", "Requests by method, route and status.");
        for (key, series) in &all {
            let status = key.status.to_string();
            let labels = [
                ("method", key.method.as_str()),
                ("route", key.route.as_str()),
                ("status", status.as_str()),
            ];
            for (count, bound) in series.buckets.iter().zip(BUCKETS_MS) {
                let bound = Duration::from_millis(bound).as_secs_f64().to_string();
                page.sample(&format!("{name}_bucket"), &with(labels, &bound), count);
            }
            page.sample(&format!("{name}_bucket"), &with(labels, "+Inf"), series.count);
            page.sample(&format!("{name}_sum"), &labels, series.seconds);
            page.sample(&format!("{name}_count"), &labels, series.count);
        }
    }
}

fn with<'a>(labels: [(&'a str, &'a str); 3], bound: &'a str) -> [(&'a str, &'a str); 4] {
    [labels[0], labels[1], labels[2], ("le", bound)]
}

impl Metrics {
    /// The whole page. The database is asked for the runs that are not over; when it is away, the rest is still
    /// told.
    pub(crate) async fn page(&self, core: &Core, streams: u64) -> String {
        let mut page = Page::new("ozma");
        let database = tokio::time::timeout(DATABASE_WITHIN, core.store.ping()).await;
        let up = matches!(database, Ok(Ok(())));
        page.family("up_database", "gauge", "Whether the database answers.");
        page.sample("up_database", &[], u8::from(up));
        if let Some(counts) = self.runs.read(core, up).await {
            write_runs(&mut page, &counts);
        }
        page.family("connected_workers", "gauge", "Workers connected to this process.");
        page.sample("connected_workers", &[], core.workers.len());
        page.family("event_streams", "gauge", "Streams of events followed at this process.");
        page.sample("event_streams", &[], streams);
        let counters = &core.counters;
        for (name, value) in counters.all() {
            page.family(name, "counter", "Since the start of this process.");
            page.sample(name, &[], value);
        }
        let failed = "Executions that failed, by cause.";
        write_reasons(&mut page, "executions_failed_total", failed, &counters.failed);
        let requeued = "Runs queued again after a failure, by its cause.";
        write_reasons(&mut page, "runs_requeued_total", requeued, &counters.requeued);
        let waits = "From the queue to a worker.";
        write_durations(&mut page, "queue_wait_seconds", waits, &counters.queue_wait);
        let runs = "Runs from their first start to their end.";
        write_durations(&mut page, "run_duration_seconds", runs, &counters.run_duration);
        let last = "retention_last_sweep_timestamp_seconds";
        page.family(last, "gauge", "When retention last looked; 0 before it did.");
        page.sample(last, &[], counters.last_sweep_ms() / 1_000);
        self.http.write(&mut page);
        page.into_text()
    }
}

/// How many runs are in which state, asked of the database now and then, however often somebody reads.
#[derive(Debug, Default)]
struct RunCounts(tokio::sync::Mutex<Option<(Instant, BTreeMap<String, i64>)>>);

impl RunCounts {
    /// The last count, or a new one if that is old. `None` while there is none to be had.
    async fn read(&self, core: &Core, up: bool) -> Option<BTreeMap<String, i64>> {
        // Held during the count: of many readers one counts.
        let mut kept = self.0.lock().await;
        let fresh = |(at, _): &&(Instant, _)| at.elapsed() < COUNTED_FOR;
        if let Some((_, counts)) = kept.as_ref().filter(fresh) {
            return up.then(|| counts.clone());
        }
        if !up {
            return None;
        }
        match tokio::time::timeout(DATABASE_WITHIN, core.store.count_runs()).await {
            Ok(Ok(counts)) => {
                *kept = Some((Instant::now(), counts.clone()));
                Some(counts)
            }
            Ok(Err(error)) => {
                tracing::warn!(error = log(&error), "the runs could not be counted");
                None
            }
            Err(_) => {
                tracing::warn!("the runs could not be counted in time");
                None
            }
        }
    }
}

fn log(error: &StoreError) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Every state in which a run is not over, also those without a run, so that a series does not come and go. How
/// many have ended is what the counters tell.
fn write_runs(page: &mut Page, counts: &BTreeMap<String, i64>) {
    let count = |state: RunState| counts.get(state.as_str()).copied().unwrap_or_default();
    page.family("runs", "gauge", "Runs that are not over, by state; QUEUED is counted to 100000.");
    for state in RunState::ALL.into_iter().filter(|state| !state.is_terminal()) {
        page.sample("runs", &[("state", state.as_str())], count(state));
    }
    page.family("queue_depth", "gauge", "Runs that wait for a slot, counted to 100000.");
    page.sample("queue_depth", &[], count(RunState::Queued));
}

fn write_reasons(page: &mut Page, name: &str, help: &str, counts: &ByReason) {
    page.family(name, "counter", help);
    for (reason, count) in counts.all() {
        page.sample(name, &[("reason", reason.as_str())], count);
    }
}

fn write_durations<const N: usize>(
    page: &mut Page,
    name: &str,
    help: &str,
    durations: &Durations<N>,
) {
    let (below, count, sum_ms) = durations.read();
    let secs = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    page.family(name, "histogram", help);
    for (count, bound) in below.iter().zip(durations.bounds_ms) {
        page.sample(&format!("{name}_bucket"), &[("le", &secs(bound).to_string())], count);
    }
    page.sample(&format!("{name}_bucket"), &[("le", "+Inf")], count);
    page.sample(&format!("{name}_sum"), &[], secs(sum_ms));
    page.sample(&format!("{name}_count"), &[], count);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn requests_are_told_as_a_histogram() {
        let requests = Requests::default();
        requests.observe("GET", "/health", 200, Duration::from_millis(4));
        requests.observe("BREW", "/health", 405, Duration::from_secs(9));
        let mut page = Page::new("ozma");
        requests.write(&mut page);
        let text = page.into_text();
        let few: Vec<&str> = text.lines().filter(|line| !line.contains("0.")).collect();
        expect![[r#"
            # HELP ozma_http_request_duration_seconds Requests by method, route and status.
            # TYPE ozma_http_request_duration_seconds histogram
            ozma_http_request_duration_seconds_bucket{method="GET",route="/health",status="200",le="1"} 1
            ozma_http_request_duration_seconds_bucket{method="GET",route="/health",status="200",le="5"} 1
            ozma_http_request_duration_seconds_bucket{method="GET",route="/health",status="200",le="+Inf"} 1
            ozma_http_request_duration_seconds_count{method="GET",route="/health",status="200"} 1
            ozma_http_request_duration_seconds_bucket{method="other",route="/health",status="405",le="1"} 0
            ozma_http_request_duration_seconds_bucket{method="other",route="/health",status="405",le="5"} 0
            ozma_http_request_duration_seconds_bucket{method="other",route="/health",status="405",le="+Inf"} 1
            ozma_http_request_duration_seconds_sum{method="other",route="/health",status="405"} 9
            ozma_http_request_duration_seconds_count{method="other",route="/health",status="405"} 1"#]]
        .assert_eq(&few.join("\n"));
    }
}
