//! A repeated request with the same key is answered as the first one was, and makes no second run.

use protocol::ids::TenantId;

use super::{Inserted, StoreError, Tx, on_tx, parse};

/// The caller's key, and a hash of what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    /// Hex digest of the request's body.
    pub request_hash: String,
}

impl Tx {
    /// What an earlier request with this key of this owner led to.
    pub(super) async fn earlier(
        &mut self,
        owner: &TenantId,
        asked: &Idempotency,
    ) -> Result<Option<Inserted>, StoreError> {
        const SQL: &str = "select id, request_hash, at_capacity from runs
             where owner = $1 and idempotency_key = $2";
        let row: Option<(String, Option<String>, i64)> = on_tx!(self, |db| sqlx::query_as(SQL)
            .bind(owner.as_str())
            .bind(&asked.key)
            .fetch_optional(db)
            .await)?;
        let Some((id, hash, at_capacity)) = row else { return Ok(None) };
        if hash.as_deref() != Some(asked.request_hash.as_str()) {
            return Ok(Some(Inserted::KeyMismatch));
        }
        let id = parse(&id, "run id")?;
        Ok(Some(Inserted::Run { id, at_capacity: at_capacity == 1, repeated: true }))
    }
}
