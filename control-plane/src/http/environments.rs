//! Environments: create, list, get, replace, delete; and the SDKs' read-only list.

pub(super) mod check;
mod repos;
mod view;

use axum::{extract::State, http::StatusCode};
use protocol::{
    api::{
        environments::{CloudEnvironmentList, EnvironmentBody, EnvironmentList, EnvironmentView},
        problem::Problem,
    },
    ids::EnvironmentId,
};

use super::{
    auth::Tenant,
    error::ApiError,
    extract::{Body, Ignored, Json, Path},
    params::Params,
};
use crate::{
    environments::{self, EnvironmentError},
    state::AppState,
};

/// Create an environment
#[utoipa::path(post, path = "/environments", tag = "environments", security(("bearer" = [])),
    request_body = EnvironmentBody,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create_environment(
    caller: Tenant,
    State(app): State<AppState>,
    Body(body, ignored): Body<EnvironmentBody>,
) -> Result<(Ignored, Json<EnvironmentView>), ApiError> {
    let new = check::environment(body, app.core.settings.ceilings)?;
    let made = environments::create(&app.core, caller.scope(), new).await?;
    Ok((ignored, Json(view::full(made, caller.scope()))))
}

/// List the caller's environments and the global ones, the newest change first, at most 1000
#[utoipa::path(get, path = "/environments", tag = "environments", security(("bearer" = [])),
    responses((status = 200, body = EnvironmentList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_environments(
    caller: Tenant,
    State(app): State<AppState>,
) -> Result<Json<EnvironmentList>, ApiError> {
    let all = environments::list(&app.core, caller.scope()).await?;
    let items = all.into_iter().map(|one| view::full(one, caller.scope())).collect();
    Ok(Json(EnvironmentList { items }))
}

/// Get one environment
#[utoipa::path(get, path = "/environments/{environment_id}", tag = "environments",
    security(("bearer" = [])), params(("environment_id" = String, Path)),
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_environment(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<EnvironmentId>,
) -> Result<Json<EnvironmentView>, ApiError> {
    let one = environments::get(&app.core, caller.scope(), &id).await?;
    Ok(Json(view::full(one, caller.scope())))
}

/// Replace an environment as a whole. Runs already submitted keep what they were submitted with
#[utoipa::path(put, path = "/environments/{environment_id}", tag = "environments",
    security(("bearer" = [])), params(("environment_id" = String, Path)),
    request_body = EnvironmentBody,
    responses((status = 200, body = EnvironmentView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update_environment(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<EnvironmentId>,
    Body(body, ignored): Body<EnvironmentBody>,
) -> Result<(Ignored, Json<EnvironmentView>), ApiError> {
    let new = check::environment(body, app.core.settings.ceilings)?;
    let changed = environments::update(&app.core, caller.scope(), &id, new).await?;
    Ok((ignored, Json(view::full(changed, caller.scope()))))
}

/// Delete an environment. Runs already submitted keep what they were submitted with
#[utoipa::path(delete, path = "/environments/{environment_id}", tag = "environments",
    security(("bearer" = [])), params(("environment_id" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_environment(
    caller: Tenant,
    State(app): State<AppState>,
    Path(id): Path<EnvironmentId>,
) -> Result<StatusCode, ApiError> {
    environments::delete(&app.core, caller.scope(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List environments in the SDKs' form
#[utoipa::path(get, path = "/agent/environments", tag = "environments", security(("bearer" = [])),
    params(("sort_by" = Option<String>, Query, description = "`last_updated` (default) or `name`")),
    responses((status = 200, body = CloudEnvironmentList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_cloud_environments(
    caller: Tenant,
    State(app): State<AppState>,
    mut params: Params,
) -> Result<(Ignored, Json<CloudEnvironmentList>), ApiError> {
    let by_name = match params.take("sort_by").as_deref() {
        None | Some("last_updated") => false,
        Some("name") => true,
        Some(_) => return Err(ApiError::invalid("sort_by", "must be last_updated or name")),
    };
    let mut all = environments::list(&app.core, caller.scope()).await?;
    if by_name {
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let environments = all.into_iter().map(view::cloud).collect();
    Ok((Ignored::from(params), Json(CloudEnvironmentList { environments })))
}

impl From<EnvironmentError> for ApiError {
    fn from(error: EnvironmentError) -> Self {
        match error {
            EnvironmentError::NotFound => Self::NotFound("environment"),
            EnvironmentError::ReadOnly => {
                Self::Forbidden("a global environment is changed by an admin only")
            }
            EnvironmentError::GlobalWithValues => Self::invalid(
                "env_vars",
                "must be empty, and so must env and headers of harness.mcp_servers: everyone can use a global environment",
            ),
            EnvironmentError::Hidden(_) => Self::invalid("harness.mcp_servers", error.to_string()),
            EnvironmentError::Elsewhere(_) => {
                Self::unsupported("harness.mcp_servers", error.to_string())
            }
            EnvironmentError::TooMany(_) => Self::Busy(error.to_string()),
            EnvironmentError::Store(error) => Self::store(error, "environment"),
        }
    }
}
