//! The database server's own time, which all its planes can agree on.

use super::{Db, Store, StoreError};

impl Store {
    /// Milliseconds since 1970 by the server's clock; `None` where the database is a file and has none.
    pub async fn time(&self) -> Result<Option<i64>, StoreError> {
        const SQL: &str = "select cast(extract(epoch from clock_timestamp()) * 1000 as bigint)";
        let Db::Postgres(pool) = self.db() else { return Ok(None) };
        Ok(Some(sqlx::query_scalar(SQL).fetch_one(pool).await?))
    }
}
