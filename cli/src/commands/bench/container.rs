//! From the assignment to the first event with a cold container, against a bare one of the same image, taking
//! turns, so that both see the same machine.

use std::time::{Duration, Instant};

use control_plane::Config as PlaneConfig;
use protocol::{
    api::{
        config::AgentConfig,
        events::EventPage,
        runs::{CreateRun, RunItem},
    },
    event::Event,
    ids::{EnvironmentId, RunId},
    run::RunState,
};
use serde::Serialize;
use worker::Config as WorkerConfig;

use super::{engine::Engine, process::resident, stats::Spread};
use crate::{
    client::Client,
    commands::{run::create, worker::BackendArg},
    environments::{self, Ingredients},
    failure::Failure,
    interrupts::Interrupts,
    stack::{Stack, backend},
    surroundings::Surroundings,
    term::Term,
};

/// How long a sidecar does nothing before it is looked at.
const IDLE: Duration = Duration::from_secs(3);

/// No container takes so long.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, Serialize)]
pub(crate) struct Cold {
    image: String,
    pub(crate) ours: Spread,
    pub(crate) bare: Spread,
    /// Of the medians.
    pub(crate) ratio: f64,
    /// PID 1 of a container whose provider only sleeps, resident, as the kernel counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sidecar_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sidecar_image_bytes: Option<u64>,
}

pub(crate) async fn measure(
    engine: &Engine,
    image: &str,
    count: u32,
    around: &Surroundings,
    term: &mut Term,
) -> Result<Cold, Failure> {
    let folder = tempfile::Builder::new().prefix("ozma-bench-").tempdir()?;
    let name = folder.path().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut worker = WorkerConfig::default();
    worker.overlay_env(|name| around.var(name).map(str::to_owned))?;
    (worker.worker_id, worker.state_dir) = (name, folder.path().join("worker"));
    backend::choose(&mut worker, Some(BackendArg::Docker), term).await?;
    backend::need_image(&worker, image).await?;
    let sidecar_image_bytes = engine.image_bytes(&worker.sidecar_image).await;
    let plane = PlaneConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: folder.path().join("plane"),
        ..PlaneConfig::default()
    };
    let stack = Stack::start(plane, worker).await?;
    let measured = turns(&stack, engine, image, count, term).await;
    let sidecar_bytes = match &measured {
        Ok(_) => resting(&stack, engine, image, term).await,
        Err(_) => Ok(None),
    };
    stack.stop(Duration::from_secs(5), &mut Interrupts::new()?).await;
    engine.sweep().await?;
    let ((ours, bare), sidecar_bytes) = (measured?, sidecar_bytes?);
    let (ours, bare) = (Spread::of(ours), Spread::of(bare));
    let ratio = ours.p50_ms / bare.p50_ms.max(f64::EPSILON);
    Ok(Cold { image: image.to_owned(), ours, bare, ratio, sidecar_bytes, sidecar_image_bytes })
}

async fn turns(
    stack: &Stack,
    engine: &Engine,
    image: &str,
    count: u32,
    term: &mut Term,
) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    stack.worker_connected().await?;
    let client = stack.client(&stack.new_tenant("ozma bench").await?)?;
    let environment = environment(&client, image, "echo first").await?;
    let environment = environment.as_str();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    // The first of each warms the engine, and is not counted.
    for i in 0..=count {
        term.status(&format!("cold containers, {i} of {count}"));
        let run = once(&client, environment).await?;
        let began = Instant::now();
        engine.bare(image).await?;
        let took = began.elapsed();
        engine.sweep().await?;
        if i > 0 {
            ours.push(run);
            bare.push(took);
        }
    }
    Ok((ours, bare))
}

async fn environment(
    client: &Client,
    image: &str,
    command: &str,
) -> Result<EnvironmentId, Failure> {
    let ingredients = Ingredients {
        image: Some(image.to_owned()),
        command: Some(command.to_owned()),
        ..Ingredients::default()
    };
    Ok(environments::ensure(client, ingredients, None).await?.environment_id)
}

async fn ask(client: &Client, environment: &str) -> Result<RunId, Failure> {
    let config =
        AgentConfig { environment_id: Some(environment.to_owned()), ..AgentConfig::default() };
    let body = CreateRun {
        prompt: Some("bench".to_owned()),
        config: Some(config),
        ..CreateRun::default()
    };
    Ok(create(client, &body).await?.run_id)
}

/// What the sidecar takes while its provider sleeps; `None` where the kernel does not show us its process.
async fn resting(
    stack: &Stack,
    engine: &Engine,
    image: &str,
    term: &mut Term,
) -> Result<Option<u64>, Failure> {
    term.status("letting a sidecar idle");
    let client = stack.client(&stack.new_tenant("ozma bench").await?)?;
    let environment = environment(&client, image, "sleep 300").await?;
    let run = ask(&client, environment.as_str()).await?;
    let path = format!("/api/v1/agent/runs/{run}");
    let since = Instant::now();
    loop {
        let item: RunItem = client.get(&path, &[]).await?;
        if item.state == RunState::Inprogress {
            break;
        }
        if item.state.is_terminal() || since.elapsed() > PATIENCE {
            return Err(Failure::platform(format!("a run that sleeps is {}", item.state)));
        }
        // Before the measurement; nobody's time is taken.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    // Idling is what is measured.
    tokio::time::sleep(IDLE).await;
    let pid = engine.process_of(run.as_str()).await?;
    let bytes = pid.and_then(resident);
    // The engine's container is not to outlive the measurement.
    client.post_empty(&format!("{path}/cancel")).await?;
    while since.elapsed() < PATIENCE {
        let item: RunItem = client.get(&path, &[]).await?;
        if item.state.is_terminal() {
            break;
        }
        // After the measurement; nobody's time is taken.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(bytes)
}

/// From the hand-over to the first word of the sidecar, both as the plane stored them.
async fn once(client: &Client, environment: &str) -> Result<Duration, Failure> {
    let path = format!("/api/v1/agent/runs/{}/events", ask(client, environment).await?);
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let page: EventPage = client.get(&path, &[("limit", "1000".to_owned())]).await?;
        let mut states = page.events.iter().filter_map(|view| match view.event() {
            Some(Event::State { state, message, .. }) => Some((state, view.at.as_ms(), message)),
            _ => None,
        });
        let end = states.clone().find(|(state, ..)| state.is_terminal());
        if let Some((state, _, message)) = end {
            if state != RunState::Succeeded {
                let message = message.unwrap_or_default();
                return Err(Failure::platform(format!("a run ended {state}: {message}")));
            }
            let mut at = |wanted| states.find(|(state, ..)| *state == wanted).map(|(_, at, _)| at);
            let (from, to) = (at(RunState::Pending), at(RunState::Inprogress));
            let took = from.zip(to).and_then(|(from, to)| u64::try_from(to - from).ok());
            return took
                .map(Duration::from_millis)
                .ok_or_else(|| Failure::platform("a run's events do not say when it began"));
        }
        // Looked at seldom, so that looking does not cost what is measured; the times are the events' own.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Err(Failure::platform("a run did not end in time"))
}
