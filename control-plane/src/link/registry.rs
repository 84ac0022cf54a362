//! Who is connected to this plane right now. Memory only: it may be wrong, and nothing is decided by it that
//! the store does not decide again.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
};

use protocol::{
    ids::{ExecutionId, WorkerId},
    link::{DiskUse, Drain, ToWorker},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Frames waiting for a slow worker. One more and the connection is closed: the worker dials again, and what
/// it missed is made up from the store.
const MAX_QUEUED_FRAMES: usize = 256;

/// A worker that keeps declining is tried this often.
const LONGEST_HOLD_MS: i64 = 60_000;

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

/// Where frames to a worker are put in line. In boxes: the queue sets space aside for dozens of them, for each of
/// thousands of workers that mostly hear nothing.
pub(super) type Outgoing = mpsc::Sender<Box<ToWorker>>;

/// What is to be sent to a worker, in order.
#[derive(Debug)]
pub struct Line(mpsc::Receiver<Box<ToWorker>>);

impl Line {
    pub(super) fn new() -> (Outgoing, Self) {
        let (outgoing, line) = mpsc::channel(MAX_QUEUED_FRAMES);
        (outgoing, Self(line))
    }

    /// The next frame, once there is one; `None` after the connection's end.
    pub async fn recv(&mut self) -> Option<ToWorker> {
        self.0.recv().await.map(|frame| *frame)
    }

    /// The next frame, if there is one now.
    pub fn try_recv(&mut self) -> Option<ToWorker> {
        self.0.try_recv().ok().map(|frame| *frame)
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
    /// What it says of itself; runs may ask for it.
    pub tags: Vec<String>,
    pub(super) outgoing: Outgoing,
    pub(super) closing: CancellationToken,
    pub(super) draining: AtomicBool,
    /// When its leases were last renewed for a sign of life; stock workers only.
    pub(super) renewed_at: AtomicI64,
    /// When its row was last written.
    pub(super) touched_at: AtomicI64,
    held_until: AtomicI64,
    /// Assignments declined since it took one.
    declined: AtomicU32,
    /// Whether it was told to take nothing new.
    pub(super) told_to_drain: AtomicBool,
    cancelled: Mutex<HashSet<ExecutionId>>,
    /// What it last said of its disks.
    pub(super) disk: Mutex<Option<DiskUse>>,
}

impl Connection {
    pub(super) fn new(
        worker_id: WorkerId,
        instance_id: String,
        dialect: Dialect,
        capacity: u32,
        outgoing: Outgoing,
    ) -> Self {
        Self {
            id: uuid::Uuid::now_v7().simple().to_string(),
            worker_id,
            instance_id,
            dialect,
            capacity,
            tags: Vec::new(),
            outgoing,
            closing: CancellationToken::new(),
            draining: AtomicBool::new(false),
            renewed_at: AtomicI64::new(i64::MIN),
            touched_at: AtomicI64::new(i64::MIN),
            held_until: AtomicI64::new(i64::MIN),
            declined: AtomicU32::new(0),
            told_to_drain: AtomicBool::new(false),
            cancelled: Mutex::default(),
            disk: Mutex::default(),
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
        let sent = self.outgoing.try_send(Box::new(frame)).is_ok();
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
        !self.closing.is_cancelled() && !self.draining.load(Ordering::Relaxed) && !self.is_held(now)
    }

    /// It declined something: nothing new for a while, longer each time, and never for longer than
    /// [`LONGEST_HOLD_MS`].
    pub(crate) fn hold(&self, now: i64, first_ms: i64) {
        let before = self.declined.fetch_add(1, Ordering::Relaxed).min(10);
        let until = now + first_ms.saturating_mul(1 << before).min(LONGEST_HOLD_MS);
        self.held_until.fetch_max(until, Ordering::Relaxed);
    }

    /// A clock that was set back holds nobody longer than that.
    fn is_held(&self, now: i64) -> bool {
        let left = self.held_until.load(Ordering::Relaxed).saturating_sub(now);
        (1..=LONGEST_HOLD_MS).contains(&left)
    }

    /// It took something: the next one it declines is the first again.
    pub(crate) fn took(&self) {
        self.declined.store(0, Ordering::Relaxed);
    }

    /// Tells the worker whether it is to take nothing new, once for each change.
    pub(crate) fn tell_drain(&self, drain: bool) {
        if self.told_to_drain.swap(drain, Ordering::Relaxed) != drain {
            let frame = if drain { ToWorker::Drain } else { ToWorker::Resume };
            self.send(frame(Drain {}));
        }
    }

    /// How many assignments may be put in line at once; room is kept for what else there is to say.
    pub(crate) fn room(&self) -> u32 {
        let spare = self.outgoing.capacity().saturating_sub(MAX_QUEUED_FRAMES / 4);
        u32::try_from(spare).unwrap_or(u32::MAX)
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
