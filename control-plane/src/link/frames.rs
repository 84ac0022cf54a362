//! What each frame of a worker leads to. An answer goes out after the store has committed, never before.

use std::sync::atomic::Ordering;

use protocol::{
    ids::ExecutionId,
    limits::MAX_EVENTS_PER_FRAME,
    link::{Ack, Events, FromWorker, Heartbeat, ReportAck, ToWorker},
};

use super::{
    MAX_EXECUTIONS, executions,
    registry::{Connection, Dialect},
};
use crate::{
    core::{Core, millis},
    reports,
    store::{Ending, Ingested, Report, StoreError},
};

/// How often a connection's row is written; it counts as there for four times as long.
const TOUCH_EVERY_MS: i64 = 30_000;

/// Executions renewed by one statement.
const RENEWED_AT_ONCE: usize = 1_000;

pub(super) async fn handle(
    core: &Core,
    connection: &Connection,
    frame: FromWorker,
) -> Result<(), StoreError> {
    let kind = frame.kind().to_owned();
    let acted = match frame {
        FromWorker::TaskClaimed(claimed) => executions::claimed(core, connection, claimed).await,
        FromWorker::TaskRejected(no) => executions::rejected(core, connection, no).await,
        FromWorker::TaskCompleted(done) => executions::completed(core, connection, done).await,
        FromWorker::TaskFailed(failed) => executions::failed(core, connection, failed).await,
        FromWorker::Events(batch) => events(core, connection, batch).await,
        FromWorker::Heartbeat(beat) => heartbeat(core, connection, &beat).await,
        FromWorker::Hello(_) => {
            tracing::warn!(worker.id = %connection.worker_id, "a hello out of turn was ignored");
            Ok(())
        }
        FromWorker::Unknown(kind) => {
            tracing::debug!(worker.id = %connection.worker_id, kind, "an unknown frame was ignored");
            Ok(())
        }
    };
    match acted {
        // Nothing a second try would change: the frame is dropped, not the connection.
        Err(error @ (StoreError::Illegal(_) | StoreError::Corrupt(_) | StoreError::NotFound)) => {
            tracing::error!(worker.id = %connection.worker_id, error = %error,
                "a {kind} frame was dropped");
        }
        other => other?,
    }
    heard(core, connection).await
}

/// Any sign of life. Stock workers have no heartbeat: this is what renews their leases.
pub(super) async fn heard(core: &Core, connection: &Connection) -> Result<(), StoreError> {
    let now = core.now();
    let renewed_at = connection.renewed_at.load(Ordering::Relaxed);
    if connection.dialect == Dialect::Stock && now - renewed_at >= millis(core.settings.heartbeat) {
        connection.renewed_at.store(now, Ordering::Relaxed);
        let until = now + millis(core.settings.stock_lease);
        core.store.renew_instance(&connection.instance_id, until).await?;
    }
    if now - connection.touched_at.load(Ordering::Relaxed) >= TOUCH_EVERY_MS {
        touch(core, connection).await?;
    }
    Ok(())
}

async fn touch(core: &Core, connection: &Connection) -> Result<(), StoreError> {
    let now = core.now();
    connection.touched_at.store(now, Ordering::Relaxed);
    let draining = connection.draining.load(Ordering::Relaxed);
    core.store.touch_connection(&connection.id, draining, now).await
}

async fn events(core: &Core, connection: &Connection, batch: Events) -> Result<(), StoreError> {
    let id = &batch.execution_id;
    let now = core.now();
    let lease_until = now + millis(core.settings.lease);
    let chunks: Vec<_> = if batch.events.is_empty() {
        vec![&batch.events[..]]
    } else {
        batch.events.chunks(MAX_EVENTS_PER_FRAME).collect()
    };
    for chunk in chunks {
        let worker = &connection.worker_id;
        let ingested = core.store.ingest(id, worker, batch.source, chunk, lease_until, now).await?;
        match ingested {
            Ingested::Stored { run_id, seq, stored, repeated, gap } => {
                core.counters.events_stored.add(stored);
                core.counters.events_repeated.add(repeated);
                core.counters.event_gaps.add(u64::from(gap));
                if stored > 0 {
                    core.wake.run(&run_id);
                }
                let source = batch.source;
                connection.send(ToWorker::Ack(Ack { execution_id: id.clone(), source, seq }));
                if gap {
                    return Ok(());
                }
            }
            Ingested::Superseded => {
                core.counters.superseded.add(1);
                connection.send(ToWorker::Stop(ReportAck { execution_id: id.clone() }));
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn heartbeat(
    core: &Core,
    connection: &Connection,
    beat: &Heartbeat,
) -> Result<(), StoreError> {
    let was_draining = connection.draining.swap(beat.draining, Ordering::Relaxed);
    if was_draining != beat.draining {
        touch(core, connection).await?;
        core.wake.queue();
    }
    let until = core.now() + millis(core.settings.lease);
    let held = &beat.executions[..beat.executions.len().min(MAX_EXECUTIONS)];
    for ids in held.chunks(RENEWED_AT_ONCE) {
        let renewed = core.store.renew(&connection.worker_id, ids, until).await?;
        for id in ids.iter().filter(|id| !renewed.contains(id)) {
            if !not_renewed(core, connection, id, until).await? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A worker names an execution whose lease it cannot renew. False when its connection is gone.
async fn not_renewed(
    core: &Core,
    connection: &Connection,
    id: &ExecutionId,
    lease_until: i64,
) -> Result<bool, StoreError> {
    let row = core.store.execution(id).await?;
    let of_worker = row.filter(|row| row.worker_id == connection.worker_id);
    let execution_id = id.clone();
    Ok(match of_worker.map(|row| row.ending) {
        // It holds what it was handed: that is as good as `task_claimed`, should that have been lost.
        Some(None) => {
            let claimed = Report::Claimed { lease_until };
            reports::record(core, id, Some(&connection.worker_id), &claimed).await?;
            true
        }
        // The acknowledgement of its report was lost.
        Some(Some(Ending::Reported)) => {
            connection.send(ToWorker::ReportAck(ReportAck { execution_id }))
        }
        _ => {
            core.counters.superseded.add(1);
            connection.send(ToWorker::Stop(ReportAck { execution_id }))
        }
    })
}
