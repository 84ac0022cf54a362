//! Claiming: queued runs become executions of one worker, a batch in one transaction.

use std::collections::BTreeMap;

use protocol::{
    ids::{EnvironmentId, ExecutionId, RunId, TenantId, WorkerId},
    run::Fact,
};

use super::{
    Store, StoreError, Tx, again, on_pool, on_tx, parse, runs::optional, transitions::Change,
};

/// The most one claim takes; dispatch comes again for more.
const MAX_BATCH: i64 = 32;

/// Who claims.
#[derive(Debug, Clone)]
pub struct Claimant {
    pub worker_id: WorkerId,
    /// The worker's process; its open executions count against its capacity.
    pub instance_id: String,
    pub capacity: u32,
    /// Runs to take at most, whatever the capacity.
    pub most: u32,
    /// By then the worker must have answered.
    pub answer_by: i64,
    pub now: i64,
}

/// A run that became an execution, with all its assignment needs.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub run_id: RunId,
    pub execution_id: ExecutionId,
    pub owner: TenantId,
    pub attempt: u32,
    pub title: String,
    pub prompt: String,
    pub environment_id: Option<EnvironmentId>,
    /// JSON: the environment as it was at the request.
    pub snapshot: String,
    pub env_sealed: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    owner: String,
    title: String,
    prompt: String,
    environment_id: Option<String>,
    snapshot: String,
    env_sealed: Option<Vec<u8>>,
}

/// The runs that come next. An owner's first waiting run has turn 1, its second turn 2, …, and each run it has
/// under way moves all of them back by one: so a tenant with a thousand runs waits for one with two, no more.
macro_rules! candidates {
    () => {
        "select runs.id from runs join (
             select waiting.id, waiting.turn + coalesce(busy.runs, 0) as turn
             from (
                 select id, owner, row_number() over (partition by owner order by created_at, id) as turn
                 from runs
                 where state = 'QUEUED' and not_before <= $1
                   and (worker_host is null or worker_host = $2)
             ) waiting
             left join (
                 select owner, count(*) as runs from runs
                 where state in ('PENDING', 'CLAIMED', 'INPROGRESS') group by owner
             ) busy on busy.owner = waiting.owner
         ) next on next.id = runs.id
         where runs.state = 'QUEUED'
         order by next.turn, runs.created_at, runs.id
         limit $3"
    };
}

impl Store {
    /// How many runs wait that may be claimed by now, counted to 1000: cheap, to be asked before a claim.
    pub async fn waiting(&self, now: i64) -> Result<u32, StoreError> {
        const SQL: &str = "select count(*) from
             (select 1 from runs where state = 'QUEUED' and not_before <= $1 limit 1000) waiting";
        let count: i64 =
            on_pool!(self, |db| sqlx::query_scalar(SQL).bind(now).fetch_one(db).await)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// How many executions each worker process holds; those that hold none are left out.
    pub async fn busy(&self) -> Result<BTreeMap<String, u32>, StoreError> {
        const SQL: &str = "select instance_id, count(*) from executions where ended_at is null
             group by instance_id";
        let rows: Vec<(String, i64)> =
            on_pool!(self, |db| sqlx::query_as(SQL).fetch_all(db).await)?;
        Ok(rows.into_iter().map(|(id, n)| (id, u32::try_from(n).unwrap_or(u32::MAX))).collect())
    }

    /// Hands the next runs to a worker, as many as it has slots for.
    pub async fn claim(&self, claimant: &Claimant) -> Result<Vec<Claimed>, StoreError> {
        again(|| self.try_claim(claimant)).await
    }

    async fn try_claim(&self, claimant: &Claimant) -> Result<Vec<Claimed>, StoreError> {
        const BUSY: &str =
            "select count(*) from executions where instance_id = $1 and ended_at is null";
        let mut tx = self.begin().await?;
        let busy: i64 = on_tx!(&mut tx, |db| sqlx::query_scalar(BUSY)
            .bind(&claimant.instance_id)
            .fetch_one(db)
            .await)?;
        let free =
            (i64::from(claimant.capacity) - busy).min(i64::from(claimant.most)).min(MAX_BATCH);
        if free <= 0 {
            return Ok(Vec::new());
        }
        let mut claimed = Vec::new();
        for id in tx.candidates(claimant, free).await? {
            claimed.push(tx.claim_one(&id, claimant).await?);
        }
        tx.commit().await?;
        Ok(claimed)
    }
}

impl Tx {
    async fn candidates(
        &mut self,
        claimant: &Claimant,
        free: i64,
    ) -> Result<Vec<RunId>, StoreError> {
        let ids: Vec<String> = match self {
            Self::Sqlite(tx) => {
                sqlx::query_scalar(candidates!())
                    .bind(claimant.now)
                    .bind(claimant.worker_id.as_str())
                    .bind(free)
                    .fetch_all(&mut **tx)
                    .await?
            }
            // Planes claim side by side: what another one looks at is passed over.
            Self::Postgres(tx) => {
                sqlx::query_scalar(concat!(candidates!(), " for update of runs skip locked"))
                    .bind(claimant.now)
                    .bind(claimant.worker_id.as_str())
                    .bind(free)
                    .fetch_all(&mut **tx)
                    .await?
            }
        };
        ids.iter().map(|id| parse(id, "run id")).collect()
    }

    async fn claim_one(&mut self, id: &RunId, claimant: &Claimant) -> Result<Claimed, StoreError> {
        const INSERT: &str = "insert into executions
             (id, run_id, attempt, worker_id, instance_id, lease_expires_at, assigned_at,
              worker_seq, sidecar_seq, stored_events, stored_bytes, artifact_bytes)
             values ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0, 0, 0)";
        const SELECT: &str = "select owner, title, prompt, environment_id, snapshot, env_sealed
             from runs where id = $1";
        let execution_id = ExecutionId::from_uuid(uuid::Uuid::now_v7());
        let mut head = self.lock_run(id).await?;
        let change = Change {
            assigned: Some((execution_id.clone(), claimant.worker_id.clone())),
            ..Change::default()
        };
        self.advance(&mut head, Fact::Assigned, &change, claimant.now).await?;
        on_tx!(self, |db| sqlx::query(INSERT)
            .bind(execution_id.as_str())
            .bind(id.as_str())
            .bind(head.attempt)
            .bind(claimant.worker_id.as_str())
            .bind(&claimant.instance_id)
            .bind(claimant.answer_by)
            .bind(claimant.now)
            .execute(db)
            .await
            .map(|_| ()))?;
        let row: Row =
            on_tx!(self, |db| sqlx::query_as(SELECT).bind(id.as_str()).fetch_one(db).await)?;
        Ok(Claimed {
            run_id: id.clone(),
            execution_id,
            owner: parse(&row.owner, "run owner")?,
            attempt: u32::try_from(head.attempt).map_err(|_| StoreError::Corrupt("run attempt"))?,
            title: row.title,
            prompt: row.prompt,
            environment_id: optional(row.environment_id, "environment id")?,
            snapshot: row.snapshot,
            env_sealed: row.env_sealed,
        })
    }
}
