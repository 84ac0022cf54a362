//! Whether this worker takes anything new, as far as its machine is concerned. Whoever notices trouble closes
//! the gate; nothing here says what is to become of what already runs.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;

/// Open from the start.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    engine_away: AtomicBool,
    /// Somebody found the engine silent: to be looked at now.
    doubt: Notify,
    /// It answers after it did not.
    back: Notify,
}

impl Gate {
    /// Why nothing new is taken; `None` while it is.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        if self.engine_away.load(Relaxed) {
            Some("the container engine does not answer")
        } else {
            None
        }
    }

    /// A request to the engine got no answer. Closed at once: runs handed over meanwhile would all fail.
    pub(crate) fn doubt_engine(&self) {
        self.engine_away.store(true, Relaxed);
        self.doubt.notify_one();
    }

    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    pub(crate) fn engine_is_there(&self, there: bool) {
        if self.engine_away.swap(!there, Relaxed) && there {
            self.back.notify_one();
        }
    }

    /// Returns when the engine answers again, maybe since the last call.
    pub(crate) async fn engine_back(&self) {
        self.back.notified().await;
    }

    pub(crate) fn is_engine_there(&self) -> bool {
        !self.engine_away.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_open_when_nothing_is_wrong_and_names_what_is() {
        let gate = Gate::default();
        assert_eq!(gate.refusal(), None);
        gate.doubt_engine();
        assert_eq!(gate.refusal(), Some("the container engine does not answer"));
        gate.engine_is_there(true);
        assert_eq!(gate.refusal(), None);
    }
}
