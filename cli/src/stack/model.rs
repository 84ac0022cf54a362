//! Which model answers on this machine: what the environment or the file names, else a script that says so.

use std::path::Path;

use worker::{Config, config::Provider};

use crate::{context::write_private, failure::Failure};

/// Who answers when nobody was named: explains itself and looks around.
const DEFAULT_SCRIPT: &str = include_str!("default_script.json");

/// How to name a model.
pub(crate) const HOW: &str = "OPENAI_API_KEY=… (and OPENAI_BASE_URL, OPENAI_MODEL) or OZ_PROVIDER_API_KEY, \
     OZ_PROVIDER_BASE_URL, OZ_PROVIDER_MODEL";

/// Who answers the built-in agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Model {
    /// A model, by its name and address, as far as they are named.
    Endpoint(String),
    /// The operator's own script.
    Script,
    /// Nobody was named: turns of ours.
    BuiltIn,
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Endpoint(name) => f.write_str(name),
            Self::Script => f.write_str("scripted, from the file that is configured"),
            Self::BuiltIn => {
                write!(f, "none configured: prompts get scripted turns. Name one: {HOW}")
            }
        }
    }
}

/// What the settings name.
pub(crate) fn named(provider: &Provider) -> Model {
    if provider.script_file.is_some() {
        Model::Script
    } else if provider.api_key.is_some()
        || provider.api_key_file.is_some()
        || provider.base_url.is_some()
    {
        let model = provider.model.as_deref().unwrap_or("the endpoint's model");
        let url = provider.base_url.as_deref().unwrap_or("https://api.openai.com/v1");
        Model::Endpoint(format!("{model} at {url}"))
    } else {
        Model::BuiltIn
    }
}

/// Gives the worker a script where it has no model: `script`, else the default one.
///
/// # Errors
/// The script cannot be written to `folder`.
pub(crate) fn ensure(
    config: &mut Config,
    folder: &Path,
    script: Option<&str>,
) -> Result<Model, Failure> {
    let model = named(&config.providers.agent);
    if model == Model::BuiltIn {
        let path = folder.join("scripted-model.json");
        write_private(&path, script.unwrap_or(DEFAULT_SCRIPT))?;
        config.providers.agent.script_file = Some(path);
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_wins_over_the_script() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        assert_eq!(ensure(&mut config, folder.path(), Some("{}")).unwrap(), Model::BuiltIn);
        assert!(config.providers.agent.script_file.is_some());
        let mut config = Config::default();
        config.providers.agent.base_url = Some("http://127.0.0.1:11434/v1".to_owned());
        assert_eq!(
            ensure(&mut config, folder.path(), None).unwrap(),
            Model::Endpoint("the endpoint's model at http://127.0.0.1:11434/v1".to_owned())
        );
        assert!(config.providers.agent.script_file.is_none());
    }

    #[test]
    fn the_built_in_script_is_json() {
        let script: serde_json::Value = serde_json::from_str(DEFAULT_SCRIPT).unwrap();
        assert!(script["turns"].as_array().is_some_and(|turns| !turns.is_empty()));
    }
}
