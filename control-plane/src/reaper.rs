//! The reaper: a reconciler that ends executions nobody speaks for any more, and waits that lasted too long. It
//! waits a while after the plane's start, a standstill, a jump of the clock, or the database's absence, because
//! silence that we made ourselves proves nothing.

use std::{sync::Arc, time::Duration};

use protocol::link::{ReportAck, ToWorker};
use service::lifecycle::Lifecycle;

use crate::{
    core::Core,
    reports,
    store::{ExecutionRow, Recorded, Report, StoreError, millis},
    time::Steps,
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
    let mut watch = Watch::new(&core);
    loop {
        if let Err(error) = round(&core, &mut watch).await {
            tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "reaping failed");
        }
        core.counters.reaper_rounds.add(1);
        tokio::select! {
            () = life.draining().cancelled() => return,
            // Leases run out without anybody's call.
            () = tokio::time::sleep(core.settings.poll) => {}
        }
    }
}

/// A pass, once it is known that the silence of workers says something.
pub async fn round(core: &Core, watch: &mut Watch) -> Result<(), StoreError> {
    let passed = match watch.look(core).await {
        Ok(()) => pass(core).await,
        Err(error) => Err(error),
    };
    if passed.is_err() {
        // While the database was away, no heartbeat could be taken.
        core.expect_silence();
    }
    passed
}

/// Compares the time of day with the time that passed. A clock that was set proves nothing about workers: ahead,
/// every lease seems to be over; back, leases that nobody renews seem to last.
#[derive(Debug)]
pub struct Watch {
    steps: Steps,
    /// The database holds times that lie too far ahead, and could not be told yet.
    rebase: bool,
    /// By how much it holds times that lie too near, and could not be told yet, in milliseconds.
    behind_ms: i64,
}

impl Watch {
    /// What went back while no plane ran is seen by nobody. Where only one plane can be, it looks at the start.
    pub fn new(core: &Core) -> Self {
        Self { steps: Steps::new(core), rebase: core.store.is_alone(), behind_ms: 0 }
    }

    /// Notices a jump since the last look, and does what has to be done about it.
    ///
    /// # Errors
    /// The database is away; the next look tries again.
    pub async fn look(&mut self, core: &Core) -> Result<(), StoreError> {
        let (passed, jump) = self.steps.look(core).await?;
        if passed > core.settings.lease / 2 {
            // Nor while this process stood still.
            core.expect_silence();
        }
        if jump.abs() > millis(core.settings.lease) / 2 {
            core.counters.clock_jumps.add(1);
            tracing::warn!(
                jump_ms = jump,
                "the clock was set by {jump} ms: leases are judged anew"
            );
            core.expect_silence();
            self.rebase |= jump < 0;
            // Of several planes each would see it.
            if core.store.is_alone() {
                self.behind_ms = self.behind_ms.saturating_add(jump.max(0));
            }
        }
        if self.behind_ms > 0 {
            core.store.put_off_waits(self.behind_ms).await?;
            self.behind_ms = 0;
        }
        if self.rebase {
            let settings = &core.settings;
            let longest = settings.lease.max(settings.stock_lease).max(settings.claim_timeout);
            let now = core.now();
            core.store.rebase(now + millis(longest), now + millis(reports::LONGEST_WAIT)).await?;
            self.rebase = false;
        }
        Ok(())
    }
}

/// One pass: ends what expired or is overdue, forgets connections nobody hears of.
pub async fn pass(core: &Core) -> Result<(), StoreError> {
    let now = core.now();
    if now >= core.expire_from() {
        expire_waits(core, now).await?;
    }
    if now < core.reap_from() {
        // The database may be away still, or again: then the time that workers get begins anew.
        return core.store.ping().await;
    }
    for execution in core.store.expired(now).await? {
        end(core, &execution, &Report::Expired, "its lease ran out").await?;
    }
    let begun = now - millis(LONGEST_EXECUTION) - core.stepped_ms();
    let asked = now - millis(LONGEST_STOP) - core.stepped_ms();
    for execution in core.store.overdue(begun, asked).await? {
        end(core, &execution, &Report::Overdue, "its worker does not end it").await?;
    }
    core.store.sweep_connections(now - 10 * millis(core.settings.stock_lease)).await?;
    Ok(())
}

/// Ends the runs that waited longer than they may.
async fn expire_waits(core: &Core, now: i64) -> Result<(), StoreError> {
    for run in core.store.end_waits(now).await? {
        core.counters.waited_too_long.add(1);
        core.counters.runs_failed.add(1);
        core.wake.run(&run);
        tracing::info!(run.id = %run, "run {run} waited longer than it may");
    }
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
