//! Tenants and what each may have waiting and under way. By the admin only.

use axum::{extract::State, http::StatusCode};
use protocol::{
    api::{
        limits::{TenantLimits, TenantList, TenantView},
        problem::Problem,
    },
    ids::TenantId,
};

use super::{
    auth::Admin,
    error::ApiError,
    extract::{Body, Ignored, Json, Path},
    params::Params,
};
use crate::{
    core::Settings,
    state::AppState,
    store::{Limits, TenantRow},
};

/// Tenants in one answer.
const PAGE: u32 = 1_000;

/// List tenants that have runs which are not over, a limit or a token
#[utoipa::path(get, path = "/tenants", tag = "admin", security(("bearer" = [])),
    params(("after" = Option<String>, Query, description = "`next` of the answer before; at most 1000 come at once")),
    responses((status = 200, body = TenantList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_tenants(
    _: Admin,
    State(app): State<AppState>,
    mut params: Params,
) -> Result<(Ignored, Json<TenantList>), ApiError> {
    let after = params.read::<TenantId>("after")?;
    let after = after.as_ref().map_or("", TenantId::as_str);
    let rows = app.core.store.tenants(after, PAGE).await;
    let rows = rows.map_err(|error| ApiError::store(error, "tenant"))?;
    let full = rows.len() == PAGE as usize;
    let next = rows.last().filter(|_| full).map(|row| row.id.clone());
    let tenants = rows.into_iter().map(|row| view(row, &app.core.settings)).collect();
    Ok((Ignored::from(params), Json(TenantList { tenants, next })))
}

/// Get what one tenant may have, and has
#[utoipa::path(get, path = "/tenants/{tenant_id}/limits", tag = "admin", security(("bearer" = [])),
    params(("tenant_id" = String, Path)),
    responses((status = 200, body = TenantView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_tenant_limits(
    _: Admin,
    State(app): State<AppState>,
    Path(id): Path<TenantId>,
) -> Result<Json<TenantView>, ApiError> {
    tenant(&app, &id).await
}

/// Choose what one tenant may have, in place of the plane's settings. What runs goes on
#[utoipa::path(put, path = "/tenants/{tenant_id}/limits", tag = "admin", security(("bearer" = [])),
    params(("tenant_id" = String, Path)), request_body = TenantLimits,
    responses((status = 200, body = TenantView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn set_tenant_limits(
    _: Admin,
    State(app): State<AppState>,
    Path(id): Path<TenantId>,
    Body(body, _): Body<TenantLimits>,
) -> Result<Json<TenantView>, ApiError> {
    let limits = Limits { max_queued: body.max_queued_runs, max_running: body.max_running_runs };
    let set = app.core.store.set_limits(&id, limits, app.core.now()).await;
    set.map_err(|error| ApiError::store(error, "tenant"))?;
    app.core.wake.queue();
    tenant(&app, &id).await
}

/// Let the plane's settings hold for a tenant again
#[utoipa::path(delete, path = "/tenants/{tenant_id}/limits", tag = "admin", security(("bearer" = [])),
    params(("tenant_id" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_tenant_limits(
    _: Admin,
    State(app): State<AppState>,
    Path(id): Path<TenantId>,
) -> Result<StatusCode, ApiError> {
    let cleared = app.core.store.clear_limits(&id).await;
    cleared.map_err(|error| ApiError::store(error, "tenant"))?;
    app.core.wake.queue();
    Ok(StatusCode::NO_CONTENT)
}

async fn tenant(app: &AppState, id: &TenantId) -> Result<Json<TenantView>, ApiError> {
    let row = app.core.store.tenant(id).await;
    let row = row.map_err(|error| ApiError::store(error, "tenant"))?;
    Ok(Json(view(row, &app.core.settings)))
}

fn view(row: TenantRow, settings: &Settings) -> TenantView {
    let Limits { max_queued, max_running } = row.limits;
    TenantView {
        tenant_id: row.id,
        queued: row.queued,
        running: row.running,
        max_queued_runs: max_queued.unwrap_or(settings.max_queued),
        max_running_runs: max_running.unwrap_or(settings.max_running),
        own_limits: TenantLimits { max_queued_runs: max_queued, max_running_runs: max_running },
    }
}
