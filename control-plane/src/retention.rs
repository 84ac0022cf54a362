//! Retention: a reconciler that deletes runs, or only their events and artifacts, some days after they ended. It
//! works in short transactions with a pause after each, and never looks at a run that is not over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::ids::RunId;
use service::{backoff::jitter, clock::Moment, lifecycle::Lifecycle};

use crate::{
    core::{Core, days},
    store::{Part, Place, StoreError, millis},
};

/// How long one transaction goes on deleting: others wait for it, and its commit comes on top.
const PATIENCE: Duration = Duration::from_millis(20);

/// The least pause after a transaction; otherwise it is as long as the transaction was, so that deleting has at
/// most half of the writer's time.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// Runs looked up at a time.
const BATCH: i64 = 256;

/// After the start: a plane that is restarted often should sweep all the same.
const FIRST: Duration = Duration::from_mins(1);

/// The time of day that went ahead further than this is not believed: everything would be old at once.
const WRONG_CLOCK: Duration = days(1);

/// What a pass deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    pub runs: u64,
    pub events: u64,
    pub artifacts: u64,
}

/// What one pass tells the next. Losing it costs a walk over what was looked at before.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Where the walk over runs that lost their events has come to, so that no pass begins at the oldest again.
    place: Place,
    began: Moment,
}

impl Progress {
    pub fn new(core: &Core) -> Self {
        Self { place: Place::default(), began: core.clock.moment() }
    }
}

/// Works until the process drains.
pub async fn run(core: Arc<Core>, life: Lifecycle) {
    let mut progress = Progress::new(&core);
    let mut wait = FIRST.min(core.settings.retention_interval);
    loop {
        tokio::select! {
            () = life.draining().cancelled() => return,
            // Runs grow old without anybody's call. Jittered, so that planes take turns.
            () = tokio::time::sleep(wait / 2 + jitter(wait / 2)) => {}
        }
        wait = core.settings.retention_interval;
        match pass(&core, &mut progress).await {
            Ok(deleted) if deleted != Deleted::default() => tracing::info!(
                runs = deleted.runs,
                events = deleted.events,
                artifacts = deleted.artifacts,
                "deleted {} runs and {} events that were old enough",
                deleted.runs,
                deleted.events
            ),
            Ok(_) => {}
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error, "deleting old runs failed; it is tried again");
            }
        }
    }
}

/// One pass: everything that is old enough now, or as much as comes before a drain.
pub async fn pass(core: &Core, progress: &mut Progress) -> Result<Deleted, StoreError> {
    let mut deleted = Deleted::default();
    if core.clock.jump_since(progress.began) > millis(WRONG_CLOCK) {
        tracing::warn!(
            "the clock was set ahead by more than a day: nothing is deleted until a restart"
        );
        return Ok(deleted);
    }
    let now = core.now();
    if let Some(age) = core.settings.run_retention {
        // From the oldest on each time: what was deleted is not met again.
        walk(core, Part::Run, now - millis(age), &mut Place::default(), &mut deleted).await?;
    }
    if let Some(age) = core.settings.event_retention {
        walk(core, Part::Events, now - millis(age), &mut progress.place, &mut deleted).await?;
    }
    core.counters.retention_swept(now);
    Ok(deleted)
}

async fn walk(
    core: &Core,
    part: Part,
    cutoff: i64,
    place: &mut Place,
    deleted: &mut Deleted,
) -> Result<(), StoreError> {
    loop {
        let found = core.store.ended_before(cutoff, place, BATCH).await?;
        let Some((last_end, last_id)) = found.last().cloned() else { return Ok(()) };
        let ids: Vec<RunId> = found.into_iter().map(|(_, id)| id).collect();
        let mut rest = ids.as_slice();
        while !rest.is_empty() {
            if core.life.draining().is_cancelled() {
                return Ok(());
            }
            let began = Instant::now();
            let enough = || began.elapsed() >= PATIENCE;
            let swept = core.store.sweep(rest, part, cutoff, enough).await?;
            if swept.elsewhere {
                return Ok(());
            }
            rest = &rest[swept.done.min(rest.len())..];
            deleted.runs += swept.runs;
            deleted.events += swept.events;
            deleted.artifacts += swept.artifacts;
            core.counters.retention_deleted(swept.runs, swept.events, swept.artifacts);
            // Whoever waits to write comes first.
            tokio::time::sleep(began.elapsed().max(LEAST_PAUSE)).await;
        }
        *place = (last_end, last_id.into());
    }
}
