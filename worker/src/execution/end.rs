//! How an execution comes to its end here, and what breaks off the wait for it.

use std::time::Duration;

use protocol::failure::FailureReason;

use crate::{
    backend::Failure,
    context::Context,
    held::{Held, Stop},
    report::Report,
};

/// How long a worker that is going waits for the plane to store a report.
const LAST_WORD: Duration = Duration::from_secs(5);

/// How an execution came to its end here.
#[derive(Debug)]
pub(super) enum End {
    Report(Report),
    /// Nothing is to be reported.
    Superseded,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Report(Report::failed(failure.reason, failure.message))
    }
}

impl From<Stop> for End {
    /// For a stop before the sidecar ran.
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Superseded => Self::Superseded,
            Stop::Cancelled => Self::Report(Report::Cancelled { exit_code: None }),
            Stop::Shutdown => Self::Report(Report::failed(
                FailureReason::GracefulShutdown,
                "the worker was stopped before the run began",
            )),
        }
    }
}

/// Waits until the plane believes another execution, or none.
pub(super) async fn superseded(held: &Held) {
    let mut known = held.stop_now();
    while known != Some(Stop::Superseded) {
        known = Some(held.stopped(known).await);
    }
}

/// Waits until a worker that is going can wait no longer.
pub(super) async fn last_word(context: &Context) {
    context.life.aborting().cancelled().await;
    tokio::time::sleep(LAST_WORD).await;
}
