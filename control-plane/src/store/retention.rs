//! Deleting runs that ended long ago, or only their events and artifacts: in transactions that are short, because
//! everybody else writes in between.

use protocol::ids::RunId;

use super::{Store, StoreError, Tx, again, on_pool, on_tx, parse};

/// Rows one statement deletes at most. Parts of artifacts are large, the others small.
const EVENTS: i64 = 500;
const PARTS: i64 = 16;
const ROWS: i64 = 200;

/// What planes on one `PostgreSQL` agree on, so that one of them deletes at a time.
const LOCK: i64 = 0x6f7a_6d61_0001;

/// What is deleted of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its events and artifacts; the run and its attempts stay.
    Events,
    /// All of it.
    Run,
}

/// What one transaction deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Runs at the head of the list that are done with.
    pub done: usize,
    pub runs: u64,
    pub events: u64,
    pub artifacts: u64,
    /// Another plane deletes at this moment.
    pub elsewhere: bool,
}

/// Where a walk over ended runs has come to: the end of the last one, and its id.
pub type Place = (i64, String);

impl Store {
    /// Runs that ended before `cutoff`, those that ended first at first, from after `place` on.
    pub async fn ended_before(
        &self,
        cutoff: i64,
        place: &Place,
        limit: i64,
    ) -> Result<Vec<(i64, RunId)>, StoreError> {
        const SQL: &str = "select ended_at, id from runs
             where ended_at is not null and ended_at < $1 and ended_at >= $2
               and (ended_at > $2 or id > $3)
             order by ended_at, id limit $4";
        let rows: Vec<(i64, String)> = on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(cutoff)
            .bind(place.0)
            .bind(&place.1)
            .bind(limit)
            .fetch_all(db)
            .await)?;
        rows.into_iter().map(|(at, id)| Ok((at, parse(&id, "run id")?))).collect()
    }

    /// Deletes that part of these runs, one after the other, if they ended before `cutoff`. Once `enough` says so
    /// it commits what it has done, at least one statement of it.
    pub async fn sweep(
        &self,
        ids: &[RunId],
        part: Part,
        cutoff: i64,
        enough: impl Fn() -> bool,
    ) -> Result<Swept, StoreError> {
        again(|| self.try_sweep(ids, part, cutoff, &enough)).await
    }

    async fn try_sweep(
        &self,
        ids: &[RunId],
        part: Part,
        cutoff: i64,
        enough: &impl Fn() -> bool,
    ) -> Result<Swept, StoreError> {
        let mut tx = self.begin().await?;
        let mut swept = Swept::default();
        if !tx.sweeps_alone().await? {
            tx.roll_back().await?;
            return Ok(Swept { elsewhere: true, ..swept });
        }
        for id in ids {
            if swept != Swept::default() && enough() {
                break;
            }
            if tx.is_older(id, cutoff).await? && !tx.sweep_one(id, part, &mut swept, enough).await?
            {
                break;
            }
            swept.done += 1;
        }
        tx.commit().await?;
        Ok(swept)
    }
}

impl Tx {
    /// Whether this is the only transaction that deletes old runs.
    async fn sweeps_alone(&mut self) -> Result<bool, StoreError> {
        match self {
            Self::Sqlite(_) => Ok(true),
            Self::Postgres(tx) => Ok(sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
                .bind(LOCK)
                .fetch_one(&mut **tx)
                .await?),
        }
    }

    async fn is_older(&mut self, id: &RunId, cutoff: i64) -> Result<bool, StoreError> {
        const SQL: &str = "select count(*) from runs where id = $1 and ended_at < $2";
        let count: i64 = on_tx!(self, |db| sqlx::query_scalar(SQL)
            .bind(id.as_str())
            .bind(cutoff)
            .fetch_one(db)
            .await)?;
        Ok(count == 1)
    }

    /// `false` when it stopped because it was enough; then the run has more.
    async fn sweep_one(
        &mut self,
        id: &RunId,
        part: Part,
        swept: &mut Swept,
        enough: &impl Fn() -> bool,
    ) -> Result<bool, StoreError> {
        // The oldest first: a reader sees from the gap at the beginning that events are missing.
        const EVENT_ROWS: &str = "delete from run_events where run_id = $1 and seq in
             (select seq from run_events where run_id = $1 order by seq limit $2)";
        const PART_ROWS: &str = "delete from artifact_parts
             where (execution_id, artifact_uid, part) in (
                 select p.execution_id, p.artifact_uid, p.part from artifact_parts p
                 join executions e on e.id = p.execution_id where e.run_id = $1 limit $2)";
        const ARTIFACT_ROWS: &str = "delete from artifacts where uid in
             (select uid from artifacts where run_id = $1 limit $2)";
        const EXECUTION_ROWS: &str = "delete from executions where id in
             (select id from executions where run_id = $1 limit $2)";
        const RUN: &str = "delete from runs where id = $1";
        for (sql, limit) in [
            (EVENT_ROWS, EVENTS),
            (PART_ROWS, PARTS),
            (ARTIFACT_ROWS, ROWS),
            (EXECUTION_ROWS, ROWS),
        ] {
            if sql == EXECUTION_ROWS && part == Part::Events {
                return Ok(true);
            }
            loop {
                let gone = on_tx!(self, |db| sqlx::query(sql)
                    .bind(id.as_str())
                    .bind(limit)
                    .execute(db)
                    .await
                    .map(|done| done.rows_affected()))?;
                match sql {
                    EVENT_ROWS => swept.events += gone,
                    ARTIFACT_ROWS => swept.artifacts += gone,
                    _ => {}
                }
                if i64::try_from(gone).unwrap_or(i64::MAX) < limit {
                    break;
                }
                if enough() {
                    return Ok(false);
                }
            }
        }
        // Its labels go along; runs below it keep its id, which is nobody's then.
        on_tx!(self, |db| sqlx::query(RUN).bind(id.as_str()).execute(db).await.map(|_| ()))?;
        swept.runs += 1;
        Ok(true)
    }
}
