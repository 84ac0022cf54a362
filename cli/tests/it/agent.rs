//! The built-in agent in a container, with a model that answers over HTTP and with a scripted one.

use std::fs;

use protocol::{api::events::EventView, event::Event, run::RunState};
use serde_json::json;
use test_support::model::{Model, RESULT_TEXT, TOOL_COMMAND};

use crate::{images, stack::Stack};

#[tokio::test]
async fn a_model_calls_a_tool_and_answers() {
    let model = Model::start_on(&format!("{}:0", images::host())).await;
    let base_url = model.base_url("tool");
    let stack = Stack::start_with(&[
        ("OZ_PROVIDER_BASE_URL", base_url.as_str()),
        ("OZ_PROVIDER_API_KEY", "the-key"),
        ("OZ_PROVIDER_MODEL", "test-model"),
    ])
    .await;
    let tenant = stack.tenant("tenant-a");
    let environment =
        tenant.environment(&json!({"name": "agent", "docker_image": images::busybox()})).await;
    let run = tenant.submit(&environment, "use the tool").await;
    tenant.ended_as(&run, RunState::Succeeded).await;

    let events: Vec<Event> =
        tenant.events(&run).await.iter().filter_map(EventView::event).collect();
    assert!(events.iter().any(|event| matches!(event,
        Event::ToolCall { name, input, scripted: false, .. }
            if name == "shell" && input["command"] == TOOL_COMMAND)));
    assert!(events.iter().any(|event| matches!(event,
        Event::ToolResult { ok: true, output, .. } if output.contains("from-the-tool"))));
    assert!(events.iter().any(|event| matches!(event,
        Event::Answer { text, .. } if text == RESULT_TEXT)));
    let requests = model.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].headers["authorization"], "Bearer the-key");
    stack.finish().await;
}

#[tokio::test]
async fn a_model_that_refuses_the_key_fails_the_run_by_name() {
    let model = Model::start_on(&format!("{}:0", images::host())).await;
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let environment = tenant
        .environment(&json!({
            "name": "agent", "docker_image": images::busybox(),
            "env_vars": {
                "OPENAI_API_KEY": "wrong", "OPENAI_MODEL": "test-model",
                "OPENAI_BASE_URL": model.base_url("unauthorized"),
            },
        }))
        .await;
    let run = tenant.submit(&environment, "anything").await;
    let item = tenant.ended_as(&run, RunState::Failed).await;
    let code = item.status_message.unwrap().error_code.unwrap();
    assert!(code.starts_with("auth"), "{code}");
    stack.finish().await;
}

/// By the worker's settings, and by the names of the smaller runner in the environment.
#[tokio::test]
async fn a_local_server_is_asked_without_a_key() {
    let model = Model::start_on(&format!("{}:0", images::host())).await;
    let base_url = model.base_url("text");
    let settings = [("OZ_PROVIDER_BASE_URL", base_url.as_str()), ("OZ_PROVIDER_MODEL", "m-worker")];
    let stack = Stack::start_with(&settings).await;
    let tenant = stack.tenant("tenant-a");
    let own = json!({
        "WORKBENCH_PROVIDER": "openai-local", "WORKBENCH_OPENAI_BASE_URL": base_url,
        "WORKBENCH_OPENAI_MODEL": "m-own",
    });
    for (values, name) in [(json!({}), "m-worker"), (own, "m-own")] {
        let body = json!({"name": name, "docker_image": images::busybox(), "env_vars": values});
        let environment = tenant.environment(&body).await;
        let run = tenant.submit(&environment, "hello").await;
        tenant.ended_as(&run, RunState::Succeeded).await;
        let asked = model.requests().pop().unwrap();
        assert_eq!(asked.body["model"], name);
        assert_eq!(asked.headers.get("authorization"), None);
    }
    stack.finish().await;
}

/// The worker mounts the command line of the one that will run.
#[tokio::test]
async fn the_agent_steps_aside_for_claude_code() {
    let model = Model::start_on(&format!("{}:0", images::host())).await;
    let settings = [
        ("OZ_PROVIDER_BASE_URL", "http://127.0.0.1:9/v1"),
        ("OZ_PROVIDER_API_KEY", "of-the-worker"),
    ];
    let stack = Stack::start_with(&settings).await;
    let tenant = stack.tenant("tenant-a");
    let environment = tenant
        .environment(&json!({
            "name": "agent", "docker_image": images::workshop(),
            "harness": {"type": "agent"},
            "env_vars": {
                "WORKBENCH_PROVIDER": "claude-code", "WORKBENCH_ANTHROPIC_API_KEY": "of-the-environment",
                "WORKBENCH_CLAUDE_MODEL": "test-model", "ANTHROPIC_BASE_URL": model.root("file"),
            },
        }))
        .await;
    let run = tenant.submit(&environment, "write it").await;
    tenant.ended_as(&run, RunState::Succeeded).await;
    let events: Vec<Event> =
        tenant.events(&run).await.iter().filter_map(EventView::event).collect();
    let session =
        |event: &Event| matches!(event, Event::Session { provider, .. } if provider == "claude");
    assert!(events.iter().any(session), "{events:#?}");
    for asked in model.requests().iter().filter(|asked| asked.method == "POST") {
        assert_eq!(asked.headers["x-api-key"], "of-the-environment");
        assert!(!format!("{asked:?}").contains("of-the-worker"));
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_scripted_model_marks_everything_it_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script.json");
    let turns = json!({"name": "test", "turns": [
        {"text": "You said {{prompt}}.", "tools": [
            {"name": "write_file", "input": {"path": "note.txt", "content": "hello\n"}},
            {"name": "shell", "input": {"command": "cat note.txt; id -u"}},
        ]},
        {"answer": "Done."},
    ]});
    fs::write(&script, turns.to_string()).unwrap();
    let stack = Stack::start_with(&[("OZ_PROVIDER_SCRIPT", script.to_str().unwrap())]).await;
    let tenant = stack.tenant("tenant-a");
    let environment =
        tenant.environment(&json!({"name": "agent", "docker_image": images::busybox()})).await;
    let run = tenant.submit(&environment, "greet").await;
    tenant.ended_as(&run, RunState::Succeeded).await;

    let mut marked = 0;
    for event in tenant.events(&run).await.iter().filter_map(EventView::event) {
        match event {
            Event::Text { text, scripted } => {
                assert!(scripted && text == "You said greet.", "{text}");
                marked += 1;
            }
            Event::ToolCall { scripted, .. } => {
                assert!(scripted);
                marked += 1;
            }
            Event::ToolResult { scripted, name, output, .. } => {
                assert!(scripted);
                // Tools run as the agent's own user, never as root.
                assert!(name != "shell" || output.contains("hello\n10001"), "{output}");
                marked += 1;
            }
            Event::Answer { scripted, text } => {
                assert!(scripted && text == "Done.", "{text}");
                marked += 1;
            }
            _ => {}
        }
    }
    assert_eq!(marked, 6);
    stack.finish().await;
}
