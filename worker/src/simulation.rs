//! The worker's half of the link without sockets, clocks and containers, for tests that drive it with a network
//! and a time of their own. What is decided here is decided by the same code as in a worker that runs; nothing
//! but a test may use it.

use std::sync::Arc;

use protocol::{
    event::{Event, EventLine, Exit},
    failure::FailureReason,
    ids::{ExecutionId, RunId, WorkerId},
    link::{DiskUse, FromWorker, ToWorker},
    spec::RunSpec,
};
use secrecy::SecretString;
use service::clock::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use crate::{held::Stop, output::Pushed};
use crate::{
    executions::{Answer, Desk},
    held::Held,
    link::{Identity, Talk},
    report::Report,
};

/// One life of a worker's process: dropped, it has crashed.
pub struct Life {
    desk: Desk,
    identity: Identity,
    going: CancellationToken,
}

/// One connection of that life.
pub struct Line(Talk);

/// One execution, as whoever looks after it sees it.
#[derive(Clone)]
pub struct Care(Arc<Held>);

/// What whoever looks after an execution found at its end.
#[derive(Debug, Clone)]
pub enum Found {
    /// The sidecar's last word.
    Exit(Exit),
    /// It never began, or ended without a word.
    Failure(FailureReason, String),
    /// It was stopped before it said anything.
    Stopped,
}

impl Life {
    pub fn begin(worker_id: WorkerId, instance_id: String, capacity: u32, clock: Clock) -> Self {
        let going = CancellationToken::new();
        let identity = Identity {
            plane_url: String::new(),
            token: SecretString::default(),
            instance_id,
            tags: Vec::new(),
            backend: "simulated",
            capacity,
        };
        Self { desk: Desk::new(worker_id, capacity, clock, going.clone()), identity, going }
    }

    /// Takes note of what an earlier life began, before the first dial.
    pub fn hold_earlier(&self, run: RunId, execution: ExecutionId, begun_ms: i64) -> Care {
        Care(self.desk.hold_earlier(run, execution, begun_ms))
    }

    /// A new connection and its first frame.
    pub fn dial(&self, now: Instant) -> (Line, FromWorker) {
        let (talk, hello) = Talk::begin(&self.identity, &self.desk, now);
        (Line(talk), hello)
    }

    /// Acts on a frame; hands back what is to be run.
    ///
    /// # Errors
    /// Why the connection is to be given up.
    pub fn hear(
        &self,
        line: &mut Line,
        frame: ToWorker,
        now: Instant,
    ) -> Result<Option<(Care, RunSpec)>, String> {
        match line.0.hear(frame, &self.desk, now).map_err(|error| error.to_string())? {
            Answer::Begin(held, spec) => Ok(Some((Care(held), *spec))),
            Answer::Nothing | Answer::Rejected => Ok(None),
        }
    }

    /// The next frame to send by now.
    pub fn next(&self, line: &mut Line, now: Instant) -> Option<FromWorker> {
        line.0.next(&self.desk, now)
    }

    /// Whether anything is left to be said or done.
    pub fn is_empty(&self) -> bool {
        self.desk.is_empty()
    }

    /// As a first SIGTERM does: nothing new, and gone when all is done.
    pub fn drain(&self) {
        self.going.cancel();
    }

    pub fn measured(&self, disk: DiskUse) {
        self.desk.measured(disk);
    }

    /// Nothing is left of it on this machine.
    pub fn forget(&self, care: &Care) {
        self.desk.forget(&care.0.execution_id);
    }
}

impl Line {
    /// A pong.
    pub fn sign(&mut self, now: Instant) {
        self.0.sign(now);
    }

    /// When [`Life::next`] or [`overdue`](Self::overdue) may have something without a frame coming in.
    pub fn wakes_at(&self) -> Instant {
        self.0.next_beat().min(self.0.silent_at())
    }

    /// Why it is to be given up, if it is.
    pub fn overdue(&self, now: Instant) -> Option<String> {
        self.0.overdue(now).map(|error| error.to_string())
    }
}

impl Care {
    pub fn run_id(&self) -> &RunId {
        &self.0.run_id
    }

    pub fn execution_id(&self) -> &ExecutionId {
        &self.0.execution_id
    }

    /// Says one of the worker's own events.
    pub fn say(&self, event: &Event) {
        self.0.say(event);
    }

    /// Hands in an event of the sidecar; `None` while there is no room for it.
    pub fn offer(&self, line: EventLine) -> Option<Pushed> {
        self.0.outbox.offer(line).ok()
    }

    /// The newest sidecar event held here or at the plane.
    pub fn received(&self) -> u64 {
        self.0.outbox.sidecar_received()
    }

    /// What the sidecar is told that it may forget.
    pub fn acked(&self) -> u64 {
        *self.0.outbox.sidecar_acked().borrow()
    }

    pub fn stop(&self) -> Option<Stop> {
        self.0.stop_now()
    }

    /// The plane said, in this life, that it goes on.
    pub fn is_confirmed(&self) -> bool {
        self.0.is_confirmed()
    }

    pub fn is_report_acked(&self) -> bool {
        self.0.report_acked.is_cancelled()
    }

    /// Reports the end, as an execution that runs does.
    pub fn report(&self, found: Found) {
        let report = match found {
            Found::Exit(exit) if exit.success => Report::Succeeded {
                message: exit.message,
                exit_code: exit.exit_code,
                peak_memory_bytes: exit.peak_memory_bytes,
            },
            _ if self.stop() == Some(Stop::Cancelled) => Report::Cancelled { exit_code: None },
            Found::Exit(exit) => {
                Report::failed(exit.reason.unwrap_or(FailureReason::Unknown), exit.message)
            }
            Found::Failure(reason, message) => Report::failed(reason, message),
            Found::Stopped => Report::failed(FailureReason::GracefulShutdown, "stopped"),
        };
        self.0.outbox.report(report.into_frame(&self.0));
    }
}
