//! The whole HTTP surface: every route is in this file, and the OpenAPI document is collected from the same lines.
//! Handlers parse, call one function, map; they know no SQL.

mod artifacts;
pub(crate) mod auth;
mod body;
mod docs;
mod download;
mod drains;
mod envelope;
mod environments;
mod error;
mod events;
mod evidence;
mod extract;
mod forms;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod limits;
mod mcp;
mod openapi;
mod params;
mod plane;
mod runs;
pub(crate) mod server;
mod tokens;
mod why;
mod workers;

use std::time::Duration;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::from_fn_with_state,
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    timeout::TimeoutLayer,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{config::Config, state::AppState};

/// How long a handler may take to begin its answer, body and database included; then it is 408, which clients
/// may send again.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Every route.
fn routes() -> OpenApiRouter<AppState> {
    let api = OpenApiRouter::new()
        // Tenants: runs.
        .routes(routes!(runs::create::create_run))
        .routes(routes!(runs::create::create_run_legacy))
        .routes(routes!(runs::list::list_runs))
        .routes(routes!(runs::get_run))
        .routes(routes!(runs::cancel_run))
        .routes(routes!(runs::followup::follow_up_run))
        .routes(routes!(why::explain_run))
        .routes(routes!(events::run_events))
        .routes(routes!(evidence::get_run_summary))
        .routes(routes!(evidence::get_run_event_lines))
        .routes(routes!(artifacts::list_run_artifacts))
        .routes(routes!(artifacts::get_artifact))
        .routes(routes!(artifacts::get_artifact_content))
        .routes(routes!(runs::list_agents))
        // Tenants: environments.
        .routes(routes!(environments::create_environment, environments::list_environments))
        .routes(routes!(
            environments::get_environment,
            environments::update_environment,
            environments::delete_environment
        ))
        .routes(routes!(environments::list_cloud_environments))
        // Tenants: workers they can name in `worker_host`.
        .routes(routes!(workers::list_connected_workers))
        // The admin.
        .routes(routes!(tokens::create_token, tokens::list_tokens))
        .routes(routes!(tokens::delete_token))
        .routes(routes!(workers::list_workers))
        .routes(routes!(drains::drain_worker, drains::resume_worker))
        .routes(routes!(limits::list_tenants))
        .routes(routes!(
            limits::get_tenant_limits,
            limits::set_tenant_limits,
            limits::delete_tenant_limits
        ))
        // Workers.
        .routes(routes!(workers::connect_worker))
        // Anybody.
        .routes(routes!(runs::session_redirect))
        .routes(routes!(runs::conversation_redirect))
        .routes(routes!(plane::openapi));
    OpenApiRouter::with_openapi(openapi::head())
        // Anybody.
        .routes(routes!(plane::health))
        .routes(routes!(plane::ready))
        .routes(routes!(plane::metrics))
        .routes(routes!(plane::docs))
        .nest("/api/v1", api)
}

/// The routes, and the document they make, as JSON.
pub(crate) fn build() -> (Router<AppState>, String) {
    let (router, document) = routes().split_for_parts();
    let text = document.to_pretty_json().expect("an OpenAPI document is plain data");
    (router, text + "\n")
}

/// Puts around the routes what every request passes; the last layer is the outermost.
pub(crate) fn finish(router: Router<AppState>, app: AppState, config: &Config) -> Router {
    let router = router
        // Refusals of the library would not be in our envelope.
        .fallback(async || error::ApiError::Status(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || {
            error::ApiError::Status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, ANSWER_WITHIN))
        .layer(CatchPanicLayer::custom(envelope::panicked));
    let router = match cors(config) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(from_fn_with_state(app.clone(), envelope::envelope)).with_state(app)
}

/// Off unless the operator names origins (oz-api.md 1.14).
fn cors(config: &Config) -> Option<CorsLayer> {
    let origins: Vec<&str> = config.cors_origins().collect();
    let allowed = match origins.as_slice() {
        [] => return None,
        ["*"] => AllowOrigin::any(),
        list => AllowOrigin::list(list.iter().filter_map(|one| HeaderValue::from_str(one).ok())),
    };
    let ids = ["x-request-id", "x-oz-request-id", "last-event-id", "idempotency-key"];
    let headers = [header::AUTHORIZATION, header::CONTENT_TYPE].into_iter();
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers(headers.chain(ids.map(HeaderName::from_static)).collect::<Vec<_>>())
            .expose_headers([HeaderName::from_static("x-request-id")])
            .max_age(Duration::from_mins(10)),
    )
}
