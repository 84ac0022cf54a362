//! What an earlier life of this worker left: executions to take up again, and things nobody owns to remove.
//! It takes no notes; folders and labels are enough.

use std::sync::Arc;

use anyhow::Context as _;
use protocol::ids::{ExecutionId, RunId};

use crate::{
    executions::Executions,
    home::{Home, remove_tree},
    swept::Swept,
};

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
            remove_tree(home.path()).context("remove a folder of an earlier life")?;
        }
    }
    Ok(())
}

/// Removes, again and again, what is this worker's and belongs to no execution held here.
pub(crate) async fn sweep(executions: Arc<Executions>) {
    let context = &executions.context;
    loop {
        let mut swept = Swept::default();
        if let Err(error) = sweep_once(&executions, &mut swept).await {
            swept.failed(&error);
        }
        context.metrics.swept(&swept);
        tokio::select! {
            () = context.life.aborting().cancelled() => return,
            () = context.life.draining().cancelled() => return,
            () = tokio::time::sleep(context.sweep_every) => {}
            // What could not be removed without it.
            () = context.gate.engine_back() => {}
        }
    }
}

async fn sweep_once(executions: &Executions, swept: &mut Swept) -> anyhow::Result<()> {
    let context = &executions.context;
    // A worker that is going lets go of what runs on: that is the next life's, not nobody's.
    let is_live =
        |id: &ExecutionId| executions.find(id).is_some() || context.life.draining().is_cancelled();
    for (home, id) in Home::ids(&context.state_dir).context("read the state folder")? {
        if !is_live(&id) {
            tracing::info!(execution.id = %id, "what execution {id} left is removed");
            match remove_home(executions, &home, &id).await {
                Ok(()) => swept.folders += 1,
                Err(error) => swept.failed(&error),
            }
        }
    }
    context.backend.sweep(&is_live, swept).await?;
    sweep_sessions(executions, swept).await?;
    context.backend.tidy().await
}

async fn remove_home(executions: &Executions, home: &Home, id: &ExecutionId) -> anyhow::Result<()> {
    executions.context.backend.remove(home, id).await?;
    home.remove().await.with_context(|| format!("remove the folder of {id}"))
}

/// Removes conversations that are kept for longer, or larger, than they may be.
async fn sweep_sessions(executions: &Executions, swept: &mut Swept) -> anyhow::Result<()> {
    let context = &executions.context;
    let kept = context.backend.sessions().await?;
    for conversation in context.sessions.due(kept, &|id| executions.uses(id)).await {
        match remove_session(executions, &conversation).await {
            Ok(true) => swept.sessions += 1,
            Ok(false) => {}
            Err(error) => swept.failed(&error),
        }
    }
    Ok(())
}

/// Conversations that no execution uses, and first what was unused for longest.
///
/// # Errors
/// The backend does not answer.
pub(crate) async fn unused_sessions(executions: &Executions) -> anyhow::Result<Vec<RunId>> {
    let context = &executions.context;
    let kept = context.backend.sessions().await?;
    Ok(context.sessions.unused(kept, &|id| executions.uses(id)).await)
}

/// Removes what is kept of a conversation; false when something uses it by now. An execution says that it uses one
/// before it waits for its turn to look for it.
///
/// # Errors
/// It cannot be removed.
pub(crate) async fn remove_session(
    executions: &Executions,
    conversation: &RunId,
) -> anyhow::Result<bool> {
    let context = &executions.context;
    let _nobody_looks = context.sessions.turn().await;
    if executions.uses(conversation) {
        return Ok(false);
    }
    let removed = context.backend.remove_session(conversation).await;
    let removed = removed.with_context(|| format!("remove conversation {conversation}"))?;
    if removed {
        tracing::info!("what was kept of conversation {conversation} is removed");
    }
    Ok(removed)
}
