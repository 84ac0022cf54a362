//! Where models answer when a run's environment does not say. Keys stay in [`SecretString`]s until the
//! assignment is written to a sidecar.

use std::path::PathBuf;

use anyhow::Context;
use protocol::{
    secret::Secret,
    spec::{Endpoint, HttpEndpoint},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::secret::read_secret;

/// Longest scripted model, in bytes; a longer file is an error at the start of the worker.
const MAX_SCRIPT_BYTES: u64 = 1 << 20;

/// Endpoints by provider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Providers {
    /// The built-in agent's.
    pub agent: AgentProvider,
}

/// An OpenAI-compatible endpoint, or a script in its place.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentProvider {
    /// The address below which `/chat/completions` is; `https://api.openai.com/v1` without it.
    pub base_url: Option<String>,
    pub model: Option<String>,
    pub api_key: Option<SecretString>,
    /// Where the key stands instead, alone in a file.
    pub api_key_file: Option<PathBuf>,
    /// Turns of a scripted model, for trying Ozma without a key; wins over the endpoint.
    pub script_file: Option<PathBuf>,
}

impl AgentProvider {
    /// The endpoint these settings describe; `None` when they say too little for one.
    ///
    /// # Errors
    /// A file named cannot be read.
    pub(crate) fn endpoint(&self) -> anyhow::Result<Option<Endpoint>> {
        if let Some(path) = &self.script_file {
            let script = read_script(path)
                .with_context(|| format!("providers.agent.script_file {}", path.display()))?;
            return Ok(Some(Endpoint::Scripted { script }));
        }
        let api_key = match (&self.api_key, &self.api_key_file) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(path)) => Some(read_secret(path).context("providers.agent.api_key_file")?),
            (None, None) => None,
        };
        // A local model needs no key; the default address without one is no endpoint.
        if api_key.is_none() && self.base_url.is_none() {
            return Ok(None);
        }
        let base_url = self.base_url.as_deref().unwrap_or("https://api.openai.com/v1");
        Ok(Some(Endpoint::OpenaiChat(HttpEndpoint {
            base_url: base_url.trim_end_matches('/').to_owned(),
            api_key: api_key.map(|key| Secret::new(key.expose_secret())),
            // Left empty, a run must name its model; the harness says so.
            model: self.model.clone().unwrap_or_default(),
            ..HttpEndpoint::default()
        })))
    }
}

fn read_script(path: &std::path::Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(path)?.len();
    anyhow::ensure!(size <= MAX_SCRIPT_BYTES, "has {size} bytes; {MAX_SCRIPT_BYTES} is the most");
    Ok(std::fs::read_to_string(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_alone_means_the_usual_address() {
        let mut provider = AgentProvider::default();
        assert!(provider.endpoint().unwrap().is_none());
        provider.api_key = Some("sk-hidden".into());
        let endpoint = provider.endpoint().unwrap().unwrap();
        assert!(!format!("{provider:?} {endpoint:?}").contains("sk-hidden"));
        let http = endpoint.http().unwrap();
        assert_eq!(http.base_url, "https://api.openai.com/v1");
        assert_eq!(http.api_key.as_ref().unwrap().expose(), "sk-hidden");
    }

    #[test]
    fn a_script_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.json");
        std::fs::write(&path, "{}").unwrap();
        let provider = AgentProvider {
            api_key: Some("sk".into()),
            script_file: Some(path),
            ..AgentProvider::default()
        };
        assert_eq!(
            provider.endpoint().unwrap(),
            Some(Endpoint::Scripted { script: "{}".to_owned() })
        );
    }
}
