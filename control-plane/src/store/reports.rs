//! What workers and the reaper report of an execution, turned into facts of its run. A report of an execution
//! that is over, or of another worker's, changes nothing.

use protocol::{
    event::Phase,
    failure::FailureReason,
    ids::{ExecutionId, RunId, WorkerId},
    run::{Fact, RunState},
};

use super::{
    Ending, ExecutionRow, Store, StoreError, Tx, again,
    claims::TOLD_HANDOVERS,
    on_tx,
    transitions::{Change, Head},
};

/// A run that no worker takes is tried this often.
const LONGEST_WAIT_MS: i64 = 60_000;

/// What somebody saw of an execution.
#[derive(Debug, Clone)]
pub enum Report {
    /// The worker took it; its lease runs until then.
    Claimed {
        lease_until: i64,
    },
    /// The worker did not take it.
    Declined {
        message: String,
    },
    Succeeded {
        message: String,
        exit_code: Option<i32>,
        peak_memory_bytes: Option<u64>,
    },
    Failed {
        reason: FailureReason,
        message: String,
        exit_code: Option<i32>,
        peak_memory_bytes: Option<u64>,
    },
    /// The worker stopped it on the plane's word.
    Stopped {
        message: String,
        exit_code: Option<i32>,
        peak_memory_bytes: Option<u64>,
    },
    /// Its worker came back without it.
    Missing,
    /// Nobody renewed its lease.
    Expired,
    /// Its worker lives, and does not end it.
    Overdue,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// The run changed, to this state.
    Applied { run_id: RunId, state: RunState, measured: Measured },
    /// It was known before, or is not true any more; nothing changed.
    Already,
    /// The execution is over or somebody else's: its worker must stop it.
    Superseded,
}

/// What is worth counting of a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Why the execution failed, or was not taken.
    pub reason: Option<FailureReason>,
    /// How long the run had waited, when it was taken.
    pub waited_ms: Option<u64>,
    /// From its first start to its end, when it ended.
    pub ran_ms: Option<u64>,
}

impl Store {
    /// Records a report. `worker` is who reports; `None` is the plane itself. `retry_at` is when a run that is
    /// queued again may be claimed.
    pub async fn record(
        &self,
        id: &ExecutionId,
        worker: Option<&WorkerId>,
        report: &Report,
        retry_at: i64,
        now: i64,
    ) -> Result<Recorded, StoreError> {
        again(|| self.try_record(id, worker, report, retry_at, now)).await
    }

    async fn try_record(
        &self,
        id: &ExecutionId,
        worker: Option<&WorkerId>,
        report: &Report,
        retry_at: i64,
        now: i64,
    ) -> Result<Recorded, StoreError> {
        let mut tx = self.begin().await?;
        let recorded = tx.record(id, worker, report, retry_at, now).await?;
        match recorded {
            Recorded::Applied { .. } => tx.commit().await?,
            Recorded::Already | Recorded::Superseded => tx.roll_back().await?,
        }
        Ok(recorded)
    }
}

impl Tx {
    async fn record(
        &mut self,
        id: &ExecutionId,
        worker: Option<&WorkerId>,
        report: &Report,
        retry_at: i64,
        now: i64,
    ) -> Result<Recorded, StoreError> {
        let Some((mut head, execution)) = self.lock_execution(id).await? else {
            return Ok(Recorded::Superseded);
        };
        if worker.is_some_and(|worker| *worker != execution.worker_id) {
            return Ok(Recorded::Superseded);
        }
        if let Some(ending) = execution.ending {
            return Ok(repeated(ending, report));
        }
        if head.execution_id.as_ref() != Some(id) {
            return Ok(Recorded::Superseded);
        }
        if matches!(report, Report::Expired) && execution.lease_expires_at >= now {
            return Ok(Recorded::Already);
        }
        let mut measured = Measured::default();
        if let Report::Claimed { lease_until } = report {
            if head.standing.state != RunState::Pending {
                return Ok(Recorded::Already);
            }
            self.advance(&mut head, Fact::Claimed, &Change::default(), now).await?;
            self.mark_claimed(id, *lease_until, now).await?;
            measured.waited_ms = head.phases.get(&Phase::Queued).copied();
        } else {
            let (fact, ending, mut change) = judge(report, &head, &execution);
            change.not_before = retry_at;
            if fact == Fact::Declined {
                // Twice as long each time: what every worker declines is tried now and then only.
                let wait = (retry_at - now).saturating_mul(1 << head.declines.clamp(0, 10));
                change.not_before = now + wait.min(LONGEST_WAIT_MS.max(retry_at - now));
            }
            self.advance(&mut head, fact, &change, now).await?;
            self.end_execution(id, ending, &change, now).await?;
            if head.declines > TOLD_HANDOVERS {
                self.forget_declined(&head.id, id).await?;
            }
            measured.reason = change.reason;
            measured.ran_ms = head.ran_ms();
        }
        Ok(Recorded::Applied { run_id: head.id, state: head.standing.state, measured })
    }
}

impl Tx {
    /// Keeps the last declined execution of a run that is declined again and again; nobody ran the others.
    async fn forget_declined(&mut self, run: &RunId, but: &ExecutionId) -> Result<(), StoreError> {
        const SQL: &str = "delete from executions where run_id = $1 and ending = $2 and id <> $3";
        on_tx!(self, |db| sqlx::query(SQL)
            .bind(run.as_str())
            .bind(Ending::Declined.as_str())
            .bind(but.as_str())
            .execute(db)
            .await
            .map(|_| ()))?;
        Ok(())
    }
}

/// A report of an execution that is over.
fn repeated(ending: Ending, report: &Report) -> Recorded {
    match (ending, report) {
        (Ending::Reported, Report::Claimed { .. }) => Recorded::Superseded,
        // The acknowledgement was lost, and the worker says it again.
        (Ending::Reported, _) => Recorded::Already,
        (_, Report::Missing | Report::Expired | Report::Overdue | Report::Declined { .. }) => {
            Recorded::Already
        }
        (Ending::Declined | Ending::Lost, _) => Recorded::Superseded,
    }
}

/// The fact a report comes to, and what is kept of it.
fn judge(report: &Report, head: &Head, execution: &ExecutionRow) -> (Fact, Ending, Change) {
    let pending = head.standing.state == RunState::Pending;
    let failed = |reason| Fact::Failed { reason, again: head.again(reason) };
    let because = |reason, message: &str| Change {
        reason: Some(reason),
        message: Some(message.to_owned()),
        ..Change::default()
    };
    let worker = &execution.worker_id;
    match report {
        Report::Claimed { .. } => (Fact::Claimed, Ending::Reported, Change::default()),
        Report::Declined { message } if pending => {
            (Fact::Declined, Ending::Declined, because(FailureReason::Rejected, message))
        }
        Report::Declined { message } => (
            failed(FailureReason::Rejected),
            Ending::Reported,
            because(FailureReason::Rejected, message),
        ),
        Report::Expired | Report::Missing | Report::Overdue if pending => {
            let message = format!("worker {worker} did not answer the assignment");
            (Fact::Declined, Ending::Declined, because(FailureReason::Rejected, &message))
        }
        Report::Expired => {
            let message = format!("worker {worker} fell silent for longer than its lease");
            let reason = FailureReason::WorkerLost;
            (failed(reason), Ending::Lost, because(reason, &message))
        }
        Report::Overdue => {
            let message = format!("worker {worker} did not end it in time");
            let reason = FailureReason::TaskTimeout;
            (failed(reason), Ending::Lost, because(reason, &message))
        }
        Report::Missing => {
            let message = format!("worker {worker} came back without this execution");
            let reason = FailureReason::WorkerLost;
            (failed(reason), Ending::Lost, because(reason, &message))
        }
        Report::Succeeded { message, exit_code, peak_memory_bytes } => {
            let change = Change {
                message: Some(message.clone()),
                exit_code: *exit_code,
                peak_memory_bytes: *peak_memory_bytes,
                ..Change::default()
            };
            (Fact::Succeeded, Ending::Reported, change)
        }
        Report::Failed { reason, message, exit_code, peak_memory_bytes } => {
            let change = Change {
                exit_code: *exit_code,
                peak_memory_bytes: *peak_memory_bytes,
                ..because(*reason, message)
            };
            (failed(*reason), Ending::Reported, change)
        }
        Report::Stopped { message, exit_code, peak_memory_bytes } => {
            // Nobody here asked for it: then it is the worker's own failure.
            let (fact, reason) = if head.standing.cancelling {
                (Fact::Stopped, FailureReason::TaskCancelled)
            } else {
                (failed(FailureReason::Unknown), FailureReason::Unknown)
            };
            let change = Change {
                exit_code: *exit_code,
                peak_memory_bytes: *peak_memory_bytes,
                ..because(reason, message)
            };
            (fact, Ending::Reported, change)
        }
    }
}
