//! Creating runs and looking at them (oz-api.md 1.3 to 1.6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{artifacts::ArtifactItem, config::AgentConfig, lists::PageInfo, time::Timestamp};
use crate::{
    event::Phase,
    ids::{ExecutionId, RunId},
    retry::FailureClass,
    run::RunState,
};

/// Longest prompt, in bytes; a longer one is refused with 400.
pub const MAX_PROMPT_BYTES: usize = 1 << 20;

/// The body of `POST /agent/run` and `POST /agent/runs`. Unknown fields are tolerated, and named in the response
/// header `x-ozma-ignored`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema),
    schema(example = json!({"prompt": "Fix the failing test", "config": {"environment_id": "env_…"}}))
)]
pub struct CreateRun {
    /// What the agent is to do; required, at most 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<AgentConfig>,
    /// Made from the prompt without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// At most 20 keys of 1 to 64 bytes of `[A-Za-z0-9._-]`, values of at most 256 bytes without NUL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// A run of the same owner that this one belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<String>,
    /// Accepted, without effect in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<bool>,
    /// Accepted, without effect in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<bool>,
    /// Accepted, without effect in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// `normal`. Others are not supported in this version and answered with 422.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Not supported in this version: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// Goes on with this conversation: its workspace and the provider's session, on the worker that has them. What
    /// `config` leaves open is as in its last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// Not supported in this version: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_identity_uid: Option<String>,
    /// Not supported in this version: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Object>>))]
    pub attachments: Option<Value>,
    /// Not supported in this version: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Object>>))]
    pub images: Option<Value>,
}

/// A run was created, or had been by an earlier request with the same `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunCreated {
    pub run_id: RunId,
    /// Equal to `run_id`; for older clients.
    pub task_id: RunId,
    pub state: RunState,
    /// No worker has a free slot for it now.
    #[serde(default)]
    pub at_capacity: bool,
}

/// The body of `POST /agent/runs/{run_id}/followups`. Unknown fields are tolerated, and named in the response header
/// `x-ozma-ignored`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema),
    schema(example = json!({"message": "Now add a test for it"}))
)]
pub struct Followup {
    /// What the agent is to do next; required, at most 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `normal`. Others are not supported in this version and answered with 422.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// A conversation goes on in this run; the SDKs ignore the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FollowupCreated {
    pub run_id: RunId,
    /// Equal to `run_id`.
    pub task_id: RunId,
    pub conversation_id: RunId,
    pub state: RunState,
    /// No worker has a free slot for it now.
    #[serde(default)]
    pub at_capacity: bool,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunItem {
    pub run_id: RunId,
    /// Equal to `run_id`; for older clients.
    pub task_id: RunId,
    pub title: String,
    pub state: RunState,
    pub prompt: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How it ended, or why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_message: Option<StatusMessage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_config: Option<AgentConfig>,
    #[serde(default)]
    pub artifacts: Vec<ArtifactItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<RunId>,
    /// The conversation it belongs to: the id of its first run, its own for a run that began one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<RunId>,
    /// The provider's own name for the conversation, where that is a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// `API`, `CLI`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Always `REMOTE`: it ran on a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_location: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_sandbox_running: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_run_type_cancellable: Option<bool>,
    /// ISO 8601 duration from the start to the end, or to now: `PT2M30.5S`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_time: Option<String>,
    /// Ours: the attempt it is at, 1 for the first; 0 before any.
    #[serde(default)]
    pub attempt: u32,
    /// Ours: a cancel was asked for and has not taken effect yet.
    #[serde(default)]
    pub cancelling: bool,
    /// Ours: milliseconds by phase, of the last attempt.
    #[serde(default)]
    pub phases: BTreeMap<Phase, u64>,
    /// Ours: the provider's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Ours: highest memory use of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Ours: the execution of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    /// Ours: the worker of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_host: Option<String>,
    /// Ours: the attempts that failed, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<FailedAttempt>,
    /// Ours: attempts it may have, the first included.
    #[serde(default)]
    pub max_attempts: u32,
    /// Ours: while it waits for another attempt, when that begins at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// Ours: while it waits, when it has waited long enough and fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_until: Option<Timestamp>,
    /// Ours: higher ones go first among their tenant's.
    #[serde(default)]
    pub priority: i32,
    /// Ours: what holds for it, from its own config, its environment and the plane together; only where one run is
    /// asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RunPolicy>,
}

/// What holds for a run: every choice made, none above the plane's ceilings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunPolicy {
    /// Seconds from the sidecar's start to the end, set-up included.
    pub timeout_secs: u64,
    pub setup_timeout_secs: u64,
    pub image_timeout_secs: u64,
    /// Seconds of one wait in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_secs: Option<u64>,
    /// The classes of failure after which it is tried again while attempts are left.
    pub retry_on: Vec<FailureClass>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worker_tags: Vec<String>,
}

/// One failed attempt of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailedAttempt {
    pub attempt: u32,
    /// One of the failure reasons (`image_pull`, `container_oom`, …).
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    /// The worker that had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_host: Option<String>,
    /// When it was handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusMessage {
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
}

/// One page of runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunList {
    pub runs: Vec<RunItem>,
    pub page_info: PageInfo,
}

/// `GET /agent`: agents are made from skills, which this version does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentList {
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub agents: Vec<()>,
}

/// A redirect check's answer: no redirect (oz-api.md 1.10).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NoRedirect {}
