//! Worker connections as the planes last heard of them: for people, and for the hint that all slots are taken.

use protocol::{ids::WorkerId, link::DiskUse};

use super::{Db, Store, StoreError, Tx, on_pool, on_tx, signed};

/// The most that one answer lists.
const MAX_LISTED: i64 = 20_000;

/// One connection of one worker process to one plane.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ConnectionRow {
    pub id: String,
    pub plane_id: String,
    pub worker_id: String,
    pub instance_id: String,
    /// `ozma` or `stock`.
    pub dialect: String,
    pub backend: String,
    pub version: String,
    /// JSON array of texts.
    pub tags: String,
    pub capacity: i64,
    /// 1: takes nothing new.
    pub draining: i64,
    pub connected_at: i64,
    pub last_seen_at: i64,
    /// What its executions take of its disks, as it last said.
    pub disk_bytes: Option<i64>,
    pub disk_limit_bytes: Option<i64>,
}

/// A connection with the executions its worker process holds.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ConnectedRow {
    #[sqlx(flatten)]
    pub connection: ConnectionRow,
    pub running: i64,
}

impl Store {
    /// Writes a new connection.
    pub async fn insert_connection(&self, row: &ConnectionRow) -> Result<(), StoreError> {
        const SQL: &str = "insert into connections
             (id, plane_id, worker_id, instance_id, dialect, backend, version, tags, capacity,
              draining, connected_at, last_seen_at, disk_bytes, disk_limit_bytes)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(&row.id)
            .bind(&row.plane_id)
            .bind(&row.worker_id)
            .bind(&row.instance_id)
            .bind(&row.dialect)
            .bind(&row.backend)
            .bind(&row.version)
            .bind(&row.tags)
            .bind(row.capacity)
            .bind(row.draining)
            .bind(row.connected_at)
            .bind(row.last_seen_at)
            .bind(row.disk_bytes)
            .bind(row.disk_limit_bytes)
            .execute(db)
            .await
            .map(|_| ()))?;
        tx.commit().await?;
        self.writer.counts_changed();
        Ok(())
    }

    /// It was heard of.
    pub async fn touch_connection(
        &self,
        id: &str,
        draining: bool,
        disk: Option<DiskUse>,
        now: i64,
    ) -> Result<(), StoreError> {
        const SQL: &str =
            "update connections set draining = $2, last_seen_at = $3, disk_bytes = $4,
                 disk_limit_bytes = $5
             where id = $1";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(id)
            .bind(i64::from(draining))
            .bind(now)
            .bind(disk.map(|disk| signed(disk.used_bytes)))
            .bind(disk.and_then(|disk| disk.limit_bytes).map(signed))
            .execute(db)
            .await
            .map(|_| ()))?;
        tx.commit().await
    }

    pub async fn remove_connection(&self, id: &str) -> Result<(), StoreError> {
        const SQL: &str = "delete from connections where id = $1";
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |db| sqlx::query(SQL).bind(id).execute(db).await.map(|_| ()))?;
        tx.commit().await
    }

    /// Forgets connections of planes that went without saying so.
    pub async fn sweep_connections(&self, seen_before: i64) -> Result<u64, StoreError> {
        const SQL: &str = "delete from connections where last_seen_at < $1";
        let mut tx = self.begin().await?;
        let gone = on_tx!(&mut tx, |db| sqlx::query(SQL)
            .bind(seen_before)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        Ok(gone)
    }

    /// At a start: on `SQLite` there is one plane, so every connection there is one of an earlier life.
    pub(crate) async fn forget_connections_of_the_past(&self) -> Result<(), StoreError> {
        if matches!(self.db(), Db::Sqlite { .. }) {
            self.sweep_connections(i64::MAX).await?;
        }
        Ok(())
    }

    /// Connections heard of since then, by worker; at most `MAX_LISTED`.
    pub async fn connections(&self, seen_since: i64) -> Result<Vec<ConnectionRow>, StoreError> {
        const SQL: &str = "select id, plane_id, worker_id, instance_id, dialect, backend, version,
                 tags, capacity, draining, connected_at, last_seen_at, disk_bytes, disk_limit_bytes
             from connections where last_seen_at >= $1
             order by worker_id, connected_at, id limit $2";
        Ok(on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(seen_since)
            .bind(MAX_LISTED)
            .fetch_all(db)
            .await)?)
    }

    /// Whether some plane heard of this worker since then.
    pub(crate) async fn is_connected(
        &self,
        worker: &WorkerId,
        seen_since: i64,
    ) -> Result<bool, StoreError> {
        const SQL: &str =
            "select id from connections where last_seen_at >= $1 and worker_id = $2 limit 1";
        let found: Option<String> = on_pool!(self, |db| sqlx::query_scalar(SQL)
            .bind(seen_since)
            .bind(worker.as_str())
            .fetch_optional(db)
            .await)?;
        Ok(found.is_some())
    }

    /// The connections heard of since then, each with what its worker process holds.
    pub async fn connected(&self, seen_since: i64) -> Result<Vec<ConnectedRow>, StoreError> {
        const SQL: &str =
            "select id, plane_id, worker_id, c.instance_id, dialect, backend, version,
                 tags, capacity, draining, connected_at, last_seen_at, disk_bytes, disk_limit_bytes,
                 coalesce(held.running, 0) as running
             from connections c
             left join (select instance_id, count(*) as running from executions
                        where ended_at is null group by instance_id) held
                 on held.instance_id = c.instance_id
             where last_seen_at >= $1
             order by worker_id, connected_at, id limit $2";
        Ok(on_pool!(self, |db| sqlx::query_as(SQL)
            .bind(seen_since)
            .bind(MAX_LISTED)
            .fetch_all(db)
            .await)?)
    }
}

impl Tx {
    /// Slots of the workers heard of since then, less what they hold and what already waits, of which 1000 are
    /// counted at most: it is a hint, asked for with every submit.
    pub(super) async fn free_slots(&mut self, seen_since: i64) -> Result<i64, StoreError> {
        const SQL: &str = "select
             cast((select coalesce(sum(capacity), 0) from connections
                   where last_seen_at >= $1 and draining = 0) as bigint)
             - (select count(*) from executions where ended_at is null)
             - (select count(*) from (select 1 from runs where state = 'QUEUED' limit 1000) waiting)";
        Ok(on_tx!(self, |db| sqlx::query_scalar(SQL).bind(seen_since).fetch_one(db).await)?)
    }
}
