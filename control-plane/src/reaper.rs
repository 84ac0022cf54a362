//! The reaper: a reconciler that ends executions nobody speaks for any more. It waits one lease after the
//! plane's start, a standstill, or the database's absence, because silence that we made ourselves proves nothing.

use std::{sync::Arc, time::Duration};

use protocol::link::{ReportAck, ToWorker};
use service::lifecycle::Lifecycle;
use tokio::time::Instant;

use crate::{
    core::{Core, millis},
    reports,
    store::{ExecutionRow, Recorded, Report, StoreError},
};

/// Workers end an execution at its own bounds, of which a week is the longest. One that lasts longer than this
/// is given up although its worker still speaks for it, so that every run comes to an end.
const LONGEST_EXECUTION: Duration = Duration::from_hours(8 * 24);

/// How long a worker may take to stop an execution, artifacts included, before it is given up.
const LONGEST_STOP: Duration = Duration::from_mins(10);

/// Works until the process drains.
pub async fn run(core: Arc<Core>, life: Lifecycle) {
    if let Err(error) = core.store.forget_connections_of_the_past().await {
        tracing::debug!(error = %error, "connections of an earlier life stay until they are swept");
    }
    let mut last = Instant::now();
    loop {
        // While this process stood still, no heartbeat could be taken.
        if last.elapsed() > core.settings.lease / 2 {
            core.expect_silence();
        }
        last = Instant::now();
        if let Err(error) = pass(&core).await {
            tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "reaping failed");
            // Nor while the database was away.
            core.expect_silence();
        }
        tokio::select! {
            () = life.draining().cancelled() => return,
            // Leases run out without anybody's call.
            () = tokio::time::sleep(core.settings.poll) => {}
        }
    }
}

/// One pass: ends what expired or is overdue, forgets connections nobody hears of.
pub async fn pass(core: &Core) -> Result<(), StoreError> {
    let now = core.now();
    if now < core.reap_from() {
        return Ok(());
    }
    for execution in core.store.expired(now).await? {
        end(core, &execution, &Report::Expired, "its lease ran out").await?;
    }
    let (begun, asked) = (now - millis(LONGEST_EXECUTION), now - millis(LONGEST_STOP));
    for execution in core.store.overdue(begun, asked).await? {
        end(core, &execution, &Report::Overdue, "its worker does not end it").await?;
    }
    core.store.sweep_connections(now - 10 * millis(core.settings.stock_lease)).await?;
    Ok(())
}

async fn end(
    core: &Core,
    execution: &ExecutionRow,
    report: &Report,
    why: &str,
) -> Result<(), StoreError> {
    let recorded = reports::record(core, &execution.id, None, report).await?;
    if let Recorded::Applied { run_id, .. } = recorded {
        tracing::warn!(run.id = %run_id, execution.id = %execution.id,
            worker.id = %execution.worker_id, "execution {} is given up: {why}", execution.id);
        // Should the worker be there after all, it must not go on.
        for connection in core.workers.of_instance(&execution.instance_id) {
            connection.send(ToWorker::Stop(ReportAck { execution_id: execution.id.clone() }));
        }
    }
    Ok(())
}
