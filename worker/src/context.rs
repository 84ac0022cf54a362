//! What all executions of a worker share. It is made once, at the start, and decides nothing.

use std::{path::PathBuf, sync::Arc, time::Duration};

use protocol::ids::WorkerId;
use service::{clock::Clock, lifecycle::Lifecycle};
use tokio::sync::Semaphore;

use crate::{
    backend::Backend, disk::Disk, endpoints::Endpoints, gate::Gate, metrics::Metrics,
    sessions::Sessions,
};

/// What every execution is given.
pub(crate) struct Context {
    pub(crate) worker_id: WorkerId,
    pub(crate) backend: Backend,
    pub(crate) gate: Arc<Gate>,
    pub(crate) disk: Disk,
    pub(crate) sessions: Sessions,
    pub(crate) state_dir: PathBuf,
    pub(crate) grace_ms: u64,
    /// Between two sweeps.
    pub(crate) sweep_every: Duration,
    pub(crate) endpoints: Endpoints,
    /// Held over a start: beyond 2 × cores only the latency grows.
    pub(crate) starts: Semaphore,
    pub(crate) clock: Clock,
    pub(crate) life: Lifecycle,
    pub(crate) metrics: Metrics,
}
