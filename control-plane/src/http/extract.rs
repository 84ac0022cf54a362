//! Parsed input. Whatever cannot be read answers in our envelope, naming the field and the rule.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderValue, request::Parts},
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};
use protocol::ids::{ArtifactUid, EnvironmentId, MAX_ID_BYTES, RunId, TenantId, WorkerId};
use serde::de::DeserializeOwned;

use super::{body, error::ApiError, params::Params};
use crate::state::AppState;

/// Response header that names what was sent and has no effect.
pub(crate) const IGNORED: &str = "x-ozma-ignored";

/// Most names in [`IGNORED`]; what comes after is told by `…`.
const MAX_IGNORED: usize = 20;

/// A JSON body, and the paths of the fields in it that `T` does not know.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T, pub(crate) Ignored);

impl<T: DeserializeOwned> FromRequest<AppState> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ApiError> {
        let bytes = body::read(request.into_body(), app.max_body_bytes).await?;
        read_json(&bytes)
    }
}

/// Reads a body whatever its content type says: the SDKs do not always say one.
pub(super) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<Body<T>, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::invalid("body", format!("must be UTF-8; it is not at byte {at}"))
    })?;
    let mut ignored = Ignored::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let read = serde_ignored::deserialize(
        serde_path_to_error::Deserializer::new(&mut json, &mut track),
        // An optional field's own step in the path says nothing to people.
        |path| ignored.0.push(path.to_string().replace(".?", "")),
    );
    let value: T =
        read.map_err(|error: serde_json::Error| refusal(&track.path().to_string(), &error))?;
    json.end().map_err(|error| refusal(".", &error))?;
    // serde would also read an array as the fields in order.
    if !text.trim_start().starts_with('{') {
        return Err(ApiError::invalid("body", "must be a JSON object"));
    }
    Ok(Body(value, ignored))
}

/// What serde says, as field and rule.
fn refusal(path: &str, error: &serde_json::Error) -> ApiError {
    let said = error.to_string();
    if error.is_syntax() || error.is_eof() {
        return ApiError::invalid("body", format!("must be JSON: {said}"));
    }
    // The place is the path's business; line and column of a body in one line help nobody.
    let rule = said.rsplit_once(" at line ").map_or(said.as_str(), |(rule, _)| rule);
    let path = path.trim_start_matches('.').trim_end_matches(".?");
    let field = match (path, quoted(rule)) {
        (_, Some(name)) if path.is_empty() || path == "?" => name.to_owned(),
        (_, Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
        ("" | "?", None) => "body".to_owned(),
        _ => path.to_owned(),
    };
    ApiError::invalid(field, expected(rule))
}

/// What serde expected, without what it found: that may be a secret in the wrong place.
fn expected(rule: &str) -> String {
    let found = ["invalid type: ", "invalid value: ", "unknown variant "];
    if !found.iter().any(|start| rule.starts_with(start)) {
        return rule.to_owned();
    }
    match rule.rsplit_once(", expected ") {
        Some((_, what)) if what.starts_with("struct ") => "must be an object".to_owned(),
        Some((_, what)) => format!("must be {what}"),
        None => "is of another form".to_owned(),
    }
}

/// The field in "missing field `name`" and "unknown field `nmae`, expected …".
fn quoted(rule: &str) -> Option<&str> {
    let known = ["missing field `", "unknown field `", "duplicate field `"];
    let rest = known.iter().find_map(|start| rule.strip_prefix(start))?;
    rest.split('`').next()
}

/// What was sent and has no effect: it is tolerated, and told in a header, so that a typo is still visible.
#[derive(Debug, Default)]
pub(crate) struct Ignored(Vec<String>);

impl Ignored {
    pub(crate) fn add(&mut self, names: impl IntoIterator<Item = String>) {
        self.0.extend(names);
    }
}

impl From<Params> for Ignored {
    /// Parameters that nobody asked for.
    fn from(params: Params) -> Self {
        Self(params.rest().collect())
    }
}

impl IntoResponseParts for Ignored {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-[]".contains(c);
        let mut names: Vec<String> = self
            .0
            .iter()
            .take(MAX_IGNORED)
            .map(|name| name.chars().take(64).map(|c| if plain(c) { c } else { '?' }).collect())
            .collect();
        if self.0.len() > MAX_IGNORED {
            names.push("...".to_owned());
        }
        if let (false, Ok(value)) = (names.is_empty(), HeaderValue::from_str(&names.join(", "))) {
            parts.headers_mut().insert(IGNORED, value);
        }
        Ok(parts)
    }
}

/// A JSON answer.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// An id in the path. A text that is no id is nobody's, and answers as an unknown one.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

/// Ids that stand in paths, with the word for what they name.
pub(crate) trait PathId: TryFrom<String> {
    const WHAT: &'static str;
}

impl PathId for RunId {
    const WHAT: &'static str = "run";
}

impl PathId for TenantId {
    const WHAT: &'static str = "tenant";
}

impl PathId for WorkerId {
    const WHAT: &'static str = "worker";
}

impl PathId for EnvironmentId {
    const WHAT: &'static str = "environment";
}

impl PathId for ArtifactUid {
    const WHAT: &'static str = "artifact";
}

impl PathId for TokenId {
    const WHAT: &'static str = "token";
}

/// The id of an issued token.
#[derive(Debug)]
pub(crate) struct TokenId(pub(crate) String);

impl TryFrom<String> for TokenId {
    type Error = ();

    fn try_from(text: String) -> Result<Self, ()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if text.len() <= MAX_ID_BYTES && text.bytes().all(plain) { Ok(Self(text)) } else { Err(()) }
    }
}

impl<T: PathId + Send> FromRequestParts<AppState> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let axum::extract::Path(text) =
            axum::extract::Path::<String>::from_request_parts(parts, app)
                .await
                .map_err(|_| ApiError::NotFound(T::WHAT))?;
        T::try_from(text).map(Self).map_err(|_| ApiError::NotFound(T::WHAT))
    }
}

#[cfg(test)]
mod tests {
    use protocol::api::{environments::EnvironmentBody, runs::CreateRun};

    use super::*;

    fn refused<T: DeserializeOwned + std::fmt::Debug>(body: &[u8]) -> (String, String) {
        match read_json::<T>(body).unwrap_err() {
            ApiError::Invalid { field, rule } => (field.unwrap_or_default(), rule),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_the_rule() {
        let cases: [(&str, &str); 6] = [
            (r#"{"prompt":1}"#, "prompt"),
            (r#"{"config":{"harness":{"type":[]}}}"#, "config.harness.type"),
            (r#"{"metadata":{"a":1}}"#, "metadata.a"),
            (r#"{"prompt":"a","prompt":"b"}"#, "prompt"),
            ("[]x", "body"),
            ("{", "body"),
        ];
        for (body, field) in cases {
            assert_eq!(refused::<CreateRun>(body.as_bytes()).0, field, "{body}");
        }
        let cases: [(&str, &str); 4] = [
            (r#"{"docker_image":"x"}"#, "name"),
            (r#"{"name":"a","docker_image":"x","repo":[]}"#, "repo"),
            (r#"{"name":"a","docker_image":"x","repos":["a/b",{"url":1}]}"#, "repos[1].url"),
            (r#"{"name":"a","docker_image":"x","network":"lan"}"#, "network"),
        ];
        for (body, field) in cases {
            assert_eq!(refused::<EnvironmentBody>(body.as_bytes()).0, field, "{body}");
        }
        let (field, rule) = refused::<CreateRun>(b"{\"prompt\":\"\xff\"}");
        assert_eq!(
            (field.as_str(), rule.as_str()),
            ("body", "must be UTF-8; it is not at byte 11")
        );
    }

    #[test]
    fn a_refusal_says_what_was_expected_and_not_what_was_found() {
        for (body, rule) in [
            (r#"{"env_vars":"hunter2, expected luck at line 7"}"#, "must be a map"),
            (r#"{"env_vars":{"A":["hunter2"]}}"#, "must be a string"),
            (r#"{"network":"hunter2"}"#, "must be `open` or `none`"),
            (r#"{"timeout_secs":-31337}"#, "must be u64"),
            (r#"{"harness":"hunter2"}"#, "must be an object"),
            (r#""hunter2""#, "must be an object"),
        ] {
            assert_eq!(refused::<EnvironmentBody>(body.as_bytes()).1, rule, "{body}");
        }
    }

    #[test]
    fn a_token_id_is_plain() {
        assert!(TokenId::try_from("tok_0198c5f0".to_owned()).is_ok());
        for bad in ["\0", "a/b", &"x".repeat(MAX_ID_BYTES + 1)] {
            assert!(TokenId::try_from(bad.to_owned()).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn unknown_fields_of_a_run_are_named() {
        let body = br#"{"prompt":"x","promt":1,"config":{"modle":"y"}}"#;
        let Body(_, ignored) = read_json::<CreateRun>(body).unwrap();
        assert_eq!(ignored.0, ["promt", "config.modle"]);
    }
}
