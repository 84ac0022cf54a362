//! What goes wrong between a provider and its endpoint ends the run under its own name.

use std::time::Duration;

use protocol::{event::Event, run::RunState, spec::ProviderKind};
use serde_json::{Value, json};
use test_support::model::{RETRY_AFTER, TEXT};

use super::{Ended, Rig};

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

/// What the endpoint does, what the run then ends with, and whether another attempt may end differently.
const EXPECTED: [(&str, &str, bool); 8] = [
    ("quota", "quota_exhausted", false),
    ("overloaded", "rate_limit", true),
    ("unauthorized", "auth_expired", false),
    ("rate-limit", "rate_limit", true),
    ("rate-limit-wait", "rate_limit", true),
    ("reset", "network_error", true),
    ("malformed", "network_error", true),
    ("refused", "content_policy_violation", false),
];

async fn fails(provider: ProviderKind) {
    let rig = Rig::start(provider).await;
    let mut begun = Vec::new();
    for (scenario, code, again) in EXPECTED {
        begun.push((rig.begin(scenario, json!({})).await, code, again));
    }
    let long = rig.begin("rate-limit-long", json!({"harness": {"idle_timeout_minutes": 1}})).await;
    let once = rig.begin("rate-limit-once", json!({})).await;
    let strange = rig.begin("text", wrapped(provider)).await;
    // `OpenCode` tries the first two again for more than a minute.
    begun.rotate_left(2);
    let mut wrong = Vec::new();
    for (run, code, again) in &begun {
        let ended = run.ended_as(RunState::Failed).await;
        let retryable = ended.item.status_message.as_ref().and_then(|message| message.retryable);
        if ended.code() != *code || retryable != Some(*again) {
            wrong.push((run.scenario, ended.code().to_owned(), ended.item.status_message.clone()));
        }
        // Codex does not tell how long it was asked to wait.
        if run.scenario == "rate-limit-wait" && provider != ProviderKind::Codex {
            assert!(waits(&ended) >= RETRY_AFTER, "{}: {:?}", ended.what, waits(&ended));
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

    asked_to_wait_an_hour(provider, &long.ended_as(RunState::Failed).await);
    drop((begun, long, once, strange));
    rig.finish().await;
}

/// Two give up at once. Codex sleeps, having told why; `OpenCode` sleeps and tells nothing.
fn asked_to_wait_an_hour(provider: ProviderKind, ended: &Ended) {
    let (code, said) = match provider {
        ProviderKind::Codex => ("rate_limit", "said nothing for 60 s"),
        ProviderKind::Opencode => ("agent_limit", "said nothing for 60 s"),
        _ => ("rate_limit", ""),
    };
    let message = ended.item.status_message.as_ref().map_or("", |message| &message.message);
    assert!(
        ended.code() == code && message.contains(said),
        "{}: {}: {message}",
        ended.what,
        ended.code()
    );
    if provider == ProviderKind::Gemini {
        assert_eq!(waits(ended), Duration::from_hours(1), "{}", ended.what);
    }
}

/// How long the run's vendor asks to be left alone.
fn waits(ended: &Ended) -> Duration {
    let wait = ended.events.iter().find_map(|event| match event {
        Event::Exit(exit) => exit.retry_after_ms,
        _ => None,
    });
    Duration::from_millis(wait.unwrap_or_default())
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
