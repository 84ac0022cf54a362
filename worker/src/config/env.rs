//! Settings by environment variable, laid over the file's. The names of the stock worker are taken too.

use std::path::PathBuf;

use anyhow::Context;
use serde::de::{DeserializeOwned, IntoDeserializer, value::Error};

use super::settings::Config;

impl Config {
    /// Lays what `get` knows over these settings; an empty value is no value.
    ///
    /// # Errors
    /// A value does not have the form of its setting; the text names the variable.
    pub fn overlay_env(&mut self, get: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));

        if let Some(id) = get("OZ_WORKER_ID") {
            self.worker_id = id;
        }
        // `OZ_WS_URL` is the whole address of the link, the others the plane's root.
        if let Some(url) = first(&["OZ_WS_URL", "OZ_PLANE_URL", "OZ_SERVER_ROOT_URL"]) {
            self.plane_url = url;
        }
        if let Some(token) = first(&["OZ_WORKER_TOKEN", "OZ_API_KEY", "WARP_API_KEY"]) {
            self.token = Some(token.into());
        }
        if let Some(path) = get("OZ_WORKER_TOKEN_FILE") {
            self.token_file = Some(PathBuf::from(path));
        }
        if let Some(backend) = get("OZ_WORKER_BACKEND") {
            self.backend = word(&backend).context("OZ_WORKER_BACKEND")?;
        }
        if let Some(policy) = get("OZ_WORKER_PULL_POLICY") {
            self.pull_policy = word(&policy).context("OZ_WORKER_PULL_POLICY")?;
        }
        if let Some(host) = get("DOCKER_HOST") {
            self.docker_host = Some(host);
        }
        if let Some(link) = get("OZ_WORKER_LINK") {
            self.link = word(&link).context("OZ_WORKER_LINK")?;
        }
        if let Some(capacity) = get("OZ_WORKER_CAPACITY") {
            self.capacity = capacity.parse().context("OZ_WORKER_CAPACITY")?;
        }
        if let Some(grace) = get("OZ_WORKER_GRACE_MS") {
            self.grace_ms = grace.parse().context("OZ_WORKER_GRACE_MS")?;
        }
        if let Some(tags) = get("OZ_WORKER_TAGS") {
            self.tags = tags.split(',').map(|tag| tag.trim().to_owned()).collect();
        }
        if let Some(path) = get("OZ_WORKER_STATE_DIR") {
            self.state_dir = PathBuf::from(path);
        }
        if let Some(image) = get("OZ_SIDECAR_IMAGE") {
            self.sidecar_image = image;
        }
        if let Some(path) = get("OZ_SIDECAR_BINARY") {
            self.sidecar_binary = Some(PathBuf::from(path));
        }
        if let Some(runtime) = get("OZ_WORKER_RUNTIME") {
            self.runtime = Some(runtime);
        }
        if let Some(pool) = get("OZ_WORKER_NETWORK_POOL") {
            self.network_pool = pool;
        }
        if let Some(sweep) = get("OZ_WORKER_SWEEP_MS") {
            self.sweep_ms = sweep.parse().context("OZ_WORKER_SWEEP_MS")?;
        }
        if let Some(listen) = get("OZ_WORKER_METRICS_LISTEN") {
            self.metrics_listen = Some(listen.parse().context("OZ_WORKER_METRICS_LISTEN")?);
        }

        let agent = &mut self.providers.agent;
        if let Some(url) = first(&["OZ_PROVIDER_BASE_URL", "OPENAI_BASE_URL"]) {
            agent.base_url = Some(url);
        }
        if let Some(model) = first(&["OZ_PROVIDER_MODEL", "OPENAI_MODEL"]) {
            agent.model = Some(model);
        }
        if let Some(key) = first(&["OZ_PROVIDER_API_KEY", "OPENAI_API_KEY"]) {
            agent.api_key = Some(key.into());
        }
        if let Some(path) = get("OZ_PROVIDER_SCRIPT") {
            agent.script_file = Some(PathBuf::from(path));
        }
        Ok(())
    }
}

/// Reads one of an enum's words, as the file would.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    T::deserialize(text.into_deserializer())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::config::settings::{Backend, PullPolicy};

    #[test]
    fn the_environment_wins_over_the_file() {
        let mut config: Config = toml::from_str("worker_id = \"file\"\ncapacity = 2").unwrap();
        config
            .overlay_env(|name| {
                Some(
                    match name {
                        "OZ_WORKER_ID" => "env",
                        "WARP_API_KEY" => "stock",
                        "OZ_WORKER_BACKEND" => "direct",
                        "OZ_WORKER_PULL_POLICY" => "never",
                        "OZ_WORKER_CAPACITY" => " ",
                        "OPENAI_API_KEY" => "general",
                        "OZ_PROVIDER_API_KEY" => "ours",
                        _ => return None,
                    }
                    .to_owned(),
                )
            })
            .unwrap();
        assert_eq!((config.worker_id.as_str(), config.capacity), ("env", 2));
        assert_eq!((config.backend, config.pull_policy), (Backend::Direct, PullPolicy::Never));
        assert_eq!(config.token.unwrap().expose_secret(), "stock");
        assert_eq!(config.providers.agent.api_key.unwrap().expose_secret(), "ours");
    }

    #[test]
    fn a_wrong_word_names_its_variable() {
        let error = Config::default()
            .overlay_env(|name| (name == "OZ_WORKER_BACKEND").then(|| "podman".to_owned()))
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("OZ_WORKER_BACKEND") && text.contains("podman"), "{text}");
    }
}
