//! What each frame of a worker leads to. An answer goes out after the store has committed, never before.

use std::sync::atomic::{AtomicI64, Ordering};

use protocol::{
    event::{EventLine, EventSource},
    ids::ExecutionId,
    limits::MAX_EVENTS_PER_FRAME,
    link::{Ack, Events, FromWorker, Heartbeat, ReportAck, ToWorker},
};

use super::{
    MAX_EXECUTIONS, executions,
    registry::{Connection, Dialect, lock},
};
use crate::{
    core::Core,
    reports,
    store::{Ending, Ingest, Ingested, Pending, Report, StoreError, millis},
};

/// How often a connection's row is written; it counts as there for four times as long.
const TOUCH_EVERY_MS: i64 = 30_000;

/// Executions renewed by one statement.
const RENEWED_AT_ONCE: usize = 1_000;

/// What became of a frame that was handed in.
pub(super) enum Handed {
    /// Its answer comes with the commit.
    Owed(Owing),
    /// There is nothing to wait for.
    Done,
    /// It may not overtake an answer: it is to be handled alone.
    Alone(Box<FromWorker>),
}

/// An answer to come.
#[derive(Debug)]
pub(super) enum Owing {
    Report(executions::Owed),
    Events { execution: ExecutionId, source: EventSource, pending: Pending<Ingested> },
}

impl Owing {
    /// Waits for the store, then answers the worker. Dropped before, it can be waited for again.
    pub(super) async fn settled(
        &mut self,
        core: &Core,
        connection: &Connection,
    ) -> Result<(), StoreError> {
        let settled = match self {
            Self::Report(owed) => owed.settled(core, connection).await,
            Self::Events { execution, source, pending } => pending.await.map(|ingested| {
                answer_events(core, connection, execution, *source, ingested);
            }),
        };
        forgive(connection, settled)
    }
}

/// What a frame weighs among those under way.
pub(super) fn weight(frame: &FromWorker) -> usize {
    match frame {
        FromWorker::Events(batch) => batch.events.iter().map(|line| line.data.get().len()).sum(),
        _ => 0,
    }
}

/// Hands on to the store what only has to be stored.
pub(super) async fn hand_in(
    core: &Core,
    connection: &Connection,
    frame: FromWorker,
) -> Result<Handed, StoreError> {
    Ok(match frame {
        FromWorker::Events(batch) if batch.events.len() <= MAX_EVENTS_PER_FRAME => Handed::Owed(
            events(core, connection, batch.execution_id, batch.source, batch.events).await?,
        ),
        frame => match executions::Said::of(core, connection, frame) {
            Ok(said) => said
                .hand_in(core, connection)
                .await?
                .map_or(Handed::Done, |owed| Handed::Owed(Owing::Report(owed))),
            Err(frame) => Handed::Alone(frame),
        },
    })
}

/// Acts on a frame that [`hand_in`] gave back; nothing is under way meanwhile.
pub(super) async fn handle(
    core: &Core,
    connection: &Connection,
    frame: FromWorker,
) -> Result<(), StoreError> {
    let acted = match frame {
        FromWorker::Events(batch) => many_events(core, connection, batch).await,
        FromWorker::Heartbeat(beat) => heartbeat(core, connection, &beat).await,
        FromWorker::Hello(_) => {
            tracing::warn!(worker.id = %connection.worker_id, "a hello out of turn was ignored");
            Ok(())
        }
        other => {
            let kind = other.kind();
            tracing::debug!(worker.id = %connection.worker_id, kind, "an unknown frame was ignored");
            Ok(())
        }
    };
    forgive(connection, acted)
}

/// Where nothing would change by a second try, the frame is dropped and not the connection.
fn forgive(connection: &Connection, acted: Result<(), StoreError>) -> Result<(), StoreError> {
    match acted {
        Err(error @ (StoreError::Illegal(_) | StoreError::Corrupt(_) | StoreError::NotFound)) => {
            tracing::error!(worker.id = %connection.worker_id, error = %error, "a frame was dropped");
            Ok(())
        }
        other => other,
    }
}

/// Any sign of life. Stock workers have no heartbeat: this is what renews their leases.
pub(super) async fn heard(core: &Core, connection: &Connection) -> Result<(), StoreError> {
    let now = core.now();
    let due = |last: &AtomicI64, every_ms: i64| {
        // What lies ahead is of a clock that was set back since.
        !(0..every_ms).contains(&now.saturating_sub(last.load(Ordering::Relaxed)))
    };
    let every_ms = millis(core.settings.heartbeat);
    if connection.dialect == Dialect::Stock && due(&connection.renewed_at, every_ms) {
        connection.renewed_at.store(now, Ordering::Relaxed);
        let until = now + millis(core.settings.stock_lease);
        core.store.renew_instance(&connection.instance_id, until).await?;
    }
    if due(&connection.touched_at, TOUCH_EVERY_MS) {
        touch(core, connection).await?;
    }
    Ok(())
}

async fn touch(core: &Core, connection: &Connection) -> Result<(), StoreError> {
    let now = core.now();
    connection.touched_at.store(now, Ordering::Relaxed);
    let draining = connection.draining.load(Ordering::Relaxed);
    let disk = *lock(&connection.disk);
    core.store.touch_connection(&connection.id, draining, disk, now).await
}

/// Hands a batch in.
async fn events(
    core: &Core,
    connection: &Connection,
    id: ExecutionId,
    source: EventSource,
    events: Vec<EventLine>,
) -> Result<Owing, StoreError> {
    let now = core.now();
    let lease_until = now + millis(core.settings.lease);
    let (execution, instance) = (id.clone(), connection.instance_id.clone());
    let ingest = Ingest { id, instance, source, events, lease_until, now };
    let pending = core.store.hand_in_events(ingest).await?;
    Ok(Owing::Events { execution, source, pending })
}

fn answer_events(
    core: &Core,
    connection: &Connection,
    execution: &ExecutionId,
    source: EventSource,
    ingested: Ingested,
) {
    let execution_id = execution.clone();
    match ingested {
        Ingested::Stored { run_id, seq, stored, repeated, gap } => {
            core.counters.events_stored.add(stored);
            core.counters.events_repeated.add(repeated);
            core.counters.event_gaps.add(u64::from(gap));
            if stored > 0 {
                core.wake.run(&run_id);
            }
            connection.send(ToWorker::Ack(Ack { execution_id, source, seq }));
        }
        Ingested::Superseded => {
            core.counters.superseded.add(1);
            connection.send(ToWorker::Stop(ReportAck { execution_id }));
        }
    }
}

/// More events than a frame should hold: stored in pieces, until one is not taken.
async fn many_events(
    core: &Core,
    connection: &Connection,
    batch: Events,
) -> Result<(), StoreError> {
    let Events { execution_id, source, mut events } = batch;
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(MAX_EVENTS_PER_FRAME));
        let piece = std::mem::replace(&mut events, rest);
        let owing = self::events(core, connection, execution_id.clone(), source, piece).await?;
        let Owing::Events { execution, source, pending } = owing else { return Ok(()) };
        let ingested = pending.await?;
        let taken = matches!(ingested, Ingested::Stored { gap: false, .. });
        answer_events(core, connection, &execution, source, ingested);
        if !taken {
            return Ok(());
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
    if beat.disk.is_some() {
        *lock(&connection.disk) = beat.disk;
    }
    if was_draining != beat.draining {
        touch(core, connection).await?;
        core.wake.queue();
    }
    let until = core.now() + millis(core.settings.lease);
    let held = &beat.executions[..beat.executions.len().min(MAX_EXECUTIONS)];
    for ids in held.chunks(RENEWED_AT_ONCE) {
        let renewed = core.store.renew(&connection.instance_id, ids, until).await?;
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
    let held = row.filter(|row| row.instance_id == connection.instance_id);
    let execution_id = id.clone();
    Ok(match held.map(|row| row.ending) {
        // It holds what it was handed: that is as good as `task_claimed`, should that have been lost.
        Some(None) => {
            let claimed = Report::Claimed { lease_until };
            reports::record(core, id, Some(&connection.instance_id), &claimed).await?;
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
