//! Which model answers: the environment's values first, then what the worker filled in.
//! A key of the worker must never go to an address the environment chose, nor to a server it vouches for.

use std::collections::BTreeMap;

use protocol::{failure::FailureReason, secret::Secret, sidecar::Launch, spec::Endpoint};

use crate::{
    agent::{model::Model, openai::OpenaiChat, script::Script},
    failure::Failure,
};

const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

/// # Errors
/// `auth_missing` when there is no endpoint, `agent_invocation` when one cannot be used as it stands.
pub(super) fn choose(launch: &Launch) -> Result<Model, Failure> {
    match endpoint(launch)? {
        Endpoint::Scripted { script } => {
            Script::read(&script, &launch.prompt).map(Model::Scripted).map_err(|error| {
                Failure::new(
                    FailureReason::AgentInvocation,
                    format!("the script of turns: {error}"),
                )
            })
        }
        Endpoint::OpenaiChat { base_url, api_key, headers, model } => {
            OpenaiChat::new(&base_url, api_key, &headers, model, extra_ca(launch))
                .map(Model::OpenaiChat)
        }
    }
}

fn endpoint(launch: &Launch) -> Result<Endpoint, Failure> {
    let asked = launch.harness.model.clone().filter(|model| !model.is_empty());
    let named =
        asked.or_else(|| value(launch, "OPENAI_MODEL").map(|model| model.expose().to_owned()));
    let key = value(launch, "OPENAI_API_KEY");
    let base_url = value(launch, "OPENAI_BASE_URL");
    if !own(launch) {
        return match launch.harness.endpoint.clone() {
            Some(Endpoint::OpenaiChat { base_url, api_key, headers, model }) => {
                Ok(Endpoint::OpenaiChat {
                    base_url,
                    api_key,
                    headers,
                    model: named.unwrap_or(model),
                })
            }
            Some(scripted) => Ok(scripted),
            None => Err(Failure::new(
                FailureReason::AuthMissing,
                "no model for the agent: set OPENAI_API_KEY (and OPENAI_BASE_URL, OPENAI_MODEL) among the \
                 environment's values, or OPENAI_API_KEY, OZ_PROVIDER_* or [providers.agent] at the worker",
            )),
        };
    }
    let of_worker = match &launch.harness.endpoint {
        Some(Endpoint::OpenaiChat { model, .. }) => Some(model.clone()),
        _ => None,
    };
    let Some(model) = named.or(of_worker) else {
        return Err(Failure::new(
            FailureReason::AgentInvocation,
            "no model named: set OPENAI_MODEL among the environment's values, or ask for one in the run",
        ));
    };
    Ok(Endpoint::OpenaiChat {
        base_url: base_url.map_or(DEFAULT_BASE_URL, Secret::expose).to_owned(),
        api_key: key.cloned(),
        headers: BTreeMap::new(),
        model,
    })
}

/// Whether the environment names its own endpoint.
fn own(launch: &Launch) -> bool {
    ["OPENAI_API_KEY", "OPENAI_BASE_URL"].iter().any(|name| value(launch, name).is_some())
}

/// Further certificate authorities, for the environment's own endpoint only: its set-up commands decide where a
/// name leads, and with an authority of theirs the worker's key would follow.
fn extra_ca(launch: &Launch) -> Option<&str> {
    value(launch, "OZMA_EXTRA_CA_FILE").filter(|_| own(launch)).map(Secret::expose)
}

/// A value of the environment that says something.
fn value<'a>(launch: &'a Launch, name: &str) -> Option<&'a Secret> {
    launch.env.get(name).filter(|value| !value.expose().is_empty())
}

#[cfg(test)]
mod tests {
    use protocol::spec::HarnessSpec;

    use super::*;

    fn launch(env: &[(&str, &str)], endpoint: Option<Endpoint>) -> Launch {
        Launch {
            prompt: String::new(),
            directory: "/".to_owned(),
            state_directory: "/".to_owned(),
            env: env.iter().map(|(name, text)| ((*name).to_owned(), Secret::new(*text))).collect(),
            harness: HarnessSpec { endpoint, ..HarnessSpec::default() },
        }
    }

    fn of_worker() -> Endpoint {
        Endpoint::OpenaiChat {
            base_url: "https://worker.example/v1".to_owned(),
            api_key: Some(Secret::new("worker's")),
            headers: BTreeMap::new(),
            model: "m".to_owned(),
        }
    }

    #[test]
    fn the_workers_key_stays_with_the_workers_address() {
        let env = [("OPENAI_BASE_URL", "https://evil.example")];
        let chosen = endpoint(&launch(&env, Some(of_worker()))).unwrap();
        let Endpoint::OpenaiChat { base_url, api_key, model, .. } = chosen else { panic!() };
        assert_eq!((base_url.as_str(), api_key, model.as_str()), (env[0].1, None, "m"));

        let chosen = endpoint(&launch(&[("OPENAI_API_KEY", "mine")], Some(of_worker()))).unwrap();
        let Endpoint::OpenaiChat { base_url, .. } = chosen else { panic!() };
        assert_eq!(base_url, DEFAULT_BASE_URL);
    }

    #[test]
    fn the_environment_vouches_for_its_own_endpoint_only() {
        let ca = ("OZMA_EXTRA_CA_FILE", "/ca.pem");
        assert_eq!(extra_ca(&launch(&[ca], Some(of_worker()))), None);
        let own = launch(&[ca, ("OPENAI_BASE_URL", "https://mine.example")], Some(of_worker()));
        assert_eq!(extra_ca(&own), Some("/ca.pem"));
    }

    #[test]
    fn without_any_endpoint_the_places_are_named() {
        let failure = endpoint(&launch(&[], None)).unwrap_err();
        assert_eq!(failure.reason, FailureReason::AuthMissing);
        assert!(failure.message.contains("OPENAI_API_KEY"));
        let failure = endpoint(&launch(&[("OPENAI_API_KEY", "k")], None)).unwrap_err();
        assert!(failure.message.contains("OPENAI_MODEL"));
    }
}
