//! A cancel takes effect wherever the run is.

use protocol::{api::runs::RunItem, run::RunState};
use serde_json::json;
use test_support::{silence::Silence, wait::eventually};

use crate::{client::Tenant, images, stack::Stack};

async fn cancelled(tenant: &Tenant, run: &str) -> RunItem {
    tenant.cancel(run).await;
    let item = tenant.ended_as(run, RunState::Cancelled).await;
    assert!(!item.cancelling);
    item
}

async fn asked(server: &Silence, what: &str) {
    eventually(what, || async { (server.accepted() > 0).then_some(()) }).await;
}

#[tokio::test]
async fn while_the_image_is_pulled() {
    let registry = Silence::start_on("127.0.0.1:0").await;
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let image = format!("{}/slow:latest", registry.addr());
    let environment = tenant.command(&image, "true", json!({})).await;
    let run = tenant.submit(&environment, "never").await;
    asked(&registry, "the engine asks the registry").await;
    cancelled(&tenant, &run).await;
    stack.finish().await;
}

#[tokio::test]
async fn while_a_repository_is_cloned() {
    let server = Silence::start_on(&format!("{}:0", images::host())).await;
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let repository = format!("https://{}/slow.git", server.addr());
    let environment =
        tenant.command(images::busybox(), "true", json!({"repos": [repository]})).await;
    let run = tenant.submit(&environment, "never").await;
    asked(&server, "the sidecar asks the repository's host").await;
    cancelled(&tenant, &run).await;
    stack.finish().await;
}

#[tokio::test]
async fn while_the_provider_runs() {
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    // Deaf to the interrupt, and with a child of its own: the grace and the kill have to do it.
    let command = "trap '' TERM INT; echo begun; sleep 600 & sleep 600";
    let environment = tenant.command(images::busybox(), command, json!({})).await;
    let run = tenant.submit(&environment, "never").await;
    tenant.until_printed(&run, "begun").await;
    cancelled(&tenant, &run).await;
    let again =
        tenant.send(reqwest::Method::POST, &format!("/agent/runs/{run}/cancel"), None).await;
    assert_eq!(again.status(), 400, "a run that has ended takes no cancel");
    stack.finish().await;
}

#[tokio::test]
async fn while_nobody_has_taken_it() {
    let mut stack = Stack::start().await;
    stack.kill_worker();
    let tenant = stack.tenant("tenant-a");
    let environment = tenant.command(images::busybox(), "true", json!({})).await;
    let run = tenant.submit(&environment, "never").await;
    // The plane may not know yet that the worker is gone, and be handing the run over.
    let waits = |item: &RunItem| item.state == RunState::Queued;
    tenant.until(&run, "the run waits", waits).await;
    cancelled(&tenant, &run).await;
    stack.restart_worker();
    stack.finish().await;
}
