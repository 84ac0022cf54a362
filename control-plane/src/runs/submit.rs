//! Submitting a run: its environment is copied into it, so that later changes do not reach it.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    ids::{EnvironmentId, RunId},
    retry::RetryPolicy,
    run::RunState,
    spec::{HarnessSpec, ProviderKind, Shape},
};
use serde::{Deserialize, Serialize};

use crate::{
    core::{Core, millis},
    environments::{EnvironmentSpec, TimeoutWishes},
    placement::Placement,
    scope::Scope,
    store::{Idempotency, InsertRun, Inserted, StoreError, json},
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
    /// In place of the environment's.
    pub worker_tags: Option<Vec<String>>,
    /// -100 to 100, higher ones first among its owner's.
    pub priority: i32,
    /// The environment's hold for what is left open.
    pub timeouts: TimeoutWishes,
    /// The environment's holds for what is left open.
    pub retry: RetryPolicy,
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

/// What a run keeps of its environment and its author's choices: later changes do not reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) spec: EnvironmentSpec,
}

/// Stores a run and wakes dispatch.
pub async fn submit(core: &Core, scope: &Scope, new: NewRun) -> Result<Submitted, SubmitError> {
    check_texts(&new)?;
    // First of all: what the first request named may be gone by now.
    if let Some(asked) = &new.idempotency
        && let Some(earlier) = core.store.earlier(scope.owner(), asked).await?
    {
        return submitted(core, earlier);
    }
    let (spec, env_sealed) = snapshot(core, scope, &new).await?;
    if let Some(parent) = &new.parent_run_id {
        check_depth(core, scope, parent).await?;
    }
    let now = core.now();
    let title = new.title.or_else(|| new.name.clone()).unwrap_or_else(|| headline(&new.prompt));
    // It stands in lists and on terminals, of administrators too.
    let title = title.replace(char::is_control, " ");
    let insert = InsertRun {
        id: RunId::from_uuid(uuid::Uuid::now_v7()),
        owner: scope.owner().clone(),
        max_attempts: spec.retry.max_attempts.unwrap_or(core.settings.max_attempts).max(1),
        title,
        name: new.name,
        prompt: new.prompt,
        config: new.config,
        metadata: new.metadata,
        source: new.source.unwrap_or_else(|| "API".to_owned()),
        environment_id: new.environment_id,
        model_id: new.model_id,
        placement: Placement {
            worker_host: new.worker_host.clone(),
            worker_tags: spec.worker_tags.iter().cloned().collect(),
        },
        worker_host: new.worker_host,
        priority: new.priority,
        queue_ms: spec.timeouts.queue_secs.map(|secs| millis(Duration::from_secs(secs))),
        retry: spec.retry.clone(),
        parent_run_id: new.parent_run_id,
        snapshot: json(&Snapshot { spec }),
        env_sealed,
        idempotency: new.idempotency,
        max_queued: core.settings.max_queued,
        seen_since: now - millis(core.settings.stock_lease),
        now,
    };
    submitted(core, core.store.insert_run(&insert).await?)
}

/// The answer, and who has to know.
fn submitted(core: &Core, inserted: Inserted) -> Result<Submitted, SubmitError> {
    match inserted {
        Inserted::Run { id, at_capacity, repeated } => {
            if !repeated {
                core.counters.runs_submitted.add(1);
                core.wake.queue();
            }
            Ok(Submitted { run_id: id, state: RunState::Queued, at_capacity, repeated })
        }
        Inserted::KeyMismatch => Err(SubmitError::IdempotencyMismatch),
        Inserted::QueueFull(most) => Err(SubmitError::QueueFull(most)),
    }
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
    if let Some(tags) = &new.worker_tags {
        spec.worker_tags.clone_from(tags);
    }
    // Also what an environment was allowed under a higher ceiling.
    let settings = &core.settings;
    spec.timeouts = new.timeouts.or(spec.timeouts).settle(settings.timeouts, settings.ceilings);
    spec.retry = new.retry.clone().or(spec.retry);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_the_first_line_and_short() {
        assert_eq!(headline("\n  Fix the build\nplease"), "Fix the build");
        assert_eq!(headline(&"é".repeat(100)).chars().count(), UNTITLED_CHARS + 1);
    }
}
