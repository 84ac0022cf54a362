//! The ended executions of a run, kept for its owner to read.

use protocol::{
    failure::FailureReason,
    ids::{ExecutionId, RunId, WorkerId},
};

use super::{Store, StoreError, on_pool, parse};
use crate::scope::Scope;

/// An ended execution, as its run's owner sees it.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub execution_id: ExecutionId,
    pub attempt: u32,
    pub worker_id: WorkerId,
    pub assigned_at: i64,
    pub ended_at: i64,
    pub reason: Option<FailureReason>,
    pub message: Option<String>,
    pub exit_code: Option<i32>,
    pub peak_memory_bytes: Option<u64>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    attempt: i64,
    worker_id: String,
    assigned_at: i64,
    ended_at: i64,
    reason: Option<String>,
    message: Option<String>,
    exit_code: Option<i64>,
    peak_memory_bytes: Option<i64>,
}

impl Store {
    /// The ended executions of a run the caller may see, the first one first.
    pub async fn attempts(&self, scope: &Scope, run: &RunId) -> Result<Vec<Attempt>, StoreError> {
        const SQL: &str =
            "select e.id, e.attempt, e.worker_id, e.assigned_at, e.ended_at, e.reason,
                 e.message, e.exit_code, e.peak_memory_bytes
             from executions e join runs r on r.id = e.run_id
             where e.run_id = $1 and ($2 = 1 or r.owner = $3)
               and e.ended_at is not null and e.ending <> 'declined'
             order by e.assigned_at, e.id limit 100";
        let rows: Vec<Row> = on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(run.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .fetch_all(db)
            .await)?;
        rows.into_iter()
            .map(|row| {
                Ok(Attempt {
                    execution_id: parse(&row.id, "execution id")?,
                    attempt: u32::try_from(row.attempt).unwrap_or_default(),
                    worker_id: parse(&row.worker_id, "worker id")?,
                    assigned_at: row.assigned_at,
                    ended_at: row.ended_at,
                    reason: row.reason.map(FailureReason::from),
                    message: row.message,
                    exit_code: row.exit_code.and_then(|code| i32::try_from(code).ok()),
                    peak_memory_bytes: row.peak_memory_bytes.and_then(|n| u64::try_from(n).ok()),
                })
            })
            .collect()
    }
}
