//! Where a `SQLite` database is, for whoever keeps others off it.

use std::{path::PathBuf, str::FromStr};

use anyhow::Context;
use sqlx::sqlite::SqliteConnectOptions;

use super::{Db, Store};

impl Store {
    /// The file of a `sqlite:` address; `None` for another database, and for one in memory.
    ///
    /// # Errors
    /// The address cannot be understood. The text does not show it.
    pub(crate) fn file_of(url: &str) -> anyhow::Result<Option<PathBuf>> {
        if !url.starts_with("sqlite:") {
            return Ok(None);
        }
        let options = SqliteConnectOptions::from_str(url).context("understand the database URL")?;
        let file = options.get_filename();
        let in_memory = file.to_string_lossy().contains(":memory:")
            || file.to_string_lossy().starts_with("file:sqlx-in-memory");
        Ok((!in_memory).then(|| file.to_owned()))
    }

    /// Whether this process is the only plane there can be.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self.db(), Db::Sqlite { .. })
    }
}
