//! What workers and the reaper report of an execution, turned into facts of its run. A report of an execution
//! that is over, or of another worker's, changes nothing.

use std::time::Duration;

use protocol::{
    event::Phase,
    failure::FailureReason,
    ids::{ExecutionId, RunId},
    link::EventCount,
    run::{Fact, RunState},
};

use service::backoff::jitter;

use super::{
    Ending, ExecutionRow, StoreError,
    claims::TOLD_HANDOVERS,
    executions::{Closing, Concerned},
    millis,
    transitions::{Change, Head},
};

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

/// A report to be recorded.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: ExecutionId,
    /// The worker process that reports; `None` is the plane itself.
    pub(crate) instance: Option<String>,
    pub(crate) report: Report,
    /// What its worker said before it.
    pub(crate) after: Option<EventCount>,
    /// When a run that is queued again may be claimed.
    pub(crate) retry: Retry,
    pub(crate) now: i64,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// The run changed, to this state.
    Applied { run_id: RunId, state: RunState, measured: Measured },
    /// It was known before, or is not true any more; nothing changed.
    Already,
    /// Its worker said something before it that is not stored: it would be the last word on a run whose events
    /// are not all there. The worker says both again.
    Early,
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

/// When a run that is queued again may be claimed: after a wait that is random, and longer with each attempt, so
/// that a fleet does not fall over the same stone together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// The longest wait before a second attempt; it doubles with each further one.
    pub(crate) wait: Duration,
    pub(crate) longest: Duration,
}

impl Retry {
    fn wait_ms(self, attempt: u32) -> i64 {
        let ceiling = self.wait.saturating_mul(1 << attempt.clamp(1, 10) >> 1).min(self.longest);
        millis(ceiling / 2 + jitter(ceiling / 2))
    }

    /// Twice as long each time: what every worker declines is tried now and then only.
    fn wait_ms_declined(self, attempt: u32, declines: i64) -> i64 {
        let first = self.wait_ms(attempt);
        first.saturating_mul(1 << declines.clamp(0, 10)).min(millis(self.longest).max(first))
    }
}

/// What became of a report, and how its execution ended if it did by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) recorded: Recorded,
    pub(crate) ending: Option<Ending>,
}

impl From<Recorded> for Judged {
    fn from(recorded: Recorded) -> Self {
        Self { recorded, ending: None }
    }
}

impl Concerned<'_, '_> {
    pub(super) fn record(self, record: &Record) -> Result<Judged, StoreError> {
        let Record { id, instance, report, after, retry, now } = record;
        let Self { head, held, events } = self;
        // Of a worker's processes only the one that holds it has a say: another may be a copy of its machine.
        if instance.as_ref().is_some_and(|instance| *instance != held.row.instance_id) {
            return Ok(Recorded::Superseded.into());
        }
        if let Some(ending) = held.row.ending {
            return Ok(repeated(ending, report).into());
        }
        if head.execution_id.as_ref() != Some(id) {
            return Ok(Recorded::Superseded.into());
        }
        let EventCount { worker, sidecar } = after.unwrap_or_default();
        if worker > held.row.worker_seq || sidecar > held.row.sidecar_seq {
            return Ok(Recorded::Early.into());
        }
        if matches!(report, Report::Expired) && held.row.lease_expires_at >= *now {
            return Ok(Recorded::Already.into());
        }
        let (mut ended, mut measured) = (None, Measured::default());
        if let Report::Claimed { lease_until } = report {
            if head.standing.state != RunState::Pending {
                return Ok(Recorded::Already.into());
            }
            head.advance(Fact::Claimed, &Change::default(), *now, events)?;
            measured.waited_ms = head.phases.get(&Phase::Queued).copied();
            held.claimed_at = held.claimed_at.or(Some(*now));
            held.row.lease_expires_at = *lease_until;
        } else {
            let (fact, ending, mut change) = judge(report, head, &held.row);
            let wait_ms = if fact == Fact::Declined {
                retry.wait_ms_declined(held.row.attempt, head.declines)
            } else {
                retry.wait_ms(held.row.attempt)
            };
            change.not_before = *now + wait_ms;
            if change.reason == Some(FailureReason::RateLimit) {
                change.not_before = change.not_before.max(head.not_before);
            }
            head.advance(fact, &change, *now, events)?;
            (measured.reason, measured.ran_ms) = (change.reason, head.ran_ms());
            held.row.ending = Some(ending);
            let forget_declined = head.declines > TOLD_HANDOVERS;
            held.closing = Some(Closing { ending, change, at: *now, forget_declined });
            ended = Some(ending);
        }
        held.changed = true;
        let (run_id, state) = (head.id.clone(), head.standing.state);
        Ok(Judged { recorded: Recorded::Applied { run_id, state, measured }, ending: ended })
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
