//! Stays connected to the plane and runs executions on a backend: a container engine, or plain processes.
//! It reports facts and events; which state follows from them is the plane's to say.

mod address;
mod backend;
mod boot;
pub mod config;
mod context;
mod disk;
mod endpoints;
mod execution;
mod executions;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
pub mod harness_image;
mod held;
mod home;
mod leftovers;
mod lines;
mod link;
mod metrics;
mod output;
mod phase;
pub mod probe;
mod report;
mod room;
mod scrape;
mod sessions;
mod sidecar_link;
#[doc(hidden)]
pub mod simulation;
mod subnets;
mod swept;
mod sync;
mod tree;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use service::{clock::Clock, lifecycle::Lifecycle};
use tokio::sync::Semaphore;

pub use self::config::Config;
use self::{
    backend::Backend, context::Context, disk::Disk, endpoints::Endpoints, executions::Executions,
    gate::Gate, held::Stop, link::Identity, metrics::Metrics, sessions::Sessions,
};

/// Runs a worker until `life` drains and everything that ran has ended. Once `life` aborts, what still runs is
/// stopped and handed back to the plane, which tries it again elsewhere.
///
/// # Errors
/// A setting is wrong, the state folder is in use, or the backend cannot be had. Nothing that happens later,
/// to a run or to the link, ends a worker.
pub async fn run(config: Config, clock: Clock, life: Lifecycle) -> anyhow::Result<()> {
    config.validate()?;
    let identity = Identity {
        plane_url: config.plane_url.clone(),
        token: config.secret_token()?,
        instance_id: uuid::Uuid::new_v4().to_string(),
        tags: config.tags.clone(),
        backend: config.backend.as_str(),
        capacity: config.capacity,
    };
    let _lock = home::lock_state_dir(&config.state_dir).context("state_dir")?;
    let gate = Arc::new(Gate::default());
    let backend = Backend::open(&config, gate.clone()).await?;
    let disk = Disk::new(&config, backend.data());
    let context = Context {
        worker_id: config.id()?,
        backend,
        gate,
        disk,
        sessions: Sessions::open(&config.sessions, &config.state_dir),
        state_dir: config.state_dir.clone(),
        grace_ms: config.grace_ms,
        sweep_every: Duration::from_millis(config.sweep_ms),
        endpoints: Endpoints::read(&config.providers)?,
        starts: Semaphore::new(config.parallel_starts()),
        clock,
        life: life.clone(),
        metrics: Metrics::default(),
    };
    let executions = Executions::new(context, config.capacity);
    leftovers::adopt(&executions)?;
    life.spawn_essential("the worker's sweeper", leftovers::sweep(executions.clone()));
    if let Some(listen) = config.metrics_listen {
        scrape::serve(listen, &config, executions.clone()).await?;
    }

    let ended = tokio_util::sync::CancellationToken::new();
    let _ended = ended.clone().drop_guard();
    let (measured, over) = (executions.clone(), ended.clone());
    life.spawn_essential("the disk's watcher", async move {
        tokio::select! {
            () = room::watch(measured) => {}
            () = over.cancelled() => {}
        }
    });
    let (watched, over) = (executions.context.clone(), ended.clone());
    life.spawn_essential("the engine's watcher", async move {
        tokio::select! {
            () = watched.backend.watch(&watched.metrics) => {}
            () = over.cancelled() => {}
        }
    });
    let (stopping, aborting) = (executions.clone(), life.aborting().clone());
    life.spawn(async move {
        tokio::select! {
            () = aborting.cancelled() => stopping.stop_all(Stop::Shutdown),
            () = ended.cancelled() => {}
        }
    });
    link::run(&identity, &executions).await;
    Ok(())
}
