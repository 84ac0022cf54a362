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
    core::{Core, millis},
    environments,
    link::registry::{Connection, Dialect},
    reports,
    runs::Snapshot,
    store::{Claimant, Claimed, Report, StoreError, from_json},
};

/// Works until the process drains.
pub async fn run(core: Arc<Core>, life: Lifecycle) {
    let mut woken = core.wake.on_queue();
    loop {
        // Marked before the pass: what comes during it leads to another one.
        woken.borrow_and_update();
        if let Err(error) = pass(&core).await {
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
    cancel_pass(core).await?;
    loop {
        let waiting = core.store.waiting(core.now()).await?;
        if waiting == 0 || core.workers.is_empty() {
            return Ok(());
        }
        let free = free_workers(core).await?;
        // Shared out, so that one worker does not get all while the next one idles.
        let share = waiting.div_ceil(u32::try_from(free.len()).unwrap_or(u32::MAX).max(1));
        let mut handed = 0;
        for connection in free {
            handed += fill(core, &connection, share).await?;
        }
        if handed == 0 {
            return Ok(());
        }
    }
}

/// The connections that may be handed something, the one with the most free slots first.
async fn free_workers(core: &Core) -> Result<Vec<Arc<Connection>>, StoreError> {
    let busy = core.store.busy().await?;
    let now = core.now();
    let free = |connection: &Connection| {
        let held = busy.get(&connection.instance_id).copied().unwrap_or_default();
        connection.capacity.saturating_sub(held)
    };
    let mut connections = core.workers.all();
    connections.retain(|connection| connection.takes_work(now) && free(connection) > 0);
    connections.sort_by_key(|connection| std::cmp::Reverse(free(connection)));
    Ok(connections)
}

/// Hands one worker what it has slots for.
async fn fill(core: &Core, connection: &Connection, most: u32) -> Result<usize, StoreError> {
    let now = core.now();
    let claimant = Claimant {
        worker_id: connection.worker_id.clone(),
        instance_id: connection.instance_id.clone(),
        capacity: connection.capacity,
        most,
        answer_by: now + millis(core.settings.claim_timeout),
        now,
    };
    let claimed = core.store.claim(&claimant).await?;
    let handed = claimed.len();
    for run in claimed {
        let (run_id, execution_id) = (run.run_id.clone(), run.execution_id.clone());
        core.wake.run(&run_id);
        let sent = match assignment_frame(core, connection.dialect, run) {
            Ok(frame) => connection.send(frame),
            Err((reason, message)) => {
                tracing::error!(run.id = %run_id, error = message, "run {run_id} cannot be assigned");
                let report =
                    Report::Failed { reason, message, exit_code: None, peak_memory_bytes: None };
                reports::record(core, &execution_id, None, &report).await?;
                continue;
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
    }
    Ok(handed)
}

/// Tells each worker once a connection which of its executions are to stop.
async fn cancel_pass(core: &Core) -> Result<(), StoreError> {
    for execution in core.store.cancelling().await? {
        for connection in core.workers.of_instance(&execution.instance_id) {
            if connection.first_cancel(&execution.id) {
                connection.send(ToWorker::TaskCancellation(TaskCancellation {
                    task_id: execution.run_id.clone(),
                    execution_id: Some(execution.id.clone()),
                }));
            }
        }
    }
    Ok(())
}

/// The assignment as it goes out. One that no frame holds would end the connection of every worker it is handed
/// to, again and again: it fails instead.
fn assignment_frame(
    core: &Core,
    dialect: Dialect,
    run: Claimed,
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

fn assignment(core: &Core, dialect: Dialect, run: Claimed) -> Result<TaskAssignment, StoreError> {
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
fn run_spec(core: &Core, run: &Claimed) -> Result<RunSpec, StoreError> {
    let Snapshot { spec } = from_json(&run.snapshot, "run snapshot")?;
    let env = match &run.environment_id {
        Some(id) => environments::open_values(&core.sealer, id, run.env_sealed.as_deref())?,
        None => BTreeMap::new(),
    };
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
