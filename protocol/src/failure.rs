//! Why an execution failed: a closed list. A failure names its cause; never only "failed".

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose failure it is, which decides between `FAILED` and `ERROR` (oz-api.md 1.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The run's own doing: its set-up, its agent, its limits. The run ends `FAILED`.
    User,
    /// Ours, or the machine's. The run ends `ERROR`, once no attempt is left.
    Platform,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $fault:ident;)*) => {
        /// The cause of a failed execution. The texts are the stock worker's where it has one
        /// (oz-api.md 3.4), our own where it has none.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case", from = "String", into = "String")]
        pub enum FailureReason {
            $($(#[$doc])* $name,)*
        }

        impl FailureReason {
            /// Every reason, for tables and metrics.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }
        }

        impl From<String> for FailureReason {
            /// A reason this build does not know is `unknown`, so that a newer peer is still understood.
            fn from(text: String) -> Self {
                match text.as_str() { $($text => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

reasons! {
    /// The task image could not be had.
    ImagePull = "image_pull", Platform;
    /// The sidecar's volume or binary could not be prepared.
    SidecarPrep = "sidecar_prep", Platform;
    ContainerCreate = "container_create", Platform;
    ContainerStart = "container_start", Platform;
    ContainerWait = "container_wait", Platform;
    /// The container ended without the sidecar's exit event.
    ContainerExit = "container_exit", User;
    /// The kernel killed a process of the container for its memory limit.
    ContainerOom = "container_oom", User;
    /// The workspace folder could not be made.
    WorkspaceSetup = "workspace_setup", Platform;
    /// A repository could not be cloned.
    Clone = "clone", User;
    /// A set-up command ended with another code than 0.
    SetupCommand = "setup_command", User;
    /// The provider could not be started.
    AgentInvocation = "agent_invocation", User;
    /// The provider ended with another code than 0, or without its success event.
    AgentExit = "agent_exit", User;
    /// The agent reached its bound on turns or tokens.
    AgentLimit = "agent_limit", User;
    /// No endpoint or credential for the provider.
    AuthMissing = "auth_missing", User;
    AuthExpired = "auth_expired", User;
    RateLimit = "rate_limit", User;
    QuotaExhausted = "quota_exhausted", User;
    ContentRefused = "content_refused", User;
    CliVersionMismatch = "cli_version_mismatch", User;
    /// The model's endpoint could not be reached or broke off.
    NetworkError = "network_error", User;
    /// The run's time, or that of one of its phases, was over.
    TaskTimeout = "task_timeout", User;
    TaskCancelled = "task_cancelled", User;
    /// The worker was told to stop and could not finish the run.
    GracefulShutdown = "graceful_shutdown", Platform;
    /// What an earlier run of the conversation left is no longer on its worker.
    SessionGone = "session_gone", User;
    /// The worker fell silent for longer than its lease.
    WorkerLost = "worker_lost", Platform;
    /// The sidecar fell silent or broke its protocol.
    SidecarLost = "sidecar_lost", Platform;
    /// The worker had no room, or did not answer an assignment.
    Rejected = "rejected", Platform;
    Unknown = "unknown", Platform;
}

impl FailureReason {
    /// Whether another attempt may end differently: a failure of ours or of the machine's, and what passes at a
    /// model's vendor. A user's failure would mostly repeat itself; which failures are tried again is the run's
    /// [`RetryPolicy`](crate::retry::RetryPolicy)'s to say.
    pub fn retryable(self) -> bool {
        self.fault() == Fault::Platform || matches!(self, Self::RateLimit | Self::NetworkError)
    }

    /// `status_message.error_code` of the run: the Oz code where there is one (oz-api.md 1.1), our reason else.
    pub fn error_code(self) -> &'static str {
        match self {
            Self::Clone | Self::SetupCommand => "environment_setup_failed",
            Self::ContentRefused => "content_policy_violation",
            other => other.as_str(),
        }
    }
}

impl From<FailureReason> for String {
    fn from(reason: FailureReason) -> Self {
        reason.as_str().to_owned()
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back() {
        for reason in FailureReason::ALL {
            assert_eq!(FailureReason::from(reason.as_str().to_owned()), *reason);
        }
        assert_eq!(FailureReason::from("from a newer worker".to_owned()), FailureReason::Unknown);
    }
}
