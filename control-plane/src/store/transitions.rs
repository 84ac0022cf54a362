//! The statement that writes `runs.state`, but for the one of `claims` that hands over many runs at once. Its caller
//! read the rows in the same transaction; the new states come from `Standing::apply`; the statement names the
//! versions that were read; and each change is an event.

use std::{borrow::Cow, collections::BTreeMap};

use protocol::{
    event::{Event, EventLine, Phase},
    failure::FailureReason,
    ids::{ExecutionId, RunId, TenantId, WorkerId},
    retry::RetryPolicy,
    run::{Fact, RunState, Standing},
};

use super::{
    InsertRun, StoreError, Tx,
    claims::TOLD_HANDOVERS,
    clean, from_json, json, on_tx, parse,
    runs::optional,
    signed, unsigned,
    values::{MAX_ROWS, Values, send_values},
};

/// What a transaction knows of a run it may change.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) id: RunId,
    pub(crate) owner: TenantId,
    pub(crate) standing: Standing,
    /// As it was read; writing it adds one.
    version: i64,
    /// There is something to write.
    changed: bool,
    updated_at: i64,
    /// The provider's answer, should there be a new one.
    pub(super) answer: Option<String>,
    /// The provider's name for the conversation, should it say one.
    pub(super) session_id: Option<String>,
    pub(crate) attempt: i64,
    pub(crate) max_attempts: i64,
    pub(crate) execution_id: Option<ExecutionId>,
    worker_id: Option<WorkerId>,
    queued_at: i64,
    /// When it may be claimed; while it is under way, what its provider asks for should it be tried again.
    pub(super) not_before: i64,
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
    id: String,
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
    updated_at: i64,
}

/// An event about to be a row.
#[derive(Debug)]
pub(crate) struct NewEvent<'a> {
    pub(crate) run_id: RunId,
    pub(crate) seq: u64,
    pub(crate) execution_id: Option<ExecutionId>,
    pub(crate) at_ms: i64,
    pub(crate) kind: Cow<'a, str>,
    pub(crate) data: Cow<'a, str>,
}

macro_rules! head_columns {
    () => {
        "id, owner, state, cancelling, version, attempt, max_attempts, execution_id, worker_id,
         queued_at, not_before, queue_ms, queue_until, retry, declines, started_at, ended_at,
         last_seq, phases, reason, message, exit_code, peak_memory_bytes, updated_at"
    };
}

impl Head {
    /// A run that is being inserted, with its first event.
    pub(super) fn new(run: &InsertRun) -> Self {
        Self {
            id: run.id.clone(),
            owner: run.owner.clone(),
            standing: Standing::QUEUED,
            version: 1,
            changed: false,
            updated_at: run.now,
            answer: None,
            session_id: None,
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
            last_seq: 0,
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

impl TryFrom<Row> for Head {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: parse(&row.id, "run id")?,
            owner: parse(&row.owner, "run owner")?,
            standing: Standing {
                state: parse(&row.state, "run state")?,
                cancelling: row.cancelling == 1,
            },
            version: row.version,
            changed: false,
            updated_at: row.updated_at,
            answer: None,
            session_id: None,
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
}

/// Ids from the first, `$1`, for [`Values`]: a null among them matches nothing.
static OF_EXECUTIONS: Values = Values::new(
    concat!(
        "select ",
        head_columns!(),
        " from runs where id in (select run_id from executions where id in (values "
    ),
    1,
    ")) order by id",
);
static OF_EXECUTIONS_LOCKED: Values = Values::new(
    concat!(
        "select ",
        head_columns!(),
        " from runs where id in (select run_id from executions where id in (values "
    ),
    1,
    ")) order by id for update",
);
static RUNS: Values = Values::new(
    concat!("select ", head_columns!(), " from runs where id in (values "),
    1,
    ") order by id",
);
static RUNS_LOCKED: Values = Values::new(
    concat!("select ", head_columns!(), " from runs where id in (values "),
    1,
    ") order by id for update",
);

impl Tx {
    /// Reads a run and keeps others from changing it until the end of the transaction.
    pub(crate) async fn lock_run(&mut self, id: &RunId) -> Result<Head, StoreError> {
        self.lock_runs(&[id.as_str()]).await?.pop().ok_or(StoreError::NotFound)
    }

    /// Reads runs, in the order of their ids, always: two transactions never wait for each other. What is not
    /// there is left out.
    pub(crate) async fn lock_runs(&mut self, ids: &[&str]) -> Result<Vec<Head>, StoreError> {
        let values = if matches!(self, Self::Postgres(_)) { &RUNS_LOCKED } else { &RUNS };
        self.heads(values, ids).await
    }

    /// Reads the runs of these executions as [`lock_runs`](Self::lock_runs) does.
    pub(super) async fn lock_runs_of(&mut self, ids: &[&str]) -> Result<Vec<Head>, StoreError> {
        let locked = matches!(self, Self::Postgres(_));
        self.heads(if locked { &OF_EXECUTIONS_LOCKED } else { &OF_EXECUTIONS }, ids).await
    }

    async fn heads(&mut self, values: &Values, ids: &[&str]) -> Result<Vec<Head>, StoreError> {
        let mut heads = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(MAX_ROWS) {
            let (text, size) = values.text(self, chunk.len());
            let rows: Vec<Row> = on_tx!(self, |db| {
                let mut query = sqlx::query_as(text);
                for nth in 0..size {
                    query = query.bind(chunk.get(nth).copied());
                }
                query.fetch_all(db).await
            })?;
            for row in rows {
                heads.push(Head::try_from(row)?);
            }
        }
        Ok(heads)
    }

    /// Applies a fact to a run read by [`lock_run`](Self::lock_run), writes it and what its watchers see. For
    /// several runs at once: [`Head::advance`], [`write_runs`](Self::write_runs),
    /// [`append_events`](Self::append_events).
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
        let mut events = Vec::new();
        head.advance(fact, change, now, &mut events)?;
        self.write_runs(&[head]).await?;
        (head.version, head.changed) = (head.version + 1, false);
        self.append_events(&events).await
    }

    /// The one statement that writes `runs.state`. A run may be among `heads` once.
    ///
    /// # Errors
    /// `Conflict`: one of the rows changed since it was read.
    pub(crate) async fn write_runs(&mut self, heads: &[&Head]) -> Result<(), StoreError> {
        static WRITE: Values = Values::new(
            "with v(id, seen, state, cancelling, attempt, execution_id, worker_id, queued_at,
                    not_before, queue_until, started_at, ended_at, last_seq, phases, reason,
                    message, exit_code, peak_memory_bytes, updated_at, answer, declines,
                    session_id) as (values ",
            22,
            ") update runs
             set state = v.state, cancelling = v.cancelling, attempt = v.attempt,
                 execution_id = v.execution_id, worker_id = v.worker_id, queued_at = v.queued_at,
                 not_before = v.not_before, queue_until = v.queue_until,
                 started_at = v.started_at, ended_at = v.ended_at, last_seq = v.last_seq,
                 phases = v.phases, reason = v.reason, message = v.message,
                 exit_code = v.exit_code, peak_memory_bytes = v.peak_memory_bytes,
                 updated_at = v.updated_at, answer = coalesce(v.answer, runs.answer), declines = v.declines,
                 session_id = coalesce(v.session_id, runs.session_id),
                 version = runs.version + 1
             from v where runs.id = v.id and runs.version = v.seen",
        );
        let written = send_values!(self, WRITE, heads, |query, head| query
            .bind(head.map(|h| h.id.as_str()))
            .bind(head.map(|h| h.version))
            .bind(head.map(|h| h.standing.state.as_str()))
            .bind(head.map(|h| i64::from(h.standing.cancelling)))
            .bind(head.map(|h| h.attempt))
            .bind(head.and_then(|h| h.execution_id.as_ref().map(ExecutionId::as_str)))
            .bind(head.and_then(|h| h.worker_id.as_ref().map(WorkerId::as_str)))
            .bind(head.map(|h| h.queued_at))
            .bind(head.map(|h| h.not_before))
            .bind(head.and_then(|h| h.queue_until))
            .bind(head.and_then(|h| h.started_at))
            .bind(head.and_then(|h| h.ended_at))
            .bind(head.map(|h| signed(h.last_seq)))
            .bind(head.map(|h| json(&h.phases)))
            .bind(head.and_then(|h| h.reason.map(FailureReason::as_str)))
            .bind(head.and_then(|h| h.message.as_deref()))
            .bind(head.and_then(|h| h.exit_code.map(i64::from)))
            .bind(head.and_then(|h| h.peak_memory_bytes.map(signed)))
            .bind(head.map(|h| h.updated_at))
            .bind(head.and_then(|h| h.answer.as_deref()))
            .bind(head.map(|h| h.declines))
            .bind(head.and_then(|h| h.session_id.as_deref())));
        if written == heads.len() as u64 { Ok(()) } else { Err(StoreError::Conflict) }
    }
}

impl Head {
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// There is something to write besides its state.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// Applies a fact; what its watchers see goes to `events`. Nothing is written yet.
    ///
    /// # Errors
    /// `Illegal`: the fact does not apply, and nothing has changed.
    pub(crate) fn advance(
        &mut self,
        fact: Fact,
        change: &Change,
        now: i64,
        events: &mut Vec<NewEvent<'_>>,
    ) -> Result<(), StoreError> {
        let waited = self.follow(fact, change, now)?;
        (self.changed, self.updated_at) = (true, now);
        if fact == Fact::Declined && self.declines > TOLD_HANDOVERS {
            return Ok(());
        }
        if let Some(duration_ms) = waited {
            let phase = Phase::Queued;
            self.tell_event(&Event::PhaseFinished { phase, duration_ms, ok: true }, now, events);
        }
        self.tell_state(now, events);
        Ok(())
    }

    /// What watchers see of where the run stands now.
    pub(super) fn tell_state(&mut self, now: i64, events: &mut Vec<NewEvent<'_>>) {
        let state = Event::State {
            state: self.standing.state,
            attempt: u32::try_from(self.attempt).unwrap_or_default(),
            reason: self.reason,
            message: self.message.clone(),
            worker_id: self.worker_id.as_ref().map(ToString::to_string),
            cancelling: self.standing.cancelling,
        };
        self.tell_event(&state, now, events);
    }

    fn tell_event(&mut self, event: &Event, now: i64, events: &mut Vec<NewEvent<'_>>) {
        let line = EventLine::new(0, now, event);
        let data = String::from(Box::<str>::from(line.data));
        let execution = self.execution_id.clone();
        self.push_event(execution, now, Cow::Owned(line.kind), Cow::Owned(data), events);
    }

    /// Puts an event after the run's last one.
    pub(super) fn push_event<'a>(
        &mut self,
        execution_id: Option<ExecutionId>,
        at_ms: i64,
        kind: Cow<'a, str>,
        data: Cow<'a, str>,
        events: &mut Vec<NewEvent<'a>>,
    ) {
        self.last_seq += 1;
        let (run_id, seq) = (self.id.clone(), self.last_seq);
        events.push(NewEvent { run_id, seq, execution_id, at_ms, kind, data });
    }

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
                    // It waits for a slot from then on only.
                    let from = now.max(self.not_before);
                    self.queue_until = self.queue_ms.map(|ms| from.saturating_add(ms));
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
