//! Wake-ups between planes on one database: hints, carried by the database itself, and never waited for.

use std::sync::Arc;

use service::lifecycle::Lifecycle;

use crate::core::Core;

/// The channel planes speak and listen on.
const CHANNEL: &str = "ozma";

/// Tells the other planes and listens to them, until the process drains. On `SQLite` there are no others.
pub(crate) async fn run(core: Arc<Core>, life: Lifecycle) {
    tokio::join!(speak(&core, &life), listen(&core, &life));
}

async fn speak(core: &Core, life: &Lifecycle) {
    loop {
        tokio::select! {
            () = life.draining().cancelled() => return,
            () = core.wake.to_tell() => {}
        }
        let names = core.wake.take_pending();
        if let Err(error) = core.store.tell_planes(CHANNEL, &core.plane_id, &names).await {
            tracing::debug!(error = format!("{error:#}"), "other planes not told; they poll");
        }
    }
}

async fn listen(core: &Core, life: &Lifecycle) {
    let wait = core.settings.poll;
    while !life.draining().is_cancelled() {
        let heard = core.store.hear_planes(CHANNEL, |payload| {
            let mut lines = payload.lines();
            if lines.next() != Some(core.plane_id.as_str()) {
                lines.for_each(|name| core.wake.heard(name));
            }
        });
        tokio::select! {
            () = life.draining().cancelled() => return,
            Err(error) = heard => {
                tracing::debug!(error = format!("{error:#}"), "not listening to other planes");
            }
        }
        tokio::select! {
            () = life.draining().cancelled() => return,
            // The database is away; until it is back, whoever waits for a word looks for himself.
            () = tokio::time::sleep(wait) => {}
        }
    }
}
