//! From the request to the assignment at a worker: a real plane, real sockets, workers that run nothing.

mod idle_worker;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use control_plane::{Config, Plane};
use protocol::{
    api::runs::{CreateRun, RunCreated},
    secret::Secret,
};
use serde::Serialize;
use service::{clock::Clock, lifecycle::Lifecycle};
use tokio::sync::oneshot;

use super::stats::Spread;
use crate::{client::Client, connection::Target, failure::Failure, stack::issue_token};

/// Runs that are asked for at the same time, in the second half.
const AT_ONCE: u32 = 16;

/// Workers, and runs each of them takes at once: never the bottleneck.
const WORKERS: usize = 2;
const CAPACITY: u32 = 64;

/// No hand-over takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
pub(crate) struct Handover {
    pub(crate) one_at_a_time: Spread,
    pub(crate) at_once: u32,
    pub(crate) many: Spread,
}

/// Who waits for which prompt to arrive at a worker.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Instant>>>>;

pub(crate) async fn measure(runs: u32) -> Result<Handover, Failure> {
    let folder = tempfile::Builder::new().prefix("ozma-bench-").tempdir()?;
    let life = Lifecycle::new();
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: folder.path().to_path_buf(),
        default_image: Some("none".to_owned()),
        ..Config::default()
    };
    let plane = Plane::start(config, Clock::system(), life.clone()).await?;
    let url = format!("http://{}", plane.local_addr());
    let measured = async {
        let file = plane.admin_key_path().ok_or_else(|| Failure::platform("no admin key"))?;
        let key = Secret::new(std::fs::read_to_string(file)?.trim());
        let waiting = Waiting::default();
        for i in 0..WORKERS {
            idle_worker::start(&url, &key, &format!("bench-{i}"), &waiting, &life).await?;
        }
        let admin = Client::new(&Target { url: url.clone(), token: key })?;
        let token = issue_token(&admin, "ozma bench").await?;
        let client = Client::new(&Target { url: url.clone(), token })?;
        // The first ones warm caches and connections, and are not counted.
        rounds(&client, &waiting, &life, 1, 20, "warm").await?;
        let one = rounds(&client, &waiting, &life, 1, runs, "one").await?;
        let many = rounds(&client, &waiting, &life, AT_ONCE, runs, "many").await?;
        Ok(Handover { one_at_a_time: Spread::of(one), at_once: AT_ONCE, many: Spread::of(many) })
    };
    let measured = measured.await;
    life.stop(Duration::from_secs(2), std::future::pending()).await;
    measured
}

/// `runs` runs from `at_once` callers, each asking for its next when the last has arrived.
async fn rounds(
    client: &Client,
    waiting: &Waiting,
    life: &Lifecycle,
    at_once: u32,
    runs: u32,
    name: &str,
) -> Result<Vec<Duration>, Failure> {
    let callers: Vec<_> = (0..at_once)
        .map(|caller| {
            let (client, waiting, name) = (client.clone(), Arc::clone(waiting), name.to_owned());
            let share = runs / at_once + u32::from(caller < runs % at_once);
            life.spawn(async move {
                let mut times = Vec::new();
                for i in 0..share {
                    times.push(once(&client, &waiting, format!("{name} {caller} {i}")).await?);
                }
                Ok::<_, Failure>(times)
            })
        })
        .collect();
    let mut all = Vec::new();
    for caller in callers {
        let times = caller.await.map_err(|error| Failure::platform(error.to_string()))??;
        all.extend(times);
    }
    Ok(all)
}

async fn once(client: &Client, waiting: &Waiting, prompt: String) -> Result<Duration, Failure> {
    let (sender, arrived) = oneshot::channel();
    waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(prompt.clone(), sender);
    let body = CreateRun { prompt: Some(prompt), ..CreateRun::default() };
    let asked = Instant::now();
    let _: RunCreated = client.post("/api/v1/agent/runs", &body).await?;
    let arrived = tokio::time::timeout(PATIENCE, arrived).await;
    match arrived {
        Ok(Ok(at)) => Ok(at - asked),
        _ => Err(Failure::platform("a run did not arrive at a worker")),
    }
}
