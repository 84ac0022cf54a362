//! Stays connected to the plane. A session begins with `hello` and `welcome`; then everything that was not
//! acknowledged goes out again. It knows frames, and nothing of containers.

mod dial;
mod identity;
mod session;
mod talk;

use std::{sync::Arc, time::Duration};

use service::backoff::{Backoff, jitter};
use tokio::time::Instant;

pub(crate) use self::{identity::Identity, talk::Talk};
use self::{dial::DialError, session::Session};
use crate::executions::Executions;

/// Waits between tries. The cap stays below half a lease, so that a plane's restart costs no execution.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Between tries with credentials that were refused: an operator has to act first.
const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// Runs until nothing runs any more after a stop was asked for.
pub(crate) async fn run(identity: &Identity, executions: &Arc<Executions>) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let done = done(executions);
    tokio::pin!(done);
    loop {
        let begun = Instant::now();
        let ended = tokio::select! {
            ended = connect(identity, executions) => ended,
            () = &mut done => return,
        };
        let was_up = ended.was_up;
        executions.context.metrics.disconnected(was_up);
        let wait = match &ended.cause {
            Cause::Refused(error) => {
                tracing::error!(error = %error, "the plane refuses this worker; next try in {} s", REFUSED_WAIT.as_secs());
                REFUSED_WAIT + jitter(REFUSED_WAIT / 4)
            }
            Cause::Other(error) => {
                let wait = backoff.next(begun.elapsed());
                tracing::warn!(
                    error = format!("{error:#}"),
                    wait_ms = wait.as_millis(),
                    "no link to the plane"
                );
                wait
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = &mut done => return,
        }
    }
}

/// Draining, and nothing left to drain.
async fn done(executions: &Executions) {
    executions.context.life.draining().cancelled().await;
    executions.wake.notify_one();
    executions.idle().await;
}

struct SessionEnd {
    was_up: bool,
    cause: Cause,
}

enum Cause {
    Refused(DialError),
    Other(anyhow::Error),
}

async fn connect(identity: &Identity, executions: &Arc<Executions>) -> SessionEnd {
    let id = &executions.context.worker_id;
    let socket = match dial::dial(&identity.plane_url, id, &identity.token).await {
        Ok(socket) => socket,
        Err(error @ DialError::Refused(_)) => {
            return SessionEnd { was_up: false, cause: Cause::Refused(error) };
        }
        Err(error) => return SessionEnd { was_up: false, cause: Cause::Other(error.into()) },
    };
    match Session::open(socket, identity, executions).await {
        Ok(session) => {
            executions.context.metrics.connected();
            tracing::info!(worker.id = %id, "connected to the plane as {id}");
            SessionEnd { was_up: true, cause: Cause::Other(session.run().await) }
        }
        Err(error) => SessionEnd { was_up: false, cause: Cause::Other(error) },
    }
}
