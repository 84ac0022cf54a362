//! A repeated request with the same key is answered as the first one was, and makes no second run.

use protocol::ids::TenantId;

use super::{Inserted, Store, StoreError, Tx, on_pool, on_tx, parse};

/// The caller's key, and a hash of what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    /// Hex digest of the request's body.
    pub request_hash: String,
}

const EARLIER: &str = "select id, request_hash, at_capacity from runs
     where owner = $1 and idempotency_key = $2";

/// Id, request hash and capacity of an earlier run.
pub(super) type Earlier = (String, Option<String>, i64);

impl Store {
    /// What an earlier request with this key of this owner led to, whatever has been deleted since.
    pub async fn earlier(
        &self,
        owner: &TenantId,
        asked: &Idempotency,
    ) -> Result<Option<Inserted>, StoreError> {
        let row: Option<Earlier> = on_pool!(self, |db| sqlx::query_as(EARLIER)
            .bind(owner.as_str())
            .bind(&asked.key)
            .fetch_optional(db)
            .await)?;
        row.map(|row| asked.answer(row)).transpose()
    }
}

impl Tx {
    /// The same as a row, inside the transaction that would store a new one.
    pub(super) async fn earlier(
        &mut self,
        owner: &TenantId,
        asked: &Idempotency,
    ) -> Result<Option<Earlier>, StoreError> {
        Ok(on_tx!(self, |db| sqlx::query_as(EARLIER)
            .bind(owner.as_str())
            .bind(&asked.key)
            .fetch_optional(db)
            .await)?)
    }
}

impl Idempotency {
    pub(super) fn answer(&self, (id, hash, at_capacity): Earlier) -> Result<Inserted, StoreError> {
        if hash.as_deref() != Some(self.request_hash.as_str()) {
            return Ok(Inserted::KeyMismatch);
        }
        let id = parse(&id, "run id")?;
        Ok(Inserted::Run { id, at_capacity: at_capacity == 1, repeated: true })
    }
}
