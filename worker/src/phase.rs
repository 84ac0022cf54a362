//! When one of the worker's own phases began, and the event that says how it ended.

use protocol::event::{Event, Phase};
use tokio::time::{Duration, Instant};

/// A phase that is going on.
pub(crate) struct PhaseTimer {
    phase: Phase,
    since: Instant,
}

impl PhaseTimer {
    pub(crate) fn start(phase: Phase) -> Self {
        Self { phase, since: Instant::now() }
    }

    /// One that began earlier, in another life of the worker.
    pub(crate) fn begun(phase: Phase, ago: Duration) -> Self {
        let now = Instant::now();
        Self { phase, since: now.checked_sub(ago).unwrap_or(now) }
    }

    pub(crate) fn finished(self, ok: bool) -> Event {
        let duration_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        Event::PhaseFinished { phase: self.phase, duration_ms, ok }
    }
}
