//! The one task that writes what is written often. Whoever has something to store hands it in and waits; the task
//! takes everything that waits, stores it in one transaction, and answers after the commit. There is no timer: a
//! lone item commits at once, and while one group commits the next one gathers. It never acknowledges before a
//! commit, and what one item did wrong is never another's answer: a group that fails is halved until the guilty
//! item is alone.
//!
//! Anything else can share the transaction of a group through [`Store::exclusive`]: on `SQLite` it does not wait
//! for the connection then, and pays for no commit of its own.

mod attempts;

use std::{
    any::Any,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    Db, InsertRun, Inserted, Store, StoreError, Tx,
    group::{Answer, Ask, Group, Work},
    ingest::{Ingest, Ingested},
    leases::Renew,
    reports::{Judged, Record},
    submissions::Memory,
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

/// After so many groups the log of `SQLite` is checkpointed.
const CHECKPOINT_EVERY: u32 = 64;

/// How long the checkpointing task waits before it looks whether the writer is still there.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(30);

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
    db: Db,
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
        let log = Arc::new(Notify::new());
        if let Db::Sqlite { read, .. } = &db {
            tokio::spawn(checkpoint(read.clone(), Arc::downgrade(&log)));
        }
        let memory = Memory::of(Arc::clone(&changes));
        tokio::spawn(write(db.clone(), waiting, memory, log));
        Self { items, room: Arc::new(Semaphore::new(MAX_WAITING_KIB as usize)), changes, db }
    }

    /// Connections or limits changed: what the writer counted before is old.
    pub(super) fn counts_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Closes the connections that are its own.
    pub(super) async fn close(&self) {
        if let Db::Postgres(pool) = &self.db {
            pool.close().await;
        }
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
            Self::Insert(new) => new.size(),
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
async fn write(
    mut db: Db,
    mut waiting: mpsc::Receiver<Item>,
    mut memory: Memory,
    log: Arc<Notify>,
) {
    let mut groups: u32 = 0;
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
        let stored = std::panic::AssertUnwindSafe(attempts::store(&mut db, &mut memory, &asks))
            .catch_unwind();
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
        groups = groups.wrapping_add(1);
        if groups.is_multiple_of(CHECKPOINT_EVERY) {
            log.notify_one();
        }
    }
}

/// Moves what is in `SQLite`'s log into the file, beside the writer and not in its stead: it waits for the disk
/// several times. Ends with the writer.
async fn checkpoint(pool: sqlx::SqlitePool, log: Weak<Notify>) {
    loop {
        let Some(grown) = log.upgrade() else { return };
        let waited = tokio::time::timeout(CHECKPOINT_AFTER, grown.notified()).await;
        drop(grown);
        if waited.is_err() {
            continue;
        }
        let done = sqlx::query("pragma wal_checkpoint(passive)").execute(&pool).await;
        if let Err(error) = done {
            tracing::debug!(error = %error, "the log was not checkpointed; the writer does it in time");
        }
    }
}

fn gone() -> sqlx::Error {
    sqlx::Error::WorkerCrashed
}
