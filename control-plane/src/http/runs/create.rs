//! Creating a run: both paths of the Oz API, one meaning.

pub(in crate::http) mod check;

use axum::{extract::State, http::HeaderMap};
use protocol::{
    api::{
        problem::Problem,
        runs::{CreateRun, RunCreated},
    },
    run::RunState,
};

use crate::{
    http::{
        auth::Tenant,
        error::ApiError,
        extract::{Body, Ignored, Json},
    },
    runs::{self, SubmitError, Submitted},
    state::AppState,
};

/// Create a run
#[utoipa::path(post, path = "/agent/runs", tag = "runs", security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header,
        description = "A repeated request with the same key and body makes no second run")),
    request_body = CreateRun,
    responses((status = 200, body = RunCreated), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(in crate::http) async fn create_run(
    caller: Tenant,
    State(app): State<AppState>,
    headers: HeaderMap,
    Body(body, mut ignored): Body<CreateRun>,
) -> Result<(Ignored, Json<RunCreated>), ApiError> {
    ignored.add(check::without_effect(&body));
    let last = match check::conversation(&body)? {
        Some(id) => Some(runs::last_run(&app.core, caller.scope(), &id).await?),
        None => None,
    };
    let new = check::run(body, &headers, app.core.settings.ceilings, last.as_ref())?;
    let made = runs::submit(&app.core, caller.scope(), new).await?;
    let state = state_of(&app, &caller, &made).await?;
    let Submitted { run_id, at_capacity, .. } = made;
    Ok((ignored, Json(RunCreated { task_id: run_id.clone(), run_id, state, at_capacity })))
}

/// Create a run, as older clients call it
#[utoipa::path(post, path = "/agent/run", tag = "runs", security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header,
        description = "A repeated request with the same key and body makes no second run")),
    request_body = CreateRun,
    responses((status = 200, body = RunCreated), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(in crate::http) async fn create_run_legacy(
    caller: Tenant,
    app: State<AppState>,
    headers: HeaderMap,
    body: Body<CreateRun>,
) -> Result<(Ignored, Json<RunCreated>), ApiError> {
    create_run(caller, app, headers, body).await
}

/// A run made by an earlier request may have gone on since.
pub(super) async fn state_of(
    app: &AppState,
    caller: &Tenant,
    made: &Submitted,
) -> Result<RunState, ApiError> {
    if !made.repeated {
        return Ok(made.state);
    }
    let run = runs::get(&app.core, caller.scope(), &made.run_id).await;
    run.map(|run| run.state).map_err(|error| ApiError::store(error, "run"))
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::UnknownEnvironment => {
                Self::Unknown { field: "config.environment_id", what: "environment" }
            }
            SubmitError::EnvironmentRequired => Self::invalid(
                "config.environment_id",
                "is required: this plane has no default image (OZ_DEFAULT_IMAGE)",
            ),
            SubmitError::UnknownParent => {
                Self::invalid("parent_run_id", "there is no such run, or it is not yours")
            }
            SubmitError::TooDeep => Self::invalid("parent_run_id", error.to_string()),
            SubmitError::IdempotencyMismatch => {
                Self::unsupported("Idempotency-Key", "was used for another request")
            }
            SubmitError::UnknownConversation => {
                Self::Unknown { field: "conversation_id", what: "conversation" }
            }
            SubmitError::ForeignConversation => {
                Self::Forbidden("a conversation goes on by its owner's word only")
            }
            SubmitError::ConversationBusy(_) => {
                Self::Stuck { code: "conversation_busy", rule: error.to_string(), retryable: false }
            }
            SubmitError::WorkerAway(_) => Self::Stuck {
                code: "session_worker_away",
                rule: error.to_string(),
                retryable: true,
            },
            SubmitError::OtherProvider { .. } => {
                Self::unsupported("config.harness.type", error.to_string())
            }
            SubmitError::NothingKept(_) => Self::unsupported("conversation_id", error.to_string()),
            SubmitError::OtherWorker(_) => {
                Self::unsupported("config.worker_host", error.to_string())
            }
            SubmitError::QueueFull(_) => Self::Busy(error.to_string()),
            SubmitError::Nul(field) => Self::invalid(field, "must not contain NUL"),
            SubmitError::Store(error) => Self::store(error, "run"),
        }
    }
}
