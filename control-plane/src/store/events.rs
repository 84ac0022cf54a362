//! Events as rows: appended with the run's own numbers, read by page.

use futures_util::TryStreamExt;
use protocol::ids::{ExecutionId, RunId};
use serde_json::value::RawValue;
use sqlx::QueryBuilder;

use super::{
    Store, StoreError, Tx, on_pool, on_tx, parse, signed, transitions::NewEvent, unsigned,
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
             where run_id = $1 and seq > $2 order by seq limit $3";
        let mut page = Vec::new();
        let mut bytes = 0;
        on_pool!(self, |db| {
            let mut rows = sqlx::query_as::<_, Row>(SQL)
                .bind(run.as_str())
                .bind(signed(after))
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
    /// Appends rows numbered from `first`.
    pub(super) async fn append_events(
        &mut self,
        run: &RunId,
        first: u64,
        events: &[NewEvent<'_>],
    ) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        on_tx!(self, |db| {
            let mut query = QueryBuilder::new(
                "insert into run_events (run_id, seq, execution_id, at_ms, kind, data) ",
            );
            query.push_values(events.iter().zip(first..), |mut row, (event, seq)| {
                row.push_bind(run.as_str())
                    .push_bind(signed(seq))
                    .push_bind(event.execution_id)
                    .push_bind(event.at_ms)
                    .push_bind(event.kind)
                    .push_bind(event.data);
            });
            query.build().execute(db).await.map(|_| ())
        })?;
        Ok(())
    }
}
