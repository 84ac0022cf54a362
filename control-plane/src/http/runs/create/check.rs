//! From a body to a run: every bound and every form, each refusal naming its field. What this version cannot do
//! and whose silent loss would hurt is refused; what is harmless to lose is named in `x-ozma-ignored`.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use protocol::{
    api::{
        config::{AgentConfig, McpServerBody, RunHarness},
        runs::{CreateRun, MAX_PROMPT_BYTES},
    },
    ids::{EnvironmentId, RunId, WorkerId},
    spec::ProviderKind,
};
use serde_json::Value;

use crate::{
    entry::digest,
    environments::Servers,
    http::{
        error::ApiError,
        forms::{self, MAX_LABEL_BYTES},
        mcp::{self, Hidden},
    },
    runs::{Idempotency, NewRun, Run},
    timeouts::{Ceilings, TimeoutWishes},
};

// Bounds of metadata are Oz's own (oz-api.md 1.3).
const MAX_METADATA: usize = 20;
const MAX_METADATA_KEY_BYTES: usize = 64;
const MAX_METADATA_VALUE_BYTES: usize = 256;

const MAX_BASE_PROMPT_BYTES: usize = 64 << 10;
const MAX_KEY_BYTES: usize = 255;
const MAX_PRIORITY: i32 = 100;

const PROVIDERS: [ProviderKind; 6] = [
    ProviderKind::Agent,
    ProviderKind::Command,
    ProviderKind::Claude,
    ProviderKind::Codex,
    ProviderKind::Opencode,
    ProviderKind::Gemini,
];

/// The run a body asks for; `last` is the last one of the conversation it goes on with, which holds for what is left
/// open.
pub(in crate::http) fn run(
    body: CreateRun,
    headers: &HeaderMap,
    ceilings: Ceilings,
    last: Option<&Run>,
) -> Result<NewRun, ApiError> {
    refuse_unsupported(&body)?;
    let idempotency = idempotency(&body, headers)?;
    let mut config = body.config.unwrap_or_default();
    let mcp = mcp_servers(&mut config)?;
    // Only what is asked for now: what is inherited was allowed once, and is bounded by today's ceilings later on.
    forms::timeouts("config.", wishes(&config), ceilings)?;
    if let Some(last) = last {
        config = inherit(config, last)?;
    }
    let idle_secs = forms::idle("config.idle_timeout_minutes", config.idle_timeout_minutes)?;
    // What it keeps is shown back as it came, without what it does not know and what is secret.
    let kept = serde_json::to_string(&config).expect("a configuration is plain data");
    let prompt = body.prompt.unwrap_or_default();
    forms::filled("prompt", &prompt, MAX_PROMPT_BYTES)?;
    let timeouts = wishes(&config);
    let priority = priority(config.priority.unwrap_or_default())?;
    let retry = forms::retry("config.retry", config.retry)?;
    let tags = config.worker_tags.map(|tags| forms::tags("config.worker_tags", tags));
    let AgentConfig { name, model_id, base_prompt, environment_id, worker_host, harness, .. } =
        config;
    let harness = harness.unwrap_or_default();
    let provider = provider(&harness)?;
    let model = harness.model_id.filter(|model| !model.is_empty()).or(model_id);
    Ok(NewRun {
        title: body.title.filter(|text| !text.trim().is_empty()).map(title).transpose()?,
        prompt,
        config: kept,
        name: name
            .filter(|name| !name.trim().is_empty())
            .map(|name| forms::label("config.name", &name))
            .transpose()?,
        environment_id: environment_id.filter(|id| !id.is_empty()).map(environment).transpose()?,
        provider,
        model_id: forms::optional("config.model_id", model, MAX_LABEL_BYTES)?,
        base_prompt: forms::optional("config.base_prompt", base_prompt, MAX_BASE_PROMPT_BYTES)?,
        worker_host: worker_host.map(worker).transpose()?.flatten(),
        worker_tags: tags.transpose()?,
        priority,
        timeouts,
        retry,
        metadata: metadata(body.metadata.unwrap_or_default())?,
        parent_run_id: body
            .parent_run_id
            .filter(|id| !id.is_empty())
            .map(|id| id.parse())
            .transpose()
            .map_err(|_| {
                ApiError::invalid("parent_run_id", "there is no such run, or it is not yours")
            })?,
        conversation_id: last.map(|last| last.conversation_id.clone()),
        // Those of a conversation stay.
        mcp: if last.is_some() { mcp } else { Some(mcp.unwrap_or_default()) },
        idle_secs,
        idempotency,
        ..NewRun::default()
    })
}

/// What was sent in its right form and changes nothing.
pub(in crate::http) fn without_effect(body: &CreateRun) -> Vec<String> {
    let config = body.config.as_ref();
    let harness = config.and_then(|config| config.harness.as_ref());
    [
        ("team", body.team.is_some()),
        ("interactive", body.interactive == Some(true)),
        ("on_behalf_of", body.on_behalf_of.is_some()),
        ("config.computer_use_enabled", config.and_then(|c| c.computer_use_enabled) == Some(true)),
        ("config.harness.reasoning_level", harness.is_some_and(|h| h.reasoning_level.is_some())),
    ]
    .into_iter()
    .filter(|(_, sent)| *sent)
    .map(|(name, _)| name.to_owned())
    .chain(config.into_iter().flat_map(unknown_of_servers))
    .collect()
}

/// What of the MCP servers is not known. One that cannot be read is refused elsewhere.
fn unknown_of_servers(config: &AgentConfig) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, body) in config.mcp_servers.iter().filter_map(Value::as_object).flatten() {
        let _ = serde_ignored::deserialize::<_, _, McpServerBody>(body, |path| {
            unknown.push(format!("config.mcp_servers.{name}.{path}"));
        });
    }
    unknown
}

fn refuse_unsupported(body: &CreateRun) -> Result<(), ApiError> {
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let config = body.config.clone().unwrap_or_default();
    for (field, sent) in [
        ("skill", filled(&body.skill)),
        ("agent_identity_uid", filled(&body.agent_identity_uid)),
        ("attachments", has(body.attachments.as_ref())),
        ("images", has(body.images.as_ref())),
        // Planning is asked for by those who want nothing changed.
        ("mode", body.mode.as_ref().is_some_and(|mode| !matches!(mode.as_str(), "" | "normal"))),
        ("config.skill_spec", filled(&config.skill_spec)),
        ("config.skills", config.skills.is_some_and(|skills| !skills.is_empty())),
        ("config.harness_auth_secrets", has(config.harness_auth_secrets.as_ref())),
        ("config.inference_providers", has(config.inference_providers.as_ref())),
        ("config.memory_stores", has(config.memory_stores.as_ref())),
    ] {
        if sent {
            return Err(ApiError::unsupported(field, "is not supported in this version"));
        }
    }
    Ok(())
}

/// The conversation a body goes on with.
pub(in crate::http) fn conversation(body: &CreateRun) -> Result<Option<RunId>, ApiError> {
    let Some(id) = body.conversation_id.as_deref().filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    // A text that is no id is nobody's, and answers as an unknown one.
    let unknown = ApiError::Unknown { field: "conversation_id", what: "conversation" };
    id.parse().map(Some).map_err(|_| unknown)
}

/// The prompt of a follow-up, which is refused by the name it has there.
pub(in crate::http) fn message(message: Option<String>) -> Result<String, ApiError> {
    let message = message.unwrap_or_default();
    forms::filled("message", &message, MAX_PROMPT_BYTES)?;
    Ok(message)
}

fn wishes(config: &AgentConfig) -> TimeoutWishes {
    TimeoutWishes {
        queue_secs: config.queue_timeout_secs,
        image_secs: config.image_timeout_secs,
        setup_secs: config.setup_timeout_secs,
        run_secs: config.timeout_secs,
    }
}

/// Takes the MCP servers out, and leaves what of them may be shown.
fn mcp_servers(config: &mut AgentConfig) -> Result<Option<Servers>, ApiError> {
    const FIELD: &str = "config.mcp_servers";
    let Some(given) = config.mcp_servers.take().filter(|given| !given.is_null()) else {
        return Ok(None);
    };
    let Value::Object(given) = given else {
        return Err(ApiError::invalid(FIELD, "must be an object of servers by name"));
    };
    let mut bodies = BTreeMap::new();
    for (name, body) in given {
        // The error of serde may show what it read, a secret among it.
        let body: McpServerBody = serde_json::from_value(body).map_err(|_| {
            let rule =
                "must be an object with command, args and env, or with url and headers, all texts";
            ApiError::invalid(FIELD, format!("a server {rule}"))
        })?;
        bodies.insert(name, body);
    }
    let servers = mcp::servers(FIELD, bodies, Hidden::Refused)?;
    let shown = serde_json::to_value(mcp::shown(&servers));
    config.mcp_servers = Some(shown.expect("servers are plain data"));
    Ok(Some(servers))
}

/// A configuration with what it leaves open taken from the last run of its conversation.
fn inherit(config: AgentConfig, last: &Run) -> Result<AgentConfig, ApiError> {
    let last: AgentConfig = serde_json::from_str(&last.config).map_err(|error| {
        ApiError::Internal(anyhow::Error::new(error).context("read a run's config"))
    })?;
    let given = |text: &String| !text.is_empty();
    let (now, was) = (config.harness.unwrap_or_default(), last.harness.unwrap_or_default());
    // The last run's would win over one that is asked for now beside it.
    let model = was.model_id.filter(|_| !config.model_id.as_ref().is_some_and(given));
    let harness = RunHarness {
        kind: now.kind.filter(given).or(was.kind),
        model_id: now.model_id.filter(given).or(model),
        reasoning_level: now.reasoning_level.filter(given).or(was.reasoning_level),
    };
    Ok(AgentConfig {
        name: config.name.or(last.name),
        model_id: config.model_id.or(last.model_id),
        base_prompt: config.base_prompt.or(last.base_prompt),
        environment_id: config.environment_id.or(last.environment_id),
        harness: (harness != RunHarness::default()).then_some(harness),
        worker_tags: config.worker_tags.or(last.worker_tags),
        priority: config.priority.or(last.priority),
        timeout_secs: config.timeout_secs.or(last.timeout_secs),
        setup_timeout_secs: config.setup_timeout_secs.or(last.setup_timeout_secs),
        image_timeout_secs: config.image_timeout_secs.or(last.image_timeout_secs),
        queue_timeout_secs: config.queue_timeout_secs.or(last.queue_timeout_secs),
        retry: config.retry.or(last.retry),
        idle_timeout_minutes: config.idle_timeout_minutes.or(last.idle_timeout_minutes),
        mcp_servers: config.mcp_servers.or(last.mcp_servers),
        ..config
    })
}

/// Whether a value asks for anything.
fn has(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(_) => true,
    }
}

fn provider(harness: &RunHarness) -> Result<Option<ProviderKind>, ApiError> {
    let name = match harness.kind.as_deref() {
        None | Some("" | "oz") => return Ok(None),
        Some(name) => name,
    };
    let found = PROVIDERS.into_iter().find(|provider| provider.as_str() == name);
    let provider = found.ok_or_else(|| {
        let known = PROVIDERS.map(ProviderKind::as_str).join(", ");
        ApiError::invalid("config.harness.type", format!("must be oz or one of {known}"))
    })?;
    Ok(Some(provider))
}

fn priority(priority: i32) -> Result<i32, ApiError> {
    if (-MAX_PRIORITY..=MAX_PRIORITY).contains(&priority) {
        return Ok(priority);
    }
    let rule = format!("must be -{MAX_PRIORITY} to {MAX_PRIORITY}");
    Err(ApiError::invalid("config.priority", rule))
}

fn title(text: String) -> Result<String, ApiError> {
    forms::text("title", &text, 4 * MAX_LABEL_BYTES)?;
    Ok(text)
}

fn environment(id: String) -> Result<EnvironmentId, ApiError> {
    // A text that is no id is nobody's, and answers as an unknown one.
    let unknown = ApiError::Unknown { field: "config.environment_id", what: "environment" };
    id.try_into().map_err(|_| unknown)
}

/// `warp` is what clients of the hosted service say for "any".
fn worker(host: String) -> Result<Option<String>, ApiError> {
    if matches!(host.as_str(), "" | "warp") {
        return Ok(None);
    }
    let id = WorkerId::try_from(host)
        .map_err(|error| ApiError::invalid("config.worker_host", error.to_string()))?;
    Ok(Some(id.into()))
}

fn metadata(metadata: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ApiError> {
    if metadata.len() > MAX_METADATA {
        return Err(ApiError::invalid("metadata", format!("at most {MAX_METADATA} keys")));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    for (key, value) in &metadata {
        if key.is_empty() || key.len() > MAX_METADATA_KEY_BYTES || !key.bytes().all(plain) {
            let rule = format!(
                "keys are 1 to {MAX_METADATA_KEY_BYTES} of A-Z, a-z, 0-9, '.', '_' and '-'"
            );
            return Err(ApiError::invalid("metadata", rule));
        }
        forms::text(&format!("metadata.{key}"), value, MAX_METADATA_VALUE_BYTES)?;
    }
    Ok(metadata)
}

/// The key, with a hash of what it was used for.
fn idempotency(body: &CreateRun, headers: &HeaderMap) -> Result<Option<Idempotency>, ApiError> {
    let Some(header) = headers.get("idempotency-key") else { return Ok(None) };
    let key = header.to_str().ok().filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
    let Some(key) = key else {
        let rule = format!("must be 1 to {MAX_KEY_BYTES} visible ASCII characters");
        return Err(ApiError::invalid("Idempotency-Key", rule));
    };
    // Written anew, so that the order of fields does not matter.
    let request = serde_json::to_string(body).expect("a body is plain data");
    Ok(Some(Idempotency { key: key.to_owned(), request_hash: hex::encode(digest(&request)) }))
}
