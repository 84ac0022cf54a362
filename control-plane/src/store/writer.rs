//! The one task that writes what is written often. Whoever has something to store hands it in and waits; the task
//! takes everything that waits, stores it in one transaction, and answers after the commit. There is no timer: a
//! lone item commits at once, and while one group commits the next one gathers. It never acknowledges before a
//! commit, and what one item did wrong is never another's answer: a group that fails is halved until the guilty
//! item is alone.
//!
//! Anything else can share the transaction of a group through [`Store::exclusive`]: on `SQLite` it does not wait
//! for the connection then, and pays for no commit of its own.

use std::{
    any::Any,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    Db, InsertRun, Inserted, Store, StoreError, Tx,
    group::{Group, Ingest, Memory, Record, Renew},
    ingest::Ingested,
    reports::Judged,
};

/// Items that wait for the writer; whoever comes later waits for room.
const MAX_WAITING: usize = 1_024;

/// Their size together, in KiB.
const MAX_WAITING_KIB: u32 = 64 << 10;

/// The most items of one transaction, and their size, in KiB. A larger item goes alone.
const MAX_GROUP: usize = 256;
const MAX_GROUP_KIB: u32 = 8 << 10;

/// How long somebody waits for room before the database counts as away.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);

/// How often one item is tried while others change what it read.
const TRIES: u32 = 5;

/// What somebody wants stored.
pub(super) enum Ask {
    Record(Record),
    Ingest(Ingest),
    Insert(Box<InsertRun>),
    Renew(Renew),
    Work(Work),
}

/// Work in the group's transaction, after the group's own statements. It may be tried more than once.
pub(super) type Work = Box<
    dyn for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<Box<dyn Any + Send>, StoreError>>
        + Send
        + Sync,
>;

/// What became of it.
pub(super) enum Answer {
    Recorded(Judged),
    Ingested(Ingested),
    Inserted(Inserted),
    Renewed(Vec<protocol::ids::ExecutionId>),
    Work(Box<dyn Any + Send>),
}

struct Item {
    ask: Ask,
    answer: oneshot::Sender<Result<Answer, StoreError>>,
    kib: u32,
    /// Given back when it is answered.
    room: OwnedSemaphorePermit,
}

/// An answer that comes with the commit. Dropping it does not take back what was handed in.
#[derive(Debug)]
pub struct Pending<T> {
    answer: oneshot::Receiver<Result<Answer, StoreError>>,
    pick: fn(Answer) -> Option<T>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let pick = self.pick;
        Pin::new(&mut self.answer).poll(cx).map(|answered| {
            let answer = answered.map_err(|_| StoreError::Unavailable(gone()))??;
            Ok(pick(answer).expect("an item is answered in kind"))
        })
    }
}

/// The handle to the writer's task, which ends with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    items: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    changes: Arc<AtomicU64>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item").field("kib", &self.kib).finish_non_exhaustive()
    }
}

impl Writer {
    #[expect(
        clippy::disallowed_methods,
        reason = "it lives as long as the store, which is opened before a life"
    )]
    pub(super) fn start(db: Db) -> Self {
        let (items, waiting) = mpsc::channel(MAX_WAITING);
        let changes = Arc::new(AtomicU64::new(0));
        tokio::spawn(write(db, waiting, Memory::of(Arc::clone(&changes))));
        Self { items, room: Arc::new(Semaphore::new(MAX_WAITING_KIB as usize)), changes }
    }

    /// Connections or limits changed: what the writer counted before is old.
    pub(super) fn counts_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Hands something in, once there is room for it; what is handed in first is stored first.
    async fn hand_in(
        &self,
        ask: Ask,
    ) -> Result<oneshot::Receiver<Result<Answer, StoreError>>, StoreError> {
        let kib = ask.kib();
        // Without a timer where there is room, as there nearly always is.
        let (room, place) = match self.room(kib).now_or_never() {
            Some(room) => room?,
            None => tokio::time::timeout(ROOM_TIMEOUT, self.room(kib))
                .await
                .map_err(|_| StoreError::Unavailable(sqlx::Error::PoolTimedOut))??,
        };
        let (answer, answered) = oneshot::channel();
        place.send(Item { ask, answer, kib, room });
        Ok(answered)
    }

    async fn room(
        &self,
        kib: u32,
    ) -> Result<(OwnedSemaphorePermit, mpsc::Permit<'_, Item>), StoreError> {
        let away = || StoreError::Unavailable(gone());
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| away())?;
        Ok((room, self.items.reserve().await.map_err(|_| away())?))
    }
}

impl Ask {
    /// About what it weighs; never nothing, never more than there is room for.
    fn kib(&self) -> u32 {
        let bytes = match self {
            Self::Ingest(ingest) => ingest.events.iter().map(|e| e.data.get().len() + 128).sum(),
            Self::Insert(new) => new.prompt.len() + new.config.len() + new.snapshot.len(),
            Self::Renew(renew) => renew.ids.len() * 64,
            Self::Record(_) | Self::Work(_) => 0,
        };
        u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1).min(MAX_WAITING_KIB)
    }
}

impl Store {
    /// Hands a report in; the answer comes with its commit. Reports and events handed in one after another are
    /// stored in that order.
    pub(crate) async fn hand_in_report(
        &self,
        record: Record,
    ) -> Result<Pending<Judged>, StoreError> {
        let answer = self.writer.hand_in(Ask::Record(record)).await?;
        Ok(Pending {
            answer,
            pick: |answer| match answer {
                Answer::Recorded(judged) => Some(judged),
                _ => None,
            },
        })
    }

    /// Hands a batch of events in.
    pub(crate) async fn hand_in_events(
        &self,
        ingest: Ingest,
    ) -> Result<Pending<Ingested>, StoreError> {
        let answer = self.writer.hand_in(Ask::Ingest(ingest)).await?;
        Ok(Pending {
            answer,
            pick: |answer| match answer {
                Answer::Ingested(ingested) => Some(ingested),
                _ => None,
            },
        })
    }

    pub(super) async fn hand_in_run(
        &self,
        new: InsertRun,
    ) -> Result<Pending<Inserted>, StoreError> {
        let answer = self.writer.hand_in(Ask::Insert(Box::new(new))).await?;
        Ok(Pending {
            answer,
            pick: |answer| match answer {
                Answer::Inserted(inserted) => Some(inserted),
                _ => None,
            },
        })
    }

    pub(super) async fn hand_in_renewal(
        &self,
        renew: Renew,
    ) -> Result<Pending<Vec<protocol::ids::ExecutionId>>, StoreError> {
        let answer = self.writer.hand_in(Ask::Renew(renew)).await?;
        Ok(Pending {
            answer,
            pick: |answer| match answer {
                Answer::Renewed(ids) => Some(ids),
                _ => None,
            },
        })
    }

    /// Runs `work` in the transaction of the writer's next group, after everything of that group is written, and
    /// answers after its commit. An error rolls back and is tried alone; a conflict is tried again, so `work`
    /// must do the same each time it is called. The way to write it, with clones for the closure:
    ///
    /// ```text
    /// store.exclusive(move |tx| { let claimant = claimant.clone(); async move { tx.claim(&claimant).await }.boxed() })
    /// ```
    pub(crate) async fn exclusive<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>> + Send + Sync + 'static,
    {
        let work: Work = Box::new(move |tx| {
            let done = work(tx);
            async move { Ok(Box::new(done.await?) as Box<dyn Any + Send>) }.boxed()
        });
        let answer = self.writer.hand_in(Ask::Work(work)).await?;
        let pending = Pending {
            answer,
            pick: |answer| match answer {
                Answer::Work(done) => done.downcast::<T>().ok().map(|done| *done),
                _ => None,
            },
        };
        pending.await
    }
}

/// The writer's task.
async fn write(db: Db, mut waiting: mpsc::Receiver<Item>, mut memory: Memory) {
    let mut left: Option<Item> = None;
    loop {
        let first = if let Some(item) = left.take() { Some(item) } else { waiting.recv().await };
        let Some(first) = first else { return };
        let mut kib = first.kib;
        let mut items = vec![first];
        while items.len() < MAX_GROUP
            && let Ok(item) = waiting.try_recv()
        {
            if kib + item.kib > MAX_GROUP_KIB {
                left = Some(item);
                break;
            }
            kib += item.kib;
            items.push(item);
        }
        let (asks, answers): (Vec<_>, Vec<_>) =
            items.into_iter().map(|item| (item.ask, (item.answer, item.room))).unzip();
        let stored = std::panic::AssertUnwindSafe(store(&db, &mut memory, &asks)).catch_unwind();
        if let Ok(outcomes) = stored.await {
            for ((answer, _), outcome) in answers.into_iter().zip(outcomes) {
                // Whoever asked may be gone; it counts all the same.
                let _ = answer.send(outcome);
            }
        } else {
            // Those who wait hear that the writer went away; the next group is another story.
            memory.forget();
            tracing::error!("the store's writer panicked over a group of {}", asks.len());
        }
    }
}

/// Stores a group, or its halves, or its items one by one; one outcome for each.
async fn store(db: &Db, memory: &mut Memory, asks: &[Ask]) -> Vec<Result<Answer, StoreError>> {
    let mut outcomes = Vec::with_capacity(asks.len());
    // What is still to be stored, the next last.
    let mut parts = vec![asks];
    while let Some(part) = parts.pop() {
        match commit(db, memory, part).await {
            Ok(answers) => outcomes.extend(answers),
            Err(Failure::Away(error)) => {
                outcomes.extend(part.iter().map(|_| Err(StoreError::Unavailable(same(&error)))));
                // The others would wait just as long for the same answer.
                for rest in parts.drain(..).rev() {
                    outcomes
                        .extend(rest.iter().map(|_| Err(StoreError::Unavailable(same(&error)))));
                }
            }
            Err(Failure::Refused(error)) if part.len() == 1 => {
                outcomes.push(alone(db, memory, part, error).await);
            }
            Err(Failure::Refused(_)) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }
    outcomes
}

/// One item that failed: tried again while others were quicker.
async fn alone(
    db: &Db,
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
        error = match commit(db, memory, item).await {
            Ok(mut answers) => return answers.pop().expect("one item, one answer"),
            Err(Failure::Refused(error)) => error,
            Err(Failure::Away(error)) => StoreError::Unavailable(error),
        };
    }
    Err(error)
}

/// Why a group was not stored.
enum Failure {
    /// The database did not answer: nothing else will be stored either.
    Away(sqlx::Error),
    /// Something in the group cannot be stored, or somebody else changed what it read.
    Refused(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(error) if !matches!(error, sqlx::Error::Database(_)) => {
                Self::Away(error)
            }
            other => Self::Refused(other),
        }
    }
}

async fn commit(
    db: &Db,
    memory: &mut Memory,
    asks: &[Ask],
) -> Result<Vec<Result<Answer, StoreError>>, Failure> {
    let mut tx = db.begin().await?;
    let mut group = Group::default();
    let stored = group.store(&mut tx, memory, asks).await;
    let settled = match stored {
        Ok((answers, changed)) => {
            let ended = if changed { tx.commit().await } else { tx.roll_back().await };
            // Whether it was committed nobody knows now: it must not be tried again from here.
            ended.map(|()| answers).map_err(|error| match error {
                StoreError::Unavailable(error) => Failure::Away(error),
                other => Failure::Away(sqlx::Error::Protocol(other.to_string())),
            })
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

fn gone() -> sqlx::Error {
    sqlx::Error::WorkerCrashed
}

/// The same once more, for everybody who waits.
fn same(error: &sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Io(error) => {
            sqlx::Error::Io(std::io::Error::new(error.kind(), error.to_string()))
        }
        sqlx::Error::PoolTimedOut => sqlx::Error::PoolTimedOut,
        sqlx::Error::PoolClosed => sqlx::Error::PoolClosed,
        other => sqlx::Error::Protocol(other.to_string()),
    }
}
