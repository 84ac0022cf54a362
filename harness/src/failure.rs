//! What went wrong with a provider, put into one of the closed list of reasons.

mod cli;
mod endpoint;

use std::time::Duration;

use protocol::{event::Exit, failure::FailureReason};

pub(crate) use self::{
    cli::{Ended, claude, codex, gemini, opencode},
    endpoint::ApiError,
};

/// Why a provider did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub reason: FailureReason,
    /// For people, in a sentence, without secrets.
    pub message: String,
    /// How long the vendor asks to be left alone, where it says.
    pub retry_after: Option<Duration>,
}

/// Longest message of a failure, in bytes; what is over it is cut off. Much of it may come from elsewhere.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

impl Failure {
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        Self { reason, message, retry_after: None }
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(FailureReason::TaskCancelled, "the provider was interrupted")
    }

    /// The exit event that says so.
    pub fn exit(self) -> Exit {
        Exit {
            reason: Some(self.reason),
            message: self.message,
            retry_after_ms: self.retry_after.and_then(|d| u64::try_from(d.as_millis()).ok()),
            ..Exit::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let failure = Failure::new(FailureReason::Unknown, "é".repeat(100_000));
        assert_eq!(failure.message.len(), MAX_MESSAGE_BYTES);
    }
}
