//! Which model answers the built-in agent.

use protocol::{
    failure::FailureReason,
    secret::Secret,
    sidecar::Launch,
    spec::{Endpoint, HttpEndpoint},
};

use crate::{
    agent::{model::Model, remote::Remote, script::Script, wire::Wire},
    endpoint::{is_own, value},
    failure::Failure,
};

/// # Errors
/// `agent_invocation`: the endpoint cannot be used as it stands.
pub(super) fn model(launch: &Launch, endpoint: Endpoint) -> Result<Model, Failure> {
    let unusable = |message: String| Failure::new(FailureReason::AgentInvocation, message);
    match endpoint {
        Endpoint::Scripted { script } => Script::read(&script, &launch.prompt)
            .map(Model::Scripted)
            .map_err(|error| unusable(format!("the script of turns: {error}"))),
        Endpoint::OpenaiChat(http) => remote(launch, Wire::Chat, &http),
        Endpoint::OpenaiResponses(http) => remote(launch, Wire::Responses, &http),
        Endpoint::Anthropic(http) => remote(launch, Wire::Anthropic, &http),
        Endpoint::Gemini(_) => {
            Err(unusable("the agent does not speak the dialect of this endpoint".to_owned()))
        }
    }
}

fn remote(launch: &Launch, wire: Wire, http: &HttpEndpoint) -> Result<Model, Failure> {
    if http.model.is_empty() {
        return Err(Failure::new(
            FailureReason::AgentInvocation,
            "no model named: set OPENAI_MODEL or ANTHROPIC_MODEL among the environment's values, or ask for one in \
             the run",
        ));
    }
    Ok(Model::Remote(Box::new(Remote::new(wire, http, extra_ca(launch))?)))
}

/// Further certificate authorities, for the environment's own endpoint only: its set-up commands decide where a
/// name leads, and with an authority of theirs the worker's key would follow.
fn extra_ca(launch: &Launch) -> Option<&str> {
    value(launch, "OZMA_EXTRA_CA_FILE").filter(|_| is_own(launch)).map(Secret::expose)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protocol::spec::HarnessSpec;

    use super::*;

    #[test]
    fn the_environment_vouches_for_its_own_endpoint_only() {
        let launch = |env: &[(&str, &str)]| Launch {
            prompt: String::new(),
            directory: "/".to_owned(),
            state_directory: "/".to_owned(),
            registry: false,
            session_directory: String::new(),
            env: env
                .iter()
                .map(|(name, text)| ((*name).to_owned(), Secret::new(*text)))
                .collect::<BTreeMap<_, _>>(),
            harness: HarnessSpec {
                endpoint: Some(Endpoint::OpenaiChat(HttpEndpoint::default())),
                ..HarnessSpec::default()
            },
        };
        let ca = ("OZMA_EXTRA_CA_FILE", "/ca.pem");
        assert_eq!(extra_ca(&launch(&[ca])), None);
        let own = launch(&[ca, ("OPENAI_BASE_URL", "https://mine.example")]);
        assert_eq!(extra_ca(&own), Some("/ca.pem"));
    }
}
