//! What an earlier life of this worker left: executions to take up again, and things nobody owns to remove.
//! It takes no notes; folders and labels are enough.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use protocol::ids::ExecutionId;

use crate::{executions::Executions, home::Home};

/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// Takes up every execution that left a readable folder. Run before the first `hello`, which names them.
///
/// # Errors
/// The state folder cannot be read.
pub(crate) fn adopt(executions: &Arc<Executions>) -> anyhow::Result<()> {
    let state_dir = &executions.context.state_dir;
    for (home, record) in Home::all(state_dir).context("read the state folder")? {
        if let Some(record) = record {
            tracing::info!(run.id = %record.run_id, execution.id = %record.execution_id, "execution {} was left by an earlier life", record.execution_id);
            executions.adopt(record);
        } else {
            // Made and not finished: its execution was never claimed.
            tracing::warn!(folder = %home.path().display(), "a folder without a record is removed");
            home.remove().context("remove a folder of an earlier life")?;
        }
    }
    Ok(())
}

/// Removes, again and again, what carries this worker's label and belongs to no execution held here.
pub(crate) async fn sweep(executions: Arc<Executions>) {
    let stop = executions.context.life.aborting().clone();
    if let Err(error) = executions.context.backend.tidy().await {
        tracing::warn!(
            error = format!("{error:#}"),
            "not everything old was removed; the next start tries again"
        );
    }
    loop {
        if let Err(error) = sweep_once(&executions).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "a sweep failed; the next one tries again"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = executions.context.life.draining().cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
            // What could not be removed without it.
            () = executions.context.gate.engine_back() => {}
        }
    }
}

async fn sweep_once(executions: &Executions) -> anyhow::Result<()> {
    let context = &executions.context;
    for id in context.backend.leftovers().await? {
        // Asked after the listing: an execution is held before it has a container.
        if executions.find(&id).is_none() {
            remove(executions, &id).await?;
        }
    }
    Ok(())
}

async fn remove(executions: &Executions, id: &ExecutionId) -> anyhow::Result<()> {
    let context = &executions.context;
    let home = Home::at(&context.state_dir, id);
    tracing::info!(execution.id = %id, "what execution {id} left is removed");
    context.backend.remove(&home, id).await?;
    home.remove().context("remove its folder")
}
