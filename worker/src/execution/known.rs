//! What is known at an execution's end, and the report that follows from it: from what its sidecar said and how
//! its container ended. Silence is not success: without the sidecar's own word there is none.

use protocol::{event::Exit, failure::FailureReason};

use crate::{backend::Ended, held::Stop, report::Report};

/// What is known at the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The sidecar's last word.
    pub(super) exit: Option<Exit>,
    /// How the container ended; `None` while it still runs.
    pub(super) ended: Option<Ended>,
    /// The plane or the worker wanted it to stop.
    pub(super) stop: Option<Stop>,
    /// The worker ended it, for this.
    pub(super) killed: Option<(FailureReason, String)>,
    /// An earlier life of the worker began it.
    pub(super) adopted: bool,
    /// Limit of memory, in bytes.
    pub(super) memory_bytes: Option<u64>,
}

impl Known {
    pub(super) fn report(self) -> Report {
        let ended = self.ended.unwrap_or_default();
        let Some(exit) = self.exit else { return self.without_exit(ended) };
        let oom_killed = exit.oom_killed || ended.oom_killed;
        let peak_memory_bytes = exit.peak_memory_bytes.or(self.memory_bytes.filter(|_| oom_killed));
        if exit.success {
            let (message, exit_code) = (exit.message, exit.exit_code);
            return Report::Succeeded { message, exit_code, peak_memory_bytes };
        }
        if self.stop == Some(Stop::Cancelled) {
            return Report::Cancelled { exit_code: exit.exit_code };
        }
        let reason = match exit.reason.unwrap_or(FailureReason::Unknown) {
            // Nobody asked for it, as far as is known here; of a run that is being cancelled the plane knows.
            FailureReason::TaskCancelled => FailureReason::AgentExit,
            reason => reason,
        };
        // A process that died while the kernel was killing for memory died of that.
        let reason = if oom_killed && died(reason) { FailureReason::ContainerOom } else { reason };
        Report::Failed {
            reason,
            message: exit.message,
            exit_code: exit.exit_code,
            // Memory that was short without being the cause is not the plane's to name.
            oom_killed: reason == FailureReason::ContainerOom,
            peak_memory_bytes,
        }
    }

    fn without_exit(self, ended: Ended) -> Report {
        let code = match ended.exit_code {
            Some(code) => format!("with code {code}"),
            None => "without a code".to_owned(),
        };
        let (reason, message) = if self.stop == Some(Stop::Cancelled) {
            return Report::Cancelled { exit_code: ended.exit_code };
        } else if self.stop == Some(Stop::Shutdown) {
            let message = "the worker was stopped, and the run with it";
            (FailureReason::GracefulShutdown, message.to_owned())
        } else if let Some(killed) = self.killed {
            killed
        } else if ended.oom_killed {
            let message = format!("the container reached its memory limit and ended {code}");
            (FailureReason::ContainerOom, message)
        } else if self.adopted && !ended.began {
            let message = "the worker was restarted before the container ran";
            (FailureReason::WorkerLost, message.to_owned())
        } else {
            let message = format!("the container ended {code}, without a word of its sidecar");
            (FailureReason::ContainerExit, message)
        };
        Report::Failed {
            reason,
            message,
            exit_code: ended.exit_code,
            oom_killed: ended.oom_killed,
            peak_memory_bytes: self.memory_bytes.filter(|_| ended.oom_killed),
        }
    }
}

/// Whether `reason` says that a process ended badly.
pub(super) fn died(reason: FailureReason) -> bool {
    use FailureReason as R;
    matches!(
        reason,
        R::AgentExit
            | R::AgentInvocation
            | R::SetupCommand
            | R::Clone
            | R::SidecarLost
            | R::Unknown
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(success: bool, reason: Option<FailureReason>) -> Exit {
        Exit {
            success,
            exit_code: Some(i32::from(!success)),
            reason,
            message: "said".to_owned(),
            peak_memory_bytes: None,
            oom_killed: false,
            retry_after_ms: None,
        }
    }

    fn reason(known: Known) -> String {
        match known.report() {
            Report::Succeeded { .. } => "succeeded".to_owned(),
            Report::Cancelled { .. } => "cancelled".to_owned(),
            Report::Failed { reason, .. } => reason.to_string(),
        }
    }

    #[test]
    fn the_sidecars_word_counts_and_memory_is_named() {
        use FailureReason as R;
        let oom = Some(Ended { exit_code: Some(137), oom_killed: true, began: true });
        let plain = Some(Ended { exit_code: Some(0), oom_killed: false, began: true });
        let known = |exit, ended| Known { exit, ended, ..Known::default() };
        assert_eq!(reason(known(Some(exit(true, None)), plain)), "succeeded");
        assert_eq!(reason(known(Some(exit(true, None)), oom)), "succeeded");
        assert_eq!(reason(known(Some(exit(false, Some(R::AgentExit))), plain)), "agent_exit");
        assert_eq!(reason(known(Some(exit(false, Some(R::AgentExit))), oom)), "container_oom");
        assert_eq!(reason(known(Some(exit(false, Some(R::RateLimit))), oom)), "rate_limit");
        assert_eq!(reason(known(None, plain)), "container_exit");
        assert_eq!(reason(known(None, oom)), "container_oom");
    }

    #[test]
    fn a_stop_is_named_unless_the_run_had_succeeded() {
        let known = |exit, stop| Known { exit, stop: Some(stop), ..Known::default() };
        assert_eq!(reason(known(None, Stop::Cancelled)), "cancelled");
        let failed = exit(false, Some(FailureReason::TaskCancelled));
        assert_eq!(reason(known(Some(failed), Stop::Cancelled)), "cancelled");
        let failed = exit(false, Some(FailureReason::TaskCancelled));
        let uninvited = Known { exit: Some(failed), ..Known::default() };
        assert_eq!(reason(uninvited), "agent_exit");
        assert_eq!(reason(known(Some(exit(true, None)), Stop::Cancelled)), "succeeded");
        assert_eq!(reason(known(None, Stop::Shutdown)), "graceful_shutdown");
        let adopted = Known { adopted: true, ..Known::default() };
        assert_eq!(reason(adopted), "worker_lost");
    }
}
