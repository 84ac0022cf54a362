//! Tokens an administrator issued, by their hashes only.

use protocol::ids::TenantId;

use super::{Store, StoreError, on_pool, on_tx, parse};

/// What a token lets its holder be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Calls the API as its owner.
    Tenant,
    /// Connects as a worker; reads nothing.
    Worker,
}

impl TokenKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Worker => "worker",
        }
    }
}

/// A token without its text.
#[derive(Debug, Clone)]
pub struct TokenRow {
    pub id: String,
    pub kind: TokenKind,
    /// The tenant it speaks for; of a worker token, who issued it.
    pub owner: TenantId,
    pub label: String,
    pub created_at: i64,
    pub revoked_at: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    kind: String,
    owner: String,
    label: String,
    created_at: i64,
    revoked_at: Option<i64>,
}

impl TryFrom<Row> for TokenRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let kind = match row.kind.as_str() {
            "tenant" => TokenKind::Tenant,
            "worker" => TokenKind::Worker,
            _ => return Err(StoreError::Corrupt("token kind")),
        };
        Ok(Self {
            id: row.id,
            kind,
            owner: parse(&row.owner, "token owner")?,
            label: row.label,
            created_at: row.created_at,
            revoked_at: row.revoked_at,
        })
    }
}

impl Store {
    /// Keeps a new token by the hex SHA-256 of its text.
    pub async fn insert_token(
        &self,
        hash: &str,
        kind: TokenKind,
        owner: &TenantId,
        label: &str,
        now: i64,
    ) -> Result<TokenRow, StoreError> {
        const SQL: &str = "insert into tokens (id, hash, kind, owner, label, created_at)
             values ($1, $2, $3, $4, $5, $6)";
        let row = TokenRow {
            id: format!("tok_{}", uuid::Uuid::now_v7().simple()),
            kind,
            owner: owner.clone(),
            label: super::clean(label),
            created_at: now,
            revoked_at: None,
        };
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(&row.id)
            .bind(hash)
            .bind(kind.as_str())
            .bind(owner.as_str())
            .bind(&row.label)
            .bind(now)
            .execute(db)
            .await
            .map(|_| ()))?;
        tx.commit().await?;
        Ok(row)
    }

    /// The token of this hash, unless it was revoked.
    pub async fn token(&self, hash: &str) -> Result<Option<TokenRow>, StoreError> {
        const SQL: &str = "select id, kind, owner, label, created_at, revoked_at from tokens
             where hash = $1 and revoked_at is null";
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL).bind(hash).fetch_optional(db).await)?
            .map(TokenRow::try_from)
            .transpose()
    }

    /// Every token, the newest first, revoked ones too; at most 1000.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        const SQL: &str = "select id, kind, owner, label, created_at, revoked_at from tokens
             order by created_at desc, id desc limit 1000";
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL).fetch_all(db).await)?
            .into_iter()
            .map(TokenRow::try_from)
            .collect()
    }

    /// From now on the token of this id is worth nothing.
    pub async fn revoke_token(&self, id: &str, now: i64) -> Result<(), StoreError> {
        const SQL: &str = "update tokens set revoked_at = $2 where id = $1 and revoked_at is null";
        let mut tx = self.begin().await?;
        let changed = on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(id)
            .bind(now)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::NotFound) }
    }
}
