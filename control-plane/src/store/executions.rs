//! Executions as rows: what they are, and how they begin and end.

use protocol::{
    failure::FailureReason,
    ids::{ExecutionId, RunId, WorkerId},
};

use super::{
    Store, StoreError, Tx, clean, on_pool, on_tx, parse, signed,
    transitions::{Change, Head},
    unsigned,
};

macro_rules! execution_columns {
    () => {
        "id, run_id, attempt, worker_id, instance_id, lease_expires_at, ended_at, ending,
         worker_seq, sidecar_seq, stored_events, stored_bytes, artifact_bytes"
    };
}

pub(super) use execution_columns;

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its worker said so.
    Reported,
    /// Its worker did not take it, or did not answer.
    Declined,
    /// Its worker fell silent.
    Lost,
}

impl Ending {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Declined => "declined",
            Self::Lost => "lost",
        }
    }
}

impl std::str::FromStr for Ending {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Reported, Self::Declined, Self::Lost]
            .into_iter()
            .find(|ending| ending.as_str() == text)
            .ok_or(())
    }
}

#[derive(Debug, Clone)]
pub struct ExecutionRow {
    pub id: ExecutionId,
    pub run_id: RunId,
    pub attempt: u32,
    pub worker_id: WorkerId,
    pub instance_id: String,
    pub lease_expires_at: i64,
    /// How it ended; `None` while it may go on.
    pub ending: Option<Ending>,
    /// The worker's own events are stored up to here.
    pub worker_seq: u64,
    /// The sidecar's events are stored up to here.
    pub sidecar_seq: u64,
    pub(super) stored_events: u64,
    pub(super) stored_bytes: u64,
    pub(super) artifact_bytes: u64,
}

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    id: String,
    run_id: String,
    attempt: i64,
    worker_id: String,
    instance_id: String,
    lease_expires_at: i64,
    ending: Option<String>,
    worker_seq: i64,
    sidecar_seq: i64,
    stored_events: i64,
    stored_bytes: i64,
    artifact_bytes: i64,
}

impl TryFrom<Row> for ExecutionRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: parse(&row.id, "execution id")?,
            run_id: parse(&row.run_id, "run id")?,
            attempt: u32::try_from(row.attempt).map_err(|_| StoreError::Corrupt("attempt"))?,
            worker_id: parse(&row.worker_id, "worker id")?,
            instance_id: row.instance_id,
            lease_expires_at: row.lease_expires_at,
            ending: row.ending.map(|text| parse(&text, "execution ending")).transpose()?,
            worker_seq: unsigned(row.worker_seq, "worker_seq")?,
            sidecar_seq: unsigned(row.sidecar_seq, "sidecar_seq")?,
            stored_events: unsigned(row.stored_events, "stored_events")?,
            stored_bytes: unsigned(row.stored_bytes, "stored_bytes")?,
            artifact_bytes: unsigned(row.artifact_bytes, "artifact_bytes")?,
        })
    }
}

impl Store {
    /// An execution, whoever's it is: for the link, which knows workers and no tenants.
    pub async fn execution(&self, id: &ExecutionId) -> Result<Option<ExecutionRow>, StoreError> {
        const SQL: &str =
            concat!("select ", execution_columns!(), " from executions where id = $1");
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL)
            .bind(id.as_str())
            .fetch_optional(db)
            .await)?
        .map(ExecutionRow::try_from)
        .transpose()
    }

    /// The newest execution of a run on a worker, for stock workers, who name runs only.
    pub async fn execution_of(
        &self,
        worker: &WorkerId,
        run: &RunId,
    ) -> Result<Option<ExecutionRow>, StoreError> {
        const SQL: &str = concat!(
            "select ",
            execution_columns!(),
            " from executions where run_id = $1 and worker_id = $2
              order by assigned_at desc, id desc limit 1"
        );
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL)
            .bind(run.as_str())
            .bind(worker.as_str())
            .fetch_optional(db)
            .await)?
        .map(ExecutionRow::try_from)
        .transpose()
    }

    /// What one worker process holds, as far as the plane knows.
    pub async fn executions_of_instance(
        &self,
        instance: &str,
    ) -> Result<Vec<ExecutionRow>, StoreError> {
        const SQL: &str = concat!(
            "select ",
            execution_columns!(),
            " from executions where instance_id = $1 and ended_at is null"
        );
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL).bind(instance).fetch_all(db).await)?
            .into_iter()
            .map(ExecutionRow::try_from)
            .collect()
    }
}

impl Tx {
    /// An execution and its run, which is locked first, always, so that two transactions never wait for each
    /// other.
    pub(super) async fn lock_execution(
        &mut self,
        id: &ExecutionId,
    ) -> Result<Option<(Head, ExecutionRow)>, StoreError> {
        let Some(seen) = self.execution(id).await? else { return Ok(None) };
        let head = self.lock_run(&seen.run_id).await?;
        // Read again: until the lock it could change.
        Ok(self.execution(id).await?.map(|execution| (head, execution)))
    }

    async fn execution(&mut self, id: &ExecutionId) -> Result<Option<ExecutionRow>, StoreError> {
        const SQL: &str =
            concat!("select ", execution_columns!(), " from executions where id = $1");
        on_tx!(self, |db| sqlx::query_as::<_, Row>(SQL).bind(id.as_str()).fetch_optional(db).await)?
            .map(ExecutionRow::try_from)
            .transpose()
    }

    /// The worker has it: its lease begins.
    pub(super) async fn mark_claimed(
        &mut self,
        id: &ExecutionId,
        until: i64,
        now: i64,
    ) -> Result<(), StoreError> {
        const SQL: &str = "update executions
             set claimed_at = coalesce(claimed_at, $3), lease_expires_at = $2 where id = $1";
        on_tx!(self, |db| sqlx::query(SQL)
            .bind(id.as_str())
            .bind(until)
            .bind(now)
            .execute(db)
            .await
            .map(|_| ()))?;
        Ok(())
    }

    /// It is over. Parts of artifacts that never became whole go with it.
    pub(super) async fn end_execution(
        &mut self,
        id: &ExecutionId,
        ending: Ending,
        change: &Change,
        now: i64,
    ) -> Result<(), StoreError> {
        const SQL: &str = "update executions
             set ended_at = $2, ending = $3, reason = $4, message = $5, exit_code = $6,
                 peak_memory_bytes = $7
             where id = $1";
        const SWEEP: &str = "delete from artifact_parts
             where execution_id = $1 and not exists
                 (select 1 from artifacts where uid = artifact_uid and execution_id = $1)";
        on_tx!(self, |db| sqlx::query(SQL)
            .bind(id.as_str())
            .bind(now)
            .bind(ending.as_str())
            .bind(change.reason.map(FailureReason::as_str))
            .bind(change.message.as_deref().map(clean))
            .bind(change.exit_code.map(i64::from))
            .bind(change.peak_memory_bytes.map(signed))
            .execute(db)
            .await
            .map(|_| ()))?;
        on_tx!(self, |db| sqlx::query(SWEEP).bind(id.as_str()).execute(db).await.map(|_| ()))?;
        Ok(())
    }
}
