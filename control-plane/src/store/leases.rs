//! Leases: who holds an execution until when, and which of them a reconciler has to look at.

use protocol::ids::{ExecutionId, WorkerId};
use sqlx::QueryBuilder;

use super::{
    ExecutionRow, Store, StoreError,
    executions::{Row, execution_columns},
    on_pool, on_tx, parse,
};

/// The most one pass over expired or cancelled executions takes; the next pass takes more.
const MAX_BATCH: i64 = 256;

impl Store {
    /// Executions whose lease ran out before `now`.
    pub async fn expired(&self, now: i64) -> Result<Vec<ExecutionRow>, StoreError> {
        const SQL: &str = concat!(
            "select ",
            execution_columns!(),
            " from executions where ended_at is null and lease_expires_at < $1
              order by lease_expires_at limit $2"
        );
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL)
            .bind(now)
            .bind(MAX_BATCH)
            .fetch_all(db)
            .await)?
        .into_iter()
        .map(ExecutionRow::try_from)
        .collect()
    }

    /// Executions whose worker lives and does not end them: begun before `begun`, or asked before `asked` to stop.
    pub async fn overdue(&self, begun: i64, asked: i64) -> Result<Vec<ExecutionRow>, StoreError> {
        // While a run is being cancelled, its last change is the wish itself or the sidecar's first word after it.
        const SQL: &str = concat!(
            "select ",
            execution_columns!(),
            " from executions where ended_at is null and (assigned_at < $1 or run_id in (
                  select id from runs where cancelling = 1 and updated_at < $2
                      and state in ('PENDING', 'CLAIMED', 'INPROGRESS')))
              limit $3"
        );
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL)
            .bind(begun)
            .bind(asked)
            .bind(MAX_BATCH)
            .fetch_all(db)
            .await)?
        .into_iter()
        .map(ExecutionRow::try_from)
        .collect()
    }

    /// Renews the leases of those of `ids` that this worker took and holds, and tells which those were.
    pub async fn renew(
        &self,
        worker: &WorkerId,
        ids: &[ExecutionId],
        until: i64,
    ) -> Result<Vec<ExecutionId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        let renewed: Vec<String> = on_tx!(&mut tx, |db| {
            let mut query = QueryBuilder::new("update executions set lease_expires_at = ");
            query
                .push_bind(until)
                .push(" where ended_at is null and claimed_at is not null and worker_id = ");
            query.push_bind(worker.as_str()).push(" and id in (");
            let mut list = query.separated(", ");
            for id in ids {
                list.push_bind(id.as_str());
            }
            query.push(") returning id");
            query.build_query_scalar().fetch_all(db).await
        })?;
        tx.commit().await?;
        renewed.iter().map(|id| parse(id, "execution id")).collect()
    }

    /// Renews every lease of one worker process.
    pub async fn renew_instance(&self, instance: &str, until: i64) -> Result<(), StoreError> {
        const SQL: &str = "update executions set lease_expires_at = $2
             where instance_id = $1 and ended_at is null and claimed_at is not null";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(instance)
            .bind(until)
            .execute(db)
            .await
            .map(|_| ()))?;
        tx.commit().await
    }

    /// From now on this worker process holds the execution.
    pub async fn adopt(
        &self,
        id: &ExecutionId,
        instance: &str,
        until: i64,
    ) -> Result<(), StoreError> {
        const SQL: &str = "update executions set instance_id = $2, lease_expires_at = $3
             where id = $1 and ended_at is null";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(id.as_str())
            .bind(instance)
            .bind(until)
            .execute(db)
            .await
            .map(|_| ()))?;
        tx.commit().await
    }
}
