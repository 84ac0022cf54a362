//! Who is connected right now.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use crate::ids::WorkerId;

/// Ours: one connected worker, as an admin sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerView {
    pub worker_id: WorkerId,
    /// `ozma` or `stock`.
    pub dialect: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    /// Executions it can run at once; absent for a stock worker, which does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// It takes nothing new: an admin said so (`drained_since`), or the worker itself.
    #[serde(default)]
    pub draining: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_since: Option<Timestamp>,
    /// Executions it holds now.
    #[serde(default)]
    pub running: u32,
    /// Slots it has left; 0 while it takes nothing new.
    #[serde(default)]
    pub free: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskView>,
    pub connected_at: Timestamp,
    pub last_seen_at: Timestamp,
}

/// Ours: what a worker's executions take of its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskView {
    pub used_bytes: u64,
    /// At it the worker takes nothing new; absent where only the disk is the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

/// Ours: the answer of `GET /workers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerList {
    pub workers: Vec<WorkerView>,
    /// Workers that are to take nothing new, connected or not.
    #[serde(default)]
    pub drained: Vec<DrainView>,
}

/// Ours: a worker that is to take nothing new, on whichever plane and however often it connects again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainView {
    pub worker_id: WorkerId,
    pub since: Timestamp,
    /// Executions it still holds.
    pub running: u32,
}

/// The Oz answer of `GET /agent/connected-self-hosted-workers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectedWorkers {
    pub workers: Vec<ConnectedWorker>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectedWorker {
    pub worker_host: WorkerId,
    pub connection_count: u32,
    pub connected_at: Timestamp,
    pub last_seen_at: Timestamp,
}
