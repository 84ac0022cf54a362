//! Executions as rows: what they are, and how they begin and end.

use protocol::{
    failure::FailureReason,
    ids::{ExecutionId, RunId, WorkerId},
};

use super::{
    Store, StoreError, Tx, clean, on_pool, on_tx, parse, signed,
    transitions::{Change, Head, NewEvent},
    unsigned,
    values::{MAX_ROWS, Values, send_values},
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

    /// The newest execution of a run on a worker, for stock workers, who name runs only. The open one is the newest,
    /// whatever the clock said when it was assigned.
    pub async fn execution_of(
        &self,
        worker: &WorkerId,
        run: &RunId,
    ) -> Result<Option<ExecutionRow>, StoreError> {
        const SQL: &str = concat!(
            "select ",
            execution_columns!(),
            " from executions where run_id = $1 and worker_id = $2
              order by case when ended_at is null then 0 else 1 end, attempt desc,
                       assigned_at desc, id desc
              limit 1"
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

/// How and with what an execution is over.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) ending: Ending,
    pub(super) change: Change,
    pub(super) at: i64,
    /// The run is declined again and again: this one is kept, and what others declined before it is not.
    pub(super) forget_declined: bool,
}

/// An execution the group concerns, as it will be written.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) row: ExecutionRow,
    pub(super) changed: bool,
    /// When the worker was first heard of it, should it not have been before.
    pub(super) claimed_at: Option<i64>,
    pub(super) closing: Option<Closing>,
}

/// An execution, its run, and where their events go.
pub(super) struct Concerned<'g, 'a> {
    pub(super) head: &'g mut Head,
    pub(super) held: &'g mut Held,
    pub(super) events: &'g mut Vec<NewEvent<'a>>,
}

impl Tx {
    /// Executions as they stand; what is not there is left out.
    pub(super) async fn executions(
        &mut self,
        ids: &[&str],
    ) -> Result<Vec<ExecutionRow>, StoreError> {
        static SELECT: Values = Values::new(
            concat!("select ", execution_columns!(), " from executions where id in (values "),
            1,
            ")",
        );
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(MAX_ROWS) {
            let (text, size) = SELECT.text(self, chunk.len());
            let rows: Vec<Row> = on_tx!(self, |db| {
                let mut query = sqlx::query_as(text);
                for nth in 0..size {
                    query = query.bind(chunk.get(nth).copied());
                }
                query.fetch_all(db).await
            })?;
            for row in rows {
                found.push(ExecutionRow::try_from(row)?);
            }
        }
        Ok(found)
    }

    /// Writes what became of executions whose runs are locked. Parts of artifacts that never became whole go with
    /// those that are over.
    pub(super) async fn write_executions(
        &mut self,
        executions: &[&Held],
    ) -> Result<(), StoreError> {
        static WRITE: Values = Values::new(
            "with v(id, worker_seq, sidecar_seq, stored_events, stored_bytes, artifact_bytes,
                    lease_expires_at, claimed_at, ended_at, ending, reason, message, exit_code,
                    peak_memory_bytes) as (values ",
            14,
            ") update executions
             set worker_seq = v.worker_seq, sidecar_seq = v.sidecar_seq,
                 stored_events = v.stored_events, stored_bytes = v.stored_bytes,
                 artifact_bytes = v.artifact_bytes, lease_expires_at = v.lease_expires_at,
                 claimed_at = coalesce(executions.claimed_at, v.claimed_at),
                 ended_at = v.ended_at, ending = v.ending, reason = v.reason,
                 message = v.message, exit_code = v.exit_code,
                 peak_memory_bytes = v.peak_memory_bytes
             from v where executions.id = v.id and executions.ended_at is null",
        );
        const SWEEP: &str = "delete from artifact_parts
             where execution_id = $1 and not exists
                 (select 1 from artifacts where uid = artifact_uid and execution_id = $1)";
        fn change<'h>(held: &'h &Held) -> Option<&'h Change> {
            held.closing.as_ref().map(|closing| &closing.change)
        }
        send_values!(self, WRITE, executions, |query, held| query
            .bind(held.map(|h| h.row.id.as_str()))
            .bind(held.map(|h| signed(h.row.worker_seq)))
            .bind(held.map(|h| signed(h.row.sidecar_seq)))
            .bind(held.map(|h| signed(h.row.stored_events)))
            .bind(held.map(|h| signed(h.row.stored_bytes)))
            .bind(held.map(|h| signed(h.row.artifact_bytes)))
            .bind(held.map(|h| h.row.lease_expires_at))
            .bind(held.and_then(|h| h.claimed_at))
            .bind(held.and_then(|h| h.closing.as_ref().map(|closing| closing.at)))
            .bind(held.and_then(|h| h.closing.as_ref().map(|closing| closing.ending.as_str())))
            .bind(held.and_then(change).and_then(|c| c.reason.map(FailureReason::as_str)))
            .bind(held.and_then(change).and_then(|c| c.message.as_deref().map(clean)))
            .bind(held.and_then(change).and_then(|c| c.exit_code.map(i64::from)))
            .bind(held.and_then(change).and_then(|c| c.peak_memory_bytes.map(signed))));
        for over in executions {
            if over.closing.as_ref().is_some_and(|closing| closing.forget_declined) {
                self.forget_declined(&over.row).await?;
            }
            if over.closing.is_some() && over.row.artifact_bytes > 0 {
                let id = over.row.id.as_str();
                on_tx!(self, |db| sqlx::query(SWEEP).bind(id).execute(db).await.map(|_| ()))?;
            }
        }
        Ok(())
    }

    /// Keeps the last declined execution of a run that is declined again and again; nobody ran the others.
    async fn forget_declined(&mut self, last: &ExecutionRow) -> Result<(), StoreError> {
        const SQL: &str = "delete from executions where run_id = $1 and ending = $2 and id <> $3";
        on_tx!(self, |db| sqlx::query(SQL)
            .bind(last.run_id.as_str())
            .bind(Ending::Declined.as_str())
            .bind(last.id.as_str())
            .execute(db)
            .await
            .map(|_| ()))?;
        Ok(())
    }
}
