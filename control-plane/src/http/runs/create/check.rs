//! From a body to a run: every bound and every form, each refusal naming its field. What this version cannot do
//! and whose silent loss would hurt is refused; what is harmless to lose is named in `x-ozma-ignored`.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use protocol::{
    api::{
        config::{AgentConfig, RunHarness},
        runs::{CreateRun, MAX_PROMPT_BYTES},
    },
    ids::{EnvironmentId, WorkerId},
    spec::ProviderKind,
};
use serde_json::Value;

use crate::{
    entry::digest,
    environments::{Ceilings, TimeoutWishes},
    http::{
        error::ApiError,
        forms::{self, MAX_LABEL_BYTES},
    },
    runs::{Idempotency, NewRun},
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

pub(super) fn run(
    body: CreateRun,
    headers: &HeaderMap,
    ceilings: Ceilings,
) -> Result<NewRun, ApiError> {
    refuse_unsupported(&body)?;
    let idempotency = idempotency(&body, headers)?;
    let config = body.config.unwrap_or_default();
    // What it keeps is shown back as it came, without what it does not know.
    let kept = serde_json::to_string(&config).expect("a configuration is plain data");
    let prompt = body.prompt.unwrap_or_default();
    forms::filled("prompt", &prompt, MAX_PROMPT_BYTES)?;
    let wishes = TimeoutWishes {
        queue_secs: config.queue_timeout_secs,
        image_secs: config.image_timeout_secs,
        setup_secs: config.setup_timeout_secs,
        run_secs: config.timeout_secs,
    };
    let timeouts = forms::timeouts("config.", wishes, ceilings)?;
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
        idempotency,
        ..NewRun::default()
    })
}

/// What was sent in its right form and changes nothing.
pub(super) fn without_effect(body: &CreateRun) -> Vec<String> {
    let config = body.config.as_ref();
    let harness = config.and_then(|config| config.harness.as_ref());
    [
        ("team", body.team.is_some()),
        ("interactive", body.interactive == Some(true)),
        ("on_behalf_of", body.on_behalf_of.is_some()),
        ("config.computer_use_enabled", config.and_then(|c| c.computer_use_enabled) == Some(true)),
        ("config.idle_timeout_minutes", config.is_some_and(|c| c.idle_timeout_minutes.is_some())),
        ("config.harness.reasoning_level", harness.is_some_and(|h| h.reasoning_level.is_some())),
    ]
    .into_iter()
    .filter(|(_, sent)| *sent)
    .map(|(name, _)| name.to_owned())
    .collect()
}

fn refuse_unsupported(body: &CreateRun) -> Result<(), ApiError> {
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let config = body.config.clone().unwrap_or_default();
    for (field, sent) in [
        ("skill", filled(&body.skill)),
        ("conversation_id", filled(&body.conversation_id)),
        ("agent_identity_uid", filled(&body.agent_identity_uid)),
        ("attachments", has(body.attachments.as_ref())),
        ("images", has(body.images.as_ref())),
        // Planning is asked for by those who want nothing changed.
        ("mode", body.mode.as_ref().is_some_and(|mode| !matches!(mode.as_str(), "" | "normal"))),
        ("config.mcp_servers", has(config.mcp_servers.as_ref())),
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
    forms::provider("config.harness.type", provider)?;
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
