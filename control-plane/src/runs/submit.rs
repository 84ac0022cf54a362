//! Submitting a run: its environment is copied into it, so that later changes do not reach it.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    ids::WorkerId,
    ids::{EnvironmentId, RunId},
    retry::RetryPolicy,
    run::RunState,
    spec::{HarnessSpec, ProviderKind, SessionSpec, Shape},
};
use serde::{Deserialize, Serialize};

use crate::{
    core::Core,
    environments::{EnvironmentSpec, Servers, open_sealed},
    placement::Placement,
    runs::conversations::{self, GoingOn},
    scope::Scope,
    store::{Idempotency, InsertRun, Inserted, StoreError, json, millis},
    timeouts::TimeoutWishes,
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
    /// The conversation it goes on with, by its own id or that of any of its runs.
    pub conversation_id: Option<RunId>,
    /// Beside the environment's, and before them. `None`: as in the conversation's last run.
    pub mcp: Option<Servers>,
    /// The environment's without it.
    pub idle_secs: Option<u64>,
    /// `API` without one.
    pub source: Option<String>,
    pub idempotency: Option<Idempotency>,
}

/// A run that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    pub run_id: RunId,
    pub state: RunState,
    /// Its own id for a run that begins one.
    pub conversation_id: RunId,
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
    #[error("no such conversation")]
    UnknownConversation,
    /// An administrator sees it, and it is another's workspace.
    #[error("a conversation goes on by its owner's word only")]
    ForeignConversation,
    #[error("run {0} of this conversation is not over; wait for it, or cancel it")]
    ConversationBusy(RunId),
    #[error("this conversation is with {was}; begin a new run to ask {asked}")]
    OtherProvider { was: &'static str, asked: &'static str },
    #[error("nothing was kept of this conversation ({0}); begin a new run")]
    NothingKept(&'static str),
    #[error("worker {0} keeps this conversation, and no other can go on with it")]
    OtherWorker(WorkerId),
    /// It may come back.
    #[error(
        "worker {0} keeps this conversation and is not connected; start it, and ask again, or begin a new run"
    )]
    WorkerAway(WorkerId),
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
    /// What its worker keeps, or has kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<SessionSpec>,
}

/// The MCP servers of a run, sealed for its id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RunServers {
    /// Its environment's at the time.
    pub(crate) environment: Servers,
    pub(crate) run: Servers,
}

impl RunServers {
    /// All of them; of two with one name the run's.
    pub(crate) fn merged(self) -> Servers {
        let mut all = self.environment;
        all.extend(self.run);
        all
    }
}

/// Stores a run and wakes dispatch.
pub async fn submit(core: &Core, scope: &Scope, new: NewRun) -> Result<Submitted, SubmitError> {
    check_texts(&new)?;
    // First of all: what the first request named may be gone by now.
    if let Some(asked) = &new.idempotency
        && let Some(earlier) = core.store.earlier(scope.owner(), asked).await?
    {
        let conversation = match &earlier {
            Inserted::Run { id, .. } => Some(core.store.run(scope, id).await?.conversation_id),
            _ => None,
        };
        return submitted(core, earlier, conversation);
    }
    let id = RunId::from_uuid(uuid::Uuid::now_v7());
    let going_on = match &new.conversation_id {
        Some(conversation) => {
            let going_on = conversations::go_on(core, scope, conversation).await?;
            going_on.check(core, &new).await?;
            Some(going_on)
        }
        None => None,
    };
    let Copied { mut spec, env_sealed, environment } =
        snapshot(core, scope, &new, going_on.as_ref()).await?;
    let session = session(core, &mut spec, &id, going_on.as_ref());
    let kept_run = going_on.as_ref().map(|one| one.servers.clone()).unwrap_or_default();
    let servers = RunServers { environment, run: new.mcp.unwrap_or(kept_run) };
    let mcp_sealed = (!servers.environment.is_empty() || !servers.run.is_empty())
        .then(|| core.sealer.seal(id.as_str(), json(&servers).as_bytes()));
    let worker_host = match &going_on {
        // Nothing binds it to a worker but the word of its author.
        Some(one) if one.kept.is_none() => new.worker_host.or(one.last.worker_host.clone()),
        _ => new.worker_host,
    };
    let placement = match going_on.as_ref().and_then(|one| one.kept.as_ref()) {
        // It ran there before, whatever the tags say now.
        Some(kept) => {
            Placement { worker_host: Some(kept.worker_id.to_string()), ..Placement::default() }
        }
        None => Placement {
            worker_host: worker_host.clone(),
            worker_tags: spec.worker_tags.iter().cloned().collect(),
        },
    };
    if let Some(parent) = &new.parent_run_id {
        check_depth(core, scope, parent).await?;
    }
    let now = core.now();
    let title = new.title.or_else(|| new.name.clone()).unwrap_or_else(|| headline(&new.prompt));
    // It stands in lists and on terminals, of administrators too.
    let title = title.replace(char::is_control, " ");
    let insert = InsertRun {
        id,
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
        placement,
        worker_host,
        priority: new.priority,
        queue_ms: spec.timeouts.queue_secs.map(|secs| millis(Duration::from_secs(secs))),
        retry: spec.retry.clone(),
        parent_run_id: new.parent_run_id,
        snapshot: json(&Snapshot { spec, session }),
        env_sealed,
        mcp_sealed,
        conversation_id: going_on.map(|one| one.id),
        idempotency: new.idempotency,
        max_queued: core.settings.max_queued,
        seen_since: now - millis(core.settings.stock_lease),
        now,
    };
    let conversation = insert.conversation_id.clone();
    submitted(core, core.store.insert_run(&insert).await?, conversation)
}

/// The answer, and who has to know.
fn submitted(
    core: &Core,
    inserted: Inserted,
    conversation: Option<RunId>,
) -> Result<Submitted, SubmitError> {
    match inserted {
        Inserted::Run { id, at_capacity, repeated } => {
            if !repeated {
                core.counters.runs_submitted.add(1);
                core.wake.queue();
            }
            let conversation_id = conversation.unwrap_or_else(|| id.clone());
            let state = RunState::Queued;
            Ok(Submitted { run_id: id, state, conversation_id, at_capacity, repeated })
        }
        Inserted::KeyMismatch => Err(SubmitError::IdempotencyMismatch),
        Inserted::QueueFull(most) => Err(SubmitError::QueueFull(most)),
        Inserted::Busy(open) => Err(SubmitError::ConversationBusy(open)),
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

/// What a run takes of its environment.
struct Copied {
    spec: EnvironmentSpec,
    env_sealed: Option<Vec<u8>>,
    environment: Servers,
}

async fn snapshot(
    core: &Core,
    scope: &Scope,
    new: &NewRun,
    going_on: Option<&GoingOn>,
) -> Result<Copied, SubmitError> {
    let (mut spec, env_sealed, environment) = if let Some(id) = &new.environment_id {
        let row = core.store.environment(scope, id).await.map_err(|error| match error {
            StoreError::NotFound => SubmitError::UnknownEnvironment,
            other => SubmitError::Store(other),
        })?;
        let spec: EnvironmentSpec =
            crate::store::from_json(&row.spec, "environment specification")?;
        let mcp = open_sealed(&core.sealer, id.as_str(), row.mcp_sealed.as_deref())?;
        (spec, row.env_sealed, mcp)
    } else {
        let spec = EnvironmentSpec { open_harness: true, ..EnvironmentSpec::default() };
        (spec, None, Servers::new())
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
    let HarnessSpec { provider, model, model_map, base_prompt, idle_secs, .. } = &mut spec.harness;
    if std::mem::take(&mut spec.open_harness) {
        *provider = settings.default_harness;
    }
    *provider = match going_on {
        // A conversation is with whom it was begun, and so are the models, should the environment have changed.
        Some(GoingOn { harness, .. }) => {
            if harness.provider != *provider {
                model.clone_from(&harness.model);
                model_map.clone_from(&harness.model_map);
            }
            harness.provider
        }
        None => new.provider.unwrap_or(*provider),
    };
    *idle_secs = new.idle_secs.or(*idle_secs);
    *model = new.model_id.clone().or(model.take());
    *base_prompt = new.base_prompt.clone().or(base_prompt.take());
    Ok(Copied { spec, env_sealed, environment })
}

/// What its worker is to keep of a run, and to have kept.
fn session(
    core: &Core,
    spec: &mut EnvironmentSpec,
    id: &RunId,
    going_on: Option<&GoingOn>,
) -> Option<SessionSpec> {
    let kept = going_on.and_then(|one| one.kept.as_ref());
    spec.harness.resume = kept.and_then(|kept| kept.session_id.clone());
    let keep = core.settings.keep_sessions && spec.keep_sessions.unwrap_or(true);
    let keep = keep && spec.harness.provider != ProviderKind::Command;
    let conversation_id = going_on.map_or(id, |one| &one.id).clone();
    (keep || kept.is_some()).then(|| SessionSpec { conversation_id, resume: kept.is_some() })
}

/// The parent must be the caller's to see, and not too far below others.
async fn check_depth(core: &Core, scope: &Scope, parent: &RunId) -> Result<(), SubmitError> {
    let mut next = Some(parent.clone());
    for depth in 0..MAX_DEPTH {
        let Some(id) = next else { return Ok(()) };
        next = match core.store.run(scope, &id).await {
            Ok(run) => run.parent_run_id,
            Err(StoreError::NotFound) if depth == 0 => return Err(SubmitError::UnknownParent),
            // Retention took it: what is left of the chain begins below it.
            Err(StoreError::NotFound) => None,
            Err(other) => return Err(SubmitError::Store(other)),
        };
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
