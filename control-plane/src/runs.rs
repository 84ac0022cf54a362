//! The use cases of a run: submit, read, list, ask to stop, fetch what it left. States are not decided here.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use protocol::{
    ids::{ArtifactUid, EnvironmentId, RunId},
    run::RunState,
    spec::{HarnessSpec, ProviderKind, Shape},
};
use serde::{Deserialize, Serialize};

pub use crate::store::{Attempt, Idempotency, Run, RunFilter, SortBy, StoredArtifact};
use crate::{
    core::{Core, millis},
    environments::EnvironmentSpec,
    scope::Scope,
    store::{Cancelled, InsertRun, Inserted, Mark, StoreError, json},
};

/// Deepest chain of parents; a deeper run is refused.
pub const MAX_DEPTH: u32 = 16;

/// What a run without a name or title is called.
const UNTITLED_CHARS: usize = 80;

/// A run as its author asks for it, already checked for form.
#[derive(Debug, Clone, Default)]
pub struct NewRun {
    /// Made from the prompt's first line without one.
    pub title: Option<String>,
    pub prompt: String,
    /// The JSON of `config` as it came, shown back as `agent_config`.
    pub config: String,
    /// `config.name`.
    pub name: Option<String>,
    pub environment_id: Option<EnvironmentId>,
    /// The image to use instead of the environment's or the plane's default one.
    pub image: Option<String>,
    /// `None`, also for `oz`: the environment's.
    pub provider: Option<ProviderKind>,
    /// `config.harness.model_id`, else `config.model_id`.
    pub model_id: Option<String>,
    pub base_prompt: Option<String>,
    /// `None` for any worker; `warp` is to be left out as well.
    pub worker_host: Option<String>,
    pub shape: Option<Shape>,
    pub metadata: BTreeMap<String, String>,
    pub parent_run_id: Option<RunId>,
    /// `API` without one.
    pub source: Option<String>,
    pub idempotency: Option<Idempotency>,
}

/// A run that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    pub run_id: RunId,
    pub state: RunState,
    /// No slot was free at the time; it waits.
    pub at_capacity: bool,
    /// An earlier request with the same key had made it.
    pub repeated: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("no such environment")]
    UnknownEnvironment,
    /// Neither an environment nor a default image.
    #[error("without an environment there is no image to run in")]
    EnvironmentRequired,
    #[error("no such parent run")]
    UnknownParent,
    #[error("more than {MAX_DEPTH} runs below each other")]
    TooDeep,
    #[error("this Idempotency-Key was used for another request")]
    IdempotencyMismatch,
    /// As many runs as may wait do.
    #[error("{0} runs are waiting already")]
    QueueFull(u32),
    /// A text with a NUL byte, which nothing further on can carry.
    #[error("{0} must not contain a NUL character")]
    Nul(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

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

/// What a run keeps of its environment and its author's choices: later changes do not reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) spec: EnvironmentSpec,
}

/// Stores a run and wakes dispatch.
pub async fn submit(core: &Core, scope: &Scope, new: NewRun) -> Result<Submitted, SubmitError> {
    check_texts(&new)?;
    let (spec, env_sealed) = snapshot(core, scope, &new).await?;
    if let Some(parent) = &new.parent_run_id {
        check_depth(core, scope, parent).await?;
    }
    let now = core.now();
    let title = new.title.or_else(|| new.name.clone()).unwrap_or_else(|| headline(&new.prompt));
    let insert = InsertRun {
        id: RunId::from_uuid(uuid::Uuid::now_v7()),
        owner: scope.owner().clone(),
        max_attempts: core.settings.max_attempts.max(1),
        title,
        name: new.name,
        prompt: new.prompt,
        config: new.config,
        metadata: new.metadata,
        source: new.source.unwrap_or_else(|| "API".to_owned()),
        environment_id: new.environment_id,
        model_id: new.model_id,
        worker_host: new.worker_host,
        parent_run_id: new.parent_run_id,
        snapshot: json(&Snapshot { spec }),
        env_sealed,
        idempotency: new.idempotency,
        max_queued: core.settings.max_queued,
        seen_since: now - millis(core.settings.stock_lease),
        now,
    };
    match core.store.insert_run(&insert).await? {
        Inserted::Run { id, at_capacity, repeated } => {
            if !repeated {
                core.counters.runs_submitted.add(1);
                core.wake.queue();
            }
            Ok(Submitted { run_id: id, state: RunState::Queued, at_capacity, repeated })
        }
        Inserted::KeyMismatch => Err(SubmitError::IdempotencyMismatch),
        Inserted::QueueFull => Err(SubmitError::QueueFull(core.settings.max_queued)),
    }
}

pub async fn get(core: &Core, scope: &Scope, id: &RunId) -> Result<Run, StoreError> {
    core.store.run(scope, id).await
}

/// A page of the runs the caller may see.
pub async fn list(
    core: &Core,
    scope: &Scope,
    filter: &RunFilter,
    limit: u32,
    cursor: Option<&str>,
) -> Result<RunPage, ListError> {
    let mark = cursor.map(|cursor| read_cursor(cursor, filter.sort_by)).transpose()?;
    let (runs, end) = core.store.list_runs(scope, filter, limit, mark.as_ref()).await?;
    Ok(RunPage { runs, next_cursor: end.map(|mark| write_cursor(&mark)) })
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

/// Every text that becomes a column; `PostgreSQL` has no NUL in texts, nor has an argument or a file name.
fn check_texts(new: &NewRun) -> Result<(), SubmitError> {
    let optional = [
        ("title", new.title.as_ref()),
        ("config.name", new.name.as_ref()),
        ("config.model_id", new.model_id.as_ref()),
        ("config.worker_host", new.worker_host.as_ref()),
        ("Idempotency-Key", new.idempotency.as_ref().map(|key| &key.key)),
    ];
    let metadata = new.metadata.iter().flat_map(|(k, v)| [("metadata", k), ("metadata", v)]);
    let texts = optional.into_iter().filter_map(|(field, text)| Some((field, text?)));
    for (field, text) in texts.chain(metadata).chain([("prompt", &new.prompt)]) {
        if text.contains('\0') {
            return Err(SubmitError::Nul(field));
        }
    }
    Ok(())
}

async fn snapshot(
    core: &Core,
    scope: &Scope,
    new: &NewRun,
) -> Result<(EnvironmentSpec, Option<Vec<u8>>), SubmitError> {
    let (mut spec, env_sealed) = match &new.environment_id {
        Some(id) => {
            let row = core.store.environment(scope, id).await.map_err(|error| match error {
                StoreError::NotFound => SubmitError::UnknownEnvironment,
                other => SubmitError::Store(other),
            })?;
            let spec = crate::store::from_json(&row.spec, "environment specification")?;
            (spec, row.env_sealed)
        }
        None => (EnvironmentSpec::default(), None),
    };
    if let Some(image) = &new.image {
        spec.docker_image.clone_from(image);
    }
    if spec.docker_image.is_empty() {
        let image = core.settings.default_image.clone();
        spec.docker_image = image.ok_or(SubmitError::EnvironmentRequired)?;
    }
    if let Some(shape) = new.shape {
        spec.shape = shape;
    }
    let HarnessSpec { provider, model, base_prompt, .. } = &mut spec.harness;
    *provider = new.provider.unwrap_or(*provider);
    *model = new.model_id.clone().or(model.take());
    *base_prompt = new.base_prompt.clone().or(base_prompt.take());
    Ok((spec, env_sealed))
}

/// The parent must be the caller's to see, and not too far below others.
async fn check_depth(core: &Core, scope: &Scope, parent: &RunId) -> Result<(), SubmitError> {
    let mut next = Some(parent.clone());
    for _ in 0..MAX_DEPTH {
        let Some(id) = next else { return Ok(()) };
        let run = core.store.run(scope, &id).await.map_err(|error| match error {
            StoreError::NotFound => SubmitError::UnknownParent,
            other => SubmitError::Store(other),
        })?;
        next = run.parent_run_id;
    }
    if next.is_some() { Err(SubmitError::TooDeep) } else { Ok(()) }
}

fn headline(prompt: &str) -> String {
    let line = prompt.lines().find(|line| !line.trim().is_empty()).unwrap_or("Run").trim();
    let mut title: String = line.chars().take(UNTITLED_CHARS).collect();
    if title.len() < line.len() {
        title.push('…');
    }
    title
}

fn write_cursor(mark: &Mark) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}\n{}", mark.id, mark.value))
}

fn read_cursor(cursor: &str, sort_by: SortBy) -> Result<Mark, ListError> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| ListError::BadCursor)?;
    let text = String::from_utf8(bytes).map_err(|_| ListError::BadCursor)?;
    let (id, value) = text.split_once('\n').ok_or(ListError::BadCursor)?;
    let fits = id.parse::<RunId>().is_ok()
        && !value.contains('\0')
        && (!sort_by.is_time() || value.parse::<i64>().is_ok());
    if fits {
        Ok(Mark { value: value.to_owned(), id: id.to_owned() })
    } else {
        Err(ListError::BadCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_a_forged_one_is_refused() {
        let mark = Mark { value: "17".to_owned(), id: "0198-a".to_owned() };
        let cursor = write_cursor(&mark);
        assert_eq!(read_cursor(&cursor, SortBy::CreatedAt).unwrap(), mark);
        for bad in ["", "!!", "AAAA", &write_cursor(&Mark { value: "x".into(), ..mark.clone() })] {
            assert!(read_cursor(bad, SortBy::CreatedAt).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_title_is_the_first_line_and_short() {
        assert_eq!(headline("\n  Fix the build\nplease"), "Fix the build");
        assert_eq!(headline(&"é".repeat(100)).chars().count(), UNTITLED_CHARS + 1);
    }
}
