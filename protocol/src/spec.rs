//! What is to be run: everything a worker and a sidecar need to know of one execution, and nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ExecutionId, RunId, TenantId},
    secret::Secret,
};

/// One execution, as the plane hands it to a worker and the worker to the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    pub run_id: RunId,
    pub execution_id: ExecutionId,
    pub tenant_id: TenantId,
    /// 1 for the first.
    pub attempt: u32,
    pub title: String,
    pub prompt: String,
    pub image: String,
    #[serde(default)]
    pub repos: Vec<Repo>,
    /// Each runs as root by `/bin/sh -c` in the working directory, in order; the first failure ends the run.
    #[serde(default)]
    pub setup_commands: Vec<String>,
    /// The environment's values, for set-up commands and the provider; never the container's own.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
    #[serde(default)]
    pub harness: HarnessSpec,
    #[serde(default)]
    pub shape: Shape,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Paths below the workspace, `*` and `**` allowed, that are kept as `FILE` artifacts when the run ends.
    #[serde(default)]
    pub artifacts: Vec<String>,
    /// The conversation it belongs to, kept on the worker for a run that goes on with it; `None` where nothing is
    /// kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionSpec>,
}

/// A conversation whose workspace and session files a worker keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// The id of the conversation's first run.
    pub conversation_id: RunId,
    /// It goes on with what an earlier run left: where the worker has it no more, the run fails with
    /// `session_gone`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resume: bool,
}

/// A repository to clone into the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Repo {
    /// `https://…`, `ssh://…`, `git@…`, `file://…`, an absolute path, or `owner/name` for GitHub.
    pub url: String,
    /// Branch, tag or full commit id; the remote's default branch without it.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Commits of history; 1 without it, 0 for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// The environment value that holds the token for this repository's host; for GitHub,
    /// `GITHUB_ACCESS_TOKEN` and `GITHUB_TOKEN` are tried without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submodules: bool,
}

impl Repo {
    /// A repository with every choice left at its default.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), reference: None, depth: None, token_env: None, submodules: false }
    }

    /// The name of the folder it is cloned into: the last segment without `.git`.
    pub fn folder(&self) -> &str {
        let trimmed = self.url.trim_end_matches('/');
        let last = trimmed.rsplit(['/', ':']).next().unwrap_or(trimmed);
        last.strip_suffix(".git").unwrap_or(last)
    }
}

/// Who answers the prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProviderKind {
    /// The built-in agent: a model behind an endpoint, and four tools.
    #[default]
    Agent,
    /// A shell command line of the environment.
    Command,
    Claude,
    Codex,
    Opencode,
    Gemini,
}

impl ProviderKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Command => "command",
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
            Self::Gemini => "gemini",
        }
    }
}

/// How the prompt is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarnessSpec {
    #[serde(default)]
    pub provider: ProviderKind,
    /// The command line, for [`ProviderKind::Command`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The model asked for; the endpoint's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Put before the provider's own system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_prompt: Option<String>,
    #[serde(default)]
    pub bounds: AgentBounds,
    /// Where the model answers. The plane leaves it out when the environment does not say; the worker fills
    /// it in from its own configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// What the provider calls a model that is asked for by another name; others keep theirs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub model_map: BTreeMap<String, String>,
    /// Servers of further tools, by a name of letters, digits, `-` and `_`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp_servers: BTreeMap<String, McpServer>,
    /// The provider's own name for a conversation to go on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// Seconds without a word after which a provider is stopped, with `agent_limit`; half an hour without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_secs: Option<u64>,
}

impl HarnessSpec {
    /// The model asked for, by the name the provider has for it.
    pub fn mapped_model(&self) -> Option<&str> {
        let asked = self.model.as_deref().filter(|model| !model.is_empty())?;
        Some(self.model_map.get(asked).map_or(asked, String::as_str))
    }

    /// Where the environment asks the built-in agent to step aside for Claude Code, this becomes the claude provider,
    /// and the answer is yes. An endpoint goes with it only where it speaks the same dialect.
    pub fn redirect_to_claude_code(&mut self, env: &BTreeMap<String, Secret>) -> bool {
        let asked = env.get("WORKBENCH_PROVIDER").map(|name| name.expose().trim());
        if asked != Some("claude-code") {
            return false;
        }
        if self.provider == ProviderKind::Agent {
            self.provider = ProviderKind::Claude;
            self.endpoint.take_if(|endpoint| !matches!(endpoint, Endpoint::Anthropic(_)));
        }
        self.provider == ProviderKind::Claude
    }
}

/// A server that speaks the Model Context Protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "transport", rename_all = "snake_case")]
pub enum McpServer {
    /// A program started in the container as the provider's user, spoken to over its standard streams.
    Stdio {
        command: String,
        #[serde(default)]
        args: Vec<String>,
        #[serde(default)]
        env: BTreeMap<String, Secret>,
    },
    /// Streamable HTTP.
    Http {
        url: String,
        #[serde(default)]
        headers: BTreeMap<String, Secret>,
    },
}

/// Bounds of the built-in agent. At a bound the run fails with `agent_limit`, naming it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentBounds {
    /// Answers of the model.
    pub max_turns: u32,
    /// Input and output tokens together, as the endpoint counts them.
    pub max_tokens: u64,
}

impl Default for AgentBounds {
    fn default() -> Self {
        Self { max_turns: 50, max_tokens: 2_000_000 }
    }
}

/// Where a model answers. An adapter is handed one and never looks a key up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "dialect", rename_all = "snake_case")]
pub enum Endpoint {
    /// OpenAI-compatible chat completions below `base_url` (`…/v1`).
    OpenaiChat(HttpEndpoint),
    /// OpenAI's responses below `base_url` (`…/v1`).
    OpenaiResponses(HttpEndpoint),
    /// Anthropic's messages below `base_url`, without `/v1`.
    Anthropic(HttpEndpoint),
    /// Google's generateContent below `base_url`, without `/v1beta`.
    Gemini(HttpEndpoint),
    /// No model: turns from a file, for trying Ozma without a key. See `harness::agent::script`.
    Scripted { script: String },
}

impl Endpoint {
    /// The address and what belongs to it; `None` for a script.
    pub fn http(&self) -> Option<&HttpEndpoint> {
        match self {
            Self::OpenaiChat(http)
            | Self::OpenaiResponses(http)
            | Self::Anthropic(http)
            | Self::Gemini(http) => Some(http),
            Self::Scripted { .. } => None,
        }
    }
}

/// An address at which a model answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpEndpoint {
    /// Without a slash at its end.
    pub base_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Secret>,
    #[serde(default, skip_serializing_if = "is_api_key")]
    pub auth: Auth,
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Empty: the run must name one.
    #[serde(default)]
    pub model: String,
}

/// What an endpoint's key is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// A key of the vendor's API.
    #[default]
    ApiKey,
    /// A token that goes out as `Authorization: Bearer`.
    Bearer,
    /// A token of an account at the vendor, by its own login.
    Oauth,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes a reference"
)]
fn is_api_key(auth: &Auth) -> bool {
    *auth == Auth::ApiKey
}

/// What the container may use. `None` is the worker's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Bytes of memory and swap together.
    pub memory_bytes: Option<u64>,
    pub pids: Option<u32>,
}

/// What the container may reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Network {
    /// A private bridge network for this run: the internet, but no other run.
    #[default]
    Open,
    /// Nothing but itself.
    None,
}

/// Seconds a phase may take. Over it the execution fails: with `image_pull` where the image was not had in time,
/// else with `task_timeout`; the message names the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// Waiting for a slot, each time anew; without it as long as it takes. The plane's to enforce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_secs: Option<u64>,
    /// Having the image.
    pub image_secs: u64,
    /// Clone and set-up commands together.
    pub setup_secs: u64,
    /// From the sidecar's start to its exit event, set-up included.
    pub run_secs: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { queue_secs: None, image_secs: 1_800, setup_secs: 1_800, run_secs: 14_400 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_goes_into_a_folder_of_its_name() {
        for (url, folder) in [
            ("https://github.com/acme/shop.git", "shop"),
            ("git@github.com:acme/shop.git", "shop"),
            ("acme/shop", "shop"),
            ("/srv/demo.git/", "demo"),
            ("file:///srv/git/tools", "tools"),
        ] {
            assert_eq!(Repo::new(url).folder(), folder);
        }
    }
}
