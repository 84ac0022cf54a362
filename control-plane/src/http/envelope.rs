//! What surrounds every request: its id, a span, a bound on headers, the numbers, and one form for every error.
//! It must never look into bodies.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use protocol::api::problem::{self, Problem};
use tracing::Instrument;

use super::error::ApiError;
use crate::state::AppState;

/// Most bytes of headers; more are answered with 431. The HTTP library answers so by itself beyond 400 KB.
const MAX_HEADER_BYTES: usize = 32 << 10;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const OZ_REQUEST_ID: HeaderName = HeaderName::from_static("x-oz-request-id");

/// The id of a request, as in `X-Request-Id` of its answer and in the log.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// The middleware around all routes.
pub(crate) async fn envelope(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let instance = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let span =
        tracing::info_span!("request", request.id = %id, http.method = %method, http.route = route);
    request.extensions_mut().insert(RequestId(id.clone()));

    let answer = if header_bytes(request.headers()) > MAX_HEADER_BYTES {
        ApiError::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).into_response()
    } else {
        next.run(request).instrument(span.clone()).await
    };
    let answer = finish(answer, &instance, &id);

    let (status, took) = (answer.status(), began.elapsed());
    app.metrics.http.observe(method.as_str(), route, status.as_u16(), took);
    span.in_scope(|| {
        let duration_ms = took.as_secs_f64() * 1_000.0;
        tracing::debug!(http.status = status.as_u16(), duration_ms, "{method} {route} {status}");
    });
    answer
}

/// Puts the problem of an error into the body, and the headers every answer has.
fn finish(mut answer: Response, instance: &str, id: &str) -> Response {
    let status = answer.status();
    if status.is_client_error() || status.is_server_error() {
        let known = answer.extensions_mut().remove::<Problem>();
        if known.is_some() || !answer.headers().contains_key(header::CONTENT_TYPE) || plain(&answer)
        {
            let problem = known.or_else(|| {
                ApiError::Status(status).into_response().extensions_mut().remove::<Problem>()
            });
            answer = with_problem(answer, problem, instance, id);
        }
    }
    let headers = answer.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    answer
}

/// A text a library wrote as the body of its refusal.
fn plain(answer: &Response) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/plain"))
}

fn with_problem(answer: Response, problem: Option<Problem>, instance: &str, id: &str) -> Response {
    let Some(mut problem) = problem else { return answer };
    problem.instance = Some(instance.chars().take(512).collect());
    problem.trace_id = Some(id.to_owned());
    let body = serde_json::to_vec(&problem).expect("a problem is plain data");
    let (mut parts, _) = answer.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
    Response::from_parts(parts, Body::from(body))
}

/// The caller's id when it is sane, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |value: &HeaderValue| {
        let text = value.to_str().ok()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        (!text.is_empty() && text.len() <= 128 && text.bytes().all(plain)).then(|| text.to_owned())
    };
    [REQUEST_ID, OZ_REQUEST_ID]
        .iter()
        .find_map(|name| headers.get(name).and_then(sane))
        .unwrap_or_else(|| format!("req_{}", uuid::Uuid::now_v7().simple()))
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// A panic of a handler is our own mistake, and an answer all the same.
#[expect(clippy::needless_pass_by_value, reason = "the form the panic layer calls")]
pub(crate) fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text");
    ApiError::Internal(anyhow::anyhow!("a handler panicked: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_500_that_does_not_tell_why() {
        let answer = finish(panicked(Box::new("hunter2 is missing")), "/x", "req_1");
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], problem::CONTENT_TYPE);
        let mut answer = panicked(Box::new("hunter2 is missing"));
        let problem = answer.extensions_mut().remove::<Problem>().unwrap();
        assert_eq!(problem.code(), "internal_error");
        assert!(!format!("{problem:?}").contains("hunter2"));
    }
}
