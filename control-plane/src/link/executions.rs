//! Frames about one execution: claimed, rejected, completed, failed. Stock workers name the run only.

use protocol::{
    failure::FailureReason,
    ids::{ExecutionId, RunId},
    link::{
        ReportAck, TaskCancellation, TaskClaimed, TaskCompleted, TaskFailed, TaskRejected, ToWorker,
    },
};

use super::registry::{Connection, Dialect};
use crate::{
    core::{Core, millis},
    reports,
    store::{Recorded, Report, StoreError},
};

/// Longest message kept of a report, in bytes; the rest is cut.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

pub(super) async fn claimed(
    core: &Core,
    connection: &Connection,
    frame: TaskClaimed,
) -> Result<(), StoreError> {
    let lease = match connection.dialect {
        Dialect::Ozma => core.settings.lease,
        Dialect::Stock => core.settings.stock_lease,
    };
    connection.took();
    let report = Report::Claimed { lease_until: core.now() + millis(lease) };
    match record(core, connection, &frame.task_id, frame.execution_id, &report).await? {
        Some((id, Recorded::Superseded)) => stop(connection, &frame.task_id, Some(id)),
        Some(_) => {}
        None => stop(connection, &frame.task_id, None),
    }
    Ok(())
}

pub(super) async fn rejected(
    core: &Core,
    connection: &Connection,
    frame: TaskRejected,
) -> Result<(), StoreError> {
    connection.hold(core.now(), millis(core.settings.heartbeat) / 4);
    let report = Report::Declined { message: cut(&frame.reason) };
    record(core, connection, &frame.task_id, frame.execution_id, &report).await?;
    Ok(())
}

pub(super) async fn completed(
    core: &Core,
    connection: &Connection,
    frame: TaskCompleted,
) -> Result<(), StoreError> {
    let TaskCompleted { message, exit_code, peak_memory_bytes, task_state, .. } = frame;
    let message = cut(&message);
    let report = if task_state.as_deref() == Some("CANCELLED") {
        Report::Stopped { message, exit_code, peak_memory_bytes }
    } else if exit_code.is_some_and(|code| code != 0) {
        let reason = FailureReason::AgentExit;
        Report::Failed { reason, message, exit_code, peak_memory_bytes }
    } else {
        Report::Succeeded { message, exit_code, peak_memory_bytes }
    };
    terminal(core, connection, &frame.task_id, frame.execution_id, &report).await
}

pub(super) async fn failed(
    core: &Core,
    connection: &Connection,
    frame: TaskFailed,
) -> Result<(), StoreError> {
    let reason = match frame.failure_reason {
        _ if frame.oom_killed => FailureReason::ContainerOom,
        Some(reason) => reason,
        None if frame.exit_code.is_some_and(|code| code != 0) => FailureReason::ContainerExit,
        None => FailureReason::Unknown,
    };
    let report = Report::Failed {
        reason,
        message: cut(&frame.message),
        exit_code: frame.exit_code,
        peak_memory_bytes: frame.peak_memory_bytes,
    };
    terminal(core, connection, &frame.task_id, frame.execution_id, &report).await
}

/// A last word on an execution: acknowledged once it is stored, whether by this or an earlier one.
async fn terminal(
    core: &Core,
    connection: &Connection,
    run: &RunId,
    execution: Option<ExecutionId>,
    report: &Report,
) -> Result<(), StoreError> {
    match record(core, connection, run, execution, report).await? {
        Some((id, Recorded::Superseded)) => stop(connection, run, Some(id)),
        Some((id, Recorded::Applied { .. } | Recorded::Already)) => {
            connection.forget(&id);
            connection.send(ToWorker::ReportAck(ReportAck { execution_id: id }));
        }
        None => {}
    }
    Ok(())
}

/// Records a report of the execution meant, which a stock worker leaves to be found; `None` if there is none.
async fn record(
    core: &Core,
    connection: &Connection,
    run: &RunId,
    execution: Option<ExecutionId>,
    report: &Report,
) -> Result<Option<(ExecutionId, Recorded)>, StoreError> {
    let id = if let Some(id) = execution {
        id
    } else {
        let found = core.store.execution_of(&connection.worker_id, run).await?;
        let Some(row) = found else {
            core.counters.superseded.add(1);
            return Ok(None);
        };
        row.id
    };
    let recorded = reports::record(core, &id, Some(&connection.worker_id), report).await?;
    Ok(Some((id, recorded)))
}

/// A stock worker does not know `stop`; a cancellation does the same for it.
fn stop(connection: &Connection, run: &RunId, execution: Option<ExecutionId>) {
    match (connection.dialect, execution) {
        (Dialect::Ozma, Some(execution_id)) => {
            connection.send(ToWorker::Stop(ReportAck { execution_id }));
        }
        (_, execution_id) => {
            let task_id = run.clone();
            connection.send(ToWorker::TaskCancellation(TaskCancellation { task_id, execution_id }));
        }
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_MESSAGE_BYTES)].to_owned()
}
