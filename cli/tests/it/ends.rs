//! Ways to fail, each under its own name.

use protocol::{api::runs::RunItem, run::RunState};
use serde_json::{Value, json};

use crate::{images, stack::Stack};

/// A run of `command` that must end FAILED, and its error code.
async fn failed(command: &str, more: Value) -> (RunItem, String) {
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let environment = tenant.command(images::busybox(), command, more).await;
    let run = tenant.submit(&environment, "fail").await;
    let item = tenant.ended_as(&run, RunState::Failed).await;
    assert_eq!(item.attempt, 1, "a failure of the user's is not tried again");
    let code = item.status_message.as_ref().unwrap().error_code.clone().unwrap();
    stack.finish().await;
    (item, code)
}

#[tokio::test]
async fn a_set_up_command_that_fails_is_named() {
    let more = json!({"setup_commands": ["true", "echo no such thing >&2; exit 3"]});
    let (item, code) = failed("echo never >&2", more).await;
    assert_eq!(code, "environment_setup_failed");
    let message = item.status_message.unwrap().message;
    assert!(message.contains("exit 3") || message.contains("code 3"), "{message}");
}

#[tokio::test]
async fn the_agents_exit_code_is_told() {
    let (item, code) = failed("exit 7", json!({})).await;
    assert_eq!((code.as_str(), item.exit_code), ("agent_exit", Some(7)));
}

#[tokio::test]
async fn the_end_of_the_runs_time_is_told() {
    let (item, code) = failed("echo begun; sleep 600", json!({"timeout_secs": 3})).await;
    assert_eq!(code, "task_timeout");
    assert!(item.phases.len() >= 3, "{:?}", item.phases);
}

#[tokio::test]
async fn running_out_of_memory_is_told_as_that() {
    const LIMIT: u64 = 64 << 20;
    let shape = json!({"instance_shape": {"memory_gb": 0.0625}});
    let (item, code) = failed("tail /dev/zero", shape).await;
    assert_eq!((code.as_str(), item.exit_code), ("container_oom", Some(137)));
    let peak = item.peak_memory_bytes.unwrap();
    assert!((LIMIT / 2..=LIMIT).contains(&peak), "{peak} bytes of {LIMIT}");
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_named() {
    let (item, code) = failed("true", json!({"repos": ["/srv/no-such.git"]})).await;
    assert_eq!(code, "environment_setup_failed");
    let message = item.status_message.unwrap().message;
    assert!(message.contains("no-such"), "{message}");
}
