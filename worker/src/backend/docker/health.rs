//! Whether the engine answers. A daemon that is restarted, or hangs, closes the worker's gate until it answers
//! again; the worker itself lives on, and asks with a growing, jittered wait.

use std::time::Duration;

use service::backoff::Backoff;
use tokio::time::Instant;

use super::engine::Docker;
use crate::metrics::Metrics;

/// Between two questions to an engine that answers.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// For one answer; an engine slower than this takes nothing new.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Waits between questions to one that does not.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Docker {
    /// Never returns.
    pub(in crate::backend) async fn watch(&self, metrics: &Metrics) {
        let mut away: Option<Instant> = None;
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let wait = if away.is_some() { backoff.next(Duration::ZERO) } else { ASK_EVERY };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // One that is known to be away is asked often enough.
                () = self.gate.doubted(), if away.is_none() => {}
            }
            let cause = match tokio::time::timeout(ANSWER_WITHIN, self.client.ping()).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
            };
            self.gate.engine_is_there(cause.is_none());
            match (cause, away) {
                (Some(error), None) => {
                    away = Some(Instant::now());
                    metrics.engine_lost();
                    tracing::warn!(
                        error,
                        "the container engine does not answer; nothing new is taken until it does"
                    );
                }
                (None, Some(since)) => {
                    away = None;
                    backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
                    let secs = since.elapsed().as_secs();
                    tracing::info!("the container engine answers again after {secs} s");
                }
                _ => {}
            }
        }
    }
}
