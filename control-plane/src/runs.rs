//! The use cases of a run: submit, read, list, ask to stop, fetch what it left. States are not decided here.

pub(crate) mod conversations;
pub(crate) mod cursor;
mod submit;

use std::collections::BTreeMap;

use protocol::ids::{ArtifactUid, RunId};

pub use self::conversations::last_run;
pub use self::submit::{MAX_DEPTH, NewRun, SubmitError, Submitted, submit};
pub(crate) use self::submit::{RunServers, Snapshot};
pub use crate::store::{Attempt, Idempotency, Run, RunFilter, SortBy, StoredArtifact};
use crate::{
    core::Core,
    environments::EnvironmentSpec,
    scope::Scope,
    store::{Cancelled, StoreError, from_json},
};

#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// Not there, or not the caller's.
    #[error("no such run")]
    NotFound,
    #[error("the run is over")]
    Terminal,
    /// Being handed to a worker: the caller may try again in a moment.
    #[error("the run is being handed to a worker")]
    Pending,
    #[error(transparent)]
    Store(StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// No cursor of this listing.
    #[error("no such cursor")]
    BadCursor,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A page of runs.
#[derive(Debug, Clone)]
pub struct RunPage {
    pub runs: Vec<Run>,
    /// Present when there are more.
    pub next_cursor: Option<String>,
}

pub async fn get(core: &Core, scope: &Scope, id: &RunId) -> Result<Run, StoreError> {
    core.store.run(scope, id).await
}

/// What the run keeps of its environment, every choice made.
pub async fn spec(core: &Core, scope: &Scope, id: &RunId) -> Result<EnvironmentSpec, StoreError> {
    let snapshot: Snapshot = from_json(&core.store.snapshot(scope, id).await?, "run snapshot")?;
    Ok(snapshot.spec)
}

/// A page of the runs the caller may see.
pub async fn list(
    core: &Core,
    scope: &Scope,
    filter: &RunFilter,
    limit: u32,
    cursor: Option<&str>,
) -> Result<RunPage, ListError> {
    let mark = cursor.map(|cursor| cursor::read(cursor, filter.sort_by)).transpose()?;
    let (runs, end) = core.store.list_runs(scope, filter, limit, mark.as_ref()).await?;
    Ok(RunPage { runs, next_cursor: end.map(|mark| cursor::write(&mark)) })
}

/// Asks a run to stop. A queued one is over at once; for another one its worker is told.
pub async fn cancel(core: &Core, scope: &Scope, id: &RunId) -> Result<(), CancelError> {
    let cancelled =
        core.store.cancel_run(scope, id, core.now()).await.map_err(|error| match error {
            StoreError::NotFound => CancelError::NotFound,
            other => CancelError::Store(other),
        })?;
    match cancelled {
        Cancelled::AtOnce => core.counters.runs_cancelled.add(1),
        Cancelled::Asked => core.wake.queue(),
        Cancelled::Pending => return Err(CancelError::Pending),
        Cancelled::Terminal => return Err(CancelError::Terminal),
    }
    core.wake.run(id);
    Ok(())
}

/// The ended executions of a run, the first one first.
pub async fn attempts(core: &Core, scope: &Scope, id: &RunId) -> Result<Vec<Attempt>, StoreError> {
    core.store.attempts(scope, id).await
}

/// What one run left behind.
pub async fn artifacts(
    core: &Core,
    scope: &Scope,
    id: &RunId,
) -> Result<Vec<StoredArtifact>, StoreError> {
    core.store.run(scope, id).await?;
    let mut found = core.store.artifacts(scope, std::slice::from_ref(id)).await?;
    Ok(found.remove(id).unwrap_or_default())
}

/// What the runs of a page left behind.
pub async fn artifacts_of(
    core: &Core,
    scope: &Scope,
    runs: &[Run],
) -> Result<BTreeMap<RunId, Vec<StoredArtifact>>, StoreError> {
    let ids: Vec<_> = runs.iter().map(|run| run.id.clone()).collect();
    core.store.artifacts(scope, &ids).await
}

pub async fn artifact(
    core: &Core,
    scope: &Scope,
    uid: &ArtifactUid,
) -> Result<StoredArtifact, StoreError> {
    core.store.artifact(scope, uid).await
}

/// The content of a `FILE`, at most 32 MiB.
pub async fn artifact_content(
    core: &Core,
    scope: &Scope,
    uid: &ArtifactUid,
) -> Result<Vec<u8>, StoreError> {
    core.store.artifact(scope, uid).await?;
    core.store.artifact_content(scope, uid).await
}
