//! Where models answer when a run's environment does not say, one table a provider. Keys stay in
//! [`SecretString`]s until the assignment is written to a sidecar.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use protocol::{
    secret::Secret,
    spec::{Auth, Endpoint, HttpEndpoint, ProviderKind},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::secret::read_secret;

/// Longest scripted model, in bytes; a longer file is an error at the start of the worker.
const MAX_SCRIPT_BYTES: u64 = 1 << 20;

/// Most headers of one endpoint, and most names of models; more are an error at the start of the worker.
const MAX_ENTRIES: usize = 256;

/// Endpoints by provider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Providers {
    /// The built-in agent's.
    pub agent: Provider,
    pub claude: Provider,
    pub codex: Provider,
    pub opencode: Provider,
    pub gemini: Provider,
}

/// Where one provider's model answers, or a script in its place.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    /// Without a version for Anthropic's and Google's dialects, with `/v1` for the others; the vendor's own without
    /// it.
    pub base_url: Option<String>,
    /// For runs and environments that name none.
    pub model: Option<String>,
    pub api_key: Option<SecretString>,
    /// Where the key stands instead, alone in a file.
    pub api_key_file: Option<PathBuf>,
    /// What the key is.
    pub auth: Auth,
    /// Sent with every request; their values are secrets.
    pub headers: BTreeMap<String, SecretString>,
    /// What the endpoint speaks, for the providers that speak several: `agent` and `opencode`.
    pub dialect: Option<Dialect>,
    /// What the provider calls a model that is asked for by another name. An environment's entry wins.
    pub model_map: BTreeMap<String, String>,
    /// Turns of a scripted model, for trying Ozma without a key; wins over the endpoint. The built-in agent's only.
    pub script_file: Option<PathBuf>,
}

/// How a model is spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Anthropic,
    /// Google's generateContent.
    Gemini,
}

impl Dialect {
    /// What a provider speaks, its usual one first.
    fn of(provider: ProviderKind) -> &'static [Self] {
        match provider {
            ProviderKind::Agent => &[Self::Chat, Self::Responses, Self::Anthropic],
            ProviderKind::Claude => &[Self::Anthropic],
            ProviderKind::Codex => &[Self::Responses],
            ProviderKind::Opencode => &[Self::Chat, Self::Responses, Self::Anthropic, Self::Gemini],
            ProviderKind::Gemini => &[Self::Gemini],
            ProviderKind::Command => &[],
        }
    }

    /// The vendor's own address.
    fn address(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses => "https://api.openai.com/v1",
            Self::Anthropic => "https://api.anthropic.com",
            Self::Gemini => "https://generativelanguage.googleapis.com",
        }
    }

    fn endpoint(self, http: HttpEndpoint) -> Endpoint {
        match self {
            Self::Chat => Endpoint::OpenaiChat(http),
            Self::Responses => Endpoint::OpenaiResponses(http),
            Self::Anthropic => Endpoint::Anthropic(http),
            Self::Gemini => Endpoint::Gemini(http),
        }
    }
}

impl Providers {
    pub(crate) fn each(&self) -> [(ProviderKind, &Provider); 5] {
        [
            (ProviderKind::Agent, &self.agent),
            (ProviderKind::Claude, &self.claude),
            (ProviderKind::Codex, &self.codex),
            (ProviderKind::Opencode, &self.opencode),
            (ProviderKind::Gemini, &self.gemini),
        ]
    }

    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// Names the setting and the rule.
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        for (kind, provider) in self.each() {
            provider.validate(kind).with_context(|| format!("providers.{}", kind.as_str()))?;
        }
        Ok(())
    }
}

impl Provider {
    fn validate(&self, kind: ProviderKind) -> anyhow::Result<()> {
        ensure!(
            self.script_file.is_none() || kind == ProviderKind::Agent,
            "script_file: only the built-in agent has scripted models"
        );
        ensure!(
            self.api_key.is_none() || self.api_key_file.is_none(),
            "api_key and api_key_file: only one of them"
        );
        let empty = |key: &SecretString| key.expose_secret().trim().is_empty();
        ensure!(!self.api_key.as_ref().is_some_and(empty), "api_key: is empty");
        let spoken = Dialect::of(kind);
        if let Some(dialect) = self.dialect.filter(|dialect| !spoken.contains(dialect)) {
            bail!("dialect: {} speaks {spoken:?}, not {dialect:?}", kind.as_str());
        }
        if let Some(url) = &self.base_url {
            let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
            let host = host.split(['/', '?', '#']).next().unwrap_or_default();
            // Not shown: it is a secret, and whoever sees an address would see it.
            ensure!(
                !host.contains('@'),
                "base_url: has a name or password in it; use api_key, api_key_file or headers"
            );
            ensure!(
                url.starts_with("https://") || url.starts_with("http://"),
                "base_url: {url:?} is no address with http:// or https://"
            );
        }
        ensure!(self.headers.len() <= MAX_ENTRIES, "headers: at most {MAX_ENTRIES}");
        ensure!(self.model_map.len() <= MAX_ENTRIES, "model_map: at most {MAX_ENTRIES}");
        for (name, value) in &self.headers {
            let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            ensure!(
                !name.is_empty() && name.chars().all(is_token),
                "headers: {name:?} is no name of a header"
            );
            // The value itself is not shown: it is a secret.
            ensure!(
                !value.expose_secret().chars().any(char::is_control),
                "headers: the value of {name:?} has a control character in it"
            );
        }
        Ok(())
    }

    /// The endpoint these settings describe; `None` when they say too little for one.
    ///
    /// # Errors
    /// A file named cannot be read.
    pub(crate) fn endpoint(&self, kind: ProviderKind) -> anyhow::Result<Option<Endpoint>> {
        let of = kind.as_str();
        if let Some(path) = &self.script_file {
            let script = read_script(path)
                .with_context(|| format!("providers.{of}.script_file {}", path.display()))?;
            return Ok(Some(Endpoint::Scripted { script }));
        }
        let api_key = match (&self.api_key, &self.api_key_file) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(path)) => {
                Some(read_secret(path).with_context(|| format!("providers.{of}.api_key_file"))?)
            }
            (None, None) => None,
        };
        // A local model needs no key; the default address without one is no endpoint.
        if api_key.is_none() && self.base_url.is_none() && self.headers.is_empty() {
            return Ok(None);
        }
        let Some(dialect) = self.dialect.or(Dialect::of(kind).first().copied()) else {
            return Ok(None);
        };
        let base_url = self.base_url.as_deref().unwrap_or(dialect.address());
        let headers = self.headers.iter();
        Ok(Some(
            dialect.endpoint(HttpEndpoint {
                base_url: base_url.trim_end_matches('/').to_owned(),
                api_key: api_key.map(|key| Secret::new(key.expose_secret())),
                auth: self.auth,
                headers: headers
                    .map(|(name, value)| (name.clone(), Secret::new(value.expose_secret())))
                    .collect(),
                // Left empty, the run names its model, or the provider has one of its own.
                model: self.model.clone().unwrap_or_default(),
            }),
        ))
    }
}

fn read_script(path: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(path)?.len();
    ensure!(size <= MAX_SCRIPT_BYTES, "has {size} bytes; {MAX_SCRIPT_BYTES} is the most");
    Ok(std::fs::read_to_string(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: ProviderKind = ProviderKind::Agent;

    #[test]
    fn a_key_alone_means_the_usual_address() {
        for (kind, address) in [
            (AGENT, "https://api.openai.com/v1"),
            (ProviderKind::Claude, "https://api.anthropic.com"),
            (ProviderKind::Codex, "https://api.openai.com/v1"),
            (ProviderKind::Opencode, "https://api.openai.com/v1"),
            (ProviderKind::Gemini, "https://generativelanguage.googleapis.com"),
        ] {
            let mut provider = Provider::default();
            assert!(provider.endpoint(kind).unwrap().is_none());
            provider.api_key = Some("sk-hidden".into());
            let endpoint = provider.endpoint(kind).unwrap().unwrap();
            assert!(!format!("{provider:?} {endpoint:?}").contains("sk-hidden"));
            let http = endpoint.http().unwrap();
            assert_eq!(http.base_url, address);
            assert_eq!(http.api_key.as_ref().unwrap().expose(), "sk-hidden");
        }
    }

    #[test]
    fn every_setting_reaches_the_endpoint() {
        let providers: Providers = toml::from_str(
            r#"
            [opencode]
            base_url = "http://127.0.0.1:8000/"
            api_key = "k"
            auth = "bearer"
            dialect = "anthropic"
            model = "m"
            headers = { "x-team" = "hidden" }
            model_map = { large = "m-2" }
            "#,
        )
        .unwrap();
        providers.validate().unwrap();
        assert!(!format!("{providers:?}").contains("hidden"));
        let endpoint = providers.opencode.endpoint(ProviderKind::Opencode).unwrap().unwrap();
        assert!(matches!(endpoint, Endpoint::Anthropic(_)));
        let http = endpoint.http().unwrap();
        assert_eq!((http.base_url.as_str(), http.auth), ("http://127.0.0.1:8000", Auth::Bearer));
        assert_eq!((http.model.as_str(), http.headers["x-team"].expose()), ("m", "hidden"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, named) in [
            ("[claude]\ndialect = \"chat\"", "providers.claude"),
            ("[codex]\nscript_file = \"/x\"", "script_file"),
            ("[gemini]\nbase_url = \"host\"", "base_url"),
            ("[gemini]\nbase_url = \"https://hidden:hidden@host/v1\"", "password"),
            ("[gemini]\nbase_url = \"user:hidden@host\"", "password"),
            ("[agent]\nheaders = { \"a b\" = \"x\" }", "a b"),
            ("[agent]\nheaders = { a = \"hidden\\nb: c\" }", "control character"),
        ] {
            let providers: Providers = toml::from_str(text).unwrap();
            let error = format!("{:#}", providers.validate().unwrap_err());
            assert!(error.contains(named) && !error.contains("hidden"), "{error}");
        }
        assert!(toml::from_str::<Providers>("[cloude]").is_err());
    }

    #[test]
    fn a_script_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.json");
        std::fs::write(&path, "{}").unwrap();
        let provider =
            Provider { api_key: Some("sk".into()), script_file: Some(path), ..Provider::default() };
        assert_eq!(
            provider.endpoint(AGENT).unwrap(),
            Some(Endpoint::Scripted { script: "{}".to_owned() })
        );
    }
}
