//! What there is to know about one run's wait: where it stands, who there is to take it, and who else waits.
//! Reads only, each bounded; they are for people, and nothing is decided by them.

use std::collections::BTreeMap;

use protocol::{
    failure::FailureReason,
    ids::{RunId, TenantId, WorkerId},
    run::RunState,
};

use super::{Store, StoreError, lanes::Loads, on_pool, parse, runs::optional};
use crate::{placement::Placement, scope::Scope};

/// Kinds of waiting runs that are looked at; with more the numbers of those ahead are too low.
const MAX_KINDS: i64 = 10_000;

/// Most runs that are counted; of a longer queue the answer says at least so many.
const MAX_COUNTED: i64 = 10_000;

/// One run's place among the others.
#[derive(Debug, Clone)]
pub struct Standpoint {
    pub owner: TenantId,
    pub state: RunState,
    pub cancelling: bool,
    pub priority: i64,
    pub placement: Placement,
    pub created_at: i64,
    pub queued_at: i64,
    pub updated_at: i64,
    pub not_before: i64,
    pub queue_until: Option<i64>,
    pub attempt: u32,
    pub declines: i64,
    pub reason: Option<FailureReason>,
    pub worker_id: Option<WorkerId>,
    pub started_at: Option<i64>,
    pub ended_at: Option<i64>,
    /// It goes on with a conversation that the worker it asks for keeps.
    pub pinned: bool,
}

/// A worker process that is connected to some plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub worker_id: String,
    pub tags: Vec<String>,
    pub capacity: u32,
    pub busy: u32,
    /// It takes nothing new.
    pub draining: bool,
}

/// Who is there to take runs, and what each tenant has under way.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    pub processes: Vec<Process>,
    pub active: BTreeMap<String, u32>,
    /// Running limits of tenants that have one of their own; 0 for none.
    pub limits: BTreeMap<String, u32>,
}

/// Runs of one tenant that wait for the same kind of worker.
#[derive(Debug, Clone)]
pub struct Contender {
    pub owner: String,
    pub placement: Placement,
    pub waiting: u64,
}

#[derive(sqlx::FromRow)]
struct Row {
    owner: String,
    state: String,
    cancelling: i64,
    priority: i64,
    placement: String,
    created_at: i64,
    queued_at: i64,
    updated_at: i64,
    not_before: i64,
    queue_until: Option<i64>,
    attempt: i64,
    declines: i64,
    reason: Option<String>,
    worker_id: Option<String>,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    pinned: i64,
}

impl Store {
    /// # Errors
    /// `NotFound`: no such run, or not the caller's.
    pub async fn standpoint(&self, scope: &Scope, id: &RunId) -> Result<Standpoint, StoreError> {
        const SQL: &str = "select owner, state, cancelling, priority, placement, created_at, queued_at,
                 updated_at, not_before, queue_until, attempt, declines, reason, worker_id, started_at,
                 ended_at, cast(case when conversation_id is not null and worker_host is null
                 then 1 else 0 end as bigint) as pinned
             from runs where id = $1 and ($2 = 1 or owner = $3)";
        let row: Option<Row> = on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(id.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .fetch_optional(db)
            .await)?;
        let row = row.ok_or(StoreError::NotFound)?;
        let placement = placement(&row.placement)?;
        Ok(Standpoint {
            owner: parse(&row.owner, "run owner")?,
            state: parse(&row.state, "run state")?,
            cancelling: row.cancelling == 1,
            priority: row.priority,
            pinned: row.pinned == 1 && placement.worker_host.is_some(),
            placement,
            created_at: row.created_at,
            queued_at: row.queued_at,
            updated_at: row.updated_at,
            not_before: row.not_before,
            queue_until: row.queue_until,
            attempt: u32::try_from(row.attempt).unwrap_or_default(),
            declines: row.declines,
            reason: row.reason.map(FailureReason::from),
            worker_id: optional(row.worker_id, "worker id")?,
            started_at: row.started_at,
            ended_at: row.ended_at,
        })
    }

    /// The worker processes that some plane heard of since then.
    pub async fn fleet(&self, seen_since: i64) -> Result<Fleet, StoreError> {
        let Loads { active, busy, limits, drained } = self.loads().await?;
        let mut processes = BTreeMap::new();
        for row in self.connections(seen_since).await? {
            let process = Process {
                draining: row.draining == 1 || drained.contains(&row.worker_id),
                tags: serde_json::from_str(&row.tags).unwrap_or_default(),
                capacity: u32::try_from(row.capacity).unwrap_or_default(),
                busy: busy.get(&row.instance_id).copied().unwrap_or_default(),
                worker_id: row.worker_id,
            };
            // Of several connections of one process the newest speaks for it.
            processes.insert(row.instance_id, process);
        }
        Ok(Fleet { processes: processes.into_values().collect(), active, limits })
    }

    /// Ready runs of the same owner that come before this one.
    pub async fn own_ahead(
        &self,
        id: &RunId,
        of: &Standpoint,
        now: i64,
    ) -> Result<Vec<Contender>, StoreError> {
        const SQL: &str = "select owner, placement, count(*) from (
                 select owner, placement from runs
                 where owner = $1 and state = 'QUEUED' and not_before <= $2
                   and (priority > $3 or (priority = $3
                        and (created_at < $4 or (created_at = $4 and id < $5))))
                 limit $7) ahead
             group by owner, placement limit $6";
        let rows = on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(of.owner.as_str())
            .bind(now)
            .bind(of.priority)
            .bind(of.created_at)
            .bind(id.as_str())
            .bind(MAX_KINDS)
            .bind(MAX_COUNTED)
            .fetch_all(db)
            .await)?;
        contenders(rows)
    }

    /// Ready runs of everybody else.
    pub async fn others_waiting(
        &self,
        owner: &TenantId,
        now: i64,
    ) -> Result<Vec<Contender>, StoreError> {
        const SQL: &str = "select owner, placement, count(*) from (
                 select owner, placement from runs
                 where owner <> $1 and state = 'QUEUED' and not_before <= $2 limit $4) others
             group by owner, placement limit $3";
        let rows = on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(owner.as_str())
            .bind(now)
            .bind(MAX_KINDS)
            .bind(MAX_COUNTED)
            .fetch_all(db)
            .await)?;
        contenders(rows)
    }
}

fn contenders(rows: Vec<(String, String, i64)>) -> Result<Vec<Contender>, StoreError> {
    let each = rows.into_iter().map(|(owner, text, waiting)| {
        let waiting = u64::try_from(waiting).unwrap_or_default();
        Ok(Contender { owner, placement: placement(&text)?, waiting })
    });
    each.collect()
}

fn placement(text: &str) -> Result<Placement, StoreError> {
    Placement::from_text(text).map_err(|_| StoreError::Corrupt("run placement"))
}
