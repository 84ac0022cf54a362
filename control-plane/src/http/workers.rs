//! Workers: who is connected, and the door they connect through.

use std::collections::BTreeMap;

use axum::{
    extract::{State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    response::{IntoResponse, Response},
};
use protocol::{
    api::{
        problem::Problem,
        time::Timestamp,
        workers::{ConnectedWorker, ConnectedWorkers, DiskView, WorkerList, WorkerView},
    },
    ids::WorkerId,
};

use super::{
    auth::{Admin, Tenant, WorkerCaller},
    drains,
    error::ApiError,
    extract::Json,
    params::Params,
};
use crate::{
    link,
    state::AppState,
    store::{ConnectedRow, ConnectionRow},
};

/// List the workers connected to any plane of this database
#[utoipa::path(get, path = "/workers", tag = "workers", security(("bearer" = [])),
    responses((status = 200, body = WorkerList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_workers(
    _: Admin,
    State(app): State<AppState>,
) -> Result<Json<WorkerList>, ApiError> {
    let failed = |error| ApiError::store(error, "worker");
    let drained = app.core.store.drains().await.map_err(failed)?;
    let rows = link::connected_and_busy(&app.core).await.map_err(failed)?;
    let since: BTreeMap<String, i64> =
        drained.iter().map(|drain| (drain.worker_id.to_string(), drain.since)).collect();
    let workers = rows.into_iter().filter_map(|row| view(&since, row)).collect();
    let drained = drained.into_iter().map(drains::view).collect();
    Ok(Json(WorkerList { workers, drained }))
}

/// List connected workers in the Oz form: what `config.worker_host` may name
#[utoipa::path(get, path = "/agent/connected-self-hosted-workers", tag = "workers",
    security(("bearer" = [])),
    responses((status = 200, body = ConnectedWorkers), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_connected_workers(
    _: Tenant,
    State(app): State<AppState>,
) -> Result<Json<ConnectedWorkers>, ApiError> {
    Ok(Json(ConnectedWorkers { workers: by_worker(&connected(&app).await?) }))
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

fn view(drained: &BTreeMap<String, i64>, row: ConnectedRow) -> Option<WorkerView> {
    let ConnectedRow { connection: row, running } = row;
    let drained_since = drained.get(&row.worker_id).copied();
    let said = |text: String| (!text.is_empty()).then_some(text);
    let bytes = |n: i64| u64::try_from(n).unwrap_or_default();
    let running = u32::try_from(running).unwrap_or(u32::MAX);
    let draining = row.draining == 1 || drained_since.is_some();
    let capacity = u32::try_from(row.capacity).unwrap_or_default();
    Some(WorkerView {
        worker_id: row.worker_id.parse().ok()?,
        dialect: row.dialect,
        backend: said(row.backend),
        version: said(row.version),
        tags: serde_json::from_str(&row.tags).unwrap_or_default(),
        capacity: u32::try_from(row.capacity).ok(),
        draining,
        drained_since: drained_since.map(Timestamp),
        running,
        free: if draining { 0 } else { capacity.saturating_sub(running) },
        disk: row.disk_bytes.map(|used| DiskView {
            used_bytes: bytes(used),
            limit_bytes: row.disk_limit_bytes.map(bytes),
        }),
        connected_at: Timestamp(row.connected_at),
        last_seen_at: Timestamp(row.last_seen_at),
    })
}

/// One entry a worker; the rows come sorted by it.
fn by_worker(rows: &[ConnectionRow]) -> Vec<ConnectedWorker> {
    let of_each = rows.chunk_by(|a, b| a.worker_id == b.worker_id);
    let each = of_each.filter_map(|of_one| {
        let times = |of: fn(&ConnectionRow) -> i64| of_one.iter().map(of);
        Some(ConnectedWorker {
            worker_host: of_one[0].worker_id.parse().ok()?,
            connection_count: u32::try_from(of_one.len()).unwrap_or(u32::MAX),
            connected_at: Timestamp(times(|row| row.connected_at).min().unwrap_or_default()),
            last_seen_at: Timestamp(times(|row| row.last_seen_at).max().unwrap_or_default()),
        })
    });
    each.collect()
}
