//! How much of its disks a worker's executions take, as it was last measured, and what of it is too much.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use protocol::{ids::ExecutionId, link::DiskUse};
use tokio::sync::watch;

use crate::{backend::Usage, config::Config, tree::UNCOUNTED};

/// What is measured, against what, and how it stands.
#[derive(Debug)]
pub(crate) struct Disk {
    limit_bytes: Option<u64>,
    min_free_bytes: u64,
    execution_bytes: Option<u64>,
    /// Between two measurements.
    pub(crate) every: Duration,
    /// One folder of each file system that matters.
    places: Vec<PathBuf>,
    /// Executions beyond their bound, with what they take.
    over: watch::Sender<HashMap<ExecutionId, u64>>,
    used: AtomicU64,
    free: AtomicU64,
}

impl Disk {
    pub(crate) fn new(config: &Config, engines: Option<&Path>) -> Self {
        let some = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
        let places = [Some(config.state_dir.as_path()), engines];
        Self {
            limit_bytes: some(config.disk_limit_bytes),
            min_free_bytes: config.min_free_bytes,
            execution_bytes: some(config.execution_disk_bytes),
            every: Duration::from_millis(config.disk_check_ms),
            places: places.into_iter().flatten().map(Path::to_owned).collect(),
            over: watch::Sender::default(),
            used: AtomicU64::new(0),
            free: AtomicU64::new(0),
        }
    }

    /// Waits until the execution takes more than it may, and says so for people.
    pub(crate) async fn exceeded(&self, id: &ExecutionId) -> String {
        let mut over = self.over.subscribe();
        match over.wait_for(|over| over.contains_key(id)).await.map(|over| over.get(id).copied()) {
            Ok(bytes) => {
                let takes = match bytes.unwrap_or(0) {
                    UNCOUNTED => "more files than can be counted".to_owned(),
                    bytes => format!("{} MiB of disk", bytes >> 20),
                };
                let most = self.execution_bytes.unwrap_or(0) >> 20;
                format!("the run took {takes}, and {most} MiB is the most here")
            }
            // The sender lives in `self`.
            Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes.unwrap_or(0)
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        self.free.load(Relaxed)
    }

    /// What the plane is told.
    pub(crate) fn taken(&self) -> DiskUse {
        DiskUse { used_bytes: self.used_bytes(), limit_bytes: self.limit_bytes }
    }

    /// Whether an execution takes more than it may.
    pub(crate) fn is_any_beyond(&self) -> bool {
        !self.over.borrow().is_empty()
    }

    /// Bytes that are free where the least is; a place that cannot be asked has room.
    fn least_free(&self) -> u64 {
        let free = |place: &PathBuf| {
            let about = rustix::fs::statvfs(place).ok()?;
            Some(about.f_bavail.saturating_mul(about.f_frsize))
        };
        self.places.iter().filter_map(free).min().unwrap_or(u64::MAX)
    }

    /// Takes note of a measurement; whether there is no room.
    pub(crate) fn note(&self, usage: &Usage) -> bool {
        let (used, free) = (usage.total(), self.least_free());
        self.used.store(used, Relaxed);
        self.free.store(free, Relaxed);
        self.over.send_if_modified(|over| {
            let beyond = usage
                .executions
                .iter()
                .filter(|(_, bytes)| self.execution_bytes.is_some_and(|most| **bytes > most));
            let beyond: HashMap<_, _> = beyond.map(|(id, bytes)| (id.clone(), *bytes)).collect();
            let changed = beyond != *over;
            *over = beyond;
            changed
        });
        self.limit_bytes.is_some_and(|limit| used >= limit) || free < self.min_free_bytes
    }
}
