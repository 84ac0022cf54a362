//! The statement that writes `runs.state`, but for the one of `claims` that hands over many runs at once. Its caller
//! read the row in the same transaction; the new state comes from `Standing::apply`; the statement names the
//! version that was read; and the change is an event.

use std::collections::BTreeMap;

use protocol::{
    event::{Event, Phase},
    failure::FailureReason,
    ids::{ExecutionId, RunId, TenantId, WorkerId},
    retry::RetryPolicy,
    run::{Fact, RunState, Standing},
};

use super::{
    InsertRun, StoreError, Tx, claims::TOLD_HANDOVERS, clean, from_json, json, on_tx, parse,
    runs::optional, signed, unsigned,
};

/// What a transaction knows of a run it may change.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) id: RunId,
    pub(crate) owner: TenantId,
    pub(crate) standing: Standing,
    version: i64,
    pub(crate) attempt: i64,
    pub(crate) max_attempts: i64,
    pub(crate) execution_id: Option<ExecutionId>,
    worker_id: Option<WorkerId>,
    queued_at: i64,
    not_before: i64,
    /// How long one wait may last, and until when the present one may.
    queue_ms: Option<i64>,
    queue_until: Option<i64>,
    pub(crate) retry: RetryPolicy,
    /// Hand-overs of the present wait that no worker took.
    pub(crate) declines: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    pub(crate) last_seq: u64,
    pub(crate) phases: BTreeMap<Phase, u64>,
    reason: Option<FailureReason>,
    message: Option<String>,
    exit_code: Option<i32>,
    peak_memory_bytes: Option<u64>,
}

/// What comes with a fact.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    /// Who runs it now, with [`Fact::Assigned`].
    pub(crate) assigned: Option<(ExecutionId, WorkerId)>,
    pub(crate) reason: Option<FailureReason>,
    pub(crate) message: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) peak_memory_bytes: Option<u64>,
    /// When it may be tried again, should it be queued again.
    pub(crate) not_before: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    owner: String,
    state: String,
    cancelling: i64,
    version: i64,
    attempt: i64,
    max_attempts: i64,
    execution_id: Option<String>,
    worker_id: Option<String>,
    queued_at: i64,
    not_before: i64,
    queue_ms: Option<i64>,
    queue_until: Option<i64>,
    retry: String,
    declines: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    last_seq: i64,
    phases: String,
    reason: Option<String>,
    message: Option<String>,
    exit_code: Option<i64>,
    peak_memory_bytes: Option<i64>,
}

/// An event about to be a row.
pub(crate) struct NewEvent<'a> {
    pub(crate) execution_id: Option<&'a str>,
    pub(crate) at_ms: i64,
    pub(crate) kind: &'a str,
    pub(crate) data: &'a str,
}

impl Head {
    /// A run that is being inserted, with its first event.
    pub(super) fn new(run: &InsertRun) -> Self {
        Self {
            id: run.id.clone(),
            owner: run.owner.clone(),
            standing: Standing::QUEUED,
            version: 1,
            attempt: 0,
            max_attempts: i64::from(run.max_attempts),
            execution_id: None,
            worker_id: None,
            queued_at: run.now,
            not_before: run.now,
            queue_ms: run.queue_ms,
            queue_until: run.queue_ms.map(|ms| run.now.saturating_add(ms)),
            retry: run.retry.clone(),
            declines: 0,
            started_at: None,
            ended_at: None,
            last_seq: 1,
            phases: BTreeMap::new(),
            reason: None,
            message: None,
            exit_code: None,
            peak_memory_bytes: None,
        }
    }

    /// From its first start to its end, if it had both.
    pub(crate) fn ran_ms(&self) -> Option<u64> {
        u64::try_from(self.ended_at? - self.started_at?).ok()
    }

    /// Whether the run goes back to the queue when its present execution fails for this reason.
    pub(crate) fn again(&self, reason: FailureReason) -> bool {
        self.attempt < self.max_attempts && self.retry.covers(reason)
    }
}

impl Tx {
    /// Reads a run and keeps others from changing it until the end of the transaction.
    pub(crate) async fn lock_run(&mut self, id: &RunId) -> Result<Head, StoreError> {
        macro_rules! select {
            () => {
                "select owner, state, cancelling, version, attempt, max_attempts, execution_id,
                        worker_id, queued_at, not_before, queue_ms, queue_until, retry, declines,
                        started_at,
                        ended_at, last_seq, phases,
                        reason, message, exit_code, peak_memory_bytes
                 from runs where id = $1"
            };
        }
        let row: Option<Row> = match self {
            Self::Sqlite(tx) => {
                sqlx::query_as(select!()).bind(id.as_str()).fetch_optional(&mut **tx).await?
            }
            Self::Postgres(tx) => {
                sqlx::query_as(concat!(select!(), " for update"))
                    .bind(id.as_str())
                    .fetch_optional(&mut **tx)
                    .await?
            }
        };
        let row = row.ok_or(StoreError::NotFound)?;
        Ok(Head {
            id: id.clone(),
            owner: parse(&row.owner, "run owner")?,
            standing: Standing {
                state: parse(&row.state, "run state")?,
                cancelling: row.cancelling == 1,
            },
            version: row.version,
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            execution_id: optional(row.execution_id, "execution id")?,
            worker_id: optional(row.worker_id, "worker id")?,
            queued_at: row.queued_at,
            not_before: row.not_before,
            queue_ms: row.queue_ms,
            queue_until: row.queue_until,
            retry: policy(&row.retry)?,
            declines: row.declines,
            started_at: row.started_at,
            ended_at: row.ended_at,
            last_seq: unsigned(row.last_seq, "run last_seq")?,
            phases: from_json(&row.phases, "run phases")?,
            reason: row.reason.map(FailureReason::from),
            message: row.message,
            exit_code: row.exit_code.and_then(|code| i32::try_from(code).ok()),
            peak_memory_bytes: row.peak_memory_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        })
    }

    /// Applies a fact to a run read by [`lock_run`](Self::lock_run) and appends what its watchers see.
    ///
    /// # Errors
    /// `Illegal`: the fact does not apply. `Conflict`: the row changed since it was read.
    pub(crate) async fn advance(
        &mut self,
        head: &mut Head,
        fact: Fact,
        change: &Change,
        now: i64,
    ) -> Result<(), StoreError> {
        const SQL: &str = "update runs
             set state = $3, cancelling = $4, attempt = $5, execution_id = $6, worker_id = $7,
                 queued_at = $8, not_before = $9, started_at = $10, ended_at = $11, last_seq = $12,
                 phases = $13, reason = $14, message = $15, exit_code = $16,
                 peak_memory_bytes = $17, updated_at = $18, queue_until = $19, declines = $20,
                 version = version + 1
             where id = $1 and version = $2";
        let seen = head.version;
        let waited = head.follow(fact, change, now)?;
        let told = fact != Fact::Declined || head.declines <= TOLD_HANDOVERS;
        if told {
            head.last_seq += 1 + u64::from(waited.is_some());
        }
        head.version += 1;
        let changed = on_tx!(self, |db| sqlx::query(SQL)
            .bind(head.id.as_str())
            .bind(seen)
            .bind(head.standing.state.as_str())
            .bind(i64::from(head.standing.cancelling))
            .bind(head.attempt)
            .bind(head.execution_id.as_ref().map(ExecutionId::as_str))
            .bind(head.worker_id.as_ref().map(WorkerId::as_str))
            .bind(head.queued_at)
            .bind(head.not_before)
            .bind(head.started_at)
            .bind(head.ended_at)
            .bind(signed(head.last_seq))
            .bind(json(&head.phases))
            .bind(head.reason.map(FailureReason::as_str))
            .bind(&head.message)
            .bind(head.exit_code.map(i64::from))
            .bind(head.peak_memory_bytes.map(signed))
            .bind(now)
            .bind(head.queue_until)
            .bind(head.declines)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        if changed != 1 {
            return Err(StoreError::Conflict);
        }
        if told { self.record_state(head, waited, now).await } else { Ok(()) }
    }

    /// Appends the events of a change; the head's `last_seq` is already theirs.
    pub(crate) async fn record_state(
        &mut self,
        head: &Head,
        waited_ms: Option<u64>,
        now: i64,
    ) -> Result<(), StoreError> {
        let queued = waited_ms.map(|duration_ms| Event::PhaseFinished {
            phase: Phase::Queued,
            duration_ms,
            ok: true,
        });
        let state = Event::State {
            state: head.standing.state,
            attempt: u32::try_from(head.attempt).unwrap_or_default(),
            reason: head.reason,
            message: head.message.clone(),
            worker_id: head.worker_id.as_ref().map(ToString::to_string),
            cancelling: head.standing.cancelling,
        };
        let lines: Vec<_> = queued
            .iter()
            .chain(std::iter::once(&state))
            .map(|event| protocol::event::EventLine::new(0, now, event))
            .collect();
        let events: Vec<_> = lines
            .iter()
            .map(|line| NewEvent {
                execution_id: head.execution_id.as_ref().map(ExecutionId::as_str),
                at_ms: now,
                kind: &line.kind,
                data: line.data.get(),
            })
            .collect();
        let first = head.last_seq + 1 - events.len() as u64;
        self.append_events(&head.id, first, &events).await
    }
}

impl Head {
    /// Changes what follows from the fact; gives the time the run waited, when its wait is over.
    fn follow(&mut self, fact: Fact, change: &Change, now: i64) -> Result<Option<u64>, StoreError> {
        let before = self.standing.state;
        self.standing = self.standing.apply(fact)?;
        let mut waited = None;
        match self.standing.state {
            RunState::Pending => {
                if let Some((execution, worker)) = &change.assigned {
                    self.execution_id = Some(execution.clone());
                    self.worker_id = Some(worker.clone());
                    self.attempt += 1;
                    self.phases.clear();
                }
            }
            RunState::Claimed | RunState::Inprogress => {
                self.declines = 0;
                if before == RunState::Pending {
                    let ms = u64::try_from(now - self.queued_at).unwrap_or_default();
                    self.phases.insert(Phase::Queued, ms);
                    waited = Some(ms);
                }
                if self.standing.state == RunState::Inprogress {
                    self.started_at = self.started_at.or(Some(now));
                }
            }
            RunState::Queued => {
                self.execution_id = None;
                self.worker_id = None;
                self.not_before = change.not_before;
                if fact == Fact::Declined {
                    self.attempt -= 1;
                    self.declines += 1;
                } else {
                    self.declines = 0;
                    self.queued_at = now;
                    self.queue_until = self.queue_ms.map(|ms| now.saturating_add(ms));
                    self.tell(change);
                }
            }
            RunState::Succeeded
            | RunState::Failed
            | RunState::Error
            | RunState::Blocked
            | RunState::Cancelled => {
                self.ended_at = Some(now);
                self.tell(change);
                if self.standing.state == RunState::Cancelled {
                    self.reason = Some(FailureReason::TaskCancelled);
                    self.message = Some("cancelled by its user".to_owned());
                }
            }
        }
        Ok(waited)
    }

    fn tell(&mut self, change: &Change) {
        self.reason = change.reason;
        self.message = change.message.as_deref().map(clean);
        self.exit_code = change.exit_code;
        self.peak_memory_bytes = change.peak_memory_bytes;
    }
}

/// The policy of a run: an empty column leaves everything to the plane.
fn policy(text: &str) -> Result<RetryPolicy, StoreError> {
    if text.is_empty() { Ok(RetryPolicy::default()) } else { from_json(text, "run retry") }
}
