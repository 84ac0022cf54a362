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

/// The exit code as a shell gives it: 128 and the signal's number for a process that was killed.
pub fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A program that could not be started.
pub(crate) fn not_started(program: &str, error: &std::io::Error) -> Failure {
    Failure::new(FailureReason::AgentInvocation, format!("could not start {program}: {error}"))
}
