//! What each tenant may have waiting and under way, where an admin chose it, and what it has.

use protocol::ids::TenantId;

use super::{Store, StoreError, on_pool, on_tx, parse};

/// Limits of one tenant; the plane's settings hold for what is absent, and 0 is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub max_queued: Option<u32>,
    pub max_running: Option<u32>,
}

/// A tenant with what it has that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    pub id: TenantId,
    pub queued: u64,
    pub running: u64,
    pub limits: Limits,
}

#[derive(sqlx::FromRow)]
struct Row {
    owner: String,
    queued: i64,
    running: i64,
    max_queued: Option<i64>,
    max_running: Option<i64>,
}

impl TryFrom<Row> for TenantRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let limit = |n: Option<i64>| n.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Ok(Self {
            id: parse(&row.owner, "run owner")?,
            queued: u64::try_from(row.queued).unwrap_or_default(),
            running: u64::try_from(row.running).unwrap_or_default(),
            limits: Limits {
                max_queued: limit(row.max_queued),
                max_running: limit(row.max_running),
            },
        })
    }
}

impl Store {
    /// Takes the place of what was chosen before.
    pub async fn set_limits(
        &self,
        tenant: &TenantId,
        limits: Limits,
        now: i64,
    ) -> Result<(), StoreError> {
        const SQL: &str = "insert into tenant_limits (owner, max_queued, max_running, updated_at)
             values ($1, $2, $3, $4)
             on conflict (owner) do update set max_queued = excluded.max_queued,
                 max_running = excluded.max_running, updated_at = excluded.updated_at";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(tenant.as_str())
            .bind(limits.max_queued.map(i64::from))
            .bind(limits.max_running.map(i64::from))
            .bind(now)
            .execute(db)
            .await
            .map(|_| ()))?;
        tx.commit().await?;
        self.writer.counts_changed();
        Ok(())
    }

    /// The plane's settings hold again.
    pub async fn clear_limits(&self, tenant: &TenantId) -> Result<(), StoreError> {
        const SQL: &str = "delete from tenant_limits where owner = $1";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL).bind(tenant.as_str()).execute(db).await.map(|_| ()))?;
        tx.commit().await?;
        self.writer.counts_changed();
        Ok(())
    }

    /// One tenant, known or not.
    pub async fn tenant(&self, tenant: &TenantId) -> Result<TenantRow, StoreError> {
        const SQL: &str = "select $1 as owner,
             (select count(*) from runs where owner = $1 and state = 'QUEUED') as queued,
             (select count(*) from runs where owner = $1
                  and state in ('PENDING', 'CLAIMED', 'INPROGRESS')) as running,
             (select max_queued from tenant_limits where owner = $1) as max_queued,
             (select max_running from tenant_limits where owner = $1) as max_running";
        let row: Row =
            on_pool!(self, |db| sqlx::query_as(SQL).bind(tenant.as_str()).fetch_one(db).await)?;
        row.try_into()
    }

    /// Tenants with runs that are not over, a limit or a token, by id, from after `after` on.
    pub async fn tenants(&self, after: &str, most: u32) -> Result<Vec<TenantRow>, StoreError> {
        const SQL: &str = "select owner, cast(sum(queued) as bigint) as queued,
                 cast(sum(running) as bigint) as running,
                 max(max_queued) as max_queued, max(max_running) as max_running
             from (
                 select owner, count(*) as queued, 0 as running, cast(null as bigint) as max_queued,
                        cast(null as bigint) as max_running
                 from runs where state = 'QUEUED' and owner > $1 group by owner
                 union all
                 select owner, 0, count(*), null, null
                 from runs where state in ('PENDING', 'CLAIMED', 'INPROGRESS') and owner > $1
                 group by owner
                 union all
                 select owner, 0, 0, max_queued, max_running from tenant_limits where owner > $1
                 union all
                 select owner, 0, 0, null, null from tokens
                 where kind = 'tenant' and revoked_at is null and owner > $1
             ) tenant
             group by owner order by owner limit $2";
        let rows: Vec<Row> = on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(after)
            .bind(i64::from(most))
            .fetch_all(db)
            .await)?;
        rows.into_iter().map(TenantRow::try_from).collect()
    }
}
