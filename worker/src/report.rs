//! What is reported of an execution: the worker's last word on it, as a frame and as a line of the log.

use protocol::{
    failure::FailureReason,
    link::{FromWorker, TaskCompleted, TaskFailed},
};

use crate::held::Held;

/// Longest message of a report, in characters; the rest is in the events.
const MAX_MESSAGE_CHARS: usize = 2_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    Succeeded {
        message: String,
        exit_code: Option<i32>,
        peak_memory_bytes: Option<u64>,
    },
    Cancelled {
        exit_code: Option<i32>,
    },
    Failed {
        reason: FailureReason,
        message: String,
        exit_code: Option<i32>,
        oom_killed: bool,
        peak_memory_bytes: Option<u64>,
    },
}

impl Report {
    pub(crate) fn failed(reason: FailureReason, message: impl Into<String>) -> Self {
        Self::Failed {
            reason,
            message: message.into(),
            exit_code: None,
            oom_killed: false,
            peak_memory_bytes: None,
        }
    }

    pub(crate) fn log(&self, held: &Held) {
        let id = &held.execution_id;
        match self {
            Self::Succeeded { .. } => {
                tracing::info!(run.id = %held.run_id, execution.id = %id, "execution {id} succeeded");
            }
            Self::Cancelled { .. } => {
                tracing::info!(run.id = %held.run_id, execution.id = %id, "execution {id} was cancelled");
            }
            // The message may quote the run's output and is not logged.
            Self::Failed { reason, .. } => {
                tracing::info!(run.id = %held.run_id, execution.id = %id, reason = %reason, "execution {id} failed: {reason}");
            }
        }
    }

    pub(crate) fn into_frame(self, held: &Held) -> FromWorker {
        let task_id = held.run_id.clone();
        let execution_id = Some(held.execution_id.clone());
        let short = |message: String| message.chars().take(MAX_MESSAGE_CHARS).collect();
        match self {
            Self::Succeeded { message, exit_code, peak_memory_bytes } => {
                FromWorker::TaskCompleted(TaskCompleted {
                    task_id,
                    execution_id,
                    message: short(message),
                    task_state: None,
                    exit_code,
                    peak_memory_bytes,
                    after: None,
                })
            }
            Self::Cancelled { exit_code } => FromWorker::TaskCompleted(TaskCompleted {
                task_id,
                execution_id,
                // The stock worker's words (oz-api.md 2.3).
                message: "Task cancelled by user request.".to_owned(),
                task_state: Some("CANCELLED".to_owned()),
                exit_code,
                peak_memory_bytes: None,
                after: None,
            }),
            Self::Failed { reason, message, exit_code, oom_killed, peak_memory_bytes } => {
                FromWorker::TaskFailed(TaskFailed {
                    task_id,
                    execution_id,
                    message: short(message),
                    failure_reason: Some(reason),
                    exit_code,
                    oom_killed,
                    peak_memory_bytes,
                    after: None,
                })
            }
        }
    }
}
