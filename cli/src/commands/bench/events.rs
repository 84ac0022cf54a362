//! Events a second stored: many executions that stream output, each with a few batches on their way, counted
//! when they are acknowledged.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::secret::Secret;
use serde::Serialize;
use service::clock::Clock;

use super::{
    database::Database,
    link::{Heard, Link, frames},
    load::{self, ask},
    plane::{Ground, Plane},
    stats::{micros_each, rate},
};
use crate::{failure::Failure, term::Term};

/// Executions that stream, over a quarter as many workers.
const EXECUTIONS: u32 = 64;
const EXECUTIONS_QUICKLY: u32 = 8;
const EACH: u32 = 4;

/// Executions read back at the same time.
const READERS: usize = 4;

/// Batches of one execution that may be unacknowledged; a real worker holds eight full ones.
const WINDOW: u64 = 4;

/// Before counting begins.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long the last of them may take.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, Serialize)]
pub(crate) struct Events {
    pub(crate) executions: u32,
    /// Events in one frame.
    pub(crate) batch: u64,
    pub(crate) seconds: f64,
    /// Acknowledged within that time.
    pub(crate) acknowledged: u64,
    pub(crate) per_second: f64,
    pub(crate) plane_micros_an_event: f64,
    pub(crate) generator_micros_an_event: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database_micros_an_event: Option<f64>,
    /// Events that were read back, in order and without a gap: all that were acknowledged, or this is an error.
    pub(crate) verified: u64,
}

#[derive(Debug, Default)]
struct Streams {
    acked: AtomicU64,
    over: AtomicBool,
    /// The last acknowledged number of each run.
    ended: Mutex<HashMap<String, u64>>,
}

pub(crate) async fn measure(
    ground: &Ground<'_>,
    database: &Database,
    batch: u64,
    seconds: u32,
    term: &mut Term,
) -> Result<Events, Failure> {
    let executions = if ground.quick { EXECUTIONS_QUICKLY } else { EXECUTIONS };
    term.status(&format!("{}: {executions} streams, {batch} events a frame", database.name()));
    let plane = Plane::start(ground, database)?;
    let streams = Arc::new(Streams::default());
    for i in 0..executions / EACH {
        let link = plane.worker(&format!("bench-{i}"), EACH).await?;
        plane.life.spawn(stream(link, Arc::clone(&streams), batch));
    }
    let token = plane.tenant("bench").await?;
    let mut http = plane.http(&token).await?;
    for _ in 0..executions {
        ask(&mut http).await?;
    }
    // Counted between two moments, of a stream that runs by itself: the wait is the measurement.
    tokio::time::sleep(WARM_UP).await;
    let look = || (Instant::now(), streams.acked.load(Ordering::Relaxed), plane.spent());
    let (from, first, before) = look();
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    let (to, last, after) = look();
    streams.over.store(true, Ordering::Relaxed);
    let ended = wait_for_the_last(&streams, executions).await?;
    term.status(&format!("{}: reading the events back", database.name()));
    let verified = read_all_back(&plane, &token, ended).await?;
    let (spent, events) = (after.since(before), last - first);
    plane.stop().await;
    Ok(Events {
        executions,
        batch,
        seconds: (to - from).as_secs_f64(),
        acknowledged: events,
        per_second: rate(events, to - from),
        plane_micros_an_event: micros_each(spent.plane, events),
        generator_micros_an_event: micros_each(spent.generator, events),
        database_micros_an_event: spent.database.map(|spent| micros_each(spent, events)),
        verified,
    })
}

async fn wait_for_the_last(
    streams: &Streams,
    executions: u32,
) -> Result<HashMap<String, u64>, Failure> {
    let since = Instant::now();
    loop {
        let ended = streams.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if ended.len() == executions as usize {
            return Ok(ended);
        }
        if since.elapsed() > PATIENCE {
            let text = format!("{} of {executions} streams came to an end", ended.len());
            return Err(Failure::platform(text));
        }
        // After the measurement; nobody's time is taken.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One execution's numbers.
struct Lane {
    run: String,
    sent: u64,
    acked: u64,
}

async fn stream(mut link: Link, streams: Arc<Streams>, batch: u64) {
    let clock = Clock::system();
    let mut lanes: HashMap<String, Lane> = HashMap::new();
    loop {
        let execution = match link.next().await {
            Heard::Assigned(assigned) => {
                link.claim(&assigned).await;
                let lane = Lane { run: assigned.run, sent: 0, acked: 0 };
                lanes.insert(assigned.execution.clone(), lane);
                assigned.execution
            }
            Heard::Acked { execution, seq } => {
                let Some(lane) = lanes.get_mut(&execution) else { continue };
                let more = seq.saturating_sub(lane.acked);
                lane.acked += more;
                streams.acked.fetch_add(more, Ordering::Relaxed);
                execution
            }
            Heard::Reported { execution } | Heard::Stopped { execution } => {
                if let Some(lane) = lanes.remove(&execution) {
                    let mut ended = streams.ended.lock().unwrap_or_else(PoisonError::into_inner);
                    ended.insert(lane.run, lane.acked);
                }
                continue;
            }
            Heard::Closed => return,
        };
        let Some(lane) = lanes.get_mut(&execution) else { continue };
        if streams.over.load(Ordering::Relaxed) {
            if lane.acked == lane.sent {
                let run = lane.run.clone();
                link.complete(&run, &execution).await;
            }
            continue;
        }
        while lane.sent - lane.acked <= (WINDOW - 1) * batch {
            let frame = frames::output(&execution, lane.sent + 1, batch, clock.now_ms());
            lane.sent += batch;
            link.queue(frame).await;
        }
    }
}

async fn read_all_back(
    plane: &Plane,
    token: &Secret,
    ended: HashMap<String, u64>,
) -> Result<u64, Failure> {
    let left: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(ended.into_iter().collect()));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let (mut http, left) = (plane.http(token).await?, Arc::clone(&left));
        readers.push(plane.life.spawn(async move {
            let mut verified = 0;
            loop {
                let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some((run, acked)) = next else { return Ok::<u64, Failure>(verified) };
                verified += read_back(&mut http, &run, acked).await?;
            }
        }));
    }
    let mut verified = 0;
    for reader in readers {
        verified += reader.await.map_err(|error| Failure::platform(error.to_string()))??;
    }
    Ok(verified)
}

/// Reads a run's events and counts its output.
async fn read_back(http: &mut super::http::Http, run: &str, acked: u64) -> Result<u64, Failure> {
    let (mut after, mut output) = (0, 0);
    loop {
        let page = load::events_of(http, run, after).await?;
        if page.is_empty() {
            break;
        }
        for event in page {
            if event.seq != after + 1 {
                return Err(Failure::platform(format!("run {run} has a gap after event {after}")));
            }
            after = event.seq;
            output += u64::from(event.kind == "output");
        }
    }
    if output == acked {
        return Ok(output);
    }
    Err(Failure::platform(format!("run {run} has {output} events, {acked} were acknowledged")))
}
