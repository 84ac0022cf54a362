//! How a connection begins: what the worker still holds is compared with what the store says, and each
//! execution gets a verdict.

use std::{collections::HashSet, sync::Arc, sync::atomic::Ordering};

use protocol::{
    ids::{ExecutionId, WorkerId},
    link::{Hello, PROTOCOL_VERSION, ToWorker, Verdict, Welcome},
};

use super::{
    MAX_EXECUTIONS,
    registry::{Connection, Dialect, Outgoing, lock},
};
use crate::{
    core::Core,
    reports,
    store::{ConnectionRow, Report, StoreError, clean, millis, signed},
};

/// Longest name a worker may give its process, backend or version; the rest is cut.
const MAX_NAME_CHARS: usize = 128;

/// A worker of ours: adopts what it holds, answers `welcome`, and takes part from then on.
pub(super) async fn ozma(
    core: &Core,
    worker_id: WorkerId,
    hello: &Hello,
    outgoing: Outgoing,
) -> Result<Arc<Connection>, StoreError> {
    // Within its worker's name, so that no worker can speak for another's process. A name has no line break.
    let instance = format!("{worker_id}\n{}", name(&hello.instance_id));
    // The older connection takes no assignment from here on, so that none is lost between the two.
    for older in core.workers.of_instance(&instance) {
        older.closing.cancel();
        core.workers.remove(&older.id);
    }
    let mut verdicts = Vec::new();
    for running in hello.executions.iter().take(MAX_EXECUTIONS) {
        verdicts.push(verdict(core, &worker_id, &instance, &running.execution_id).await?);
    }
    let named: HashSet<_> = hello.executions.iter().map(|running| &running.execution_id).collect();
    for held in core.store.executions_of_instance(&instance).await? {
        if !named.contains(&held.id) {
            reports::record(core, &held.id, None, &Report::Missing).await?;
        }
    }
    let tags = hello.tags.iter().take(64).map(|tag| name(tag)).collect();
    let mut connection =
        Connection::new(worker_id, instance, Dialect::Ozma, hello.capacity, outgoing);
    connection.tags = tags;
    *lock(&connection.disk) = hello.disk;
    connection.draining.store(hello.draining, Ordering::Relaxed);
    // Whatever told it to: if no drain is wished for any more, it hears so.
    connection.told_to_drain.store(hello.draining, Ordering::Relaxed);
    connection.send(ToWorker::Welcome(Welcome {
        protocol: PROTOCOL_VERSION,
        lease_ms: millis(core.settings.lease).unsigned_abs(),
        heartbeat_ms: millis(core.settings.heartbeat).unsigned_abs(),
        executions: verdicts,
    }));
    begin(core, connection, &name(&hello.backend), &name(&hello.version)).await
}

/// A worker that said no `hello`.
pub(super) async fn stock(
    core: &Core,
    worker_id: WorkerId,
    outgoing: Outgoing,
) -> Result<Arc<Connection>, StoreError> {
    let instance = format!("stock:{worker_id}");
    let capacity = core.settings.stock_capacity;
    let connection = Connection::new(worker_id, instance, Dialect::Stock, capacity, outgoing);
    begin(core, connection, "", "").await
}

async fn begin(
    core: &Core,
    connection: Connection,
    backend: &str,
    version: &str,
) -> Result<Arc<Connection>, StoreError> {
    let now = core.now();
    let disk = *lock(&connection.disk);
    connection.renewed_at.store(now, Ordering::Relaxed);
    connection.touched_at.store(now, Ordering::Relaxed);
    let row = ConnectionRow {
        id: connection.id.clone(),
        plane_id: core.plane_id.clone(),
        worker_id: connection.worker_id.to_string(),
        instance_id: connection.instance_id.clone(),
        dialect: connection.dialect.as_str().to_owned(),
        backend: backend.to_owned(),
        version: version.to_owned(),
        tags: crate::store::json(&connection.tags),
        capacity: i64::from(connection.capacity),
        draining: i64::from(connection.draining.load(Ordering::Relaxed)),
        connected_at: now,
        last_seen_at: now,
        disk_bytes: disk.map(|disk| signed(disk.used_bytes)),
        disk_limit_bytes: disk.and_then(|disk| disk.limit_bytes).map(signed),
    };
    core.store.insert_connection(&row).await?;
    let connection = Arc::new(connection);
    core.workers.insert(Arc::clone(&connection));
    core.wake.queue();
    Ok(connection)
}

/// Whether a worker goes on with an execution it holds, and from which events.
async fn verdict(
    core: &Core,
    worker_id: &WorkerId,
    instance: &str,
    id: &ExecutionId,
) -> Result<Verdict, StoreError> {
    let stop = Verdict { execution_id: id.clone(), keep: false, worker_seq: 0, sidecar_seq: 0 };
    let Some(row) = core.store.execution(id).await? else { return Ok(stop) };
    if row.ending.is_some() || row.worker_id != *worker_id {
        return Ok(stop);
    }
    let lease_until = core.now() + millis(core.settings.lease);
    core.store.adopt(id, instance, lease_until).await?;
    // It holds what it was handed: that is as good as `task_claimed`, should that have been lost.
    let claimed = Report::Claimed { lease_until };
    reports::record(core, id, Some(instance), &claimed).await?;
    Ok(Verdict { keep: true, worker_seq: row.worker_seq, sidecar_seq: row.sidecar_seq, ..stop })
}

fn name(text: &str) -> String {
    clean(text).chars().take(MAX_NAME_CHARS).collect()
}
