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

/// Statements the writer's connection keeps prepared.
const WRITER_STATEMENTS: usize = 512;

/// Pages of `SQLite`'s log, of 4 KiB, at which the writer itself moves them into the file.
const MAX_LOG_PAGES: &str = "16000";

/// For how long an unused connection to `PostgreSQL` counts as alive.
const IDLE_UNTESTED: Duration = Duration::from_secs(1);

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
        self.writer.close().await;
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
    let pool = || {
        SqlitePoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // There is nobody at the other end who could have gone.
            .test_before_acquire(false)
            .before_acquire(|connection, _| {
                // A full disk makes SQLite roll back by itself. The driver goes on counting the transaction, and
                // would begin no other on this connection.
                let stuck = connection.is_in_transaction();
                Box::pin(async move { Ok(!stuck) })
            })
    };
    let writing = options
        .clone()
        // The writer's statements come in many sizes.
        .statement_cache_capacity(WRITER_STATEMENTS)
        // A backstop: the log is checkpointed beside the writer, which would stand still meanwhile.
        .pragma("wal_autocheckpoint", MAX_LOG_PAGES);
    let write =
        pool().max_connections(1).connect_with(writing).await.context("open the database file")?;
    let read =
        pool().max_connections(4).connect_with(options).await.context("open the database file")?;
    let db = Db::Sqlite { read, write };
    Ok(Store::new(db.clone(), db))
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
    // A connection that was idle may be dead; one that was in use a moment ago is not asked again each time.
    let pool = || {
        PgPoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, seen| {
                Box::pin(async move {
                    if seen.idle_for > IDLE_UNTESTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
    };
    // One connection of its own, so that each statement is prepared once. Planning cannot learn anything from
    // values that stand in a list.
    let writing = options
        .clone()
        .statement_cache_capacity(WRITER_STATEMENTS)
        // A row that somebody holds must not hold up everybody else.
        .options([("plan_cache_mode", "force_generic_plan"), ("lock_timeout", "500ms")]);
    let write = pool().max_connections(1).connect_lazy_with(writing);
    let pool =
        pool().max_connections(16).connect_with(options).await.context("connect to PostgreSQL")?;
    anyhow::ensure!(
        version >= MINIMUM_POSTGRES,
        "PostgreSQL {} is too old; {} is the oldest that works",
        version / 10_000,
        MINIMUM_POSTGRES / 10_000
    );
    Ok(Store::new(Db::Postgres(pool), Db::Postgres(write)))
}
