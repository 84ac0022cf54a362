//! Environments as rows: a specification as JSON, values sealed. Sealing and meaning are one level up.

use futures_util::TryStreamExt;
use protocol::ids::{EnvironmentId, TenantId};

use super::{Store, StoreError, on_pool, on_tx, parse};
use crate::scope::Scope;

/// Where a listing ends although more would fit its limit: commands and values are long.
const MAX_LIST_BYTES: usize = 32 << 20;

/// An environment as it is stored.
#[derive(Debug, Clone)]
pub struct EnvironmentRow {
    pub id: EnvironmentId,
    pub owner: TenantId,
    /// Visible to every tenant.
    pub global: bool,
    pub name: String,
    /// JSON, without values.
    pub spec: String,
    pub env_sealed: Option<Vec<u8>>,
    /// Its MCP servers, sealed for it.
    pub mcp_sealed: Option<Vec<u8>>,
    pub created_at: i64,
    pub updated_at: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    owner: String,
    global: i64,
    name: String,
    spec: String,
    env_sealed: Option<Vec<u8>>,
    mcp_sealed: Option<Vec<u8>>,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for EnvironmentRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: parse(&row.id, "environment id")?,
            owner: parse(&row.owner, "environment owner")?,
            global: row.global == 1,
            name: row.name,
            spec: row.spec,
            env_sealed: row.env_sealed,
            mcp_sealed: row.mcp_sealed,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl Store {
    pub async fn insert_environment(&self, row: &EnvironmentRow) -> Result<(), StoreError> {
        const SQL: &str = "insert into environments
             (id, owner, global, name, spec, env_sealed, created_at, updated_at, mcp_sealed)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(row.id.as_str())
            .bind(row.owner.as_str())
            .bind(i64::from(row.global))
            .bind(&row.name)
            .bind(&row.spec)
            .bind(&row.env_sealed)
            .bind(row.created_at)
            .bind(row.updated_at)
            .bind(&row.mcp_sealed)
            .execute(db)
            .await
            .map(|_| ()))?;
        tx.commit().await
    }

    /// One the caller may see: its own, a global one, or any for an administrator.
    pub async fn environment(
        &self,
        scope: &Scope,
        id: &EnvironmentId,
    ) -> Result<EnvironmentRow, StoreError> {
        const SQL: &str =
            "select id, owner, global, name, spec, env_sealed, mcp_sealed, created_at,
                 updated_at
             from environments
             where id = $1 and ($2 = 1 or global = 1 or owner = $3)";
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL)
            .bind(id.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound)?
        .try_into()
    }

    /// What the caller may see, the newest change first: at most `limit`, and about `MAX_LIST_BYTES`.
    pub async fn environments(
        &self,
        scope: &Scope,
        limit: u32,
    ) -> Result<Vec<EnvironmentRow>, StoreError> {
        const SQL: &str =
            "select id, owner, global, name, spec, env_sealed, mcp_sealed, created_at,
                 updated_at
             from environments
             where ($1 = 1 or global = 1 or owner = $2)
             order by updated_at desc, id desc limit $3";
        let mut listed = Vec::new();
        let mut bytes = 0;
        on_pool!(self, |db| {
            let mut rows = sqlx::query_as::<_, Row>(SQL)
                .bind(scope.sees_all())
                .bind(scope.owner().as_str())
                .bind(i64::from(limit))
                .fetch(db);
            while let Some(row) = rows.try_next().await? {
                let sealed = [&row.env_sealed, &row.mcp_sealed].into_iter().flatten();
                bytes += row.spec.len() + sealed.map(Vec::len).sum::<usize>();
                listed.push(EnvironmentRow::try_from(row)?);
                if bytes > MAX_LIST_BYTES {
                    break;
                }
            }
        });
        Ok(listed)
    }

    /// How many this tenant owns.
    pub async fn count_environments(&self, owner: &TenantId) -> Result<i64, StoreError> {
        const SQL: &str = "select count(*) from environments where owner = $1";
        Ok(on_pool!(self, |db| sqlx::query_scalar(SQL).bind(owner.as_str()).fetch_one(db).await)?)
    }

    /// Changes one the caller owns; runs already submitted keep what they were submitted with.
    pub async fn update_environment(
        &self,
        scope: &Scope,
        row: &EnvironmentRow,
    ) -> Result<(), StoreError> {
        const SQL: &str = "update environments
             set global = $4, name = $5, spec = $6, env_sealed = $7, updated_at = $8,
                 mcp_sealed = $9
             where id = $1 and ($2 = 1 or (owner = $3 and global = 0))";
        let mut tx = self.begin().await?;
        let changed = on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(row.id.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .bind(i64::from(row.global))
            .bind(&row.name)
            .bind(&row.spec)
            .bind(&row.env_sealed)
            .bind(row.updated_at)
            .bind(&row.mcp_sealed)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::NotFound) }
    }

    /// Removes one the caller owns.
    pub async fn delete_environment(
        &self,
        scope: &Scope,
        id: &EnvironmentId,
    ) -> Result<(), StoreError> {
        const SQL: &str = "delete from environments
             where id = $1 and ($2 = 1 or (owner = $3 and global = 0))";
        let mut tx = self.begin().await?;
        let changed = on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(id.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::NotFound) }
    }

    /// The sealed text by which a wrong key is noticed; the first one kept is the one that stays.
    pub async fn seal_mark(&self, first: &[u8]) -> Result<Vec<u8>, StoreError> {
        const INSERT: &str =
            "insert into seals (id, sealed) values (1, $1) on conflict (id) do nothing";
        const SELECT: &str = "select sealed from seals where id = 1";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(INSERT).bind(first).execute(db).await.map(|_| ()))?;
        let kept = on_tx!(&mut tx, |db| sqlx::query_scalar(SELECT).fetch_one(db).await)?;
        tx.commit().await?;
        Ok(kept)
    }
}
