//! What works: a tool that changes a file, and tools of servers, over standard streams and over HTTP; the model by
//! another name, a base prompt, a bound on turns; and what the summary says of it.

use protocol::{
    event::Event,
    evidence::{Summary, ToolCount},
    failure::FailureReason,
    run::RunState,
    spec::ProviderKind,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_support::model::{FILE_COMMAND, MCP_TEXT, RESULT_TEXT};

use super::{Begun, Ended, Rig};
use crate::images::Flow;

/// What the run asks for, and what its environment maps it to.
const ASKED: &str = "large";
const MAPPED: &str = "a-larger-model";

/// Stands in the base prompt and nowhere else.
const BASE_PROMPT: &str = "Be as brief as a heron.";

#[tokio::test]
async fn claude() {
    works(ProviderKind::Claude).await;
}

#[tokio::test]
async fn codex() {
    works(ProviderKind::Codex).await;
}

#[tokio::test]
async fn opencode() {
    works(ProviderKind::Opencode).await;
}

#[tokio::test]
async fn gemini() {
    works(ProviderKind::Gemini).await;
}

async fn works(provider: ProviderKind) {
    let rig = Rig::start(provider).await;
    let web = Flow::start().await;
    let servers = |server: Value| json!({"harness": {"mcp_servers": {"flow": server}}});
    let stdio =
        json!({"command": "perl", "args": ["/opt/flow/flow.pl"], "env": {"OF_THE_SERVER": "x"}});
    let http = json!({"url": web.url(), "headers": {"x-key": "k"}});
    let named = json!({"harness":
        {"model_id": ASKED, "model_map": {ASKED: MAPPED}, "base_prompt": BASE_PROMPT}});
    let file = rig.begin("file", named).await;
    let stdio = rig.begin("mcp", servers(stdio)).await;
    let http = rig.begin("mcp", servers(http)).await;
    let ended = file.ended_as(RunState::Succeeded).await;
    a_file_is_changed(&ended);
    the_model_is_told(&file, &ended.what);
    the_summary_says_it(&file, &ended).await;
    for run in [&stdio, &http] {
        a_servers_tool_is_called(&run.ended_as(RunState::Succeeded).await);
    }
    drop((file, stdio, http));
    if matches!(provider, ProviderKind::Claude | ProviderKind::Gemini) {
        a_bound_on_turns_holds(&rig).await;
    }
    rig.finish().await;
}

/// By its mapped name, and with the base prompt.
fn the_model_is_told(run: &Begun<'_>, what: &str) {
    let requests = run.model.requests();
    let asked = requests.iter().filter(|request| request.method == "POST");
    for request in asked.clone() {
        let named = request.body["model"] == MAPPED
            || request.path.starts_with(&format!("/v1beta/models/{MAPPED}:"));
        assert!(named, "{what}: {} {}", request.path, request.body["model"]);
    }
    let told = asked.filter(|request| request.body.to_string().contains(BASE_PROMPT)).count();
    // Before its tool and after it; titles are asked for without.
    assert!(told >= 2, "{what}: the base prompt came in {told} of {}", requests.len());
}

async fn summary(run: &Begun<'_>) -> Summary {
    let path = format!("/agent/runs/{}/evidence/summary.json", run.run);
    run.rig.tenant.get(&path).await.json().await.unwrap()
}

async fn the_summary_says_it(run: &Begun<'_>, ended: &Ended) {
    let what = &ended.what;
    let summary = summary(run).await;
    let provider = run.rig.provider;
    let shell = match provider {
        ProviderKind::Claude => "Bash",
        ProviderKind::Gemini => "run_shell_command",
        ProviderKind::Codex => "shell",
        _ => "bash",
    };
    assert_eq!(summary.provider, provider.as_str());
    assert_eq!(summary.model.as_deref(), Some(MAPPED), "{what}");
    let once = ToolCount { calls: 1, ok: 1, failed: 0 };
    assert_eq!(summary.tools, [(shell.to_owned(), once)].into(), "{what}");
    assert!(summary.tokens.input > 0 && summary.tokens.output > 0, "{what}: {summary:?}");
    let costs = summary.cost_usd.is_some_and(|cost| cost > 0.0);
    assert!(costs || provider != ProviderKind::Claude, "{what}: {summary:?}");
    assert!(summary.complete && !summary.truncated && summary.session_id.is_some(), "{what}");
    let exit = summary.exit.unwrap();
    assert_eq!((exit.success, exit.reason), (true, None), "{what}");
    for (name, content) in &ended.files {
        let left = summary.artifacts.iter().find(|left| left.name == *name);
        let left = left.unwrap_or_else(|| panic!("{what}: {name} is not in the summary"));
        let digest = hex::encode(Sha256::digest(content));
        assert_eq!(left.sha256.as_deref(), Some(digest.as_str()), "{what}: {name}");
        assert_eq!(left.bytes, Some(content.len() as u64), "{what}: {name}");
    }
}

async fn a_bound_on_turns_holds(rig: &Rig) {
    let run = rig.begin("file", json!({"harness": {"max_turns": 1}})).await;
    let ended = run.ended_as(RunState::Failed).await;
    assert_eq!(ended.code(), "agent_limit", "{}: {:?}", ended.what, ended.item.status_message);
    let exit = summary(&run).await.exit.unwrap();
    assert_eq!((exit.success, exit.reason), (false, Some(FailureReason::AgentLimit)));
}

fn a_file_is_changed(run: &Ended) {
    run.has("call of the shell", |event| {
        matches!(event, Event::ToolCall { input, scripted: false, .. }
            if input.to_string().contains("written-by-the-model"))
    });
    run.has("result of the shell", |event| {
        matches!(event, Event::ToolResult { ok: true, output, .. }
            if output.contains("written-by-the-model"))
    });
    run.has("session", |event| matches!(event, Event::Session { .. }));
    run.has("usage", |event| {
        matches!(event, Event::Usage { input_tokens: 22.., output_tokens: 14.., .. })
    });
    assert!(run.answer().starts_with(RESULT_TEXT), "{}: {}", run.what, run.answer());
    let patch = run.file(".patch");
    assert!(patch.contains("+written-by-the-model"), "{}: {patch}", run.what);
    // As the provider printed it: the command as it went to the shell, among its own words.
    let transcript = run.file("transcript.jsonl");
    assert!(transcript.contains(FILE_COMMAND), "{}: {transcript}", run.what);
}

fn a_servers_tool_is_called(run: &Ended) {
    run.has("call of the server's tool", |event| {
        matches!(event, Event::ToolCall { name, input, .. }
            if name.contains("echo") && input["text"] == MCP_TEXT)
    });
    let said = format!("echo:{MCP_TEXT}");
    run.has("result of the server's tool", |event| {
        matches!(event, Event::ToolResult { ok: true, output, .. } if output.contains(&said))
    });
    assert!(run.answer().starts_with(RESULT_TEXT), "{}: {}", run.what, run.answer());
}
