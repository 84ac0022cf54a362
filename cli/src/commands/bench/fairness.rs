//! Whether one tenant's flood keeps another waiting: the other's waits alone, and while the first asks for a
//! hundred runs to each of its own, with workers of few slots and runs of a fixed length.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    database::Database,
    link::{Heard, Link},
    load::{Seen, ask},
    pace::{Pace, Schedule},
    plane::{Ground, Plane},
    stats::Spread,
};
use crate::{failure::Failure, term::Term};

/// Runs of the flooding tenant to each of the other.
pub(crate) const FLOOD: u32 = 100;

/// How long each run takes.
pub(crate) const RUN: Duration = Duration::from_millis(250);

const WORKERS: u32 = 4;
const SLOTS_EACH: u32 = 2;

/// Runs of the quiet tenant, one in each run's length, in each of the two halves.
const QUIET: u32 = 40;
const QUIET_QUICKLY: u32 = 8;

/// Connections that flood.
const FLOODERS: u32 = 16;

/// How long the flood has been going before the quiet tenant asks.
const AHEAD: Duration = Duration::from_secs(1);

/// No run of the quiet tenant waits so long.
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Debug, Serialize)]
pub(crate) struct Fairness {
    pub(crate) run_ms: u64,
    pub(crate) slots: u32,
    pub(crate) flood: u32,
    /// From when the request was due to the assignment.
    pub(crate) alone: Spread,
    pub(crate) under_the_flood: Spread,
    /// How much the median grew, in lengths of a run.
    pub(crate) median_grew_by_runs: f64,
    /// Runs of the flooding tenant that were asked for and that were assigned meanwhile.
    pub(crate) flooded: u64,
    pub(crate) flood_assigned: u64,
}

pub(crate) async fn measure(
    ground: &Ground<'_>,
    database: &Database,
    term: &mut Term,
) -> Result<Fairness, Failure> {
    let quiet = if ground.quick { QUIET_QUICKLY } else { QUIET };
    let plane = Plane::start(ground, database)?;
    let seen = Arc::new(Seen::default());
    for i in 0..WORKERS {
        let link = plane.worker(&format!("bench-{i}"), SLOTS_EACH).await?;
        plane.life.spawn(work(link, Arc::clone(&seen)));
    }
    term.status(&format!("{}: a tenant alone", database.name()));
    let alone = quietly(&plane, &seen, quiet).await?;

    let per_second = f64::from(FLOOD) / RUN.as_secs_f64();
    let ahead = AHEAD.as_secs_f64() * per_second;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred")]
    let pace = Pace::start(Schedule::new(Instant::now(), per_second, quiet * FLOOD + ahead as u32));
    let token = plane.tenant("bench, floods").await?;
    let mut flooders = Vec::new();
    for _ in 0..FLOODERS {
        let (mut http, pace) = (plane.http(&token).await?, Arc::clone(&pace));
        flooders.push(plane.life.spawn(async move {
            let mut asked = 0;
            while pace.next().await.is_some() {
                ask(&mut http).await?;
                asked += 1;
            }
            Ok::<u64, Failure>(asked)
        }));
    }
    // The flood is to be under way before anybody is measured beside it.
    tokio::time::sleep(AHEAD).await;
    term.status(&format!("{}: the same beside a flood of {FLOOD} to 1", database.name()));
    let under_the_flood = quietly(&plane, &seen, quiet).await?;
    let mut flooded = 0;
    for flooder in flooders {
        flooded += flooder.await.map_err(|error| Failure::platform(error.to_string()))??;
    }
    let flood_assigned = (seen.take().len() as u64).saturating_sub(u64::from(quiet) * 2);
    plane.stop().await;
    let run_ms = RUN.as_secs_f64() * 1_000.0;
    Ok(Fairness {
        run_ms: u64::try_from(RUN.as_millis()).unwrap_or(u64::MAX),
        slots: WORKERS * SLOTS_EACH,
        flood: FLOOD,
        median_grew_by_runs: grew(alone.p50_ms, under_the_flood.p50_ms, run_ms),
        alone,
        under_the_flood,
        flooded,
        flood_assigned,
    })
}

/// A wait's growth in lengths of a run; a shorter wait is no growth. Pure.
fn grew(alone_ms: f64, flooded_ms: f64, run_ms: f64) -> f64 {
    ((flooded_ms - alone_ms) / run_ms).max(0.0)
}

/// A tenant that asks for one run in each run's length; how long each waited for its worker.
async fn quietly(plane: &Plane, seen: &Seen, count: u32) -> Result<Spread, Failure> {
    let token = plane.tenant("bench, quiet").await?;
    let mut http = plane.http(&token).await?;
    let pace = Pace::start(Schedule::new(Instant::now(), 1.0 / RUN.as_secs_f64(), count));
    let mut asked = Vec::new();
    while let Some(due) = pace.next().await {
        asked.push((due, ask(&mut http).await?.run));
    }
    let since = Instant::now();
    let mut waits = Vec::new();
    for (due, run) in asked {
        let at = loop {
            if let Some(at) = seen.when(&run) {
                break at;
            }
            if since.elapsed() > PATIENCE {
                return Err(Failure::platform("a run of the quiet tenant was never assigned"));
            }
            // After the last request; nobody's time is taken.
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        waits.push(at.saturating_duration_since(due));
    }
    Ok(Spread::of(waits))
}

/// A worker whose runs take their time.
async fn work(mut link: Link, seen: Arc<Seen>) {
    // All take the same time: the first to begin is the first to end.
    let mut running: VecDeque<(tokio::time::Instant, String, String)> = VecDeque::new();
    loop {
        let end = running.front().map(|(end, ..)| *end);
        let ended = async {
            match end {
                // A simulated run lasts this long.
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => {
                if let Some((_, run, execution)) = running.pop_front() {
                    link.complete(&run, &execution).await;
                }
            }
            heard = link.next() => match heard {
                Heard::Assigned(assigned) => {
                    link.claim(&assigned).await;
                    seen.arrived(assigned.run.clone(), assigned.at);
                    let end = tokio::time::Instant::from_std(assigned.at) + RUN;
                    running.push_back((end, assigned.run, assigned.execution));
                }
                Heard::Closed => return,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::grew;

    #[test]
    fn growth_is_in_lengths_of_a_run_and_never_negative() {
        assert!((grew(4.0, 254.0, 250.0) - 1.0).abs() < 1e-9);
        assert!((grew(4.0, 35.0, 250.0) - 0.124).abs() < 1e-9);
        assert!(grew(9.0, 4.0, 250.0).abs() < 1e-9);
    }
}
