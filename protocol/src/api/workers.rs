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
    #[serde(default)]
    pub draining: bool,
    pub connected_at: Timestamp,
    pub last_seen_at: Timestamp,
}

/// Ours: the answer of `GET /workers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerList {
    pub workers: Vec<WorkerView>,
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
