//! What this worker holds, what it takes, and what it says of it: every decision of the link but the socket.
//! It runs nothing, never waits, and reads the time from its arguments or the clock it was given.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use protocol::{
    ids::{ExecutionId, RunId, WorkerId},
    link::{
        Ack, DiskUse, FromWorker, Heartbeat, RunningExecution, TaskAssignment, TaskCancellation,
        TaskRejected, Verdict,
    },
    spec::RunSpec,
};
use service::clock::Clock;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use crate::{
    gate::Gate,
    held::{Held, Stop},
    sync::lock,
};

/// What a frame of the plane leads to beyond the desk itself.
pub(crate) enum Answer {
    Nothing,
    /// Taken: to be run now.
    Begin(Arc<Held>, Box<RunSpec>),
    /// Not taken; the plane is told with the next frames.
    Rejected,
}

pub(crate) struct Desk {
    pub(crate) worker_id: WorkerId,
    capacity: u32,
    clock: Clock,
    /// The worker itself is going.
    going: CancellationToken,
    book: Mutex<Book>,
    /// There is something for the link to send.
    pub(crate) wake: Arc<Notify>,
    /// The plane said to take nothing new.
    drained_by_plane: AtomicBool,
    disk: Mutex<Option<DiskUse>>,
    gate: Arc<Gate>,
}

impl Desk {
    pub(crate) fn new(
        worker_id: WorkerId,
        capacity: u32,
        clock: Clock,
        going: CancellationToken,
    ) -> Self {
        Self {
            worker_id,
            capacity,
            clock,
            going,
            book: Mutex::default(),
            wake: Arc::new(Notify::new()),
            drained_by_plane: AtomicBool::new(false),
            disk: Mutex::default(),
            gate: Arc::default(),
        }
    }

    /// Takes nothing while `gate` is closed.
    pub(crate) fn behind(self, gate: Arc<Gate>) -> Self {
        Self { gate, ..self }
    }

    /// Takes what was assigned, or notes why not.
    pub(crate) fn assign(&self, assignment: TaskAssignment) -> Answer {
        let (run_id, execution_id) = (assignment.task_id, assignment.execution_id);
        let Some(spec) = assignment.spec else {
            return self.reject(run_id, execution_id, "the assignment has no specification");
        };
        if spec.execution_id != execution_id || spec.run_id != run_id {
            return self.reject(run_id, execution_id, "the specification is another run's");
        }
        let held = {
            let mut book = lock(&self.book);
            if book.knows(&execution_id) {
                tracing::info!(execution.id = %execution_id, "execution {execution_id} was assigned twice");
                return Answer::Nothing;
            }
            if let Some(reason) = self.refusal(&book) {
                drop(book);
                return self.reject(run_id, execution_id, reason);
            }
            let held = self.held(run_id, execution_id, None);
            book.hold(held.clone());
            held
        };
        held.outbox.claim(self.worker_id.clone());
        tracing::info!(run.id = %held.run_id, execution.id = %held.execution_id, "execution {} taken", held.execution_id);
        Answer::Begin(held, Box::new(spec))
    }

    fn refusal(&self, book: &Book) -> Option<&'static str> {
        if self.is_draining() {
            Some("the worker takes nothing new")
        } else if book.active() >= self.capacity as usize {
            // The stock worker's words (oz-api.md 2.3).
            Some("worker at maximum concurrency")
        } else if self.disk().is_some_and(full) {
            Some("the worker's disk has reached its limit")
        } else {
            self.gate.refusal()
        }
    }

    /// Holds what an earlier life of this worker began, until the plane says what becomes of it.
    pub(crate) fn hold_earlier(
        &self,
        run_id: RunId,
        execution_id: ExecutionId,
        begun_ms: i64,
    ) -> Arc<Held> {
        let held = self.held(run_id, execution_id, Some(begun_ms));
        lock(&self.book).hold(held.clone());
        held
    }

    fn held(
        &self,
        run_id: RunId,
        execution_id: ExecutionId,
        begun_earlier_ms: Option<i64>,
    ) -> Arc<Held> {
        let (clock, wake) = (self.clock.clone(), self.wake.clone());
        Arc::new(Held::new(run_id, execution_id, clock, wake, begun_earlier_ms))
    }

    /// Nothing is left of it here.
    pub(crate) fn forget(&self, execution_id: &ExecutionId) {
        lock(&self.book).forget(execution_id);
        self.wake.notify_one();
    }

    fn reject(&self, task_id: RunId, execution_id: ExecutionId, reason: &str) -> Answer {
        tracing::info!(run.id = %task_id, execution.id = %execution_id, "execution {execution_id} rejected: {reason}");
        let rejection = FromWorker::TaskRejected(TaskRejected {
            task_id,
            execution_id: Some(execution_id),
            reason: reason.to_owned(),
        });
        lock(&self.book).reject(rejection);
        self.wake.notify_one();
        Answer::Rejected
    }

    /// The plane's word on what runs here: go on from what it holds, or stop.
    pub(crate) fn verdicts(&self, verdicts: &[Verdict], now: Instant) {
        for verdict in verdicts {
            let Some(held) = self.find(&verdict.execution_id) else { continue };
            if verdict.keep {
                held.outbox.resume(verdict, &self.worker_id, now);
                held.confirm();
            } else {
                held.stop(Stop::Superseded);
            }
        }
    }

    pub(crate) fn ack(&self, ack: &Ack, now: Instant) {
        if let Some(held) = self.find(&ack.execution_id) {
            held.outbox.ack(ack.source, ack.seq, now);
        }
    }

    pub(crate) fn report_acked(&self, execution_id: &ExecutionId) {
        if let Some(held) = self.find(execution_id) {
            held.report_acked.cancel();
        }
    }

    pub(crate) fn superseded(&self, execution_id: &ExecutionId) {
        if let Some(held) = self.find(execution_id) {
            tracing::info!(execution.id = %execution_id, "execution {execution_id} was superseded");
            held.stop(Stop::Superseded);
        }
    }

    /// A cancellation without an execution means whatever runs of that run.
    pub(crate) fn cancel(&self, cancellation: &TaskCancellation) {
        for held in self.all() {
            let named = cancellation.execution_id.as_ref();
            if held.run_id == cancellation.task_id
                && named.is_none_or(|named| *named == held.execution_id)
            {
                tracing::info!(run.id = %held.run_id, execution.id = %held.execution_id, "execution {} is to be cancelled", held.execution_id);
                held.stop(Stop::Cancelled);
            }
        }
    }

    pub(crate) fn stop_all(&self, stop: Stop) {
        for held in self.all() {
            held.stop(stop);
        }
    }

    /// Takes nothing new from now on, and goes on serving what runs.
    pub(crate) fn drain_for_plane(&self) {
        self.drained_by_plane.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// The plane took its drain back.
    pub(crate) fn resume_for_plane(&self) {
        self.drained_by_plane.store(false, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.going.is_cancelled() || self.drained_by_plane.load(Ordering::Relaxed)
    }

    /// What the executions take of the disk, as it was last measured; said with each heartbeat. At its limit
    /// nothing new is taken.
    pub(crate) fn measured(&self, disk: DiskUse) {
        *lock(&self.disk) = Some(disk);
    }

    pub(crate) fn disk(&self) -> Option<DiskUse> {
        *lock(&self.disk)
    }

    /// Everything held, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Held>> {
        lock(&self.book).all()
    }

    pub(crate) fn find(&self, execution_id: &ExecutionId) -> Option<Arc<Held>> {
        lock(&self.book).find(execution_id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.book).is_empty()
    }

    pub(crate) fn running(&self) -> Vec<RunningExecution> {
        let running = |held: Arc<Held>| RunningExecution {
            run_id: held.run_id.clone(),
            execution_id: held.execution_id.clone(),
        };
        self.all().into_iter().map(running).collect()
    }

    pub(crate) fn heartbeat(&self) -> Heartbeat {
        let all = self.all();
        let active = all.iter().filter(|held| !held.outbox.is_reported()).count();
        let (draining, disk) = (self.is_draining(), self.disk());
        let takes_none = draining || disk.is_some_and(full) || self.gate.refusal().is_some();
        let free = self.capacity.saturating_sub(u32::try_from(active).unwrap_or(u32::MAX));
        Heartbeat {
            executions: all.iter().map(|held| held.execution_id.clone()).collect(),
            free: if takes_none { 0 } else { free },
            draining,
            disk,
        }
    }

    pub(crate) fn next_rejection(&self) -> Option<FromWorker> {
        lock(&self.book).next_rejection()
    }
}

fn full(disk: DiskUse) -> bool {
    disk.limit_bytes.is_some_and(|limit| disk.used_bytes >= limit)
}
