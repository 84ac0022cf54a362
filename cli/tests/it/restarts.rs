//! A process that is killed in the middle of a run costs the run nothing.

use protocol::run::RunState;
use serde_json::json;
use test_support::{image::docker, wait::eventually};

use crate::{client::Tenant, images, stack::Stack};

/// Lines the run prints, a tenth of a second apart.
const LINES: usize = 80;

/// A run that prints numbered lines and has begun to.
async fn counting(tenant: &Tenant) -> String {
    let command =
        format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done");
    let environment = tenant.command(images::busybox(), &command, json!({})).await;
    let run = tenant.submit(&environment, "count").await;
    tenant.until_printed(&run, "line 10\n").await;
    run
}

/// It ended well in its first attempt, and every line is there once.
async fn counted(tenant: &Tenant, run: &str) {
    let item = tenant.ended_as(run, RunState::Succeeded).await;
    assert_eq!(item.attempt, 1, "it was begun again: {:?}", item.attempts);
    let expected: Vec<String> = (0..LINES).map(|n| format!("line {n}\n")).collect();
    assert_eq!(tenant.output(run).await, expected.concat());
}

#[tokio::test]
async fn a_killed_worker_takes_its_container_up_again() {
    let mut stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let run = counting(&tenant).await;
    let before = Stack::containers(&run);
    stack.kill_worker();
    assert_eq!(Stack::containers(&run), before, "the container outlives its worker");
    stack.restart_worker();
    tenant.until_printed(&run, "line 30\n").await;
    assert_eq!(Stack::containers(&run), before, "the same container goes on");
    counted(&tenant, &run).await;
    stack.finish().await;
}

#[tokio::test]
async fn a_run_that_ends_while_its_worker_is_away_is_reported_afterwards() {
    let mut stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let environment =
        tenant.command(images::busybox(), "echo begun; sleep 3; echo done", json!({})).await;
    let run = tenant.submit(&environment, "go on without me").await;
    tenant.until_printed(&run, "begun").await;
    stack.kill_worker();
    // The provider ends; its sidecar stays and waits for somebody to acknowledge.
    let container = Stack::containers(&run).remove(0);
    eventually("the provider has ended", || {
        let processes = docker(&["top", &container], &[]);
        async move { (!processes.contains("sleep 3")).then_some(()) }
    })
    .await;
    stack.restart_worker();
    let item = tenant.ended_as(&run, RunState::Succeeded).await;
    assert_eq!(item.attempt, 1);
    assert_eq!(tenant.output(&run).await, "begun\ndone\n");
    stack.finish().await;
}

#[tokio::test]
async fn a_killed_plane_interrupts_nothing() {
    plane_killed(Stack::start().await).await;
}

#[tokio::test]
async fn a_killed_plane_interrupts_nothing_on_postgres() {
    plane_killed(Stack::start_on_postgres().await).await;
}

async fn plane_killed(mut stack: Stack) {
    let tenant = stack.tenant("tenant-a");
    let run = counting(&tenant).await;
    let before = Stack::containers(&run);
    stack.kill_plane();
    stack.restart_plane().await;
    tenant.until_printed(&run, "line 30\n").await;
    assert_eq!(Stack::containers(&run), before);
    counted(&tenant, &run).await;
    stack.finish().await;
}
