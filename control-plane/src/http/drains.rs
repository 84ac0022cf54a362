//! Drains: workers that are to take nothing new, until an admin says otherwise.

use axum::{extract::State, http::StatusCode};
use protocol::{
    api::{problem::Problem, time::Timestamp, workers::DrainView},
    ids::WorkerId,
};

use super::{
    auth::Admin,
    error::ApiError,
    extract::{Json, Path},
};
use crate::{state::AppState, store::DrainRow};

/// Let a worker take nothing new: what runs there goes on, and new connections of it change nothing
#[utoipa::path(post, path = "/workers/{worker_id}/drain", tag = "workers", security(("bearer" = [])),
    params(("worker_id" = String, Path)),
    responses((status = 200, body = DrainView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn drain_worker(
    _: Admin,
    State(app): State<AppState>,
    Path(id): Path<WorkerId>,
) -> Result<Json<DrainView>, ApiError> {
    let core = &app.core;
    let failed = |error| ApiError::store(error, "worker");
    core.store.drain_worker(&id, core.now()).await.map_err(failed)?;
    core.wake.queue();
    tracing::info!(worker.id = %id, "worker {id} is to take nothing new");
    let drains = core.store.drains().await.map_err(failed)?;
    let row = drains.into_iter().find(|row| row.worker_id == id);
    // Somebody took it back in the same moment.
    row.map(|row| Json(view(row))).ok_or(ApiError::Conflict("it was resumed just now"))
}

/// Let a worker take work again
#[utoipa::path(delete, path = "/workers/{worker_id}/drain", tag = "workers", security(("bearer" = [])),
    params(("worker_id" = String, Path)),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn resume_worker(
    _: Admin,
    State(app): State<AppState>,
    Path(id): Path<WorkerId>,
) -> Result<StatusCode, ApiError> {
    let core = &app.core;
    let drained = core.store.resume_worker(&id).await;
    if drained.map_err(|error| ApiError::store(error, "worker"))? {
        core.wake.queue();
        tracing::info!(worker.id = %id, "worker {id} may take work again");
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn view(row: DrainRow) -> DrainView {
    DrainView { worker_id: row.worker_id, since: Timestamp(row.since), running: row.running }
}
