//! What a run waits for.

use axum::extract::State;
use protocol::{
    api::{problem::Problem, why::WhyView},
    ids::RunId,
};

use super::{
    auth::Tenant,
    error::ApiError,
    extract::{Json, Path},
};
use crate::{state::AppState, why};

/// Say what a run waits for: the first thing in its way, as a code, a sentence and numbers
#[utoipa::path(get, path = "/agent/runs/{run_id}/why", tag = "runs", security(("bearer" = [])),
    params(("run_id" = String, Path)),
    responses((status = 200, body = WhyView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn explain_run(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<RunId>,
) -> Result<Json<WhyView>, ApiError> {
    let answer = why::why(&app.core, caller.scope(), &id).await;
    answer.map(Json).map_err(|error| ApiError::store(error, "run"))
}
