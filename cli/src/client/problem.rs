//! The plane's errors (problem+json) as failures of the command. Pure.

use reqwest::StatusCode;
use serde::Deserialize;

use crate::{
    failure::{Failure, code},
    text::{printable, shorten},
};

/// Most bytes of an error's body that are read; of a longer one only the status is told.
pub(crate) const MAX_BYTES: usize = 64 << 10;

/// Longest detail that is shown, in characters.
const MAX_DETAIL: usize = 2_000;

const HOW_TO_NAME_AN_IMAGE: &str = "name an environment with --env, or an image with --image";

/// What we read of a problem; everything may be missing.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    field: Option<String>,
}

/// The failure for an answer that is no success. `body` may be anything.
pub(crate) fn failure(status: StatusCode, body: &[u8], url: &str) -> Failure {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let api_code = problem.kind.trim_end_matches('/').rsplit('/').next().filter(|c| !c.is_empty());
    let no_image = status == StatusCode::BAD_REQUEST
        && problem.field.as_deref() == Some("config.environment_id");
    let said = problem.detail.filter(|d| !d.is_empty()).unwrap_or(problem.title);
    let message = match (said.is_empty(), problem.field) {
        (false, Some(field)) if !said.contains(&field) => {
            shorten(&printable(&format!("{field}: {said}")), MAX_DETAIL)
        }
        (false, _) => shorten(&printable(&said), MAX_DETAIL),
        (true, _) => format!("{url} answered {status}"),
    };
    let exit_code = match status {
        StatusCode::BAD_REQUEST
        | StatusCode::NOT_FOUND
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => code::USAGE,
        _ => code::PLATFORM,
    };
    let mut failure = Failure::new(exit_code, message);
    failure.api_code = Some(api_code.map_or_else(|| status.as_u16().to_string(), printable));
    failure.status = Some(status.as_u16());
    let hint = if no_image { Some(HOW_TO_NAME_AN_IMAGE) } else { hint(status) };
    failure.hint = hint.map(str::to_owned);
    failure
}

fn hint(status: StatusCode) -> Option<&'static str> {
    Some(match status {
        StatusCode::UNAUTHORIZED => {
            "the token is not accepted: keep the right one with `ozma login`, or ask an admin for one (`ozma token create`)"
        }
        StatusCode::FORBIDDEN => {
            "the token has not this right: `ozma token` and global environments need the admin key, runs a tenant's token; give it with --token"
        }
        StatusCode::NOT_FOUND => {
            "it does not exist or belongs to another tenant; `ozma runs list` and `ozma env list` show what is yours"
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            "send less: a long prompt may name a file in the repository instead"
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "try again in a moment",
        status if status.is_redirection() => {
            "the address answers with a redirect: use the one it points to"
        }
        status if status.is_server_error() => {
            "the plane's log says more; `ozma doctor` looks for the usual causes"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_an_image_is_told_how_to_name_one() {
        let body = br#"{"type":"/e/invalid_request","detail":"is required","field":"config.environment_id"}"#;
        let failure = failure(StatusCode::BAD_REQUEST, body, "http://p");
        assert_eq!(failure.hint.as_deref(), Some(HOW_TO_NAME_AN_IMAGE));
    }

    #[test]
    fn a_problem_is_told_with_its_code_and_a_way_on() {
        let body = br#"{"type":"https://x/errors/resource_not_found","title":"Not found","status":404,"detail":"no such run\u001b[2J"}"#;
        let failure = failure(StatusCode::NOT_FOUND, body, "http://x");
        let text = failure.to_string();
        assert!(text.starts_with("error: no such run␛[2J (resource_not_found)\nhint: "), "{text}");
        assert_eq!(failure.exit_code, 2);
    }

    #[test]
    fn what_is_no_problem_is_told_by_its_status() {
        let failure = failure(StatusCode::BAD_GATEWAY, b"<html>", "http://x");
        assert!(failure.to_string().starts_with("error: http://x answered 502 Bad Gateway (502)"));
        assert_eq!(failure.exit_code, 3);
    }
}
