//! Events as rows: appended with the run's own numbers, read by page.

use futures_util::TryStreamExt;
use protocol::ids::{ExecutionId, RunId};
use serde_json::value::RawValue;

use super::{
    Store, StoreError, Tx, on_pool, parse, signed,
    transitions::NewEvent,
    unsigned,
    values::{Values, send_values},
};

/// Where a page is cut although more events would fit its limit.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// One event of a run.
#[derive(Debug, Clone)]
pub struct RunEvent {
    /// From 1, without gaps, within the run.
    pub seq: u64,
    pub execution_id: Option<ExecutionId>,
    pub at_ms: i64,
    pub kind: String,
    pub data: Box<RawValue>,
}

#[derive(sqlx::FromRow)]
struct Row {
    seq: i64,
    execution_id: Option<String>,
    at_ms: i64,
    kind: String,
    data: String,
}

impl TryFrom<Row> for RunEvent {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            seq: unsigned(row.seq, "event seq")?,
            execution_id: row.execution_id.map(|id| parse(&id, "execution id")).transpose()?,
            at_ms: row.at_ms,
            kind: row.kind,
            data: RawValue::from_string(row.data).map_err(|_| StoreError::Corrupt("event data"))?,
        })
    }
}

impl Store {
    /// Events of a run after `after`, at most `limit` and about 4 MiB. The caller has made sure that the run is
    /// one it may see.
    pub(crate) async fn events_after(
        &self,
        run: &RunId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RunEvent>, StoreError> {
        const SQL: &str = "select seq, execution_id, at_ms, kind, data from run_events
             where run_id = $1 and seq > $2 and seq <= $3 order by seq limit $4";
        self.events(SQL, run, after, u64::MAX, limit).await
    }

    /// The same up to `last`, without the kinds that a summary says nothing of: they are most of a run's bytes.
    /// The last one is there of whatever kind, so that nothing at all means that it is kept no longer.
    pub(crate) async fn told_events(
        &self,
        run: &RunId,
        after: u64,
        last: u64,
        limit: u32,
    ) -> Result<Vec<RunEvent>, StoreError> {
        const SQL: &str = "select seq, execution_id, at_ms, kind, data from run_events
             where run_id = $1 and seq > $2 and seq <= $3
               and (kind not in ('output', 'image_progress', 'phase_started', 'notice') or seq = $3)
             order by seq limit $4";
        self.events(SQL, run, after, last, limit).await
    }

    async fn events(
        &self,
        sql: &'static str,
        run: &RunId,
        after: u64,
        last: u64,
        limit: u32,
    ) -> Result<Vec<RunEvent>, StoreError> {
        let mut page = Vec::new();
        let mut bytes = 0;
        on_pool!(self, |db| {
            let mut rows = sqlx::query_as::<_, Row>(sql)
                .bind(run.as_str())
                .bind(signed(after))
                .bind(signed(last))
                .bind(i64::from(limit))
                .fetch(db);
            while let Some(row) = rows.try_next().await? {
                bytes += row.data.len();
                page.push(RunEvent::try_from(row)?);
                if bytes > MAX_PAGE_BYTES {
                    break;
                }
            }
        });
        Ok(page)
    }
}

impl Tx {
    /// Appends events of any number of runs, numbered already.
    pub(crate) async fn append_events(
        &mut self,
        events: &[NewEvent<'_>],
    ) -> Result<(), StoreError> {
        static INSERT: Values = Values::new(
            "with v(run_id, seq, execution_id, at_ms, kind, data) as (values ",
            6,
            ") insert into run_events (run_id, seq, execution_id, at_ms, kind, data)
             select run_id, seq, execution_id, at_ms, kind, data from v where run_id is not null",
        );
        send_values!(self, INSERT, events, |query, event| query
            .bind(event.map(|e| e.run_id.as_str()))
            .bind(event.map(|e| signed(e.seq)))
            .bind(event.and_then(|e| e.execution_id.as_ref().map(ExecutionId::as_str)))
            .bind(event.map(|e| e.at_ms))
            .bind(event.map(|e| &*e.kind))
            .bind(event.map(|e| &*e.data)));
        Ok(())
    }
}
