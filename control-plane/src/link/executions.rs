//! Frames about one execution: claimed, rejected, completed, failed. Stock workers name the run only.

use protocol::{
    failure::FailureReason,
    ids::{ExecutionId, RunId},
    link::{
        EventCount, FromWorker, ReportAck, TaskCancellation, TaskCompleted, TaskFailed, ToWorker,
    },
};

use super::registry::{Connection, Dialect};
use crate::{
    core::Core,
    reports,
    store::{Judged, Pending, Recorded, Report, StoreError, millis},
};

/// Longest message kept of a report, in bytes; the rest is cut.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// What a worker said of one execution.
pub(super) struct Said {
    run: RunId,
    /// Absent from a stock worker's.
    execution: Option<ExecutionId>,
    report: Report,
    /// What the worker said of it before.
    after: Option<EventCount>,
}

/// A report under way to the store.
#[derive(Debug)]
pub(super) struct Owed {
    run: RunId,
    execution: ExecutionId,
    kind: Kind,
    pending: Pending<Judged>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Claimed,
    Declined,
    /// A last word, which is acknowledged once it is stored, whether by this report or an earlier one.
    Terminal,
}

impl Said {
    /// What the frame says; the frame itself when it is of another kind.
    pub(super) fn of(
        core: &Core,
        connection: &Connection,
        frame: FromWorker,
    ) -> Result<Self, Box<FromWorker>> {
        let (run, execution, report, after) = match frame {
            FromWorker::TaskClaimed(frame) => {
                let lease = match connection.dialect {
                    Dialect::Ozma => core.settings.lease,
                    Dialect::Stock => core.settings.stock_lease,
                };
                connection.took();
                let report = Report::Claimed { lease_until: core.now() + millis(lease) };
                (frame.task_id, frame.execution_id, report, None)
            }
            FromWorker::TaskRejected(frame) => {
                connection.hold(core.now(), millis(core.settings.heartbeat) / 4);
                let report = Report::Declined { message: cut(&frame.reason) };
                (frame.task_id, frame.execution_id, report, None)
            }
            FromWorker::TaskCompleted(frame) => {
                let report = completed(&frame);
                (frame.task_id, frame.execution_id, report, frame.after)
            }
            FromWorker::TaskFailed(frame) => {
                let report = failed(&frame);
                (frame.task_id, frame.execution_id, report, frame.after)
            }
            other => return Err(Box::new(other)),
        };
        Ok(Self { run, execution, report, after })
    }

    fn kind(&self) -> Kind {
        match self.report {
            Report::Claimed { .. } => Kind::Claimed,
            Report::Declined { .. } => Kind::Declined,
            _ => Kind::Terminal,
        }
    }

    /// Hands it on to the store; a stock worker's, which names the run only, once its execution is found.
    pub(super) async fn hand_in(
        self,
        core: &Core,
        connection: &Connection,
    ) -> Result<Option<Owed>, StoreError> {
        let (kind, worker) = (self.kind(), &connection.worker_id);
        let execution = if let Some(id) = self.execution {
            id
        } else if let Some(row) = core.store.execution_of(worker, &self.run).await? {
            row.id
        } else {
            core.counters.superseded.add(1);
            if kind == Kind::Claimed {
                stop(connection, &self.run, None);
            }
            return Ok(None);
        };
        let pending = reports::hand_in(
            core,
            &execution,
            Some(&connection.instance_id),
            self.report,
            self.after,
        )
        .await?;
        Ok(Some(Owed { run: self.run, execution, kind, pending }))
    }
}

impl Owed {
    /// Waits for the store, then answers.
    pub(super) async fn settled(
        &mut self,
        core: &Core,
        connection: &Connection,
    ) -> Result<(), StoreError> {
        let judged = (&mut self.pending).await?;
        let id = &self.execution;
        match (reports::tell(core, id, judged), self.kind) {
            // No answer to the latter: the worker says it again, and before it what is missing.
            (_, Kind::Declined) | (Recorded::Early, _) => {}
            (Recorded::Superseded, _) => stop(connection, &self.run, Some(id.clone())),
            (Recorded::Applied { .. } | Recorded::Already, Kind::Claimed) => {}
            (Recorded::Applied { .. } | Recorded::Already, Kind::Terminal) => {
                connection.forget(id);
                connection.send(ToWorker::ReportAck(ReportAck { execution_id: id.clone() }));
            }
        }
        Ok(())
    }
}

fn completed(frame: &TaskCompleted) -> Report {
    let &TaskCompleted { exit_code, peak_memory_bytes, .. } = frame;
    let message = cut(&frame.message);
    if frame.task_state.as_deref() == Some("CANCELLED") {
        Report::Stopped { message, exit_code, peak_memory_bytes }
    } else if exit_code.is_some_and(|code| code != 0) {
        let reason = FailureReason::AgentExit;
        Report::Failed { reason, message, exit_code, peak_memory_bytes }
    } else {
        Report::Succeeded { message, exit_code, peak_memory_bytes }
    }
}

fn failed(frame: &TaskFailed) -> Report {
    let reason = match frame.failure_reason {
        _ if frame.oom_killed => FailureReason::ContainerOom,
        Some(reason) => reason,
        None if frame.exit_code.is_some_and(|code| code != 0) => FailureReason::ContainerExit,
        None => FailureReason::Unknown,
    };
    Report::Failed {
        reason,
        message: cut(&frame.message),
        exit_code: frame.exit_code,
        peak_memory_bytes: frame.peak_memory_bytes,
    }
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
