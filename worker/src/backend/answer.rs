//! What a backend answers, whichever it is: failures, ends, and streams to read and write.

use std::collections::HashMap;

use protocol::{
    failure::FailureReason,
    ids::{ExecutionId, RunId},
    spec::SessionSpec,
};
use tokio::io::{AsyncBufRead, AsyncWrite};

/// Why something could not be done, by its place in the closed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) reason: FailureReason,
    /// For people, with its cause.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What a run goes on with is not here.
pub(super) fn session_gone(worker_id: &str, session: &SessionSpec) -> Failure {
    let id = &session.conversation_id;
    Failure::new(
        FailureReason::SessionGone,
        format!(
            "what conversation {id} left is not on worker {worker_id}: it was removed for its age, for its size or \
             by an operator, or never was there. Begin anew with a run of its own"
        ),
    )
}

/// How a container or process ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// As a shell would give it, signals as 128 + n; `None` where nobody was there to see.
    pub(crate) exit_code: Option<i32>,
    /// The kernel killed one of its processes for the memory limit.
    pub(crate) oom_killed: bool,
    /// False: there never was one, or it was never started.
    pub(crate) began: bool,
}

/// What is taken of the disk, in bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    pub(crate) executions: HashMap<ExecutionId, u64>,
    /// Of kept conversations that no execution uses.
    pub(crate) sessions: HashMap<RunId, u64>,
    /// Of images that this worker pulled itself; layers that two of them share are counted twice.
    pub(crate) images: u64,
}

impl Usage {
    /// What the execution takes besides.
    pub(crate) fn add(&mut self, id: ExecutionId, bytes: u64) {
        let taken = self.executions.entry(id).or_default();
        *taken = taken.saturating_add(bytes);
    }

    pub(crate) fn total(&self) -> u64 {
        let parts = self.executions.values().chain(self.sessions.values());
        parts.fold(self.images, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// The sidecar's journal, read after the end.
pub(crate) type Journal = Box<dyn AsyncBufRead + Send + Unpin>;

/// A container's standard output and input, through the engine, until either side lets go.
pub(crate) struct Attached {
    pub(crate) output: Journal,
    pub(crate) input: std::pin::Pin<Box<dyn AsyncWrite + Send>>,
}
