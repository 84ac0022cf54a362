//! A cancel in the middle of a tool: the provider ends, and its tool with it.

use std::time::Duration;

use protocol::{run::RunState, spec::ProviderKind};
use serde_json::json;
use test_support::{image::docker, wait::eventually_within};

use super::Rig;
use crate::stack::Stack;

#[tokio::test]
async fn claude() {
    is_cancelled(ProviderKind::Claude).await;
}

#[tokio::test]
async fn codex() {
    is_cancelled(ProviderKind::Codex).await;
}

#[tokio::test]
async fn opencode() {
    is_cancelled(ProviderKind::Opencode).await;
}

#[tokio::test]
async fn gemini() {
    is_cancelled(ProviderKind::Gemini).await;
}

async fn is_cancelled(provider: ProviderKind) {
    let rig = Rig::start(provider).await;
    let begun = rig.begin("sleep", json!({})).await;
    eventually_within(Duration::from_mins(2), "the tool sleeps", || async {
        let containers = Stack::containers(&begun.run);
        let running = containers.iter().any(|id| docker(&["top", id], &[]).contains("sleep 300"));
        if !running {
            let item = rig.tenant.run(&begun.run).await;
            assert!(!item.state.is_terminal(), "it ended before its tool began: {item:?}");
        }
        running.then_some(())
    })
    .await;
    rig.tenant.cancel(&begun.run).await;
    let ended = begun.ended_as(RunState::Cancelled).await;
    // What was done until then is kept.
    assert!(ended.file(".patch").contains("+begun"), "{}: {:?}", ended.what, ended.files);
    ended.file("transcript.jsonl");
    drop(begun);
    rig.finish().await;
}
