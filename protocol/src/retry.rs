//! Whether a failed execution is followed by another: a policy over classes of failure. Pure.

use serde::{Deserialize, Serialize};

use crate::failure::FailureReason;

/// The most executions one run may ask for.
pub const MAX_ATTEMPTS: u32 = 10;

/// What a policy tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FailureClass {
    /// Nobody speaks for the execution any more: its worker or sidecar fell silent or went away.
    WorkerLost,
    /// The image could not be had.
    ImagePull,
    /// The worker took the run and handed it back.
    Rejected,
    /// Something of ours, or of the machine: engine, volume, folder, unknown.
    Platform,
    /// Cloning or a set-up command.
    Setup,
    /// The provider's own end: its exit code, its bounds, a container that ended under it.
    Agent,
    /// The model vendor refused or could not be reached.
    Provider,
    /// Memory.
    Oom,
    /// The time of the run or of one of its phases.
    Timeout,
}

impl FailureClass {
    pub const ALL: [Self; 9] = [
        Self::WorkerLost,
        Self::ImagePull,
        Self::Rejected,
        Self::Platform,
        Self::Setup,
        Self::Agent,
        Self::Provider,
        Self::Oom,
        Self::Timeout,
    ];

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WorkerLost => "worker_lost",
            Self::ImagePull => "image_pull",
            Self::Rejected => "rejected",
            Self::Platform => "platform",
            Self::Setup => "setup",
            Self::Agent => "agent",
            Self::Provider => "provider",
            Self::Oom => "oom",
            Self::Timeout => "timeout",
        }
    }
}

impl FailureReason {
    /// The class a policy counts it to; `None` for a cancel, which nothing tries again.
    pub fn class(self) -> Option<FailureClass> {
        Some(match self {
            Self::WorkerLost | Self::SidecarLost | Self::GracefulShutdown | Self::ContainerWait => {
                FailureClass::WorkerLost
            }
            Self::ImagePull => FailureClass::ImagePull,
            Self::Rejected => FailureClass::Rejected,
            Self::SidecarPrep
            | Self::ContainerCreate
            | Self::ContainerStart
            | Self::WorkspaceSetup
            | Self::Unknown => FailureClass::Platform,
            Self::Clone | Self::SetupCommand | Self::SessionGone => FailureClass::Setup,
            Self::ContainerExit | Self::AgentInvocation | Self::AgentExit | Self::AgentLimit => {
                FailureClass::Agent
            }
            Self::AuthMissing
            | Self::AuthExpired
            | Self::RateLimit
            | Self::QuotaExhausted
            | Self::ContentRefused
            | Self::CliVersionMismatch
            | Self::NetworkError => FailureClass::Provider,
            Self::ContainerOom => FailureClass::Oom,
            Self::TaskTimeout => FailureClass::Timeout,
            Self::TaskCancelled => return None,
        })
    }
}

/// When a run is tried again. What is absent is the plane's choice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryPolicy {
    /// Executions of the run, the first included: 1 (never again) to 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10))]
    pub max_attempts: Option<u32>,
    /// The classes that are tried again, these and no others; without it `worker_lost`, `image_pull`, `rejected`
    /// and `platform`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<FailureClass>>,
}

impl RetryPolicy {
    /// What is tried again where nobody says otherwise: what is not the user's doing.
    pub const DEFAULT_ON: [FailureClass; 4] = [
        FailureClass::WorkerLost,
        FailureClass::ImagePull,
        FailureClass::Rejected,
        FailureClass::Platform,
    ];

    /// Whether a failure for `reason` may be followed by another execution, should one be left.
    pub fn covers(&self, reason: FailureReason) -> bool {
        reason.class().is_some_and(|class| self.includes(class))
    }

    /// Whether failures of this class may be.
    pub fn includes(&self, class: FailureClass) -> bool {
        match &self.on {
            Some(on) => on.contains(&class),
            None => Self::DEFAULT_ON.contains(&class),
        }
    }

    /// This policy with what it leaves open taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { max_attempts: self.max_attempts.or(other.max_attempts), on: self.on.or(other.on) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Fault;

    /// The user's failures repeat themselves, ours may not: the two lists say the same.
    #[test]
    fn by_default_what_is_ours_is_tried_again_and_nothing_else() {
        for reason in FailureReason::ALL {
            let ours = reason.fault() == Fault::Platform;
            assert_eq!(RetryPolicy::default().covers(*reason), ours, "{reason}");
        }
    }

    #[test]
    fn a_class_is_called_as_in_json() {
        for class in FailureClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }

    #[test]
    fn a_list_takes_the_place_of_the_default_one() {
        let policy: RetryPolicy =
            serde_json::from_str(r#"{"max_attempts":5,"on":["oom","agent"]}"#).unwrap();
        assert!(policy.covers(FailureReason::ContainerOom));
        assert!(!policy.covers(FailureReason::WorkerLost));
        assert!(!policy.covers(FailureReason::TaskCancelled));
        assert_eq!(policy.clone().or(RetryPolicy::default()), policy);
        assert!(serde_json::from_str::<RetryPolicy>(r#"{"on":["everything"]}"#).is_err());
    }
}
