//! Opening a database: its settings, its version, its schema.

use std::{os::unix::fs::OpenOptionsExt, path::Path, str::FromStr, time::Duration};

use anyhow::Context;
use sqlx::{
    ConnectOptions, Connection,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Db, Store};

static SQLITE: Migrator = sqlx::migrate!("../migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("../migrations/postgres");

/// `server_version_num` below which a start is refused.
pub const MINIMUM_POSTGRES: i64 = 130_000;

/// How long a writer waits for another process that holds the file, a shell for example.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request waits for a free connection before the database counts as away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// Opens `sqlite:…` or `postgres://…` and brings its schema up to date.
    ///
    /// # Errors
    /// The URL is of another kind, the database cannot be reached or is too old, or its schema is from a newer
    /// build. The text never shows the URL, which may hold a password.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let store = Self::connect(url).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Opens without touching the schema.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => open_sqlite(url).await,
            Some("postgres" | "postgresql") => open_postgres(url).await,
            _ => anyhow::bail!("the database URL must begin with sqlite: or postgres:"),
        }
    }

    /// Applies what is missing of the schema.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        match self.db() {
            Db::Sqlite { write, .. } => SQLITE.run(write).await,
            Db::Postgres(pool) => POSTGRES.run(pool).await,
        }
        .context("bring the database's schema up to date")
    }

    /// Closes every connection, waiting for what is under way.
    pub async fn close(&self) {
        match self.db() {
            Db::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Db::Postgres(pool) => pool.close().await,
        }
    }
}

async fn open_sqlite(url: &str) -> anyhow::Result<Store> {
    let options = SqliteConnectOptions::from_str(url).context("understand the database URL")?;
    make_private(options.get_filename()).context("make the database file")?;
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged event must survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT);
    let write = pool()
        .max_connections(1)
        .connect_with(options.clone())
        .await
        .context("open the database file")?;
    let read =
        pool().max_connections(4).connect_with(options).await.context("open the database file")?;
    Ok(Store::new(Db::Sqlite { read, write }))
}

/// Makes a new file readable by its owner alone, before anything is in it; its companions take after it.
fn make_private(file: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(file).map(|_| ())
}

async fn open_postgres(url: &str) -> anyhow::Result<Store> {
    let options = PgConnectOptions::from_str(url)
        .context("understand the database URL")?
        .application_name("ozma")
        .options([
            ("statement_timeout", "30s"),
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "30s"),
        ]);
    // One connection without the pool, which would only say that it waited.
    let mut first = tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect())
        .await
        .context("connect to PostgreSQL: no answer")?
        .context("connect to PostgreSQL")?;
    let version: i64 =
        sqlx::query_scalar("select cast(current_setting('server_version_num') as bigint)")
            .fetch_one(&mut first)
            .await
            .context("ask PostgreSQL for its version")?;
    first.close().await.context("close a connection to PostgreSQL")?;
    let pool = PgPoolOptions::new()
        .max_connections(16)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await
        .context("connect to PostgreSQL")?;
    anyhow::ensure!(
        version >= MINIMUM_POSTGRES,
        "PostgreSQL {} is too old; {} is the oldest that works",
        version / 10_000,
        MINIMUM_POSTGRES / 10_000
    );
    Ok(Store::new(Db::Postgres(pool)))
}
