//! Waiting for a container's end, over restarts of the engine and of this worker.

use std::time::Duration;

use bollard::{models::ContainerStateStatusEnum, query_parameters::WaitContainerOptionsBuilder};
use futures_util::StreamExt;
use protocol::{failure::FailureReason, ids::ExecutionId};
use service::backoff::Backoff;
use tokio::time::Instant;

use super::engine::{Docker, name, status};
use crate::backend::answer::{Ended, Failure};

/// How long the engine may be away before its containers count as lost.
const ENGINE_AWAY: Duration = Duration::from_mins(2);

/// One wait is asked again after this long, should the engine have forgotten it.
const ASK_AGAIN: Duration = Duration::from_mins(1);

impl Docker {
    pub(in crate::backend) async fn ended(&self, id: &ExecutionId) -> Result<Ended, Failure> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut answered = Instant::now();
        loop {
            // The state first and last: `not-running` is true of what has ended, however long ago.
            match self.state(id).await {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => answered = Instant::now(),
                Err(error) if answered.elapsed() > ENGINE_AWAY => {
                    return Err(self.failure(
                        FailureReason::ContainerWait,
                        "hear of the container's end",
                        &error,
                    ));
                }
                Err(error) => {
                    self.gate.doubt_engine();
                    tracing::warn!(execution.id = %id, error = %error, "the container engine does not answer");
                    tokio::time::sleep(backoff.next(Duration::ZERO)).await;
                    continue;
                }
            }
            let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
            let name = name(id);
            let mut wait = std::pin::pin!(self.client.wait_container(&name, Some(options)));
            let asked = Instant::now();
            // An end with another code than 0 arrives as an error; the state says which it was.
            let _ = tokio::time::timeout(ASK_AGAIN, wait.next()).await;
            if asked.elapsed() < Duration::from_millis(100) {
                // An engine that breaks the wait off at once is not asked in a busy loop.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// How it ended; `None` while it runs.
    async fn state(&self, id: &ExecutionId) -> Result<Option<Ended>, bollard::errors::Error> {
        let container = match self.client.inspect_container(&name(id), None).await {
            Ok(container) => container,
            Err(error) if status(&error) == Some(404) => return Ok(Some(Ended::default())),
            Err(error) => return Err(error),
        };
        let state = container.state.unwrap_or_default();
        if state.running == Some(true) || state.restarting == Some(true) {
            return Ok(None);
        }
        let began = state.status != Some(ContainerStateStatusEnum::CREATED);
        Ok(Some(Ended {
            exit_code: state.exit_code.filter(|_| began).and_then(|code| i32::try_from(code).ok()),
            oom_killed: state.oom_killed == Some(true),
            began,
        }))
    }
}
