//! `AmbientAgentConfig`: how one run differs from its environment (oz-api.md 1.3). Unknown fields are tolerated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{retry::RetryPolicy, secret::Secret};

/// What a run asks for. Every field may be absent; the environment's or the plane's default holds then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentConfig {
    /// A label to filter by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The model asked for; the endpoint's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Put before the provider's own system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_id: Option<String>,
    /// Must equal a worker's id exactly; any worker without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<RunHarness>,
    /// Ours: only a worker with all of these tags takes it, in place of the environment's; at most 16, each 1 to
    /// 64 of `[A-Za-z0-9._-]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_tags: Option<Vec<String>>,
    /// Ours: -100 to 100, 0 without it. Among its tenant's waiting runs the higher one goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = -100, maximum = 100))]
    pub priority: Option<i32>,
    /// Ours: seconds from the sidecar's start to the run's end, set-up included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u64>,
    /// Ours: seconds for cloning and set-up commands together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_timeout_secs: Option<u64>,
    /// Ours: seconds for having the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_timeout_secs: Option<u64>,
    /// Ours: seconds it may wait for a slot, each time it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_secs: Option<u64>,
    /// Ours: when it is tried again; the environment's policy for what is left open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Accepted, without effect in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computer_use_enabled: Option<bool>,
    /// Minutes without a word after which the provider is stopped: 1 to 1440; the environment's without it, else 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_minutes: Option<u32>,
    /// Servers of further tools by name, beside the environment's; one of the same name wins over it. Names are 1
    /// to 64 of `[A-Za-z0-9_-]`. Values of `env` and `headers` are stored encrypted and shown as `<redacted>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, McpServerBody>>))]
    pub mcp_servers: Option<Value>,
    /// Not supported in this version: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill_spec: Option<String>,
    /// Not supported in this version: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<String>>,
    /// Not supported in this version: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub harness_auth_secrets: Option<Value>,
    /// Not supported in this version: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub inference_providers: Option<Value>,
    /// Not supported in this version: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<Object>>))]
    pub memory_stores: Option<Value>,
}

/// Which provider a run asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunHarness {
    /// `claude`, `codex`, `opencode`, `gemini`, `agent` or `command`; `oz` or absent: the environment's, else the
    /// plane's (`OZ_DEFAULT_HARNESS`).
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Wins over `config.model_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Accepted, without effect in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_level: Option<String>,
}

/// A server that speaks the Model Context Protocol, as run configurations and environments write it: exactly one of
/// `command` and `url`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct McpServerBody {
    /// A program started in the container, spoken to over its standard streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Stored encrypted; shown as `<redacted>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub env: BTreeMap<String, Secret>,
    /// Streamable HTTP at this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Stored encrypted; shown as `<redacted>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub headers: BTreeMap<String, Secret>,
    /// `stdio` or `http`, as other programs write it; it follows from the rest.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Not supported: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Not supported: answered with 422 when true; a server that is not to run is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Not supported: answered with 422 unless absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warp_id: Option<String>,
}
