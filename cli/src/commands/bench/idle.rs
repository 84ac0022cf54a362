//! What a connected worker that does nothing takes in the plane: thousands of sockets that only beat, the plane
//! as a process of its own, resident memory as the kernel counts it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    database::Database,
    link::{Heard, Link},
    plane::{Ground, Plane},
    process::{most_connections, resident},
    stats::to_f64,
};
use crate::{failure::Failure, term::Term};

/// Workers that dial at the same time.
const DIALLING: usize = 64;

/// What an idle plane does before it is looked at the first time.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) workers: u64,
    /// The file limit allowed no more.
    pub(crate) fewer_than_asked: bool,
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
    pub(crate) bytes_a_worker: f64,
    pub(crate) connecting_seconds: f64,
    pub(crate) heartbeat_ms: u64,
    /// Of one core, while they only beat.
    pub(crate) plane_processor_percent: f64,
}

pub(crate) async fn measure(
    ground: &Ground<'_>,
    database: &Database,
    wanted: u32,
    term: &mut Term,
) -> Result<Idle, Failure> {
    let workers = u64::from(wanted).min(most_connections());
    let plane = Plane::start(ground, database)?;
    let gone = || Failure::platform("the kernel does not say what the plane takes");
    // What a start allocates is to be over before the first look.
    tokio::time::sleep(SETTLE).await;
    let before = resident(plane.pid()).ok_or_else(gone)?;
    let began = Instant::now();
    let (next, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let beats = Arc::new(Mutex::new(0));
    let dialling: Vec<_> = (0..DIALLING)
        .map(|_| {
            let (next, lost, beats) = (Arc::clone(&next), Arc::clone(&lost), Arc::clone(&beats));
            let (addr, key, life) = (plane.addr, plane.key.clone(), plane.life.clone());
            plane.life.spawn(async move {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= workers {
                        return Ok::<_, Failure>(());
                    }
                    let link = Link::dial(addr, &key, &format!("bench-{i}"), 1).await?;
                    *beats.lock().unwrap_or_else(PoisonError::into_inner) = link.heartbeat_ms;
                    life.spawn(idle(link, Arc::clone(&lost)));
                }
            })
        })
        .collect();
    for dialling in dialling {
        while !dialling.is_finished() {
            let there = next.load(Ordering::Relaxed).min(workers);
            term.status(&format!("{}: {there} of {workers} workers connected", database.name()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        dialling.await.map_err(|error| Failure::platform(error.to_string()))??;
    }
    let connecting = began.elapsed();
    let heartbeat_ms = *beats.lock().unwrap_or_else(PoisonError::into_inner);
    term.status(&format!("{}: {workers} workers idle", database.name()));
    // Every worker beats at least twice before anything is counted.
    tokio::time::sleep(Duration::from_millis(heartbeat_ms * 5 / 2)).await;
    let (from, spent) = (Instant::now(), plane.spent());
    let watched = Duration::from_millis(heartbeat_ms * if ground.quick { 1 } else { 5 });
    tokio::time::sleep(watched).await;
    let spent = plane.spent().since(spent);
    let took = from.elapsed();
    let after = resident(plane.pid()).ok_or_else(gone)?;
    let lost = lost.load(Ordering::Relaxed);
    plane.stop().await;
    if lost > 0 {
        return Err(Failure::platform(format!("{lost} of {workers} idle workers were cut off")));
    }
    Ok(Idle {
        workers,
        fewer_than_asked: workers < u64::from(wanted),
        before_bytes: before,
        after_bytes: after,
        bytes_a_worker: to_f64(after.saturating_sub(before)) / to_f64(workers.max(1)),
        connecting_seconds: connecting.as_secs_f64(),
        heartbeat_ms,
        plane_processor_percent: spent.plane.as_secs_f64() / took.as_secs_f64() * 100.0,
    })
}

async fn idle(mut link: Link, lost: Arc<AtomicU64>) {
    while !matches!(link.next().await, Heard::Closed) {}
    lost.fetch_add(1, Ordering::Relaxed);
}
