//! When one of the worker's own phases began, and the event that says how it ended.

use protocol::event::{Event, Phase};
use tokio::time::Instant;

use crate::executions::Held;

/// Tells when a phase begins and ends.
pub(crate) struct PhaseTimer {
    phase: Phase,
    since: Instant,
}

impl PhaseTimer {
    pub(crate) fn start(held: &Held, phase: Phase) -> Self {
        held.say(&Event::PhaseStarted { phase });
        Self { phase, since: Instant::now() }
    }

    pub(crate) fn finish(self, held: &Held, ok: bool) {
        let duration_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        held.say(&Event::PhaseFinished { phase: self.phase, duration_ms, ok });
    }
}
