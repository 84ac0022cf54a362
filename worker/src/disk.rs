//! How much of its disks a worker's executions take, and what follows: nothing new is taken while there is no
//! room, images that nobody uses go first, and an execution beyond its own bound is stopped.

mod tree;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use protocol::{ids::ExecutionId, link::DiskUse};
use tokio::{sync::watch, time::Instant};

pub(crate) use self::tree::{UNCOUNTED, bytes as bytes_below};
use crate::{backend::Usage, config::Config, executions::Executions, leftovers};

/// A measurement takes at most a tenth of the time: the engine walks through whole containers for it.
const AT_MOST: u32 = 10;

/// What is measured, against what, and how it stands.
#[derive(Debug)]
pub(crate) struct Disk {
    limit_bytes: Option<u64>,
    min_free_bytes: u64,
    execution_bytes: Option<u64>,
    every: Duration,
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

    /// Bytes that are free where the least is; a place that cannot be asked has room.
    fn least_free(&self) -> u64 {
        let free = |place: &PathBuf| {
            let about = rustix::fs::statvfs(place).ok()?;
            Some(about.f_bavail.saturating_mul(about.f_frsize))
        };
        self.places.iter().filter_map(free).min().unwrap_or(u64::MAX)
    }

    /// Takes note of a measurement; whether there is no room.
    fn note(&self, usage: &Usage) -> bool {
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

/// Measures again and again; never returns.
pub(crate) async fn watch(executions: Arc<Executions>) {
    let context = &executions.context;
    let disk = &context.disk;
    loop {
        let begun = Instant::now();
        if let Err(error) = measure(&executions).await {
            tracing::debug!(error = format!("{error:#}"), "the disk could not be measured");
        }
        tokio::time::sleep(disk.every.max(begun.elapsed() * AT_MOST)).await;
    }
}

async fn measure(executions: &Executions) -> anyhow::Result<()> {
    let context = &executions.context;
    let disk = &context.disk;
    let mut is_full = disk.note(&usage(executions).await?);
    // What is beyond its own bound goes by itself, and takes what it wrote along.
    if is_full && disk.over.borrow().is_empty() {
        // What goes wrong is said, and changes nothing about what was measured.
        if let Err(error) = remove_images(executions, &mut is_full).await {
            tracing::warn!(error = format!("{error:#}"), "no more images make room");
        }
        if let Err(error) = remove_sessions(executions, &mut is_full).await {
            tracing::warn!(error = format!("{error:#}"), "no more conversations make room");
        }
    }
    if is_full != context.gate.is_disk_full() {
        let (used, free) = (disk.used_bytes() >> 20, disk.free_bytes() >> 20);
        if is_full {
            tracing::warn!(
                "the disk is full (used {used} MiB, free {free} MiB); nothing new is taken until there is room"
            );
        } else {
            tracing::info!("there is room on the disk again (used {used} MiB, free {free} MiB)");
        }
    }
    context.gate.disk_is_full(is_full);
    let (used_bytes, limit_bytes) = (disk.used_bytes(), disk.limit_bytes);
    executions.measured(DiskUse { used_bytes, limit_bytes });
    Ok(())
}

async fn remove_images(executions: &Executions, is_full: &mut bool) -> anyhow::Result<()> {
    let context = &executions.context;
    while *is_full {
        let Some(image) = context.backend.remove_an_image().await? else { break };
        context.metrics.image_removed();
        tracing::info!("image {image}, which nothing uses, made room on the disk");
        *is_full = context.disk.note(&usage(executions).await?);
    }
    Ok(())
}

async fn remove_sessions(executions: &Executions, is_full: &mut bool) -> anyhow::Result<()> {
    if !*is_full {
        return Ok(());
    }
    let context = &executions.context;
    for conversation in leftovers::unused_sessions(executions).await? {
        match leftovers::remove_session(executions, &conversation).await {
            Ok(true) => *is_full = context.disk.note(&usage(executions).await?),
            Ok(false) => {}
            Err(error) => {
                context.metrics.cleanup_failed();
                tracing::warn!(error = format!("{error:#}"), "a conversation makes no room");
            }
        }
        if !*is_full {
            break;
        }
    }
    Ok(())
}

/// What the backend counts, and the folders.
async fn usage(executions: &Executions) -> anyhow::Result<Usage> {
    let context = &executions.context;
    let mut usage = context.backend.usage().await?;
    let homes = crate::home::Home::ids(&context.state_dir)?;
    let count = move || {
        let sizes = homes.into_iter().map(|(home, id)| (id, bytes_below(home.path())));
        sizes.collect::<Vec<_>>()
    };
    for (id, bytes) in tokio::task::spawn_blocking(count).await? {
        usage.add(id, bytes);
    }
    context.sessions.measured(usage.sessions.clone());
    // While an execution works on one, it is what that execution takes.
    for held in executions.all() {
        if let Some(bytes) = held.conversation().and_then(|id| usage.sessions.remove(id)) {
            usage.add(held.execution_id.clone(), bytes);
        }
    }
    Ok(usage)
}
