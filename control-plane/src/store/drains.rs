//! Workers that are to take nothing new. The table is the wish; the frames that tell the workers follow it.

use protocol::ids::WorkerId;

use super::{Store, StoreError, again, on_pool, on_tx, parse};

/// The most that one answer lists.
const MAX_LISTED: i64 = 10_000;

/// One worker's drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainRow {
    pub worker_id: WorkerId,
    pub since: i64,
    /// Executions it holds.
    pub running: u32,
}

impl Store {
    /// From the end of this call on no plane hands the worker anything, and what it was handed before is counted
    /// as running.
    pub async fn drain_worker(&self, worker: &WorkerId, now: i64) -> Result<(), StoreError> {
        const SQL: &str = "insert into worker_drains (worker_id, since) values ($1, $2)
             on conflict (worker_id) do nothing";
        again(async || {
            let mut tx = self.begin().await?;
            // A claim that began before must have ended, or its runs would begin after this was answered.
            tx.lock_claims().await?;
            on_tx!(&mut tx, |db| sqlx::query(SQL)
                .bind(worker.as_str())
                .bind(now)
                .execute(db)
                .await
                .map(|_| ()))?;
            tx.commit().await
        })
        .await
    }

    /// The worker may be handed work again. False if it was not drained.
    pub async fn resume_worker(&self, worker: &WorkerId) -> Result<bool, StoreError> {
        const SQL: &str = "delete from worker_drains where worker_id = $1";
        let mut tx = self.begin().await?;
        let gone = on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(worker.as_str())
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(gone > 0)
    }

    /// Every drain, by worker.
    pub async fn drains(&self) -> Result<Vec<DrainRow>, StoreError> {
        const SQL: &str = "select d.worker_id, d.since,
                 (select count(*) from executions e
                  where e.ended_at is null and e.worker_id = d.worker_id)
             from worker_drains d order by d.worker_id limit $1";
        let rows: Vec<(String, i64, i64)> =
            on_pool!(self, |db| sqlx::query_as(SQL).bind(MAX_LISTED).fetch_all(db).await)?;
        let rows = rows.into_iter().map(|(worker, since, running)| {
            Ok(DrainRow {
                worker_id: parse(&worker, "worker id")?,
                since,
                running: u32::try_from(running).unwrap_or(u32::MAX),
            })
        });
        rows.collect()
    }
}
