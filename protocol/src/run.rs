//! The only rules of a run: which state follows from which fact. Pure: no clock, no ids, no IO.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::failure::{FailureReason, Fault};

/// The nine states of the Oz API (oz-api.md 1.11), no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RunState {
    /// Waits for a slot.
    Queued,
    /// Is being handed to a worker that has not answered yet.
    Pending,
    /// A worker took it.
    Claimed,
    /// The sidecar says that it runs.
    Inprogress,
    Succeeded,
    /// The user's side failed.
    Failed,
    /// Our side failed, on the last attempt.
    Error,
    /// Waits for the user; terminal until a follow-up.
    Blocked,
    Cancelled,
}

impl RunState {
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Pending,
        Self::Claimed,
        Self::Inprogress,
        Self::Succeeded,
        Self::Failed,
        Self::Error,
        Self::Blocked,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Pending => "PENDING",
            Self::Claimed => "CLAIMED",
            Self::Inprogress => "INPROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Error => "ERROR",
            Self::Blocked => "BLOCKED",
            Self::Cancelled => "CANCELLED",
        }
    }

    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Pending | Self::Claimed | Self::Inprogress => false,
            Self::Succeeded | Self::Failed | Self::Error | Self::Blocked | Self::Cancelled => true,
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is none of the nine states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no run state")]
pub struct UnknownState(pub String);

impl FromStr for RunState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// Where a run stands: its state, and whether its user has asked for it to stop.
///
/// A cancel that reached a worker leaves the state as it is until the worker has stopped the container or
/// its lease has run out: `CANCELLED` means stopped, not "asked to stop".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub state: RunState,
    pub cancelling: bool,
}

/// What somebody saw happen. Workers, sidecars, users and the reaper report facts, never states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Dispatch handed the run to a worker.
    Assigned,
    /// The worker took it.
    Claimed,
    /// The sidecar runs.
    Started,
    /// The provider ended with its own word of success.
    Succeeded,
    /// The execution failed. `again`: an attempt is left and the run's retry policy covers the reason.
    Failed { reason: FailureReason, again: bool },
    /// The worker did not take it; the run loses nothing, not even an attempt.
    Declined,
    /// The user asked for it to stop.
    CancelRequested,
    /// The worker stopped it because the plane had said so.
    Stopped,
    /// It waited in the queue for longer than it may.
    WaitedTooLong,
}

/// A fact that cannot be true of a run in this state: late, doubled or out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fact:?} does not apply to a run that is {state}")]
pub struct IllegalTransition {
    pub state: RunState,
    pub fact: Fact,
}

impl Standing {
    pub const QUEUED: Self = Self { state: RunState::Queued, cancelling: false };

    /// The standing after `fact`.
    ///
    /// # Errors
    /// The fact does not apply in this state; nothing changes then.
    pub fn apply(self, fact: Fact) -> Result<Self, IllegalTransition> {
        use Fact as F;
        use RunState as S;
        let state = match (self.state, fact) {
            (S::Queued, F::Assigned) => S::Pending,
            (S::Queued, F::CancelRequested) => S::Cancelled,
            (S::Queued, F::WaitedTooLong) => S::Failed,

            (S::Pending, F::Claimed) => S::Claimed,
            (S::Pending, F::Declined) => S::Queued,
            // Pending takes no cancel: the hand-over may be on the wire (oz-api.md 1.6: 409, try again).

            // A started sidecar proves the claim, should the claim itself have been lost.
            (S::Pending | S::Claimed, F::Started) => S::Inprogress,

            // The first request is the one that counts; a second changes nothing.
            (S::Claimed | S::Inprogress, F::CancelRequested) => {
                return Ok(Self { cancelling: true, ..self });
            }
            (S::Pending | S::Claimed | S::Inprogress, F::Stopped) if self.cancelling => {
                S::Cancelled
            }
            (S::Pending | S::Claimed | S::Inprogress, F::Succeeded | F::Failed { .. })
                if self.cancelling =>
            {
                S::Cancelled
            }

            (S::Pending | S::Claimed | S::Inprogress, F::Succeeded) => S::Succeeded,
            (S::Pending | S::Claimed | S::Inprogress, F::Failed { reason, again }) => {
                match reason.fault() {
                    _ if again => S::Queued,
                    Fault::User => S::Failed,
                    Fault::Platform => S::Error,
                }
            }
            (state, fact) => return Err(IllegalTransition { state, fact }),
        };
        // The wish to stop goes on while the execution does: forgotten, the run would be tried again.
        let goes_on = matches!(state, S::Claimed | S::Inprogress);
        Ok(Self { state, cancelling: self.cancelling && goes_on })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use expect_test::expect_file;

    use super::*;

    const FACTS: [Fact; 12] = [
        Fact::Assigned,
        Fact::Claimed,
        Fact::Started,
        Fact::Succeeded,
        Fact::Failed { reason: FailureReason::AgentExit, again: true },
        Fact::Failed { reason: FailureReason::AgentExit, again: false },
        Fact::Failed { reason: FailureReason::WorkerLost, again: true },
        Fact::Failed { reason: FailureReason::WorkerLost, again: false },
        Fact::Declined,
        Fact::CancelRequested,
        Fact::Stopped,
        Fact::WaitedTooLong,
    ];

    /// Every state, cancelling or not, against every fact. A changed rule shows as a changed line.
    #[test]
    fn the_whole_table() {
        let mut table = String::new();
        for state in RunState::ALL {
            for cancelling in [false, true] {
                for fact in FACTS {
                    let standing = Standing { state, cancelling };
                    let after = match standing.apply(fact) {
                        Ok(next) if next.cancelling => format!("{} (cancelling)", next.state),
                        Ok(next) => next.state.to_string(),
                        Err(_) => "refused".to_owned(),
                    };
                    let mark = if cancelling { " (cancelling)" } else { "" };
                    writeln!(table, "{state}{mark} + {fact:?} -> {after}").unwrap();
                }
            }
        }
        expect_file!["../tests/run_table.txt"].assert_eq(&table);
    }

    #[test]
    fn nothing_leaves_a_terminal_state() {
        for state in RunState::ALL.into_iter().filter(|state| state.is_terminal()) {
            for fact in FACTS {
                assert!(Standing { state, cancelling: false }.apply(fact).is_err());
            }
        }
    }
}
