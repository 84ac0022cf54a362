//! Runs being submitted: stored once for each key, while the queue has room.

use std::collections::BTreeMap;

use protocol::{
    ids::{EnvironmentId, RunId, TenantId},
    retry::RetryPolicy,
    run::Standing,
};
use sqlx::error::DatabaseError;

use super::{Idempotency, Store, StoreError, Tx, again, bounded, json, on_tx, transitions::Head};
use crate::placement::Placement;

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
    pub placement: Placement,
    /// Higher ones first, among its owner's.
    pub priority: i32,
    /// How long one wait in the queue may last.
    pub queue_ms: Option<i64>,
    pub retry: RetryPolicy,
    pub parent_run_id: Option<RunId>,
    /// JSON: the environment as it is now.
    pub snapshot: String,
    /// Its values, sealed for `environment_id`.
    pub env_sealed: Option<Vec<u8>>,
    pub idempotency: Option<Idempotency>,
    /// Runs of an owner without a limit of its own that may wait; 0 for no bound.
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
    /// As many as may wait do: so many.
    QueueFull(u32),
}

impl Store {
    /// Stores a run and its first event, unless its key was used or its owner has too many waiting.
    pub async fn insert_run(&self, new: &InsertRun) -> Result<Inserted, StoreError> {
        again(|| self.try_insert_run(new)).await
    }

    async fn try_insert_run(&self, new: &InsertRun) -> Result<Inserted, StoreError> {
        const WAITING: &str = "select
             (select count(*) from runs where owner = $1 and state = 'QUEUED'),
             (select max_queued from tenant_limits where owner = $1)";
        let mut tx = self.begin().await?;
        if let Some(key) = &new.idempotency
            && let Some(earlier) = tx.earlier(&new.owner, key).await?
        {
            return Ok(earlier);
        }
        let (waiting, own): (i64, Option<i64>) = on_tx!(&mut tx, |db| sqlx::query_as(WAITING)
            .bind(new.owner.as_str())
            .fetch_one(db)
            .await)?;
        let own = own.and_then(|own| u32::try_from(own).ok());
        if let Some(most) = bounded(own.unwrap_or(new.max_queued))
            && waiting >= i64::from(most)
        {
            return Ok(Inserted::QueueFull(most));
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
              updated_at, queued_at, not_before, last_seq, phases, placement, priority, queue_ms,
              queue_until, retry)
             values ($1, $2, $3, 0, 1, 0, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                     $16, $17, $18, $19, $20, $20, $20, $20, 1, '{}', $21, $22, $23, $24, $25)";
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
            .bind(new.placement.to_text())
            .bind(i64::from(new.priority))
            .bind(new.queue_ms)
            .bind(new.queue_ms.map(|ms| new.now.saturating_add(ms)))
            .bind(json(&new.retry))
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
