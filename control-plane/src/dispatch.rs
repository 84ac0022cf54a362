//! Dispatch: a reconciler that brings queued runs to free slots, and wishes to stop to the workers concerned.
//! It takes no input but the store and the connections of this plane, and forgets everything between passes.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    failure::FailureReason,
    limits::MAX_FRAME_BYTES,
    link::{StockTask, TaskAssignment, TaskCancellation, TaskDefinition, ToWorker},
    secret::Secret,
    spec::RunSpec,
};
use service::lifecycle::Lifecycle;

use crate::{
    core::Core,
    environments,
    link::registry::{Connection, Dialect},
    reports,
    runs::{RunServers, Snapshot},
    store::{
        Assignment, Calls, CancelCall, Claim, Claimant, Claimed, Report, Rotation, StoreError,
        bounded, from_json, millis,
    },
};

/// Claims of one pass; a longer queue is left to the next pass, which comes at once.
const MAX_CLAIMS: usize = 64;

/// Works until the process drains.
pub async fn run(core: Arc<Core>, life: Lifecycle) {
    let mut woken = core.wake.on_queue();
    let mut rotation = Rotation::default();
    loop {
        // Marked before the pass: what comes during it leads to another one.
        woken.borrow_and_update();
        if let Err(error) = pass_from(&core, &mut rotation).await {
            tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "dispatch failed");
        }
        tokio::select! {
            () = life.draining().cancelled() => return,
            // The safety net: a wake-up may be lost, and a wait before a retry ends without one.
            () = tokio::time::sleep(core.settings.poll) => {}
            _ = woken.changed() => {}
        }
    }
}

/// One pass: the same on an empty memory as on a full one.
pub async fn pass(core: &Core) -> Result<(), StoreError> {
    pass_from(core, &mut Rotation::default()).await
}

async fn pass_from(core: &Core, rotation: &mut Rotation) -> Result<(), StoreError> {
    if core.workers.is_empty() {
        return Ok(());
    }
    let calls = core.store.calls().await?;
    tell_drains(core, &calls);
    tell_cancels(core, &calls);
    if !calls.waiting {
        return Ok(());
    }
    // Whether the looks since the first lane are the whole round, and whether one of them led to anything.
    let (mut whole, mut handed) = (rotation.is_at_start(), false);
    for _ in 0..MAX_CLAIMS {
        let (connections, claimants) = claimants(core, &calls);
        if claimants.is_empty() {
            return Ok(());
        }
        let now = core.now();
        let claim = Claim {
            claimants,
            max_running: bounded(core.settings.max_running),
            answer_by: now + millis(core.settings.claim_timeout),
            now,
            rotation: std::mem::take(rotation),
        };
        let claim = Arc::new(claim);
        let claimed = core.store.claim(&claim).await;
        let Claimed { assignments, unfinished, rotation: next } = claimed?;
        *rotation = next;
        handed |= !assignments.is_empty();
        for assignment in assignments {
            hand_over(core, &connections[assignment.claimant], assignment).await?;
        }
        if !unfinished {
            return Ok(());
        }
        if rotation.is_at_start() {
            if whole && !handed {
                return Ok(());
            }
            (whole, handed) = (true, false);
        }
    }
    // More than one pass holds: the next one goes on, after a look at what else there is to do. One that led to
    // nothing goes on when something changes.
    if handed {
        core.wake.again();
    }
    Ok(())
}

/// The worker processes that may be handed something, each by one of its connections.
fn claimants(core: &Core, calls: &Calls) -> (Vec<Arc<Connection>>, Vec<Claimant>) {
    let now = core.now();
    let mut by_process = BTreeMap::new();
    for connection in core.workers.all() {
        let drained = calls.drained.contains(connection.worker_id.as_str());
        if !drained && connection.takes_work(now) && connection.room() > 0 {
            // The newest of a process that has several: older ones are more likely to be dead.
            by_process.insert(connection.instance_id.clone(), connection);
        }
    }
    let connections: Vec<_> = by_process.into_values().collect();
    let claimants = connections.iter().map(|connection| Claimant {
        worker_id: connection.worker_id.clone(),
        instance_id: connection.instance_id.clone(),
        tags: connection.tags.clone(),
        capacity: connection.capacity,
        most: connection.room(),
    });
    let claimants = claimants.collect();
    (connections, claimants)
}

/// Puts one assignment on its worker's socket. One that cannot be is the worker's refusal or the run's failure.
async fn hand_over(
    core: &Core,
    connection: &Connection,
    run: Assignment,
) -> Result<(), StoreError> {
    let (run_id, execution_id) = (run.run_id.clone(), run.execution_id.clone());
    core.wake.run(&run_id);
    let sent = match assignment_frame(core, connection.dialect, run) {
        Ok(frame) => connection.send(frame),
        Err((reason, message)) => {
            tracing::error!(run.id = %run_id, error = message, "run {run_id} cannot be assigned");
            let report =
                Report::Failed { reason, message, exit_code: None, peak_memory_bytes: None };
            reports::record(core, &execution_id, None, &report).await?;
            return Ok(());
        }
    };
    if sent {
        core.counters.assigned.add(1);
        tracing::info!(run.id = %run_id, execution.id = %execution_id,
            worker.id = %connection.worker_id, "run {run_id} handed to {}", connection.worker_id);
    } else {
        let message = "the worker's connection was gone".to_owned();
        reports::record(core, &execution_id, None, &Report::Declined { message }).await?;
    }
    Ok(())
}

/// Tells each connection whether its worker is to take nothing new.
fn tell_drains(core: &Core, calls: &Calls) {
    for connection in core.workers.all() {
        connection.tell_drain(calls.drained.contains(connection.worker_id.as_str()));
    }
}

/// Tells each worker once a connection which of its executions are to stop.
fn tell_cancels(core: &Core, calls: &Calls) {
    for CancelCall { execution_id, instance_id, run_id } in &calls.cancels {
        for connection in core.workers.of_instance(instance_id) {
            if connection.first_cancel(execution_id) {
                connection.send(ToWorker::TaskCancellation(TaskCancellation {
                    task_id: run_id.clone(),
                    execution_id: Some(execution_id.clone()),
                }));
            }
        }
    }
}

/// The assignment as it goes out. One that no frame holds would end the connection of every worker it is handed
/// to, again and again: it fails instead.
fn assignment_frame(
    core: &Core,
    dialect: Dialect,
    run: Assignment,
) -> Result<ToWorker, (FailureReason, String)> {
    let assignment = assignment(core, dialect, run).map_err(|error| {
        (FailureReason::Unknown, format!("the plane could not make the assignment: {error}"))
    })?;
    let frame = ToWorker::TaskAssignment(Box::new(assignment));
    let size = frame.to_json().len();
    if size > MAX_FRAME_BYTES {
        let message = format!(
            "prompt and environment together are a message of {size} bytes; {MAX_FRAME_BYTES} are the most"
        );
        return Err((FailureReason::AgentInvocation, message));
    }
    Ok(frame)
}

fn assignment(
    core: &Core,
    dialect: Dialect,
    run: Assignment,
) -> Result<TaskAssignment, StoreError> {
    let spec = run_spec(core, &run)?;
    let stock = dialect == Dialect::Stock;
    Ok(TaskAssignment {
        task_id: run.run_id.clone(),
        execution_id: run.execution_id,
        task: StockTask {
            id: run.run_id,
            title: run.title,
            // A worker of ours reads it from the specification; it need not travel twice.
            task_definition: TaskDefinition {
                prompt: if stock { run.prompt } else { String::new() },
            },
        },
        docker_image: if stock { spec.image.clone() } else { String::new() },
        sidecar_image: if stock {
            core.settings.sidecar_image.clone().unwrap_or_default()
        } else {
            String::new()
        },
        env_vars: if stock { stock_env(&spec) } else { BTreeMap::new() },
        spec: (!stock).then_some(spec),
    })
}

/// What one execution is to do, from the run's own copy of its environment.
fn run_spec(core: &Core, run: &Assignment) -> Result<RunSpec, StoreError> {
    let Snapshot { mut spec, session } = from_json(&run.snapshot, "run snapshot")?;
    let env = match &run.environment_id {
        Some(id) => {
            environments::open_sealed(&core.sealer, id.as_str(), run.env_sealed.as_deref())?
        }
        None => BTreeMap::new(),
    };
    let sealed = run.mcp_sealed.as_deref();
    let servers: RunServers = environments::open_sealed(&core.sealer, run.run_id.as_str(), sealed)?;
    spec.harness.mcp_servers = servers.merged();
    Ok(RunSpec {
        run_id: run.run_id.clone(),
        execution_id: run.execution_id.clone(),
        tenant_id: run.owner.clone(),
        attempt: run.attempt,
        title: run.title.clone(),
        prompt: run.prompt.clone(),
        image: spec.docker_image,
        repos: spec.repos,
        setup_commands: spec.setup_commands,
        env,
        harness: spec.harness,
        shape: spec.shape,
        network: spec.network,
        timeouts: spec.timeouts.resolved(),
        artifacts: spec.artifacts,
        session,
    })
}

/// The variables a stock worker's container finds its task in (oz-api.md 2.3 and 4).
fn stock_env(spec: &RunSpec) -> BTreeMap<String, Secret> {
    let lines = |lines: Vec<String>| lines.join("\n");
    let values = spec.env.iter().map(|(key, value)| format!("{key}={}", value.expose()));
    let texts = [
        ("OZ_TASK_PROMPT", spec.prompt.clone()),
        ("OZ_ENV_REPOS", lines(spec.repos.iter().map(|repo| repo.url.clone()).collect())),
        ("OZ_ENV_SETUP_COMMANDS", lines(spec.setup_commands.clone())),
        ("OZ_ENV_VARS", lines(values.collect())),
    ];
    texts
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(key, text)| (key.to_owned(), Secret::new(text)))
        .collect()
}
