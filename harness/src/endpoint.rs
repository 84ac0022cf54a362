//! Where a provider's model answers: the environment's values under the names the provider itself uses, then what
//! the worker filled in. A key of the worker must never go to an address the environment chose, nor to a server it
//! vouches for.

use protocol::{
    failure::FailureReason,
    secret::Secret,
    sidecar::Launch,
    spec::{Auth, Endpoint, HttpEndpoint, ProviderKind},
};

use crate::failure::Failure;

mod agent;

pub(crate) use self::agent::redirected;

/// A vendor's names among an environment's values.
struct Vendor {
    /// What reads as a key, the first one there counts.
    keys: &'static [(&'static str, Auth)],
    base_urls: &'static [&'static str],
    models: &'static [&'static str],
    default_base_url: &'static str,
    endpoint: fn(HttpEndpoint) -> Endpoint,
}

const ANTHROPIC: Vendor = Vendor {
    keys: &[
        ("ANTHROPIC_API_KEY", Auth::ApiKey),
        ("ANTHROPIC_AUTH_TOKEN", Auth::Bearer),
        ("CLAUDE_CODE_OAUTH_TOKEN", Auth::Oauth),
    ],
    base_urls: &["ANTHROPIC_BASE_URL"],
    models: &["ANTHROPIC_MODEL"],
    default_base_url: "https://api.anthropic.com",
    endpoint: Endpoint::Anthropic,
};

const OPENAI_CHAT: Vendor = Vendor {
    keys: &[("OPENAI_API_KEY", Auth::ApiKey)],
    base_urls: &["OPENAI_BASE_URL"],
    models: &["OPENAI_MODEL"],
    default_base_url: "https://api.openai.com/v1",
    endpoint: Endpoint::OpenaiChat,
};

const OPENAI_RESPONSES: Vendor = Vendor {
    keys: &[("CODEX_API_KEY", Auth::ApiKey), ("OPENAI_API_KEY", Auth::ApiKey)],
    endpoint: Endpoint::OpenaiResponses,
    ..OPENAI_CHAT
};

const GEMINI: Vendor = Vendor {
    keys: &[("GEMINI_API_KEY", Auth::ApiKey), ("GOOGLE_API_KEY", Auth::ApiKey)],
    base_urls: &["GOOGLE_GEMINI_BASE_URL"],
    models: &["GEMINI_MODEL"],
    default_base_url: "https://generativelanguage.googleapis.com",
    endpoint: Endpoint::Gemini,
};

/// The vendors a provider can speak with, the first one the environment names counts.
fn vendors(provider: ProviderKind) -> &'static [Vendor] {
    match provider {
        ProviderKind::Claude => &[ANTHROPIC],
        ProviderKind::Codex => &[OPENAI_RESPONSES],
        ProviderKind::Gemini => &[GEMINI],
        ProviderKind::Opencode => &[ANTHROPIC, OPENAI_CHAT, GEMINI],
        ProviderKind::Agent => &[OPENAI_CHAT, ANTHROPIC],
        ProviderKind::Command => &[],
    }
}

/// The endpoint of this launch, its model filled in where the run or the environment names one.
///
/// # Errors
/// `auth_missing` when there is none, naming the places.
pub(crate) fn choose(launch: &Launch) -> Result<Endpoint, Failure> {
    let provider = launch.harness.provider;
    let of_worker = launch.harness.endpoint.as_ref().and_then(Endpoint::http);
    if let Some(agent::Own { endpoint, mut http }) = by_further_names(launch)? {
        http.base_url.truncate(http.base_url.trim_end_matches('/').len());
        if let Some(asked) = launch.harness.mapped_model() {
            asked.clone_into(&mut http.model);
        } else if let Some(mapped) = launch.harness.model_map.get(&http.model) {
            http.model.clone_from(mapped);
        }
        if let (true, Some(of_worker)) = (http.model.is_empty(), of_worker) {
            http.model.clone_from(&of_worker.model);
        }
        return Ok(endpoint(http));
    }
    let own = vendors(provider).iter().find(|vendor| names(launch, vendor));
    let Some(vendor) = own else {
        let Some(endpoint) = launch.harness.endpoint.clone() else { return Err(missing(provider)) };
        let named = vendors(provider).iter().find_map(|vendor| model(launch, vendor));
        return Ok(with_model(endpoint, named));
    };
    let key = vendor.keys.iter().find_map(|(name, auth)| Some((value(launch, name)?, *auth)));
    let base_url = vendor.base_urls.iter().find_map(|name| value(launch, name));
    let named = model(launch, vendor).or_else(|| of_worker.map(|http| http.model.clone()));
    Ok((vendor.endpoint)(HttpEndpoint {
        base_url: base_url
            .map_or(vendor.default_base_url, Secret::expose)
            .trim_end_matches('/')
            .to_owned(),
        api_key: key.map(|(key, _)| key.clone()),
        auth: key.map(|(_, auth)| auth).unwrap_or_default(),
        headers: std::collections::BTreeMap::new(),
        model: named.unwrap_or_default(),
    }))
}

/// What only the built-in agent is told of, before its vendors' own names.
fn by_further_names(launch: &Launch) -> Result<Option<agent::Own>, Failure> {
    match launch.harness.provider {
        ProviderKind::Agent => agent::own(launch),
        _ => Ok(None),
    }
}

/// Where the endpoint is and who named it, for people. The worker's address is not told.
pub(crate) fn whose(launch: &Launch) -> Option<String> {
    let endpoint = choose(launch).ok()?;
    let http = endpoint.http()?;
    if !is_own(launch) {
        return Some("the endpoint is the one of the worker's configuration".to_owned());
    }
    // Without a name and a password in it.
    let url = reqwest::Url::parse(&http.base_url).ok()?;
    Some(format!(
        "the endpoint is {}, by the environment's values",
        url.origin().ascii_serialization()
    ))
}

/// Whether the environment names its own endpoint.
pub(crate) fn is_own(launch: &Launch) -> bool {
    if by_further_names(launch).is_ok_and(|own| own.is_some()) {
        return true;
    }
    vendors(launch.harness.provider).iter().any(|vendor| names(launch, vendor))
}

fn names(launch: &Launch, vendor: &Vendor) -> bool {
    vendor.keys.iter().any(|(name, _)| value(launch, name).is_some())
        || vendor.base_urls.iter().any(|name| value(launch, name).is_some())
}

/// The model the run asks for, or else the environment.
fn model(launch: &Launch, vendor: &Vendor) -> Option<String> {
    launch.harness.mapped_model().map(str::to_owned).or_else(|| {
        let named = vendor.models.iter().find_map(|name| value(launch, name))?;
        let named = named.expose();
        Some(launch.harness.model_map.get(named).map_or(named, String::as_str).to_owned())
    })
}

fn with_model(mut endpoint: Endpoint, named: Option<String>) -> Endpoint {
    let http = match &mut endpoint {
        Endpoint::OpenaiChat(http)
        | Endpoint::OpenaiResponses(http)
        | Endpoint::Anthropic(http)
        | Endpoint::Gemini(http) => http,
        Endpoint::Scripted { .. } => return endpoint,
    };
    if let Some(named) = named {
        http.model = named;
    }
    endpoint
}

/// The names of a provider's key among an environment's values.
pub(crate) fn keys(provider: ProviderKind) -> Vec<&'static str> {
    vendors(provider)
        .iter()
        .flat_map(|vendor| vendor.keys.iter().map(|(name, _)| *name))
        .chain((provider == ProviderKind::Agent).then_some("OZ_PROVIDER_API_KEY"))
        .collect()
}

/// The places an endpoint can come from, all of them empty.
fn missing(provider: ProviderKind) -> Failure {
    let keys = keys(provider);
    let name = provider.as_str();
    Failure::new(
        FailureReason::AuthMissing,
        format!(
            "no model for {name}: its endpoint comes from the run (config.harness, config.model_id), from the \
             environment's values ({}), or from the worker ([providers.{name}]: base_url, model, api_key_file), and \
             none of them names one",
            keys.join(", ")
        ),
    )
}

/// A value of the environment that says something.
pub(crate) fn value<'a>(launch: &'a Launch, name: &str) -> Option<&'a Secret> {
    launch.env.get(name).filter(|value| !value.expose().is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protocol::spec::HarnessSpec;

    use super::*;

    fn launch(provider: ProviderKind, env: &[(&str, &str)], endpoint: Option<Endpoint>) -> Launch {
        Launch {
            prompt: String::new(),
            directory: "/".to_owned(),
            state_directory: "/".to_owned(),
            registry: false,
            session_directory: String::new(),
            env: env.iter().map(|(name, text)| ((*name).to_owned(), Secret::new(*text))).collect(),
            harness: HarnessSpec { provider, endpoint, ..HarnessSpec::default() },
        }
    }

    fn of_worker() -> Endpoint {
        Endpoint::OpenaiChat(HttpEndpoint {
            base_url: "https://worker.example/v1".to_owned(),
            api_key: Some(Secret::new("worker's")),
            model: "m".to_owned(),
            ..HttpEndpoint::default()
        })
    }

    #[test]
    fn an_endpoint_is_told_without_its_password_and_the_workers_not_at_all() {
        let env = [
            ("ANTHROPIC_API_KEY", "k"),
            ("ANTHROPIC_BASE_URL", "http://user:hunter2@model.example:8080/x"),
        ];
        let own = whose(&launch(ProviderKind::Claude, &env, None)).unwrap();
        assert_eq!(own, "the endpoint is http://model.example:8080, by the environment's values");
        let workers = Endpoint::Anthropic(HttpEndpoint {
            base_url: "http://10.0.0.5".to_owned(),
            api_key: Some(Secret::new("k")),
            ..HttpEndpoint::default()
        });
        let workers = whose(&launch(ProviderKind::Claude, &[], Some(workers))).unwrap();
        assert!(!workers.contains("10.0.0.5"), "{workers}");
        assert_eq!(whose(&launch(ProviderKind::Claude, &[], None)), None);
    }

    #[test]
    fn the_workers_key_stays_with_the_workers_address() {
        let agent = ProviderKind::Agent;
        let env = [("OPENAI_BASE_URL", "https://evil.example/")];
        let chosen = choose(&launch(agent, &env, Some(of_worker()))).unwrap();
        let http = chosen.http().unwrap();
        assert_eq!(http.base_url, "https://evil.example");
        assert_eq!((http.api_key.as_ref(), http.model.as_str()), (None, "m"));

        let env = [("OPENAI_API_KEY", "mine")];
        let chosen = choose(&launch(agent, &env, Some(of_worker()))).unwrap();
        assert_eq!(chosen.http().unwrap().base_url, "https://api.openai.com/v1");
    }

    #[test]
    fn each_provider_has_its_own_names() {
        let env = [("ANTHROPIC_API_KEY", "a"), ("OPENAI_API_KEY", "o"), ("GEMINI_API_KEY", "g")];
        for (provider, key) in [
            (ProviderKind::Claude, "a"),
            (ProviderKind::Codex, "o"),
            (ProviderKind::Gemini, "g"),
            (ProviderKind::Opencode, "a"),
            (ProviderKind::Agent, "o"),
        ] {
            let chosen = choose(&launch(provider, &env, None)).unwrap();
            let http = chosen.http().unwrap();
            assert_eq!(http.api_key.as_ref().unwrap().expose(), key, "{provider:?}");
        }
        let env = [("CLAUDE_CODE_OAUTH_TOKEN", "t")];
        let chosen = choose(&launch(ProviderKind::Claude, &env, None)).unwrap();
        assert_eq!(chosen.http().unwrap().auth, Auth::Oauth);
    }

    #[test]
    fn a_model_by_another_name_is_mapped() {
        let mut launch = launch(ProviderKind::Claude, &[("ANTHROPIC_API_KEY", "a")], None);
        launch.harness.model = Some("large".to_owned());
        launch.harness.model_map =
            BTreeMap::from([("large".to_owned(), "claude-opus-5-5".to_owned())]);
        assert_eq!(choose(&launch).unwrap().http().unwrap().model, "claude-opus-5-5");
        launch.harness.model = Some("other".to_owned());
        assert_eq!(choose(&launch).unwrap().http().unwrap().model, "other");
    }

    #[test]
    fn without_any_endpoint_the_places_are_named() {
        let failure = choose(&launch(ProviderKind::Gemini, &[], None)).unwrap_err();
        assert_eq!(failure.reason, FailureReason::AuthMissing);
        for place in ["config.model_id", "GEMINI_API_KEY", "[providers.gemini]"] {
            assert!(failure.message.contains(place), "{}", failure.message);
        }
    }
}
