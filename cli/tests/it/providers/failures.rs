//! What goes wrong between a provider and its endpoint ends the run under its own name.

use protocol::{event::Event, run::RunState, spec::ProviderKind};
use serde_json::{Value, json};
use test_support::model::TEXT;

use super::Rig;

#[tokio::test]
async fn claude() {
    fails(ProviderKind::Claude).await;
}

#[tokio::test]
async fn codex() {
    fails(ProviderKind::Codex).await;
}

#[tokio::test]
async fn opencode() {
    fails(ProviderKind::Opencode).await;
}

#[tokio::test]
async fn gemini() {
    fails(ProviderKind::Gemini).await;
}

/// What the endpoint does, and what the run then ends with.
const EXPECTED: [(&str, &str); 6] = [
    ("unauthorized", "auth_expired"),
    ("rate-limit", "rate_limit"),
    ("quota", "quota_exhausted"),
    ("overloaded", "rate_limit"),
    ("reset", "network_error"),
    ("malformed", "network_error"),
];

async fn fails(provider: ProviderKind) {
    let rig = Rig::start(provider).await;
    let mut begun = Vec::new();
    for (scenario, code) in EXPECTED {
        begun.push((rig.begin(scenario, json!({})).await, code));
    }
    let once = rig.begin("rate-limit-once", json!({})).await;
    let strange = rig.begin("text", wrapped(provider)).await;
    let mut wrong = Vec::new();
    for (run, code) in &begun {
        let ended = run.ended_as(RunState::Failed).await;
        if ended.code() != *code {
            wrong.push((run.scenario, ended.code().to_owned(), ended.item.status_message.clone()));
        }
        assert!(!run.model.requests().is_empty(), "{}: nobody asked the model", ended.what);
        // What it said on the way is kept, however it ended.
        ended.file("transcript.jsonl");
    }
    assert!(wrong.is_empty(), "{}: {wrong:#?}", provider.as_str());

    let ended = once.ended_as(RunState::Succeeded).await;
    assert_eq!(ended.answer(), TEXT, "{}", ended.what);
    if matches!(provider, ProviderKind::Claude | ProviderKind::Codex) {
        // The other two say nothing of it on their standard output.
        ended.has("retry", |event| matches!(event, Event::ModelRetry { attempt: 1, .. }));
    }

    let ended = strange.ended_as(RunState::Failed).await;
    assert_eq!(ended.code(), "cli_version_mismatch", "{:?}", ended.item.status_message);
    assert!(strange.model.requests().is_empty(), "{}: it asked the model", ended.what);
    drop((begun, once, strange));
    rig.finish().await;
}

/// An image with a command line of its own, which is handed an argument that the real one does not know.
fn wrapped(provider: ProviderKind) -> Value {
    let name = provider.as_str();
    let real = format!("/harness/{name}/bin/{name}");
    // Where a subcommand comes first, it is the subcommand's.
    let call = match provider {
        ProviderKind::Codex | ProviderKind::Opencode => {
            format!("first=$1; shift; exec {real} \"$first\" --of-the-future \"$@\"")
        }
        _ => format!("exec {real} --of-the-future \"$@\""),
    };
    let path = format!("/usr/local/bin/{name}");
    let write = format!("printf '%s\\n' '#!/bin/sh' '{call}' >{path} && chmod 755 {path}");
    json!({"setup_commands": [write]})
}
