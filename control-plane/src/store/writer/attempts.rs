//! How a group is stored: as one transaction, or its halves, or its items one by one, until each has its own outcome;
//! and never longer than anybody can wait for it.

use std::time::{Duration, Instant};

use super::{Answer, Ask, Db, Group, Memory, StoreError};

/// How long one transaction may take, and how long a group with all its halves and second tries may begin new ones.
/// Whoever is left then hears that the database is away. Below a lease, so that renewals do not wait it out.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);
const GROUP_WITHIN: Duration = Duration::from_secs(5);

/// How often one item is tried while others change what it read.
const TRIES: u32 = 5;

/// Stores a group, or its halves, or its items one by one; one outcome for each.
pub(super) async fn store(
    db: &mut Db,
    memory: &mut Memory,
    asks: &[Ask],
) -> Vec<Result<Answer, StoreError>> {
    let until = Instant::now() + GROUP_WITHIN;
    let mut outcomes = Vec::with_capacity(asks.len());
    // What is still to be stored, the next last.
    let mut parts = vec![asks];
    while let Some(part) = parts.pop() {
        match commit_by(until, db, memory, part).await {
            Ok(answers) => outcomes.extend(answers),
            Err(Failure::Away(error)) => {
                outcomes.extend(part.iter().map(|_| Err(same(&error))));
                // The others would wait just as long for the same answer.
                for rest in parts.drain(..).rev() {
                    outcomes.extend(rest.iter().map(|_| Err(same(&error))));
                }
            }
            Err(Failure::Refused(error)) if part.len() == 1 => {
                outcomes.push(alone(until, db, memory, part, error).await);
            }
            Err(Failure::Refused(_)) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }
    outcomes
}

/// [`commit`], as long as `until` is not over. A database that took the words and never answers is given up with its
/// connection: nothing may wait for ever on it, and a pool would try to take it back.
async fn commit_by(
    until: Instant,
    db: &mut Db,
    memory: &mut Memory,
    asks: &[Ask],
) -> Result<Vec<Result<Answer, StoreError>>, Failure> {
    let late = || Failure::Away(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
    if until <= Instant::now() {
        return Err(late());
    }
    if let Ok(done) = tokio::time::timeout(COMMIT_WITHIN, commit(db, memory, asks)).await {
        return done;
    }
    memory.forget();
    if let Db::Postgres(pool) = db {
        let fresh = pool.options().clone().connect_lazy_with((*pool.connect_options()).clone());
        // Whether and when the stuck one ends is its own affair.
        drop(std::mem::replace(pool, fresh));
    }
    Err(late())
}

/// One item that failed: tried again while others were quicker.
async fn alone(
    until: Instant,
    db: &mut Db,
    memory: &mut Memory,
    item: &[Ask],
    mut error: StoreError,
) -> Result<Answer, StoreError> {
    for nth in 1..TRIES {
        if !matches!(error, StoreError::Conflict) {
            break;
        }
        let ceiling = Duration::from_millis(5 << nth);
        tokio::time::sleep(service::backoff::jitter(ceiling)).await;
        error = match commit_by(until, db, memory, item).await {
            Ok(mut answers) => return answers.pop().expect("one item, one answer"),
            Err(Failure::Refused(error)) => error,
            Err(Failure::Away(error)) => error,
        };
    }
    Err(error)
}

/// Why a group was not stored.
enum Failure {
    /// The database did not answer or has no room: nothing else will be stored either.
    Away(StoreError),
    /// Something in the group cannot be stored, or somebody else changed what it read.
    Refused(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(sqlx::Error::Database(ref cause)) => {
                match cause.code().as_deref() {
                    // PostgreSQL: cut off for its time. SQLite: somebody else holds the file.
                    Some("57014" | "5") => Self::Away(error),
                    _ => Self::Refused(error),
                }
            }
            StoreError::Unavailable(_) | StoreError::Full(_) => Self::Away(error),
            other => Self::Refused(other),
        }
    }
}

async fn commit(
    db: &Db,
    memory: &mut Memory,
    asks: &[Ask],
) -> Result<Vec<Result<Answer, StoreError>>, Failure> {
    let mut tx = db.begin().await.map_err(Failure::Away)?;
    let mut group = Group::default();
    let stored = group.store(&mut tx, memory, asks).await;
    let settled = match stored {
        Ok((answers, changed)) => {
            let ended = if changed { tx.commit().await } else { tx.roll_back().await };
            // Whether it was committed nobody knows now: it must not be tried again from here.
            ended.map(|()| answers).map_err(|error| Failure::Away(same(&error)))
        }
        Err(error) => {
            // Rolled back by the server, should this not reach it.
            let _ = tx.roll_back().await;
            Err(error.into())
        }
    };
    if settled.is_err() {
        memory.forget();
    }
    settled
}

/// The same once more, for everybody who waits.
fn same(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full(error) => StoreError::Full(same_cause(error)),
        StoreError::Unavailable(error) => StoreError::Unavailable(same_cause(error)),
        other => StoreError::Unavailable(sqlx::Error::Protocol(other.to_string())),
    }
}

fn same_cause(error: &sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Io(error) => {
            sqlx::Error::Io(std::io::Error::new(error.kind(), error.to_string()))
        }
        sqlx::Error::PoolTimedOut => sqlx::Error::PoolTimedOut,
        sqlx::Error::PoolClosed => sqlx::Error::PoolClosed,
        other => sqlx::Error::Protocol(other.to_string()),
    }
}
