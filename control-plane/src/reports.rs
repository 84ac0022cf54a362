//! Recording what was seen of an execution, and telling who waits for it.

use std::time::Duration;

use protocol::{
    ids::{ExecutionId, WorkerId},
    run::RunState,
};
use service::backoff::jitter;

use crate::{
    core::{Core, millis},
    store::{Ending, Recorded, Report, StoreError},
};

/// No wait between attempts is longer.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Records a report and wakes followers and dispatch. `worker` is who reports; `None` is the plane itself.
pub async fn record(
    core: &Core,
    execution: &ExecutionId,
    worker: Option<&WorkerId>,
    report: &Report,
) -> Result<Recorded, StoreError> {
    let now = core.now();
    let retry_at = match report {
        Report::Claimed { .. } | Report::Succeeded { .. } => now,
        _ => now + millis(wait_before_retry(core, execution).await?),
    };
    let recorded = core.store.record(execution, worker, report, retry_at, now).await?;
    match &recorded {
        Recorded::Applied { run_id, state, measured } => {
            core.counters.measured(measured, *state == RunState::Queued);
            count(core, execution, report, *state).await?;
            core.wake.run(run_id);
            if !matches!(report, Report::Claimed { .. }) {
                core.wake.queue();
            }
            tracing::info!(run.id = %run_id, execution.id = %execution, "run {run_id} is {state}");
        }
        Recorded::Already => {}
        Recorded::Superseded => core.counters.superseded.add(1),
    }
    Ok(recorded)
}

/// Random, and longer with each attempt, so that a fleet does not fall over the same stone together.
async fn wait_before_retry(core: &Core, execution: &ExecutionId) -> Result<Duration, StoreError> {
    let attempt = core.store.execution(execution).await?.map_or(1, |row| row.attempt);
    let doubled = core.settings.retry_wait.saturating_mul(1 << attempt.clamp(1, 10) >> 1);
    let ceiling = doubled.min(LONGEST_WAIT);
    Ok(ceiling / 2 + jitter(ceiling / 2))
}

async fn count(
    core: &Core,
    execution: &ExecutionId,
    report: &Report,
    state: RunState,
) -> Result<(), StoreError> {
    let counters = &core.counters;
    match report {
        Report::Claimed { .. } | Report::Succeeded { .. } | Report::Failed { .. } => {}
        // What they came to depends on how far the run was.
        _ => match core.store.execution(execution).await?.and_then(|row| row.ending) {
            Some(Ending::Declined) => counters.declined.add(1),
            Some(Ending::Lost) => counters.lost.add(1),
            Some(Ending::Reported) | None => {}
        },
    }
    match state {
        RunState::Succeeded => counters.runs_succeeded.add(1),
        RunState::Failed => counters.runs_failed.add(1),
        RunState::Error => counters.runs_error.add(1),
        RunState::Cancelled => counters.runs_cancelled.add(1),
        _ => {}
    }
    Ok(())
}
