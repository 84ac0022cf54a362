//! Runs as their owners see them: insert, read, ask to stop. Their states are changed in `transitions` only.

use std::collections::BTreeMap;

use protocol::{
    event::Phase,
    failure::FailureReason,
    ids::{EnvironmentId, ExecutionId, RunId, TenantId, WorkerId},
    run::{Fact, RunState, Standing},
};

use sqlx::error::DatabaseError;

use super::{
    Idempotency, Store, StoreError, Tx, again, from_json, json, on_pool, on_tx, parse,
    transitions::{Change, Head},
    unsigned,
};
use crate::scope::Scope;

/// The columns of a [`Run`], in one place for every statement that reads whole runs.
macro_rules! run_columns {
    () => {
        "id, owner, state, cancelling, attempt, max_attempts, execution_id, worker_id, title, name,
         prompt, config, metadata, source, environment_id, model_id, worker_host, parent_run_id,
         created_at, updated_at, started_at, ended_at, last_seq, phases, reason,
         message, answer, exit_code, peak_memory_bytes"
    };
}
pub(super) use run_columns;

/// A run, without what only its execution needs.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: RunId,
    pub owner: TenantId,
    pub state: RunState,
    /// Its user asked for it to stop, and its worker has not done so yet.
    pub cancelling: bool,
    /// The current execution's number, from 1; 0 before the first.
    pub attempt: u32,
    pub max_attempts: u32,
    pub execution_id: Option<ExecutionId>,
    pub worker_id: Option<WorkerId>,
    pub title: String,
    /// The label of `config.name`.
    pub name: Option<String>,
    pub prompt: String,
    /// JSON, as the caller sent it.
    pub config: String,
    pub metadata: BTreeMap<String, String>,
    /// `API`, `CLI`, …
    pub source: String,
    pub environment_id: Option<EnvironmentId>,
    pub model_id: Option<String>,
    pub worker_host: Option<String>,
    pub parent_run_id: Option<RunId>,
    pub created_at: i64,
    pub updated_at: i64,
    pub started_at: Option<i64>,
    pub ended_at: Option<i64>,
    /// The number of its newest event.
    pub last_seq: u64,
    /// Milliseconds by phase, of the current attempt.
    pub phases: BTreeMap<Phase, u64>,
    /// Why it failed; while it waits for another attempt, why the last one did.
    pub reason: Option<FailureReason>,
    pub message: Option<String>,
    /// The provider's final answer, where there is one.
    pub answer: Option<String>,
    pub exit_code: Option<i32>,
    pub peak_memory_bytes: Option<u64>,
}

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: String,
    owner: String,
    state: String,
    cancelling: i64,
    attempt: i64,
    max_attempts: i64,
    execution_id: Option<String>,
    worker_id: Option<String>,
    pub(super) title: String,
    pub(super) name: Option<String>,
    pub(super) prompt: String,
    config: String,
    metadata: String,
    source: String,
    environment_id: Option<String>,
    model_id: Option<String>,
    worker_host: Option<String>,
    parent_run_id: Option<String>,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    last_seq: i64,
    phases: String,
    reason: Option<String>,
    message: Option<String>,
    answer: Option<String>,
    exit_code: Option<i64>,
    peak_memory_bytes: Option<i64>,
}

impl TryFrom<Row> for Run {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let small = |n: i64| u32::try_from(n).map_err(|_| StoreError::Corrupt("run attempt"));
        Ok(Self {
            id: parse(&row.id, "run id")?,
            owner: parse(&row.owner, "run owner")?,
            state: parse(&row.state, "run state")?,
            cancelling: row.cancelling == 1,
            attempt: small(row.attempt)?,
            max_attempts: small(row.max_attempts)?,
            execution_id: optional(row.execution_id, "execution id")?,
            worker_id: optional(row.worker_id, "worker id")?,
            title: row.title,
            name: row.name,
            prompt: row.prompt,
            config: row.config,
            metadata: from_json(&row.metadata, "run metadata")?,
            source: row.source,
            environment_id: optional(row.environment_id, "environment id")?,
            model_id: row.model_id,
            worker_host: row.worker_host,
            parent_run_id: optional(row.parent_run_id, "parent run id")?,
            created_at: row.created_at,
            updated_at: row.updated_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            last_seq: unsigned(row.last_seq, "run last_seq")?,
            phases: from_json(&row.phases, "run phases")?,
            reason: row.reason.map(FailureReason::from),
            message: row.message,
            answer: row.answer,
            exit_code: row.exit_code.and_then(|code| i32::try_from(code).ok()),
            peak_memory_bytes: row.peak_memory_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        })
    }
}

pub(super) fn optional<T: std::str::FromStr>(
    text: Option<String>,
    what: &'static str,
) -> Result<Option<T>, StoreError> {
    text.map(|text| parse(&text, what)).transpose()
}

/// A run about to be stored.
#[derive(Debug, Clone)]
pub struct InsertRun {
    pub id: RunId,
    pub owner: TenantId,
    pub max_attempts: u32,
    pub title: String,
    pub name: Option<String>,
    pub prompt: String,
    pub config: String,
    pub metadata: BTreeMap<String, String>,
    pub source: String,
    pub environment_id: Option<EnvironmentId>,
    pub model_id: Option<String>,
    pub worker_host: Option<String>,
    pub parent_run_id: Option<RunId>,
    /// JSON: the environment as it is now.
    pub snapshot: String,
    /// Its values, sealed for `environment_id`.
    pub env_sealed: Option<Vec<u8>>,
    pub idempotency: Option<Idempotency>,
    /// Runs of this owner that may wait.
    pub max_queued: u32,
    /// Worker connections heard of since then count as capacity.
    pub seen_since: i64,
    pub now: i64,
}

/// What became of a run about to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// Stored; or stored before, under the same key by the same request.
    Run { id: RunId, at_capacity: bool, repeated: bool },
    /// The key was used for another request.
    KeyMismatch,
    /// As many as may wait do.
    QueueFull,
}

/// What became of a wish to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It had not begun, and is over.
    AtOnce,
    /// Its worker has to stop it.
    Asked,
    /// It is being handed to a worker: try again.
    Pending,
    /// It was over before.
    Terminal,
}

impl Store {
    /// Stores a run and its first event, unless its key was used or its owner has too many waiting.
    pub async fn insert_run(&self, new: &InsertRun) -> Result<Inserted, StoreError> {
        again(|| self.try_insert_run(new)).await
    }

    async fn try_insert_run(&self, new: &InsertRun) -> Result<Inserted, StoreError> {
        const WAITING: &str = "select count(*) from runs where owner = $1 and state = 'QUEUED'";
        let mut tx = self.begin().await?;
        if let Some(key) = &new.idempotency
            && let Some(earlier) = tx.earlier(&new.owner, key).await?
        {
            return Ok(earlier);
        }
        let waiting: i64 = on_tx!(&mut tx, |db| sqlx::query_scalar(WAITING)
            .bind(new.owner.as_str())
            .fetch_one(db)
            .await)?;
        if waiting >= i64::from(new.max_queued) {
            return Ok(Inserted::QueueFull);
        }
        let at_capacity = tx.free_slots(new.seen_since).await? <= 0;
        match tx.insert_run_row(new, at_capacity).await {
            // Two requests with one key at the same time: the other one was first.
            Err(StoreError::Unavailable(error))
                if error.as_database_error().is_some_and(DatabaseError::is_unique_violation) =>
            {
                return Err(StoreError::Conflict);
            }
            other => other?,
        }
        tx.record_state(&Head::new(new), None, new.now).await?;
        tx.commit().await?;
        Ok(Inserted::Run { id: new.id.clone(), at_capacity, repeated: false })
    }

    /// One the caller may see.
    pub async fn run(&self, scope: &Scope, id: &RunId) -> Result<Run, StoreError> {
        const SQL: &str = concat!(
            "select ",
            run_columns!(),
            " from runs where id = $1 and ($2 = 1 or owner = $3)"
        );
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL)
            .bind(id.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound)?
        .try_into()
    }

    /// How many runs are in each state, over all tenants.
    pub async fn count_runs(&self) -> Result<BTreeMap<String, i64>, StoreError> {
        const SQL: &str = "select state, count(*) from runs group by state";
        let rows: Vec<(String, i64)> =
            on_pool!(self, |db| sqlx::query_as(SQL).fetch_all(db).await)?;
        Ok(rows.into_iter().collect())
    }

    /// The user's wish that it stop.
    pub async fn cancel_run(
        &self,
        scope: &Scope,
        id: &RunId,
        now: i64,
    ) -> Result<Cancelled, StoreError> {
        again(async || {
            let mut tx = self.begin().await?;
            let mut head = tx.lock_run(id).await?;
            if !scope.is_admin() && head.owner != *scope.owner() {
                return Err(StoreError::NotFound);
            }
            if head.standing.state.is_terminal() {
                return Ok(Cancelled::Terminal);
            }
            if head.standing.state == RunState::Pending {
                return Ok(Cancelled::Pending);
            }
            if head.standing.cancelling {
                return Ok(Cancelled::Asked);
            }
            let change = Change {
                reason: Some(FailureReason::TaskCancelled),
                message: Some("cancelled by its user".to_owned()),
                ..Change::default()
            };
            tx.advance(&mut head, Fact::CancelRequested, &change, now).await?;
            tx.commit().await?;
            let over = head.standing.state.is_terminal();
            Ok(if over { Cancelled::AtOnce } else { Cancelled::Asked })
        })
        .await
    }
}

impl Tx {
    async fn insert_run_row(
        &mut self,
        new: &InsertRun,
        at_capacity: bool,
    ) -> Result<(), StoreError> {
        const SQL: &str = "insert into runs
             (id, owner, state, cancelling, version, attempt, max_attempts, title, name, prompt,
              config, metadata, source, environment_id, model_id, worker_host, parent_run_id,
              snapshot, env_sealed, idempotency_key, request_hash, at_capacity, created_at,
              updated_at, queued_at, not_before, last_seq, phases)
             values ($1, $2, $3, 0, 1, 0, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                     $16, $17, $18, $19, $20, $20, $20, $20, 1, '{}')";
        const METADATA: &str = "insert into run_metadata (run_id, key, value) values ($1, $2, $3)";
        let key = new.idempotency.as_ref();
        on_tx!(self, |db| sqlx::query(SQL)
            .bind(new.id.as_str())
            .bind(new.owner.as_str())
            .bind(Standing::QUEUED.state.as_str())
            .bind(i64::from(new.max_attempts))
            .bind(&new.title)
            .bind(&new.name)
            .bind(&new.prompt)
            .bind(&new.config)
            .bind(json(&new.metadata))
            .bind(&new.source)
            .bind(new.environment_id.as_ref().map(EnvironmentId::as_str))
            .bind(&new.model_id)
            .bind(&new.worker_host)
            .bind(new.parent_run_id.as_ref().map(RunId::as_str))
            .bind(&new.snapshot)
            .bind(&new.env_sealed)
            .bind(key.map(|key| &key.key))
            .bind(key.map(|key| &key.request_hash))
            .bind(i64::from(at_capacity))
            .bind(new.now)
            .execute(db)
            .await
            .map(|_| ()))?;
        for (key, value) in &new.metadata {
            on_tx!(self, |db| sqlx::query(METADATA)
                .bind(new.id.as_str())
                .bind(key)
                .bind(value)
                .execute(db)
                .await
                .map(|_| ()))?;
        }
        Ok(())
    }
}
