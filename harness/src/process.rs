//! Processes in groups of their own, so that an interrupt reaches their children too.

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use protocol::failure::FailureReason;

use crate::failure::Failure;

/// Sends `signal` to the group that the process `pid` leads. A group that is gone is no error.
pub fn signal_group(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        let _ = killpg(Pid::from_raw(pid), signal);
    }
}

/// The group that a child leads: killed with whoever waits for it, so that nothing goes on unattended where a run is
/// dropped in the middle.
pub(crate) struct Group(u32);

impl Group {
    pub(crate) fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().unwrap_or_default())
    }

    /// The child has ended; what it left behind is not ours to end.
    pub(crate) fn ended(mut self) {
        self.0 = 0;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        signal_group(self.0, Signal::SIGKILL);
    }
}

/// The exit code as a shell gives it: 128 and the signal's number for a process that was killed.
pub fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A program that could not be started.
pub(crate) fn not_started(program: &str, error: &std::io::Error) -> Failure {
    Failure::new(FailureReason::AgentInvocation, format!("could not start {program}: {error}"))
}
