//! Runs whose wait in the queue lasts longer than it may: ended, a batch in one transaction. And what is done to
//! everything that lies ahead when the clock went back.

use protocol::{
    failure::FailureReason,
    ids::RunId,
    run::{Fact, RunState},
};

use super::{
    Store, StoreError, Tx, again, ingest::MAX_RETRY_AFTER, millis, on_tx, parse,
    transitions::Change,
};

/// The most one transaction ends; the next pass ends more. Others wait for it no longer than for a claim.
const MAX_BATCH: i64 = 64;

macro_rules! overdue {
    () => {
        "select id, queue_ms from runs where state = 'QUEUED' and queue_until < $1
         order by queue_until limit $2"
    };
}

impl Store {
    /// Ends queued runs whose wait should have ended before `now`, and tells which. A run that is claimed at the
    /// same moment belongs to whoever was first.
    pub async fn end_waits(&self, now: i64) -> Result<Vec<RunId>, StoreError> {
        again(|| self.try_end_waits(now)).await
    }

    async fn try_end_waits(&self, now: i64) -> Result<Vec<RunId>, StoreError> {
        let mut tx = self.begin().await?;
        let overdue = tx.overdue_waits(now).await?;
        let mut ended = Vec::with_capacity(overdue.len());
        for (id, queue_ms) in overdue {
            let id: RunId = parse(&id, "run id")?;
            let mut head = match tx.lock_run(&id).await {
                // One row that this build cannot read must not keep the others waiting.
                Err(StoreError::Corrupt(what)) => {
                    tracing::error!(run.id = %id, "the stored {what} of run {id} cannot be read");
                    continue;
                }
                other => other?,
            };
            if head.standing.state != RunState::Queued {
                continue;
            }
            let bound = queue_ms.unwrap_or_default() / 1_000;
            let message = format!(
                "it waited in the queue for {bound} s, the longest it may (queue_timeout_secs)"
            );
            let change = Change {
                reason: Some(FailureReason::TaskTimeout),
                message: Some(message),
                ..Change::default()
            };
            tx.advance(&mut head, Fact::WaitedTooLong, &change, now).await?;
            ended.push(id);
        }
        tx.commit().await?;
        Ok(ended)
    }
}

impl Store {
    /// After the clock went back: nothing lies further ahead of it than it can. Leases end by `lease_until` and
    /// waits for another attempt by `retry_until`, or as much later as a vendor may ask for; those that end sooner
    /// stay as they are.
    pub async fn rebase(&self, lease_until: i64, retry_until: i64) -> Result<(), StoreError> {
        const LEASES: &str = "update executions set lease_expires_at = $1
             where ended_at is null and lease_expires_at > $1";
        const RETRIES: &str = "update runs set not_before = $1
             where state = 'QUEUED' and not_before > $1 and (reason is null or reason <> 'rate_limit')";
        const ASKED: &str = "update runs set not_before = $1
             where state = 'QUEUED' and not_before > $1 and reason = 'rate_limit'";
        // A wait for a slot begins when the run may be tried again.
        const WAITS: &str = "update runs
             set queue_until = case when not_before > $1 then not_before else $1 end + queue_ms
             where state = 'QUEUED'
               and queue_until > case when not_before > $1 then not_before else $1 end + queue_ms";
        let asked_until = retry_until.saturating_add(millis(MAX_RETRY_AFTER));
        let mut tx = self.begin().await?;
        for (sql, until) in [
            (LEASES, lease_until),
            (RETRIES, retry_until),
            (ASKED, asked_until),
            (WAITS, retry_until),
        ] {
            on_tx!(&mut tx, |db| sqlx::query(sql).bind(until).execute(db).await.map(|_| ()))?;
        }
        tx.commit().await
    }
}

impl Store {
    /// After the clock went ahead: whoever waits may go on waiting for as long as before.
    pub async fn put_off_waits(&self, by_ms: i64) -> Result<(), StoreError> {
        const SQL: &str = "update runs set queue_until = queue_until + $1 where state = 'QUEUED' and queue_until is not null";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL).bind(by_ms).execute(db).await.map(|_| ()))?;
        tx.commit().await
    }
}

impl Tx {
    async fn overdue_waits(&mut self, now: i64) -> Result<Vec<(String, Option<i64>)>, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => {
                sqlx::query_as(overdue!()).bind(now).bind(MAX_BATCH).fetch_all(&mut **tx).await?
            }
            // What another plane claims, or ends, at this moment is passed over.
            Self::Postgres(tx) => {
                sqlx::query_as(concat!(overdue!(), " for update skip locked"))
                    .bind(now)
                    .bind(MAX_BATCH)
                    .fetch_all(&mut **tx)
                    .await?
            }
        })
    }
}
