//! From an environment to what a caller may see of it.

use protocol::{
    api::{
        environments::{
            CloudEnvironment, CloudEnvironmentConfig, EnvironmentHarness, EnvironmentScope,
            EnvironmentView, GithubRepo, InstanceShape, REDACTED,
        },
        texts::{Lines, Repos},
        time::Timestamp,
    },
    retry::RetryPolicy,
    secret::Secret,
    spec::{Repo, Shape},
};

use super::repos::is_github;
use crate::{environments::Environment, http::mcp, scope::Scope};

/// All of it; values only for the owner and the admin (oz-api.md 1.14).
pub(super) fn full(one: Environment, caller: &Scope) -> EnvironmentView {
    let shown = caller.is_admin() || *caller.owner() == one.owner;
    let harness = harness(&one);
    let env_vars = one.env.into_iter();
    let spec = one.spec;
    EnvironmentView {
        environment_id: one.id.clone(),
        id: one.id,
        name: one.name,
        docker_image: spec.docker_image,
        repos: Repos(spec.repos),
        setup_commands: Lines(spec.setup_commands),
        env_vars: env_vars
            .map(|(key, value)| (key, if shown { value } else { Secret::new(REDACTED) }))
            .collect(),
        instance_shape: shape(&spec.shape),
        timeout_secs: spec.timeouts.run_secs,
        setup_timeout_secs: spec.timeouts.setup_secs,
        image_timeout_secs: spec.timeouts.image_secs,
        queue_timeout_secs: spec.timeouts.queue_secs,
        retry: (spec.retry != RetryPolicy::default()).then_some(spec.retry),
        worker_tags: spec.worker_tags,
        harness: Some(harness),
        network: spec.network,
        artifacts: spec.artifacts,
        keep_sessions: spec.keep_sessions,
        scope: if one.global { EnvironmentScope::Global } else { EnvironmentScope::Owner },
        created_at: Timestamp(one.created_at),
        updated_at: Timestamp(one.updated_at),
    }
}

/// The SDKs' view, which holds no values.
pub(super) fn cloud(one: Environment) -> CloudEnvironment {
    CloudEnvironment {
        uid: one.id,
        config: CloudEnvironmentConfig {
            name: one.name,
            docker_image: one.spec.docker_image,
            github_repos: one.spec.repos.iter().filter_map(github).collect(),
            setup_commands: one.spec.setup_commands,
        },
        last_updated: Timestamp(one.updated_at),
        setup_failed: false,
    }
}

fn github(repo: &Repo) -> Option<GithubRepo> {
    let url = repo.url.strip_suffix(".git").unwrap_or(&repo.url);
    let name = url
        .strip_prefix("https://github.com/")
        .or_else(|| url.strip_prefix("git@github.com:"))
        .unwrap_or(url);
    if !is_github(name) {
        return None;
    }
    let (owner, repo) = name.split_once('/')?;
    Some(GithubRepo { owner: owner.to_owned(), repo: repo.to_owned() })
}

fn shape(shape: &Shape) -> Option<InstanceShape> {
    const GB: f64 = 1_073_741_824.0;
    if shape.cpu_millis.is_none() && shape.memory_bytes.is_none() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "bytes below 2^53 are exact")]
    let memory_gb = shape.memory_bytes.map(|bytes| bytes as f64 / GB);
    Some(InstanceShape { vcpus: shape.cpu_millis.map(|n| f64::from(n) / 1_000.0), memory_gb })
}

fn harness(one: &Environment) -> EnvironmentHarness {
    let spec = one.spec.harness.clone();
    EnvironmentHarness {
        kind: (!one.spec.open_harness).then_some(spec.provider),
        command: spec.command,
        model_id: spec.model,
        base_prompt: spec.base_prompt,
        max_turns: Some(spec.bounds.max_turns),
        max_tokens: Some(spec.bounds.max_tokens),
        model_map: spec.model_map,
        idle_timeout_minutes: spec.idle_secs.and_then(|secs| u32::try_from(secs / 60).ok()),
        mcp_servers: mcp::shown(&one.mcp),
    }
}
