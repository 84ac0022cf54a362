//! How a command fails: an exit code, a sentence, and what to do next.

use std::fmt;

/// The exit codes of `ozma`, all of them. A run's outcome maps to one in [`crate::outcome`].
pub(crate) mod code {
    pub(crate) const SUCCESS: u8 = 0;
    /// The run failed on the user's side, or a check of `doctor` failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line makes no sense; nothing was done.
    pub(crate) const USAGE: u8 = 2;
    /// Ozma, its plane or the machine failed.
    pub(crate) const PLATFORM: u8 = 3;
    /// The run was cancelled, or the user left with Ctrl-C.
    pub(crate) const CANCELLED: u8 = 130;
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) struct Failure {
    pub exit_code: u8,
    /// A sentence without a full stop; empty when nothing is to be said (a closed pipe, an ended run).
    pub message: String,
    /// The plane's stable code, for programs.
    pub api_code: Option<String>,
    /// The status the plane answered with; `None` when it did not answer.
    pub status: Option<u16>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit_code: u8, message: impl Into<String>) -> Self {
        Self { exit_code, message: message.into(), api_code: None, status: None, hint: None }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(code::USAGE, message)
    }

    /// Ozma or the machine failed.
    pub(crate) fn platform(message: impl Into<String>) -> Self {
        Self::new(code::PLATFORM, message)
    }

    /// Ends with `exit_code` and says nothing more.
    pub(crate) fn quiet(exit_code: u8) -> Self {
        Self::new(exit_code, "")
    }

    /// The plane is away or busy: the same request may succeed later.
    pub(crate) fn passing(&self) -> bool {
        self.status.is_none_or(|status| status == 429 || status >= 500)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            return Ok(());
        }
        write!(f, "error: {}", self.message)?;
        if let Some(code) = &self.api_code {
            write!(f, " ({code})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        writeln!(f)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<std::io::Error>() {
            Ok(io) => io.into(),
            Err(error) => Self::platform(format!("{error:#}")),
        }
    }
}

impl From<std::io::Error> for Failure {
    /// A closed pipe is the reader's choice and no failure.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::quiet(code::SUCCESS)
        } else {
            Self::platform(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_and_what_next() {
        let failure = Failure::platform("no plane answers").hint("start one with `ozma up`");
        assert_eq!(
            failure.to_string(),
            "error: no plane answers\nhint: start one with `ozma up`\n"
        );
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit_code, failure.to_string().as_str()), (0, ""));
    }
}
