//! Whole lives of runs a second: created over HTTP, claimed, ten events, completed, acknowledged; everything on
//! disk before it counts. A closed loop with enough under way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::Semaphore;

use super::{
    database::Database,
    link::frames::EVENTS_OF_A_RUN,
    load::{self, Seen, ask, finishers},
    plane::{Ground, Plane},
    stats::{Spread, micros_each, rate},
};
use crate::{failure::Failure, term::Term};

/// Runs between their request and the acknowledgement of their end.
pub(crate) const IN_FLIGHT: u32 = 256;

/// Connections that post.
const SENDERS: usize = 64;

const TENANTS: usize = 4;
const WORKERS: u32 = 8;

/// Before counting begins.
const WARM_UP: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
pub(crate) struct Lifecycles {
    pub(crate) in_flight: u32,
    pub(crate) seconds: f64,
    /// Acknowledged within that time.
    pub(crate) runs: u64,
    pub(crate) per_second: f64,
    pub(crate) events_a_run: u64,
    /// From the request to the assignment, with so many under way.
    pub(crate) asked_to_assigned: Spread,
    pub(crate) plane_micros_a_run: f64,
    pub(crate) generator_micros_a_run: f64,
    /// Where the database is a process of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database_micros_a_run: Option<f64>,
    /// Runs that were read back and found succeeded with all their events: all of them, or this is an error.
    pub(crate) verified: u64,
}

pub(crate) async fn measure(
    ground: &Ground<'_>,
    database: &Database,
    seconds: u32,
    term: &mut Term,
) -> Result<Lifecycles, Failure> {
    term.status(&format!("{}: lifecycles, {IN_FLIGHT} under way", database.name()));
    let plane = Plane::start(ground, database)?;
    let (seen, free) = (Arc::new(Seen::default()), Arc::new(Semaphore::new(IN_FLIGHT as usize)));
    let ended = Arc::clone(&free);
    finishers(&plane, WORKERS, IN_FLIGHT, &seen, move || ended.add_permits(1)).await?;
    let mut tokens = Vec::new();
    for i in 0..TENANTS {
        tokens.push(plane.tenant(&format!("bench {i}")).await?);
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for i in 0..SENDERS {
        let token = tokens[i % TENANTS].clone();
        let mut http = plane.http(&token).await?;
        let (free, over) = (Arc::clone(&free), Arc::clone(&over));
        senders.push(plane.life.spawn(async move {
            let mut asked = Vec::new();
            while let Ok(permit) = free.acquire().await {
                permit.forget();
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let since = Instant::now();
                asked.push((since, ask(&mut http).await?.run, token.clone()));
            }
            Ok::<_, Failure>(asked)
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    let look = || (Instant::now(), seen.reported.load(Ordering::Relaxed), plane.spent());
    let (from, first, before) = look();
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    let (to, last, after) = look();
    over.store(true, Ordering::Relaxed);
    free.close();
    let mut asked = Vec::new();
    for sender in senders {
        asked.extend(sender.await.map_err(|error| Failure::platform(error.to_string()))??);
    }
    seen.all_reported(asked.len() as u64).await?;
    term.status(&format!("{}: reading {} runs back", database.name(), asked.len()));
    let assigned = seen.take();
    let waits = asked.iter().filter(|(since, ..)| *since >= from && *since < to);
    let waits = waits.filter_map(|(since, run, _)| Some(assigned.get(run)?.duration_since(*since)));
    let asked_to_assigned = Spread::of(waits.collect());
    let runs = asked.into_iter().map(|(_, run, token)| (run, token)).collect();
    let verified = load::verify(&plane, runs).await?;
    let (spent, runs) = (after.since(before), last - first);
    plane.stop().await;
    Ok(Lifecycles {
        in_flight: IN_FLIGHT,
        seconds: (to - from).as_secs_f64(),
        runs,
        per_second: rate(runs, to - from),
        events_a_run: EVENTS_OF_A_RUN,
        asked_to_assigned,
        plane_micros_a_run: micros_each(spent.plane, runs),
        generator_micros_a_run: micros_each(spent.generator, runs),
        database_micros_a_run: spent.database.map(|spent| micros_each(spent, runs)),
        verified,
    })
}
