//! Leases: who holds an execution until when, and which of them a reconciler has to look at.

use std::collections::{BTreeMap, HashSet, VecDeque};

use futures_util::FutureExt;
use protocol::ids::ExecutionId;

use super::{
    ExecutionRow, Store, StoreError, Tx,
    executions::{Row, execution_columns},
    on_pool, on_tx,
    values::{MAX_ROWS, Values},
};

/// The most one pass over expired or cancelled executions takes; the next pass takes more.
const MAX_BATCH: i64 = 256;

/// Leases to be renewed.
#[derive(Debug, Clone)]
pub(crate) struct Renew {
    /// The worker process that asks.
    pub(crate) instance: String,
    pub(crate) ids: Vec<ExecutionId>,
    pub(crate) until: i64,
}

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

    /// Renews the leases of those of `ids` that this worker process took and holds, and tells which those were.
    pub async fn renew(
        &self,
        instance: &str,
        ids: &[ExecutionId],
        until: i64,
    ) -> Result<Vec<ExecutionId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let renew = Renew { instance: instance.to_owned(), ids: ids.to_vec(), until };
        self.hand_in_renewal(renew).await?.await
    }

    /// Renews every lease of one worker process.
    pub async fn renew_instance(&self, instance: &str, until: i64) -> Result<(), StoreError> {
        const SQL: &str = "update executions set lease_expires_at = $2
             where instance_id = $1 and ended_at is null and claimed_at is not null";
        self.set_leases(SQL, instance, until).await
    }

    /// This worker process was cut off: what it has not answered is waited for until then, and no longer.
    pub async fn expect_no_answer(&self, instance: &str, until: i64) -> Result<(), StoreError> {
        const SQL: &str = "update executions set lease_expires_at = $2
             where instance_id = $1 and ended_at is null and claimed_at is null
                 and lease_expires_at > $2";
        self.set_leases(SQL, instance, until).await
    }

    /// Runs a statement over the executions of a worker process (`$1`) that gives their leases a new end (`$2`).
    async fn set_leases(
        &self,
        sql: &'static str,
        instance: &str,
        until: i64,
    ) -> Result<(), StoreError> {
        let instance = instance.to_owned();
        self.exclusive(move |tx| {
            let instance = instance.clone();
            async move {
                on_tx!(tx, |db| sqlx::query(sql)
                    .bind(instance)
                    .bind(until)
                    .execute(db)
                    .await
                    .map(|_| ()))?;
                Ok(())
            }
            .boxed()
        })
        .await
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
        let (id, instance) = (id.to_string(), instance.to_owned());
        self.exclusive(move |tx| {
            let (id, instance) = (id.clone(), instance.clone());
            async move {
                on_tx!(tx, |db| sqlx::query(SQL)
                    .bind(id)
                    .bind(instance)
                    .bind(until)
                    .execute(db)
                    .await
                    .map(|_| ()))?;
                Ok(())
            }
            .boxed()
        })
        .await
    }
}

impl Tx {
    /// Renews what is asked for in a group, all at once; an answer for each renewal, in their order.
    pub(super) async fn renew_leases(
        &mut self,
        renewals: &[&Renew],
    ) -> Result<VecDeque<Vec<ExecutionId>>, StoreError> {
        static WRITE: Values = Values::new(
            "with v(id, instance_id, until) as (values ",
            3,
            ") update executions set lease_expires_at = v.until
             from v where executions.id = v.id and executions.instance_id = v.instance_id
                 and executions.ended_at is null and executions.claimed_at is not null
             returning executions.id, executions.instance_id",
        );
        // In the order of their ids, so that planes do not wait for each other, and each once.
        let wanted: BTreeMap<_, i64> = renewals
            .iter()
            .flat_map(|renew| {
                renew.ids.iter().map(|id| ((id.as_str(), renew.instance.as_str()), renew.until))
            })
            .collect();
        let wanted: Vec<_> = wanted.into_iter().collect();
        let mut renewed: HashSet<(String, String)> = HashSet::new();
        for chunk in wanted.chunks(MAX_ROWS) {
            let (text, size) = WRITE.text(self, chunk.len());
            renewed.extend(on_tx!(self, |db| {
                let mut query = sqlx::query_as::<_, (String, String)>(text);
                for nth in 0..size {
                    let row = chunk.get(nth);
                    query = query
                        .bind(row.map(|((id, _), _)| *id))
                        .bind(row.map(|((_, instance), _)| *instance))
                        .bind(row.map(|(_, until)| *until));
                }
                query.fetch_all(db).await
            })?);
        }
        let kept = |renew: &&Renew| {
            let is =
                |id: &&ExecutionId| renewed.contains(&(id.to_string(), renew.instance.clone()));
            renew.ids.iter().filter(is).cloned().collect()
        };
        Ok(renewals.iter().map(kept).collect())
    }
}
