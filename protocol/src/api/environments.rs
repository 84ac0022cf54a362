//! Environments: what a run starts from. The community plane's shapes (oz-api.md 1.14) with fields of our own,
//! and the SDKs' read-only view (1.7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    config::McpServerBody,
    texts::{Lines, Repos},
    time::Timestamp,
};

use crate::{
    ids::EnvironmentId,
    retry::RetryPolicy,
    secret::Secret,
    spec::{Network, ProviderKind},
};

/// What stands for a value that the caller may not see. It is refused as a value.
pub const REDACTED: &str = "<redacted>";

/// The body of `POST /environments` and of `PUT /environments/{id}`, which replaces everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema),
    schema(example = json!({
        "name": "shop",
        "docker_image": "debian:bookworm-slim",
        "repos": ["https://github.com/acme/shop.git"],
        "setup_commands": ["make deps"],
        "env_vars": {"OPENAI_API_KEY": "…"}
    }))
)]
pub struct EnvironmentBody {
    /// 1 to 200 bytes.
    pub name: String,
    pub docker_image: String,
    #[serde(default)]
    pub repos: Repos,
    #[serde(default)]
    pub setup_commands: Lines,
    /// Names of `[A-Za-z_][A-Za-z0-9_]*`; stored encrypted, shown to the owner and the admin only.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub env_vars: BTreeMap<String, Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_shape: Option<InstanceShape>,
    /// Seconds from the sidecar's start to the run's end, set-up included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u64>,
    /// Seconds for cloning and set-up commands together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_timeout_secs: Option<u64>,
    /// Seconds for having the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_timeout_secs: Option<u64>,
    /// Seconds a run may wait for a slot, each time it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_secs: Option<u64>,
    /// When its runs are tried again; the plane's policy for what is left open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Only workers with all of these tags take its runs: at most 16, each 1 to 64 of `[A-Za-z0-9._-]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worker_tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<EnvironmentHarness>,
    #[serde(default)]
    pub network: Network,
    /// Paths below the workspace, `*` and `**` allowed, kept as `FILE` artifacts when a run ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// Whether workers keep what its runs leave for a while, so that a conversation can go on. Without it they do;
    /// where the plane says no (`OZ_KEEP_SESSIONS`), they never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_sessions: Option<bool>,
    /// For everyone; by an admin only, and without `env_vars`. A tenant's wish is ignored, as the community plane does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<bool>,
    /// The same wish in another form: `GLOBAL` or `OWNER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<EnvironmentScope>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EnvironmentScope {
    /// Its owner's alone.
    Owner,
    /// Everyone sees and uses it.
    Global,
}

/// What the container may use; the worker's default for what is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceShape {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_gb: Option<f64>,
}

/// Who answers the prompt, and within which bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnvironmentHarness {
    /// Without it the plane's (`OZ_DEFAULT_HARNESS`).
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProviderKind>,
    /// The shell command line, for `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Put before the provider's own system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// What the provider calls a model that runs ask for by another name; others keep theirs. At most 100, each of
    /// at most 200 bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub model_map: BTreeMap<String, String>,
    /// Minutes without a word after which the provider is stopped: 1 to 1440, 30 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_minutes: Option<u32>,
    /// Servers of further tools, by a name of 1 to 64 of `[A-Za-z0-9_-]`. A value that is sent back as `<redacted>`
    /// stays what it was, as long as `command` and `args`, or `url`, are what they were; else it is 422.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp_servers: BTreeMap<String, McpServerBody>,
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnvironmentView {
    pub environment_id: EnvironmentId,
    /// Equal to `environment_id`.
    pub id: EnvironmentId,
    pub name: String,
    pub docker_image: String,
    pub repos: Repos,
    pub setup_commands: Lines,
    /// Values for the owner and the admin, `<redacted>` for others.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub env_vars: BTreeMap<String, Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_shape: Option<InstanceShape>,
    /// The plane's default holds for a bound that is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_timeout_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_timeout_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worker_tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<EnvironmentHarness>,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub artifacts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_sessions: Option<bool>,
    pub scope: EnvironmentScope,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Newest update first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnvironmentList {
    pub items: Vec<EnvironmentView>,
}

/// The SDKs' list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CloudEnvironmentList {
    pub environments: Vec<CloudEnvironment>,
}

/// The SDKs' view of an environment; it never holds values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CloudEnvironment {
    pub uid: EnvironmentId,
    pub config: CloudEnvironmentConfig,
    pub last_updated: Timestamp,
    pub setup_failed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CloudEnvironmentConfig {
    pub name: String,
    pub docker_image: String,
    pub github_repos: Vec<GithubRepo>,
    pub setup_commands: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GithubRepo {
    pub owner: String,
    pub repo: String,
}
