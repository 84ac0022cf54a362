//! Recording what was seen of an execution, and telling who waits for it.

use std::time::Duration;

use protocol::{
    ids::{ExecutionId, WorkerId},
    run::RunState,
};

use crate::{
    core::Core,
    store::{Ending, Judged, Pending, Record, Recorded, Report, Retry, StoreError},
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
    let judged = hand_in(core, execution, worker, report.clone()).await?.await?;
    Ok(tell(core, execution, judged))
}

/// Hands a report in to be recorded. With the answer [`tell`] is to be called.
pub(crate) async fn hand_in(
    core: &Core,
    execution: &ExecutionId,
    worker: Option<&WorkerId>,
    report: Report,
) -> Result<Pending<Judged>, StoreError> {
    let retry = Retry { wait: core.settings.retry_wait, longest: LONGEST_WAIT };
    let (id, worker, now) = (execution.clone(), worker.cloned(), core.now());
    core.store.hand_in_report(Record { id, worker, report, retry, now }).await
}

/// Counts what became of a report and wakes followers and dispatch.
pub(crate) fn tell(core: &Core, execution: &ExecutionId, judged: Judged) -> Recorded {
    let Judged { recorded, ending } = judged;
    match &recorded {
        Recorded::Applied { run_id, state, measured } => {
            core.counters.measured(measured, *state == RunState::Queued);
            count(core, ending, *state);
            core.wake.run(run_id);
            if ending.is_some() {
                core.wake.queue();
            }
            tracing::info!(run.id = %run_id, execution.id = %execution, "run {run_id} is {state}");
        }
        Recorded::Already => {}
        Recorded::Superseded => core.counters.superseded.add(1),
    }
    recorded
}

fn count(core: &Core, ending: Option<Ending>, state: RunState) {
    let counters = &core.counters;
    match ending {
        Some(Ending::Declined) => counters.declined.add(1),
        Some(Ending::Lost) => counters.lost.add(1),
        Some(Ending::Reported) | None => {}
    }
    match state {
        RunState::Succeeded => counters.runs_succeeded.add(1),
        RunState::Failed => counters.runs_failed.add(1),
        RunState::Error => counters.runs_error.add(1),
        RunState::Cancelled => counters.runs_cancelled.add(1),
        _ => {}
    }
}
