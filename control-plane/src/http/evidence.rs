//! A run's evidence, to be kept beside what it made.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use protocol::{
    api::{events::EventView, problem::Problem},
    evidence::Summary,
    ids::RunId,
};

use super::{
    auth::Tenant,
    error::ApiError,
    events::{EXPIRED, begin, view},
    extract::{Json, Path},
};
use crate::{
    evidence::{self, EvidenceError},
    state::AppState,
    store::RunEvent,
};

/// One JSON object a line.
const NDJSON: &str = "application/x-ndjson";

/// Read what a run did, used and left, in one page. Of a run that is not over, as far as it came
#[utoipa::path(get, path = "/agent/runs/{run_id}/evidence/summary.json", tag = "runs",
    security(("bearer" = [])), params(("run_id" = String, Path)),
    responses((status = 200, body = Summary),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "Its events are not kept any more"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_run_summary(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<RunId>,
) -> Result<Json<Summary>, ApiError> {
    // Of a long run it is much to read.
    let _reading = begin(&app, caller.scope())?;
    Ok(Json(evidence::summary(&app.core, caller.scope(), &id).await?))
}

/// Read all events a run has, one JSON object a line
#[utoipa::path(get, path = "/agent/runs/{run_id}/evidence/events.jsonl", tag = "runs",
    security(("bearer" = [])), params(("run_id" = String, Path)),
    responses((status = 200, body = EventView, content_type = "application/x-ndjson"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "They are not kept any more"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_run_event_lines(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<RunId>,
) -> Result<Response, ApiError> {
    let scope = caller.scope().clone();
    let following = begin(&app, &scope)?;
    let batches = evidence::events(Arc::clone(&app.core), scope, id).await?;
    let lines = batches.map(move |batch| {
        // It is counted for as long as somebody reads. An error breaks the connection off, so that nobody takes a
        // part for the whole.
        let _ = &following;
        batch.map(lines)
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}

fn lines(batch: Vec<RunEvent>) -> Bytes {
    let mut text = String::new();
    for event in batch {
        let json = serde_json::to_string(&view(event)).expect("an event is plain data");
        // Line breaks outside of strings are blanks to JSON, and would end the line here.
        text.push_str(&json.replace(['\r', '\n'], " "));
        text.push('\n');
    }
    Bytes::from(text)
}

impl From<EvidenceError> for ApiError {
    fn from(error: EvidenceError) -> Self {
        match error {
            EvidenceError::Gone => EXPIRED,
            EvidenceError::Store(error) => Self::store(error, "run"),
        }
    }
}
