//! Who is connected to this plane right now. Memory only: it may be wrong, and nothing is decided by it that
//! the store does not decide again.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use protocol::{
    ids::{ExecutionId, WorkerId},
    link::ToWorker,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Frames waiting for a slow worker. One more and the connection is closed: the worker dials again, and what
/// it missed is made up from the store.
pub(super) const MAX_QUEUED_FRAMES: usize = 256;

/// Which messages a worker understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The Oz worker's: no capacity, no acknowledgements, no executions.
    Stock,
    /// Ours: the worker said `hello`.
    Ozma,
}

impl Dialect {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Ozma => "ozma",
        }
    }
}

/// One socket to one worker process.
#[derive(Debug)]
pub struct Connection {
    /// Unique over all planes.
    pub id: String,
    pub worker_id: WorkerId,
    /// The worker's process; all connections of one stock worker id share one.
    pub instance_id: String,
    pub dialect: Dialect,
    /// Executions at once.
    pub capacity: u32,
    pub(super) outgoing: mpsc::Sender<ToWorker>,
    pub(super) closing: CancellationToken,
    pub(super) draining: AtomicBool,
    /// When its leases were last renewed for a sign of life; stock workers only.
    pub(super) renewed_at: AtomicI64,
    /// When its row was last written.
    pub(super) touched_at: AtomicI64,
    held_until: AtomicI64,
    cancelled: Mutex<HashSet<ExecutionId>>,
}

impl Connection {
    pub(super) fn new(
        worker_id: WorkerId,
        instance_id: String,
        dialect: Dialect,
        capacity: u32,
        outgoing: mpsc::Sender<ToWorker>,
    ) -> Self {
        Self {
            id: uuid::Uuid::now_v7().simple().to_string(),
            worker_id,
            instance_id,
            dialect,
            capacity,
            outgoing,
            closing: CancellationToken::new(),
            draining: AtomicBool::new(false),
            renewed_at: AtomicI64::new(i64::MIN),
            touched_at: AtomicI64::new(i64::MIN),
            held_until: AtomicI64::new(i64::MIN),
            cancelled: Mutex::default(),
        }
    }

    /// Puts a frame in line; false when the connection is gone or too slow, which ends it.
    /// A stock worker is spared what it does not understand.
    pub fn send(&self, frame: ToWorker) -> bool {
        let understood = self.dialect == Dialect::Ozma
            || matches!(frame, ToWorker::TaskAssignment(_) | ToWorker::TaskCancellation(_));
        if !understood {
            return true;
        }
        if self.closing.is_cancelled() {
            return false;
        }
        let sent = self.outgoing.try_send(frame).is_ok();
        if !sent {
            self.closing.cancel();
        }
        sent
    }

    /// Comes back when the plane is done with it: replaced by a newer one, or too slow to send to.
    pub async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Whether dispatch should hand it anything.
    pub fn takes_work(&self, now: i64) -> bool {
        !self.closing.is_cancelled()
            && !self.draining.load(Ordering::Relaxed)
            && self.held_until.load(Ordering::Relaxed) <= now
    }

    /// It declined something: nothing new before then.
    pub(super) fn hold(&self, until: i64) {
        self.held_until.fetch_max(until, Ordering::Relaxed);
    }

    /// True the first time it is asked for an execution: one connection is told once to stop it.
    pub(crate) fn first_cancel(&self, execution: &ExecutionId) -> bool {
        lock(&self.cancelled).insert(execution.clone())
    }

    /// The execution is over; there is nothing to cancel any more.
    pub(super) fn forget(&self, execution: &ExecutionId) {
        lock(&self.cancelled).remove(execution);
    }
}

/// Every connection of this plane.
#[derive(Debug, Default)]
pub struct Registry(Mutex<BTreeMap<String, Arc<Connection>>>);

impl Registry {
    pub(super) fn insert(&self, connection: Arc<Connection>) {
        lock(&self.0).insert(connection.id.clone(), connection);
    }

    pub(super) fn remove(&self, id: &str) {
        lock(&self.0).remove(id);
    }

    pub fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.0).values().cloned().collect()
    }

    /// The connections of one worker process.
    pub fn of_instance(&self, instance: &str) -> Vec<Arc<Connection>> {
        let connections = lock(&self.0);
        connections.values().filter(|c| c.instance_id == instance).cloned().collect()
    }

    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
