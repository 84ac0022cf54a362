//! What a run waits for. Ours.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use crate::{
    failure::FailureReason,
    ids::{RunId, WorkerId},
    run::RunState,
};

/// Why a run does not go on, or that it does. More may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum WaitCode {
    /// It is over.
    Over,
    /// A worker has it.
    Running,
    /// A cancel was asked for; its worker is stopping it.
    Stopping,
    /// It is on its way to a worker, which has not answered yet.
    HandingOver,
    /// Its last attempt failed; the next one begins at `until`.
    WaitingToRetry,
    /// The workers it was handed to did not take it; it is tried again at `until`.
    Declined,
    /// No worker is connected.
    NoWorker,
    /// The worker it names is not connected.
    WorkerHostNotConnected,
    /// No connected worker has all the tags it asks for.
    NoWorkerWithTags,
    /// The workers it may go to take nothing new.
    WorkersDraining,
    /// Its tenant has as many runs under way as it may.
    TenantLimit,
    /// All slots of the workers it may go to are taken.
    WorkersFull,
    /// There is a slot, and others come first.
    RunsAhead,
    /// There is a slot and nobody is before it: it is about to be handed over.
    Next,
    /// A code this build does not know.
    #[serde(other)]
    Unknown,
}

/// The answer of `GET /agent/runs/{run_id}/why`. Numbers that the code has nothing to do with may be absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhyView {
    pub run_id: RunId,
    pub state: RunState,
    pub code: WaitCode,
    /// The same in a sentence.
    pub message: String,
    /// Since when it has been in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When its waiting ends with a failure, if it may not wait for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_until: Option<Timestamp>,
    /// Who has it, or is to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// The attempt under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reason: Option<FailureReason>,
    /// Tags it asks for that no connected worker has; all of them when each is there and none has them together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_tags: Vec<String>,
    /// Slots of the workers it may go to that take work, and how many of them are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_taken: Option<u32>,
    /// Its tenant's runs under way, and how many there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_running: Option<u32>,
    /// Waiting runs of its tenant, and of all others, whose turn comes before and that want the same slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_own: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_others: Option<u64>,
}
