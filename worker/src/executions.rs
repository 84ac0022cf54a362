//! What runs here now: begins what the desk takes, and looks after it to its end. It never waits for the plane.

mod book;
mod desk;

use std::{ops::Deref, sync::Arc};

use protocol::{ids::RunId, spec::RunSpec};
use tokio::sync::Notify;

pub(crate) use self::desk::{Answer, Desk};
use crate::{context::Context, execution, held::Held, home::Record};

pub(crate) struct Executions {
    pub(crate) context: Arc<Context>,
    desk: Desk,
    /// Nothing runs any more.
    idle: Arc<Notify>,
}

/// What is held is the desk's to tell.
impl Deref for Executions {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.desk
    }
}

impl Executions {
    pub(crate) fn new(context: Context, capacity: u32) -> Arc<Self> {
        let (id, clock) = (context.worker_id.clone(), context.clock.clone());
        let desk = Desk::new(id, capacity, clock, context.life.draining().clone());
        let desk = desk.behind(context.gate.clone());
        Arc::new(Self { context: Arc::new(context), desk, idle: Arc::new(Notify::new()) })
    }

    /// Does what a frame led to.
    pub(crate) fn act(self: &Arc<Self>, answer: Answer) {
        match answer {
            Answer::Nothing => {}
            Answer::Rejected => self.context.metrics.rejected(),
            Answer::Begin(held, spec) => self.begin(held, *spec),
        }
    }

    fn begin(self: &Arc<Self>, held: Arc<Held>, spec: RunSpec) {
        self.context.metrics.claimed();
        held.uses(spec.session.as_ref().map(|session| session.conversation_id.clone()));
        let (context, run) = (self.context.clone(), held.clone());
        self.look_after(held, async move { execution::run(&context, run, spec).await });
    }

    /// Takes up what an earlier life of this worker began, once the plane has said to.
    pub(crate) fn adopt(self: &Arc<Self>, record: Record) {
        let (run_id, execution_id) = (record.run_id.clone(), record.execution_id.clone());
        let held = self.desk.hold_earlier(
            run_id,
            execution_id,
            record.begun_ms(self.context.clock.now_ms()),
        );
        held.uses(record.conversation.clone());
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
            this.note_use(&held).await;
            if let Err(error) = task.await {
                let id = &held.execution_id;
                tracing::error!(execution.id = %id, error = %error, "looking after {id} panicked");
                execution::give_up(&this.context, &held).await;
            }
            this.note_use(&held).await;
            this.desk.forget(&held.execution_id);
            this.idle.notify_waiters();
        });
    }

    async fn note_use(&self, held: &Held) {
        if let Some(conversation) = held.conversation() {
            self.context.sessions.used(conversation).await;
        }
    }

    /// Whether an execution uses what is kept of `conversation`. A worker that is going lets go of what runs on: that
    /// is the next life's, not nobody's.
    pub(crate) fn uses(&self, conversation: &RunId) -> bool {
        self.context.life.draining().is_cancelled()
            || self.desk.all().iter().any(|held| held.conversation() == Some(conversation))
    }

    /// Waits until nothing runs and everything was said that is said without an execution.
    pub(crate) async fn idle(&self) {
        loop {
            let ended = self.idle.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.desk.is_empty() {
                return;
            }
            ended.await;
        }
    }
}
