//! From the answer to a request to the assignment on a worker's socket, at a fixed rate that does not wait for
//! the plane.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    database::Database,
    load::{self, Asked, Seen, ask, finishers},
    pace::{Pace, Schedule},
    plane::{Ground, Plane},
    stats::{Spread, micros_each},
};
use crate::{failure::Failure, term::Term};

/// Connections that post: enough that one is free although many answers are late.
const SENDERS: u32 = 64;

/// Tenants that take turns.
const TENANTS: usize = 4;

/// Workers, and runs each of them takes at once: never the bottleneck.
const WORKERS: u32 = 4;
const CAPACITY: u32 = 256;

/// Seconds that warm caches and connections, and are not counted.
const WARM_UP_SECS: u32 = 2;

#[derive(Debug, Serialize)]
pub(crate) struct Dispatch {
    pub(crate) per_second: u32,
    pub(crate) runs: usize,
    /// From the answer to the POST to the assignment on the worker's socket: what the target means. An assignment
    /// that comes before the answer counts as zero.
    pub(crate) answered_to_assigned: Spread,
    /// From when the request was due to the assignment: what a client sees, a late plane's queue included.
    pub(crate) due_to_assigned: Spread,
    /// From when the request was due to its answer.
    pub(crate) due_to_answered: Spread,
    /// Assignments that came before the answer.
    pub(crate) before_the_answer: usize,
    pub(crate) plane_micros_a_run: f64,
    pub(crate) generator_micros_a_run: f64,
    /// Runs that were read back and found succeeded with all their events.
    pub(crate) verified: u64,
}

pub(crate) async fn measure(
    ground: &Ground<'_>,
    database: &Database,
    per_second: u32,
    seconds: u32,
    term: &mut Term,
) -> Result<Dispatch, Failure> {
    term.status(&format!("{}: dispatch at {per_second} runs a second", database.name()));
    let plane = Plane::start(ground, database)?;
    let seen = Arc::new(Seen::default());
    finishers(&plane, WORKERS, CAPACITY, &seen, || {}).await?;
    let mut tokens = Vec::new();
    for i in 0..TENANTS {
        tokens.push(plane.tenant(&format!("bench {i}")).await?);
    }
    let (warm, count) = (per_second * WARM_UP_SECS, per_second * (WARM_UP_SECS + seconds));
    let mut connections = Vec::new();
    for i in 0..SENDERS as usize {
        let token = &tokens[i % TENANTS];
        connections.push((plane.http(token).await?, token.clone()));
    }
    let before = plane.spent();
    let start = Instant::now() + Duration::from_millis(50);
    let pace = Pace::start(Schedule::new(start, f64::from(per_second), count));
    let senders: Vec<_> = connections
        .into_iter()
        .map(|(mut http, token)| {
            let pace = Arc::clone(&pace);
            plane.life.spawn(async move {
                let mut asked = Vec::new();
                while let Some(due) = pace.next().await {
                    asked.push((due, ask(&mut http).await?, token.clone()));
                }
                Ok::<_, Failure>(asked)
            })
        })
        .collect();
    let mut asked = Vec::new();
    for sender in senders {
        asked.extend(sender.await.map_err(|error| Failure::platform(error.to_string()))??);
    }
    seen.all_reported(u64::from(count)).await?;
    let spent = plane.spent().since(before);
    let assigned = seen.take();
    let counted = start + Duration::from_secs(u64::from(warm / per_second.max(1)));
    let (mut answer, mut whole, mut post, mut early) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (due, Asked { run, answered }, _) in asked.iter().filter(|(due, ..)| *due >= counted) {
        let at = assigned.get(run).ok_or_else(|| Failure::platform("a run was never assigned"))?;
        early += usize::from(at < answered);
        answer.push(at.saturating_duration_since(*answered));
        whole.push(at.saturating_duration_since(*due));
        post.push(answered.saturating_duration_since(*due));
    }
    let runs = asked.into_iter().map(|(_, asked, token)| (asked.run, token)).collect();
    let verified = load::verify(&plane, runs).await?;
    plane.stop().await;
    Ok(Dispatch {
        per_second,
        runs: answer.len(),
        answered_to_assigned: Spread::of(answer),
        due_to_assigned: Spread::of(whole),
        due_to_answered: Spread::of(post),
        before_the_answer: early,
        plane_micros_a_run: micros_each(spent.plane, u64::from(count)),
        generator_micros_a_run: micros_each(spent.generator, u64::from(count)),
        verified,
    })
}
