//! How the plane itself is: for probes, for Prometheus, for whoever reads the API.

use axum::{
    Extension,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use protocol::api::{
    plane::{Health, Ready},
    problem::Problem,
};

use super::{auth::MetricsReader, envelope::RequestId, extract::Json};
use crate::{metrics::text, state::AppState};

/// Whether the plane lives and its database answers
#[utoipa::path(get, path = "/health", tag = "plane", responses((status = 200, body = Health),
    (status = 503, body = Health, description = "The database does not answer")))]
pub(super) async fn health(
    State(app): State<AppState>,
    Extension(RequestId(request_id)): Extension<RequestId>,
) -> (StatusCode, Json<Health>) {
    let ok = app.core.store.ping().await.is_ok();
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Health {
        ok,
        db: if ok { "ok" } else { "error" }.to_owned(),
        error: (!ok).then(|| "the database does not answer".to_owned()),
        request_id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    (status, Json(body))
}

/// Whether the plane takes work
#[utoipa::path(get, path = "/ready", tag = "plane", responses((status = 200, body = Ready),
    (status = 503, body = Ready, description = "One of its parts is not ready")))]
pub(super) async fn ready(State(app): State<AppState>) -> (StatusCode, Json<Ready>) {
    let database = app.core.store.ping().await.is_ok();
    // A loop that ends takes the process along, so that a plane that does not drain has all of them.
    let dispatcher = !app.core.life.draining().is_cancelled();
    let ready = database && dispatcher;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = |ok: bool, not: &str| if ok { "ok".to_owned() } else { not.to_owned() };
    let body = Ready {
        ready,
        database: word(database, "does not answer"),
        dispatcher: word(dispatcher, "is stopping"),
    };
    (status, Json(body))
}

/// Numbers of this process in Prometheus's text form. Open, unless the operator set a token for it
#[utoipa::path(get, path = "/metrics", tag = "plane",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 401, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn metrics(_: MetricsReader, State(app): State<AppState>) -> Response {
    let page = app.metrics.page(&app.core, app.streams.count()).await;
    ([(header::CONTENT_TYPE, text::CONTENT_TYPE)], page).into_response()
}

/// This API as an OpenAPI document
#[utoipa::path(get, path = "/openapi.json", tag = "plane",
    responses((status = 200, body = Object)))]
pub(super) async fn openapi(State(app): State<AppState>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone()).into_response()
}

/// This API as a page to read and to try
#[utoipa::path(get, path = "/docs", tag = "plane",
    responses((status = 200, body = String, content_type = "text/html")))]
pub(super) async fn docs() -> Response {
    super::docs::page()
}
