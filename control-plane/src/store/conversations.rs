//! Conversations: the runs that go on with one another, and the worker that keeps what they left.

use protocol::ids::{RunId, WorkerId};

use super::{Store, StoreError, Tx, on_pool, on_tx, parse};

/// What is kept of a conversation, as its newest run that had a sidecar left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub worker_id: WorkerId,
    /// The last word on the provider's own name for it.
    pub session_id: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    worker_id: String,
    session_id: Option<String>,
}

impl Store {
    /// Its newest run. The caller has made sure that the conversation is its owner's.
    pub(crate) async fn last_run(&self, conversation: &RunId) -> Result<RunId, StoreError> {
        const SQL: &str = "select id from runs where id = $1 or conversation_id = $1
             order by created_at desc, id desc limit 1";
        let id: Option<String> = on_pool!(self, |db| sqlx::query_scalar(SQL)
            .bind(conversation.as_str())
            .fetch_optional(db)
            .await)?;
        parse(&id.ok_or(StoreError::NotFound)?, "run id")
    }

    /// Where its workspace is: on the worker of the last execution whose sidecar was heard. `None` where no
    /// execution came that far, or every run that did has been deleted.
    pub(crate) async fn kept(&self, conversation: &RunId) -> Result<Option<Kept>, StoreError> {
        const SQL: &str = "select e.worker_id, (select s.session_id from runs s
                     where (s.id = $1 or s.conversation_id = $1) and s.session_id is not null
                     order by s.created_at desc, s.id desc limit 1) as session_id
             from runs r join executions e on e.run_id = r.id
             where (r.id = $1 or r.conversation_id = $1) and e.sidecar_seq > 0
             order by r.created_at desc, r.id desc, e.attempt desc, e.assigned_at desc limit 1";
        let row: Option<Row> = on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(conversation.as_str())
            .fetch_optional(db)
            .await)?;
        row.map(|row| {
            let worker_id = parse(&row.worker_id, "worker id")?;
            Ok(Kept { worker_id, session_id: row.session_id })
        })
        .transpose()
    }

    /// The MCP servers of a run, sealed for its id.
    pub(crate) async fn mcp_sealed(&self, run: &RunId) -> Result<Option<Vec<u8>>, StoreError> {
        const SQL: &str = "select mcp_sealed from runs where id = $1";
        on_pool!(self, |db| sqlx::query_scalar(SQL).bind(run.as_str()).fetch_optional(db).await)?
            .ok_or(StoreError::NotFound)
    }
}

impl Tx {
    /// The run of a conversation that is not over.
    pub(super) async fn open_run(
        &mut self,
        conversation: &RunId,
    ) -> Result<Option<RunId>, StoreError> {
        const SQL: &str = "select id from runs where (id = $1 or conversation_id = $1)
             and state in ('QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS') limit 1";
        let id: Option<String> = on_tx!(self, |db| sqlx::query_scalar(SQL)
            .bind(conversation.as_str())
            .fetch_optional(db)
            .await)?;
        id.map(|id| parse(&id, "run id")).transpose()
    }
}
