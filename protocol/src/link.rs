//! Frames between the plane and a worker, in both dialects (design.md 6, oz-api.md 2).
//!
//! The stock dialect is the Oz worker's own messages. The Ozma dialect adds `execution_id` to them, and its
//! own frames around them; a worker speaks it by sending `hello` first.

use serde::{Deserialize, Serialize};

use crate::{
    event::{EventLine, EventSource, is_false},
    failure::FailureReason,
    frame::messages,
    ids::{ExecutionId, RunId, WorkerId},
    spec::RunSpec,
};

/// The Ozma dialect's version; a plane refuses another major one with a close frame that says so.
pub const PROTOCOL_VERSION: u32 = 1;

messages! {
    /// From a worker to the plane.
    FromWorker {
        /// Opens the Ozma dialect; the plane answers `welcome`.
        Hello(Hello) = "hello",
        /// Stock: the worker took the run.
        TaskClaimed(TaskClaimed) = "task_claimed",
        /// Stock: the worker did not take it; the run stays queued.
        TaskRejected(TaskRejected) = "task_rejected",
        /// Stock: it ended well, or was cancelled by the plane.
        TaskCompleted(TaskCompleted) = "task_completed",
        /// Stock: it failed.
        TaskFailed(TaskFailed) = "task_failed",
        /// Numbered events of one execution; the plane answers `ack`.
        Events(Events) = "events",
        /// Renews the leases of the executions named.
        Heartbeat(Heartbeat) = "heartbeat",
    }
}

messages! {
    /// From the plane to a worker.
    ToWorker {
        Welcome(Welcome) = "welcome",
        /// Stock: run this.
        TaskAssignment(Box<TaskAssignment>) = "task_assignment",
        /// Stock: stop this.
        TaskCancellation(TaskCancellation) = "task_cancellation",
        /// Everything up to `seq` of this source is stored; the worker may forget it.
        Ack(Ack) = "ack",
        /// The terminal report of this execution is stored; the worker may remove what is left of it.
        ReportAck(ReportAck) = "report_ack",
        /// This execution was superseded: stop and remove it, report nothing.
        Stop(ReportAck) = "stop",
        /// Take nothing new, finish what runs, stay connected.
        Drain(Drain) = "drain",
        /// Take work again.
        Resume(Drain) = "resume",
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    /// New with every start of the worker's process.
    pub instance_id: String,
    pub version: String,
    #[serde(default)]
    pub tags: Vec<String>,
    /// `docker`, `direct`, …
    pub backend: String,
    /// How many executions it runs at once.
    pub capacity: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskUse>,
    /// What runs here now, left from before a lost connection or a restart.
    #[serde(default)]
    pub executions: Vec<RunningExecution>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningExecution {
    pub run_id: RunId,
    pub execution_id: ExecutionId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    pub protocol: u32,
    /// Without a heartbeat for this long an execution counts as lost.
    pub lease_ms: u64,
    pub heartbeat_ms: u64,
    /// One verdict for each execution of the `hello`.
    pub executions: Vec<Verdict>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    pub execution_id: ExecutionId,
    /// False: superseded or ended; stop and remove it, report nothing.
    pub keep: bool,
    /// The plane holds the worker's events up to here.
    pub worker_seq: u64,
    /// The plane holds the sidecar's events up to here.
    pub sidecar_seq: u64,
}

/// The stock assignment (oz-api.md 2.3) with, for a worker of ours, the whole specification.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskAssignment {
    pub task_id: RunId,
    pub execution_id: ExecutionId,
    pub task: StockTask,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker_image: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sidecar_image: String,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub env_vars: std::collections::BTreeMap<String, crate::secret::Secret>,
    /// Present for a worker that said `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<RunSpec>,
}

/// The stock worker panics without it (oz-api.md 0.8).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StockTask {
    pub id: RunId,
    #[serde(default)]
    pub title: String,
    pub task_definition: TaskDefinition,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskDefinition {
    pub prompt: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskClaimed {
    pub task_id: RunId,
    pub worker_id: WorkerId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRejected {
    pub task_id: RunId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    #[serde(default)]
    pub reason: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskCompleted {
    pub task_id: RunId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    #[serde(default)]
    pub message: String,
    /// `CANCELLED` when the plane had asked for it (oz-api.md 0.7); absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// What was said before it. The plane believes it once it holds all of that, and passes it over until then:
    /// the worker says it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EventCount>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskFailed {
    pub task_id: RunId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    #[serde(default)]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub oom_killed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// As in [`TaskCompleted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EventCount>,
}

/// How many events each source has said of an execution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCount {
    pub worker: u64,
    pub sidecar: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Events {
    pub execution_id: ExecutionId,
    pub source: EventSource,
    /// Numbers follow each other without gaps. The plane drops what it has already, and asks again, by an
    /// `ack` of what it holds, when the first is later than it expects.
    pub events: Vec<EventLine>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heartbeat {
    pub executions: Vec<ExecutionId>,
    /// Slots free for new executions; 0 while draining.
    pub free: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskUse>,
}

/// What a worker's executions take of its disks, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUse {
    pub used_bytes: u64,
    /// At it the worker takes nothing new; without it only the disk is the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskCancellation {
    pub task_id: RunId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ack {
    pub execution_id: ExecutionId,
    pub source: EventSource,
    pub seq: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportAck {
    pub execution_id: ExecutionId,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Drain {}
