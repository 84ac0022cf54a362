//! The further names by which an environment tells the built-in agent who answers: `OZ_PROVIDER_*`, and those of the
//! smaller runner it replaces, `WORKBENCH_*`. Every value here is the environment's own; nothing of the worker's is
//! mixed in but the name of a model.

use protocol::{
    failure::FailureReason,
    secret::Secret,
    sidecar::Launch,
    spec::{Auth, Endpoint, HttpEndpoint},
};

use super::{ANTHROPIC, OPENAI_CHAT, value};
use crate::failure::Failure;

/// Who answers, by the name of the smaller runner.
const WORKBENCH: &str = "WORKBENCH_PROVIDER";

/// What [`WORKBENCH`] may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workbench {
    OpenaiRemote,
    OpenaiLocal,
    OpenaiOauth,
    Anthropic,
    ClaudeCode,
}

/// An endpoint with what the environment calls its model.
pub(super) struct Own {
    pub(super) endpoint: fn(HttpEndpoint) -> Endpoint,
    pub(super) http: HttpEndpoint,
}

/// What `WORKBENCH_PROVIDER=claude-code` asks for: the claude provider in place of the built-in agent, by its own names.
pub(crate) fn redirected(mut launch: Launch) -> Launch {
    if !launch.harness.redirect_to_claude_code(&launch.env) {
        return launch;
    }
    for (from, to) in [
        ("WORKBENCH_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        ("WORKBENCH_CLAUDE_MODEL", "ANTHROPIC_MODEL"),
    ] {
        if let Some(given) = value(&launch, from).cloned() {
            launch.env.insert(to.to_owned(), given);
        }
    }
    launch
}

/// The environment's own endpoint by these names, if it uses any.
///
/// # Errors
/// `auth_missing` where one is named and has no key, `agent_invocation` where a name is none of those there are.
pub(super) fn own(launch: &Launch) -> Result<Option<Own>, Failure> {
    match workbench(launch)? {
        Some(Workbench::Anthropic) => anthropic(launch).map(Some),
        Some(Workbench::ClaudeCode) => Ok(None),
        Some(
            openai @ (Workbench::OpenaiRemote | Workbench::OpenaiLocal | Workbench::OpenaiOauth),
        ) => self::openai(launch, openai).map(Some),
        None => match oz(launch)? {
            Some(own) => Ok(Some(own)),
            None if any(launch, &["WORKBENCH_OPENAI_API_KEY", "WORKBENCH_OPENAI_BASE_URL"]) => {
                openai(launch, Workbench::OpenaiRemote).map(Some)
            }
            None if any(launch, &["WORKBENCH_ANTHROPIC_API_KEY"]) => anthropic(launch).map(Some),
            None => Ok(None),
        },
    }
}

fn workbench(launch: &Launch) -> Result<Option<Workbench>, Failure> {
    let Some(name) = value(launch, WORKBENCH) else { return Ok(None) };
    Ok(Some(match name.expose().trim() {
        "openai-remote" => Workbench::OpenaiRemote,
        "openai-local" => Workbench::OpenaiLocal,
        "openai-oauth" => Workbench::OpenaiOauth,
        "anthropic" => Workbench::Anthropic,
        "claude-code" => Workbench::ClaudeCode,
        other => {
            return Err(unknown(
                WORKBENCH,
                other,
                "openai-remote, openai-local, openai-oauth, anthropic or claude-code",
            ));
        }
    }))
}

fn openai(launch: &Launch, kind: Workbench) -> Result<Own, Failure> {
    const KEY: &str = "WORKBENCH_OPENAI_API_KEY";
    let key = first(launch, &[KEY, "OPENAI_API_KEY"]);
    let base_url = first(launch, &["WORKBENCH_OPENAI_BASE_URL", "OPENAI_BASE_URL"]);
    let local = kind == Workbench::OpenaiLocal;
    let open = flag(launch, "WORKBENCH_OPENAI_ALLOW_NOAUTH")?.unwrap_or(local);
    match (kind, key, base_url) {
        (Workbench::OpenaiOauth, None, _) => Err(missing(&format!(
            "openai-oauth needs the access token of a login, in {KEY}: it goes out as a bearer token to the responses \
             of WORKBENCH_OPENAI_BASE_URL"
        ))),
        (Workbench::OpenaiLocal, _, None) => Err(Failure::new(
            FailureReason::AgentInvocation,
            "openai-local needs the address of its server in WORKBENCH_OPENAI_BASE_URL, as this container reaches it, \
             http://host:11434/v1 say",
        )),
        (_, None, _) if !open => Err(missing(&format!(
            "a key is needed in {KEY}, or WORKBENCH_OPENAI_ALLOW_NOAUTH=1 for a server that asks for none"
        ))),
        _ => {
            let oauth = kind == Workbench::OpenaiOauth;
            Ok(Own {
                endpoint: if oauth { Endpoint::OpenaiResponses } else { Endpoint::OpenaiChat },
                http: HttpEndpoint {
                    base_url: base_url
                        .map_or(OPENAI_CHAT.default_base_url, Secret::expose)
                        .to_owned(),
                    api_key: key.cloned(),
                    auth: if oauth { Auth::Bearer } else { Auth::ApiKey },
                    model: text(launch, &["WORKBENCH_OPENAI_MODEL", "OPENAI_MODEL"]),
                    ..HttpEndpoint::default()
                },
            })
        }
    }
}

fn anthropic(launch: &Launch) -> Result<Own, Failure> {
    const KEY: &str = "WORKBENCH_ANTHROPIC_API_KEY";
    let Some(key) = first(launch, &[KEY, "ANTHROPIC_API_KEY"]) else {
        return Err(missing(&format!("anthropic needs a key in {KEY}")));
    };
    let base_url = first(launch, ANTHROPIC.base_urls);
    Ok(Own {
        endpoint: Endpoint::Anthropic,
        http: HttpEndpoint {
            base_url: base_url.map_or(ANTHROPIC.default_base_url, Secret::expose).to_owned(),
            api_key: Some(key.clone()),
            model: text(launch, &["WORKBENCH_ANTHROPIC_MODEL", "ANTHROPIC_MODEL"]),
            ..HttpEndpoint::default()
        },
    })
}

/// `OZ_PROVIDER_<KEY>_TYPE` and its like, for the key that `OZ_DEFAULT_PROVIDER` names or `CUSTOM`, then the same
/// without a key.
fn oz(launch: &Launch) -> Result<Option<Own>, Failure> {
    let key = value(launch, "OZ_DEFAULT_PROVIDER").map_or("custom", Secret::expose);
    let key = key.trim().to_uppercase();
    let own = |what: &str| {
        value(launch, &format!("OZ_PROVIDER_{key}_{what}"))
            .or_else(|| value(launch, &format!("OZ_PROVIDER_{what}")))
    };
    let (api_key, base_url) = (own("API_KEY"), own("BASE_URL"));
    if api_key.is_none() && base_url.is_none() {
        return Ok(None);
    }
    let kind = own("TYPE").map_or("openai_compatible", Secret::expose).trim();
    let (endpoint, vendor): (fn(HttpEndpoint) -> Endpoint, _) = match kind {
        "openai_compatible" | "openai" => (Endpoint::OpenaiChat, OPENAI_CHAT),
        "openai_responses" => (Endpoint::OpenaiResponses, OPENAI_CHAT),
        "anthropic" => (Endpoint::Anthropic, ANTHROPIC),
        other => {
            let accepted = "openai_compatible, openai_responses or anthropic";
            return Err(unknown("OZ_PROVIDER_TYPE", other, accepted));
        }
    };
    let model = own("MODEL").or_else(|| value(launch, "OZ_MODEL"));
    Ok(Some(Own {
        endpoint,
        http: HttpEndpoint {
            base_url: base_url.map_or(vendor.default_base_url, Secret::expose).to_owned(),
            api_key: api_key.cloned(),
            model: model.map_or_else(String::new, |model| model.expose().to_owned()),
            ..HttpEndpoint::default()
        },
    }))
}

fn first<'a>(launch: &'a Launch, names: &[&str]) -> Option<&'a Secret> {
    names.iter().find_map(|name| value(launch, name))
}

fn any(launch: &Launch, names: &[&str]) -> bool {
    first(launch, names).is_some()
}

fn text(launch: &Launch, names: &[&str]) -> String {
    first(launch, names).map_or_else(String::new, |text| text.expose().trim().to_owned())
}

fn flag(launch: &Launch, name: &str) -> Result<Option<bool>, Failure> {
    let Some(word) = value(launch, name) else { return Ok(None) };
    match word.expose().trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(Some(true)),
        "0" | "false" | "no" | "off" => Ok(Some(false)),
        other => Err(unknown(name, other, "1, 0, true or false")),
    }
}

fn unknown(name: &str, given: &str, accepted: &str) -> Failure {
    let end = given.floor_char_boundary(64);
    let what = format!("{name} is {:?}, and may be {accepted}", &given[..end]);
    Failure::new(FailureReason::AgentInvocation, what)
}

fn missing(what: &str) -> Failure {
    Failure::new(FailureReason::AuthMissing, format!("no credential for the agent's model: {what}"))
}

#[cfg(test)]
mod tests {
    use protocol::spec::{HarnessSpec, ProviderKind};

    use super::*;
    use crate::endpoint::{choose, is_own};

    const P: &str = "WORKBENCH_PROVIDER";
    const URL: (&str, &str) = ("WORKBENCH_OPENAI_BASE_URL", "http://gpu:8000/v1/");
    const KEY: &str = "WORKBENCH_OPENAI_API_KEY";
    const OPEN: &str = "WORKBENCH_OPENAI_ALLOW_NOAUTH";
    const OZ_KEY: (&str, &str) = ("OZ_PROVIDER_API_KEY", "k");

    fn launch(env: &[(&str, &str)]) -> Launch {
        Launch {
            prompt: String::new(),
            directory: "/".to_owned(),
            state_directory: "/".to_owned(),
            registry: false,
            session_directory: String::new(),
            env: env.iter().map(|(name, text)| ((*name).to_owned(), Secret::new(*text))).collect(),
            harness: HarnessSpec {
                endpoint: Some(Endpoint::OpenaiChat(HttpEndpoint {
                    base_url: "https://worker.example/v1".to_owned(),
                    api_key: Some(Secret::new("worker's")),
                    model: "of the worker".to_owned(),
                    ..HttpEndpoint::default()
                })),
                ..HarnessSpec::default()
            },
        }
    }

    /// Dialect, address, key and model; or the reason and message.
    fn chosen(env: &[(&str, &str)]) -> String {
        let launch = launch(env);
        match choose(&launch) {
            Ok(endpoint) => {
                assert!(is_own(&launch));
                let value = serde_json::to_value(&endpoint).unwrap();
                let http = endpoint.http().unwrap();
                let key = http.api_key.as_ref().map_or("no key", Secret::expose);
                assert_ne!(key, "worker's");
                let dialect = value["dialect"].as_str().unwrap();
                format!("{dialect} {} {key} {}", http.base_url, http.model)
            }
            Err(failure) => format!("{}: {}", failure.reason, failure.message),
        }
    }

    #[test]
    fn the_names_of_the_smaller_runner_say_who_answers() {
        let expected = expect_test::expect![[r#"
            openai_chat https://api.openai.com/v1 k m
            openai_chat http://gpu:8000/v1 no key of the worker
            openai_chat http://gpu:8000/v1 no key of the worker
            openai_responses https://api.openai.com/v1 t of the worker
            anthropic https://api.anthropic.com k m
            openai_chat https://api.openai.com/v1 k of the worker
            anthropic https://api.anthropic.com k of the worker
            auth_missing: no credential for the agent's model: a key is needed in WORKBENCH_OPENAI_API_KEY, or WORKBENCH_OPENAI_ALLOW_NOAUTH=1 for a server that asks for none
            auth_missing: no credential for the agent's model: openai-oauth needs the access token of a login, in WORKBENCH_OPENAI_API_KEY: it goes out as a bearer token to the responses of WORKBENCH_OPENAI_BASE_URL
            agent_invocation: openai-local needs the address of its server in WORKBENCH_OPENAI_BASE_URL, as this container reaches it, http://host:11434/v1 say
            auth_missing: no credential for the agent's model: anthropic needs a key in WORKBENCH_ANTHROPIC_API_KEY
            agent_invocation: WORKBENCH_PROVIDER is "gpt", and may be openai-remote, openai-local, openai-oauth, anthropic or claude-code
            agent_invocation: WORKBENCH_OPENAI_ALLOW_NOAUTH is "maybe", and may be 1, 0, true or false"#]];
        let all: [&[(&str, &str)]; 13] = [
            &[(P, "openai-remote"), (KEY, "k"), ("WORKBENCH_OPENAI_MODEL", "m")],
            &[(P, "openai-remote"), URL, (OPEN, "1")],
            &[(P, "openai-local"), URL],
            &[(P, "openai-oauth"), (KEY, "t")],
            &[
                (P, "anthropic"),
                ("WORKBENCH_ANTHROPIC_API_KEY", "k"),
                ("WORKBENCH_ANTHROPIC_MODEL", "m"),
            ],
            &[(KEY, "k")],
            &[("WORKBENCH_ANTHROPIC_API_KEY", "k")],
            &[(P, "openai-remote")],
            &[(P, "openai-oauth")],
            &[(P, "openai-local")],
            &[(P, "anthropic"), ("OPENAI_API_KEY", "k")],
            &[(P, "gpt")],
            &[(P, "openai-local"), URL, (OPEN, "maybe")],
        ];
        expected.assert_eq(&all.map(chosen).join("\n"));
    }

    #[test]
    fn the_shared_names_do_too_and_the_one_with_a_key_first() {
        let expected = expect_test::expect![[r#"
            openai_chat https://api.openai.com/v1 k of the worker
            openai_chat https://evil.example no key of the worker
            openai_responses https://api.openai.com/v1 k m
            anthropic https://glm.example k2 general
            agent_invocation: OZ_PROVIDER_TYPE is "cli", and may be openai_compatible, openai_responses or anthropic"#]];
        let all: [&[(&str, &str)]; 5] = [
            &[OZ_KEY],
            &[("OZ_PROVIDER_BASE_URL", "https://evil.example/")],
            &[OZ_KEY, ("OZ_PROVIDER_TYPE", "openai_responses"), ("OZ_PROVIDER_MODEL", "m")],
            &[
                OZ_KEY,
                ("OZ_DEFAULT_PROVIDER", "glm"),
                ("OZ_PROVIDER_GLM_API_KEY", "k2"),
                ("OZ_PROVIDER_GLM_TYPE", "anthropic"),
                ("OZ_PROVIDER_GLM_BASE_URL", "https://glm.example"),
                ("OZ_MODEL", "general"),
            ],
            &[OZ_KEY, ("OZ_PROVIDER_TYPE", "cli")],
        ];
        expected.assert_eq(&all.map(chosen).join("\n"));
    }

    #[test]
    fn claude_code_means_that_provider_and_takes_no_key_of_another_address() {
        let env = [
            (WORKBENCH, "claude-code"),
            ("WORKBENCH_ANTHROPIC_API_KEY", "k"),
            ("WORKBENCH_CLAUDE_MODEL", "opus"),
        ];
        // The worker may have looked already.
        let mut prepared = launch(&env);
        assert!(prepared.harness.redirect_to_claude_code(&prepared.env));
        assert_eq!(redirected(prepared).env, redirected(launch(&env)).env);
        let launched = redirected(launch(&env));
        assert_eq!(launched.harness.provider, ProviderKind::Claude);
        assert_eq!(launched.harness.endpoint, None);
        let endpoint = choose(&launched).unwrap();
        let http = endpoint.http().unwrap();
        assert_eq!(
            (http.base_url.as_str(), http.model.as_str()),
            ("https://api.anthropic.com", "opus")
        );
        assert_eq!(http.api_key.as_ref().unwrap().expose(), "k");
        let none = redirected(launch(&env[..1]));
        assert_eq!(choose(&none).unwrap_err().reason, FailureReason::AuthMissing);
    }
}
