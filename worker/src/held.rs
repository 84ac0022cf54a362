//! One execution as the rest of the worker sees it: what it has to say, and what it is told.

use std::sync::{Arc, Mutex, OnceLock};

use protocol::{
    event::{Event, EventLine, Phase},
    ids::{ExecutionId, RunId},
};
use service::clock::Clock;
use tokio::{
    sync::{Notify, watch},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    output::{Notes, Outbox},
    phase::PhaseTimer,
    sync::lock,
};

/// Why an execution is to stop before its end, in order: a later one takes the place of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// The worker is going; the plane tries again elsewhere.
    Shutdown,
    /// Its user said so.
    Cancelled,
    /// The plane believes another one, or none: stop, remove, report nothing.
    Superseded,
}

/// When an execution was begun, by a clock that nobody sets.
fn begun(earlier_ms: Option<i64>, clock: &Clock) -> Instant {
    let ago = earlier_ms.map_or(0, |earlier| clock.now_ms().saturating_sub(earlier));
    let ago = Duration::from_millis(u64::try_from(ago).unwrap_or(0));
    let now = Instant::now();
    now.checked_sub(ago).unwrap_or(now)
}

pub(crate) struct Held {
    pub(crate) run_id: RunId,
    pub(crate) execution_id: ExecutionId,
    pub(crate) outbox: Outbox,
    /// The conversation whose kept files it uses, once that is known.
    conversation: OnceLock<RunId>,
    /// The plane has stored the report: what is left may be removed.
    pub(crate) report_acked: CancellationToken,
    stop: watch::Sender<Option<Stop>>,
    /// The plane said, in this life of the worker, that it goes on.
    confirmed: CancellationToken,
    begun: Instant,
    clock: Clock,
    /// Runs until the sidecar's first word. Of an earlier life's execution it may be the image's.
    container: Mutex<Option<PhaseTimer>>,
}

impl Held {
    /// `begun_earlier_ms` is when an earlier life of the worker began it: the plane's word is waited for then.
    pub(crate) fn new(
        run_id: RunId,
        execution_id: ExecutionId,
        clock: Clock,
        wake: Arc<Notify>,
        begun_earlier_ms: Option<i64>,
    ) -> Self {
        let confirmed = CancellationToken::new();
        if begun_earlier_ms.is_none() {
            confirmed.cancel();
        }
        Self {
            outbox: Outbox::new(run_id.clone(), execution_id.clone(), wake),
            run_id,
            execution_id,
            conversation: OnceLock::new(),
            report_acked: CancellationToken::new(),
            stop: watch::Sender::new(None),
            confirmed,
            begun: begun(begun_earlier_ms, &clock),
            clock,
            container: Mutex::default(),
        }
    }

    /// It uses what is kept of `conversation` from now on.
    pub(crate) fn uses(&self, conversation: Option<RunId>) {
        if let Some(conversation) = conversation {
            self.conversation.get_or_init(|| conversation);
        }
    }

    pub(crate) fn conversation(&self) -> Option<&RunId> {
        self.conversation.get()
    }

    pub(crate) fn say(&self, event: &Event) {
        self.outbox.say(self.clock.now_ms(), event);
    }

    /// How long it is held by now, earlier lives of the worker included.
    pub(crate) fn lasted(&self) -> Duration {
        self.begun.elapsed()
    }

    /// One of the worker's own phases begins.
    pub(crate) fn phase_begins(&self, phase: Phase) -> PhaseTimer {
        self.say(&Event::PhaseStarted { phase });
        PhaseTimer::start(phase)
    }

    pub(crate) fn phase_ended(&self, timer: PhaseTimer, ok: bool) {
        self.say(&timer.finished(ok));
    }

    /// The container's phase begins.
    pub(crate) fn container_begins(&self) {
        let timer = self.phase_begins(Phase::Container);
        *lock(&self.container) = Some(timer);
    }

    /// Goes on with what an earlier life of the worker said: its events, and the phase it was in.
    pub(crate) fn recall(&self, notes: Notes, lines: Vec<EventLine>) {
        let mut open = None;
        for line in &lines {
            match line.event() {
                Some(Event::PhaseStarted { phase }) => open = Some((phase, line.at_ms)),
                Some(Event::PhaseFinished { .. }) => open = None,
                _ => {}
            }
        }
        self.outbox.recall(notes, lines);
        *lock(&self.container) = open.map(|(phase, at_ms)| {
            // For people: what a clock that was set meanwhile makes of it is bounded, and decides nothing.
            let ago = self.clock.now_ms().saturating_sub(at_ms);
            let ago = Duration::from_millis(u64::try_from(ago).unwrap_or(0));
            PhaseTimer::begun(phase, ago.min(self.lasted()))
        });
    }

    /// It ends, unless it has ended already. Whoever hears the sidecar's hello says so, and not whoever watches
    /// it: every event of the sidecar's is to come after this one.
    pub(crate) fn container_ended(&self, ok: bool) {
        if let Some(timer) = lock(&self.container).take() {
            self.phase_ended(timer, ok);
        }
    }

    pub(crate) fn stop(&self, stop: Stop) {
        self.stop.send_if_modified(|present| {
            let newer = *present < Some(stop);
            *present = (*present).max(Some(stop));
            newer
        });
    }

    pub(crate) fn confirm(&self) {
        self.confirmed.cancel();
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.is_cancelled()
    }

    pub(crate) async fn confirmed(&self) {
        self.confirmed.cancelled().await;
    }

    pub(crate) fn stop_now(&self) -> Option<Stop> {
        *self.stop.borrow()
    }

    /// Waits until there is a reason to stop beyond `known`.
    pub(crate) async fn stopped(&self, known: Option<Stop>) -> Stop {
        let mut stop = self.stop.subscribe();
        match stop.wait_for(|stop| *stop > known).await.map(|stop| *stop) {
            Ok(Some(stop)) => stop,
            // The sender lives in `self`.
            _ => std::future::pending().await,
        }
    }
}
