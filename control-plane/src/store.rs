//! The only place with SQL: one statement text for `SQLite` and `PostgreSQL` wherever the two agree. One method
//! is one transaction is one unit of meaning. It knows no HTTP and no sockets, and reads no clock.

mod artifacts;
mod attempts;
mod cancels;
mod claims;
mod connections;
mod conversations;
mod drains;
mod environments;
mod events;
mod executions;
mod file;
mod group;
mod idempotency;
mod ingest;
mod lanes;
mod leases;
mod limits;
mod listing;
mod open;
mod planes;
mod reports;
mod retention;
mod runs;
mod submissions;
mod time;
mod tokens;
mod transitions;
mod values;
mod waits;
mod why;
mod writer;

use std::time::Duration;

use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction, error::DatabaseError};

pub use self::{
    artifacts::StoredArtifact,
    attempts::Attempt,
    cancels::Cancelled,
    claims::{Assignment, Claim, Claimant, Claimed, Rotation},
    connections::{ConnectedRow, ConnectionRow},
    conversations::Kept,
    drains::DrainRow,
    environments::EnvironmentRow,
    events::RunEvent,
    executions::{Ending, ExecutionRow},
    idempotency::Idempotency,
    ingest::Ingested,
    lanes::{Calls, CancelCall},
    limits::{Limits, TenantRow},
    listing::{RunFilter, SortBy},
    open::MINIMUM_POSTGRES,
    reports::{Measured, Recorded, Report},
    retention::{Part, Place, Swept},
    runs::Run,
    submissions::{InsertRun, Inserted},
    tokens::{TokenKind, TokenRow},
    why::{Contender, Fleet, Process, Standpoint},
    writer::Pending,
};
pub(crate) use self::{
    ingest::Ingest,
    reports::{Judged, Record, Retry},
    writer::Writer,
};

/// The database. Clones are handles to the same pools and the same writer.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    writer: Writer,
}

/// The two databases it can be.
#[derive(Debug, Clone)]
pub enum Db {
    /// One connection writes, so that writers queue here instead of failing there; the others read.
    Sqlite {
        read: SqlitePool,
        write: SqlitePool,
    },
    Postgres(PgPool),
}

/// Why a store method did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not there, or not the caller's.
    #[error("no such row")]
    NotFound,
    /// Somebody else changed the row in between; the caller may try again from the read.
    #[error("the row changed in between")]
    Conflict,
    /// The fact cannot be true of the run as it stands.
    #[error(transparent)]
    Illegal(#[from] protocol::run::IllegalTransition),
    /// A stored value this build cannot read.
    #[error("stored {0} cannot be read")]
    Corrupt(&'static str),
    /// The database is away or too slow.
    #[error("the database does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// It has no room to write; what it has can still be read.
    #[error("the database has no room left")]
    Full(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code);
        match code.as_deref() {
            // PostgreSQL: serialization failure, deadlock, lock timeout. SQLite: busy snapshot.
            Some("40001" | "40P01" | "55P03" | "517") => Self::Conflict,
            // PostgreSQL: disk full. SQLite: full, and no room for the shared index of its log.
            Some("53100" | "13" | "4874") => Self::Full(error),
            _ => Self::Unavailable(error),
        }
    }
}

/// A write transaction. Dropped without [`commit`](Tx::commit) it is rolled back.
pub(crate) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// Runs one body on the pool to read from, whichever driver it is.
macro_rules! on_pool {
    ($store:expr, |$db:ident| $body:expr) => {
        match $store.db() {
            $crate::store::Db::Sqlite { read: $db, .. } => $body,
            $crate::store::Db::Postgres($db) => $body,
        }
    };
}

/// Runs one body on a transaction's connection, whichever driver it is.
macro_rules! on_tx {
    ($tx:expr, |$db:ident| $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(tx) => {
                let $db = &mut **tx;
                $body
            }
            $crate::store::Tx::Postgres(tx) => {
                let $db = &mut **tx;
                $body
            }
        }
    };
}

pub(crate) use {claims::bounded, listing::Mark, on_pool, on_tx};

impl Db {
    async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Sqlite { write, .. } => Tx::Sqlite(write.begin_with("begin immediate").await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }
}

impl Store {
    /// `writing` is what the writer alone uses; it may be the same.
    fn new(db: Db, writing: Db) -> Self {
        Self { db, writer: Writer::start(writing) }
    }

    /// The database itself, for tests that look into it.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Begins a write. On `SQLite` it takes the write lock at once: a deferred transaction that reads first and
    /// writes later fails as soon as another writer got in between. What is written often goes through the
    /// [writer](writer) instead, which shares one transaction among all who wait.
    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        self.db.begin().await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        on_pool!(self, |db| sqlx::query("select 1").execute(db).await.map(|_| ()))?;
        Ok(())
    }
}

impl Tx {
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Ends it without effect. A dropped one ends a little later, and until then others pass its rows over.
    pub(crate) async fn roll_back(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.rollback().await?,
            Self::Postgres(tx) => tx.rollback().await?,
        }
        Ok(())
    }
}

/// Tries a few times from the read while somebody else was quicker.
pub(crate) async fn again<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    const TRIES: u32 = 5;
    for nth in 1.. {
        match attempt().await {
            Err(StoreError::Conflict) if nth < TRIES => {
                let ceiling = Duration::from_millis(10 << nth);
                tokio::time::sleep(service::backoff::jitter(ceiling)).await;
            }
            other => return other,
        }
    }
    Err(StoreError::Conflict)
}

/// Text for a column: `PostgreSQL` has no NUL in texts, and nobody needs one in a message.
pub(crate) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("columns hold plain data")
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    text: &str,
    what: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(what))
}

pub(crate) fn parse<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt(what))
}

/// A count or size for a column, which is signed.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(n: i64, what: &'static str) -> Result<u64, StoreError> {
    u64::try_from(n).map_err(|_| StoreError::Corrupt(what))
}

/// Milliseconds, for columns and frames.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
