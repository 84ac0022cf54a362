//! The worker's own word on where models answer, read once at the start: given to a run whose environment does not
//! say, and only to the provider it was configured for.

use std::collections::BTreeMap;

use protocol::spec::{Endpoint, HarnessSpec, ProviderKind};

use crate::config::Providers;

/// What is configured, by provider.
#[derive(Debug, Default)]
pub(crate) struct Endpoints(Vec<(ProviderKind, Configured)>);

#[derive(Debug)]
struct Configured {
    endpoint: Option<Endpoint>,
    model_map: BTreeMap<String, String>,
}

impl Endpoints {
    /// # Errors
    /// A file with a key or a script cannot be read.
    pub(crate) fn read(providers: &Providers) -> anyhow::Result<Self> {
        let mut configured = Vec::new();
        for (kind, provider) in providers.each() {
            let endpoint = provider.endpoint(kind)?;
            configured.push((kind, Configured { endpoint, model_map: provider.model_map.clone() }));
        }
        Ok(Self(configured))
    }

    /// Fills in what the assignment leaves open.
    pub(crate) fn fill(&self, harness: &mut HarnessSpec) {
        let found = self.0.iter().find(|(kind, _)| *kind == harness.provider);
        let Some((_, configured)) = found else { return };
        if harness.endpoint.is_none() {
            harness.endpoint.clone_from(&configured.endpoint);
        }
        for (asked, name) in &configured.model_map {
            harness.model_map.entry(asked.clone()).or_insert_with(|| name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_provider_that_was_configured_gets_its_key() {
        let providers = toml::from_str(
            "[claude]\napi_key = \"c\"\nmodel_map = { large = \"w\", small = \"s\" }\n[agent]\napi_key = \"a\"",
        )
        .unwrap();
        let endpoints = Endpoints::read(&providers).unwrap();
        let filled = |provider, endpoint| {
            let model_map = BTreeMap::from([("large".to_owned(), "e".to_owned())]);
            let mut harness =
                HarnessSpec { provider, endpoint, model_map, ..HarnessSpec::default() };
            endpoints.fill(&mut harness);
            harness
        };
        let claude = filled(ProviderKind::Claude, None);
        let http = claude.endpoint.as_ref().and_then(Endpoint::http).unwrap();
        assert_eq!(http.api_key.as_ref().unwrap().expose(), "c");
        assert_eq!(claude.model_map["large"], "e");
        assert_eq!(claude.model_map["small"], "s");
        for kind in [ProviderKind::Codex, ProviderKind::Gemini, ProviderKind::Command] {
            assert_eq!(filled(kind, None).endpoint, None);
        }
        let script = Endpoint::Scripted { script: "s".to_owned() };
        assert_eq!(filled(ProviderKind::Agent, Some(script.clone())).endpoint, Some(script));
    }

    #[test]
    fn an_agent_that_steps_aside_gets_the_endpoint_of_claude() {
        let providers =
            toml::from_str("[claude]\napi_key = \"c\"\n[agent]\napi_key = \"a\"").unwrap();
        let endpoints = Endpoints::read(&providers).unwrap();
        let env = BTreeMap::from([(
            "WORKBENCH_PROVIDER".to_owned(),
            protocol::secret::Secret::new("claude-code"),
        )]);
        let mut harness = HarnessSpec::default();
        assert!(harness.redirect_to_claude_code(&env));
        endpoints.fill(&mut harness);
        assert_eq!(harness.provider, ProviderKind::Claude);
        let http = harness.endpoint.as_ref().and_then(Endpoint::http).unwrap();
        assert_eq!(http.api_key.as_ref().unwrap().expose(), "c");
    }
}
