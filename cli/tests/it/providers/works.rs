//! What works: a tool that changes a file, and tools of servers, over standard streams and over HTTP.

use protocol::{event::Event, run::RunState, spec::ProviderKind};
use serde_json::{Value, json};
use test_support::model::{FILE_COMMAND, MCP_TEXT, RESULT_TEXT};

use super::{Ended, Rig};
use crate::images::Flow;

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
    let file = rig.begin("file", json!({})).await;
    let stdio = rig.begin("mcp", servers(stdio)).await;
    let http = rig.begin("mcp", servers(http)).await;
    a_file_is_changed(&file.ended_as(RunState::Succeeded).await);
    for run in [&stdio, &http] {
        a_servers_tool_is_called(&run.ended_as(RunState::Succeeded).await);
    }
    drop((file, stdio, http));
    rig.finish().await;
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
