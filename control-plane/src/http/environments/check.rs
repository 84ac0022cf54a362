//! From a body to an environment: every bound and every form, each refusal naming its field.

use std::collections::BTreeMap;

use protocol::{
    api::environments::{
        EnvironmentBody, EnvironmentHarness, EnvironmentScope, InstanceShape, REDACTED,
    },
    secret::Secret,
    spec::{AgentBounds, HarnessSpec, ProviderKind, Shape},
};

use super::repos;
use crate::{
    environments::{EnvironmentSpec, NewEnvironment},
    http::{
        error::ApiError,
        forms,
        mcp::{self, Hidden},
    },
    timeouts::{Ceilings, TimeoutWishes},
};

// Together these stay far below a frame of the link, which carries all of them and a prompt.
const MAX_COMMANDS: usize = 100;
const MAX_COMMANDS_BYTES: usize = 512 << 10;
const MAX_VALUES: usize = 200;
const MAX_KEY_BYTES: usize = 128;
const MAX_VALUES_BYTES: usize = 1 << 20;
const MAX_ARTIFACTS: usize = 100;
const MAX_PATH_BYTES: usize = 1_024;
const MAX_COMMAND_BYTES: usize = 64 << 10;

const MAX_MODELS: usize = 100;

const MAX_VCPUS: f64 = 256.0;
const MAX_MEMORY_GB: f64 = 4_096.0;
const GB: f64 = 1_073_741_824.0;

pub(in crate::http) fn environment(
    body: EnvironmentBody,
    ceilings: Ceilings,
) -> Result<NewEnvironment, ApiError> {
    let wishes = TimeoutWishes {
        queue_secs: body.queue_timeout_secs,
        image_secs: body.image_timeout_secs,
        setup_secs: body.setup_timeout_secs,
        run_secs: body.timeout_secs,
    };
    let mut body_harness = body.harness.unwrap_or_default();
    let mcp = std::mem::take(&mut body_harness.mcp_servers);
    let commands = body.setup_commands.0;
    let total: usize = commands.iter().map(String::len).sum();
    if commands.len() > MAX_COMMANDS || total > MAX_COMMANDS_BYTES {
        let rule =
            format!("at most {MAX_COMMANDS} commands of {MAX_COMMANDS_BYTES} bytes together");
        return Err(ApiError::invalid("setup_commands", rule));
    }
    for (at, command) in commands.iter().enumerate() {
        forms::text(&format!("setup_commands[{at}]"), command, MAX_COMMAND_BYTES)?;
    }
    Ok(NewEnvironment {
        name: forms::label("name", &body.name)?,
        global: body.global == Some(true) || body.scope == Some(EnvironmentScope::Global),
        env: values(body.env_vars)?,
        mcp: mcp::servers("harness.mcp_servers", mcp, Hidden::Known)?,
        spec: EnvironmentSpec {
            description: None,
            docker_image: forms::image("docker_image", &body.docker_image)?,
            repos: repos::repos(body.repos.0)?,
            setup_commands: commands,
            open_harness: body_harness.kind.is_none(),
            harness: harness(body_harness)?,
            shape: body.instance_shape.map(shape).transpose()?.unwrap_or_default(),
            network: body.network,
            timeouts: forms::timeouts("", wishes, ceilings)?,
            artifacts: artifacts(body.artifacts)?,
            retry: forms::retry("retry", body.retry)?,
            worker_tags: forms::tags("worker_tags", body.worker_tags)?,
            keep_sessions: body.keep_sessions,
        },
    })
}

fn values(values: BTreeMap<String, Secret>) -> Result<BTreeMap<String, Secret>, ApiError> {
    let total: usize = values.values().map(|value| value.expose().len()).sum();
    if values.len() > MAX_VALUES || total > MAX_VALUES_BYTES {
        let rule = format!("at most {MAX_VALUES} values of {MAX_VALUES_BYTES} bytes together");
        return Err(ApiError::invalid("env_vars", rule));
    }
    for (key, value) in &values {
        if key.len() > MAX_KEY_BYTES || !forms::is_variable(key) {
            let rule =
                format!("names are 1 to {MAX_KEY_BYTES} of A-Z, a-z, 0-9 and _, no digit first");
            let shown: String = key.chars().take(MAX_KEY_BYTES).collect();
            return Err(ApiError::invalid(format!("env_vars.{shown}"), rule));
        }
        let field = format!("env_vars.{key}");
        if value.expose().contains('\0') {
            return Err(ApiError::invalid(field, "must not contain NUL"));
        }
        if value.expose() == REDACTED {
            let rule = "is what stands for a hidden value; send the value itself";
            return Err(ApiError::invalid(field, rule));
        }
    }
    Ok(values)
}

fn harness(body: EnvironmentHarness) -> Result<HarnessSpec, ApiError> {
    match (body.kind, &body.command) {
        (Some(ProviderKind::Command), Some(command)) => {
            forms::filled("harness.command", command, MAX_COMMAND_BYTES)?;
        }
        (Some(ProviderKind::Command), None) => {
            let rule = "is required when harness.type is command";
            return Err(ApiError::invalid("harness.command", rule));
        }
        (_, Some(_)) => {
            let rule = "is for harness.type command only";
            return Err(ApiError::invalid("harness.command", rule));
        }
        (_, None) => {}
    }
    let defaults = AgentBounds::default();
    let max_turns = body.max_turns.unwrap_or(defaults.max_turns);
    let max_tokens = body.max_tokens.unwrap_or(defaults.max_tokens);
    forms::within("harness.max_turns", u64::from(max_turns), 1, 10_000)?;
    forms::within("harness.max_tokens", max_tokens, 1, 1_000_000_000)?;
    Ok(HarnessSpec {
        provider: body.kind.unwrap_or_default(),
        command: body.command,
        model: forms::optional("harness.model_id", body.model_id, forms::MAX_LABEL_BYTES)?,
        base_prompt: forms::optional("harness.base_prompt", body.base_prompt, MAX_COMMAND_BYTES)?,
        bounds: AgentBounds { max_turns, max_tokens },
        model_map: models(body.model_map)?,
        idle_secs: forms::idle("harness.idle_timeout_minutes", body.idle_timeout_minutes)?,
        ..HarnessSpec::default()
    })
}

fn models(models: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ApiError> {
    const FIELD: &str = "harness.model_map";
    if models.len() > MAX_MODELS {
        return Err(ApiError::invalid(FIELD, format!("at most {MAX_MODELS} models")));
    }
    for text in models.iter().flat_map(|(asked, named)| [asked, named]) {
        forms::filled(FIELD, text, forms::MAX_LABEL_BYTES)?;
    }
    Ok(models)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the bounds are checked on the lines above"
)]
fn shape(body: InstanceShape) -> Result<Shape, ApiError> {
    let range = |field: &str, value: Option<f64>, least: f64, most: f64| match value {
        // Written so that NaN is refused too.
        Some(value) if !(least..=most).contains(&value) => {
            Err(ApiError::invalid(field, format!("must be {least} to {most}")))
        }
        _ => Ok(()),
    };
    range("instance_shape.vcpus", body.vcpus, 0.01, MAX_VCPUS)?;
    range("instance_shape.memory_gb", body.memory_gb, 0.015_625, MAX_MEMORY_GB)?;
    Ok(Shape {
        cpu_millis: body.vcpus.map(|vcpus| (vcpus * 1_000.0).round() as u32),
        memory_bytes: body.memory_gb.map(|gb| (gb * GB).round() as u64),
        pids: None,
    })
}

fn artifacts(paths: Vec<String>) -> Result<Vec<String>, ApiError> {
    if paths.len() > MAX_ARTIFACTS {
        return Err(ApiError::invalid("artifacts", format!("at most {MAX_ARTIFACTS} paths")));
    }
    for (at, path) in paths.iter().enumerate() {
        let field = format!("artifacts[{at}]");
        forms::filled(&field, path, MAX_PATH_BYTES)?;
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(ApiError::invalid(field, "must be below the workspace: no / first, no .."));
        }
    }
    Ok(paths)
}
