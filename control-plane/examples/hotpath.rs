//! How fast one plane's core is without sockets: workers driven through `Peer`, runs submitted in process.
//! `cargo run --release -p control-plane --example hotpath -- sqlite|postgres lives|pace|events [SECONDS]`.
//! It is for finding out where time goes (`perf record -g`); `ozma bench` is what measures the product.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::similar_names,
    reason = "a probe fails by panicking, and prints what it saw"
)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use control_plane::{
    core::{Core, Settings},
    link::Peer,
    runs::{self, NewRun},
    scope::Scope,
    sealing::Sealer,
    store::Store,
};
use protocol::{
    event::{Event, EventLine, EventSource, Phase, Stream},
    ids::RunId,
    link::{Events, FromWorker, TaskAssignment, TaskClaimed, TaskCompleted, ToWorker},
};
use service::{clock::Clock, lifecycle::Lifecycle};

const WORKERS: u32 = 16;
const CAPACITY: u32 = 16;
const SUBMITTERS: usize = 64;

/// When each run was submitted, and how long its assignment took.
#[derive(Default)]
struct Watch {
    submitted: Mutex<HashMap<RunId, Instant>>,
    handed: Mutex<HashMap<RunId, Instant>>,
    ended: std::sync::atomic::AtomicU64,
    stored: std::sync::atomic::AtomicU64,
}

fn line(seq: u64) -> EventLine {
    let text = Some(format!("line {seq} of what some provider prints while it works on its task"));
    let (phase, stream) = (Phase::Provider, Stream::Stdout);
    let event = Event::Output { phase, stream, text, base64: None, partial: false };
    EventLine::new(seq, 1_800_000_000_000, &event)
}

fn frames(task: &TaskAssignment, worker: &Peer) -> [FromWorker; 3] {
    let worker_id = worker.connection().worker_id.clone();
    let execution_id = Some(task.execution_id.clone());
    [
        FromWorker::TaskClaimed(TaskClaimed {
            task_id: task.task_id.clone(),
            worker_id,
            execution_id: execution_id.clone(),
        }),
        FromWorker::Events(Events {
            execution_id: task.execution_id.clone(),
            source: EventSource::Sidecar,
            events: (1..=10).map(line).collect(),
        }),
        FromWorker::TaskCompleted(TaskCompleted {
            task_id: task.task_id.clone(),
            execution_id,
            message: "done".to_owned(),
            exit_code: Some(0),
            peak_memory_bytes: None,
            after: None,
            task_state: None,
        }),
    ]
}

async fn work(core: Arc<Core>, nth: u32, mode: String, watch: Arc<Watch>) {
    let id = format!("worker-{nth}").parse().unwrap();
    let hello = test_support::worker::hello(if mode == "events" { 1 } else { CAPACITY });
    let life = core.life.clone();
    let (mut peer, mut queue) = Peer::open(core, id, Some(&hello)).await.unwrap();
    loop {
        let frame = tokio::select! {
            () = life.draining().cancelled() => return,
            frame = queue.recv() => frame,
            answered = peer.answered(), if peer.owes() => { answered.unwrap(); continue }
        };
        match frame {
            Some(ToWorker::TaskAssignment(task)) if mode == "events" => {
                let execution_id = task.execution_id.clone();
                for batch in 0..50_000 {
                    if life.draining().is_cancelled() {
                        return;
                    }
                    let first = batch * 100 + 1;
                    let events: Vec<_> = (first..first + 100).map(line).collect();
                    let execution_id = execution_id.clone();
                    let source = EventSource::Sidecar;
                    peer.take(FromWorker::Events(Events { execution_id, source, events }))
                        .await
                        .unwrap();
                    while let Some(frame) = queue.try_recv() {
                        if let ToWorker::Ack(_) = frame {
                            watch.stored.fetch_add(100, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                }
            }
            Some(ToWorker::TaskAssignment(task)) => {
                watch.handed.lock().unwrap().insert(task.task_id.clone(), Instant::now());
                for frame in frames(&task, &peer) {
                    peer.take(frame).await.unwrap();
                }
            }
            Some(ToWorker::ReportAck(_)) => {
                watch.ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Some(_) => {}
            None => return,
        }
    }
}

async fn submit(core: &Core, watch: &Watch) {
    let scope = Scope::Tenant("a".repeat(64).parse().unwrap());
    let new = NewRun { prompt: "do it".to_owned(), config: "{}".to_owned(), ..NewRun::default() };
    match runs::submit(core, &scope, new).await {
        Ok(submitted) => {
            watch.submitted.lock().unwrap().insert(submitted.run_id, Instant::now());
        }
        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let driver = args.next().unwrap_or_else(|| "sqlite".to_owned());
    let mode = args.next().unwrap_or_else(|| "lives".to_owned());
    let seconds: u64 = args.next().map_or(10, |text| text.parse().unwrap());
    let folder = tempfile::tempdir_in(".").unwrap();
    let mut database = None;
    let url = if driver == "postgres" {
        let made = test_support::postgres::database().await;
        database.insert(made).url.clone()
    } else {
        format!("sqlite:{}", folder.path().join("ozma.db").display())
    };
    let settings = Settings {
        default_image: Some("debian:bookworm-slim".to_owned()),
        max_queued: 1_000,
        ..Settings::default()
    };
    let store = Store::open(&url).await.unwrap();
    let core = Core::new(store, Sealer::new(&[7; 32]), Clock::system(), Lifecycle::new(), settings);
    control_plane::loops::start(&core);
    let watch = Arc::new(Watch::default());
    for nth in 0..WORKERS {
        core.life.spawn(work(Arc::clone(&core), nth, mode.clone(), Arc::clone(&watch)));
    }
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    if mode == "lives" {
        for _ in 0..SUBMITTERS {
            let (core, watch) = (Arc::clone(&core), Arc::clone(&watch));
            core.clone().life.spawn(async move {
                while Instant::now() < until {
                    submit(&core, &watch).await;
                }
            });
        }
    } else {
        let runs = if mode == "events" { u64::from(WORKERS) } else { seconds * 100 };
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        for _ in 0..runs {
            ticks.tick().await;
            let (core, watch) = (Arc::clone(&core), Arc::clone(&watch));
            core.clone().life.spawn(async move { submit(&core, &watch).await });
        }
    }
    tokio::time::sleep_until((until + Duration::from_millis(50)).into()).await;
    let took = began.elapsed().as_secs_f64();
    report(&watch, took, &driver, &mode);
    core.life.stop(Duration::ZERO, std::future::ready(())).await;
    core.store.close().await;
    drop(database);
    drop(folder);
}

fn report(watch: &Watch, took: f64, driver: &str, mode: &str) {
    let handed = watch.handed.lock().unwrap();
    let submitted = watch.submitted.lock().unwrap();
    let mut waits: Vec<Duration> = handed
        .iter()
        .filter_map(|(id, at)| Some(at.saturating_duration_since(*submitted.get(id)?)))
        .collect();
    waits.sort();
    let at = |part: f64| {
        let index = (waits.len() as f64 * part) as usize;
        waits.get(index.min(waits.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let ended = watch.ended.load(std::sync::atomic::Ordering::Relaxed);
    let stored = watch.stored.load(std::sync::atomic::Ordering::Relaxed);
    println!(
        "{driver} {mode}: {:.0} lives/s, {:.0} events/s; hand-over p50 {:?} p95 {:?} p99 {:?} of {}",
        ended as f64 / took,
        stored as f64 / took,
        at(0.5),
        at(0.95),
        at(0.99),
        waits.len()
    );
}
