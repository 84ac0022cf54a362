//! The exit event: from what the provider said, what was ordered, and what the kernel did.

use std::io;

use harness::failure::Failure;
use protocol::{event::Exit, failure::FailureReason};

use crate::{memory::Memory, stop::Order};

/// Longest message of the exit event, in bytes; the rest is cut off. It is the one event that must arrive.
const MAX_MESSAGE_BYTES: usize = 8 << 10;

/// The exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;

pub(crate) fn stopped(order: &Order) -> Failure {
    Failure::new(order.reason(), order.message.clone())
}

pub(crate) fn not_started(reason: FailureReason, what: &str, error: &io::Error) -> Failure {
    Failure::new(reason, format!("could not run {what}: {error}"))
}

/// The harness ended without its last word. With a kill for want of memory it becomes `container_oom`.
pub(crate) fn silent(status: std::process::ExitStatus) -> Exit {
    let code = harness::process::exit_code(status);
    // A signal comes from the provider, which is the same user: trying again would only repeat it.
    let reason = match status.code() {
        None => FailureReason::AgentExit,
        Some(_) => FailureReason::SidecarLost,
    };
    let message = format!("the harness ended without saying how ({status})");
    let mut exit = Failure::new(reason, message).exit();
    exit.exit_code = Some(code);
    exit
}

/// What is said of the execution as a whole. `before` and `after` are the memory counters around it.
pub(crate) fn decide(
    ended: Result<Exit, Failure>,
    order: Option<Order>,
    before: Memory,
    after: Memory,
) -> Exit {
    let mut exit = ended.unwrap_or_else(Failure::exit);
    exit.message.truncate(exit.message.floor_char_boundary(MAX_MESSAGE_BYTES));
    exit.peak_memory_bytes = after.peak_bytes;
    exit.oom_killed = after.oom_kills > before.oom_kills;
    if let Some(order) = order {
        // Whatever an interrupted provider says of itself, it was interrupted.
        exit.success = false;
        exit.reason = Some(order.reason());
        exit.message = order.message;
        return exit;
    }
    if exit.reason == Some(FailureReason::TaskCancelled) {
        // A signal that reached the harness from elsewhere: whoever may send one is the agent's own user.
        exit.reason = Some(FailureReason::AgentExit);
        let message = "the provider was interrupted, and not by its worker";
        message.clone_into(&mut exit.message);
    }
    let killed = exit.exit_code == Some(KILLED) || exit.reason == Some(FailureReason::SetupCommand);
    if exit.oom_killed && !exit.success && killed {
        exit.reason = Some(FailureReason::ContainerOom);
        exit.exit_code = Some(KILLED);
        exit.message = out_of_memory(after);
    } else if exit.oom_killed && !exit.success {
        exit.message.push_str("; one of its processes was killed for want of memory");
    }
    exit
}

fn out_of_memory(memory: Memory) -> String {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let peak = memory.peak_bytes.map_or_else(|| "unknown".to_owned(), mib);
    let limit = memory.limit_bytes.map_or_else(|| "the machine's memory".to_owned(), mib);
    format!("killed for want of memory: peak {peak}, limit {limit}")
}

#[cfg(test)]
mod tests {
    use protocol::sidecar::StopCause;

    use super::*;

    fn failed(code: i32) -> Exit {
        let mut exit = Failure::new(FailureReason::AgentExit, "code").exit();
        exit.exit_code = Some(code);
        exit
    }

    #[test]
    fn a_kill_for_memory_is_named() {
        let memory = |oom_kills| Memory {
            peak_bytes: Some(64 << 20),
            limit_bytes: Some(64 << 20),
            oom_kills,
        };
        let exit = decide(Ok(failed(137)), None, memory(0), memory(1));
        assert_eq!(exit.reason, Some(FailureReason::ContainerOom));
        assert!(exit.message.contains("peak 64 MiB, limit 64 MiB"), "{}", exit.message);
        // Somebody else's SIGKILL is not the kernel's.
        let exit = decide(Ok(failed(137)), None, memory(1), memory(1));
        assert_eq!(exit.reason, Some(FailureReason::AgentExit));
        // A tool of the agent was killed, and the agent lived with it.
        let exit = decide(Ok(failed(3)), None, memory(0), memory(1));
        assert_eq!((exit.reason, exit.oom_killed), (Some(FailureReason::AgentExit), true));
    }

    #[test]
    fn a_message_of_any_length_arrives() {
        let mut ended = failed(1);
        ended.message = "é".repeat(1 << 20);
        let exit = decide(Ok(ended), None, Memory::default(), Memory::default());
        assert_eq!(exit.message.len(), MAX_MESSAGE_BYTES);
    }

    #[test]
    fn an_interrupt_that_nobody_ordered_is_the_agents_own() {
        let ended = Failure::new(FailureReason::TaskCancelled, "interrupted").exit();
        let exit = decide(Ok(ended), None, Memory::default(), Memory::default());
        assert_eq!((exit.success, exit.reason), (false, Some(FailureReason::AgentExit)));
    }

    #[test]
    fn what_was_ordered_is_said_whatever_the_provider_says() {
        let mut ended = failed(0);
        ended.success = true;
        let order = Order::of_worker(StopCause::Shutdown, 1);
        let exit = decide(Ok(ended), Some(order), Memory::default(), Memory::default());
        assert_eq!((exit.success, exit.reason), (false, Some(FailureReason::GracefulShutdown)));
    }
}
