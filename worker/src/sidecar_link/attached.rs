//! Staying attached to a container's standard input and output. A break interrupts nothing: whoever attaches
//! again says from where on, and the sidecar's journal has the rest.

use std::{sync::Arc, time::Duration};

use service::backoff::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{connection, shared::Shared};
use crate::backend::{Attach, Attached};

/// Waits between tries, far below the time that a container has to say its first word.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Serves `first`, which was attached before the start, and attaches again whenever it breaks.
pub(super) async fn keep(
    attach: Attach,
    mut first: Option<Attached>,
    shared: Arc<Shared>,
    closed: CancellationToken,
) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let since = Instant::now();
        let served = async {
            match first.take() {
                Some(attached) => connection::serve_attached(attached, true, &shared).await,
                None => connection::serve_attached(attach.attach().await?, false, &shared).await,
            }
        };
        let ended = tokio::select! {
            () = closed.cancelled() => return,
            ended = served => ended,
        };
        let cause = ended.err().map(|error: anyhow::Error| format!("{error:#}"));
        tracing::debug!(
            execution.id = %shared.held.execution_id,
            cause,
            "the container of {} was let go of, and is attached to again",
            shared.held.execution_id
        );
        tokio::select! {
            () = closed.cancelled() => return,
            () = tokio::time::sleep(backoff.next(since.elapsed())) => {}
        }
    }
}
