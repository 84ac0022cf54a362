//! What a provider would be started with, without starting it: for whoever wants to know before a run. No secret is
//! in it.

use std::path::PathBuf;

use protocol::{
    sidecar::Launch,
    spec::{Endpoint, HttpEndpoint, ProviderKind},
};

use crate::{cli::Cli, endpoint, failure::Failure};

/// A provider's command line as the harness would call it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    pub arguments: Vec<String>,
    /// Names of variables that are set for it; their values may be secrets.
    pub variables: Vec<String>,
    /// Files that are written for it, below the launch's own folder.
    pub files: Vec<PathBuf>,
}

/// The names a provider's key may have in an environment, the first that is there counts.
pub fn keys(provider: ProviderKind) -> Vec<&'static str> {
    endpoint::keys(provider)
}

/// How `launch` would start its provider; empty for the built-in agent and for commands. Where no endpoint is known
/// it is shown for one that needs no key.
///
/// # Errors
/// The launch makes no sense: two endpoints at once, a user's configuration that cannot be read.
pub fn of(mut launch: Launch) -> Result<Preview, Failure> {
    let nowhere: fn(HttpEndpoint) -> Endpoint = match launch.harness.provider {
        ProviderKind::Agent | ProviderKind::Command => return Ok(Preview::default()),
        ProviderKind::Claude => Endpoint::Anthropic,
        ProviderKind::Codex => Endpoint::OpenaiResponses,
        ProviderKind::Opencode => Endpoint::OpenaiChat,
        ProviderKind::Gemini => Endpoint::Gemini,
    };
    let model = launch.harness.model.clone().unwrap_or_else(|| "MODEL".to_owned());
    let default = || nowhere(HttpEndpoint { model, ..HttpEndpoint::default() });
    launch.harness.endpoint.get_or_insert_with(default);
    Ok(Cli::new(launch)?.preview())
}
