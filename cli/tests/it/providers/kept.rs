//! A follow-up goes on: the provider remembers what was said, and its workspace is as it left it.

use protocol::{event::Event, run::RunState, spec::ProviderKind};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Begun, Ended, Rig};

#[tokio::test]
async fn claude() {
    goes_on(ProviderKind::Claude).await;
}

#[tokio::test]
async fn codex() {
    goes_on(ProviderKind::Codex).await;
}

#[tokio::test]
async fn opencode() {
    goes_on(ProviderKind::Opencode).await;
}

#[tokio::test]
async fn gemini() {
    goes_on(ProviderKind::Gemini).await;
}

#[tokio::test]
async fn agent() {
    goes_on(ProviderKind::Agent).await;
}

async fn goes_on(provider: ProviderKind) {
    let rig = Rig::start(provider).await;
    // Each start of a run leaves a line in the workspace.
    let more = json!({"setup_commands": ["echo begun >>/workspace/begun"], "artifacts": ["begun"]});
    let begun = rig.begin("file", more).await;
    let first = begun.ended_as(RunState::Succeeded).await;
    assert_eq!(first.file("begun"), "begun\n");

    let path = format!("/agent/runs/{}/followups", begun.run);
    let asked = json!({"message": "and once more"});
    let answer = rig.tenant.send(Method::POST, &path, Some(&asked)).await;
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    let made: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(made["conversation_id"], json!(begun.run));
    let run = made["run_id"].as_str().unwrap().to_owned();
    let Begun { model, scenario, .. } = begun;
    let follow_up = Begun { rig: &rig, model, scenario, run };
    let second = follow_up.ended_as(RunState::Succeeded).await;
    assert_eq!(second.file("begun"), "begun\nbegun\n", "{}", second.what);
    assert_eq!(users(&second), users(&first) + 1, "{}: {}", second.what, second.answer());
    assert_eq!(session(&second), session(&first), "{}", second.what);
    drop(follow_up);
    rig.finish().await;
}

/// How many messages of a user's the model was shown.
fn users(run: &Ended) -> u32 {
    let (_, rest) = run.answer().split_once("users=").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

fn session(run: &Ended) -> &str {
    let session = run.events.iter().find_map(|event| match event {
        Event::Session { session_id, .. } => Some(session_id.as_str()),
        _ => None,
    });
    session.unwrap_or_else(|| panic!("{}: no session", run.what))
}
