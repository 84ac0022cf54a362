//! Workers: who is connected, and the door they connect through.

use axum::{
    extract::{State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    response::{IntoResponse, Response},
};
use protocol::{
    api::{
        problem::Problem,
        time::Timestamp,
        workers::{ConnectedWorker, ConnectedWorkers, WorkerList, WorkerView},
    },
    ids::WorkerId,
};

use super::{
    auth::{Admin, Tenant, WorkerCaller},
    error::ApiError,
    extract::Json,
    params::Params,
};
use crate::{link, state::AppState, store::ConnectionRow};

/// List the workers connected to any plane of this database
#[utoipa::path(get, path = "/workers", tag = "workers", security(("bearer" = [])),
    responses((status = 200, body = WorkerList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_workers(
    _: Admin,
    State(app): State<AppState>,
) -> Result<Json<WorkerList>, ApiError> {
    let workers = connected(&app).await?.into_iter().filter_map(view).collect();
    Ok(Json(WorkerList { workers }))
}

/// List connected workers in the Oz form: what `config.worker_host` may name
#[utoipa::path(get, path = "/agent/connected-self-hosted-workers", tag = "workers",
    security(("bearer" = [])),
    responses((status = 200, body = ConnectedWorkers), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_connected_workers(
    _: Tenant,
    State(app): State<AppState>,
) -> Result<Json<ConnectedWorkers>, ApiError> {
    Ok(Json(ConnectedWorkers { workers: by_worker(connected(&app).await?) }))
}

/// Connect a worker: a WebSocket that speaks the Oz worker's messages, or Ozma's when it says `hello` first
#[utoipa::path(get, path = "/selfhosted/worker/ws", tag = "workers", security(("bearer" = [])),
    params(("worker_id" = String, Query, description = "The name the operator gave it")),
    responses((status = 101, description = "Go on as a WebSocket"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn connect_worker(
    _: WorkerCaller,
    State(app): State<AppState>,
    mut params: Params,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let worker = params.read::<WorkerId>("worker_id")?;
    let worker = worker.ok_or_else(|| ApiError::invalid("worker_id", "is required"))?;
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(refusal) => return Err(ApiError::Status(refusal.into_response().status())),
    };
    let core = std::sync::Arc::clone(&app.core);
    Ok(link::bounded(upgrade).on_upgrade(move |socket| link::serve_worker(core, socket, worker)))
}

async fn connected(app: &AppState) -> Result<Vec<ConnectionRow>, ApiError> {
    link::connected(&app.core).await.map_err(|error| ApiError::store(error, "worker"))
}

fn view(row: ConnectionRow) -> Option<WorkerView> {
    let said = |text: String| (!text.is_empty()).then_some(text);
    Some(WorkerView {
        worker_id: row.worker_id.parse().ok()?,
        dialect: row.dialect,
        backend: said(row.backend),
        version: said(row.version),
        tags: serde_json::from_str(&row.tags).unwrap_or_default(),
        capacity: u32::try_from(row.capacity).ok(),
        draining: row.draining == 1,
        connected_at: Timestamp(row.connected_at),
        last_seen_at: Timestamp(row.last_seen_at),
    })
}

/// One entry a worker; the rows come sorted by it.
fn by_worker(rows: Vec<ConnectionRow>) -> Vec<ConnectedWorker> {
    let views: Vec<WorkerView> = rows.into_iter().filter_map(view).collect();
    views
        .chunk_by(|a, b| a.worker_id == b.worker_id)
        .map(|of_one| ConnectedWorker {
            worker_host: of_one[0].worker_id.clone(),
            connection_count: u32::try_from(of_one.len()).unwrap_or(u32::MAX),
            connected_at: of_one.iter().map(|view| view.connected_at).min().unwrap_or(Timestamp(0)),
            last_seen_at: of_one.iter().map(|view| view.last_seen_at).max().unwrap_or(Timestamp(0)),
        })
        .collect()
}
