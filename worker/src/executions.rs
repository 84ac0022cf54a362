//! What runs here now. It decides what is taken and what is not, and passes the plane's words on to the
//! execution they are meant for; it never waits.

mod book;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use protocol::{
    ids::{ExecutionId, RunId},
    link::{
        Ack, FromWorker, Heartbeat, RunningExecution, TaskAssignment, TaskCancellation,
        TaskRejected, Verdict,
    },
};
use tokio::sync::Notify;

use self::book::Book;
use crate::{
    context::Context,
    execution,
    held::{Held, Stop},
    home::Record,
    sync::lock,
};

pub(crate) struct Executions {
    pub(crate) context: Arc<Context>,
    capacity: u32,
    book: Mutex<Book>,
    /// There is something for the link to send.
    pub(crate) wake: Arc<Notify>,
    /// Nothing runs any more.
    idle: Arc<Notify>,
    /// The plane said to take nothing new.
    drained_by_plane: AtomicBool,
}

impl Executions {
    pub(crate) fn new(context: Context, capacity: u32) -> Arc<Self> {
        Arc::new(Self {
            context: Arc::new(context),
            capacity,
            book: Mutex::default(),
            wake: Arc::new(Notify::new()),
            idle: Arc::new(Notify::new()),
            drained_by_plane: AtomicBool::new(false),
        })
    }

    /// Runs what was assigned, or says why not.
    pub(crate) fn assign(self: &Arc<Self>, assignment: TaskAssignment) {
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
                return;
            }
            let refusal = if self.is_draining() {
                Some("the worker takes nothing new")
            } else if book.active() >= self.capacity as usize {
                // The stock worker's words (oz-api.md 2.3).
                Some("worker at maximum concurrency")
            } else {
                None
            };
            if let Some(reason) = refusal {
                drop(book);
                return self.reject(run_id, execution_id, reason);
            }
            let held = self.held(run_id, execution_id.clone(), None);
            book.hold(held.clone());
            held
        };
        held.outbox.claim(self.context.worker_id.clone());
        self.context.metrics.claimed();
        tracing::info!(run.id = %held.run_id, execution.id = %execution_id, "execution {execution_id} taken");
        let (context, run) = (self.context.clone(), held.clone());
        self.look_after(held, async move { execution::run(&context, run, spec).await });
    }

    /// Takes up what an earlier life of this worker began, once the plane has said to.
    pub(crate) fn adopt(self: &Arc<Self>, record: Record) {
        let held =
            self.held(record.run_id.clone(), record.execution_id.clone(), Some(record.started_ms));
        lock(&self.book).hold(held.clone());
        let (context, run) = (self.context.clone(), held.clone());
        self.look_after(held, async move { execution::adopt(&context, run, record).await });
    }

    /// Runs `task` to its end; one that panics is reported like any other failure.
    fn look_after(
        self: &Arc<Self>,
        held: Arc<Held>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.context.life.spawn(task);
        let this = self.clone();
        self.context.life.spawn(async move {
            if let Err(error) = task.await {
                let id = &held.execution_id;
                tracing::error!(execution.id = %id, error = %error, "looking after {id} panicked");
                execution::give_up(&this.context, &held).await;
            }
            this.forget(&held.execution_id);
        });
    }

    fn held(
        &self,
        run_id: RunId,
        execution_id: ExecutionId,
        begun_earlier_ms: Option<i64>,
    ) -> Arc<Held> {
        let clock = self.context.clock.clone();
        Arc::new(Held::new(run_id, execution_id, clock, self.wake.clone(), begun_earlier_ms))
    }

    fn forget(&self, execution_id: &ExecutionId) {
        lock(&self.book).forget(execution_id);
        self.idle.notify_waiters();
        self.wake.notify_one();
    }

    fn reject(&self, task_id: RunId, execution_id: ExecutionId, reason: &str) {
        tracing::info!(run.id = %task_id, execution.id = %execution_id, "execution {execution_id} rejected: {reason}");
        self.context.metrics.rejected();
        let rejection = FromWorker::TaskRejected(TaskRejected {
            task_id,
            execution_id: Some(execution_id),
            reason: reason.to_owned(),
        });
        lock(&self.book).reject(rejection);
        self.wake.notify_one();
    }

    /// The plane's word on what runs here: go on from what it holds, or stop.
    pub(crate) fn verdicts(&self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            let Some(held) = self.find(&verdict.execution_id) else { continue };
            if verdict.keep {
                held.outbox.resume(verdict, &self.context.worker_id);
                held.confirm();
            } else {
                held.stop(Stop::Superseded);
            }
        }
    }

    pub(crate) fn ack(&self, ack: &Ack) {
        if let Some(held) = self.find(&ack.execution_id) {
            held.outbox.ack(ack.source, ack.seq);
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
        self.context.life.draining().is_cancelled() || self.drained_by_plane.load(Ordering::Relaxed)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Held>> {
        lock(&self.book).all()
    }

    pub(crate) fn find(&self, execution_id: &ExecutionId) -> Option<Arc<Held>> {
        lock(&self.book).find(execution_id)
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
        let draining = self.is_draining();
        let free = self.capacity.saturating_sub(u32::try_from(active).unwrap_or(u32::MAX));
        Heartbeat {
            executions: all.iter().map(|held| held.execution_id.clone()).collect(),
            free: if draining { 0 } else { free },
            draining,
            disk: None,
        }
    }

    pub(crate) fn next_rejection(&self) -> Option<FromWorker> {
        lock(&self.book).next_rejection()
    }

    /// Waits until nothing runs and everything was said that is said without an execution.
    pub(crate) async fn idle(&self) {
        loop {
            let ended = self.idle.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if lock(&self.book).is_empty() {
                return;
            }
            ended.await;
        }
    }
}
