//! Runs: look at one, ask it to stop; and the parts of the Oz API that this version answers with nothing.

pub(super) mod create;
pub(super) mod followup;
pub(super) mod list;
mod view;

use axum::extract::State;
use protocol::{
    api::{
        problem::Problem,
        runs::{AgentList, NoRedirect, RunItem},
    },
    ids::RunId,
};

use super::{
    auth::Tenant,
    error::ApiError,
    extract::{Ignored, Json, Path},
    params::Params,
};
use crate::{
    runs::{self, CancelError},
    state::AppState,
};

pub(super) use view::artifact_item;

/// Get one run
#[utoipa::path(get, path = "/agent/runs/{run_id}", tag = "runs", security(("bearer" = [])),
    params(("run_id" = String, Path)),
    responses((status = 200, body = RunItem), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_run(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<RunId>,
) -> Result<Json<RunItem>, ApiError> {
    let (core, scope) = (&app.core, caller.scope());
    let missing = |error| ApiError::store(error, "run");
    let run = runs::get(core, scope, &id).await.map_err(missing)?;
    let artifacts = runs::artifacts(core, scope, &id).await.map_err(missing)?;
    let attempts = runs::attempts(core, scope, &id).await.map_err(missing)?;
    let spec = runs::spec(core, scope, &id).await.map_err(missing)?;
    let mut item = view::item(run, artifacts, attempts, core.now())?;
    item.policy = Some(view::policy(spec));
    Ok(Json(item))
}

/// Ask a run to stop. The answer is its id, as a JSON string; `CANCELLED` follows when its worker has stopped it
#[utoipa::path(post, path = "/agent/runs/{run_id}/cancel", tag = "runs", security(("bearer" = [])),
    params(("run_id" = String, Path)),
    responses((status = 200, body = String), (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is being handed to a worker: try again")))]
pub(super) async fn cancel_run(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<RunId>,
) -> Result<Json<RunId>, ApiError> {
    runs::cancel(&app.core, caller.scope(), &id).await.map_err(|error| match error {
        CancelError::NotFound => ApiError::NotFound("run"),
        CancelError::Terminal => ApiError::Gone { rule: "the run is over already" },
        CancelError::Pending => {
            ApiError::Conflict("the run is being handed to a worker; try again")
        }
        CancelError::Store(error) => ApiError::store(error, "run"),
    })?;
    Ok(Json(id))
}

/// List agents: they are made from skills, which this version does not have
#[utoipa::path(get, path = "/agent", tag = "runs", security(("bearer" = [])),
    responses((status = 200, body = AgentList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_agents(_: Tenant, params: Params) -> (Ignored, Json<AgentList>) {
    (Ignored::from(params), Json(AgentList::default()))
}

/// Where a session went: nowhere else. Open, because the SDKs send no token here
#[utoipa::path(get, path = "/agent/sessions/{session_id}/redirect", tag = "runs",
    params(("session_id" = String, Path)), responses((status = 200, body = NoRedirect)))]
pub(super) async fn session_redirect() -> Json<NoRedirect> {
    Json(NoRedirect {})
}

/// Where a conversation went: nowhere else. Open, because the SDKs send no token here
#[utoipa::path(get, path = "/agent/conversations/{conversation_id}/redirect", tag = "runs",
    params(("conversation_id" = String, Path)), responses((status = 200, body = NoRedirect)))]
pub(super) async fn conversation_redirect() -> Json<NoRedirect> {
    Json(NoRedirect {})
}
