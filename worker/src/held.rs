//! One execution as the rest of the worker sees it: what it has to say, and what it is told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use protocol::{
    event::{Event, Phase},
    ids::{ExecutionId, RunId},
};
use service::clock::Clock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{output::Outbox, phase::PhaseTimer, sync::lock};

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

pub(crate) struct Held {
    pub(crate) run_id: RunId,
    pub(crate) execution_id: ExecutionId,
    pub(crate) outbox: Outbox,
    /// The plane has stored the report: what is left may be removed.
    pub(crate) report_acked: CancellationToken,
    stop: watch::Sender<Option<Stop>>,
    /// The plane said, in this life of the worker, that it goes on.
    confirmed: CancellationToken,
    begun_ms: i64,
    clock: Clock,
    /// Runs until the sidecar's first word.
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
            report_acked: CancellationToken::new(),
            stop: watch::Sender::new(None),
            confirmed,
            begun_ms: begun_earlier_ms.unwrap_or_else(|| clock.now_ms()),
            clock,
            container: Mutex::default(),
        }
    }

    pub(crate) fn say(&self, event: &Event) {
        self.outbox.say(self.clock.now_ms(), event);
    }

    /// How long it is held by now, earlier lives of the worker included.
    pub(crate) fn lasted(&self) -> Duration {
        let passed = self.clock.now_ms().saturating_sub(self.begun_ms);
        Duration::from_millis(u64::try_from(passed).unwrap_or(0))
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
