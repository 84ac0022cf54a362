//! Going on with a conversation: another run, on the worker that keeps what the last one left.

use axum::{extract::State, http::HeaderMap};
use protocol::{
    api::{
        problem::Problem,
        runs::{CreateRun, Followup, FollowupCreated},
    },
    ids::RunId,
};

use super::create::{check, state_of};
use crate::{
    http::{
        auth::Tenant,
        error::ApiError,
        extract::{Body, Ignored, Json, Path},
    },
    runs::{self, Submitted},
    state::AppState,
};

/// Go on with a run's conversation: a new run, with the environment as it is now and everything else as in its last
/// run
#[utoipa::path(post, path = "/agent/runs/{run_id}/followups", tag = "runs", security(("bearer" = [])),
    params(("run_id" = String, Path, description = "Any run of the conversation"),
        ("Idempotency-Key" = Option<String>, Header,
        description = "A repeated request with the same key and body makes no second run")),
    request_body = Followup,
    responses((status = 200, body = FollowupCreated), (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`conversation_busy`: its last run is not over. `session_worker_away`: the worker that keeps it is not connected")))]
pub(in crate::http) async fn follow_up_run(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<RunId>,
    headers: HeaderMap,
    Body(body, ignored): Body<Followup>,
) -> Result<(Ignored, Json<FollowupCreated>), ApiError> {
    let scope = caller.scope();
    let missing = |error| ApiError::store(error, "run");
    runs::get(&app.core, scope, &id).await.map_err(missing)?;
    let body = CreateRun {
        prompt: Some(check::message(body.message)?),
        mode: body.mode,
        conversation_id: Some(id.to_string()),
        ..CreateRun::default()
    };
    let last = runs::last_run(&app.core, scope, &id).await?;
    let new = check::run(body, &headers, app.core.settings.ceilings, Some(&last))?;
    let made = runs::submit(&app.core, scope, new).await?;
    let state = state_of(&app, &caller, &made).await?;
    let Submitted { run_id, conversation_id, at_capacity, .. } = made;
    let task_id = run_id.clone();
    Ok((ignored, Json(FollowupCreated { run_id, task_id, conversation_id, state, at_capacity })))
}
