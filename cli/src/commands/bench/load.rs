//! What the parts with runs have in common: asking for a run, workers that finish each run at once, and the check
//! that what was counted is really there.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::secret::Secret;
use serde::Deserialize;
use service::clock::Clock;

use super::{
    http::Http,
    link::{
        Heard, Link,
        frames::{self, EVENTS_OF_A_RUN},
    },
    plane::Plane,
};
use crate::failure::Failure;

const RUNS: &str = "/api/v1/agent/runs";

/// What every run of the benchmark asks for.
const BODY: &str = r#"{"prompt":"Make the claim of a queued run one transaction, keep the lease in the row, and show by a test that two workers never get the same run."}"#;

/// How long the last of them may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A run that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) run: String,
    pub(crate) answered: Instant,
}

/// Posts a run.
///
/// # Errors
/// The connection broke, or the plane refused.
pub(crate) async fn ask(http: &mut Http) -> Result<Asked, Failure> {
    #[derive(Deserialize)]
    struct Created<'a> {
        run_id: &'a str,
    }
    let (status, body) = http.post(RUNS, BODY).await?;
    let answered = Instant::now();
    if status != 200 {
        let text = String::from_utf8_lossy(body);
        return Err(Failure::platform(format!("a run was answered with {status}: {text}")));
    }
    let created: Created<'_> = serde_json::from_slice(body).map_err(io::Error::from)?;
    Ok(Asked { run: created.run_id.to_owned(), answered })
}

/// What workers saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When each run's assignment came.
    pub(crate) assigned: Mutex<HashMap<String, Instant>>,
    /// Runs whose end is stored.
    pub(crate) reported: AtomicU64,
    /// Executions the plane told to stop; none should be.
    pub(crate) stopped: AtomicU64,
}

impl Seen {
    pub(crate) fn arrived(&self, run: String, at: Instant) {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner).entry(run).or_insert(at);
    }

    pub(crate) fn when(&self, run: &str) -> Option<Instant> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner).get(run).copied()
    }

    pub(crate) fn take(&self) -> HashMap<String, Instant> {
        std::mem::take(&mut *self.assigned.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until `count` runs have ended.
    ///
    /// # Errors
    /// They do not.
    pub(crate) async fn all_reported(&self, count: u64) -> Result<(), Failure> {
        let since = Instant::now();
        while self.reported.load(Ordering::Relaxed) < count {
            if since.elapsed() > PATIENCE {
                let reported = self.reported.load(Ordering::Relaxed);
                let text = format!("only {reported} of {count} runs came to an end");
                return Err(Failure::platform(text));
            }
            // After the measurement; nobody's time is taken.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match self.stopped.load(Ordering::Relaxed) {
            0 => Ok(()),
            stopped => Err(Failure::platform(format!("{stopped} executions were told to stop"))),
        }
    }
}

/// Connects workers that live each run's whole life at once: claimed, ten events, completed. `done` is called
/// when the plane has stored a run's end.
///
/// # Errors
/// The plane does not take one.
pub(crate) async fn finishers(
    plane: &Plane,
    workers: u32,
    capacity: u32,
    seen: &Arc<Seen>,
    done: impl Fn() + Clone + Send + Sync + 'static,
) -> Result<(), Failure> {
    for i in 0..workers {
        let link = plane.worker(&format!("bench-{i}"), capacity).await?;
        plane.life.spawn(finish(link, Arc::clone(seen), done.clone()));
    }
    Ok(())
}

async fn finish(mut link: Link, seen: Arc<Seen>, done: impl Fn()) {
    let clock = Clock::system();
    loop {
        match link.next().await {
            Heard::Assigned(assigned) => {
                link.claim(&assigned).await;
                let life = frames::whole_life(&assigned.execution, clock.now_ms());
                link.queue(life).await;
                link.complete(&assigned.run, &assigned.execution).await;
                seen.arrived(assigned.run, assigned.at);
            }
            Heard::Reported { .. } => {
                seen.reported.fetch_add(1, Ordering::Relaxed);
                done();
            }
            Heard::Stopped { .. } => {
                seen.stopped.fetch_add(1, Ordering::Relaxed);
            }
            Heard::Acked { .. } => {}
            Heard::Closed => return,
        }
    }
}

/// Reads every run's events back and checks them: succeeded, and each of the worker's events there once.
///
/// # Errors
/// One is not as it should be; the text names it.
pub(crate) async fn verify(plane: &Plane, runs: Vec<(String, Secret)>) -> Result<u64, Failure> {
    const READERS: usize = 8;
    let count = runs.len() as u64;
    let runs = Arc::new(Mutex::new(runs));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let (runs, addr) = (Arc::clone(&runs), plane.addr);
        readers.push(plane.life.spawn(async move {
            let mut connections: HashMap<String, Http> = HashMap::new();
            loop {
                let next = runs.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some((run, token)) = next else { return Ok::<_, Failure>(()) };
                let key = token.expose().to_owned();
                if !connections.contains_key(&key) {
                    connections.insert(key.clone(), Http::connect(addr, &token).await?);
                }
                let Some(http) = connections.get_mut(&key) else { continue };
                let events = events_of(http, &run, 0).await?;
                whole(&events).map_err(|what| Failure::platform(format!("run {run} {what}")))?;
            }
        }));
    }
    for reader in readers {
        reader.await.map_err(|error| Failure::platform(error.to_string()))??;
    }
    Ok(count)
}

/// A page of events, read in one pass: there are millions of them to be checked.
#[derive(Debug, Deserialize)]
struct Page {
    events: Vec<Stored>,
}

/// One event, as far as it is checked.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) kind: String,
    #[serde(default)]
    data: Of,
}

/// Of a state or a phase: which.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Of {
    state: String,
    phase: String,
}

/// A page of a run's events, from after `after` on.
pub(crate) async fn events_of(
    http: &mut Http,
    run: &str,
    after: u64,
) -> Result<Vec<Stored>, Failure> {
    let (status, body) = http.get(&format!("{RUNS}/{run}/events?limit=1000&after={after}")).await?;
    if status != 200 {
        return Err(Failure::platform(format!("the events of a run were answered with {status}")));
    }
    let page: Page = serde_json::from_slice(body).map_err(io::Error::from)?;
    Ok(page.events)
}

/// Whether a run's events are all there, once and in order, and it succeeded. Pure.
fn whole(events: &[Stored]) -> Result<(), String> {
    if let Some((event, _)) = events.iter().zip(1..).find(|(event, seq)| event.seq != *seq) {
        return Err(format!("has a gap before event {}", event.seq));
    }
    // The plane has phases of its own.
    let ours = events.iter().filter(|event| event.kind != "state" && event.data.phase != "queued");
    let kinds: Vec<&str> = ours.map(|event| event.kind.as_str()).collect();
    let last = events.iter().rev().find(|event| event.kind == "state");
    let last = last.map_or("without a state", |event| &event.data.state);
    if kinds.len() as u64 != EVENTS_OF_A_RUN || kinds[..] != frames::WHOLE_LIFE[..] {
        return Err(format!(
            "is {last} and has of its worker's {EVENTS_OF_A_RUN} events {kinds:?}"
        ));
    }
    if last == "SUCCEEDED" { Ok(()) } else { Err(format!("is {last}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(kinds: &[(&str, &str)]) -> Vec<Stored> {
        let line = |((kind, of), seq): (&(&str, &str), u64)| Stored {
            seq,
            kind: (*kind).to_owned(),
            data: Of { state: (*of).to_owned(), phase: (*of).to_owned() },
        };
        kinds.iter().zip(1..).map(line).collect()
    }

    #[test]
    fn only_a_whole_run_passes() {
        let mut kinds =
            vec![("state", "QUEUED"), ("phase_finished", "queued"), ("state", "CLAIMED")];
        kinds.extend(frames::WHOLE_LIFE.map(|kind| (kind, "provider")));
        kinds.push(("state", "SUCCEEDED"));
        assert_eq!(whole(&stored(&kinds)), Ok(()));
        let mut twice = stored(&kinds);
        twice[4].seq = 4;
        assert!(whole(&twice).unwrap_err().contains("gap"));
        assert_eq!(whole(&stored(&kinds[..13])), Err("is CLAIMED".to_owned()));
        kinds.remove(5);
        assert!(whole(&stored(&kinds)).unwrap_err().contains("SUCCEEDED and has"));
    }
}
