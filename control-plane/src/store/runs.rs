//! Runs as their owners see them.

use std::collections::BTreeMap;

use protocol::{
    event::Phase,
    failure::FailureReason,
    ids::{EnvironmentId, ExecutionId, RunId, TenantId, WorkerId},
    run::RunState,
};

use super::{Store, StoreError, from_json, on_pool, parse, unsigned};
use crate::scope::Scope;

/// The columns of a [`Run`], in one place for every statement that reads whole runs.
macro_rules! run_columns {
    () => {
        "id, owner, state, cancelling, attempt, max_attempts, execution_id, worker_id, title, name,
         prompt, config, metadata, source, environment_id, model_id, worker_host, parent_run_id,
         created_at, updated_at, started_at, ended_at, last_seq, phases, reason,
         message, answer, exit_code, peak_memory_bytes, priority, not_before, queue_until,
         conversation_id, session_id"
    };
}
pub(super) use run_columns;

/// A run, without what only its execution needs.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: RunId,
    pub owner: TenantId,
    pub state: RunState,
    /// Its user asked for it to stop, and its worker has not done so yet.
    pub cancelling: bool,
    /// The current execution's number, from 1; 0 before the first.
    pub attempt: u32,
    pub max_attempts: u32,
    pub execution_id: Option<ExecutionId>,
    pub worker_id: Option<WorkerId>,
    pub title: String,
    /// The label of `config.name`.
    pub name: Option<String>,
    pub prompt: String,
    /// JSON, as the caller sent it.
    pub config: String,
    pub metadata: BTreeMap<String, String>,
    /// `API`, `CLI`, …
    pub source: String,
    pub environment_id: Option<EnvironmentId>,
    pub model_id: Option<String>,
    pub worker_host: Option<String>,
    pub parent_run_id: Option<RunId>,
    pub created_at: i64,
    pub updated_at: i64,
    pub started_at: Option<i64>,
    pub ended_at: Option<i64>,
    /// The number of its newest event.
    pub last_seq: u64,
    /// Milliseconds by phase, of the current attempt.
    pub phases: BTreeMap<Phase, u64>,
    /// Why it failed; while it waits for another attempt, why the last one did.
    pub reason: Option<FailureReason>,
    pub message: Option<String>,
    /// The provider's final answer, where there is one.
    pub answer: Option<String>,
    pub exit_code: Option<i32>,
    pub peak_memory_bytes: Option<u64>,
    pub priority: i32,
    /// While it waits for another attempt, when that may begin.
    pub next_attempt_at: Option<i64>,
    /// While it waits, until when it may.
    pub queue_until: Option<i64>,
    /// The id of the conversation's first run; its own for that one.
    pub conversation_id: RunId,
    /// The provider's own name for the conversation, once it said one.
    pub session_id: Option<String>,
}

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: String,
    owner: String,
    state: String,
    cancelling: i64,
    attempt: i64,
    max_attempts: i64,
    execution_id: Option<String>,
    worker_id: Option<String>,
    pub(super) title: String,
    pub(super) name: Option<String>,
    prompt: String,
    config: String,
    metadata: String,
    source: String,
    environment_id: Option<String>,
    model_id: Option<String>,
    worker_host: Option<String>,
    parent_run_id: Option<String>,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    last_seq: i64,
    phases: String,
    reason: Option<String>,
    message: Option<String>,
    answer: Option<String>,
    exit_code: Option<i64>,
    peak_memory_bytes: Option<i64>,
    priority: i64,
    not_before: i64,
    queue_until: Option<i64>,
    conversation_id: Option<String>,
    session_id: Option<String>,
}

impl Row {
    /// What it weighs in a listing: the texts a caller or a container can make long.
    pub(super) fn bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.prompt.len() + self.config.len() + optional(&self.message) + optional(&self.answer)
    }
}

impl TryFrom<Row> for Run {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let small = |n: i64| u32::try_from(n).map_err(|_| StoreError::Corrupt("run attempt"));
        let queued = row.state == RunState::Queued.as_str();
        let id: RunId = parse(&row.id, "run id")?;
        let conversation = optional(row.conversation_id, "conversation id")?;
        Ok(Self {
            conversation_id: conversation.unwrap_or_else(|| id.clone()),
            session_id: row.session_id,
            id,
            owner: parse(&row.owner, "run owner")?,
            state: parse(&row.state, "run state")?,
            cancelling: row.cancelling == 1,
            attempt: small(row.attempt)?,
            max_attempts: small(row.max_attempts)?,
            execution_id: optional(row.execution_id, "execution id")?,
            worker_id: optional(row.worker_id, "worker id")?,
            title: row.title,
            name: row.name,
            prompt: row.prompt,
            config: row.config,
            metadata: from_json(&row.metadata, "run metadata")?,
            source: row.source,
            environment_id: optional(row.environment_id, "environment id")?,
            model_id: row.model_id,
            worker_host: row.worker_host,
            parent_run_id: optional(row.parent_run_id, "parent run id")?,
            created_at: row.created_at,
            updated_at: row.updated_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            last_seq: unsigned(row.last_seq, "run last_seq")?,
            phases: from_json(&row.phases, "run phases")?,
            reason: row.reason.map(FailureReason::from),
            message: row.message,
            answer: row.answer,
            exit_code: row.exit_code.and_then(|code| i32::try_from(code).ok()),
            peak_memory_bytes: row.peak_memory_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            priority: i32::try_from(row.priority).map_err(|_| StoreError::Corrupt("priority"))?,
            next_attempt_at: (queued && row.attempt > 0).then_some(row.not_before),
            queue_until: row.queue_until.filter(|_| queued),
        })
    }
}

pub(super) fn optional<T: std::str::FromStr>(
    text: Option<String>,
    what: &'static str,
) -> Result<Option<T>, StoreError> {
    text.map(|text| parse(&text, what)).transpose()
}

impl Store {
    /// One the caller may see.
    pub async fn run(&self, scope: &Scope, id: &RunId) -> Result<Run, StoreError> {
        const SQL: &str = concat!(
            "select ",
            run_columns!(),
            " from runs where id = $1 and ($2 = 1 or owner = $3)"
        );
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL)
            .bind(id.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound)?
        .try_into()
    }

    /// The copy of its environment that a run keeps, as JSON.
    pub(crate) async fn snapshot(&self, scope: &Scope, id: &RunId) -> Result<String, StoreError> {
        const SQL: &str = "select snapshot from runs where id = $1 and ($2 = 1 or owner = $3)";
        on_pool!(self, |db| sqlx::query_scalar(SQL)
            .bind(id.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound)
    }

    /// Where a run the caller may see stands, and the number of its newest event: what a follower asks often.
    pub(crate) async fn progress(
        &self,
        scope: &Scope,
        id: &RunId,
    ) -> Result<(RunState, u64), StoreError> {
        const SQL: &str =
            "select state, last_seq from runs where id = $1 and ($2 = 1 or owner = $3)";
        let (state, last_seq): (String, i64) = on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(id.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound)?;
        Ok((parse(&state, "run state")?, unsigned(last_seq, "run last_seq")?))
    }

    /// How many runs are in each state in which they are not over, over all tenants. Those that wait are counted
    /// to 100000, and two small indexes hold all of it, however many runs have ended.
    pub async fn count_runs(&self) -> Result<BTreeMap<String, i64>, StoreError> {
        const SQL: &str = "select 'QUEUED', count(*) from
                 (select 1 from runs where state = 'QUEUED' limit 100000) waiting
             union all
             select state, count(*) from runs
                 where state in ('PENDING', 'CLAIMED', 'INPROGRESS') group by state";
        let rows: Vec<(String, i64)> =
            on_pool!(self, |db| sqlx::query_as(SQL).fetch_all(db).await)?;
        Ok(rows.into_iter().collect())
    }
}
